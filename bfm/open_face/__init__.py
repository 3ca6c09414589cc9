"""The open face model: a free morphable model made of MakeHuman's CC0 shapes (see PROVENANCE.md).

The embedded file holds the left half of a coarse face, quantised to binary fractions. Loading mirrors and
subdivides it in exact arithmetic, so that the model is bit for bit the same on every machine.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import sparse

from bfm.morphable_model import MorphableModel
from bfm.mouth import close_mouth
from bfm.open_face.albedo import face_albedo
from bfm.open_face.subdivide import subdivision

DATA_FILE = Path(__file__).with_name("open_face.npz")
LEVELS = 2
MEAN_STEP = 2.0**-10  # mm
COEFFICIENTS = "open-face-1"
"""Coefficient space of the model (`MorphableModel.coefficients`)."""
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
    coarse = unfold(symmetric, data["mirror"])
    shapes = unfold(_apply(operator[left], coarse), mirror)
    areas = {
        key.removeprefix("area_"): operator @ (mask / 256.0) for key, mask in data.items() if key.startswith("area_")
    }
    mean_shape, landmarks = shapes[0], data["landmarks"]
    mean_albedo, albedo_basis, albedo_stddev = face_albedo(mean_shape, landmarks, areas, coarse[0], operator)
    return MorphableModel(
        mean_shape=mean_shape, id_basis=shapes[1:], exp_basis=_apply(operator, _dequantised(data, "exp_basis")),
        mean_albedo=mean_albedo, albedo_basis=albedo_basis,
        id_stddev=data["id_stddev"], exp_stddev=data["exp_stddev"], albedo_stddev=albedo_stddev,
        triangles=triangles, mouth_triangles=close_mouth(triangles, mean_shape, landmarks),
        landmarks=landmarks, mirror=mirror, regions=data["regions"],
        name="dualface open face 1", layout="open", coefficients=COEFFICIENTS, licence=LICENCE,
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
