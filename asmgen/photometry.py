"""Albedo and light of a photographed face, from fixed samples of its surface.

A sample is one triangle of the model: its centre is where the photo and the albedo are taken, its plane gives
the normal. A photo costs a few thousand vertices, never the whole mesh.

Dimension key: S samples, K modes of a basis, H/W pixels of the photo.
"""

from __future__ import annotations

import numpy as np

from bfm.light import fit_light, sh_basis
from bfm.morphable_model import REGIONS, MorphableModel
from bfm.pose import project, rotation_matrix

SAMPLES = 800
ALBEDO_SAMPLES = 400
ALBEDO_SIGMA = 0.4
"""RGB: deviation of one sample from the linear albedo, counted so wide because neighbours err together."""
MIN_VISIBLE = 60
ROUNDS = 3
KEPT = 0.8
"""Share of the samples that the albedo is fitted to: hair, glasses, highlights and hidden skin fit worst."""
FACING = 0.15
"""Least cosine between normal and view of a sample that is used."""
OCCLUSION_CELL, OCCLUSION_DEPTH = 6.0, 12.0
"""mm: a sample is hidden if another in its cell of the view is nearer by this depth."""
BROW_MARGIN, INNER = 8.0, 0.9
"""mm above the brows, and share of the jaw's half width: beyond, photos show hair as often as skin."""
BLACK, SATURATED = 4 / 255, 250 / 255
"""Brightest channel of a sample that tells something; what 300W-LP pads photos with is black."""


class Photometry:
    """The samples of a face model's surface; made once, used for every photo.

    Its methods raise ValueError for a photo that shows fewer than `MIN_VISIBLE` of them.

    Parameters
    ----------
    model : MorphableModel
        Numpy arrays.
    samples : int
        Number of samples, spread evenly by area over the face; ears, neck, forehead and temples are left out.
    """

    def __init__(self, model: MorphableModel, samples: int = SAMPLES):
        corners = model.mean_shape[model.triangles].astype(np.float64)
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        area[(model.regions[model.triangles] == REGIONS.index("outside")).any(axis=1)] = 0
        area[~_seldom_under_hair(model, corners.mean(axis=1))] = 0
        covered = np.cumsum(area)
        chosen = np.unique(np.searchsorted(covered, (np.arange(samples) + 0.5) / samples * covered[-1]))
        triangles = model.triangles[chosen]
        self._mean = model.mean_shape[triangles].reshape(-1)
        self._id_basis = model.id_basis[:, triangles].reshape(len(model.id_basis), -1)
        self._exp_basis = model.exp_basis[:, triangles].reshape(len(model.exp_basis), -1)
        self._mean_albedo = model.mean_albedo[triangles].mean(axis=1)
        self._albedo_basis = model.albedo_basis[:, triangles].mean(axis=2)

    def fit_light(
        self, image: np.ndarray, id_coeffs: np.ndarray, exp_coeffs: np.ndarray, albedo_coeffs: np.ndarray | None,
        pose: np.ndarray, position: np.ndarray,
    ) -> tuple[np.ndarray, float]:
        """Fit the light of a photo whose face is known (`bfm.light.fit_light` on the samples in sight).

        Parameters
        ----------
        image : np.ndarray
            (H, W, 3) uint8 RGB.
        id_coeffs : np.ndarray
            (K,) standard deviations.
        exp_coeffs : np.ndarray
            (K,) standard deviations.
        albedo_coeffs : np.ndarray | None
            (K,) standard deviations; None is the mean albedo.
        pose : np.ndarray
            (3,) radians.
        position : np.ndarray
            (3,) t_x, t_y, scale (`bfm.pose`), pixels of the photo.

        Returns
        -------
        tuple[np.ndarray, float]
            (9,) float32 light, and the RMS difference between photo and albedo * shading over the
            samples in sight, RGB in [0, 1].
        """
        colours, normals, seen = self._look(image, id_coeffs, exp_coeffs, pose, position)
        albedo = self._mean_albedo[seen]
        if albedo_coeffs is not None and len(albedo_coeffs):
            albedo = albedo + np.tensordot(albedo_coeffs, self._albedo_basis[:, seen], 1)
        return fit_light(albedo, colours, normals)

    def fit_albedo_and_light(
        self, image: np.ndarray, id_coeffs: np.ndarray, exp_coeffs: np.ndarray, pose: np.ndarray, position: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Fit albedo and light of a photo whose geometry is known, in turns.

        Parameters
        ----------
        image : np.ndarray
            (H, W, 3) uint8 RGB.
        id_coeffs : np.ndarray
            (K,) standard deviations.
        exp_coeffs : np.ndarray
            (K,) standard deviations.
        pose : np.ndarray
            (3,) radians.
        position : np.ndarray
            (3,) t_x, t_y, scale (`bfm.pose`), pixels of the photo.

        Returns
        -------
        tuple[np.ndarray, np.ndarray, float]
            (K,) float32 albedo coefficients, N(0, 1) a priori ((0,) for a model without texture), and the
            light and residual of `fit_light`.
        """
        colours, normals, seen = self._look(image, id_coeffs, exp_coeffs, pose, position)
        mean, basis = self._mean_albedo[seen], self._albedo_basis[:, seen]
        coeffs = np.zeros(len(basis), np.float32)
        gained = np.concatenate([basis, mean[None]])
        prior = np.diag([*np.ones(len(basis)), 0])
        harmonics = sh_basis(normals)
        albedo = mean
        light, residual = fit_light(albedo, colours, normals)
        for _ in range(ROUNDS if len(basis) else 0):
            shading = (harmonics @ light)[:, None]
            misfit = np.abs(albedo * shading - colours).max(axis=1)
            some = np.flatnonzero(misfit <= np.quantile(misfit, KEPT))
            some = some[np.linspace(0, len(some) - 1, min(ALBEDO_SAMPLES, len(some))).astype(int)]
            shading = shading[some] / ALBEDO_SIGMA
            # a free gain on the shading beside the coefficients: in turns, brightness would settle slowly
            rows = (gained[:, some] * shading).reshape(len(gained), -1)
            solved = np.linalg.solve(rows @ rows.T + prior, rows @ (colours[some] / ALBEDO_SIGMA).ravel())
            coeffs = (solved[:-1] / solved[-1]).astype(np.float32)
            albedo = mean + np.tensordot(coeffs, basis, 1)
            light, residual = fit_light(albedo, colours, normals)
        return coeffs, light, residual

    def _look(self, image, id_coeffs, exp_coeffs, pose, position):
        """Colours (S, 3) and camera normals (S, 3) of the samples in sight, and which these are."""
        vertices = (self._mean + id_coeffs @ self._id_basis + exp_coeffs @ self._exp_basis).reshape(-1, 3, 3)
        placed = project(vertices.mean(axis=1), pose, position)
        normals = np.cross(vertices[:, 1] - vertices[:, 0], vertices[:, 2] - vertices[:, 0])
        normals = normals @ rotation_matrix(pose).T
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
        height, width = image.shape[:2]
        column, row = np.rint(placed[:, 0]), np.rint(placed[:, 1])
        seen = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (normals[:, 2] > FACING)
        seen &= ~_hidden(placed / position[2])
        seen = np.flatnonzero(seen)
        colours = image[row[seen].astype(int), column[seen].astype(int)].astype(np.float32) / 255
        brightest = colours.max(axis=1)
        usable = (brightest > BLACK) & (brightest < SATURATED)
        if usable.sum() < MIN_VISIBLE:
            raise ValueError(
                f"at least {MIN_VISIBLE} surface samples must be in sight, neither black nor saturated, "
                f"got {usable.sum()}; the face is mostly outside the photo, or badly exposed"
            )
        return colours[usable], normals[seen[usable]].astype(np.float32), seen[usable]


def _seldom_under_hair(model: MorphableModel, places: np.ndarray) -> np.ndarray:
    """(F,) whether (F, 3) places on the mean face lie below the brows and within the jaw's width."""
    jaw, brows = model.mean_shape[model.landmarks[:17]], model.mean_shape[model.landmarks[17:27]]
    return (places[:, 1] < brows[:, 1].max() + BROW_MARGIN) & (np.abs(places[:, 0]) < INNER * np.abs(jaw[:, 0]).max())


def _hidden(placed: np.ndarray) -> np.ndarray:
    """(S,) whether another sample of the same cell of the view is clearly nearer; `placed` in mm."""
    cells = np.floor(placed[:, :2] / OCCLUSION_CELL).astype(np.int64)
    cells -= cells.min(axis=0)
    cell = cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1]
    order = np.lexsort((-placed[:, 2], cell))
    _, first, inverse = np.unique(cell[order], return_index=True, return_inverse=True)
    nearest = np.empty(len(placed))
    nearest[order] = placed[order[first], 2][inverse]
    return placed[:, 2] < nearest - OCCLUSION_DEPTH
