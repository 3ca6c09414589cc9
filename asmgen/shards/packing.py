"""How large arrays of whole numbers are stored; what is stored here, any program that has HDF5 can read.

``none``   as they are, for speed.
``gzip``   HDF5's own: the bytes of a kind together (shuffle), then deflate. For masks and the like.
``small``  each row as its difference from the row above, modulo the range of the type; then the same stream of bytes
           as ``gzip``, which igzip makes in less than half the time. For smooth maps; `undo_differences` is all a
           reader needs.
"""

from __future__ import annotations

import numpy as np
from isal import isal_zlib

PACKINGS = ("none", "gzip", "small")
DIFFERENCES = "row_differences"
"""Attribute, 1, of an array that holds differences."""

GZIP = {"shuffle": True, "compression": "gzip", "compression_opts": 1}

_GROUP = 16  # rows
_ROW = 256  # words of a checksum: the sums of so many are exact in float32
_ONES, _TO_END = np.ones(_ROW, np.float32), np.arange(_ROW, 0, -1)


def undo_differences(values: np.ndarray) -> np.ndarray:
    """Return arrays, (..., rows, columns), from the differences of their rows: their running sum.

    Sums within groups of rows, all groups at once, then from group to group: less than half the time of `np.cumsum`.
    """
    rows = values.copy()
    for row in range(1, _GROUP):
        below = rows[..., row::_GROUP, :]
        below += rows[..., row - 1::_GROUP, :][..., :below.shape[-2], :]
    for row in range(_GROUP, rows.shape[-2], _GROUP):
        rows[..., row:row + _GROUP, :] += rows[..., row - 1:row, :]
    return rows


def inflated(stream: bytes, shape: tuple[int, ...], dtype: np.dtype, deflated: bool) -> np.ndarray:
    """Return the values that HDF5's shuffle and, unless it was passed over, deflate made a stream of bytes of.

    OSError if they do not fill the shape; a stream of more is left when it is full.
    """
    values = np.empty(shape, dtype)
    if deflated:
        unpacking = isal_zlib.decompressobj()
        try:
            stream = unpacking.decompress(stream, values.nbytes + 1)
        except isal_zlib.error as error:  # type: ignore[misc]  # isal's types take it for a function
            raise OSError(f"a chunk cannot be unpacked: {error}") from error
        if not unpacking.eof:
            raise OSError(f"a chunk does not unpack to its {values.nbytes} bytes")
    if len(stream) != values.nbytes:
        raise OSError(f"a chunk has {len(stream)} bytes and not {values.nbytes}")
    for place, plane in enumerate(np.frombuffer(stream, np.uint8).reshape(dtype.itemsize, -1)):
        values.reshape(-1, 1).view(np.uint8)[:, place] = plane
    return values


def deflated_differences(value: np.ndarray) -> bytes:
    """Return what HDF5's shuffle, deflate and fletcher32 filters make of the differences of rows."""
    differences = np.diff(value, axis=-2, prepend=value.dtype.type(0))
    planes = differences.reshape(-1, 1).view(np.uint8).T
    stream = isal_zlib.compress(np.ascontiguousarray(planes), 1)
    return checked(stream)


def checked(data: bytes) -> bytes:
    """Return bytes with their checksum, as HDF5's fletcher32 filter does."""
    return data + fletcher32(data).to_bytes(4, "little")


def fletcher32(data: bytes | memoryview) -> int:
    """Return HDF5's checksum of bytes: the sum of their big-endian 16-bit words, and the sum of its partial sums.

    Both are modulo 65535, and 65535 stands for 0 unless all words are 0. Modulo 65535, to swap the bytes of a word, or
    of a sum of words, is to multiply it by 256; so little-endian ones are summed. A word is in as many partial sums as
    there are words from it to the end, and its row and its column tell how many: sums of rows and columns are enough.
    """
    lacking, height = -len(data) % 2, min(_ROW, -(-len(data) // (2 * _ROW)) or 1)
    before = -(len(data) + lacking) % (2 * _ROW * height)  # zeros in front change nothing
    whole = b"".join((bytes(before), data, bytes(lacking))) if before or lacking else data
    blocks = np.frombuffer(whole, "<u2").reshape(-1, height, _ROW).astype(np.float32)
    rows = (blocks @ _ONES).astype(np.int64).ravel()
    columns = (_ONES[:height] @ blocks).astype(np.int64).sum(axis=0)
    low = int(columns.sum())
    high = _ROW * int(np.arange(len(rows) - 1, -1, -1) @ rows) + int(_TO_END @ columns)
    low, high = (total and (256 * total - 1) % 65535 + 1 for total in (low, high))
    return high << 16 | low
