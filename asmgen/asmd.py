"""The ASMD sample: its fields, the fixed-point maps, and the one numpy decoder of both encodings.

``dense`` shards hold both attribute spatial maps as 16-bit fixed point; ``params`` shards hold none, and the
reader makes them from the coefficients with the face model that the shards name. Both give the same maps, to
half a step. docs/shards.md lists fields, attributes and constants. V vertices, S side of the chart in texels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np

from asmgen.maps import AttributeMaps
from asmgen.shards import ShardSet, open_kind
from bfm.charts import make_chart
from bfm.morphable_model import MorphableModel

KIND = "asmd"
SCHEMA_VERSION = 1
ENCODINGS = ("dense", "params")

MAP_RANGE = 1.25
"""Map values are stored up to +-this; the network's tanh reaches +-1."""

QUANTUM = MAP_RANGE / 32767
"""Map value of one step of the 16-bit maps: 0.006 mm for a map unit of 150 mm, so at most 0.003 mm wrong."""


CONVENTIONS = {
    "space": "millimetres; x to the subject's left (image right), y up, z toward the camera",
    "pixels": "0-based, centres at whole numbers, x right, y down",
    "maps": "(channel, row, column); value = steps * quantum; identity + expression = (vertex - centre) / scale",
    "placement": "R = Rx(pitch) Ry(yaw) Rz(roll), Rx = [[1,0,0],[0,c,s],[0,-s,c]], Ry = [[c,0,-s],[0,1,0],[s,0,c]], "
                 "Rz = [[c,s,0],[-s,c,0],[0,0,1]], radians; p = position[2] R vertex; x = position[0] + p[0], "
                 "y = position[1] - p[1]; larger p[2] is nearer",
    "coefficient_unit": "standard deviations",
}
"""Attributes in words, for readers without this program."""


def quantize_maps(maps: np.ndarray) -> np.ndarray:
    """Return maps as int16 steps of `QUANTUM`; ValueError beyond +-`MAP_RANGE`."""
    peak = float(np.abs(maps).max())
    if not peak <= MAP_RANGE:
        raise ValueError(f"map values must lie within +-{MAP_RANGE} to be stored, got {peak:.3f}")
    return np.rint(maps / QUANTUM).astype(np.int16)


def dequantize_maps(steps: np.ndarray) -> np.ndarray:
    """Return int16 steps as float32 map values."""
    return steps * np.float32(QUANTUM)


def face_box(landmarks: np.ndarray) -> np.ndarray:
    """Return the size sqrt(w h) of the box around (..., 68, 2) landmarks, the unit of landmark errors in per cent."""
    return np.sqrt(np.ptp(landmarks, axis=-2).prod(axis=-1))


def open_asmd(source: str | Path | Sequence) -> ShardSet:
    """Open shards of this kind and schema; ValueError for any other."""
    return open_kind(source, KIND, SCHEMA_VERSION)


def named_model(shards: ShardSet, model: MorphableModel | None) -> MorphableModel:
    """Return the model if it is the one that shards name; ValueError for none or another."""
    name, sha256 = shards.attributes["face_model"], shards.attributes["face_model_sha256"]
    if model is None or model.sha256 != sha256:
        got = "none" if model is None else f"'{model.name}' ({model.sha256[:12]})"
        raise ValueError(
            "shards hold no meshes, and with encoding 'params' no maps: give the face model they were built with, "
            f"'{name}' ({sha256[:12]}), got {got}"
        )
    return model


class AsmdReader:
    """Samples of ASMD shards and the maps, shapes and triangles they stand for.

    ValueError if the shards are no ASMD, of another schema, or the model is missing or another one.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards, one shard, or a list of them.
    model : MorphableModel | None
        The face model the shards were built with; only ``params`` shards need it.

    Attributes
    ----------
    shards : ShardSet
        The samples.
    triangles : np.ndarray
        (F, 3) int32, outward.
    landmarks : np.ndarray
        (68,) int32 vertices of the landmarks.
    """

    def __init__(self, source: str | Path | Sequence, model: MorphableModel | None = None):
        self.shards = open_asmd(source)
        self.encoding = self.shards.attributes["encoding"]
        constants = self.shards.constants
        self.triangles, self.landmarks = constants["triangles"], constants["landmarks"]
        self._texels, self._weights = constants["vertex_texels"], constants["vertex_weights"]
        self._maps = None
        if self.encoding == "params":
            face, attributes = named_model(self.shards, model).face_only(), self.shards.attributes
            self._maps = AttributeMaps.from_model(face, make_chart(face, attributes["chart"], attributes["size"]))

    def __len__(self) -> int:
        return len(self.shards)

    def maps(self, sample: dict) -> tuple[np.ndarray, np.ndarray]:
        """Return A_id and A_exp of a sample, (3, S, S) float32 each, in map units."""
        if self._maps is None:
            return dequantize_maps(sample["identity_map"]), dequantize_maps(sample["expression_map"])
        return (
            self._maps.identity_map(sample["id_coeffs"][None])[0],
            self._maps.expression_map(sample["exp_coeffs"][None])[0],
        )

    def vertices(self, full_map: np.ndarray) -> np.ndarray:
        """Return the (V, 3) vertices, mm, that a (3, S, S) map ``I_g = A_id + A_exp`` holds."""
        at_vertices = (full_map.reshape(3, -1)[:, self._texels] * self._weights).sum(-1).T
        return at_vertices * np.float32(self.shards.attributes["scale"]) + self.shards.attributes["centre"]
