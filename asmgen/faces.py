"""From an annotated photo to a placed face: what every kind of shard stores, and what its maps are made of.

Dimension key: K modes of a basis, S side of the crop in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asmgen.crop import crop_image, face_square, square_transform
from asmgen.images import encode_image
from asmgen.photometry import Photometry
from asmgen.refit import JAW, FaceFit, Refitter
from asmgen.rejection import rejecting
from asmgen.w300lp import FaceSample, SampleEntry, read_sample
from bfm.morphable_model import MorphableModel
from bfm.pose import project, transform_placement, transform_points


@dataclass(frozen=True, eq=False)
class PlacedFace:
    """A photo whose face is known.

    Attributes
    ----------
    photo : np.ndarray
        (H, W, 3) uint8 RGB, in its own resolution.
    pose, position : np.ndarray
        (3,) float32 placement (`bfm.pose`), pixels of the photo.
    crop : np.ndarray
        (S, S, 3) uint8.
    fields : dict
        What is stored of it, placement in pixels of the crop: docs/shards.md, without the maps.
    """

    photo: np.ndarray
    pose: np.ndarray
    position: np.ndarray
    crop: np.ndarray
    fields: dict


class FacePlacer:
    """Places the faces of annotated photos; made once a process.

    Parameters
    ----------
    model : MorphableModel
        The face alone (`MorphableModel.face_only`).
    size : int
        Side of the crop, pixels.
    refit : bool
        Fit the model to the landmarks in place of reading the annotated parameters.
    """

    def __init__(self, model: MorphableModel, size: int, refit: bool):
        self._model, self._size = model, size
        self._refitter = Refitter(model) if refit else None
        self._photometry = self._refitter.photometry if refit else Photometry(model)

    def place(self, entry: SampleEntry) -> PlacedFace:
        """Read a photo and its annotation, and cut the face out.

        Parameters
        ----------
        entry : SampleEntry
            From `asmgen.w300lp.find_samples`.

        Returns
        -------
        PlacedFace
            The same for the same files, bit for bit; SampleError if the photo gives no sample.
        """
        if self._refitter:
            photo = read_sample(entry, None)
            with rejecting("no fit"):
                face = self._refitter.fit(photo.image, photo.landmarks, photo.landmark_kind)
        else:
            photo = face = read_sample(entry, self._model)
        albedo_coeffs, light, light_residual = self._appearance(photo, face)
        at = self._model.landmarks
        shape = (
            self._model.mean_shape[at] + np.tensordot(face.id_coeffs, self._model.id_basis[:, at], 1)
            + np.tensordot(face.exp_coeffs, self._model.exp_basis[:, at], 1)
        )
        landmarks = project(shape, face.pose, face.position)[:, :2].astype(np.float64)
        with rejecting("no crop"):
            square = face_square(landmarks)
            crop = crop_image(photo.image, square, self._size)
        transform = square_transform(square, self._size)
        pose, position = transform_placement(
            face.pose.astype(np.float64), face.position.astype(np.float64), transform
        )
        landmarks = transform_points(landmarks, transform)
        error = np.nan
        if photo.landmarks is not None:
            distances = np.linalg.norm(landmarks - transform_points(photo.landmarks, transform), axis=1)
            error = distances[JAW if photo.landmark_kind == "2d" else 0:].mean()
        numbers = {
            "id_coeffs": face.id_coeffs, "exp_coeffs": face.exp_coeffs, "albedo_coeffs": albedo_coeffs,
            "light": light, "light_residual": light_residual, "pose": pose, "position": position,
            "landmarks": landmarks, "landmark_error": error, "crop_transform": transform,
        }
        return PlacedFace(photo.image, face.pose, face.position, crop, {
            "source": entry.source, "image": encode_image(crop),
            **{key: np.asarray(value, np.float32) for key, value in numbers.items()},
        })

    def _appearance(self, photo: FaceSample, face: FaceSample | FaceFit) -> tuple[np.ndarray, np.ndarray, float]:
        """Albedo coefficients, light, and the light's residual: annotated where they are, else fitted."""
        if self._refitter:
            return face.albedo_coeffs, face.light, face.light_residual
        placed = photo.image, face.id_coeffs, face.exp_coeffs, face.pose, face.position
        with rejecting("no light"):
            if face.albedo_coeffs is None:
                return self._photometry.fit_albedo_and_light(*placed)
            light, residual = self._photometry.fit_light(*placed[:3], face.albedo_coeffs, *placed[3:])
        return face.albedo_coeffs, light if photo.light is None else photo.light, residual
