"""Landmarks from files: the 68 of a photo (300-W's ``.pts``, 300W-LP's ``_pts.mat``, a plain table), and lists with a
row a photo, as CelebA's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asmgen.matfile import read_mat
from asmgen.source_files import read_file
from bfm.npy_file import read_npy

ENDINGS = ("_pts.mat", ".pts", ".mat", ".npy", ".txt")
"""What a photo's name may end in, in place of its suffix, to name its landmarks; the first that exists is taken."""

_MAX_BYTES = 1 << 16  # of 68 points as text
_MAT_KEYS = ("pts_3d", "pt3d_68", "pt2d", "pts_2d")


def read_landmarks(path: Path) -> np.ndarray:
    """Read 68 landmarks, whatever the file counts from.

    Parameters
    ----------
    path : Path
        ``.pts`` and ``.mat`` (``pts_3d``, ``pt3d_68``, ``pt2d`` or ``pts_2d``; the first found) count pixels from 1;
        ``.npy`` and text (68 lines of x and y, comma or space) count from 0.

    Returns
    -------
    np.ndarray
        (68, 2) float64 x, y, 0-based pixels with centres at whole numbers.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it does not hold 68 points.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a file of 68 landmarks (.pts, .mat, .npy, .txt)")
    reader = {".pts": _read_pts, ".mat": _read_mat, ".npy": read_npy}.get(path.suffix.lower(), _read_text)
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused below
            points = np.asarray(reader(path), np.float64)
    except ValueError as error:
        raise ValueError(f"{path} must hold 68 landmarks, but cannot be read ({error})") from error
    if points.shape != (68, 2) or not np.isfinite(points).all():
        found = "NaN or infinity" if points.shape == (68, 2) else f"shape {points.shape}"
        raise ValueError(f"{path} must hold 68 finite points (68, 2), got {found}; get a complete copy")
    return points


def read_list(path: Path, widths: Sequence[int]) -> tuple[list[str], np.ndarray]:
    """Read a list of photos with numbers: CelebA's landmark list, its CSV copies, or any table of that form.

    Parameters
    ----------
    path : Path
        A row a photo: its name, then the numbers, separated by commas or, where there are none, by white space. Lines
        before the first such row (a count, a header) are passed over.
    widths : Sequence[int]
        How many numbers a row may hold; all rows hold the same.

    Returns
    -------
    tuple[list[str], np.ndarray]
        N names, and (N, K) float32.

    Raises
    ------
    ValueError
        If a row is of another form, or there is none.
    """
    text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    comma = bool(lines) and "," in lines[-1]
    rows = [[cell.strip() for cell in line.split(",")] if comma else line.split() for line in lines]
    start = next((number for number, row in enumerate(rows) if _are_numbers(row[1:])), len(rows))
    rows = rows[start:]
    wanted = " or ".join(map(str, widths))
    if not rows:
        raise ValueError(f"{path} must hold rows of a photo's name and {wanted} numbers, and holds none")
    width = len(rows[0]) - 1
    for row in rows:
        if width not in widths or len(row) != width + 1:
            raise ValueError(f"{path} must hold a name and {wanted} numbers in every row, got {' '.join(row)[:60]!r}")
    try:
        return [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)
    except ValueError as error:
        raise ValueError(f"{path} must hold numbers after the names ({error})") from error


def _are_numbers(cells: list[str]) -> bool:
    """Whether there are cells, and all are numbers."""
    try:
        return len([float(cell) for cell in cells]) > 0
    except ValueError:
        return False


def _read_pts(path: Path) -> np.ndarray:
    text = read_file(path, _MAX_BYTES).decode(errors="replace")
    if "{" not in text:
        raise ValueError("there is no { before the points")
    return np.array(text.partition("{")[2].partition("}")[0].split(), np.float64).reshape(-1, 2) - 1


def _read_mat(path: Path) -> np.ndarray:
    arrays = read_mat(path, _MAT_KEYS)
    for key in _MAT_KEYS:
        points = np.asarray(arrays.get(key, ()))
        if points.shape in ((68, 2), (2, 68), (3, 68)):
            return (points if points.shape == (68, 2) else points[:2].T) - 1.0
    raise ValueError(f"there is none of {', '.join(_MAT_KEYS)} with 68 points")


def _read_text(path: Path) -> np.ndarray:
    lines = read_file(path, _MAX_BYTES).decode(errors="replace").replace(",", " ").splitlines()
    return np.array([line.split() for line in lines if line.strip()], np.float64)
