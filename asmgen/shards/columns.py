"""The columns of a shard being written: arrays, and values of any length."""

from __future__ import annotations

from collections.abc import Iterable

import h5py
import numpy as np

from asmgen.shards.files import SMALL_CHUNK
from asmgen.shards.packing import DIFFERENCES, GZIP, deflated_differences, fletcher32
from bfm.hdf5_file import set_attribute

_BUFFER = 64 * SMALL_CHUNK  # bytes kept of a ragged column


class ArrayColumn:
    """A large array of each sample, in a chunk of its own.

    Parameters
    ----------
    group : h5py.Group
        Where it is made.
    key : str
        Its name.
    first : np.ndarray
        The value of the first sample, for shape and type; it is not written.
    packing : str
        One of `asmgen.shards.packing.PACKINGS`.

    Attributes
    ----------
    as_differences : bool
        Whether readers have to undo differences.
    """

    def __init__(self, group: h5py.Group, key: str, first: np.ndarray, packing: str):
        self.as_differences, self._packing, self._count = packing == "small", packing, 0
        self._chunk = memoryview(bytearray(first.nbytes + 4))  # a value and its checksum
        self._dataset = group.create_dataset(
            key, (0, *first.shape), first.dtype, maxshape=(None, *first.shape), chunks=(1, *first.shape),
            fletcher32=True, **({} if packing == "none" else GZIP),
        )
        if self.as_differences:
            self._dataset.attrs[DIFFERENCES] = 1

    def append(self, value: np.ndarray) -> None:
        """Write the value of the next sample; nothing of it is kept."""
        row = self._count
        self._count += 1
        self._dataset.id.set_extent((self._count, *value.shape))
        if self._packing == "gzip":
            self._dataset[row] = value
        else:  # past HDF5's filters, which copy a chunk twice
            chunk = deflated_differences(value) if self.as_differences else self._checked(value)
            self._dataset.id.write_direct_chunk((row, *[0] * value.ndim), chunk)

    def _checked(self, value: np.ndarray) -> memoryview:
        """The chunk of a value as it is, in memory that is used again."""
        content, checksum = self._chunk[:-4], self._chunk[-4:]
        np.frombuffer(content, value.dtype).reshape(value.shape)[:] = value
        checksum[:] = fletcher32(content).to_bytes(4, "little")
        return self._chunk

    def finish(self) -> None:
        """Everything is written."""


class RaggedColumn:
    """Bytes or texts of any length, joined, with the offset of each; about a megabyte is kept.

    Parameters
    ----------
    group : h5py.Group
        Where it is made.
    key : str
        Its name.
    text : bool
        Whether the values are str.

    Attributes
    ----------
    as_differences : bool
        False.
    """

    as_differences = False

    def __init__(self, group: h5py.Group, key: str, text: bool):
        self._group = group.create_group(key)
        set_attribute(self._group, "type", "text" if text else "bytes")
        self._offsets: list[int] = [0]
        self._left: list[bytes] = []
        self._size = 0  # bytes left

    def append(self, value: bytes | str) -> None:
        """Take the next value, and write what fills chunks."""
        blob = value.encode() if isinstance(value, str) else value
        self._offsets.append(self._offsets[-1] + len(blob))
        self._left.append(blob)
        self._size += len(blob)
        if self._size >= _BUFFER:
            self._write(self._size // SMALL_CHUNK * SMALL_CHUNK)

    def finish(self) -> None:
        """Write the rest."""
        if "bytes" in self._group:
            self._write(self._size)
        else:
            write_array(self._group, "bytes", np.frombuffer(b"".join(self._left), np.uint8))
        write_array(self._group, "offsets", np.array(self._offsets, np.int64))

    def _write(self, count: int) -> None:
        """Move the first bytes that are left to the file."""
        if "bytes" not in self._group:
            self._group.create_dataset(
                "bytes", (0,), np.uint8, maxshape=(None,), chunks=(SMALL_CHUNK,), fletcher32=True
            )
        column, joined = self._group["bytes"], b"".join(self._left)
        column.resize(len(column) + count, axis=0)
        column[len(column) - count:] = np.frombuffer(joined, np.uint8, count)
        self._left, self._size = [joined[count:]], self._size - count


def write_array(group: h5py.Group, key: str, array: np.ndarray, compress: bool = False) -> None:
    """Write a whole array with checksums, in chunks of some rows (HDF5 has no chunks for an empty one)."""
    if array.size == 0 or array.ndim == 0:
        group.create_dataset(key, data=array)
        return
    rows = min(len(array), max(1, SMALL_CHUNK * len(array) // array.nbytes))
    options = GZIP if compress and array.dtype.kind in "biu" else {}
    group.create_dataset(key, data=array, chunks=(rows, *array.shape[1:]), fletcher32=True, **options)


def write_ragged(group: h5py.Group, key: str, values: Iterable[bytes] | Iterable[str], text: bool) -> None:
    """Write bytes or texts that are at hand."""
    column = RaggedColumn(group, key, text)
    for value in values:
        column.append(value)
    column.finish()
