"""Look at FTD shards: a sheet of pictures, a row a sample, and a table of statistics; and what inspects which kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image

from asmgen import asmd, face_crops
from asmgen.asmd import named_model
from asmgen.images import decode_image
from asmgen.inspect import given_model, inspect_sheet, statistics_table
from asmgen.inspect_face_crops import faces_sheet, faces_statistics
from asmgen.shards import ShardSet
from asmgen.sheets import STRIP, TILE, as_picture, draw_sheet, picture_strip, sample_caption, text_strip
from asmgen.tables import as_text, distribution_lines, face_columns, overview_lines, size_lines
from bfm.charts import make_chart
from bfm.light import sh_basis
from bfm.morphable_model import MorphableModel
from bfm.pose import project
from bfm.render import camera_vertices, portrait, render, vertex_normals
from texgen import ftd
from texgen.ftd import FtdReader, open_ftd
from texgen.texture import TextureMapper
from texgen.thresholds import Scores, Selection

BRIGHTEST = 1.5
"""Shading that is drawn white."""

COLUMNS = (
    ("I_o", ""), ("I_u", "on the mesh, front and two sides"), ("I_a", "scores"),
    ("mask over I_a (blue: filled)", "photo, I_a where seen, I_a - I_u"),
    (f"shading, 0 to {BRIGHTEST}", "light on a ball, lit I_u, lit I_a"),
    ("I_a on the mesh", "two sides, lit in the photo"),
)
_VIEWS = (0.0, -1.1, 1.1)
_FILLED_COLOUR, _FILLED_OPACITY = np.array([0.15, 0.35, 0.9]), 0.65


def ftd_sheet(
    shards: str | Path | Sequence, samples: Sequence[int] | None = None, face_model: str | MorphableModel | None = None
) -> Image.Image:
    """Draw samples of FTD shards: the triplet, what the photo shows of I_a, the light, and I_a on the mesh.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards, one shard, or a list of them.
    samples : Sequence[int] | None
        Samples to draw; None draws eight, evenly spread.
    face_model : str | MorphableModel | None
        The model that the shards name, or its file; None is the open model. Needed for the mesh, by all encodings.

    Returns
    -------
    Image.Image
        RGB. ValueError if the shards hold no sample, or not the one asked for, or are of another model.
    """
    drawer = _Drawer(shards, given_model(face_model))
    return draw_sheet(drawer.reader.shards, samples, COLUMNS, drawer.tiles)


class _Drawer:
    """Draws samples; holds what all of them need."""

    def __init__(self, shards: str | Path | Sequence, model: MorphableModel):
        self.reader = FtdReader(shards, model)
        attributes, constants = self.reader.shards.attributes, self.reader.shards.constants
        face = named_model(self.reader.shards, model).face_only()
        self._mapper = TextureMapper(face, make_chart(face, attributes["chart"], attributes["size"]))
        self._inside, self._triangles = constants["mask"], constants["triangles"]
        self._texels, self._weights = constants["vertex_texels"], constants["vertex_weights"]
        self._lit, self._zoom = attributes["lit"], TILE / attributes["size"]

    def tiles(self, index: int) -> list[tuple[Image.Image, Image.Image]]:
        """The pictures of one sample: a tile and the strip below it for each column."""
        sample = self.reader.shards[index]
        crop = decode_image(sample["image"])
        linear, albedo, mask = self.reader.linear_albedo(sample), self.reader.albedo(sample), self.reader.mask(sample)
        vertices = self._mapper.vertices(sample["id_coeffs"][None], sample["exp_coeffs"][None])[0]
        placed = vertices, sample["pose"], sample["position"]
        texture = self._mapper.extract(crop, *placed, sample["light"])
        shading = np.maximum(texture.shading, 0)[..., None]
        lit = albedo if self._lit else albedo * shading
        seen = mask[..., None]
        filled = np.where(seen | ~self._inside[..., None], 0, _FILLED_OPACITY)
        views, linear_views = (self._views(vertices, texels) for texels in (albedo, linear))
        photo = Image.fromarray(crop).resize((TILE, TILE), Image.Resampling.BICUBIC)
        return [
            (photo, text_strip(sample_caption(index, sample))),
            (as_picture(linear), picture_strip(linear_views)),
            (as_picture(albedo), text_strip(_score_lines(sample))),
            (as_picture(albedo + filled * (_FILLED_COLOUR - albedo)), picture_strip([
                as_picture(texels) for texels in (texture.colours * seen, albedo * seen, (albedo - linear) * seen + 0.5)
            ])),
            (as_picture(shading[..., 0] / BRIGHTEST), picture_strip([
                as_picture(_ball(sample["light"]) / BRIGHTEST), as_picture(linear * shading), as_picture(lit)
            ])),
            (views[0], picture_strip([*views[1:], self._in_photo(photo, albedo, *placed, sample["light"])])),
        ]

    def _at_vertices(self, texels):
        """(V, 3) values of an (S, S, 3) map at the vertices."""
        return (texels.reshape(-1, 3)[self._texels] * self._weights[..., None]).sum(axis=1)

    def _views(self, vertices, texels):
        """The coloured face from the front, as large as a tile, and from two sides."""
        colours = self._at_vertices(texels)
        return [
            Image.fromarray(portrait(vertices, self._triangles, (0.0, yaw, 0.0), TILE, colours=colours))
            for yaw in _VIEWS
        ]

    def _in_photo(self, photo, albedo, vertices, pose, position, light):
        """The coloured face drawn over its photo: albedo times shading, Eq. (19)."""
        points = project(vertices, pose, position) * self._zoom + [(self._zoom - 1) / 2, (self._zoom - 1) / 2, 0]
        shading = sh_basis(vertex_normals(camera_vertices(points), self._triangles)) @ light
        colours = self._at_vertices(albedo) * (1 if self._lit else np.maximum(shading, 0)[:, None])
        return render(points, colours, self._triangles, np.asarray(photo))


def _ball(light: np.ndarray) -> np.ndarray:
    """(STRIP, STRIP) the shading of a ball under a light."""
    across = np.linspace(-1, 1, STRIP)
    x, y = np.meshgrid(across, -across)
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    return np.where(z > 0, sh_basis(np.stack([x, y, z], -1)) @ light, 0)


def _score_lines(sample: dict) -> list[str]:
    """The scores of a sample in words."""
    return [
        f"seen {sample['visible_fraction']:.2f}, |yaw| {sample['yaw']:.0f} degrees",
        f"skin {sample['skin_fraction']:.2f}, light ratio {sample['light_ratio']:.2f}",
        f"saturated {sample['saturation']:.3f}, exposure {sample['exposure']:.2f}",
        f"albedo residual {sample['albedo_residual']:.3f}",
    ]


def ftd_statistics(shards: str | Path | Sequence) -> str:
    """Return what FTD shards hold, as lines of text; ValueError if they are no FTD.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards, one shard, or a list of them.

    Returns
    -------
    str
        Counts, rejections by reason, thresholds, scores, pose, coefficients, errors, bytes a sample.
    """
    found = open_ftd(shards)
    attributes = found.attributes
    thresholds = {field.name: attributes.get(f"select_{field.name}") for field in fields(Selection)}
    lines = [
        *overview_lines(found),
        ("textures", f"{attributes['encoding']}, {attributes['size']} x {attributes['size']}, chart "
                     f"'{attributes['chart']}', {'with' if attributes['lit'] else 'without'} the photo's light"),
        ("thresholds", ""),
        *((f"  {name}", "off" if limit is None else f"{limit:g}") for name, limit in thresholds.items()),
    ]
    if len(found):
        scores = {score.name: found.column(score.name) for score in fields(Scores)}
        lines += distribution_lines(scores | face_columns(found))
        lines += size_lines(found)
    return as_text(lines)


def inspector(shards: str | Path | Sequence) -> tuple[Callable[..., str], Callable[..., Image.Image]]:
    """Return what tells and what draws shards of their kind: `statistics_table` and `inspect_sheet`, those of
    `asmgen.inspect_face_crops`, or those here.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards, one shard, or a list of them.

    Returns
    -------
    tuple[Callable[..., str], Callable[..., Image.Image]]
        The two functions.

    Raises
    ------
    ValueError
        If the shards are of another kind.
    """
    kinds: dict[str, tuple[Callable[..., str], Callable[..., Image.Image]]] = {
        asmd.KIND: (statistics_table, inspect_sheet), ftd.KIND: (ftd_statistics, ftd_sheet),
        face_crops.KIND: (faces_statistics, faces_sheet),
    }
    found = ShardSet(shards)
    kind = found.attributes.get("kind")
    if kind not in kinds:
        known = " or ".join(map(repr, kinds))
        raise ValueError(f"{found.paths[0]} must be of kind {known} to be inspected, got {kind!r}")
    return kinds[kind]
