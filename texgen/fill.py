"""Fill the holes of a texture: from the other half of the face, then by diffusion.

Dimension key: S side of a map in texels, C channels.
"""

from __future__ import annotations

import cv2
import numpy as np

DIFFUSION_STEPS = 2
"""At each level of the pyramid; without any, seams are twice as strong."""

_NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4


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
    filled, known = _only(np.ascontiguousarray(values, np.float32), valid), valid
    if mirrored is not None:
        across = filled.reshape(-1, values.shape[2]).take(mirrored, axis=0).reshape(filled.shape)  # one channel: (S, S)
        across_known = valid.ravel().take(mirrored).reshape(valid.shape)
        both, taken = valid & across_known, across_known & ~valid
        if both.any() and taken.any():
            across += _diffused(_only(filled - across, both), both)
        filled, known = _put(across, taken, filled), valid | taken
    return _diffused(filled, known).reshape(values.shape)


def _diffused(values, valid):
    """A smooth continuation of (H, W, C) values, 0 where not valid: pull-push, diffused at each level."""
    if valid.all():
        return values
    halved, share = _halved(values), _halved(valid.astype(np.float32))
    channels = 1 if values.ndim == 2 else values.shape[2]
    coarse = _diffused(halved / cv2.merge([np.maximum(share, 0.25)] * channels), share > 0)
    grown = cv2.resize(coarse, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    filled = _put(values, valid, np.ascontiguousarray(grown[:valid.shape[0], :valid.shape[1]]))
    for _ in range(DIFFUSION_STEPS):
        filled = _put(cv2.filter2D(filled, -1, _NEIGHBOURS, borderType=cv2.BORDER_REPLICATE), ~valid, filled)
    return filled


def _halved(values):
    """The mean of each two by two texels; what lies beyond an odd side counts as 0."""
    height, width = values.shape[:2]
    if height % 2 or width % 2:
        values = cv2.copyMakeBorder(values, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT, value=0)
    return cv2.resize(values, (-(-width // 2), -(-height // 2)), interpolation=cv2.INTER_AREA)


def _only(values, mask):
    """Values where a mask is set, 0 elsewhere."""
    return cv2.copyTo(values, mask.view(np.uint8))


def _put(values, mask, onto):
    """Values where a mask is set, those of `onto` elsewhere; may overwrite `onto`."""
    return cv2.copyTo(values, mask.view(np.uint8), onto)
