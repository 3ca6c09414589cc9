"""A sheet of photos with the true and the predicted landmarks, and the predicted faces over them as clay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from asmgen.crop import Square, crop_image, face_square, square_transform
from asmgen.images import read_photo
from asmgen.sheets import evenly
from bfm.pose import transform_points
from model.dual_stream import TrainedFaces
from model.evaluation.annotations import AnnotatedFace
from model.evaluation.scores import Scores, predicted_faces
from model.picture_sheet import TILE, Cell, picture_sheet
from model.views import PlacedFace, clay, draw

TRUE, PREDICTED = (60, 220, 60), (255, 50, 50)
_FINER = 2


def landmark_sheet(methods: Sequence[Scores], annotated: Sequence[AnnotatedFace], most: int) -> Image.Image:
    """Draw photos from the best to the worst.

    Parameters
    ----------
    methods : Sequence[Scores]
        The NME of the first orders the photos. Of networks the faces are drawn, too.
    annotated : Sequence[AnnotatedFace]
        The photos.
    most : int
        Rows at most, evenly spread over the NME.

    Returns
    -------
    Image.Image
        RGB: a row a photo; true landmarks green, predicted ones red, with the NME below.
    """
    chosen = np.argsort(methods[0].nme, kind="stable")[evenly(len(annotated), most)]
    headings, columns = ["photo, true landmarks"], []
    crops = [crop_image(read_photo(annotated[k].photo), _square(annotated[k]), _FINER * TILE) for k in chosen]
    for method in methods:
        headings.append(method.label)
        columns.append([
            Cell(
                _with_points(crop, annotated[k], (annotated[k].landmarks, TRUE), (method.landmarks[k], PREDICTED)),
                (f"NME {method.nme[k]:.2f} %",),
            ) for crop, k in zip(crops, chosen)
        ])
        if method.faces:
            headings.append(f"{method.label}, mesh")
            columns.append([Cell(picture) for picture in _meshes(method.faces, [annotated[k] for k in chosen], crops)])
    first = [
        Cell(
            _with_points(crop, annotated[k], (annotated[k].landmarks, TRUE)),
            (annotated[k].name, f"yaw {annotated[k].yaw:.0f} degrees"),
        ) for crop, k in zip(crops, chosen)
    ]
    return picture_sheet(headings, list(zip(first, *columns)))


def _square(face: AnnotatedFace) -> Square:
    return face_square(face.landmarks)


def _with_points(crop: np.ndarray, face: AnnotatedFace, *sets: tuple[np.ndarray, tuple]) -> Image.Image:
    """A crop with sets of (68, 2) landmarks, photo pixels, each in its colour."""
    picture = Image.fromarray(crop)
    drawing = ImageDraw.Draw(picture)
    for points, colour in sets:
        for x, y in transform_points(points, square_transform(_square(face), len(crop))):
            drawing.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour, outline="black")
    return picture.resize((TILE, TILE), Image.Resampling.LANCZOS)


def _meshes(faces: TrainedFaces, annotated: Sequence[AnnotatedFace], crops: Sequence[np.ndarray]) -> list[Image.Image]:
    """The predicted faces over crops of their photos."""
    pictures = []
    for face, crop, predicted in zip(annotated, crops, predicted_faces(faces, annotated)):
        plain = np.zeros_like(predicted.shape), np.zeros(9)  # clay takes neither albedo nor light
        placed = PlacedFace(predicted.shape, *plain, predicted.pose, predicted.position)
        placed = placed.transformed(square_transform(_square(face), len(crop)))
        drawn = clay(draw(faces.renderer, placed, *crop.shape[:2]), crop)
        pictures.append(Image.fromarray(drawn).resize((TILE, TILE), Image.Resampling.LANCZOS))
    return pictures
