"""What is known of the photos of a benchmark: their landmarks, yaw, and, where annotated, pose and shape.

Dimension key: N photos, K modes of a basis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmgen.refit import LandmarkFitter
from asmgen.rejection import SampleError
from asmgen.rigid_pose import rigid_pose
from asmgen.w300lp import SampleEntry, find_samples, read_placement, read_sample
from bfm.morphable_model import MorphableModel
from bfm.pose import project

NO_SHAPE = ("foreign coefficients", "no parameters", "missing key")
"""Reasons of `SampleError` for which a photo still has landmarks to compare with."""


@dataclass(frozen=True, eq=False)
class AnnotatedFace:
    """The truth of one photo.

    Attributes
    ----------
    name : str
        Path of the photo below the root, without suffix; for arrays the row.
    photo : Path | None
        Its file; None for arrays.
    landmarks : np.ndarray
        (68, 2) float64, pixels from 0.
    kind : str
        ``3d`` or ``2d``, see `asmgen.w300lp.FaceSample`.
    yaw : float
        Degrees: annotated, or else of the face model fitted to the landmarks.
    yaw_annotated : bool
        Which of the two.
    pose : np.ndarray | None
        (3,) radians as annotated, whichever face model it was annotated with; None if it was not.
    mean_landmarks : np.ndarray
        (68, 2) pixels of the mean face under the annotated pose and position where the coefficients are of this face
        model, else where it comes nearest to the landmarks (`rigid_pose`).
    coefficients : tuple[np.ndarray, np.ndarray] | None
        (K,) identity and (K,) expression coefficients, standard deviations; None if not of this face model.
    no_shape : str
        Why there are none, of `NO_SHAPE`; empty if there are.
    """

    name: str
    photo: Path | None
    landmarks: np.ndarray
    kind: str
    yaw: float
    yaw_annotated: bool
    pose: np.ndarray | None
    mean_landmarks: np.ndarray
    coefficients: tuple[np.ndarray, np.ndarray] | None
    no_shape: str


class FaceAnnotations:
    """The photos of a benchmark.

    Parameters
    ----------
    faces : Sequence[AnnotatedFace]
        Those that can be measured.
    rows : Sequence[int]
        Place of each among all photos, sorted by path.
    failed : Sequence[str]
        Why the others cannot be, one sentence each, with the photo's name.
    source : str
        What the truth is, in words.

    Raises
    ------
    ValueError
        If no photo can be measured.
    """

    def __init__(self, faces: Sequence[AnnotatedFace], rows: Sequence[int], failed: Sequence[str], source: str):
        if not faces:
            raise ValueError(f"none of {len(failed)} photos can be measured, the first because of {failed[0]}")
        self.faces, self.rows, self.failed, self.source = list(faces), list(rows), list(failed), source
        self.landmarks = np.stack([face.landmarks for face in faces])
        self.yaw = np.array([face.yaw for face in faces])

    def notes(self) -> list[str]:
        """Return what a reader of the numbers must know, a sentence each."""
        count = len(self.faces)
        fitted = count - sum(face.yaw_annotated for face in self.faces)
        nearest = sum(bool(face.no_shape) for face in self.faces)
        notes = [
            f"{count} photos, {self.source}.",
            "Yaw: as annotated." if not fitted else f"Yaw: of the face model fitted to the landmarks for {fitted}"
            f" of {count} photos" + (", else as annotated." if fitted < count else "."),
            "The mean face has the annotated pose and position." if not nearest else
            f"The mean face stands where it comes nearest to the landmarks in {nearest} of {count} photos"
            + (", else as annotated." if nearest < count else "."),
        ]
        outlined = sum(face.kind == "2d" for face in self.faces)
        if outlined:
            notes.append(f"Photos whose far jaw is labelled on the visible outline, not on the face: {outlined}.")
        for reason, times in Counter(face.no_shape for face in self.faces if face.no_shape).items():
            notes.append(f"Photos without a true shape to compare with, as {_SHAPE_TEXTS[reason]}: {times}.")
        if self.failed:
            notes.append(f"Photos that could not be measured: {len(self.failed)}.")
        return notes


_SHAPE_TEXTS = {
    "foreign coefficients": "their coefficients are of another face model than the networks'",
    "no parameters": "landmarks alone are annotated",
    "missing key": "their annotation lacks coefficients or pose",
}


def read_annotations(root: Path, model: MorphableModel) -> FaceAnnotations:
    """Read the annotations of a folder in 300W-LP's or AFLW2000-3D's layout; photos are read and let go.

    Parameters
    ----------
    root : Path
        Its folder, see `find_samples`.
    model : MorphableModel
        Face part; coefficients of another one are passed over.

    Returns
    -------
    FaceAnnotations
        Photos that cannot be read, or have no landmarks, are named in it; FileNotFoundError if there is no photo.
    """
    fitter, faces, rows, failed = LandmarkFitter(model), [], [], []
    for row, entry in enumerate(find_samples(root)):
        try:
            faces.append(_annotated_face(entry, model, fitter))
            rows.append(row)
        except ValueError as error:
            failed.append(f"{entry.source}: {error}")
    return FaceAnnotations(faces, rows, failed, f"labelled in {Path(root).name}")


def _annotated_face(entry: SampleEntry, model: MorphableModel, fitter: LandmarkFitter) -> AnnotatedFace:
    """The truth of a photo; SampleError, or the ValueError of the fit, if it cannot be had."""
    no_shape = ""
    try:
        sample = read_sample(entry, model)
    except SampleError as error:
        if error.kind not in NO_SHAPE:
            raise
        no_shape, sample = error.kind, read_sample(entry, None)
    if sample.landmarks is None:
        raise SampleError("no landmarks", f"{entry.name} is annotated without 68 landmarks to compare with")
    landmarks, mean = sample.landmarks.astype(np.float64), model.mean_shape[model.landmarks].astype(np.float64)
    if no_shape:
        placement = read_placement(entry, len(sample.image))
        mean_landmarks, coefficients = nearest_landmarks(mean, landmarks), None
    else:
        placement, coefficients = (sample.pose, sample.position), (sample.id_coeffs, sample.exp_coeffs)
        mean_landmarks = project(mean, *placement)[:, :2]
    pose = placement[0] if placement else None
    yaw = (fitter.fit(landmarks, sample.landmark_kind).pose if pose is None else pose)[1]
    return AnnotatedFace(
        entry.source, entry.image_path, landmarks, sample.landmark_kind, float(np.degrees(yaw)), pose is not None, pose,
        mean_landmarks, coefficients, no_shape,
    )


def nearest_landmarks(shape: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Return (68, 2) pixels of a rigid (68, 3) shape, mm, where it comes nearest to (68, 2) landmarks."""
    rotation, shift, scale = rigid_pose(shape, landmarks * [1, -1])
    return (scale * (shape @ rotation.T)[:, :2] + shift) * [1, -1]
