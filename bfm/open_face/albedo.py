"""Procedural skin: the open face model's mean albedo and its 199 modes.

Colours are gamma-encoded RGB in [0, 1]. A mode is a sum of layers, each a mask times a colour: what one
standard deviation adds. Sizes are those of the mean face, mm.

Dimension key: V vertices, K modes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, islice

import numpy as np
from scipy import sparse

from bfm.open_face.paint import below, curve, hill, noise, stroke

MODES = 199
STEP = 2.0**-14  # colours are rounded to it
RAW_UNIT = 255.0

SKIN = (0.69, 0.53, 0.45)
LIPS = (0.59, 0.37, 0.35)
HAIR = (0.22, 0.16, 0.13)
SCLERA = (0.80, 0.76, 0.74)
CARUNCLE = (0.66, 0.42, 0.38)
IRIS = (0.33, 0.25, 0.18)
PUPIL = (0.03, 0.03, 0.03)
DARK = (0.20, 0.11, 0.09)
MOUTH = (0.30, 0.12, 0.11)
# directions of change
MELANIN = np.array([-0.12, -0.11, -0.098])
BLOOD = np.array([0.02, -0.028, -0.020])
YELLOW = np.array([0.008, 0.003, -0.022])
GREY = np.array([-0.035, -0.025, -0.012])

Layer = tuple[np.ndarray, np.ndarray | tuple[float, float, float]]
Modes = Iterable[Sequence[Layer]]


def face_albedo(
    mean_shape: np.ndarray, landmarks: np.ndarray, areas: dict[str, np.ndarray],
    coarse_shape: np.ndarray, operator: sparse.csr_array,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint the mean face and its modes of variation.

    Parameters
    ----------
    mean_shape : np.ndarray
        (V, 3) neutral face, mm.
    landmarks : np.ndarray
        (68,) landmark vertices.
    areas : dict[str, np.ndarray]
        (V,) soft masks ``eye``, ``lash``, ``lips``, ``lids``, ``mouth_inside``.
    coarse_shape : np.ndarray
        (V_coarse, 3) the mean before subdivision, on which smooth noise is made.
    operator : sparse.csr_array
        (V, V_coarse) the subdivision.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, np.ndarray]
        (V, 3) mean and (199, V, 3) modes a standard deviation, float32 RGB; (199,) float32 raw units a
        standard deviation: the mode's norm in 0..255 colours, as in the BFM, whose modes have unit norm.
    """
    face = _Face(mean_shape.astype(np.float64), landmarks, areas)
    mean = _paint_mean(face)
    modes = [*_skin_modes(face), *_lip_modes(face), *_brow_modes(face), *_beard_modes(face), *_eye_modes(face),
             *_mark_modes(face)]
    modes += _cloud_modes(face, coarse_shape, operator, MODES - len(modes))
    basis = np.empty((MODES, *mean.shape), np.float32)
    norm = np.empty(MODES, np.float32)
    for number, layers in enumerate(modes):
        squares = 0.0
        for channel in range(3):
            value = sum(mask * rgb[channel] for mask, rgb in layers)
            steps = np.round(value / STEP)
            squares += (steps * steps).sum()  # of whole numbers: exact in any order
            basis[number, :, channel] = steps * STEP
        norm[number] = RAW_UNIT * STEP * np.sqrt(squares)
    return (np.round(mean / STEP) * STEP).astype(np.float32), basis, norm


class _Face:
    """Coordinates and masks that several layers share; x is positive on both sides."""

    def __init__(self, points: np.ndarray, landmarks: np.ndarray, areas: dict[str, np.ndarray]):
        self.points, self.marks = points, points[landmarks]
        self.x, self.y, self.z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
        self.front = below(-self.z, -45, 15)
        self.eye = below(-areas["eye"], -0.35, 0.15)
        self.eye_depth = np.clip(areas["eye"], 0, 1)  # 0 at the lid rim
        self.lash, self.lids = np.clip(1.4 * areas["lash"], 0, 1), areas["lids"] * (1 - self.eye)
        self.mouth_inside = below(-areas["mouth_inside"], -0.5, 0.4)
        self.lips = below(-areas["lips"], -0.68, 0.32)  # its border is a little inside MakeHuman's
        self.skin = 1 - self.eye
        self.brow_centre = curve(self.x, self.marks[22:27, :2] + np.array(
            [[-1.5, -4.5], [0, -2.8], [0, -1.6], [0, -1.0], [2, -1.2]]
        ))
        self.brow = self.brow_mask(0.0, 0.0)
        self.bare = self.skin * (1 - 0.85 * self.brow) * (1 - self.lash) * (1 - 0.5 * self.lips)
        pupil = (self.marks[42, :2] + self.marks[45, :2]) / 2
        dx, dy = self.x - pupil[0] + 0.4, self.y - pupil[1] - 0.3
        self.from_pupil = np.sqrt(dx * dx + dy * dy)
        self.beard = self._beard_mask()

    def brow_mask(self, raised: float, thicker: float) -> np.ndarray:
        """Return the eyebrows, moved up and thickened by some mm."""
        inner, outer = self.marks[22, 0] - 1, self.marks[26, 0] + 1.5
        half = curve(self.x, np.array(
            [[inner, 2.6], [inner + 9, 3.4], [inner + 24, 3.0], [outer - 8, 2.0], [outer, 0.8]]
        )) + thicker
        away = np.abs(self.y - self.brow_centre - raised)
        ends = below(self.x, outer - 2, 2.5) * below(-self.x, -inner - 0.5, 1.8)
        return self.skin * self.front * below(away, half, 1.6) * ends

    def patch(self, x: float, y: float, reach_x: float, reach_y: float) -> np.ndarray:
        """Return a soft spot of skin, on both sides of the face."""
        return self.bare * self.front * hill(self.x, self.y, (x, y), (reach_x, reach_y))

    def line(self, *path: tuple[float, float], width: float = 1.6) -> np.ndarray:
        """Return a crease in the skin, on both sides of the face."""
        return self.bare * self.front * stroke(self.x, self.y, path, width)

    def grain(self, size: float, seed: int) -> np.ndarray:
        """Return noise with spots of a size in mm."""
        return noise(self.points / size, seed)

    def _beard_mask(self) -> np.ndarray:
        top = curve(self.x, np.array([[0, -21], [11, -22], [26, -36], [38, -42], [52, -28], [64, -4], [72, 12.0]]))
        return self.bare * (1 - self.lips) * below(self.y, top - 5, 9) * (1 - hill(self.x, self.y, (0, -53), (22, 7)))


def _paint_mean(face: _Face) -> np.ndarray:
    """Return the (V, 3) mean albedo: layers blended over one another."""
    mean = np.empty_like(face.points)
    mean[:] = SKIN
    blush = (
        0.8 * face.patch(44, -6, 32, 30) + 0.7 * face.patch(0, -8, 20, 18) + 0.4 * face.patch(0, -74, 26, 20)
        + 0.6 * face.lids
    )
    mean += blush[:, None] * (1.3 * BLOOD)
    mean += (face.patch(0, 75, 60, 40) * 0.25)[:, None] * -MELANIN
    mean += (0.25 * face.patch(26, 18, 24, 12) + 0.2 * face.patch(31, 36, 26, 11) + 0.5 * face.lids)[:, None] * (
        0.6 * MELANIN
    )
    mean += (0.5 * face.patch(24.5, face.marks[54, 1] - 0.5, 6, 5))[:, None] * MELANIN
    mean += (0.35 * face.beard)[:, None] * GREY
    mean += (0.06 * face.skin * face.grain(5.0, 901) + 0.06 * face.skin * face.grain(2.5, 902))[:, None] * MELANIN
    dx, dy, dz = face.x - 9.2, face.y + 14.6, face.z - 107.5
    pit = below(0.8 * dx * dx + 1.6 * dy * dy + 0.8 * dz * dz, 9.0, 8.0)
    wet = below(np.abs(face.x - face.marks[42, 0]), 0.8, 1.4) * face.eye
    hair = 0.92 + 0.08 * np.clip(face.grain(1.3, 903), -1, 1)
    for mask, colour in (
        (0.85 * face.lips, LIPS), (0.78 * hair * face.brow, HAIR), (0.9 * face.mouth_inside, MOUTH), (0.8 * pit, DARK),
        (face.eye, SCLERA), (0.8 * wet, CARUNCLE),
        (face.eye * below(face.from_pupil, 5.6, 0.5), IRIS),
        (0.55 * face.eye * below(np.abs(face.from_pupil - 5.4), 0.5, 0.6), DARK),
        (face.eye * below(face.from_pupil, 2.0, 0.4), PUPIL),
        (0.45 * face.eye * below(face.eye_depth, 0.8, 0.3) * below(-face.y, -face.marks[42:48, 1].mean(), 2.0), DARK),
        (0.15 * face.eye * below(face.eye_depth, 0.8, 0.3), DARK),
        (0.75 * face.lash, DARK),
    ):
        mean += mask[:, None] * (np.array(colour) - mean)
    return mean


def _skin_modes(face: _Face) -> Modes:
    """Complexion: where there is how much melanin and blood."""
    iris = face.eye * below(face.from_pupil, 5.6, 0.5)
    return [
        [(face.bare, MELANIN), (0.5 * face.lips, 0.75 * MELANIN), (face.brow, 0.3 * MELANIN), (iris, 0.3 * MELANIN),
         (0.5 * face.beard, 0.15 * MELANIN)],
        [(face.bare, 0.4 * BLOOD), (face.lips, 0.4 * BLOOD)],
        [(face.bare, 0.55 * YELLOW)],
        [(face.bare * np.clip(face.y / 100, -1, 1), 0.12 * MELANIN)],
        [(face.bare * (1 - face.front), 0.12 * MELANIN)],
        *([(face.patch(*spot), strength * BLOOD)] for spot, strength in (
            ((44, -6, 34, 30), 0.4), ((0, -8, 20, 20), 0.4), ((0, -74, 24, 18), 0.25), ((0, 70, 60, 35), 0.2),
            ((16, -16, 10, 12), 0.3), ((55, -30, 30, 40), 0.2), ((31, 20, 24, 14), 0.3),
        )),
        *([(face.patch(*spot), strength * MELANIN)] for spot, strength in (
            ((27, 15, 22, 11), 0.2), ((31, 37, 26, 10), 0.15), ((31, 26, 34, 26), 0.12), ((0, -30, 40, 22), 0.08),
            ((0, 70, 60, 40), 0.1), ((46, -4, 30, 26), 0.1), ((0, 0, 24, 30), 0.08),
        )),
        [(face.lids, 0.2 * MELANIN)], [(face.lids, 0.5 * BLOOD)],
        [(face.skin * face.grain(4.0, 910), 0.04 * MELANIN)], [(face.skin * face.grain(3.0, 911), 0.1 * BLOOD)],
        [(face.skin * face.grain(1.8, 912), 0.04 * MELANIN)],
    ]


def _lip_modes(face: _Face) -> Modes:
    """Colour, outline and shading of the lips."""
    lips, level = face.lips, face.marks[62, 1]
    edge = 4 * lips * (1 - lips)
    return [
        [(lips, (0.014, -0.017, -0.011))], [(lips, (0.022, 0.02, 0.02))], [(lips, (-0.008, 0.0, 0.008))],
        [(lips * below(-face.y, -level, 2.0), 0.15 * MELANIN)], [(edge, 0.15 * MELANIN)], [(edge, 0.4 * BLOOD)],
        [(lips * hill(face.x, face.y, (0, level - 6), (16, 9)), (0.03, 0.03, 0.03))],
        [(lips * face.grain(2.2, 920), (0.006, 0.01, 0.009))],
        [(face.patch(25, level, 8, 8), 0.25 * MELANIN)],
    ]


def _brow_modes(face: _Face) -> Modes:
    """Darkness, colour, shape and hairs of the eyebrows."""
    brow, dark = face.brow, np.array([-0.1, -0.085, -0.07])
    inner, outer = below(face.x, 30, 10), below(-face.x, -38, 10)
    gap = face.skin * face.front * hill(face.x, face.y, (0, face.marks[22, 1] - 3), (15, 6))
    return [
        [(brow, 0.8 * dark)], [(brow, (0.035, 0.02, 0.004))],
        [(brow * inner, 0.6 * dark)], [(brow * outer, 0.6 * dark)],
        [(face.brow_mask(0, 0.6) - face.brow_mask(0, -0.6), 1.2 * dark)],
        [(face.brow_mask(0.7, 0) - face.brow_mask(-0.7, 0), 1.6 * dark)],
        [((face.brow_mask(0.6, 0) - face.brow_mask(-0.6, 0)) * outer, 1.6 * dark)],
        [(gap, 0.35 * dark)],
        *([(brow * face.grain(size, 930 + i), 0.1 * dark)] for i, size in enumerate((1.2, 1.2, 2.0, 3.0, 5.0))),
    ]


def _beard_modes(face: _Face) -> Modes:
    """Shadow of shaven hair and stubble."""
    moustache = face.beard * hill(face.x, face.y, (0, -29), (26, 12))
    chin = face.beard * hill(face.x, face.y, (0, -70), (24, 22))
    sides = face.beard * below(-face.x, -48, 18)
    return [
        [(face.beard, 0.8 * GREY)], [(moustache, 0.7 * GREY)], [(chin, 0.6 * GREY)], [(sides, 0.3 * GREY)],
        *([(face.beard * face.grain(size, 940 + i), 0.09 * GREY)] for i, size in enumerate((1.3, 1.6, 2.0, 2.5, 3.5))),
    ]


def _eye_modes(face: _Face) -> Modes:
    """Iris, pupil, white of the eye, lashes."""
    def disc(radius: float) -> np.ndarray:
        return face.eye * below(face.from_pupil, radius, 0.5)

    iris = disc(5.6) - disc(2.0)
    white = face.eye - disc(5.6)
    return [
        [(iris, (0.04, 0.055, 0.075))],
        [(iris, (-0.008, 0.003, 0.016))], [(iris, (0.0, 0.02, -0.005))],
        [(disc(5.8) - disc(4.6), (-0.05, -0.05, -0.05))], [(disc(3.4) - disc(2.0), (0.05, 0.03, 0.0))],
        [(disc(2.4) - disc(1.6), (-0.1, -0.08, -0.06))], [(disc(5.9) - disc(5.3), (-0.12, -0.12, -0.12))],
        [(iris * face.grain(1.2, 950), (0.03, 0.03, 0.03))],
        [(white, (-0.01, -0.03, -0.03))], [(white, (-0.01, -0.015, -0.04))], [(white, (-0.04, -0.04, -0.04))],
        [(face.lash, (-0.08, -0.06, -0.05))],
    ]


def _mark_modes(face: _Face) -> Modes:
    """Freckles, age spots, and the tint of creases."""
    freckled = 0.2 + face.patch(30, 2, 45, 30)
    eye_y = face.marks[42:48, 1].mean()
    creases = (
        *(face.line((0, height + 1), (18, height), (38, height - 4)) for height in (66, 76, 86)),
        face.line((49, eye_y + 4), (60, eye_y + 9)) + face.line((50, eye_y), (62, eye_y - 2))
        + face.line((48, eye_y - 4), (58, eye_y - 12)),
        face.line((20, -17), (27, -30), (31, -44), width=3.0), face.line((27, -48), (29, -62), width=2.4),
        face.line((5, 40), (6, 54)), face.line((16, eye_y - 9), (28, eye_y - 14), (42, eye_y - 9), width=2.4),
        face.line((0, -56.5), (12, -55), width=2.4),
    )
    return [
        *([(face.bare * freckled * below(-face.grain(2.4, 960 + i), -0.9, 0.5), 0.14 * MELANIN)] for i in range(6)),
        *([(face.bare * below(-face.grain(7.0, 970 + i), -1.2, 0.5), 0.08 * MELANIN)] for i in range(5)),
        *([(crease, 0.12 * MELANIN)] for crease in creases),
    ]


def _cloud_modes(
    face: _Face, coarse_shape: np.ndarray, operator: sparse.csr_array, count: int
) -> Modes:
    """Smooth irregularities of the complexion, from large and strong to small and weak."""
    tints = islice(cycle((0.028 * MELANIN, 0.06 * BLOOD, 0.06 * YELLOW)), count)
    sizes = 60.0 / (1 + 0.045 * np.arange(count))
    clouds = np.stack([noise(coarse_shape / size, i) for i, size in enumerate(sizes)], 1)
    clouds = operator @ (np.round(clouds * 1024) / 1024)  # exact in any order
    return [
        [(face.bare * cloud, tint / (1 + 0.012 * i))] for i, (cloud, tint) in enumerate(zip(clouds.T, tints))
    ]
