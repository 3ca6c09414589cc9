"""Attribute maps of many faces as 16-bit steps, straight from the matrix product: no map in floating point is held.

The product runs over blocks of columns that stay in the processor's cache until they are rounded; on a torch device
it is one product. Dimension key: B batch, K modes, S side of the chart in texels.
"""

from __future__ import annotations

import numpy as np

from asmgen.asmd import QUANTUM
from asmgen.maps import AttributeMaps

_BLOCK = 512  # texels: with 128 faces, the block of the basis and that of the product share a cache of 1 MB


def map_steps(
    maps: AttributeMaps, id_coeffs: np.ndarray, exp_coeffs: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Return A_id and A_exp of faces as stored.

    Equal to `asmgen.asmd.quantize_maps` of `AttributeMaps.identity_map` and `expression_map`, but for values that lie
    within rounding, 1e-7, of the middle between two steps: these may go to either.

    Parameters
    ----------
    maps : AttributeMaps
        The map space; where its arrays are torch tensors, their device makes the product.
    id_coeffs : np.ndarray
        (B, K_id) float32, standard deviations, of faces whose maps stay within +-`asmgen.asmd.MAP_RANGE`
        (`asmgen.peaks.MapPeaks` tells).
    exp_coeffs : np.ndarray
        (B, K_exp) float32, standard deviations.
    out : np.ndarray | None
        (2, B, 3 * S * S) int16 to write to: memory that is used again spares a tenth of the time.

    Returns
    -------
    np.ndarray
        (2, B, 3, S, S) int16, identity and expression, steps of `QUANTUM`.
    """
    if out is None:
        out = np.empty((2, len(id_coeffs), 3 * maps.chart.size**2), np.int16)
    product = _in_blocks_ if isinstance(maps.mean_map, np.ndarray) else _on_device_
    product(id_coeffs, maps.id_basis_map, maps.mean_map, out[0])
    product(exp_coeffs, maps.exp_basis_map, None, out[1])
    return out.reshape(*out.shape[:2], *maps.mean_map.shape)


def _in_blocks_(coeffs: np.ndarray, basis_map: np.ndarray, mean_map: np.ndarray | None, out: np.ndarray) -> None:
    """Multiply, add and round one block of texels after the other; the coefficients carry the scale of the steps."""
    coeffs, basis = coeffs / np.float32(QUANTUM), basis_map.reshape(len(basis_map), -1)
    block = np.empty((len(coeffs), _BLOCK), np.float32)
    for start in range(0, basis.shape[1], _BLOCK):
        columns = slice(start, start + _BLOCK)
        values = block[:, :basis.shape[1] - start]
        np.matmul(coeffs, basis[:, columns], out=values)
        if mean_map is not None:
            values += mean_map.reshape(-1)[columns] / np.float32(QUANTUM)
        np.copyto(out[:, columns], np.rint(values, out=values), casting="unsafe")


def _on_device_(coeffs: np.ndarray, basis_map, mean_map, out: np.ndarray) -> None:
    """The same by torch, in one block."""
    import torch

    scaled = torch.from_numpy(coeffs).to(basis_map.device) / QUANTUM
    values = scaled @ basis_map.reshape(len(basis_map), -1)
    if mean_map is not None:
        values += mean_map.reshape(-1) / QUANTUM
    torch.from_numpy(out).copy_(values.round_().to(torch.int16))
