"""Read numbers, texts and structs from Matlab v5-v7 files without trusting them.

`scipy.io.loadmat` reads the same files, but a flipped byte in one can end the process (scipy 1.17 dies of a
segmentation fault on damaged type codes), and a dataset of 60,000 downloaded files has damaged ones. Here any
damage is a ValueError. Cells, sparse and complex arrays, and structs in structs are passed over.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection
from typing import TypeAlias

import numpy as np

_FLAGS, _DIMS, _MATRIX, _COMPRESSED = 6, 5, 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1",
           17: "u2"}
_CLASSES = dict(enumerate(map(np.dtype, ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")), start=6))
_DTYPES = {(order, number): np.dtype(order + name) for order in "<>" for number, name in _STORED.items()}
_STRUCT_CLASS, _TEXT_CLASS = 2, 4
_COMPLEX_FLAG = 0x0800
_TAGS = {order: struct.Struct(f"{order}II") for order in "<>"}
_HEADS = {order: struct.Struct(f"{order}6I") for order in "<>"}  # of an array, up to its shape

Value: TypeAlias = "np.ndarray | str | dict[str, Value] | None"


class _Room:
    """Bytes of memory that may be taken."""

    def __init__(self, most: int):
        self.most = self.left = most

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError(f"all its arrays have more than {self.most} bytes")


def parse_mat(data: bytes, most: int, keys: Collection[str] | None = None) -> dict[str, Value]:
    """Return what a file holds.

    Parameters
    ----------
    data : bytes
        The whole of a Matlab v5, v6 or v7 file.
    most : int
        Bytes that all arrays together may have decompressed, or in more bytes each than they are stored in.
    keys : Collection[str] | None
        Names wanted; None is all.

    Returns
    -------
    dict[str, Value]
        By the names of all that is in the file: arrays of the stored class and shape (2-D or more; they may not be
        written to), texts as one string, a struct as its fields; None for what is not wanted or is something else.

    Raises
    ------
    ValueError
        If the file is of another kind, truncated or damaged.
    """
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no Matlab v5-v7 file; save it with -v7")
    order = "<" if data[126:128] == b"IM" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 124)
    if version == 0x0200:
        raise ValueError("it is a Matlab v7.3 file; save it with -v7")
    found: dict[str, Value] = {}
    room, offset, whole = _Room(most), 128, memoryview(data)
    try:
        while offset < len(whole):
            kind, content, offset = _element(whole, offset, order)
            if kind == _COMPRESSED:
                content = _decompressed(content, room)
                kind, content, _ = _element(content, 0, order)
            if kind != _MATRIX:
                raise ValueError(f"an array was expected, got type {kind}")
            name, value = _array(content, order, room, keys)
            found[name] = value
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"it is truncated or damaged ({error}); get a complete copy") from error
    return found


def _decompressed(content: memoryview, room: _Room) -> memoryview:
    """A whole stream."""
    stream = zlib.decompressobj()
    data = stream.decompress(content, room.left + 1)
    room.take(len(data))
    if not stream.eof:
        raise ValueError("an array ends early")
    return memoryview(data)


def _element(data: memoryview, offset: int, order: str) -> tuple[int, memoryview, int]:
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


def _array(
    content: memoryview, order: str, room: _Room, keys: Collection[str] | None, is_field: bool = False
) -> tuple[str, Value]:
    """Name and value of an array; the value is None where it is not wanted or is something else."""
    flags_type, flags_size, flags, _, dims_type, dims_size = _HEADS[order].unpack_from(content)
    if (flags_type, flags_size, dims_type) != (_FLAGS, 8, _DIMS):
        raise ValueError(f"an array was expected, got one that begins with types {flags_type} and {dims_type}")
    _, name, offset = _element(content, 24 + dims_size + -dims_size % 8, order)
    name = str(name, "latin-1")
    array_class = flags & 0xFF
    if keys is not None and name not in keys or flags & _COMPLEX_FLAG:
        return name, None
    shape = struct.unpack_from(f"{order}{dims_size // 4}i", content, 24)
    if array_class == _STRUCT_CLASS and set(shape) == {1} and not is_field:
        return name, _fields(content, offset, order, room)
    if array_class != _TEXT_CLASS and array_class not in _CLASSES:
        return name, None
    stored, values, _ = _element(content, offset, order)
    if stored not in _STORED:
        raise ValueError(f"{name} is stored as unknown type {stored}")
    if array_class == _TEXT_CLASS:
        encoding = {4: "utf-16", 16: "utf-8", 17: "utf-16"}.get(stored, "latin-1")
        return name, str(values, encoding + {"<": "-le", ">": "-be"}[order] if encoding == "utf-16" else encoding)
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} has shape {shape}")
    values = np.frombuffer(values, _DTYPES[order, stored])
    dtype = _CLASSES[array_class]
    if values.dtype != dtype:  # stored in fewer bytes, or swapped
        room.take(values.size * dtype.itemsize)
        with np.errstate(all="ignore"):
            values = values.astype(dtype)
    return name, values.reshape(shape, order="F")


def _fields(content: memoryview, offset: int, order: str, room: _Room) -> dict[str, Value]:
    """The fields of a struct: the length that their names are padded to, these, and an array each."""
    _, length, offset = _element(content, offset, order)
    (length,) = struct.unpack(f"{order}i", length)
    _, names, offset = _element(content, offset, order)
    if length < 1 or len(names) % length:
        raise ValueError(f"a struct whose names of {len(names)} bytes are padded to {length}")
    found: dict[str, Value] = {}
    for start in range(0, len(names), length):
        kind, field, offset = _element(content, offset, order)
        if kind != _MATRIX:
            raise ValueError(f"an array was expected, got type {kind}")
        name = str(names[start:start + length], "latin-1").split("\0")[0]
        # Matlab leaves out all of what is empty
        found[name] = _array(field, order, room, None, is_field=True)[1] if field else np.empty((0, 0))
    return found
