"""Where the face is in a photo: from a list, from a file beside the photo, or found by the detector.

What places a face is tried in this order: the list or folder of landmarks that was given, the list of boxes, a file of
68 landmarks beside the photo, the detector (`asmgen.detect`; of several faces the largest).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asmgen.crop import Square, face_square
from asmgen.detect import FaceDetector, detected_square, detector_installed, detector_name
from asmgen.five_points import five_point_square, five_points, mean_landmarks
from asmgen.landmark_files import ENDINGS, read_landmarks, read_list
from asmgen.rejection import SampleError
from asmgen.w300lp import IMAGE_SUFFIXES


class Placement(NamedTuple):
    """Where a face is, in pixels of its photo.

    Attributes
    ----------
    square : Square
        What is cut out, see `asmgen.crop`.
    placed_by : str
        ``landmarks`` (68), ``five points``, ``box`` or ``detector``.
    landmarks : np.ndarray | None
        (68, 2), where they are known.
    five : np.ndarray | None
        (5, 2), see `asmgen.five_points`; None if only a box is known.
    """

    square: Square
    placed_by: str
    landmarks: np.ndarray | None = None
    five: np.ndarray | None = None


class FaceLocator:
    """Places the faces of photos; may be sent to other processes.

    Parameters
    ----------
    landmarks : Path | None
        A list with a row a photo, of 5 points (as CelebA's) or of 68, counted from 0; or a folder of landmark files,
        named as the photos (`ENDINGS`). Names in a list, and places in the folder, may begin with folders of the
        photo's path; the longest that fits is taken.
    boxes : Path | None
        A list with a row a photo: left, top, right, bottom of the face from eyebrows to chin, pixels.
    detect : bool
        Whether to search where nothing else tells; only if the extra ``detect`` is installed.

    Raises
    ------
    FileNotFoundError
        If a list or folder does not exist; ValueError if a list cannot be read.
    """

    def __init__(self, landmarks: Path | None = None, boxes: Path | None = None, detect: bool = True):
        for path in (landmarks, boxes):
            if path and not Path(path).exists():
                raise FileNotFoundError(f"{path} does not exist; give a list with a row a photo, or a landmark folder")
        self._given: dict[str, _Folder | _List | None] = dict.fromkeys(("landmarks", "boxes"))
        if landmarks:
            self._given["landmarks"] = _Folder(landmarks) if Path(landmarks).is_dir() else _List(landmarks, (10, 136))
        if boxes:
            self._given["boxes"] = _List(boxes, (4,))
        self._detector = FaceDetector() if detect and detector_installed() else None
        self._detect = detect
        in_five = any(source and source.width == 10 for source in self._given.values())
        self._mean = mean_landmarks() if in_five else None  # here, not once in each process that this is sent to

    @property
    def settings(self) -> dict:
        """Name to text: what places faces, so that a build can tell whether it continues the same one."""
        return {
            **{f"{name}_sha256": source.sha256 if source else "none" for name, source in self._given.items()},
            "detector": detector_name() if self._detector else "none",
        }

    def place(self, path: Path, photo: np.ndarray) -> Placement:
        """Place the face of one photo.

        Parameters
        ----------
        path : Path
            Its file.
        photo : np.ndarray
            (H, W, 3) uint8 RGB, upright.

        Returns
        -------
        Placement
            The face, of several the largest.

        Raises
        ------
        SampleError
            If no face can be placed, with what to give; or what was given is damaged.
        """
        known = self._known(path)
        if known is None:
            return self._found(path, photo)
        try:
            if known.size == 4:
                return Placement(box_square(known), "box")
            points = known.reshape(-1, 2).astype(np.float64)
            if len(points) == 5:
                return Placement(five_point_square(points, self._mean), "five points", five=points)
            return Placement(face_square(points), "landmarks", points, five_points(points))
        except ValueError as error:
            raise SampleError("damaged annotation", f"{path.name}: {error}") from error

    def square(self, path: Path, photo: np.ndarray) -> Square:
        """Return the square around the face of a photo; `place` tells more."""
        return self.place(path, photo).square

    def points(self, path: Path, photo: np.ndarray) -> np.ndarray | None:
        """Return the (68, 2) landmarks of a photo where a list or file has them; nothing is searched."""
        known = self._known(path)
        return known.reshape(68, 2).astype(np.float64) if known is not None and known.size == 136 else None

    def beside(self, path: Path) -> Path | None:
        """Return the landmark file beside a photo, where there is one and nothing that was given has the photo."""
        if self._named(path):
            return None
        files = (path.with_name(path.stem + ending) for ending in ENDINGS)
        return next((file for file in files if file.is_file()), None)

    def _known(self, path: Path) -> np.ndarray | None:
        """What lists and files tell: 4 numbers of a box, 10 or 136 of points; None if nothing."""
        named = self._named(path)
        if named:
            source, name = named
            return source.numbers(name)
        file = self.beside(path)
        return None if file is None else _read(file)

    def _named(self, path: Path) -> tuple[_List | _Folder, str] | None:
        """What was given that has a photo, and under which name."""
        for source in self._given.values():
            name = source.name_of(path) if source else None
            if source and name:
                return source, name
        return None

    def _found(self, path: Path, photo: np.ndarray) -> Placement:
        """What the detector finds."""
        if self._detector is None:
            how = ", or install the detector: pip install 'dualface[detect]'" if self._detect else ""
            raise SampleError(
                "no face placed", f"nothing tells where the face in {path.name} is; give its landmarks or a box{how}"
            )
        face = self._detector(photo)
        if face is None:
            raise SampleError(
                "no face placed", f"the detector finds no face in {path.name}; give its landmarks or a box"
            )
        return Placement(detected_square(face.box), "detector", five=face.points)


class _List:
    """The rows of a list, by the names of their photos."""

    def __init__(self, path: Path, widths: tuple[int, ...]):
        names, self._numbers = read_list(path, widths)
        self._rows = {_bare(name): row for row, name in enumerate(names)}
        if len(self._rows) < len(names):
            raise ValueError(f"{path} must hold one row a photo, got {len(names)} for {len(self._rows)} photos")
        self.width = self._numbers.shape[1]
        self.sha256 = sha256(Path(path).read_bytes()).hexdigest()

    def name_of(self, path: Path) -> str | None:
        """The name under which a photo is in the list, None if it is not."""
        return _longest_ending(path, self._rows)

    def numbers(self, name: str) -> np.ndarray:
        """The (K,) numbers of a photo."""
        return self._numbers[self._rows[name]]


class _Folder:
    """The landmark files below a folder, by their names without ending."""

    width = 136

    def __init__(self, folder: Path):
        folder = Path(folder)
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        self._files = {
            name.removesuffix(ending): folder / name
            for ending in reversed(ENDINGS) for name in names if name.endswith(ending)
        }
        sizes = [(name, path.stat().st_size) for name, path in self._files.items()]
        self.sha256 = sha256(repr(sizes).encode()).hexdigest()

    def name_of(self, path: Path) -> str | None:
        """The name under which the folder has a file for a photo, None if it has none."""
        return _longest_ending(path, self._files)

    def numbers(self, name: str) -> np.ndarray:
        """The (68, 2) landmarks of a photo."""
        return _read(self._files[name])


def _read(file: Path) -> np.ndarray:
    """The (68, 2) landmarks in a file; SampleError if it is damaged."""
    try:
        return read_landmarks(file)
    except (OSError, ValueError) as error:
        # the same wherever the file lies
        raise SampleError("damaged annotation", str(error).replace(str(file), file.name)) from error


def _longest_ending(path: Path, names: dict) -> str | None:
    """The longest of some names, with or without folders, in which the path of a photo without suffix ends."""
    parts = Path(os.path.abspath(path)).with_suffix("").parts[1:]
    endings = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((name for name in endings if name in names), None)


def _bare(name: str) -> str:
    """The name of a photo in a list, without suffix; other dots are part of it."""
    name = name.replace("\\", "/").lstrip("/")
    return name[:name.rindex(".")] if name.lower().endswith(IMAGE_SUFFIXES) else name


def box_square(box: Sequence[float] | np.ndarray) -> Square:
    """Return the square around a face whose box, left, top, right, bottom, reaches from eyebrows to chin."""
    left, top, right, bottom = box
    if not (right > left and bottom > top):
        raise ValueError(f"a box must be left, top, right, bottom with left < right and top < bottom, got {box}")
    return face_square(np.array([[left, top], [right, bottom]], np.float64))
