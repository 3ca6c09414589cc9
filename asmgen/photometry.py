"""Albedo and light of a photographed face, from fixed samples of its surface.

A sample is one triangle of the model: its centre is where the photo and the albedo are taken, its plane gives
the normal. A photo costs a few thousand vertices, never the whole mesh.

Dimension key: B photos, S samples, K modes of a basis, H/W pixels of the photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
_CELLS = 64
"""Of the view along each axis, nearly 400 mm; what lies further off counts to the last."""
BROW_MARGIN, INNER = 8.0, 0.9
"""mm above the brows, and share of the jaw's half width: beyond, photos show hair as often as skin."""
BLACK, SATURATED = 4 / 255, 250 / 255
"""Brightest channel of a sample that tells something; what 300W-LP pads photos with is black."""


class Look(NamedTuple):
    """What photos show of the samples of a face.

    Attributes
    ----------
    colours : np.ndarray
        (B, S, 3) float32 RGB in [0, 1].
    normals : np.ndarray
        (B, S, 3) float32 unit normals in camera axes.
    seen : np.ndarray
        (B, S) whether the sample is in sight, neither black nor saturated. The rest of the others means nothing.
    """

    colours: np.ndarray
    normals: np.ndarray
    seen: np.ndarray

    @property
    def enough(self) -> np.ndarray:
        """(B,) whether a photo shows enough samples, `MIN_VISIBLE`."""
        return self.seen.sum(axis=1) >= MIN_VISIBLE

    def check(self, row: int) -> None:
        """Raise ValueError if a photo shows fewer than `MIN_VISIBLE` samples."""
        count = self.seen[row].sum()
        if count < MIN_VISIBLE:
            raise ValueError(
                f"at least {MIN_VISIBLE} surface samples must be in sight, neither black nor saturated, "
                f"got {count}; the face is mostly outside the photo, or badly exposed"
            )

    def take(self, rows: Sequence[int] | np.ndarray) -> Look:
        """Return some of the photos."""
        return Look(*(array[rows] for array in self))


class Photometry:
    """The samples of a face model's surface; made once, used for every photo.

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
        self._mean = _centres_and_edges(model.mean_shape[None, triangles])
        self._basis = np.concatenate([
            _centres_and_edges(basis[:, triangles]) for basis in (model.id_basis, model.exp_basis)
        ]).reshape(-1, self._mean.size)
        self._mean_albedo = model.mean_albedo[triangles].mean(axis=1)
        self._albedo_basis = np.ascontiguousarray(model.albedo_basis[:, triangles].mean(axis=2))

    def look(
        self, images: Sequence[np.ndarray], id_coeffs: np.ndarray, exp_coeffs: np.ndarray, pose: np.ndarray,
        position: np.ndarray,
    ) -> Look:
        """Find the samples in sight in a batch of photos.

        Parameters
        ----------
        images : Sequence[np.ndarray]
            B photos of (H, W, 3) uint8 RGB, of any sizes.
        id_coeffs : np.ndarray
            (B, K) float32 standard deviations.
        exp_coeffs : np.ndarray
            (B, K) float32 standard deviations.
        pose : np.ndarray
            (B, 3) radians.
        position : np.ndarray
            (B, 3) t_x, t_y, scale (`bfm.pose`), pixels of the photos.

        Returns
        -------
        Look
            Of every photo, also those that show too little.
        """
        pose, position = np.asarray(pose, np.float32), np.asarray(position, np.float32)
        coeffs = np.concatenate([id_coeffs, exp_coeffs], axis=1)
        places = (coeffs @ self._basis).reshape(len(coeffs), *self._mean.shape[1:]) + self._mean
        placed = project(places[:, 0].swapaxes(1, 2), pose, position)
        normals = rotation_matrix(pose) @ np.cross(places[:, 1], places[:, 2], axis=1)
        normals /= np.sqrt((normals * normals).sum(axis=1, keepdims=True)) + np.float32(1e-12)
        normals = normals.swapaxes(1, 2)
        height, width = np.array([image.shape[:2] for image in images]).T[..., None]
        column, row = np.rint(placed[..., 0]), np.rint(placed[..., 1])
        seen = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (normals[..., 2] > FACING)
        seen &= ~_hidden(placed / position[:, None, 2:])
        column, row = (np.where(seen, pixels, 0).astype(np.int64) for pixels in (column, row))
        colours = np.stack([
            image.reshape(-1, 3).take(index, axis=0) for image, index in zip(images, row * width + column)
        ])
        brightest = np.maximum(np.maximum(colours[..., 0], colours[..., 1]), colours[..., 2])
        seen &= (brightest > 255 * BLACK) & (brightest < 255 * SATURATED)
        return Look(colours * np.float32(1 / 255), normals, seen)

    def light(self, look: Look, albedo_coeffs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit the light of a batch of photos whose faces are known (`bfm.light.fit_light`).

        Parameters
        ----------
        look : Look
            B photos, which show enough (`Look.check`).
        albedo_coeffs : np.ndarray
            (B, K) float32 standard deviations; (B, 0) is the mean albedo.

        Returns
        -------
        tuple[np.ndarray, np.ndarray]
            (B, 9) float32 light, and the (B,) RMS difference between photo and albedo * shading over the
            samples in sight, RGB in [0, 1].
        """
        count = albedo_coeffs.shape[1]
        basis = self._albedo_basis[:count].reshape(count, self._mean_albedo.size)
        albedo = self._mean_albedo + (albedo_coeffs @ basis).reshape(-1, *self._mean_albedo.shape)
        return fit_light(albedo, look.colours, look.normals, look.seen)

    def fit_light(
        self, image: np.ndarray, id_coeffs: np.ndarray, exp_coeffs: np.ndarray, albedo_coeffs: np.ndarray | None,
        pose: np.ndarray, position: np.ndarray,
    ) -> tuple[np.ndarray, float]:
        """Fit the light of one photo whose face is known.

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
            (9,) float32 light and the residual of `light`; ValueError if the photo shows too little (`Look.check`).
        """
        look = self._look_at(image, id_coeffs, exp_coeffs, pose, position)
        coeffs = np.zeros(0, np.float32) if albedo_coeffs is None else albedo_coeffs
        light, residual = self.light(look, coeffs[None])
        return light[0], float(residual[0])

    def fit_albedo_and_light(
        self, image: np.ndarray, id_coeffs: np.ndarray, exp_coeffs: np.ndarray, pose: np.ndarray, position: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Fit albedo and light of one photo whose geometry is known, in turns.

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
            light and residual of `fit_light`; ValueError if the photo shows too little (`Look.check`).
        """
        look = self._look_at(image, id_coeffs, exp_coeffs, pose, position)
        seen = np.flatnonzero(look.seen[0])
        colours, normals = look.colours[0, seen], look.normals[0, seen]
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
        return coeffs, light, float(residual)

    def _look_at(self, image, id_coeffs, exp_coeffs, pose, position) -> Look:
        """What one photo shows, which must be enough."""
        look = self.look([image], *(np.asarray(part)[None] for part in (id_coeffs, exp_coeffs, pose, position)))
        look.check(0)
        return look


def _centres_and_edges(corners: np.ndarray) -> np.ndarray:
    """(K, 3, 3, S): coordinates of the centres of (K, S, 3, 3) triangles and of two edges; samples last, for speed."""
    first, second, third = np.moveaxis(corners, 2, 0)
    return np.ascontiguousarray(np.stack([corners.mean(axis=2), second - first, third - first], 1).swapaxes(2, 3))


def _seldom_under_hair(model: MorphableModel, places: np.ndarray) -> np.ndarray:
    """(F,) whether (F, 3) places on the mean face lie below the brows and within the jaw's width."""
    jaw, brows = model.mean_shape[model.landmarks[:17]], model.mean_shape[model.landmarks[17:27]]
    return (places[:, 1] < brows[:, 1].max() + BROW_MARGIN) & (np.abs(places[:, 0]) < INNER * np.abs(jaw[:, 0]).max())


def _hidden(placed: np.ndarray) -> np.ndarray:
    """(B, S) whether another sample of the same cell of the view is clearly nearer; `placed` (B, S, 3) in mm."""
    depth = placed[..., 2]
    column, row = (np.floor(placed[..., axis] / OCCLUSION_CELL) for axis in range(2))
    column, row = (np.minimum(cells - cells.min(axis=1, keepdims=True), _CELLS - 1) for cells in (column, row))
    cell = (column * _CELLS + row).astype(np.int64) + np.arange(len(placed))[:, None] * _CELLS**2
    nearest = np.full(len(placed) * _CELLS**2, -np.inf, placed.dtype)
    np.maximum.at(nearest, cell.ravel(), depth.ravel())
    return depth < nearest[cell] - OCCLUSION_DEPTH
