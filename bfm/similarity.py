"""The similarity or rigid motion that best takes points to points that are known to correspond.

Dimension key: N points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Similarity(NamedTuple):
    """``p -> scale * rotation @ p + translation``.

    Attributes
    ----------
    scale : float
        Above 0; 1 for a rigid motion.
    rotation : np.ndarray
        (3, 3), determinant 1.
    translation : np.ndarray
        (3,) units of the target.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Return (..., 3) points moved."""
        return self.scale * points @ self.rotation.T + self.translation


def fit_similarity(source: np.ndarray, target: np.ndarray, scale: bool = True) -> Similarity:
    """Find the motion with the least sum of squared distances between moved and target points [1]_, in closed form.

    Parameters
    ----------
    source : np.ndarray
        (N, 3), at least three points that are not on a line.
    target : np.ndarray
        (N, 3), point k corresponds to point k of `source`.
    scale : bool
        Whether to scale; False gives the best rigid motion.

    Returns
    -------
    Similarity
        Float64; never a reflection, also of points that lie in a plane.

    Raises
    ------
    ValueError
        If the shapes are not those, or a set of points is not finite or lies on a line.

    References
    ----------
    .. [1] S. Umeyama, Least-squares estimation of transformation parameters between two point patterns, 1991.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3 or len(source) < 3:
        raise ValueError(
            f"source and target must both have shape (N, 3) with N of at least 3, got {source.shape} and {target.shape}"
        )
    source_middle, target_middle = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_middle
    covariance = centred.T @ (target - target_middle)
    if not np.isfinite(covariance).all():
        raise ValueError("source and target must be finite points, got NaN or infinity")
    u, s, vt = np.linalg.svd(covariance)
    if s[1] <= 1e-12 * s[0]:
        raise ValueError(f"source and target must hold points that are not on a line, got {len(source)} that are")
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    factor = float((s * signs).sum() / (centred**2).sum()) if scale else 1.0
    rotation = ((u * signs) @ vt).T
    return Similarity(factor, rotation, target_middle - factor * rotation @ source_middle)
