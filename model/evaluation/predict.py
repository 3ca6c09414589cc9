"""Photos to meshes and where they stand in the photo: what every measurement of shape starts from.

Dimension key: V vertices of the face part, N any points.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from asmgen.crop import Square, crop_image, placement_in_photo
from bfm.pose import project
from model.dual_stream import TrainedFaces
from model.geometry import denormalise_position


@dataclass(frozen=True, eq=False)
class PredictedFace:
    """One face as the network sees it; float64.

    Attributes
    ----------
    neutral : np.ndarray
        (V, 3) mm, canonical: the shape that A_id holds.
    expression : np.ndarray
        (V, 3) mm: the offset that A_exp holds.
    pose, position : np.ndarray
        (3,) placement (`bfm.pose`), pixels of the photo.
    camera_distance : float
        Of the camera that the placement is for, mm; infinite for scaled orthographic projection.
    decoupled : bool
        Whether `neutral` is the face without expression; False where the network has one map for both.
    """

    neutral: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    position: np.ndarray
    camera_distance: float
    decoupled: bool

    @property
    def shape(self) -> np.ndarray:
        """(V, 3) mm: the face with its expression, canonical."""
        return self.neutral + self.expression

    def project(self, vertices: np.ndarray) -> np.ndarray:
        """Return (N, 3) x, y, depth in pixels of the photo, of (N, 3) canonical points, mm."""
        return project(vertices, self.pose, self.position, self.camera_distance)


@torch.no_grad()
def predict_faces(
    faces: TrainedFaces, photos: Iterable[tuple[np.ndarray, Square]], batch_size: int = 16
) -> Iterator[PredictedFace]:
    """Run the geometry stream on photos; their textures are not predicted.

    Parameters
    ----------
    faces : TrainedFaces
        The network.
    photos : Iterable[tuple[np.ndarray, Square]]
        (H, W, 3) uint8 RGB photo and the square about the face (`asmgen.crop.face_square`), in its pixels; read a
        batch at a time.
    batch_size : int
        Photos that go through the network together.

    Yields
    ------
    PredictedFace
        One a photo, in order. A square that cannot be cut out raises the ValueError of `crop_image`.
    """
    photos, size = iter(photos), faces.metadata["size"]
    decoupled = faces.metadata["shape"] != "single"
    while batch := list(islice(photos, batch_size)):
        crops = np.stack([crop_image(photo, square, size) for photo, square in batch])
        image = torch.tensor(crops, device=next(faces.network.parameters()).device).permute(0, 3, 1, 2).float() / 255
        identity_map, expression_map, parameters = faces.network.geometry(image)
        values = (
            faces.renderer.vertices(identity_map), faces.renderer.vertices(expression_map) - faces.renderer.centre,
            parameters.pose, denormalise_position(parameters.position, size),
        )
        for (_, square), neutral, expression, pose, position in zip(
            batch, *(value.cpu().numpy().astype(np.float64) for value in values)
        ):
            yield PredictedFace(
                neutral, expression, *placement_in_photo(pose, position, square, size),
                float(faces.renderer.camera_distance), decoupled,
            )
