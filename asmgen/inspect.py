"""Look at ASMD shards: a sheet of pictures, a row a sample, and a table of statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from asmgen.asmd import AsmdReader, decode_image, face_box, open_asmd
from asmgen.pipeline import count_reasons
from asmgen.shards import ShardSet
from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from bfm.pose import project
from bfm.render import clay, portrait, visible_vertices

TILE = 256
STRIP = TILE // 3
GAP = 6
HEADING = 34
EXPRESSION_GAIN = 4
"""Expression maps are drawn this much stronger; offsets are small beside positions."""

HEADINGS = (
    "crop", "mesh and landmarks", "identity ASM", f"expression ASM x{EXPRESSION_GAIN}", "sum", "mesh of the sum",
)
SUBHEADINGS = ("", "crop, mesh, landmarks (blue: hidden)", "x, y, z", "x, y, z", "x, y, z", "neutral, two sides")
_CURVES = (range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36), [*range(36, 42), 36],
           [*range(42, 48), 42], [*range(48, 60), 48], [*range(60, 68), 60])
_SEEN_COLOUR, _HIDDEN_COLOUR = (70, 255, 60), (60, 120, 255)
_MESH_OPACITY = 0.55


def inspect_sheet(
    shards: str | Path | Sequence, samples: Sequence[int] | None = None, face_model: str | MorphableModel | None = None
) -> Image.Image:
    """Draw samples of ASMD shards, after Fig. 3 of the paper.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards, one shard, or a list of them.
    samples : Sequence[int] | None
        Samples to draw; None draws eight, evenly spread.
    face_model : str | MorphableModel | None
        The model of ``params`` shards, or its file; None is the open model. Dense shards don't need it.

    Returns
    -------
    Image.Image
        RGB. Positions are colours: x, y, z from -1 to 1 become red, green, blue from 0 to 255.

    Raises
    ------
    ValueError
        If the shards hold no sample, or not the one asked for.
    """
    reader = open_reader(shards, face_model)
    if not len(reader):
        raise ValueError(f"{reader.shards.paths[0].parent} holds no sample to draw; all photos were rejected")
    if samples is None:
        samples = np.unique(np.linspace(0, len(reader) - 1, 8).round().astype(int))
    for index in samples:
        if not -len(reader) <= index < len(reader):
            raise ValueError(f"samples must be among the {len(reader)} there are, got {index}")
    width, height = len(HEADINGS) * (TILE + GAP) + GAP, TILE + STRIP + 2 * GAP
    sheet = Image.new("RGB", (width, HEADING + height * len(samples)), "white")
    for column, (heading, below) in enumerate(zip(HEADINGS, SUBHEADINGS)):
        middle = GAP + column * (TILE + GAP) + TILE // 2
        _write(sheet, (middle, 9), heading, 15, "mm")
        _write(sheet, (middle, 25), below and f"below: {below}", 12, "mm")
    for row, index in enumerate(samples):
        for column, (tile, strip) in enumerate(_tiles(reader, int(index) % len(reader))):
            left, top = GAP + column * (TILE + GAP), HEADING + row * height
            sheet.paste(tile, (left, top))
            sheet.paste(strip, (left, top + TILE + GAP // 2))
    return sheet


def open_reader(shards: str | Path | Sequence, face_model: str | MorphableModel | None = None) -> AsmdReader:
    """Open ASMD shards; the model (by default the open one) is loaded only where the shards hold no maps."""
    if open_asmd(shards).attributes["encoding"] != "params":
        return AsmdReader(shards)
    if face_model is None or not isinstance(face_model, MorphableModel):
        face_model = load_model(face_model or "open")
    return AsmdReader(shards, face_model)


def _tiles(reader: AsmdReader, index: int) -> list[tuple[Image.Image, Image.Image]]:
    """The pictures of one sample: a tile and the strip below it for each column."""
    sample = reader.shards[index]
    identity_map, expression_map = reader.maps(sample)
    full_map = identity_map + expression_map
    vertices, neutral = reader.vertices(full_map), reader.vertices(identity_map)
    crop = Image.fromarray(decode_image(sample["image"])).resize((TILE, TILE), Image.Resampling.BICUBIC)
    zoom = TILE / reader.shards.attributes["size"]
    points = project(vertices, sample["pose"], sample["position"]) * zoom + [(zoom - 1) / 2, (zoom - 1) / 2, 0]
    mesh = Image.fromarray(clay(points, reader.triangles, np.asarray(crop)))
    seen = visible_vertices(points, reader.triangles, TILE, TILE)[reader.landmarks]
    landmarks = (sample["landmarks"] + 0.5) * zoom - 0.5
    overlay, plain = (
        _with_landmarks(picture, landmarks, seen) for picture in (Image.blend(crop, mesh, _MESH_OPACITY), crop)
    )
    views = [
        portrait(shape, reader.triangles, (0.0, yaw, 0.0), STRIP)
        for shape, yaw in ((neutral, 0.0), (vertices, -1.1), (vertices, 1.1))
    ]
    return [
        (crop, _caption(index, sample)),
        (overlay, _strip([np.asarray(picture.resize((STRIP, STRIP))) for picture in (crop, mesh, plain)])),
        *((_as_colours(maps), _strip(list(_channels(maps))))
          for maps in (identity_map, EXPRESSION_GAIN * expression_map, full_map)),
        (Image.fromarray(portrait(vertices, reader.triangles, size=TILE)), _strip(views)),
    ]


def _with_landmarks(tile: Image.Image, landmarks: np.ndarray, seen: np.ndarray) -> Image.Image:
    """A tile with the curves of the 68 landmarks drawn smoothly, those on the far side in another colour."""
    fine = 3
    places = [tuple(place) for place in ((landmarks + 0.5) * fine - 0.5).tolist()]
    tile = tile.copy()
    for colour, wanted in ((_HIDDEN_COLOUR, False), (_SEEN_COLOUR, True)):
        layer = Image.new("L", (TILE * fine, TILE * fine))
        draw = ImageDraw.Draw(layer)
        for curve in _CURVES:
            for start, stop in zip(curve, curve[1:]):
                if (seen[start] or seen[stop]) == wanted:
                    draw.line([places[start], places[stop]], fill=255, width=fine + 1)
        tile.paste(colour, mask=layer.resize((TILE, TILE), Image.Resampling.BOX))
    return tile


def _as_colours(maps: np.ndarray) -> Image.Image:
    """A (3, S, S) map as RGB, [-1, 1] to [0, 255]; zero, as outside the chart, is grey."""
    pixels = np.rint(np.clip((maps + 1) / 2, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).resize((TILE, TILE))


def _channels(maps: np.ndarray) -> list[np.ndarray]:
    """The three channels of a map as grey RGB thumbnails."""
    grey = np.asarray(_as_colours(maps).resize((STRIP, STRIP)))
    return [grey[..., [channel] * 3] for channel in range(3)]


def _strip(pictures: list[np.ndarray]) -> Image.Image:
    """Thumbnails side by side, as wide as a tile."""
    strip = Image.new("RGB", (TILE, STRIP), "white")
    for place, picture in enumerate(pictures):
        strip.paste(Image.fromarray(picture), (place * (TILE - STRIP) // 2, 0))
    return strip


def _caption(index: int, sample: dict) -> Image.Image:
    """What the sample's numbers say, under its crop."""
    pitch, yaw, roll = np.degrees(sample["pose"])
    error = sample["landmark_error"]
    percent = 100 * error / face_box(sample["landmarks"])
    lines = [
        f"{index}: {sample['source'][-36:]}",
        f"pitch {pitch:.0f}, yaw {yaw:.0f}, roll {roll:.0f} degrees",
        f"landmarks off by {error:.2f} px, {percent:.2f} % of the box" if np.isfinite(error) else "no labels",
        f"light residual {sample['light_residual']:.3f}",
        f"largest map value {sample['map_peak']:.2f}",
    ]
    strip = Image.new("RGB", (TILE, STRIP), "white")
    for number, line in enumerate(lines):
        _write(strip, (2, 9 + 16 * number), line, 12, "lm")
    return strip


def _write(picture: Image.Image, place: tuple[int, int], text: str, size: int, anchor: str) -> None:
    """Draw a line of text."""
    ImageDraw.Draw(picture).text(place, text, fill="black", font=ImageFont.load_default(size), anchor=anchor)


def statistics_table(shards: str | Path | Sequence) -> str:
    """Return what ASMD shards hold, as lines of text; ValueError if they are no ASMD.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards, one shard, or a list of them.

    Returns
    -------
    str
        Counts, rejections by reason, pose, coefficients, map values, landmark and light errors, bytes a sample.
    """
    found = open_asmd(shards)
    attributes, size = found.attributes, sum(path.stat().st_size for path in found.paths)
    lines = [
        ("samples", f"{len(found)} in {len(found.paths)} shards, {size / 1e6:.1f} MB"),
        ("rejected", f"{len(found.rejected)}"),
        *((f"  {kind}", f"{count}") for kind, count in count_reasons(found.rejected).items()),
        ("face model", f"{attributes['face_model']} ({attributes['face_model_sha256'][:12]})"),
        ("maps", f"{attributes['encoding']}, {attributes['size']} x {attributes['size']}, chart "
                 f"'{attributes['chart']}', {attributes['scale']:.2f} mm a unit"),
    ]
    if len(found):
        lines += _distributions(found)
        lines.append(("maps beyond [-1, 1]", f"{np.count_nonzero(found.column('map_out_of_range'))} samples"))
        lines.append(("bytes a sample", ""))
        lines += [(f"  {name}", f"{size / len(found):,.0f}") for name, size in found.stored_bytes().items()]
    wide = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:<{wide}}{text}".rstrip() for name, text in lines)


def _distributions(found: ShardSet) -> list[tuple[str, str]]:
    """A line with mean and quantiles for each measured number."""
    pose, error = np.degrees(found.column("pose")), found.column("landmark_error")
    columns = {f"{name}, degrees": pose[:, axis] for axis, name in enumerate(("pitch", "yaw", "roll"))}
    columns["scale, px/mm"] = found.column("position")[:, 2]
    for name in ("id", "exp", "albedo"):
        columns[f"{name} coefficients"] = found.column(f"{name}_coeffs").ravel()
    columns["largest |map|"] = found.column("map_peak")
    columns["landmark error, px"] = error
    columns["landmark error, % of box"] = 100 * error / face_box(found.column("landmarks"))
    columns["light residual"] = found.column("light_residual")
    lines = [("", "".join(f"{name:>10}" for name in ("mean", "std", "least", "5 %", "median", "95 %", "most")))]
    for name, values in columns.items():
        values = values[np.isfinite(values)]
        if len(values):
            numbers = [values.mean(), values.std(), *np.quantile(values, (0, 0.05, 0.5, 0.95, 1))]
            lines.append((name, "".join(f"{number:10.3f}" for number in numbers)))
    return lines
