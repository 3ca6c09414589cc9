"""Which photos to reconstruct, under which names, and where the face is in each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asmgen.crop import Square, face_square, square_about
from asmgen.landmark_files import read_landmarks
from asmgen.locate import FaceLocator, Placement, box_square
from asmgen.source_files import printable, walk_folders
from asmgen.w300lp import IMAGE_SUFFIXES

LIST_SUFFIXES = (".txt", ".csv")
"""Of lists with a row a photo."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom of a face from eyebrows to chin, pixels of its photo."""


class Photo(NamedTuple):
    """A photo of one face.

    Attributes
    ----------
    path : Path
        Of the file.
    name : str
        Of what is written about it: path below the output folder, with ``/``, without ending, `printable`.
    """

    path: Path
    name: str


def find_photos(paths: Sequence[Path], out_dir: Path, variants: Sequence[str] = ("",)) -> list[Photo]:
    """List photos, those of a folder sorted, and name their files as they are called there.

    Parameters
    ----------
    paths : Sequence[Path]
        Photos, and folders, of which every photo below is taken.
    out_dir : Path
        Where files are to be written; what it holds is not taken for photos.
    variants : Sequence[str]
        What may be added to the name of a photo, that no file of one is overwritten by another's.

    Returns
    -------
    list[Photo]
        In the order of `paths`.

    Raises
    ------
    ValueError
        If a folder holds no photo, is the output folder, or files of two photos would have the same name.
    """
    photos, out_dir = [], Path(out_dir).resolve()
    for path in map(Path, paths):
        if not path.is_dir():
            photos.append(Photo(path, printable(path.stem)))
            continue
        if path.resolve() == out_dir:
            raise ValueError(f"{path} cannot be both the folder of the photos and the output; choose another output")
        found = sorted(_photos_below(path, out_dir))
        if not found:
            raise ValueError(f"{path} holds no photo ({', '.join(IMAGE_SUFFIXES)})")
        photos += [Photo(photo, printable(photo.relative_to(path).with_suffix("").as_posix())) for photo in found]
    taken = {}
    for photo in photos:
        for variant in variants:
            other = taken.setdefault(photo.name + variant, photo)
            if other is not photo:
                raise ValueError(
                    f"{other.path} and {photo.path} would both write {photo.name}{variant}.*; rename one, run them "
                    "apart, or give the folder that holds both"
                )
    return photos


def _photos_below(folder: Path, out_dir: Path) -> list[Path]:
    """Every photo in a folder and its subfolders (`walk_folders`) but the output folder."""
    return [
        folder.joinpath(*below, name)
        for below, names in walk_folders(folder, lambda path: Path(path).resolve() == out_dir)
        for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES
    ]


class PhotoLocator:
    """Where the face is in each photo: as was given for this photo, else as `FaceLocator` finds it.

    Parameters
    ----------
    photos : Sequence[Photo]
        To be reconstructed.
    boxes : Sequence[Box]
        One a photo, or none.
    landmarks : Sequence[Path]
        A file of 68 landmarks a photo (`read_landmarks`), or none; or one list or folder for all (`FaceLocator`).
    whole : bool
        Whether each photo is itself the crop.

    Raises
    ------
    ValueError
        If more than one of the three is given, or not one a photo.
    """

    def __init__(
        self, photos: Sequence[Photo], boxes: Sequence[Box] = (), landmarks: Sequence[Path] = (), whole: bool = False
    ):
        if bool(boxes) + bool(landmarks) + whole > 1:
            raise ValueError("give boxes, landmarks, or whole photos: one of the three")
        lists = landmarks if len(landmarks) == 1 and _is_list(landmarks[0]) else ()
        for name, given in (("boxes", boxes), ("landmarks", () if lists else landmarks)):
            if given and len(given) != len(photos):
                raise ValueError(f"{name} must have one entry a photo, got {len(given)} for {len(photos)} photos")
        self._whole = whole
        self._boxes = dict(zip((photo.path for photo in photos), boxes))
        self._landmarks = {} if lists else dict(zip((photo.path for photo in photos), landmarks))
        self._locator = FaceLocator(landmarks=lists[0] if lists else None)

    def place(self, path: Path, image: np.ndarray) -> Placement:
        """Place the face of one RGB photo; errors are those of `box_square`, `read_landmarks` and `FaceLocator`."""
        if self._whole:
            return Placement(whole_square(image), "whole photo")
        if path in self._boxes:
            return Placement(box_square(self._boxes[path]), "box")
        if path in self._landmarks:
            points = read_landmarks(self._landmarks[path])
            return Placement(face_square(points), "landmarks", points)
        return self._locator.place(path, image)


def whole_square(image: np.ndarray) -> Square:
    """Return the smallest square that holds the whole photo."""
    height, width = image.shape[:2]
    return square_about(width / 2, height / 2, max(height, width))


def _is_list(path: Path) -> bool:
    """Whether a path is a folder, or a table that is not the 68 landmarks of one photo."""
    if path.is_dir():
        return True
    try:
        read_landmarks(path)
    except ValueError:
        return path.suffix.lower() in LIST_SUFFIXES
    return False
