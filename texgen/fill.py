"""Fill the holes of a texture: from the other half of the face, then by diffusion.

Dimension key: S side of a map in texels, C channels.
"""

from __future__ import annotations

import numpy as np


def fill_map(values: np.ndarray, valid: np.ndarray, mirrored: np.ndarray | None = None) -> np.ndarray:
    """Return a map without holes.

    A hole whose mirror image is known takes it over, plus the difference of the two halves, diffused into the hole
    from where both are known: so it joins without a seam, whatever the light left on either side. What is left is
    diffused from all around. Known texels are not changed.

    Parameters
    ----------
    values : np.ndarray
        (S, S, C) float32; only valid texels are read.
    valid : np.ndarray
        (S, S) bool.
    mirrored : np.ndarray | None
        (S * S,) flat index of the texel on the other side of the face for each texel, itself where there is none;
        None diffuses only.

    Returns
    -------
    np.ndarray
        (S, S, C) float32.

    Raises
    ------
    ValueError
        If no texel is valid, or the shapes disagree.
    """
    if values.ndim != 3 or valid.shape != values.shape[:2]:
        raise ValueError(f"valid must have shape {values.shape[:2]} to match values, got {valid.shape}")
    if not valid.any():
        raise ValueError("a map can be filled from at least one valid texel, got none")
    known, filled = valid, np.where(valid[..., None], values, 0).astype(np.float32)
    if mirrored is not None:
        across = filled.reshape(-1, values.shape[2])[mirrored].reshape(values.shape)
        across_known = valid.ravel()[mirrored].reshape(valid.shape)
        taken = across_known & ~valid
        if taken.any() and (both := valid & across_known).any():
            across = across + diffuse(filled - across, both)
        filled[taken] = across[taken]
        known = valid | taken
    return np.where(known[..., None], filled, diffuse(filled, known))


def diffuse(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return a smooth continuation of the valid texels: pull-push over a pyramid of halved maps.

    Parameters
    ----------
    values : np.ndarray
        (H, W, C) float32.
    valid : np.ndarray
        (H, W) bool, at least one texel.

    Returns
    -------
    np.ndarray
        (H, W, C) float32, equal to `values` at valid texels.
    """
    if valid.all():
        return values
    height, width = valid.shape
    weight = valid.astype(np.float32)[..., None]
    known = np.where(valid[..., None], values, 0)
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    halved, total = (
        np.pad(array, padding).reshape((height + 1) // 2, 2, (width + 1) // 2, 2, -1).sum(axis=(1, 3))
        for array in (known, weight)
    )
    coarse = diffuse(halved / np.maximum(total, 1), total[..., 0] > 0)
    grown = _doubled(_doubled(coarse, 0), 1)[:height, :width]
    return np.where(valid[..., None], values, grown)


def _doubled(values, axis):
    """Linear interpolation to twice as many texels along an axis."""
    values = np.moveaxis(values, axis, 0)
    near = np.concatenate([values[:1], values, values[-1:]])
    doubled = np.stack([values * 0.75 + near[:-2] * 0.25, values * 0.75 + near[2:] * 0.25], 1)
    return np.moveaxis(doubled.reshape(-1, *values.shape[1:]), 0, axis)
