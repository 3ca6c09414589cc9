"""The open face model: a free morphable model made of MakeHuman's CC0 shapes (see PROVENANCE.md).

The embedded file holds the left half of a coarse face, quantised to binary fractions. Loading mirrors and
subdivides it in exact arithmetic, so that the model is bit for bit the same on every machine.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import sparse

from bfm.morphable_model import REGIONS, MorphableModel
from bfm.open_face.albedo import face_albedo
from bfm.open_face.subdivide import subdivision

DATA_FILE = Path(__file__).with_name("open_face.npz")
LEVELS = 2
MEAN_STEP = 2.0**-10  # mm
LICENCE = (
    "Free for any use: shapes derived from MakeHuman's CC0 data (base mesh and targets by the MakeHuman community, "
    "face units by Mika Suominen), colours procedural; see bfm/open_face/PROVENANCE.md."
)


@lru_cache(maxsize=1)
def open_face_model() -> MorphableModel:
    """Return the embedded open face model (made once a process; treat it as read-only).

    Returns
    -------
    MorphableModel
        199 identity, 29 expression and 199 albedo modes; no vertex is "outside". The origin lies inside
        the head, 27 mm below and 85 mm behind the middle of the outer eye corners. Raw coefficients
        (``coeffs * stddev``) are micrometres along a mode of unit norm for identity, as in the BFM;
        weights of face units (1 is the full movement) for expression; RGB in 0..255 for albedo.
    """
    with np.load(DATA_FILE) as data:
        data = dict(data)
    operator, triangles, mirror = subdivision(data["triangles"], data["mirror"], LEVELS)
    left = np.flatnonzero(np.arange(len(mirror)) <= mirror)
    symmetric = np.concatenate([data["mean_shape"][None] * MEAN_STEP, _dequantised(data, "id_basis")])
    shapes = unfold(_apply(operator[left], unfold(symmetric, data["mirror"])), mirror)
    mean_shape, landmarks = shapes[0], data["landmarks"]
    in_eye = operator[:, data["eye_vertices"]].sum(axis=1) > 0.5
    mean_albedo, albedo_basis, albedo_stddev = face_albedo(mean_shape, landmarks, in_eye)
    return MorphableModel(
        mean_shape=mean_shape, id_basis=shapes[1:], exp_basis=_apply(operator, _dequantised(data, "exp_basis")),
        mean_albedo=mean_albedo, albedo_basis=albedo_basis,
        id_stddev=data["id_stddev"], exp_stddev=data["exp_stddev"], albedo_stddev=albedo_stddev,
        triangles=triangles, mouth_triangles=_fill_slit(triangles, mirror, int(data["lip_loop"][0])),
        landmarks=landmarks, mirror=mirror, regions=_regions(mean_shape, landmarks),
        name="dualface open face 1", layout="open", coefficients="open-face-1", licence=LICENCE,
    )


def expression_units() -> dict[str, np.ndarray]:
    """Return the expression coefficients of each named movement at full strength.

    Returns
    -------
    dict[str, np.ndarray]
        Name, such as ``jaw_open``, to (29,) coefficients in standard deviations. Movements add up.
    """
    with np.load(DATA_FILE) as data:
        return {str(name): row for name, row in zip(data["exp_names"], np.diag(1 / data["exp_stddev"]))}


def unfold(halves: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Return whole symmetric faces (K, V, 3) from their left halves (K, V_left, 3), the midline among them."""
    left = np.flatnonzero(np.arange(len(mirror)) <= mirror)
    whole = np.empty((len(halves), len(mirror), 3), halves.dtype)
    whole[:, mirror[left]] = halves * np.array([-1, 1, 1], halves.dtype)
    whole[:, left] = halves
    return whole


def _dequantised(data: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return a basis (K, V, 3) that is stored as whole steps of a power of two a mode."""
    return np.ldexp(data[name].astype(np.float64), data[f"{name}_exponent"][:, None, None])


def _apply(operator: sparse.csr_array, values: np.ndarray) -> np.ndarray:
    """Return (K, V', 3) float32 values on the subdivided mesh."""
    flat = np.ascontiguousarray(values.swapaxes(0, 1)).reshape(values.shape[1], -1)
    fine = (operator @ flat).astype(np.float32).reshape(-1, len(values), 3)
    return np.ascontiguousarray(fine.swapaxes(0, 1))


def _fill_slit(triangles: np.ndarray, mirror: np.ndarray, start: int) -> np.ndarray:
    """Return (M, 3) triangles that close the boundary loop through `start`, the middle of the upper lip.

    A strip from the upper to the lower lip: vertex i of the loop faces vertex n / 2 - i.
    """
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).astype(np.int64)
    count = len(mirror)
    open_sides = sides[~np.isin(sides[:, 0] * count + sides[:, 1], sides[:, 1] * count + sides[:, 0])]
    following = dict(open_sides[:, ::-1].tolist())  # against the surface's sense: with the filling's
    loop = [start]
    while following[loop[-1]] != start:
        loop.append(following[loop[-1]])
    loop = np.array(loop)
    near = loop[:len(loop) // 4 + 1]  # from the middle of the upper lip to a corner
    far = loop[len(loop) // 2:len(loop) // 4 - 1:-1]  # from the middle of the lower lip to the same corner
    side = np.concatenate([
        np.stack([near[:-1], near[1:], far[:-1]], 1), np.stack([near[1:-1], far[1:-1], far[:-2]], 1)
    ])
    return np.concatenate([side, mirror[side][:, ::-1]]).astype(np.int32)


def _regions(mean_shape: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Return the region label of each vertex, from ellipses in the frontal view."""
    x, y, z = mean_shape.T.astype(np.float64)
    points = mean_shape[landmarks].astype(np.float64)
    regions = np.full(len(mean_shape), REGIONS.index("face"), np.uint8)

    def ellipse(centre: np.ndarray, width: float, height: float) -> np.ndarray:
        return (((np.abs(x) if centre[0] else x) - centre[0]) / width) ** 2 + ((y - centre[1]) / height) ** 2 < 1

    eye = (points[42] + points[45]) / 2
    regions[ellipse(eye, 24, 14)] = REGIONS.index("eyes")
    tip, bridge = points[30], points[27]
    share = np.clip((bridge[1] + 4 - y) / (bridge[1] - tip[1]), 0, 1)
    on_nose = (np.abs(x) < 7 + 15 * share) & (y < bridge[1] + 4) & (y > points[33][1] - 2) & (z > 80)
    regions[on_nose] = REGIONS.index("nose")
    mouth = (points[62] + points[66]) / 2
    regions[ellipse(np.array([0, mouth[1], 0]), 31, 17) & (z > 60)] = REGIONS.index("mouth")
    return regions
