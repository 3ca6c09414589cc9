"""Frames of a video, without decoding the others: Motion JPEG as one file, or a folder of pictures."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asmgen.images import decode_photo, read_photo
from asmgen.sheets import evenly
from asmgen.w300lp import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".mjpg", ".mjpeg")

_START, _SCAN, _END = b"\xff\xd8\xff", 0xDA, b"\xff\xd9"


class Frame(NamedTuple):
    """A frame that is not decoded yet.

    Attributes
    ----------
    path : Path
        Its file; in ``folder/name.mjpg``, where frame 12 has none, ``folder/name/0012.jpg``: so landmark lists and
        files name it (`asmgen.locate.FaceLocator`).
    data : bytes | None
        A JPEG, where there is no file.
    """

    path: Path
    data: bytes | None = None

    def read(self) -> np.ndarray:
        """Return the frame, (H, W, 3) uint8 RGB; SampleError, a ValueError, if it cannot be decoded."""
        return read_photo(self.path) if self.data is None else decode_photo(self.data, f"frame {self.path.stem}")


def video_frames(video: Path, most: int) -> list[Frame]:
    """Return frames of a video, evenly spread over it.

    Parameters
    ----------
    video : Path
        ``.mjpg``: JPEGs one after the other, with anything between them; or a folder of pictures.
    most : int
        How many frames at most.

    Returns
    -------
    list[Frame]
        In order.

    Raises
    ------
    ValueError
        If there is no frame.
    """
    video = Path(video)
    if video.is_dir():
        pictures = sorted(path for path in video.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not pictures:
            raise ValueError(f"{video} holds no picture ({', '.join(IMAGE_SUFFIXES)})")
        return [Frame(pictures[index]) for index in evenly(len(pictures), most)]
    if not video.stat().st_size:
        raise ValueError(f"{video} is empty")
    with open(video, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        spans = _jpeg_spans(held)
        if not spans:
            raise ValueError(f"{video} must hold JPEGs one after the other, and holds none")
        name = video.with_suffix("")
        return [Frame(name / f"{k:04d}.jpg", held[spans[k][0]:spans[k][1]]) for k in evenly(len(spans), most)]


def _jpeg_spans(held: mmap.mmap) -> list[tuple[int, int]]:
    """First byte and end of each whole JPEG; their segments are walked, since thumbnails are JPEGs in JPEGs."""
    spans, start = [], held.find(_START)
    while start >= 0:
        place, marker = start + 2, 0
        while marker != _SCAN and place + 4 <= len(held) and held[place] == 0xFF:
            marker, place = held[place + 1], place + 2 + int.from_bytes(held[place + 2:place + 4], "big")
        end = held.find(_END, place)
        if end < 0:
            break
        if marker == _SCAN:
            spans.append((start, end + 2))
        start = held.find(_START, end + 2 if marker == _SCAN else start + 2)
    return spans
