"""Photos in, crops out and in again: plain JPEGs through libjpeg-turbo alone, all else through pillow.

Both decode to the same pixels, but pillow holds a photo in four bytes a pixel and copies it on the way.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from asmgen.rejection import SampleError
from asmgen.source_files import read_file

QUALITY = 96
"""Of crops. Below 96 libjpeg-turbo takes a coarser transform: 95 costs 1.8 dB on real crops, and saves no time."""

BATCH_PIXELS = 50_000_000
"""Photos of more pixels than this together are not held at once, but make a smaller batch."""

MAX_BYTES = 1 << 28
"""Of the file of a photo."""

MAX_SCANS = 64
"""Of a JPEG: a progressive one has about ten, and a small file of thousands takes hours to decode."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
"""Of photos, as pillow names them; others that it knows start programs (EPS) or are no photos."""

_START, _SCAN = b"\xff\xd8", 0xDA
_PROGRESSIVE = 0xC2
_PLAIN = {0xC0, 0xC1, _PROGRESSIVE, 0xC4, 0xDB, 0xDD, 0xE0, 0xE2, 0xED, 0xFE}
"""Segments that say nothing of how the pixels are to be turned or coloured: frame, tables, JFIF, profile, comment."""
_CHANNELS = {"YCbCr": 3, "Gray": 1}
_DAMAGED = (
    OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, EOFError, struct.error, zlib.error,
)
"""What pillow raises for one damage or another."""


def read_photo(path: Path) -> np.ndarray:
    """Return a photo as RGB, upright by its EXIF tag.

    Parameters
    ----------
    path : Path
        One of `FORMATS`, whatever its name says. Of 16 bits the upper 8 are taken, of several pictures the first;
        transparency plays no part.

    Returns
    -------
    np.ndarray
        (H, W, 3) uint8.

    Raises
    ------
    SampleError
        If the file is unreadable, damaged, no photo, or larger than `MAX_BYTES` or pillow's decompression limit.
    """
    path = Path(path)
    try:
        data = read_file(path, MAX_BYTES)
    except ValueError as error:
        raise SampleError("unreadable image", f"{path.name}: {error}") from error
    return decode_photo(data, path.name)


def decode_photo(data: bytes, name: str) -> np.ndarray:
    """Return the content of a photo's file as `read_photo` does, whose errors use the name."""
    pixels = _plain_jpeg(data)
    return _any_photo(data, name) if pixels is None else pixels


def encode_image(crop: np.ndarray) -> bytes:
    """Return a (H, W, 3) uint8 crop as JPEG bytes, quality 96 with full-resolution colour."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(crop), QUALITY, colorspace="RGB", colorsubsampling="444")


def decode_image(data: bytes) -> np.ndarray:
    """Return JPEG bytes as (H, W, 3) uint8 RGB; ValueError if they are damaged or claim an alarming size."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    if height * width > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise ValueError(f"a stored image must have at most {Image.MAX_IMAGE_PIXELS} pixels, got {width}x{height}")
    return simplejpeg.decode_jpeg(data, "RGB")


def _plain_jpeg(data: bytes) -> np.ndarray | None:
    """The pixels of a whole, upright, grey or YCbCr JPEG of no alarming size or number of scans; None for all that
    pillow must judge."""
    if not data.startswith(_START):
        return None
    segments, channels = _segments(data)
    if not segments <= _PLAIN or _PROGRESSIVE in segments and _scans(data) > MAX_SCANS:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if _CHANNELS.get(colours) != channels or height * width > (Image.MAX_IMAGE_PIXELS or np.inf):
            return None
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None


def _segments(data: bytes) -> tuple[set[int], int]:
    """The kinds of the segments of a JPEG before its first scan, and how many channels that has; 0 if none follows."""
    found, place = set(), len(_START)
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _SCAN:
        found.add(data[place + 1])
        place += 2 + int.from_bytes(data[place + 2:place + 4], "big")
    scan = data[place:place + 5]
    return found, scan[4] if scan.startswith(bytes([0xFF, _SCAN])) and len(scan) == 5 else 0


def _scans(data: bytes) -> int:
    """How many scans a JPEG has, at most; without the progressive ones, a scan of all channels is the only one."""
    return data.count(bytes([0xFF, _SCAN]))


def _any_photo(data: bytes, name: str) -> np.ndarray:
    """The pixels of a photo as pillow reads it."""
    if data.startswith(_START) and _scans(data) > MAX_SCANS:
        raise SampleError(
            "unreadable image", f"{name} must have at most {MAX_SCANS} scans, and has {_scans(data)}; save it anew"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what else is in the file than pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=FORMATS) as opened:
                ImageOps.exif_transpose(opened, in_place=True)  # of a large photo no copy that can be saved
                image = _eight_bits(opened)
                return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        most = Image.MAX_IMAGE_PIXELS
        raise SampleError(
            "image too large", f"{name} must have at most {most} pixels, and has more; make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise SampleError(
            "unreadable image", f"{name} must be a picture ({', '.join(FORMATS)}), and is none; replace or remove it"
        ) from error
    except _DAMAGED as error:
        raise SampleError(
            "unreadable image", f"{name} cannot be decoded ({error}); replace or remove it"
        ) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16 grey bits by the upper ones, where pillow takes the lower ones and cuts them off at 255."""
    if image.mode.startswith("I;16") or image.mode == "I" and image.format == "PNG":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"channels must have 8 or 16 bits, got 32 (mode {image.mode})")
    return image
