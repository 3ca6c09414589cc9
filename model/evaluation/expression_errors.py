"""The expression stress: how errors grow with the expression, and how much of the expression is recovered.

Of one photo with the true neutral face n and expression offset e, (V, 3) mm canonical, and the predicted shape p:

    magnitude   1/V sum_v |e_v|                          mm; what a network that ignores the expression gets wrong
    full        1/V sum_v |p_v - n_v - e_v|              mm, not aligned
    region      the same mean over {v: |e_v| > 0.2 max |e|}, the part of the face that the expression moves
    recovered   <p - p0, e> / <e, e>                     slope of predicted on true displacement: 1 all, 0 nothing
    leaked      <a - a0, e> / <e, e>                     likewise of the predicted neutral face a: 0 where decoupled

p0 and a0 are the means of what is predicted for the same person's photos without expression, so that the error of the
identity cancels, and a network with one map for both is measured like the others. The slopes are least squares through
the origin: noise that is not along e leaves them as they are. Of several photos they are pooled, <p - p0, e> and <e, e>
summed. NME and dense error as in `model.evaluation.nme` and `dense` (correspondence).

Dimension key: N photos, V vertices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from asmgen.crop import crop_image, face_square, placement_in_photo
from asmgen.images import read_photo
from asmgen.synth_expressions import UNITS
from bfm.morphable_model import MorphableModel
from model.dual_stream import TrainedFaces
from model.evaluation.annotations import AnnotatedFace, read_annotations
from model.evaluation.nme import landmark_nme
from model.evaluation.predict import PredictedFace, predict_faces
from model.evaluation.scores import errors_of_shape

MOVED = 0.2
"""Of the largest displacement: vertices that move further are the region of an expression."""

MEASURES = {
    "full_mm": "full face, mm", "region_mm": "moved region, mm", "nme_percent": "68-point NME, %",
    "dense_correspondence_percent": "dense NME, correspondence, %", "identity_mm": "identity, mm",
    "expression_mm": "expression, mm", "recovered": "recovered, share", "leaked": "leaked into the identity, share",
}
"""What is measured of a photo, and its heading."""

ALL = "all"
"""The unit of photos that are not of the expression stress."""

_CHUNK = 32
_STRESS = re.compile(rf"(?:.*/)?({'|'.join(UNITS)})_(\d{{6}})_(\d{{3}})")

Indices = Sequence[int] | np.ndarray
Predictor = Callable[[Indices], Iterable[PredictedFace]]
"""Indices of photos to the faces in them, in order, placed in the photo."""


class ExpressionPhotos:
    """Photos whose true expressions are known; read once for any number of networks, their crops held in memory.

    Parameters
    ----------
    root : Path
        Of ``dualface synth expressions``, or any folder in the layout of 300W-LP with coefficients of the face model.
    model : MorphableModel
        The face model of the networks.

    Attributes
    ----------
    faces : list[AnnotatedFace]
        Those that can be measured, sorted by path.
    failed : list[str]
        Why others cannot be, a sentence each.
    units, people : list[str]
        By the file's name, where it is of the expression stress; else `ALL`, and an empty name.
    strengths : np.ndarray
        (N,) percent of the full movement; NaN where the name does not tell.
    magnitudes, weights : np.ndarray
        (N,) mm, and mm^2: the squared displacement, mean over vertices.

    Raises
    ------
    ValueError
        If no photo can be measured.
    """

    def __init__(self, root: Path, model: MorphableModel):
        self.model = model.face_only()
        annotations = read_annotations(root, self.model)
        self.faces = [face for face in annotations.faces if face.coefficients]
        self.failed = [*annotations.failed, *(
            f"{face.name}: {face.no_shape}, so its true expression is not known"
            for face in annotations.faces if not face.coefficients
        )]
        if not self.faces:
            raise ValueError(f"{root} holds no photo whose expression is known, the first because of {self.failed[0]}")
        parts = [match.groups() if (match := _STRESS.fullmatch(face.name)) else (ALL, "", "nan") for face in self.faces]
        units, people, strengths = zip(*parts)
        self.units, self.people, self.strengths = list(units), list(people), np.array(strengths, float)
        squares = ((self._offset(face) ** 2).sum(axis=1) for face in self.faces)
        self.magnitudes, self.weights = np.array([(np.sqrt(square).mean(), square.mean()) for square in squares]).T
        self._neutral = lru_cache(64)(lambda id_coeffs: self.model.shape(np.array(id_coeffs)).astype(np.float64))
        self._crops = lru_cache(2)(self._cut)

    def _offset(self, face: AnnotatedFace) -> np.ndarray:
        return self.model.expression_offset(face.coefficients[1]).astype(np.float64)

    def truth(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the (V, 3) neutral face and expression offset of a photo, mm, float64."""
        face = self.faces[index]
        return self._neutral(tuple(face.coefficients[0])), self._offset(face)

    def _cut(self, size: int) -> list[np.ndarray]:
        """The crops of all photos, which are small."""
        return [crop_image(read_photo(face.photo), face_square(face.landmarks), size) for face in self.faces]

    def predictor(self, faces: TrainedFaces, batch_size: int = 16) -> Predictor:
        """Return what a network makes of the photos, each cut out around its true landmarks."""
        size = faces.metadata["size"]
        whole = (0, 0, size)

        def predict(indices: Indices) -> Iterator[PredictedFace]:
            crops = self._crops(size)
            found = predict_faces(faces, ((crops[index], whole) for index in indices), batch_size)
            for index, face in zip(indices, found):
                square = face_square(self.faces[index].landmarks)
                pose, position = placement_in_photo(face.pose, face.position, square, size)
                yield replace(face, pose=pose, position=position)

        return predict

    def ignoring(self, indices: Indices) -> Iterator[PredictedFace]:
        """Yield the true faces without their expressions: the baseline; where they are in the photo is left open."""
        for index in indices:
            neutral, offset = self.truth(index)
            nowhere = np.full(3, np.nan)
            yield PredictedFace(neutral, np.zeros_like(offset), nowhere, nowhere, np.inf, True)

    def measure(self, predict: Predictor) -> dict[str, np.ndarray]:
        """Return the errors of all photos.

        Parameters
        ----------
        predict : Predictor
            Such as `predictor` of a network.

        Returns
        -------
        dict[str, np.ndarray]
            (N,) float64 for each of `MEASURES`. NaN where it is not defined: region and slopes without an expression,
            slopes without a photo of the same person at rest, and the parts of a network that has one map for both.
        """
        resting = [index for index, person in enumerate(self.people) if person and self.strengths[index] == 0]
        others = np.setdiff1d(np.arange(len(self.faces)), resting)
        rows, rest = {}, {}
        for index, face, errors in self._measured(resting, predict, {}):
            rows[index] = errors
            sums = rest.setdefault(self.people[index], [0, 0, 0])
            rest[self.people[index]] = [sums[0] + face.shape, sums[1] + face.neutral, sums[2] + 1]
        rest = {person: (shape / count, neutral / count) for person, (shape, neutral, count) in rest.items()}
        rows |= {index: errors for index, _, errors in self._measured(others, predict, rest)}
        return {name: np.array([rows[index].get(name, np.nan) for index in range(len(rows))]) for name in MEASURES}

    def _measured(
        self, indices: Indices, predict: Predictor, rest: dict
    ) -> Iterator[tuple[int, PredictedFace, dict]]:
        """Each photo with its prediction and errors; numpy works on several at once."""
        pairs = zip(indices, predict(indices))
        with ThreadPoolExecutor() as pool:
            while chunk := list(islice(pairs, _CHUNK)):
                yield from ((*pair, errors) for pair, errors in zip(
                    chunk, pool.map(lambda pair: self._errors(pair[0], pair[1], rest), chunk)
                ))

    def _errors(self, index: int, face: PredictedFace, rest: dict) -> dict[str, float]:
        """The errors of one photo that are defined."""
        (neutral, offset), landmarks = self.truth(index), self.model.landmarks
        points = face.project(face.shape[landmarks])[:, :2]
        errors = {
            "nme_percent": float(landmark_nme(points[None], self.faces[index].landmarks[None])[0]),
            **errors_of_shape(face, neutral, offset, landmarks, ("correspondence",)),
        }
        if self.weights[index] == 0:
            return errors
        moved = np.linalg.norm(offset, axis=1)
        region = moved > MOVED * moved.max()
        errors["region_mm"] = float(np.linalg.norm((face.shape - neutral - offset)[region], axis=1).mean())
        if self.people[index] in rest:
            shape, at_rest = rest[self.people[index]]
            errors["recovered"] = float(((face.shape - shape) * offset).sum() / (offset**2).sum())
            if face.decoupled:
                errors["leaked"] = float(((face.neutral - at_rest) * offset).sum() / (offset**2).sum())
        return errors
