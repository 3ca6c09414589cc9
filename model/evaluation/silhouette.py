"""Whether a reconstructed face covers the face in its photo, and no more: Fig. 7 of the paper, with numbers.

The mesh's silhouette, its mouth closed, is compared with a mask of the face. The mesh ends at the forehead line of the
face model, masks end at the hair, so the part below the brows is also measured by itself. Hair and hands before a face
are no part of its mask, and a mesh there counts as outside.

Dimension key: H/W pixels, V vertices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from asmgen.images import read_photo
from asmgen.locate import Placement
from asmgen.sheets import evenly
from bfm.morphable_model import MorphableModel
from bfm.pose import transform_points
from bfm.rasterize import rasterize
from bfm.render import clay
from model.checkpoint import weights_sha256
from model.dual_stream import TrainedFaces
from model.evaluation.face_masks import FaceMask, MaskFolder, parsed_mask
from model.evaluation.predict import PredictedFace, predict_faces
from model.evaluation.report import markdown_table, mean_and_spread, write_report
from model.parsing import FaceParsing
from model.photos import Photo, PhotoLocator
from model.picture_sheet import TILE, Cell, picture_sheet
from model.views import surroundings

OVERLAP, OUTSIDE, MISSED = (255, 255, 0), (255, 0, 0), (0, 255, 0)
"""The paper's colours: where geometry and face agree, geometry outside the face, and face without geometry."""

BROWS, CHIN = slice(17, 27), 8
"""Landmarks."""

COLUMNS = {
    "IoU": ("iou", 3), "outside, % of the face": ("outside_percent", 1),
    "not covered, % of the face": ("missed_percent", 1), "IoU below the brows": ("iou_below_brows", 3),
}
"""Heading of the table to what `Silhouette.errors` calls it, and its decimals."""

SHEET_ROWS = 8
LISTED = 40
"""Photos that the table lists at most, each in a row; ``results.json`` lists all."""

_OPACITY = 0.5


def agreement(covered: np.ndarray, face: np.ndarray) -> dict[str, float]:
    """Return how well two regions agree.

    Parameters
    ----------
    covered : np.ndarray
        (H, W) bool, pixels that the geometry covers.
    face : np.ndarray
        (H, W) bool, pixels of the face, at least one.

    Returns
    -------
    dict[str, float]
        ``iou``, the pixels of both over those of either; ``outside_percent`` and ``missed_percent``, geometry outside
        the face and face without geometry, in percent of the face's pixels.
    """
    area = face.sum()
    return {
        "iou": float((covered & face).sum() / (covered | face).sum()),
        "outside_percent": float(100 * (covered & ~face).sum() / area),
        "missed_percent": float(100 * (face & ~covered).sum() / area),
    }


def below_brows(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return which pixels lie on the chin's side of the line through the brows.

    Parameters
    ----------
    landmarks : np.ndarray
        (68, 2) x, y in pixels; the line is that of the least squared distances from the ten of the brows.
    height : int
        Of the picture, pixels.
    width : int
        Of the picture, pixels.

    Returns
    -------
    np.ndarray
        (height, width) bool.
    """
    middle = landmarks[BROWS].mean(0)
    across = np.linalg.svd(landmarks[BROWS] - middle)[2][1]  # the line's normal
    across = across * np.sign(across @ (landmarks[CHIN] - middle))
    rows, columns = np.indices((height, width))
    return (columns - middle[0]) * across[0] + (rows - middle[1]) * across[1] > 0


def agreement_picture(photo: np.ndarray, covered: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Return an (H, W, 3) uint8 photo under `OVERLAP`, `OUTSIDE` and `MISSED` of two (H, W) bool regions."""
    picture = photo.astype(np.float32)
    for region, colour in ((covered & face, OVERLAP), (covered & ~face, OUTSIDE), (face & ~covered, MISSED)):
        picture[region] = (1 - _OPACITY) * picture[region] + _OPACITY * np.array(colour, np.float32)
    return np.rint(picture).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Silhouette:
    """A face's geometry and its mask, in a picture of its photo.

    Attributes
    ----------
    picture : np.ndarray
        (H, W, 3) uint8: the part of the photo that holds both.
    points : np.ndarray
        (V, 3) the mesh in it: x, y and depth, pixels.
    covered, face, below : np.ndarray
        (H, W) bool: what the mesh covers, what the mask marks, and what lies below the brows.
    """

    picture: np.ndarray
    points: np.ndarray
    covered: np.ndarray
    face: np.ndarray
    below: np.ndarray

    def errors(self) -> dict[str, float]:
        """Return `agreement` of the whole, and with ``_below_brows`` that below them, where the mask reaches."""
        found = agreement(self.covered, self.face)
        if (self.face & self.below).any():
            below = agreement(self.covered & self.below, self.face & self.below)
            found |= {f"{key}_below_brows": value for key, value in below.items()}
        return found


def silhouette(
    face: PredictedFace, model: MorphableModel, photo: np.ndarray, mask: FaceMask, landmarks: np.ndarray | None = None
) -> Silhouette:
    """Return the silhouette of a face beside the mask.

    Parameters
    ----------
    face : PredictedFace
        In the photo.
    model : MorphableModel
        Face part.
    photo : np.ndarray
        RGB.
    mask : FaceMask
        Of the photo.
    landmarks : np.ndarray | None
        (68, 2) of the photo, for the line of the brows; None takes the predicted ones.

    Returns
    -------
    Silhouette
        In a picture of at most `model.views.PICTURE_SIZE` pixels, in those of the photo if that is no larger.
    """
    points = face.project(face.shape)
    if landmarks is None:
        landmarks = points[model.landmarks, :2]
    ends = np.stack([*mask.box(), points[:, :2].min(0), points[:, :2].max(0)])
    low, high = ends.min(0), ends.max(0) + 1  # edges, but for half a pixel
    # what lies beyond the photo is not compared
    low, high = np.clip(low, 0, photo.shape[1::-1]), np.clip(high, 0, photo.shape[1::-1])
    side = (high - low).max()
    around = surroundings(photo, (*((low + high - side) / 2), side))
    height, width = around.picture.shape[:2]
    scale = around.transform[0, 0]
    points = np.column_stack([transform_points(points[:, :2], around.transform), scale * points[:, 2]])
    triangles = np.concatenate([model.triangles, model.mouth_triangles])
    ids, _ = rasterize(points[:, :2], points[:, 2], triangles, height, width)
    return Silhouette(
        around.picture, points, ids >= 0, mask.sample(around.transform, height, width),
        below_brows(transform_points(landmarks, around.transform), height, width),
    )


def evaluate_silhouette(
    photos: Sequence[Photo], locator: PhotoLocator, faces: TrainedFaces, masks: MaskFolder | FaceParsing, out_dir: Path,
    progress: Callable[[Iterable[Photo]], Iterable[Photo]] = iter,
) -> tuple[Path, dict[str, str]]:
    """Compare the silhouettes of the faces in photos, and write ``table.md``, ``results.json`` and ``sheet.png``.

    Parameters
    ----------
    photos : Sequence[Photo]
        Of one face each, as `find_photos` lists them.
    locator : PhotoLocator
        Where the faces are.
    faces : TrainedFaces
        The network.
    masks : MaskFolder | FaceParsing
        Where the photos show a face.
    out_dir : Path
        Made if need be.
    progress : Callable[[Iterable[Photo]], Iterable[Photo]]
        Given the photos, as tqdm is.

    Returns
    -------
    tuple[Path, dict[str, str]]
        ``table.md``, and why photos failed, by their names.

    Raises
    ------
    ValueError
        If all failed.
    """
    parsed = isinstance(masks, FaceParsing)
    if isinstance(masks, FaceParsing):
        masks = masks.to(faces.renderer.centre.device)

    def measure(photo: Photo) -> tuple[Silhouette, Placement]:
        image = read_photo(photo.path)
        placement = locator.place(photo.path, image)
        if isinstance(masks, FaceParsing):
            mask = parsed_mask(masks, image, placement.square)
        else:
            mask = masks.mask(photo, image.shape[1::-1])
        face, = predict_faces(faces, [(image, placement.square)])
        return silhouette(face, faces.model, image, mask, placement.landmarks), placement

    measured: dict[Photo, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for photo in progress(photos):
        try:
            found, placement = measure(photo)
        except (OSError, ValueError) as error:
            failed[photo.name] = str(error)
            continue
        measured[photo] = {
            "placed_by": placement.placed_by,
            "brows": "predicted" if placement.landmarks is None else "given", "errors": found.errors(),
        }
    if not measured:
        name, error = next(iter(failed.items()))
        raise ValueError(f"none of the {len(photos)} photos could be measured; {name}: {error}")
    values = {key: [photo["errors"][key] for photo in measured.values() if key in photo["errors"]]
              for key in dict.fromkeys(key for photo in measured.values() for key in photo["errors"])}
    source = "face parsing (BiSeNet)" if parsed else "mask files"
    predicted = sum(photo["brows"] == "predicted" for photo in measured.values())
    notes = (
        f"{len(measured)} photos, {len(failed)} failed; faces marked by {source}. The line through the brows is that "
        f"of given landmarks, in {predicted} photos of predicted ones. The mesh ends at the forehead line of the face "
        "model, masks end at the hair, and hair or a hand before the face is no part of its mask."
    )
    path = write_report(out_dir, {"Silhouette (Fig. 7)": _table(measured, values), "Over what": notes}, {
        "protocol": "silhouette", "kind": faces.metadata["kind"], "weights_sha256": weights_sha256(faces.network),
        "masks": source, "parsing_sha256": weights_sha256(masks) if parsed else None,
        "means": {key: {"mean": float(np.mean(known)), "photos": len(known)} for key, known in values.items()},
        "failed": failed, "photos": {photo.name: numbers for photo, numbers in measured.items()},
    })
    ranked = sorted(measured, key=lambda photo: measured[photo]["errors"]["iou"])
    chosen = [(place, ranked[place]) for place in evenly(len(ranked), SHEET_ROWS)]
    picture_sheet(["photo", "geometry", "yellow: both; red: geometry alone; green: face alone"], [
        _cells(
            measure(photo)[0], faces.model, measured[photo]["errors"],
            (photo.name, f"worst IoU: {place + 1} of {len(ranked)}"),
        ) for place, photo in chosen
    ]).save(Path(out_dir, "sheet.png"))
    return path, failed


def _table(measured: dict[Photo, dict], values: dict[str, list[float]]) -> str:
    """A row a photo, if they are not too many, and the means."""
    rows = [] if len(measured) > LISTED else [
        [photo.name, *(f"{errors[key]:.{digits}f}" if key in errors else None for key, digits in COLUMNS.values())]
        for photo, errors in ((photo, numbers["errors"]) for photo, numbers in measured.items())
    ]
    means = [mean_and_spread(values[key], digits) if key in values else None for key, digits in COLUMNS.values()]
    return markdown_table(["photo", *COLUMNS], [*rows, [f"mean of {len(measured)}", *means]])


def _cells(found: Silhouette, model: MorphableModel, errors: dict[str, float], caption: tuple[str, ...]) -> list[Cell]:
    """Photo, geometry as clay, and the agreement."""
    geometry = clay(found.points, model.triangles, found.picture)
    agreed = agreement_picture(found.picture, found.covered, found.face)
    lines = (
        f"IoU {errors['iou']:.3f}",
        f"{errors['outside_percent']:.1f} % outside, {errors['missed_percent']:.1f} % missed",
    )
    return [
        Cell(ImageOps.contain(Image.fromarray(part), (TILE, TILE)), below)
        for part, below in ((found.picture, caption), (geometry, ()), (agreed, lines))
    ]
