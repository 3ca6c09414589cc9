"""Where a known shape is, from where some of its points are seen: rotation, shift and scale, by least squares.

Dimension key: L points. Millimetres in space, pixels in the image, y up in both; cameras as in `bfm.pose`.
"""

from __future__ import annotations

import math

import numpy as np

ITERATIONS = 8


def rigid_pose(
    shape: np.ndarray, target: np.ndarray, distance: float = math.inf
) -> tuple[np.ndarray, np.ndarray, float]:
    """Find where a known shape is from where its points are seen: Gauss-Newton on the distances to them.

    Parameters
    ----------
    shape : np.ndarray
        (L, 3) mm, at least four points that are not in a plane.
    target : np.ndarray
        (L, 2) pixels, y up.
    distance : float
        Of the camera, mm, see `bfm.pose.project`; infinite is scaled orthographic.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, float]
        (3, 3) rotation, (2,) shift in pixels, scale in pixels a millimetre.
    """
    rotation, shift, scale = orthographic_pose(shape, target)
    zero, one = np.zeros(len(shape)), np.ones(len(shape))
    for _ in range(ITERATIONS):
        turned = shape @ rotation.T
        w = 1 - turned[:, 2:] / distance
        turned = scale * turned
        seen = w * target + (1 - w) * shift  # where an orthographic camera would see it
        # derivatives of (x, y) by rotation about x, y, z (camera axes), shift and log scale
        slopes = np.stack([
            np.stack([zero, -turned[:, 2]], 1), np.stack([turned[:, 2], zero], 1),
            np.stack([-turned[:, 1], turned[:, 0]], 1), np.stack([one, zero], 1), np.stack([zero, one], 1),
            turned[:, :2],
        ]).reshape(6, -1).T
        move = np.linalg.lstsq(slopes, (seen - turned[:, :2] - shift).ravel(), rcond=None)[0]
        rotation, shift = turn_by(move[:3]) @ rotation, shift + move[3:5]
        scale *= np.exp(np.clip(move[5], -0.5, 0.5))
    return rotation, shift, scale


def orthographic_pose(shape: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return rotation, shift and scale of a known shape: the affine camera, made a scaled rotation; y up."""
    centre, middle = shape.mean(axis=0), target.mean(axis=0)
    affine = np.linalg.lstsq(shape - centre, target - middle, rcond=None)[0].T
    left, sizes, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    rotation = np.stack([*rows, np.cross(*rows)])
    scale = sizes.mean()
    return rotation, middle - scale * rows @ centre, scale


def turn_by(vector: np.ndarray) -> np.ndarray:
    """Return the rotation about a vector by its length (Rodrigues); at most half a radian, for a step's safety."""
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.minimum(angle, 0.5)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
