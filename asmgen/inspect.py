"""Look at ASMD shards: a sheet of pictures, a row a sample, and a table of statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np
from PIL import Image, ImageDraw

from asmgen.asmd import AsmdReader, open_asmd
from asmgen.images import decode_image
from asmgen.sheets import STRIP, TILE, draw_sheet, picture_strip, sample_caption, text_strip
from asmgen.tables import as_text, distribution_lines, face_columns, overview_lines, size_lines
from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from bfm.pose import project
from bfm.render import clay, portrait, visible_vertices

EXPRESSION_GAIN = 4
"""Expression maps are drawn this much stronger; offsets are small beside positions."""

COLUMNS = (
    ("crop", ""), ("mesh and landmarks", "crop, mesh, landmarks (blue: hidden)"), ("identity ASM", "x, y, z"),
    (f"expression ASM x{EXPRESSION_GAIN}", "x, y, z"), ("sum", "x, y, z"), ("mesh of the sum", "neutral, two sides"),
)
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
        RGB. Positions are colours: x, y, z from -1 to 1 become red, green, blue from 0 to 255. ValueError if the
        shards hold no sample, or not the one asked for.
    """
    reader = open_reader(shards, face_model)
    return draw_sheet(reader.shards, samples, COLUMNS, lambda index: _tiles(reader, index))


def open_reader(shards: str | Path | Sequence, face_model: str | MorphableModel | None = None) -> AsmdReader:
    """Open ASMD shards; the model (by default the open one) is loaded only where the shards hold no maps."""
    if open_asmd(shards).attributes["encoding"] != "params":
        return AsmdReader(shards)
    return AsmdReader(shards, given_model(face_model))


def given_model(face_model: str | MorphableModel | None) -> MorphableModel:
    """Return a face model that is given as itself, as its file, or as None, the open one."""
    return face_model if isinstance(face_model, MorphableModel) else load_model(face_model or "open")


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
    caption = [*sample_caption(index, sample), f"largest map value {sample['map_peak']:.2f}"]
    return [
        (crop, text_strip(caption)),
        (overlay, picture_strip([crop, mesh, plain])),
        *((_as_colours(maps), picture_strip(_channels(maps)))
          for maps in (identity_map, EXPRESSION_GAIN * expression_map, full_map)),
        (Image.fromarray(portrait(vertices, reader.triangles, size=TILE)), picture_strip(views)),
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
    attributes = found.attributes
    lines = [
        *overview_lines(found),
        ("maps", f"{attributes['encoding']}, {attributes['size']} x {attributes['size']}, chart "
                 f"'{attributes['chart']}', {attributes['scale']:.2f} mm a unit"),
    ]
    if len(found):
        lines += distribution_lines(face_columns(found) | {"largest |map|": found.column("map_peak")})
        lines.append(("maps beyond [-1, 1]", f"{np.count_nonzero(found.column('map_out_of_range'))} samples"))
        lines += size_lines(found)
    return as_text(lines)
