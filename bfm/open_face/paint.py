"""Brushes: smooth masks and noise on points, the same on every machine to the last bit.

Only whole numbers, ``+ - * /``, sqrt and comparisons are used, element by element: IEEE arithmetic fixes their
results, unlike those of exp, sin or sums. Masks are (V,) float64, 0 to 1, for (V,) coordinates in mm.
"""

from __future__ import annotations

import numpy as np


def below(value: np.ndarray, limit: np.ndarray | float, softness: float) -> np.ndarray:
    """Return 1 where the value is well below the limit, 0 well above, smooth within +-softness."""
    t = np.clip((limit + softness - value) / (2 * softness), 0, 1)
    return t * t * (3 - 2 * t)


def hill(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], reach: tuple[float, float]) -> np.ndarray:
    """Return a smooth hill of height 1 that ends at an ellipse."""
    across, along = (x - centre[0]) / reach[0], (y - centre[1]) / reach[1]
    inside = np.clip(1 - across * across - along * along, 0, 1)
    return inside * inside * inside


def curve(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the height at x of a smooth curve through (N, 2) knots of growing x; level beyond its ends."""
    at, height = knots[:, 0], knots[:, 1]
    chord = (height[1:] - height[:-1]) / (at[1:] - at[:-1])
    slope = np.concatenate([[0.0], (chord[1:] + chord[:-1]) / 2, [0.0]])
    result = np.where(x < at[0], height[0], height[-1])
    for i, width in enumerate(at[1:] - at[:-1]):
        t = (x - at[i]) / width
        s = 1 - t
        piece = (
            height[i] * (1 + 2 * t) * s * s + height[i + 1] * (1 + 2 * s) * t * t
            + width * t * s * (slope[i] * s - slope[i + 1] * t)
        )
        result = np.where((t >= 0) & (t < 1), piece, result)
    return result


def stroke(x: np.ndarray, y: np.ndarray, path: tuple[tuple[float, float], ...], width: float) -> np.ndarray:
    """Return a soft line of half-width `width` along a polyline."""
    distance = np.full_like(x, np.inf)
    for (x0, y0), (x1, y1) in zip(path, path[1:]):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        ox, oy = x - x0 - t * dx, y - y0 - t * dy
        distance = np.minimum(distance, np.sqrt(ox * ox + oy * oy))
    return below(distance, width / 2, width / 2)


def noise(points: np.ndarray, seed: int) -> np.ndarray:
    """Return smooth random values, mean 0 and about unit variance, for (V, 3) points; correlated over length 1."""
    points = points + 1000.0
    corner = np.floor(points)
    t = points - corner
    t = t * t * (3 - 2 * t)
    cell = corner.astype(np.uint64)
    total = np.zeros(len(points))
    for corner_of_cell in np.ndindex(2, 2, 2):
        weight = 1.0
        for axis, far in enumerate(corner_of_cell):
            weight = weight * (t[:, axis] if far else 1 - t[:, axis])
        total = total + weight * _hash(cell + np.array(corner_of_cell, np.uint64), seed)
    return 3.0 * total


def _hash(cell: np.ndarray, seed: int) -> np.ndarray:
    """Return a random value in -1..1 for each (V, 3) lattice point, by whole-number arithmetic modulo 2**64."""
    x, y, z = cell.T
    h = x * np.uint64(0x9E3779B97F4A7C15) + y * np.uint64(0xC2B2AE3D27D4EB4F) + z * np.uint64(0x165667B19E3779F9)
    h = h + np.uint64((seed + 1) * 0xD6E8FEB86659FD93 % 2**64)
    for shift in (32, 29, 32):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(0xD6E8FEB86659FD93)
    return (h >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
