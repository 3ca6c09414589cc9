"""Sheets of pictures of a dataset: a row a sample, and the photos that were left out.

A row is a tile for each column and a strip below each tile, `TILE` wide and `STRIP` high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from asmgen.asmd import face_box
from asmgen.shards import ShardSet

TILE = 256
STRIP = TILE // 3
GAP = 6
HEADING = 34
THUMBNAIL = TILE // 2
_TEXT = 12
_LINE = 16
_COLUMNS = 10


def draw_sheet(
    shards: ShardSet,
    samples: Sequence[int] | None,
    columns: Sequence[tuple[str, str]],
    draw_row: Callable[[int], Sequence[tuple[Image.Image, Image.Image]]],
) -> Image.Image:
    """Draw samples of shards, a row each.

    Parameters
    ----------
    shards : ShardSet
        The samples.
    samples : Sequence[int] | None
        Samples to draw; None draws eight, evenly spread.
    columns : Sequence[tuple[str, str]]
        Of each column, the heading and what the strip shows ("" for none).
    draw_row : Callable[[int], Sequence[tuple[Image.Image, Image.Image]]]
        Gives tile and strip of each column for the index of a sample.

    Returns
    -------
    Image.Image
        RGB; `chosen_samples` says what may go wrong.
    """
    samples = chosen_samples(shards, samples, 8)
    width, height = len(columns) * (TILE + GAP) + GAP, TILE + STRIP + 2 * GAP
    sheet = Image.new("RGB", (width, HEADING + height * len(samples)), "white")
    for column, (heading, below) in enumerate(columns):
        middle = GAP + column * (TILE + GAP) + TILE // 2
        write(sheet, (middle, 9), heading, 15, "mm")
        write(sheet, (middle, 25), below and f"below: {below}", _TEXT, "mm")
    for row, index in enumerate(samples):
        for column, (tile, strip) in enumerate(draw_row(index)):
            left, top = GAP + column * (TILE + GAP), HEADING + row * height
            sheet.paste(tile, (left, top))
            sheet.paste(strip, (left, top + TILE + GAP // 2))
    return sheet


def chosen_samples(shards: ShardSet, samples: Sequence[int] | None, most: int) -> list[int]:
    """Return the samples to draw, counted from 0; by default so many of all, evenly spread.

    Parameters
    ----------
    shards : ShardSet
        The samples.
    samples : Sequence[int] | None
        Samples asked for; negative ones count from the end.
    most : int
        How many are drawn if none is asked for.

    Returns
    -------
    list[int]
        Indices.

    Raises
    ------
    ValueError
        If there is no sample, or not the one asked for.
    """
    if not len(shards):
        raise ValueError(f"{shards.paths[0].parent} holds no sample to draw; all photos were rejected")
    for index in samples or ():
        if not -len(shards) <= index < len(shards):
            raise ValueError(f"samples must be among the {len(shards)} there are, got {index}")
    return [int(index) % len(shards) for index in (evenly(len(shards), most) if samples is None else samples)]


def rejected_sheet(shards: str | Path | Sequence, most: int = 100) -> Image.Image:
    """Draw the photos that gave no sample, with their reasons, one kind of reason after the other.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards of any kind, one shard, or a list of them.
    most : int
        Photos to draw at most, evenly spread over all.

    Returns
    -------
    Image.Image
        RGB; a photo without a preview is a grey square.

    Raises
    ------
    ValueError
        If nothing was rejected.
    """
    found = ShardSet(shards)
    rejected = [(*pair, preview) for pair, preview in zip(found.rejected, found.rejected_previews)]
    if not rejected:
        raise ValueError(f"{found.paths[0].parent} holds no rejected photo to draw; all gave samples")
    rejected.sort(key=lambda photo: photo[1].split(":")[0])
    thumbnails = []
    for index in evenly(len(rejected), most):
        source, reason, preview = rejected[index]
        picture = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "lightgrey")
        if preview:
            with Image.open(BytesIO(preview)) as image:
                picture = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL))
        thumbnails.append((picture, [Path(source).name[-18:], *_folded(reason, THUMBNAIL)[:3]]))
    return contact_sheet(thumbnails, 4)


def contact_sheet(thumbnails: Sequence[tuple[Image.Image, Sequence[str]]], lines: int) -> Image.Image:
    """Return pictures of side `THUMBNAIL` in rows, each over so many lines of text of its own."""
    columns = min(_COLUMNS, len(thumbnails))
    width, height = THUMBNAIL + 2 * GAP, THUMBNAIL + lines * _LINE + 2 * GAP
    sheet = Image.new("RGB", (columns * width, -(-len(thumbnails) // columns) * height), "white")
    for place, (picture, text) in enumerate(thumbnails):
        left, top = place % columns * width + GAP, place // columns * height + GAP
        sheet.paste(picture, (left, top))
        sheet.paste(text_strip(text, THUMBNAIL, lines * _LINE), (left, top + THUMBNAIL))
    return sheet


def evenly(count: int, most: int) -> np.ndarray:
    """Return up to so many of `count` indices, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def _folded(text: str, width: int) -> list[str]:
    """A text in lines of some width."""
    font, lines = ImageFont.load_default(_TEXT), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def as_picture(pixels: np.ndarray, side: int = TILE) -> Image.Image:
    """Return (H, W, 3) or (H, W) values as an RGB picture, [0, 1] to [0, 255]."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).resize((side, side))


def picture_strip(pictures: Sequence[np.ndarray | Image.Image]) -> Image.Image:
    """Return up to three pictures side by side, as wide as a tile."""
    strip = Image.new("RGB", (TILE, STRIP), "white")
    for place, picture in enumerate(pictures):
        if not isinstance(picture, Image.Image):
            picture = Image.fromarray(picture)
        strip.paste(picture.resize((STRIP, STRIP)), (place * (TILE - STRIP) // 2, 0))
    return strip


def text_strip(lines: Sequence[str], width: int = TILE, height: int = STRIP) -> Image.Image:
    """Return lines of text on white."""
    strip = Image.new("RGB", (width, height), "white")
    for number, line in enumerate(lines):
        write(strip, (2, 9 + _LINE * number), line, _TEXT, "lm")
    return strip


def sample_caption(index: int, sample: dict) -> list[str]:
    """Return what a sample of any kind tells about its photo, as lines."""
    pitch, yaw, roll = np.degrees(sample["pose"])
    error = sample["landmark_error"]
    percent = 100 * error / face_box(sample["landmarks"])
    return [
        f"{index}: {sample['source'][-36:]}",
        f"pitch {pitch:.0f}, yaw {yaw:.0f}, roll {roll:.0f} degrees",
        f"landmarks off by {error:.2f} px, {percent:.2f} % of the box" if np.isfinite(error) else "no labels",
        f"light residual {sample['light_residual']:.3f}",
    ]


def write(picture: Image.Image, place: tuple[int, int], text: str, size: int, anchor: str) -> None:
    """Draw a line of text."""
    ImageDraw.Draw(picture).text(place, text, fill="black", font=ImageFont.load_default(size), anchor=anchor)
