"""Random faces of a face model, for `asmgen.synth` and its like; `asmgen.synthetic_photos` takes pictures of them.

Dimension key: V vertices, K modes of a basis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import map_coordinates

from bfm.morphable_model import MorphableModel
from bfm.open_face import COEFFICIENTS
from bfm.open_face.acts import HELD_OUT_PAIRS, random_expressions
from bfm.render import vertex_normals

EXPRESSIONS = ("normal", "acts")
"""How `random_face` draws them: each mode from a normal distribution, or what faces do (`bfm.open_face.acts`)."""


@dataclass(frozen=True, eq=False)
class SyntheticFace:
    """A person making a face.

    Attributes
    ----------
    id_coeffs, exp_coeffs, albedo_coeffs : np.ndarray
        (K,) float32, standard deviations.
    vertices : np.ndarray
        (V, 3) float32, mm, canonical.
    normals : np.ndarray
        (V, 3) float32 unit normals.
    colours : np.ndarray
        (V, 3) albedo with skin detail, RGB in [0, 1].
    hair : np.ndarray
        (3,) RGB in [0, 1].
    """

    id_coeffs: np.ndarray
    exp_coeffs: np.ndarray
    albedo_coeffs: np.ndarray
    vertices: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    hair: np.ndarray

    def with_expression(self, model: MorphableModel, exp_coeffs: np.ndarray) -> SyntheticFace:
        """Return the same person with (K,) other expression coefficients, standard deviations."""
        exp_coeffs = np.asarray(exp_coeffs, np.float32)
        vertices = model.shape(self.id_coeffs, exp_coeffs)
        normals = vertex_normals(vertices, model.triangles)
        return replace(self, exp_coeffs=exp_coeffs, vertices=vertices, normals=normals)


def check_face_model(model: MorphableModel, expressions: str = "normal") -> None:
    """Raise ValueError if `random_face` cannot draw from a model: it has no texture, or no such expressions."""
    if not model.has_albedo:
        raise ValueError(f"the face model '{model.name}' has no texture; convert it with one, or use the open model")
    if expressions not in EXPRESSIONS:
        raise ValueError(f"expressions must be one of {', '.join(EXPRESSIONS)}, got {expressions}")
    if expressions == "acts" and model.coefficients != COEFFICIENTS:
        raise ValueError(
            f"acts are movements of the open face model, and the face model '{model.name}' has others; "
            "use 'open' or normal expressions"
        )


def random_face(model: MorphableModel, rng: np.random.Generator, expressions: str = "normal") -> SyntheticFace:
    """Return a random person making a random face.

    Parameters
    ----------
    model : MorphableModel
        That passes `check_face_model`.
    rng : np.random.Generator
        Source of chance.
    expressions : str
        One of `EXPRESSIONS`. ``acts`` are `bfm.open_face.acts.random_expressions` without `HELD_OUT_PAIRS`.

    Returns
    -------
    SyntheticFace
        The same for the same state of `rng`.
    """
    id_coeffs, exp_coeffs, albedo_coeffs = (
        rng.standard_normal(len(basis), np.float32) for basis in (model.id_basis, model.exp_basis, model.albedo_basis)
    )
    exp_coeffs *= np.float32(rng.uniform(0.2, 1.2))
    if expressions == "acts":
        exp_coeffs = random_expressions(rng, 1, without=HELD_OUT_PAIRS)[0]
    colours = np.clip(model.albedo(albedo_coeffs), 0.02, 0.98) * _skin_detail(model.mean_shape, rng)[:, None]
    hair = rng.uniform(0.03, 0.4) * np.cumprod([1.0, rng.uniform(0.7, 1.0), rng.uniform(0.5, 0.95)])
    vertices = model.shape(id_coeffs, exp_coeffs)
    normals = vertex_normals(vertices, model.triangles)
    return SyntheticFace(id_coeffs, exp_coeffs, albedo_coeffs, vertices, normals, colours, hair)


def _skin_detail(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(V,) factor on the albedo that no linear mode has: pores, blotches, wrinkles, moles; `places` in mm."""
    strength = rng.uniform(0.4, 1.0)
    factor = np.ones(len(places), np.float32)
    for cell, amount in (((2.0, 2.0, 2.0), 0.04), ((8.0, 8.0, 8.0), 0.03), ((25.0, 3.0, 25.0), 0.02)):
        factor += np.float32(amount * strength) * _lattice_noise(places / np.array(cell, np.float32), rng)
    for mole in places[rng.integers(len(places), size=rng.poisson(4))]:
        radius = rng.uniform(0.8, 2.5)
        factor *= 1 - rng.uniform(0.2, 0.6) * np.exp(-((places - mole) ** 2).sum(axis=1) / radius**2)
    return factor


def _lattice_noise(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(V,) smooth noise of unit lattice, about N(0, 1/2), at (V, 3) places."""
    low = np.floor(places.min(axis=0))
    lattice = rng.standard_normal((np.ceil(places.max(axis=0) - low) + 2).astype(int), np.float32)
    return map_coordinates(lattice, (places - low).T, order=1)
