"""Files of a dataset that is made here: whole or absent, and the same bytes for the same contents."""

from __future__ import annotations

import io
import os
from pathlib import Path

import scipy.io
from PIL import Image

JPEG_QUALITY = 95
_MAT_HEADER = b"MATLAB 5.0 MAT-file, a dualface synthetic sample".ljust(116)


def check_numbers(**wanted: tuple[float, float]) -> None:
    """Raise ValueError if one of some numbers, given as ``name=(value, least)``, is less."""
    for name, (value, least) in wanted.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def new_folder(path: Path) -> Path:
    """Make a folder for a dataset and return it; FileExistsError if it exists and holds anything."""
    path = Path(path)
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(f"{path} already holds files; choose an empty folder")
    path.mkdir(parents=True, exist_ok=True)
    return path


def jpeg_bytes(picture: Image.Image) -> bytes:
    """A picture as a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that exists only when whole, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def mat_bytes(arrays: dict) -> bytes:
    """A `.mat` file without the date that scipy writes into the header."""
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return _MAT_HEADER + file.getvalue()[len(_MAT_HEADER):]
