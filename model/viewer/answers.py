"""What the server sends: JSON, pictures, arrays, and files that lie below a folder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

TYPES = {
    ".png": "image/png", ".gif": "image/gif", ".glb": "model/gltf-binary", ".obj": "text/plain; charset=utf-8",
    ".mtl": "text/plain; charset=utf-8", ".ply": "application/octet-stream", ".json": "application/json",
}
"""Content types of the files that are sent, by suffix; no other file is."""


class NotFound(Exception):
    """Nothing is here; the text says what was asked for."""


class Answer(NamedTuple):
    """A content type, and the bytes."""

    content_type: str
    body: bytes


Route = Callable[..., Answer]
"""Given the query, texts by name, and the groups of a pattern."""


class View(Protocol):
    """What a page is about.

    Attributes
    ----------
    routes : dict[str, Route]
        By pattern of the path without its first slash: what answers, from several threads. ``api/view`` is a JSON whose
        ``kind`` tells the page what to draw.
    """

    routes: dict[str, Route]


def json_answer(value: object) -> Answer:
    """Return JSON; ValueError for a number that is not finite."""
    return Answer("application/json", json.dumps(value, allow_nan=False).encode())


def png_answer(picture: Image.Image) -> Answer:
    """Return a picture as PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)  # it goes no further than this machine
    return Answer("image/png", file.getvalue())


def array_answer(*arrays: np.ndarray) -> Answer:
    """Return the values of arrays of 4 bytes a value, one array after the other, little-endian."""
    parts = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in arrays]
    return Answer("application/octet-stream", b"".join(parts))


def file_answer(root: Path, name: str) -> Answer:
    """Return a file below a folder.

    Parameters
    ----------
    root : Path
        The folder.
    name : str
        Path of the file from there, with slashes.

    Returns
    -------
    Answer
        Its bytes.

    Raises
    ------
    NotFound
        If there is none, it is of no type in `TYPES`, or its path or a link on it leads out of the folder.
    """
    path = Path(root, name).resolve()
    if not path.is_relative_to(root.resolve()) or path.suffix not in TYPES or not path.is_file():
        raise NotFound(f"no file {name}")
    return Answer(TYPES[path.suffix], path.read_bytes())
