"""Procedural skin: the open face model's mean albedo and its 199 modes.

Everything is painted on the mean shape with +, -, *, /, sqrt and comparisons alone, element by element, so
that the result is bit for bit the same on every machine. Colours are gamma-encoded RGB in [0, 1].

Dimension key: V vertices, K modes.
"""

from __future__ import annotations

import numpy as np

MODES = 199
STEP = 2.0**-14  # colours are rounded to it
SKIN = (0.72, 0.54, 0.45)
LIPS = (0.62, 0.36, 0.34)
HAIR = (0.25, 0.18, 0.14)
SCLERA = (0.82, 0.79, 0.77)
IRIS = (0.36, 0.27, 0.20)
PUPIL = (0.05, 0.045, 0.045)
IRIS_RADIUS = 5.9  # mm
PUPIL_RADIUS = 2.1
RAW_UNIT = 255.0  # raw units of albedo coefficients, as in the BFM: 0..255


def face_albedo(
    mean_shape: np.ndarray, landmarks: np.ndarray, areas: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint the mean face and its modes of variation.

    Parameters
    ----------
    mean_shape : np.ndarray
        (V, 3) neutral face, mm.
    landmarks : np.ndarray
        (68,) landmark vertices.
    in_eye : np.ndarray
        (V,) bool: inside the lid rims.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, np.ndarray]
        (V, 3) mean and (199, V, 3) modes a standard deviation, float32 RGB; (199,) raw standard
        deviations: the root mean square of a mode over the face, in 0..255 units times sqrt(3 V).
    """
    points = mean_shape.astype(np.float64)
    marks = points[landmarks]
    x, y, z = points.T
    side = np.abs(x)
    in_eye = areas["eye"] > 0.4
    skin = 1.0 - in_eye

    eye = (marks[42] + marks[45]) / 2
    from_pupil = np.sqrt((side - eye[0]) ** 2 + (y - eye[1] - 0.5) ** 2)
    iris = in_eye * _below(from_pupil, IRIS_RADIUS, 0.6)
    pupil = in_eye * _below(from_pupil, PUPIL_RADIUS, 0.5)
    lips = skin * _between(side, y, marks[[51, 52, 53, 54]], marks[[57, 56, 55, 54]], 1.2) * (z > 60)
    brow_line = marks[[22, 23, 24, 25, 26]]
    brows = skin * _between(
        side, y, brow_line + [0, 2.0, 0], brow_line + np.array([[0, -5.0, 0], [0, -4.5, 0], [0, -3.5, 0], [0, -2.5, 0],
                                                                [0, -1, 0]]), 1.5
    ) * (z > 60)
    cheeks = skin * _bump(side, y, (42, -8), (26, 22))

    def colour(rgb) -> np.ndarray:
        return np.array(rgb, np.float64)

    mean = np.empty_like(points)
    mean[:] = colour(SKIN)
    mean += cheeks[:, None] * colour((0.03, -0.02, -0.015))
    for mask, rgb, strength in (
        (lips, LIPS, 0.9), (brows, HAIR, 0.75), (in_eye * 1.0, SCLERA, 1.0), (iris, IRIS, 1.0), (pupil, PUPIL, 1.0),
    ):
        mean += (strength * mask)[:, None] * (colour(rgb) - mean)

    modes = [
        skin[:, None] * colour((0.11, 0.125, 0.125)), skin[:, None] * colour((0.012, -0.03, -0.02)),
        lips[:, None] * colour((0.05, -0.03, -0.02)), lips[:, None] * colour((0.05, 0.05, 0.05)),
        brows[:, None] * colour((-0.1, -0.09, -0.08)), iris[:, None] * colour((0.03, 0.06, 0.1)),
        cheeks[:, None] * colour((0.02, -0.03, -0.02)),
    ]
    index = 0
    while len(modes) < MODES:
        cell = 60.0 / (1 + 0.05 * index)
        tint = colour(((0.02, 0.02, 0.02), (0.012, -0.012, -0.01), (0.006, 0.0, -0.008))[index % 3]) / (1 + 0.03 * index)
        modes.append((skin * _noise(points / cell, index))[:, None] * tint)
        index += 1
    modes = np.stack(modes)
    mean, modes = (np.round(array / STEP).astype(np.float32) * np.float32(STEP) for array in (mean, modes))
    steps = np.round(modes.astype(np.float64) / STEP).astype(np.int64)  # whole numbers: their sum is exact
    return mean, modes, (RAW_UNIT * STEP * np.sqrt((steps**2).sum((1, 2)).astype(np.float64))).astype(np.float32)


def _below(value: np.ndarray, limit: float, softness: float) -> np.ndarray:
    """1 well below the limit, 0 well above, smooth over 2 * softness."""
    t = np.clip((limit + softness - value) / (2 * softness), 0, 1)
    return t * t * (3 - 2 * t)


def _bump(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], reach: tuple[float, float]) -> np.ndarray:
    """A smooth hill of height 1 that ends at an ellipse."""
    inside = np.clip(1 - ((x - centre[0]) / reach[0]) ** 2 - ((y - centre[1]) / reach[1]) ** 2, 0, 1)
    return inside * inside


def _curve(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Height of the polyline through the knots' x, y at x; level beyond its ends."""
    height = np.full_like(x, knots[0, 1])
    for (x0, y0), (x1, y1) in zip(knots[:-1, :2], knots[1:, :2]):
        height = height + np.clip((x - x0) / (x1 - x0), 0, 1) * (y1 - y0)
    return height


def _between(x: np.ndarray, y: np.ndarray, top: np.ndarray, bottom: np.ndarray, softness: float) -> np.ndarray:
    """1 between two polylines given from the middle outward, 0 outside."""
    upper, lower = _curve(x, top), _curve(x, bottom)
    return (
        _below(y - upper, 0, softness) * _below(lower - y, 0, softness)
        * _below(x, top[-1, 0], softness) * _below(top[0, 0] - x, 0, softness)
    )


def _noise(points: np.ndarray, seed: int) -> np.ndarray:
    """Smooth random values about -1..1 at (V, 3) points, correlated over a unit of length."""
    points = points + 1000.0
    corner = np.floor(points)
    t = points - corner
    t = t * t * (3 - 2 * t)
    cell = corner.astype(np.uint64)
    total = np.zeros(len(points))
    for dx in (0, 1):
        for dy in (0, 1):
            for dz in (0, 1):
                value = _hash(cell[:, 0] + np.uint64(dx), cell[:, 1] + np.uint64(dy), cell[:, 2] + np.uint64(dz), seed)
                weight = (
                    (t[:, 0] if dx else 1 - t[:, 0]) * (t[:, 1] if dy else 1 - t[:, 1]) * (t[:, 2] if dz else 1 - t[:, 2])
                )
                total = total + weight * value
    return 1.7 * total


def _hash(x: np.ndarray, y: np.ndarray, z: np.ndarray, seed: int) -> np.ndarray:
    """Random values in -1..1, one a lattice point (whole-number arithmetic modulo 2**64)."""
    h = x * np.uint64(0x9E3779B97F4A7C15) + y * np.uint64(0xC2B2AE3D27D4EB4F) + z * np.uint64(0x165667B19E3779F9)
    h = h + np.uint64((seed + 1) * 0xD6E8FEB86659FD93 % 2**64)
    for shift in (32, 29, 32):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(0xD6E8FEB86659FD93)
    return (h >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
