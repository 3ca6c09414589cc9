"""The samples of each kind of shards as pictures, words and shapes.

Dimension key: V vertices, S side of the maps and of the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from asmgen import asmd, face_crops
from asmgen.asmd import face_box, named_model
from asmgen.inspect import EXPRESSION_GAIN, given_model, open_reader
from asmgen.shards import ShardSet
from asmgen.sheets import as_picture
from bfm.pose import project
from bfm.render import visible_vertices
from texgen import ftd
from texgen.ftd import FtdReader
from texgen.inspect import inspector

_FILLED = np.array([0.15, 0.35, 0.9], np.float32)  # of texels that the photo does not show, as `dualface inspect` does
_FILLED_OPACITY = 0.65


class OpenedCrop:
    """A sample, of which there is at least the crop.

    Parameters
    ----------
    sample : dict
        Its fields.
    """

    def __init__(self, sample: dict):
        self.sample = sample

    def picture(self, name: str, channel: str | None) -> Image.Image | None:
        """Return another picture of the sample, or a channel of it; None for an unknown name."""
        return None


class OpenedFace(OpenedCrop):
    """A sample with its shape.

    Parameters
    ----------
    sample : dict
        Its fields.
    triangles : np.ndarray
        (F, 3).
    size : int
        S.
    neutral : np.ndarray
        (V, 3) mm, the face without expression.
    full : np.ndarray
        (V, 3) mm, the face.

    Attributes
    ----------
    neutral, offsets : np.ndarray
        (V, 3) float32, mm: the neutral face, and what the expression adds.
    """

    def __init__(self, sample: dict, triangles: np.ndarray, size: int, neutral: np.ndarray, full: np.ndarray):
        super().__init__(sample)
        self.triangles, self.size = triangles, size
        self.neutral, self.offsets = neutral.astype(np.float32), (full - neutral).astype(np.float32)

    def in_photo(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (V, 2) texture coordinates of the vertices in the crop, v up, and (V,) 1 where it shows them."""
        points = project(self.neutral + self.offsets, self.sample["pose"], self.sample["position"])
        seen = visible_vertices(points, self.triangles, self.size, self.size)
        at = (points[:, :2] + 0.5) / self.size
        return (at * [1, -1] + [0, 1]).astype(np.float32), seen.astype(np.float32)


class OpenedMaps(OpenedFace):
    """A sample of attribute maps; `maps` are A_id, A_exp and their sum, (3, S, S) each, by name."""

    maps: dict[str, np.ndarray]

    def picture(self, name: str, channel: str | None) -> Image.Image | None:
        """Return a map as `dualface inspect` colours it, or a channel of it in grey; None for an unknown name."""
        if name not in self.maps:
            return None
        values = (self.maps[name].transpose(1, 2, 0) * (EXPRESSION_GAIN if name == "expression" else 1) + 1) / 2
        return as_picture(values if channel is None else values[..., "xyz".index(channel)], self.size)


class OpenedTexture(OpenedFace):
    """A sample of textures; `textures` are images, (S, S, 3), RGB in [0, 1], by name."""

    textures: dict[str, np.ndarray]

    def picture(self, name: str, channel: str | None) -> Image.Image | None:
        """Return a texture; None for an unknown name, and for a channel."""
        return as_picture(self.textures[name], self.size) if name in self.textures and not channel else None


class Samples:
    """The samples of image-only shards; other kinds add to it.

    Parameters
    ----------
    shards : ShardSet
        The samples.

    Attributes
    ----------
    rows : list[dict]
        Of the page: title, and names and captions of the pictures.
    textures : list[dict]
        That go on the face by its chart: name of the picture, and caption.
    has_shape : bool
        Whether samples have a face in 3D.
    """

    rows: list[dict] = []
    textures: list[dict] = []
    has_shape = False

    def __init__(self, shards: ShardSet):
        self.shards = shards

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """What all samples share."""
        return self.shards.constants

    def open(self, index: int) -> OpenedCrop:
        """Read a sample."""
        return OpenedCrop(self.shards[index])

    def statistics(self) -> str:
        """Return the table of `dualface inspect`."""
        return inspector(self.shards.paths)[0](self.shards.paths)

    def facts(self, sample: dict) -> list[tuple[str, str]]:
        """Return what a sample tells, a name and a text each."""
        return [("placed by", sample["placed_by"])]


class _Faces(Samples):
    """What ASMD and FTD have in common."""

    has_shape = True

    def facts(self, sample: dict) -> list[tuple[str, str]]:
        """Return pose and errors."""
        pose, error = np.degrees(sample["pose"]), float(sample["landmark_error"])
        facts = [("pitch, yaw, roll", ", ".join(f"{angle:.0f}°" for angle in pose))]
        if np.isfinite(error):
            percent = 100 * error / face_box(sample["landmarks"])
            facts.append(("landmarks off by", f"{error:.2f} px, {percent:.2f} % of the box"))
        return [*facts, ("light residual", f"{sample['light_residual']:.3f}")]


class AsmdSamples(_Faces):
    """Samples of attribute maps."""

    rows = [
        {"title": title, "pictures": [
            {"name": name, "caption": "x, y, z as colours"}, *({"name": f"{name}-{c}", "caption": c} for c in "xyz")
        ]}
        for name, title in (
            ("identity", "Identity map A_id"), ("expression", f"Expression map A_exp, drawn ×{EXPRESSION_GAIN}"),
            ("sum", "Their sum I_g = A_id + A_exp"),
        )
    ]

    def __init__(self, source: str | Path | Sequence, face_model: str | None):
        self._reader = open_reader(source, face_model)
        super().__init__(self._reader.shards)

    def open(self, index: int) -> OpenedMaps:
        """Read a sample."""
        sample, reader = self.shards[index], self._reader
        identity_map, expression_map = reader.maps(sample)
        full_map = identity_map + expression_map
        opened = OpenedMaps(
            sample, reader.triangles, self.shards.attributes["size"], reader.vertices(identity_map),
            reader.vertices(full_map),
        )
        opened.maps = {"identity": identity_map, "expression": expression_map, "sum": full_map}
        return opened


class FtdSamples(_Faces):
    """Samples of textures; their shapes come of the coefficients."""

    rows = [{"title": "Facial texture", "pictures": [
        {"name": "linear", "caption": "I_u, linear albedo"}, {"name": "albedo", "caption": "I_a, albedo of the photo"},
        {"name": "seen", "caption": "blue: not seen, filled"},
    ]}]
    textures = [{"name": "albedo", "caption": "I_a"}, {"name": "linear", "caption": "I_u"}]

    def __init__(self, source: str | Path | Sequence, face_model: str | None):
        model = given_model(face_model)
        self._reader = FtdReader(source, model)
        super().__init__(self._reader.shards)
        self._face = named_model(self.shards, model).face_only()

    def facts(self, sample: dict) -> list[tuple[str, str]]:
        """Return pose, errors, and the scores that samples are selected by."""
        return [
            *super().facts(sample), ("seen in the photo", f"{100 * sample['visible_fraction']:.0f} %"),
            ("light ratio", f"{sample['light_ratio']:.2f}"), ("exposure", f"{sample['exposure']:.2f}"),
            ("albedo residual", f"{sample['albedo_residual']:.3f}"),
        ]

    def open(self, index: int) -> OpenedTexture:
        """Read a sample."""
        sample, reader = self.shards[index], self._reader
        id_coeffs, exp_coeffs = sample["id_coeffs"], sample["exp_coeffs"]
        opened = OpenedTexture(
            sample, self._face.triangles, self.shards.attributes["size"],
            self._face.shape(id_coeffs, np.zeros_like(exp_coeffs)), self._face.shape(id_coeffs, exp_coeffs),
        )
        albedo, seen = reader.albedo(sample), reader.mask(sample)
        hidden = (self.constants["mask"] & ~seen)[..., None] * np.float32(_FILLED_OPACITY)
        opened.textures = {
            "linear": reader.linear_albedo(sample), "albedo": albedo, "seen": albedo + hidden * (_FILLED - albedo),
        }
        return opened


def open_samples(source: str | Path | Sequence, face_model: str | None = None) -> Samples:
    """Open shards of any kind.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards, one shard, or a list of them.
    face_model : str | None
        File of the face model that they name; None is the open model.

    Returns
    -------
    Samples
        Of their kind. ValueError if the kind is unknown, or the face model is needed and another one.
    """
    inspector(source)  # refuses other kinds
    kind = ShardSet(source).attributes["kind"]
    if kind == face_crops.KIND:
        return Samples(face_crops.open_faces(source))
    return {asmd.KIND: AsmdSamples, ftd.KIND: FtdSamples}[kind](source, face_model)
