"""The detector on real photos: how many faces it finds, and how far its squares are from those of the landmarks."""

import os
from pathlib import Path

import numpy as np
import pytest

from asmgen.crop import face_square
from asmgen.detect import FaceDetector, detected_square, detector_installed
from asmgen.five_points import five_point_square, five_points
from asmgen.images import read_photo
from asmgen.landmark_files import read_landmarks

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("DUALFACE_REAL_DATA" not in os.environ, reason="DUALFACE_REAL_DATA names no folder"),
]


def labelled() -> list[tuple[Path, np.ndarray]]:
    root = Path(os.environ["DUALFACE_REAL_DATA"])
    photos = sorted((root / "300w_lp/ibug_landmarks").glob("*.jpg"))
    files = [photo.with_name(f"{photo.stem}_pts.mat") for photo in photos]
    aflw = sorted((root / "aflw2000_3d").glob("*.jpg"))
    pairs = zip([*photos, *aflw], [*files, *(photo.with_suffix(".mat") for photo in aflw)])
    return [(photo, read_landmarks(file)) for photo, file in pairs]


def differences(squares: list, wanted: list) -> tuple[np.ndarray, np.ndarray]:
    """Log ratio of the sides, and distance of the centres over the side."""
    squares, wanted = np.array(squares), np.array(wanted)
    apart = (squares - wanted)[:, :2] + (squares - wanted)[:, 2:] / 2
    return np.log(squares[:, 2] / wanted[:, 2]), np.linalg.norm(apart, axis=1) / wanted[:, 2]


@pytest.mark.skipif(not detector_installed(), reason="the extra 'detect' is not installed")
def test_faces_of_every_yaw_are_found():
    detector, squares, wanted, missed = FaceDetector(), [], [], []
    for photo, landmarks in labelled():
        face = detector(read_photo(photo))
        if face is None:
            missed.append(photo.stem)
        else:
            squares.append(detected_square(face.box))
            wanted.append(face_square(landmarks))
    sides, apart = differences(squares, wanted)
    assert missed == ["IBUG_image_101_10"] and len(squares) == 31
    assert np.sqrt((sides**2).mean()) < 0.095 and abs(sides.mean()) < 0.02
    assert np.median(apart) < 0.03 and apart.max() < 0.12


def test_squares_of_five_points():
    squares, wanted = [], []
    for _, landmarks in labelled():
        squares.append(five_point_square(five_points(landmarks)))
        wanted.append(face_square(landmarks))
    sides, apart = differences(squares, wanted)
    assert np.median(np.abs(sides)) < 0.04 and np.abs(sides).max() < 0.11
    assert np.median(apart) < 0.032 and apart.max() < 0.07
