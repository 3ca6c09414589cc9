"""What a method reaches on annotated photos: landmarks, pose, and shape where a true one is known.

The face is cut out around the true landmarks (`asmgen.crop.face_square`), as the benchmark of 3DDFA cuts it out by
the ground truth: a detector's error is no part of these numbers. Pose is the angle between the rotations; identity,
expression and full are mean vertex distances in mm between canonical shapes, not aligned: of the neutral faces, of the
expressions' offsets, and of the faces.

Dimension key: N photos.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from asmgen.crop import face_square
from asmgen.images import read_photo
from bfm.morphable_model import MorphableModel
from model.checkpoint import weights_sha256
from model.dual_stream import TrainedFaces
from model.evaluation.annotations import AnnotatedFace, FaceAnnotations
from model.evaluation.dense import ALIGNMENTS, dense_nme
from model.evaluation.nme import landmark_nme
from model.evaluation.predict import PredictedFace, predict_faces
from model.metrics import pose_distance

MEAN_FACE, FITTED_MEAN_FACE = "mean face, true pose", "mean face, fitted pose"
"""Fitted to the landmarks of photos whose pose is not annotated with this face model: nearer than the true one."""

SHAPE_ERRORS = {
    **{f"dense_{alignment}_percent": f"dense NME, {alignment}, %" for alignment in ALIGNMENTS},
    "identity_mm": "identity, mm", "expression_mm": "expression, mm", "full_mm": "full, mm",
}
"""Errors of a face whose true shape is known, and their headings."""


@dataclass(eq=False)
class Scores:
    """What one method, or the mean face, reaches.

    Attributes
    ----------
    label : str
        Its name.
    landmarks : np.ndarray
        (N, 68, 2) pixels.
    nme : np.ndarray
        (N,) percent.
    errors : dict[str, np.ndarray]
        (N,) each, by `SHAPE_ERRORS` and ``pose_degrees``; NaN where the truth is not known, absent where the method
        gives no such thing.
    described : dict
        What is scored: file and hash.
    faces : TrainedFaces | None
        The network, to draw its faces.
    """

    label: str
    landmarks: np.ndarray
    nme: np.ndarray
    errors: dict[str, np.ndarray] = field(default_factory=dict)
    described: dict = field(default_factory=dict)
    faces: TrainedFaces | None = None

    def mean(self, name: str) -> str | None:
        """Return the mean of an error as text, with the number of photos if it is not of all; None if of none."""
        values = self.errors.get(name, np.array([]))
        known = values[np.isfinite(values)]
        return f"{known.mean():.3f}" + f" ({len(known)})" * (len(known) < len(self.nme)) if len(known) else None


def score_network(label: str, faces: TrainedFaces, truth: FaceAnnotations, batch_size: int = 16) -> Scores:
    """Return what a network reaches on photos."""
    landmarks, errors = [], []
    for face, predicted in zip(truth.faces, predicted_faces(faces, truth.faces, batch_size)):
        landmarks.append(predicted.project(predicted.shape[faces.model.landmarks])[:, :2])
        errors.append(shape_errors(predicted, face, faces.model))
        if face.pose is not None:
            poses = (torch.tensor(angles, dtype=torch.float64)[None] for angles in (predicted.pose, face.pose))
            errors[-1]["pose_degrees"] = float(pose_distance(*poses))
    landmarks = np.stack(landmarks)
    return Scores(
        label, landmarks, landmark_nme(landmarks, truth.landmarks), _columns(errors),
        {"kind": faces.metadata["kind"], "weights_sha256": weights_sha256(faces.network)}, faces,
    )


def predicted_faces(
    faces: TrainedFaces, annotated: Sequence[AnnotatedFace], batch_size: int = 16
) -> Iterator[PredictedFace]:
    """Yield what a network makes of each photo, cut out around the true landmarks."""
    return predict_faces(
        faces, ((read_photo(face.photo), face_square(face.landmarks)) for face in annotated), batch_size
    )


def shape_errors(predicted: PredictedFace, face: AnnotatedFace, model: MorphableModel) -> dict[str, float]:
    """Return the errors of `SHAPE_ERRORS` that the truth and the network's parts allow."""
    if face.coefficients is None:
        return {}
    return errors_of_shape(predicted, *true_shape(face, model), model.landmarks)


def true_shape(face: AnnotatedFace, model: MorphableModel) -> tuple[np.ndarray, np.ndarray]:
    """Return the (V, 3) neutral face and expression's offset, mm, float64, of a face with coefficients."""
    id_coeffs, exp_coeffs = face.coefficients
    return model.shape(id_coeffs).astype(np.float64), model.expression_offset(exp_coeffs).astype(np.float64)


def errors_of_shape(
    predicted: PredictedFace, neutral: np.ndarray, expression: np.ndarray, landmarks: np.ndarray,
    alignments: Sequence[str] = ALIGNMENTS,
) -> dict[str, float]:
    """Return the errors of `SHAPE_ERRORS`, against a true (V, 3) neutral face and offset, in some of the alignments."""
    shape = neutral + expression
    errors = {
        f"dense_{alignment}_percent": dense_nme(predicted.shape, shape, landmarks, alignment)
        for alignment in alignments
    }
    differences = {"full_mm": predicted.shape - shape}
    if predicted.decoupled:
        differences["identity_mm"] = predicted.neutral - neutral
        differences["expression_mm"] = predicted.expression - expression
    return errors | {name: float(np.linalg.norm(part, axis=1).mean()) for name, part in differences.items()}


def score_mean_face(truth: FaceAnnotations, model: MorphableModel) -> Scores:
    """Return what the mean face reaches: the landmarks of `AnnotatedFace.mean_landmarks`, and its shape."""
    landmarks = np.stack([face.mean_landmarks for face in truth.faces])
    mean = model.mean_shape.astype(np.float64)
    predicted = PredictedFace(mean, np.zeros_like(mean), np.zeros(3), np.zeros(3), np.inf, True)
    errors = [shape_errors(predicted, face, model) for face in truth.faces]
    label = FITTED_MEAN_FACE if any(face.no_shape for face in truth.faces) else MEAN_FACE
    return Scores(label, landmarks, landmark_nme(landmarks, truth.landmarks), _columns(errors))


def _columns(rows: Sequence[dict[str, float]]) -> dict[str, np.ndarray]:
    """Errors by photo as arrays by name; NaN where a photo has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
