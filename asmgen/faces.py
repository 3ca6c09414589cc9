"""From an annotated photo to a placed face: what every kind of shard stores, and what its maps are made of.

Dimension key: K modes of a basis, S side of the crop in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmgen.crop import crop_image, face_square, square_transform
from asmgen.images import BATCH_PIXELS, encode_image, read_photo
from asmgen.photometry import Photometry
from asmgen.refit import JAW, FaceFit, Refitter
from asmgen.rejection import SampleError, rejecting
from asmgen.w300lp import FaceSample, SampleEntry, misplacements, read_annotation, stacked_labels
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
    image: np.ndarray | None = None
    annotation: FaceSample | None = None
    face: FaceSample | FaceFit | None = None
    landmarks: np.ndarray | None = None
    transform: np.ndarray | None = None
    crop: np.ndarray | None = None
    numbers: dict | None = None
    error: SampleError | None = None

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
        both = np.concatenate([basis[:, model.landmarks] for basis in (model.id_basis, model.exp_basis)])
        self._basis = np.ascontiguousarray(both).reshape(len(both), -1)

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
        drafts = _with_photos(entries)
        for step in (self._annotate, self._project, self._shade, self._cut, self._finish):
            good = [draft for draft in drafts if draft.error is None]
            if good:
                step(good)
        return [draft.error or PlacedFace(draft.image, draft.face.pose, draft.face.position, draft.crop, {
            "source": draft.entry.source, "image": encode_image(draft.crop), **draft.numbers,
        }) for draft in drafts]

    def _annotate(self, drafts: list[_Draft]) -> None:
        """Read the parameters of the faces or, to refit, fit them."""
        for draft in drafts:
            with draft.trying("no fit"):
                known = read_annotation(draft.entry, draft.image, None if self._refitter else self._model)
                fit = self._refitter and self._refitter.fit(draft.image, known.landmarks, known.landmark_kind)
                draft.annotation, draft.face = known, fit or known

    def _project(self, drafts: list[_Draft]) -> None:
        """Find the landmarks of the faces in their photos, (68, 2) pixels, and check that they lie there."""
        id_coeffs, exp_coeffs, pose, position = _of_faces(drafts, "id_coeffs", "exp_coeffs", "pose", "position")
        coeffs = np.concatenate([id_coeffs, exp_coeffs], axis=1)
        shapes = self._mean + (coeffs @ self._basis).reshape(-1, 68, 3)
        landmarks = project(shapes, pose, position)[..., :2]
        for draft, points in zip(drafts, landmarks):
            draft.landmarks = points
        if not self._refitter:
            for row, reason in misplacements([draft.annotation for draft in drafts], landmarks).items():
                drafts[row].error = SampleError(*reason)

    def _shade(self, drafts: list[_Draft]) -> None:
        """Find albedo coefficients, light, and the light's residual: annotated where they are, else fitted."""
        known = [draft for draft in drafts if not self._refitter and draft.face.albedo_coeffs is not None]
        for draft in drafts:
            face: Any = draft.face
            if self._refitter:
                draft.shade(face.albedo_coeffs, face.light, face.light_residual)
            elif face.albedo_coeffs is None:
                with draft.trying("no light"):
                    draft.shade(*self._photometry.fit_albedo_and_light(
                        draft.image, face.id_coeffs, face.exp_coeffs, face.pose, face.position
                    ))
        if not known:
            return
        look = self._photometry.look(
            [draft.image for draft in known], *_of_faces(known, "id_coeffs", "exp_coeffs", "pose", "position")
        )
        for row in np.flatnonzero(~look.enough).tolist():
            with known[row].trying("no light"):
                look.check(row)
        lit = np.flatnonzero(look.enough)
        if len(lit):
            known = [known[row] for row in lit]
            (albedo_coeffs,) = _of_faces(known, "albedo_coeffs")
            for draft, coeffs, light, residual in zip(
                known, albedo_coeffs, *self._photometry.light(look.take(lit), albedo_coeffs)
            ):
                given = draft.annotation.light
                draft.shade(coeffs, light if given is None else given, residual)

    def _cut(self, drafts: list[_Draft]) -> None:
        """Cut the faces out."""
        for draft in drafts:
            with draft.trying("no crop"):
                square = face_square(draft.landmarks)
                draft.transform = square_transform(square, self._size)
                draft.crop = crop_image(draft.image, square, self._size)

    def _finish(self, drafts: list[_Draft]) -> None:
        """Express where the faces stand in pixels of their crops, and collect all numbers that are stored."""
        columns = {key: np.stack([draft.numbers[key] for draft in drafts]) for key in drafts[0].numbers}
        columns |= dict(zip(("id_coeffs", "exp_coeffs"), _of_faces(drafts, "id_coeffs", "exp_coeffs")))
        pose, position = (placement.astype(np.float64) for placement in _of_faces(drafts, "pose", "position"))
        transform = columns["crop_transform"] = np.stack([draft.transform for draft in drafts])
        columns["pose"], columns["position"] = transform_placement(pose, position, transform)
        columns["landmarks"] = transform_points(np.stack([draft.landmarks for draft in drafts]), transform)
        annotations = [draft.annotation for draft in drafts]
        labels = transform_points(stacked_labels(annotations), transform)
        distances = np.linalg.norm(columns["landmarks"] - labels, axis=2)
        jaw_slides = [annotation.landmark_kind == "2d" for annotation in annotations]
        columns["landmark_error"] = np.where(jaw_slides, distances[:, JAW:].mean(axis=1), distances.mean(axis=1))
        rows = zip(*(column.astype(np.float32) for column in columns.values()))
        for draft, row in zip(drafts, rows):
            draft.numbers = dict(zip(columns, row))


def _with_photos(entries: Sequence[SampleEntry]) -> list[_Draft]:
    """Read the first photos, as many as memory may hold."""
    drafts, pixels = [], 0
    for entry in entries:
        draft = _Draft(entry)
        drafts.append(draft)
        with draft.trying("unreadable image"):
            draft.image = read_photo(entry.image_path)
            pixels += draft.image.shape[0] * draft.image.shape[1]
        if pixels > BATCH_PIXELS:
            break
    return drafts


def _of_faces(drafts: list[_Draft], *keys: str) -> Iterator[np.ndarray]:
    """Stack fields of the faces."""
    return (np.stack([getattr(draft.face, key) for draft in drafts]) for key in keys)
