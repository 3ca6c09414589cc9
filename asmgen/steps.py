"""Attribute maps of many faces as 16-bit steps: no map in floating point is held.

Maps are linear within a triangle, and a chart has two texels or more for each vertex that they show. So the bases are
multiplied at the vertices, and the values interpolated: half the arithmetic of a product at the texels. All is done
for a strip of the chart after the other, which stays in the processor's cache until it is rounded.
Dimension key: B batch, K modes, V vertices of a strip, S side of the chart in texels.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from scipy import sparse

from asmgen.asmd import QUANTUM
from asmgen.maps import AttributeMaps
from bfm.charts import Chart
from bfm.morphable_model import MorphableModel

_STRIP, _PART = 4096, 1024  # texels: of a product, and of what is interpolated and rounded with 128 faces in 1 MB
_APART = 32  # steps between the maps of two faces: at multiples of 4 kB they would share few lines of the cache


class _Strip(NamedTuple):
    """Texels in a row of the chart: their parts, each with its (texels, V) weights of the vertices, and the modes
    there, (3, V, K) in map units; those of the identity end with the mean face."""

    parts: list[tuple[slice, sparse.csr_array]]
    identity: np.ndarray
    expression: np.ndarray


def steps_memory(count: int, size: int) -> np.ndarray:
    """Return memory for the maps of so many faces.

    Parameters
    ----------
    count : int
        B; memory that is used again, in parts too, spares a tenth of the time.
    size : int
        S, side of the maps in texels.

    Returns
    -------
    np.ndarray
        (2, B, 3 * S * S) int16; `_APART` more lie between two faces.
    """
    return np.empty((2, count, 3 * size**2 + _APART), np.int16)[..., :-_APART]


class MapSteps:
    """Makes the maps of faces as they are stored.

    Parameters
    ----------
    model : MorphableModel
        The face alone (`MorphableModel.face_only`).
    maps : AttributeMaps
        Its map space.
    """

    def __init__(self, model: MorphableModel, maps: AttributeMaps):
        self._size = maps.chart.size
        scale = np.float32(maps.scale)
        identity = np.concatenate([model.id_basis, (model.mean_shape - maps.centre)[None]]) / scale
        self._strips = [
            _strip(maps.chart, start, identity, model.exp_basis / scale) for start in range(0, self._size**2, _STRIP)
        ]

    def __call__(self, id_coeffs: np.ndarray, exp_coeffs: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return A_id and A_exp of faces.

        Equal to `asmgen.asmd.quantize_maps` of `AttributeMaps.identity_map` and `expression_map`, but for values that
        lie within rounding, 1e-7, of the middle between two steps: these may go to either.

        Parameters
        ----------
        id_coeffs : np.ndarray
            (B, K_id) float32, standard deviations, of faces whose maps stay within +-`asmgen.asmd.MAP_RANGE`
            (`asmgen.peaks.MapPeaks` tells).
        exp_coeffs : np.ndarray
            (B, K_exp) float32, standard deviations.
        out : np.ndarray | None
            (2, B, 3 * S * S) int16 to write to, from `steps_memory`; None makes it.

        Returns
        -------
        np.ndarray
            (2, B, 3, S, S) int16, identity and expression, steps of `QUANTUM`.
        """
        count = len(id_coeffs)
        out = steps_memory(count, self._size) if out is None else out
        with_mean = np.concatenate([id_coeffs, np.ones((count, 1), np.float32)], axis=1)
        scaled = [np.ascontiguousarray(coeffs.T) / np.float32(QUANTUM) for coeffs in (with_mean, exp_coeffs)]
        by_channel = out.reshape(2, count, 3, -1).swapaxes(1, 2)
        for parts, *bases in self._strips:
            for basis, coeffs, channels in zip(bases, scaled, by_channel):
                for modes, steps in zip(basis, channels):
                    at_vertices = modes @ coeffs
                    for texels, weights in parts:
                        values = weights @ at_vertices
                        cv2.transpose(np.rint(values, out=values).astype(np.int16), dst=steps[:, texels])
        return out.reshape(2, count, 3, self._size, self._size)


def _strip(chart: Chart, start: int, *bases: np.ndarray) -> _Strip:
    """The strip from a texel on, of (K, V, 3) bases."""
    weights = chart.to_texels[start:start + _STRIP]
    vertices = np.unique(weights.indices)
    weights = weights[:, vertices]
    parts = []
    for first in range(0, weights.shape[0], _PART):
        part = weights[first:first + _PART]
        part = sparse.csr_array((part.data, part.indices.astype(np.int32), part.indptr.astype(np.int32)), part.shape)
        parts.append((slice(start + first, start + first + part.shape[0]), part))
    return _Strip(parts, *(np.ascontiguousarray(basis[:, vertices].transpose(2, 1, 0)) for basis in bases))


class MapStepsOnDevice:
    """The same by torch, in one product; the last steps may differ.

    Parameters
    ----------
    maps : AttributeMaps
        The map space.
    device : str
        Of torch; each process that makes maps places the bases there for itself.
    """

    def __init__(self, maps: AttributeMaps, device: str):
        self._maps, self._device = maps, device

    @cached_property
    def _placed(self) -> AttributeMaps:
        """The bases where they are multiplied."""
        return self._maps.to(self._device)

    def __call__(self, id_coeffs: np.ndarray, exp_coeffs: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return A_id and A_exp of faces, as `MapSteps` does."""
        import torch

        maps = self._placed
        out = steps_memory(len(id_coeffs), maps.chart.size) if out is None else out
        for coeffs, basis_map, mean_map, steps in (
            (id_coeffs, maps.id_basis_map, maps.mean_map, out[0]), (exp_coeffs, maps.exp_basis_map, None, out[1]),
        ):
            scaled = torch.from_numpy(coeffs).to(basis_map.device) / QUANTUM
            values = scaled @ basis_map.reshape(len(basis_map), -1)
            if mean_map is not None:
                values += mean_map.reshape(-1) / QUANTUM
            torch.from_numpy(steps).copy_(values.round_().to(torch.int16))
        return out.reshape(*out.shape[:2], *maps.mean_map.shape)
