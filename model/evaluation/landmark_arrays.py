"""Landmarks of many photos in one array: those of other methods, and the truth in the benchmark of 3DDFA.

Dimension key: N photos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bfm.morphable_model import MorphableModel
from bfm.npy_file import read_npy
from model.evaluation.annotations import AnnotatedFace, FaceAnnotations, nearest_landmarks

BENCHMARK_ARRAYS = {"original": "AFLW2000-3D.pts68.npy", "reannotated": "AFLW2000-3D-Reannotated.pts68.npy"}
"""Files of the benchmark of 3DDFA (Guo et al.): (N, 2 or 3, 68), pixels counted from 1, rows sorted by photo name."""

BENCHMARK_YAW = "AFLW2000-3D.pose.npy"
"""(N,) degrees, of the original annotation; it bins both."""


def is_benchmark_folder(root: Path) -> bool:
    """Return whether a folder holds the benchmark's arrays."""
    return any(Path(root, name).is_file() for name in BENCHMARK_ARRAYS.values())


def read_benchmark_arrays(root: Path, annotation: str, model: MorphableModel) -> FaceAnnotations:
    """Read the arrays of the benchmark of 3DDFA; it has no photos, so only given landmarks can be scored.

    Parameters
    ----------
    root : Path
        Folder of `BENCHMARK_ARRAYS` and `BENCHMARK_YAW`.
    annotation : str
        Which of `BENCHMARK_ARRAYS` is the truth.
    model : MorphableModel
        Its mean face is compared, too.

    Returns
    -------
    FaceAnnotations
        A face a row; the yaw is that of the file. Errors of files are those of `load_landmark_array`.

    Raises
    ------
    ValueError
        If the files do not belong together.
    """
    landmarks = load_landmark_array(Path(root, BENCHMARK_ARRAYS[annotation]), 1)
    yaw = _load(Path(root, BENCHMARK_YAW))
    if yaw.shape != (len(landmarks),):
        raise ValueError(f"{BENCHMARK_YAW} must have shape ({len(landmarks)},), got {yaw.shape}")
    mean = model.mean_shape[model.landmarks].astype(np.float64)
    faces = [
        AnnotatedFace(
            f"row {row}", None, points, "3d", float(degrees), True, None, nearest_landmarks(mean, points), None,
            "no parameters",
        )
        for row, (points, degrees) in enumerate(zip(landmarks, yaw))
    ]
    return FaceAnnotations(faces, range(len(faces)), [], f"the {annotation} landmarks of the benchmark's arrays")


def load_landmark_array(path: Path, index_base: int, count: int | None = None) -> np.ndarray:
    """Read the landmarks of many photos.

    Parameters
    ----------
    path : Path
        ``.npy`` of (N, 68, 2 or 3) or (N, 2 or 3, 68) numbers: x, y in pixels of the photo, and depth, which is not
        used.
    index_base : int
        What pixels are counted from in it, 0 or 1.
    count : int | None
        Photos that it must be of.

    Returns
    -------
    np.ndarray
        (N, 68, 2) float64, pixels from 0; FileNotFoundError if there is no file.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    points = _load(path)
    if points.ndim == 3 and points.shape[1] in (2, 3) and points.shape[2] == 68:
        points = points.transpose(0, 2, 1)
    if points.ndim != 3 or points.shape[1] != 68 or points.shape[2] not in (2, 3):
        raise ValueError(f"{path} must hold an array (N, 68, 2 or 3) or (N, 2 or 3, 68), got shape {points.shape}")
    if count is not None and len(points) != count:
        raise ValueError(f"{path} must hold a row for each of the {count} photos, sorted by name, got {len(points)}")
    points = points[..., :2].astype(np.float64) - index_base
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all((1, 2)))[0])
        raise ValueError(f"{path} must hold finite numbers, got NaN or infinity in row {row}")
    return points


def _load(path: Path) -> np.ndarray:
    """A numeric array from a ``.npy``."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; give a .npy array")
    try:
        return read_npy(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
