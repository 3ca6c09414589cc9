"""From an annotated photo to a placed face: what every kind of shard stores, and what its maps are made of.

Dimension key: K modes of a basis, S side of the crop in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from asmgen.crop import crop_image, face_square, square_transform
from asmgen.images import BATCH_PIXELS, encode_image
from asmgen.photometry import Photometry
from asmgen.refit import JAW, FaceFit, Refitter
from asmgen.rejection import SampleError, rejecting
from asmgen.w300lp import FaceSample, SampleEntry, check_placement, read_sample, read_unchecked
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


@dataclass(eq=False)
class _Draft:
    """A photo on its way to a placed face; after a step that failed, only the error counts."""

    entry: SampleEntry
    photo: FaceSample | None = None
    face: FaceSample | FaceFit | None = None
    landmarks: np.ndarray | None = None
    transform: np.ndarray | None = None
    crop: np.ndarray | None = None
    numbers: dict | None = None
    error: SampleError | None = None

    @property
    def pixels(self) -> int:
        """How many the photo holds in memory."""
        return self.photo.image[..., 0].size if self.photo and not self.error else 0

    @contextmanager
    def trying(self, kind: str) -> Iterator[None]:
        """Record why a step fails; what it says about its input (ValueError) is an error of this kind."""
        try:
            with rejecting(kind):
                yield
        except SampleError as error:
            self.error = error

    def shade(self, albedo_coeffs: np.ndarray, light: np.ndarray, residual: float) -> None:
        """Take colours."""
        self.numbers = {"albedo_coeffs": albedo_coeffs, "light": light, "light_residual": residual}

    def finish(self, pose: np.ndarray, position: np.ndarray, landmarks: np.ndarray) -> None:
        """Take the placement in the crop: what is stored is complete then."""
        error = np.nan
        if self.photo.landmarks is not None:
            distances = np.linalg.norm(landmarks - transform_points(self.photo.landmarks, self.transform), axis=1)
            error = distances[JAW if self.photo.landmark_kind == "2d" else 0:].mean()
        numbers = {
            "id_coeffs": self.face.id_coeffs, "exp_coeffs": self.face.exp_coeffs, **self.numbers,
            "pose": pose, "position": position, "landmarks": landmarks, "landmark_error": error,
            "crop_transform": self.transform,
        }
        self.numbers = {key: np.asarray(value, np.float32) for key, value in numbers.items()}


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
        self._mean = model.mean_shape[model.landmarks].astype(np.float64)
        self._basis = np.concatenate([basis[:, model.landmarks] for basis in (model.id_basis, model.exp_basis)])

    def place_batch(self, entries: Sequence[SampleEntry]) -> list[PlacedFace | SampleError]:
        """Read photos and their annotations, and cut the faces out.

        Parameters
        ----------
        entries : Sequence[SampleEntry]
            From `asmgen.w300lp.find_samples`.

        Returns
        -------
        list[PlacedFace | SampleError]
            One an entry, in order: the face, or why the photo gives no sample. There are fewer if photos are too large
            to be held together (`asmgen.images.BATCH_PIXELS`), at least one. The same for the same batch, bit for bit.
        """
        drafts, pixels = [], 0
        for entry in entries:
            drafts.append(self._read(entry))
            pixels += drafts[-1].pixels
            if pixels > BATCH_PIXELS:
                break
        for step in (self._project, self._shade, self._cut):
            good = [draft for draft in drafts if draft.error is None]
            if good:
                step(good)
        return [draft.error or PlacedFace(draft.photo.image, draft.face.pose, draft.face.position, draft.crop, {
            "source": draft.entry.source, "image": encode_image(draft.crop), **draft.numbers,
        }) for draft in drafts]

    def _read(self, entry: SampleEntry) -> _Draft:
        """Read a photo, and the parameters of its face or, to refit, fit them."""
        draft = _Draft(entry)
        with draft.trying("no fit"):
            if self._refitter:
                draft.photo = photo = read_sample(entry, None)
                draft.face = self._refitter.fit(photo.image, photo.landmarks, photo.landmark_kind)
            else:
                draft.photo = draft.face = read_unchecked(entry, self._model)
        return draft

    def _project(self, drafts: list[_Draft]) -> None:
        """Find the landmarks of the faces in their photos, (68, 2) pixels, and check that they lie there."""
        coeffs, pose, position = (
            np.stack([np.concatenate([getattr(draft.face, key) for key in keys]) for draft in drafts])
            for keys in (("id_coeffs", "exp_coeffs"), ("pose",), ("position",))
        )
        shapes = self._mean + (coeffs @ self._basis.reshape(len(self._basis), -1)).reshape(-1, 68, 3)
        for draft, points in zip(drafts, project(shapes, pose, position)[..., :2]):
            draft.landmarks = points
            if not self._refitter:
                with draft.trying("no place"):
                    check_placement(draft.photo, points)

    def _shade(self, drafts: list[_Draft]) -> None:
        """Find albedo coefficients, light, and the light's residual: annotated where they are, else fitted."""
        known = [draft for draft in drafts if not self._refitter and draft.face.albedo_coeffs is not None]
        for draft in drafts:
            face = draft.face
            if self._refitter:
                draft.shade(face.albedo_coeffs, face.light, face.light_residual)
            elif face.albedo_coeffs is None:
                with draft.trying("no light"):
                    draft.shade(*self._photometry.fit_albedo_and_light(
                        face.image, face.id_coeffs, face.exp_coeffs, face.pose, face.position
                    ))
        if not known:
            return
        look = self._photometry.look([draft.photo.image for draft in known], *(
            np.stack([getattr(draft.face, key) for draft in known])
            for key in ("id_coeffs", "exp_coeffs", "pose", "position")
        ))
        for row, draft in enumerate(known):
            with draft.trying("no light"):
                look.check(row)
        lit = [row for row, draft in enumerate(known) if draft.error is None]
        if lit:
            albedo_coeffs = np.stack([known[row].face.albedo_coeffs for row in lit])
            for row, coeffs, light, residual in zip(
                lit, albedo_coeffs, *self._photometry.light(look.take(lit), albedo_coeffs)
            ):
                given = known[row].photo.light
                known[row].shade(coeffs, light if given is None else given, residual)

    def _cut(self, drafts: list[_Draft]) -> None:
        """Cut the faces out, and express where they stand in pixels of the crops."""
        for draft in drafts:
            with draft.trying("no crop"):
                square = face_square(draft.landmarks)
                draft.transform = square_transform(square, self._size)
                draft.crop = crop_image(draft.photo.image, square, self._size)
        drafts = [draft for draft in drafts if draft.error is None]
        if drafts:
            pose, position, landmarks, transform = (np.stack(values).astype(np.float64) for values in zip(*(
                (draft.face.pose, draft.face.position, draft.landmarks, draft.transform) for draft in drafts
            )))
            placed = (*transform_placement(pose, position, transform), transform_points(landmarks, transform))
            for draft, *placement in zip(drafts, *placed):
                draft.finish(*placement)
