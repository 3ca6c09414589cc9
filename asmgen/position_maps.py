"""Position maps, as PRNet, face3d and SADRNet have them: where each texel of a face lies in its crop.

A map is (S, S, 3) float32 in pixels of the crop, 0-based with centres at whole numbers: x right, y down, and z toward
the camera, moved so that the least is 0; texels outside the chart are 0. Rows go down as v falls, as in all our maps.
The face is posed, with its expression: what is of the person and what of the expression the map does not tell.

Dimension key: S side of the map and of the crop, V vertices.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bfm.npy_file import read_npy
from bfm.pose import project
from bfm.sampling import bilinear_taps

CROP, MAP = "_cropped.jpg", "_cropped_uv_posmap.npy"
"""What a sample's files end in, after the name of its folder."""

ENDINGS = ("_uv_posmap.npy", ".npy")
"""What a photo's name may end in, in place of its suffix, to name its position map: of PRNet's trainings, face3d's."""

LANDMARK_TEXELS = "uv_kpt_ind.txt"
"""PRNet's name for the file of `read_landmark_texels`."""

MOST_TEXELS = 4096
"""Of a side."""


def position_map(
    vertices_map: np.ndarray, inside: np.ndarray, pose: np.ndarray, position: np.ndarray
) -> np.ndarray:
    """Place a face in its crop.

    Parameters
    ----------
    vertices_map : np.ndarray
        (3, S, S) the face at each texel, mm: ``(A_id + A_exp) scale + centre``.
    inside : np.ndarray
        (S, S) texels of the chart.
    pose : np.ndarray
        (3,) radians, see `bfm.pose`.
    position : np.ndarray
        (3,) t_x, t_y in crop pixels, scale in crop pixels a millimetre.

    Returns
    -------
    np.ndarray
        (S, S, 3) float32, see above.
    """
    inside = inside.astype(bool)
    points = project(vertices_map[:, inside].T.astype(np.float64), pose.astype(np.float64), position.astype(np.float64))
    points[:, 2] -= points[:, 2].min()
    placed = np.zeros((*inside.shape, 3), np.float32)
    placed[inside] = points
    return placed


def read_position_map(path: Path) -> np.ndarray:
    """Read a position map of any of the three programs.

    Parameters
    ----------
    path : Path
        A ``.npy`` file.

    Returns
    -------
    np.ndarray
        (S, S, 3) float32, see above. FileNotFoundError if there is no such file.

    Raises
    ------
    ValueError
        If it holds another array, or what is not finite.
    """
    try:
        found = read_npy(path)
    except ValueError as error:
        raise ValueError(f"{path} must hold a position map, but cannot be read ({error})") from error
    if found.ndim != 3 or found.shape[0] != found.shape[1] or found.shape[2] != 3 or len(found) > MOST_TEXELS:
        raise ValueError(
            f"{path} must hold a position map of shape (S, S, 3), S at most {MOST_TEXELS}, got {found.shape}; save it "
            "with its channels last"
        )
    if not (found.dtype.kind == "f" and np.isfinite(found).all()):
        raise ValueError(f"{path} must hold finite floats, pixels of the crop, and holds others; get a complete copy")
    return found.astype(np.float32)


def position_map_beside(photo: Path) -> Path:
    """Return the position map of a photo; FileNotFoundError if there is none."""
    files = [photo.with_name(photo.stem + ending) for ending in ENDINGS]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{photo.name} has no position map; put {files[0].name} or {files[1].name} beside it")
    return found


def vertices_in_crop(placed: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Read a position map at vertices.

    Parameters
    ----------
    placed : np.ndarray
        (S, S, 3) position map.
    uv : np.ndarray
        (V, 2) in [0, 1], v up, of the chart that the map is in.

    Returns
    -------
    np.ndarray
        (V, 3) float32 x, y, z in crop pixels.
    """
    size = len(placed)
    texels, weights = bilinear_taps(uv * [1, -1] * (size - 1) + [0, size - 1], size, size)
    return (placed.reshape(-1, 3)[texels] * weights[..., None]).sum(1)


def landmark_texels(uv: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """Return the (2, 68) int columns, then rows, of the texels nearest to the landmarks, as PRNet keeps them."""
    column, row = (uv[landmarks] * [1, -1] * (size - 1) + [0, size - 1]).T
    return np.rint([column, row]).astype(int)


def read_landmark_texels(path: Path) -> np.ndarray:
    """Read where the 68 landmarks lie in position maps.

    Parameters
    ----------
    path : Path
        Text of two lines of 68 numbers: columns, rows; PRNet's ``uv_kpt_ind.txt``.

    Returns
    -------
    np.ndarray
        (2, 68) int.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    try:
        rows = [line.split() for line in Path(path).read_text(errors="replace").splitlines() if line.strip()]
        found = np.array(rows, np.float64)
    except ValueError as error:
        raise ValueError(f"{path} must hold two lines of 68 numbers, and cannot be read ({error})") from error
    if found.shape != (2, 68) or not ((found >= 0) & (found < MOST_TEXELS)).all():
        raise ValueError(
            f"{path} must hold two lines of 68 texels, columns and rows, got shape {found.shape}; give PRNet's "
            f"{LANDMARK_TEXELS}, or that of `dualface export --to prnet`"
        )
    return found.astype(int)


def landmarks_in_crop(placed: np.ndarray, texels: np.ndarray) -> np.ndarray:
    """Return the (68, 2) float64 landmarks, crop pixels, of a position map at (2, 68) texels of `landmark_texels`."""
    if texels.max() >= len(placed):
        raise ValueError(f"landmark texels must lie in the map of side {len(placed)}, got {texels.max()}")
    return placed[texels[1], texels[0], :2].astype(np.float64)
