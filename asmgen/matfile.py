"""Read numbers and texts from Matlab v5-v7 files without trusting them.

`scipy.io.loadmat` reads the same files, but a flipped byte in one can end the process (scipy 1.17 dies of a
segmentation fault on damaged type codes), and a dataset of 60,000 downloaded files has damaged ones. Here any
damage is a ValueError. Structs, cells, sparse and complex arrays are passed over.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from asmgen.source_files import read_file

MAX_BYTES = 1 << 24
"""Of a file, of all its arrays decompressed, and of an array returned; an annotation has a few thousand."""

_FLAGS, _DIMS, _MATRIX, _COMPRESSED = 6, 5, 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1",
           17: "u2"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CLASSES = {number: np.dtype(name) for number, name in _CLASSES.items()}
_DTYPES = {(order, number): np.dtype(order + name) for order in "<>" for number, name in _STORED.items()}
_TEXT_CLASS = 4
_COMPLEX_FLAG = 0x0800
_TAGS = {order: struct.Struct(f"{order}II") for order in "<>"}
_HEADS = {order: struct.Struct(f"{order}6I") for order in "<>"}  # of an array, up to its shape


def read_mat(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray | str]:
    """Return the arrays and texts of these names that a file holds.

    Parameters
    ----------
    path : Path
        A Matlab v5, v6 or v7 file.
    keys : tuple[str, ...]
        Names wanted; one that the file lacks, or holds as something else than numbers or text, is left out.

    Returns
    -------
    dict[str, np.ndarray | str]
        Arrays of the stored class and shape (2-D or more), texts as one string.

    Raises
    ------
    ValueError
        If the file is of another kind, larger than `MAX_BYTES`, truncated or damaged.
    """
    data = read_file(path, MAX_BYTES)
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no Matlab v5-v7 file; save it with -v7")
    order = "<" if data[126:128] == b"IM" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 124)
    if version == 0x0200:
        raise ValueError("it is a Matlab v7.3 file; save it with -v7")
    found, left = {}, MAX_BYTES
    try:
        offset = 128
        while offset < len(data):
            kind, content, offset = _element(data, offset, order)
            if kind == _COMPRESSED:
                content = _decompressed(content, left)
                left -= len(content)
                kind, content, _ = _element(content, 0, order)
            if kind != _MATRIX:
                raise ValueError(f"an array was expected, got type {kind}")
            name, value = _array(content, order, keys)
            if value is not None:
                found[name] = value
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"it is truncated or damaged ({error}); get a complete copy") from error
    return found


def _decompressed(content: bytes, most: int) -> bytes:
    """A whole stream of at most so many bytes."""
    stream = zlib.decompressobj()
    data = stream.decompress(content, most + 1)
    if not stream.eof or len(data) > most:
        raise ValueError(f"an array ends early, or all have more than {MAX_BYTES} bytes")
    return data


def _element(data: bytes, offset: int, order: str) -> tuple[int, bytes, int]:
    """Type, content and end of the element at an offset."""
    kind, size = _TAGS[order].unpack_from(data, offset)
    if kind > 0xFFFF:  # up to four bytes, packed into the tag
        kind, size, start, end = kind & 0xFFFF, kind >> 16, offset + 4, offset + 8
        if size > 4:
            raise ValueError(f"a packed element of {size} bytes")
    else:
        start = offset + 8
        end = start + size + (-size % 8 if kind != _COMPRESSED else 0)
    if start + size > len(data):
        raise ValueError(f"{size} bytes were expected, got {len(data) - start}")
    return kind, data[start:start + size], end


def _array(content: bytes, order: str, keys: tuple[str, ...]) -> tuple[str, np.ndarray | str | None]:
    """Name and value of an array; the value is None where it is not wanted or not plain."""
    flags_type, flags_size, flags, _, dims_type, dims_size = _HEADS[order].unpack_from(content)
    if (flags_type, flags_size, dims_type) != (_FLAGS, 8, _DIMS):
        raise ValueError(f"an array was expected, got one that begins with types {flags_type} and {dims_type}")
    _, name, offset = _element(content, 24 + dims_size + -dims_size % 8, order)
    name = name.decode("latin-1")
    array_class = flags & 0xFF
    if name not in keys or flags & _COMPLEX_FLAG or not (array_class == _TEXT_CLASS or array_class in _CLASSES):
        return name, None
    stored, values, _ = _element(content, offset, order)
    if stored not in _STORED:
        raise ValueError(f"{name} is stored as unknown type {stored}")
    if array_class == _TEXT_CLASS:
        encoding = {4: "utf-16", 16: "utf-8", 17: "utf-16"}.get(stored, "latin-1")
        return name, values.decode(encoding + {"<": "-le", ">": "-be"}[order] if encoding == "utf-16" else encoding)
    shape = struct.unpack_from(f"{order}{dims_size // 4}i", content, 24)
    values = np.frombuffer(values, _DTYPES[order, stored])
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} has shape {shape}")
    if values.dtype != _CLASSES[array_class]:  # stored in fewer bytes, or swapped
        with np.errstate(all="ignore"):
            values = values.astype(_CLASSES[array_class])
    return name, values.reshape(shape, order="F")
