"""Fill the holes of a texture: from the other half of the face, then by diffusion.

Dimension key: S side of a map in texels, C channels.
"""

from __future__ import annotations

import numpy as np

DIFFUSION_STEPS = 2
"""At each level of the pyramid; without any, seams are twice as strong."""


def fill_map(values: np.ndarray, valid: np.ndarray, mirrored: np.ndarray | None = None) -> np.ndarray:
    """Return a map without holes.

    A hole whose mirror image is known takes it over, plus the difference of the two halves, diffused into the hole
    from where both are known: so it joins without a seam, whatever light was left on either side. What is left is
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
    filled, known = np.where(valid, np.moveaxis(values, -1, 0), np.float32(0)), valid
    if mirrored is not None:
        across = filled.reshape(len(filled), -1).take(mirrored, axis=1).reshape(filled.shape)
        across_known = valid.ravel()[mirrored].reshape(valid.shape)
        both, taken = valid & across_known, across_known & ~valid
        if both.any() and taken.any():
            across = across + _diffused(np.where(both, filled - across, 0), both)
        filled, known = np.where(taken, across, filled), valid | taken
    return np.ascontiguousarray(np.moveaxis(_diffused(filled, known), 0, -1))


def _diffused(values, valid):
    """A smooth continuation of (C, H, W) values, 0 where not valid: pull-push, diffused at each level."""
    if valid.all():
        return values
    halved, total = _halved(values), _halved(valid[None].astype(np.float32))
    coarse = _diffused(halved / np.maximum(total, 1), total[0] > 0)
    grown = np.swapaxes(_doubled(np.swapaxes(_doubled(coarse), 1, 2)), 1, 2)[:, :valid.shape[0], :valid.shape[1]]
    framed = np.empty((len(values), valid.shape[0] + 2, valid.shape[1] + 2), np.float32)
    inner = framed[:, 1:-1, 1:-1]
    inner[...] = np.where(valid, values, grown)
    for _ in range(DIFFUSION_STEPS):
        framed[:, 0], framed[:, -1], framed[..., 0], framed[..., -1] = (
            framed[:, 1], framed[:, -2], framed[..., 1], framed[..., -2]
        )
        mean = framed[:, 1:-1, :-2] + framed[:, 1:-1, 2:]
        mean += framed[:, :-2, 1:-1]
        mean += framed[:, 2:, 1:-1]
        mean *= 0.25
        np.copyto(inner, mean, where=~valid)
    return inner


def _halved(values):
    """The sum of each two by two texels of (C, H, W) values."""
    if values.shape[1] % 2 or values.shape[2] % 2:
        values = np.pad(values, ((0, 0), *((0, side % 2) for side in values.shape[1:])))
    rows = values[:, ::2] + values[:, 1::2]
    return rows[..., ::2] + rows[..., 1::2]


def _doubled(values):
    """Linear interpolation of (C, H, W) values to twice as many columns."""
    doubled, quarter = np.repeat(values, 2, axis=2), (values[..., 1:] - values[..., :-1]) / 4
    doubled[..., 1:-1:2] += quarter
    doubled[..., 2::2] -= quarter
    return doubled
