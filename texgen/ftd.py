"""The FTD sample (facial texture triplet): its fields, and the one numpy decoder of both encodings.

A sample is one of `asmgen.asmd` without the attribute spatial maps, and with the texture: I_a, the albedo taken from
the photo (JPEG), the mask of the texels that the photo shows, and the scores it was selected by. ``dense`` shards also
hold I_u, the linear albedo of the face model; from ``params`` shards the reader makes it of the coefficients. Both
give the same I_u, to half an 8-bit step. docs/shards.md lists fields, attributes and constants.

Dimension key: S side of the chart in texels. Maps are (S, S, 3) images, RGB in [0, 1], 0 outside the chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asmgen.asmd import CONVENTIONS as _CONVENTIONS
from asmgen.asmd import named_model
from asmgen.images import decode_image
from asmgen.shards import ShardSet, open_kind
from bfm.charts import make_chart
from bfm.morphable_model import MorphableModel
from texgen.texture import TextureMapper

KIND = "ftd"
SCHEMA_VERSION = 1

CONVENTIONS = {
    **_CONVENTIONS,
    "maps": "(row, column, channel) as photos are, RGB encoded as in the photo, / 255 for [0, 1]",
}
"""Attributes in words, for readers without this program."""


def open_ftd(source: str | Path | Sequence) -> ShardSet:
    """Open shards of this kind and schema; ValueError for any other."""
    return open_kind(source, KIND, SCHEMA_VERSION)


def quantize_albedo(albedo: np.ndarray) -> np.ndarray:
    """Return RGB in [0, 1] as uint8, to the nearest of 255 steps."""
    return np.rint(np.clip(albedo, 0, 1) * 255).astype(np.uint8)


class FtdReader:
    """Samples of FTD shards and the maps they stand for.

    ValueError if the shards are no FTD, of another schema, or the model is missing or another one.

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
    encoding : str
        ``dense`` or ``params``.
    """

    def __init__(self, source: str | Path | Sequence, model: MorphableModel | None = None):
        self.shards = open_ftd(source)
        attributes = self.shards.attributes
        self.encoding = attributes["encoding"]
        self._chart_mask = self.shards.constants["mask"]
        self._mapper = None
        if self.encoding == "params":
            face = named_model(self.shards, model).face_only()
            self._mapper = TextureMapper(face, make_chart(face, attributes["chart"], attributes["size"]))

    def __len__(self) -> int:
        return len(self.shards)

    def linear_albedo(self, sample: dict) -> np.ndarray:
        """Return I_u of a sample: (S, S, 3) float32."""
        if self._mapper is None:
            return sample["linear_albedo_map"] / np.float32(255)
        return self._mapper.linear_albedo(sample["albedo_coeffs"][None])[0]

    def albedo(self, sample: dict) -> np.ndarray:
        """Return I_a of a sample, where the photo does not show it filled in: (S, S, 3) float32."""
        return np.where(self._chart_mask[..., None], decode_image(sample["albedo_map"]) / np.float32(255), 0)

    def mask(self, sample: dict) -> np.ndarray:
        """Return the texels of a sample that the photo shows: (S, S) bool."""
        return sample["mask"].astype(bool)
