"""Look at shards of face crops: a contact sheet, and a table of statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from asmgen.face_crops import open_faces
from asmgen.images import decode_image
from asmgen.sheets import THUMBNAIL, chosen_samples, contact_sheet
from asmgen.tables import as_text, distribution_lines, overview_lines, size_lines

_MOST = 100
_POINT_COLOUR = (70, 255, 60)


def faces_sheet(
    shards: str | Path | Sequence, samples: Sequence[int] | None = None, face_model: None = None
) -> Image.Image:
    """Draw crops with the five points, where they are known, and under each what placed it.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards, one shard, or a list of them.
    samples : Sequence[int] | None
        Samples to draw; None draws a hundred, evenly spread.
    face_model : None
        These shards know of no face model.

    Returns
    -------
    Image.Image
        RGB.

    Raises
    ------
    ValueError
        If a face model is given; `open_faces` and `chosen_samples` raise it for other shards and samples.
    """
    if face_model is not None:
        raise ValueError("shards of kind 'faces' hold no face model; leave --face-model out")
    found = open_faces(shards)
    thumbnails = []
    for index in chosen_samples(found, samples, _MOST):
        sample = found[index]
        crop = Image.fromarray(decode_image(sample["image"])).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(crop)
        for point in (sample["five_points"] + 0.5) * THUMBNAIL / found.attributes["size"] - 0.5:
            if np.isfinite(point).all():
                draw.ellipse([*(point - 1.5), *(point + 1.5)], fill=_POINT_COLOUR)
        thumbnails.append((crop, [f"{index}: {Path(sample['source']).name[-14:]}", sample["placed_by"]]))
    return contact_sheet(thumbnails, 2)


def faces_statistics(shards: str | Path | Sequence) -> str:
    """Return what shards of face crops hold, as lines of text; ValueError for any other.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards, one shard, or a list of them.

    Returns
    -------
    str
        Counts, rejections by reason, what placed the faces, their sizes in the photos, bytes a sample.
    """
    found = open_faces(shards)
    size = found.attributes["size"]
    lines = [*overview_lines(found), ("crops", f"{size} x {size}"), ("detector", found.attributes["detector"])]
    if len(found):
        placed = Counter(found.column("placed_by"))
        lines += [("placed by", ""), *((f"  {name}", f"{count}") for name, count in placed.most_common())]
        lines += distribution_lines({"square, px of the photo": size / found.column("crop_transform")[:, 0, 0]})
        lines += size_lines(found)
    return as_text(lines)
