"""Fit a face model to a photo with 68 landmarks: geometry by least squares on them, colour on the visible skin.

Dimension key: K modes of a basis, L = 68 landmarks, C candidates a jaw line. Space and pixels as in `bfm.pose`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree

from asmgen.photometry import Photometry
from asmgen.rigid_pose import orthographic_pose, turn_by
from bfm.morphable_model import REGIONS, MorphableModel
from bfm.pose import pose_from_rotation, project

JAW = 17
"""The first landmarks run along the jaw, from the subject's right ear (image left) over the chin."""
LANDMARK_SIGMA = 1.0
"""mm: how far a label may lie from the surface point it names."""
ITERATIONS = 10
JAW_CANDIDATES = 24


@dataclass(frozen=True, eq=False)
class GeometryFit:
    """Shape and placement that meet the landmarks.

    Attributes
    ----------
    id_coeffs, exp_coeffs : np.ndarray
        (K,) float32, standard deviations.
    pose, position : np.ndarray
        (3,) float32 placement (`bfm.pose`), pixels of the photo.
    landmark_error : float
        Mean distance of the 68 labels from the projected points, pixels.
    """

    id_coeffs: np.ndarray
    exp_coeffs: np.ndarray
    pose: np.ndarray
    position: np.ndarray
    landmark_error: float


@dataclass(frozen=True, eq=False)
class FaceFit(GeometryFit):
    """Everything a photo with landmarks tells about a face.

    Attributes
    ----------
    albedo_coeffs : np.ndarray
        (K,) float32, standard deviations; (0,) for a model without texture.
    light : np.ndarray
        (9,) float32 spherical harmonics (`bfm.light`).
    light_residual : float
        RMS difference of photo and albedo * shading over the visible samples, RGB in [0, 1].
    """

    albedo_coeffs: np.ndarray
    light: np.ndarray
    light_residual: float


class LandmarkFitter:
    """A face model cut down to what landmarks can see; made once, used for every photo.

    Parameters
    ----------
    model : MorphableModel
        Numpy arrays.
    landmark_sigma : float
        Trust in the labels, mm: larger keeps the coefficients, N(0, 1) a priori, nearer zero.

    Raises
    ------
    ValueError
        If `landmark_sigma` is not positive.
    """

    def __init__(self, model: MorphableModel, landmark_sigma: float = LANDMARK_SIGMA):
        if not landmark_sigma > 0:
            raise ValueError(f"landmark_sigma must be positive millimetres, got {landmark_sigma}")
        self.landmark_sigma = landmark_sigma
        self._id_count = len(model.id_basis)
        at = np.concatenate([model.landmarks, _jaw_lines(model).ravel()])
        self._mean = model.mean_shape[at].astype(np.float64)
        self._basis = np.concatenate([model.id_basis[:, at], model.exp_basis[:, at]]).astype(np.float64)

    def fit(self, landmarks: np.ndarray, kind: str = "3d") -> GeometryFit:
        """Fit pose, position, identity and expression to one set of landmarks.

        Gauss-Newton on ``sum |label - projected point|^2 / (scale sigma)^2 + |coefficients|^2``. With 2-D
        labels the far half of the jaw is labelled on the visible outline: there each point slides along
        its jaw line to the outermost vertex of the current fit (landmark marching).

        Parameters
        ----------
        landmarks : np.ndarray
            (68, 2) labels, pixels.
        kind : str
            ``3d`` or ``2d``, see `asmgen.w300lp.FaceSample`.

        Returns
        -------
        GeometryFit
            The same for the same input, bit for bit.

        Raises
        ------
        ValueError
            If the landmarks are not 68 finite points that span an area, or `kind` is unknown.
        """
        landmarks = np.asarray(landmarks, np.float64)
        if landmarks.shape != (68, 2) or not np.isfinite(landmarks).all():
            raise ValueError(f"landmarks must be 68 finite points, got an array of shape {landmarks.shape}")
        if np.linalg.matrix_rank(landmarks - landmarks.mean(axis=0), tol=1) < 2:
            raise ValueError("landmarks must span an area, got 68 points on one line")
        if kind not in ("2d", "3d"):
            raise ValueError(f"kind must be '2d' or '3d', got '{kind}'")
        target = landmarks * [1, -1]  # y up
        coeffs = np.zeros(len(self._basis))
        points = np.arange(68)
        start = slice(JAW if kind == "2d" else 0, None)  # which jaw points are seen is not known yet
        rotation, shift, scale = orthographic_pose(self._mean[points[start]], target[start])
        for iteration in range(ITERATIONS):
            if kind == "2d" and iteration < ITERATIONS - 4:  # the last steps settle on fixed points
                points = self._march(coeffs, rotation)
            rotation, shift, scale, coeffs = self._step(points, target, rotation, shift, scale, coeffs)
        position = np.array([shift[0], -shift[1], scale])
        pose = pose_from_rotation(rotation)
        shape = self._mean[points] + np.tensordot(coeffs, self._basis[:, points], 1)
        error = np.linalg.norm(project(shape, pose, position)[:, :2] - landmarks, axis=1).mean()
        return GeometryFit(
            coeffs[:self._id_count].astype(np.float32), coeffs[self._id_count:].astype(np.float32),
            pose.astype(np.float32), position.astype(np.float32), float(error),
        )

    def _step(self, points, target, rotation, shift, scale, coeffs):
        """One Gauss-Newton step; the prior turns the many coefficients into a 136 x 136 system."""
        basis = self._basis[:, points]
        shape = self._mean[points] + np.tensordot(coeffs, basis, 1)
        turned = scale * shape @ rotation.T
        zero, one = np.zeros(68), np.ones(68)
        # derivatives of (x, y) by rotation about x, y, z (camera axes), shift and log scale
        placement = np.stack([
            np.stack([zero, -turned[:, 2]], 1), np.stack([turned[:, 2], zero], 1),
            np.stack([-turned[:, 1], turned[:, 0]], 1), np.stack([one, zero], 1), np.stack([zero, one], 1),
            turned[:, :2],
        ]).reshape(6, -1).T
        modes = (basis.reshape(-1, 3) @ (scale * rotation[:2]).T).reshape(len(basis), -1).T
        wanted = (target - turned[:, :2] - shift).ravel() + modes @ coeffs
        weight = 1 / (scale * self.landmark_sigma)
        modes, placement, wanted = weight * modes, weight * placement, weight * wanted
        factor = cho_factor(modes @ modes.T + np.eye(len(modes)))
        solved = cho_solve(factor, placement)
        move = np.linalg.solve(placement.T @ solved, solved.T @ wanted)
        coeffs = modes.T @ cho_solve(factor, wanted - placement @ move)
        return turn_by(move[:3]) @ rotation, shift + move[3:5], scale * np.exp(np.clip(move[5], -0.5, 0.5)), coeffs

    def _march(self, coeffs, rotation):
        """Points to meet the 68 labels, the far jaw's taken from the outline of the current fit."""
        lines = np.arange(68, len(self._mean)).reshape(JAW, JAW_CANDIDATES)
        shape = self._mean[lines] + np.tensordot(coeffs, self._basis[:, lines], 1)
        across = np.array([rotation[1, 1], -rotation[0, 1]])  # image direction square to the head's axis
        outward = shape @ rotation[:2].T @ across
        far = slice(JAW // 2 + 1, JAW) if rotation[2, 0] < 0 else slice(0, JAW // 2)
        sign = 1 if rotation[2, 0] < 0 else -1
        points = np.arange(68)
        points[far] = lines[far][np.arange(JAW // 2), np.argmax(sign * outward[far], axis=1)]
        return points


class Refitter:
    """Fits one face model to photos with landmarks; made once, used for every photo.

    Parameters
    ----------
    model : MorphableModel
        Numpy arrays; its coefficient space need not be that of the annotation.
    landmark_sigma : float
        See `LandmarkFitter`.
    """

    def __init__(self, model: MorphableModel, landmark_sigma: float = LANDMARK_SIGMA):
        self.landmarks = LandmarkFitter(model, landmark_sigma)
        self.photometry = Photometry(model)

    def fit(self, image: np.ndarray, landmarks: np.ndarray, kind: str = "3d") -> FaceFit:
        """Fit geometry, albedo and light to one photo.

        Parameters
        ----------
        image : np.ndarray
            (H, W, 3) uint8 RGB photo.
        landmarks : np.ndarray
            (68, 2) labels, pixels of the photo.
        kind : str
            ``3d`` or ``2d``, see `asmgen.w300lp.FaceSample`.

        Returns
        -------
        FaceFit
            Coefficients, placement, light and how well they fit; ValueError if the landmarks are
            degenerate or too little of the face lies inside the photo.
        """
        geometry = self.landmarks.fit(landmarks, kind)
        albedo_coeffs, light, residual = self.photometry.fit_albedo_and_light(
            image, geometry.id_coeffs, geometry.exp_coeffs, geometry.pose, geometry.position
        )
        return FaceFit(**vars(geometry), albedo_coeffs=albedo_coeffs, light=light, light_residual=residual)


def _jaw_lines(model: MorphableModel) -> np.ndarray:
    """(JAW, JAW_CANDIDATES) vertices from each jaw landmark along its height to the middle of the face."""
    face = np.flatnonzero(np.isin(model.regions, [REGIONS.index(name) for name in ("face", "nose", "mouth")]))
    shape = model.mean_shape.astype(np.float64)
    axis = np.median(shape[model.landmarks[:JAW], 2])  # the vertical axis that angles are taken about

    def unrolled(vertices: np.ndarray) -> np.ndarray:
        return np.stack([80 * np.arctan2(vertices[:, 0], vertices[:, 2] - axis + 40), vertices[:, 1]], 1)

    starts = unrolled(shape[model.landmarks[:JAW]])
    share = np.linspace(1, 0, JAW_CANDIDATES)
    wanted = np.stack([
        starts[:, :1] * share, np.broadcast_to(starts[:, 1:], (JAW, JAW_CANDIDATES))
    ], -1)
    near = face[cKDTree(unrolled(shape[face])).query(wanted, k=min(4, len(face)))[1]]
    radius = np.hypot(shape[..., 0], shape[..., 2] - axis + 40)
    lines = np.take_along_axis(near, radius[near].argmax(-1)[..., None], -1)[..., 0]  # the outer skin
    lines[:, 0] = model.landmarks[:JAW]
    return lines
