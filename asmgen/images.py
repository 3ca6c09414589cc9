"""Photos in, crops out and in again: plain JPEGs through libjpeg-turbo alone, all else through pillow.

Both decode to the same pixels, but pillow holds a photo in four bytes a pixel and copies it on the way.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from asmgen.rejection import SampleError

QUALITY = 96
"""Of crops. Below 96 libjpeg-turbo takes a coarser transform: 95 costs 1.8 dB on real crops, and saves no time."""

BATCH_PIXELS = 50_000_000
"""Photos of more pixels than this together are not held at once, but make a smaller batch."""

_START, _SCAN = b"\xff\xd8", 0xDA
_PLAIN = {0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, 0xE2, 0xED, 0xFE}
"""Segments that say nothing of how the pixels are to be turned or coloured: frame, tables, JFIF, profile, comment."""


def read_photo(path: Path) -> np.ndarray:
    """Return a photo as RGB, upright by its EXIF tag.

    Parameters
    ----------
    path : Path
        Any format that pillow reads.

    Returns
    -------
    np.ndarray
        (H, W, 3) uint8.

    Raises
    ------
    SampleError
        If the file is unreadable, truncated, or larger than pillow's decompression limit.
    """
    try:
        pixels = _plain_jpeg(path.read_bytes())
    except OSError as error:
        raise SampleError("unreadable image", f"{path.name}: {error}") from error
    return _any_photo(path) if pixels is None else pixels


def encode_image(crop: np.ndarray) -> bytes:
    """Return a (H, W, 3) uint8 crop as JPEG bytes, quality 96 with full-resolution colour."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(crop), QUALITY, colorspace="RGB", colorsubsampling="444")


def decode_image(data: bytes) -> np.ndarray:
    """Return JPEG bytes as (H, W, 3) uint8 RGB."""
    return simplejpeg.decode_jpeg(data, "RGB")


def _plain_jpeg(data: bytes) -> np.ndarray | None:
    """The pixels of a whole, upright, grey or YCbCr JPEG of no alarming size; None for all that pillow must judge."""
    if not (data.startswith(_START) and _segments(data) <= _PLAIN):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray") or height * width > (Image.MAX_IMAGE_PIXELS or np.inf):
            return None
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None


def _segments(data: bytes) -> set[int]:
    """The kinds of the segments of a JPEG before its scan."""
    found, place = set(), len(_START)
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _SCAN:
        found.add(data[place + 1])
        place += 2 + int.from_bytes(data[place + 2:place + 4], "big")
    return found


def _any_photo(path: Path) -> np.ndarray:
    """The pixels of a photo as pillow reads it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                return np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    except Image.DecompressionBombWarning as error:
        raise SampleError("image too large", f"{path.name}: {error}") from error
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
        raise SampleError("unreadable image", f"{path.name}: {error}") from error
