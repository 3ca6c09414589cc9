"""The columns of an open shard, ready to be indexed by row. What the file says of their sizes is checked before any
memory is taken: a hole would read as zeros, and a few bytes can stand for any number.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, TypeAlias

import h5py
import numpy as np

from asmgen.shards.files import SMALL_CHUNK, items, subgroup
from asmgen.shards.packing import DIFFERENCES, fletcher32, inflated, undo_differences
from bfm.hdf5_file import attributes_of, member

_KEPT = 2**23  # bytes of a column of small values
_LARGEST = 2**28  # bytes of a compressed chunk, unpacked
_AS_IT_IS = (h5py.h5z.FILTER_FLETCHER32,)
_DEFLATED = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)
_UNDEFLATED = 1 << _DEFLATED.index(h5py.h5z.FILTER_DEFLATE)  # mask of a chunk that would have grown


class Ragged:
    """One ragged column of an open file."""

    def __init__(self, group: h5py.Group):
        arrays: list[Any] = [checked_array(member(group, key)) for key in ("bytes", "offsets")]
        if [getattr(array, "dtype", None) for array in arrays] != [np.uint8, np.int64] or arrays[1].ndim != 1:
            raise OSError(f"{group.name} does not hold bytes and their offsets")
        self._bytes, offsets = arrays[0], arrays[1][:]
        if not (offsets.size and offsets[0] == 0 and np.all(np.diff(offsets) >= 0)
                and self._bytes.shape == (offsets[-1],)):
            raise OSError(f"the offsets of {group.name} do not rise from 0 to the number of its bytes")
        self._offsets, self.is_text = offsets.tolist(), attributes_of(group)["type"] == "text"

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, rows: int | slice) -> bytes | str | list:
        if isinstance(rows, slice):
            return self._between(*rows.indices(len(self))[:2])
        return self._between(rows, rows + 1)[0]

    def _between(self, start: int, stop: int) -> list:
        """Values that follow one another, read at once."""
        offsets = self._offsets[start:stop + 1]
        joined = self._bytes[offsets[0]:offsets[-1]].tobytes()
        blobs = [joined[left - offsets[0]:right - offsets[0]] for left, right in zip(offsets, offsets[1:])]
        return [blob.decode() for blob in blobs] if self.is_text else blobs


class SmallValues:
    """One column of an open file with few bytes a sample: read whole at first use, which is as quick as one sample."""

    def __init__(self, dataset: h5py.Dataset):
        self._dataset = dataset

    @cached_property
    def _values(self) -> np.ndarray:
        return self._dataset[:]

    def __getitem__(self, rows: int | slice) -> np.ndarray:
        return self._values[rows].copy()


class Deflated:
    """One compressed array of an open file, unpacked here: igzip is faster than HDF5's zlib, and stops in time."""

    def __init__(self, dataset: h5py.Dataset):
        self.dataset, self._as_differences = dataset, DIFFERENCES in dataset.attrs

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, rows: int | slice) -> np.ndarray:
        step = self.dataset.chunks[0]
        if not isinstance(rows, slice):
            return self._chunk(rows - rows % step)[rows % step]
        start, stop, _ = rows.indices(len(self))
        first = start - start % step
        chunks = [self._chunk(row) for row in range(first, stop, step)]
        values = np.concatenate(chunks) if chunks else np.empty((0, *self.dataset.shape[1:]), self.dataset.dtype)
        return values[start - first:stop - first]

    def _chunk(self, row: int) -> np.ndarray:
        """The values of the chunk that begins with a row; OSError if they are not what was written."""
        mask, chunk = self.dataset.id.read_direct_chunk((row, *[0] * (self.dataset.ndim - 1)))
        if mask not in (0, _UNDEFLATED):
            raise OSError("a chunk was stored in another way")
        if fletcher32(memoryview(chunk)[:-4]) != int.from_bytes(chunk[-4:], "little"):
            raise OSError("the checksum of a chunk does not match its bytes")
        values = inflated(chunk[:-4], self.dataset.chunks, self.dataset.dtype, deflated=not mask)
        return undo_differences(values) if self._as_differences else values


Column: TypeAlias = "h5py.Dataset | Deflated | Ragged"


def checked_array(dataset: h5py.Dataset) -> h5py.Dataset | Deflated:
    """Return an array of numbers ready to be read; OSError unless it is stored whole, in this file, as shards are."""
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biuf":
        raise OSError(f"{dataset.name} is no array of numbers")
    stored, created = dataset.id.get_storage_size(), dataset.id.get_create_plist()
    if created.get_external_count() or dataset.is_virtual or stored > dataset.file.id.get_filesize():
        raise OSError(f"{dataset.name} is stored outside the file")
    if not dataset.chunks:
        if stored != dataset.nbytes:
            raise OSError(f"{dataset.name} is stored with {stored} bytes instead of {dataset.nbytes}")
        return dataset
    filters = tuple(created.get_filter(number)[0] for number in range(created.get_nfilters()))
    if filters not in (_AS_IT_IS, _DEFLATED) or dataset.chunks[1:] != dataset.shape[1:]:
        raise OSError(f"{dataset.name} is stored in another way than shards are")
    found, wanted = dataset.id.get_num_chunks(), -(-len(dataset) // dataset.chunks[0])
    if found != wanted:
        raise OSError(f"{dataset.name} is stored with {found} chunks instead of {wanted}")
    each = dataset.dtype.itemsize * math.prod(dataset.chunks)
    if filters == _DEFLATED:
        if each > _LARGEST:
            raise OSError(f"{dataset.name} has chunks of {each} bytes, more than {_LARGEST}")
        return Deflated(dataset)
    if stored != wanted * (each + 4):  # the checksum
        raise OSError(f"{dataset.name} is stored with {stored} bytes instead of {wanted * (each + 4)}")
    return dataset


def arrays_of(group: h5py.Group) -> dict[str, np.ndarray]:
    """Return the arrays of an open group, read, by name."""
    arrays = ((key, checked_array(item)) for key, item in items(group))
    return {key: array[:] if isinstance(array, Deflated) or array.ndim else array[()] for key, array in arrays}


def columns_of(file: h5py.File, key: str, count: int | None = None) -> dict[str, Column]:
    """Return the columns of a group of an open file by name; OSError if they are not of one length, or not `count`."""
    columns = {
        name: Ragged(item) if isinstance(item, h5py.Group) else checked_array(item)
        for name, item in items(subgroup(file, key))
    }
    for name, column in columns.items():
        length = len(column) if isinstance(column, (Ragged, Deflated)) or column.ndim else None
        count = length if count is None else count
        if length != count:
            raise OSError(f"{key}/{name} has {length} rows instead of {count}")
    return columns


def kind_of(column: Column) -> tuple:
    """What must be equal in all shards of a set."""
    if isinstance(column, Ragged):
        return ("text" if column.is_text else "bytes",)
    dataset = column.dataset if isinstance(column, Deflated) else column
    return dataset.dtype.str, dataset.shape[1:]


def for_random_reads(column: Column) -> Column | SmallValues:
    """Return a column that answers for single samples fast."""
    is_small = isinstance(column, h5py.Dataset) and column.nbytes <= min(_KEPT, SMALL_CHUNK * len(column))
    return SmallValues(column) if is_small else column


def is_large(column: Column) -> bool:
    """Whether a column holds large arrays, one a chunk."""
    dataset = column.dataset if isinstance(column, Deflated) else column
    if isinstance(dataset, Ragged) or not dataset.chunks or dataset.chunks[0] > 1:
        return False
    return dataset.dtype.itemsize * math.prod(dataset.chunks) >= SMALL_CHUNK


def is_bulk(column: Column) -> bool:
    """Whether a column is one of those that fill most of a shard: large arrays, or bytes such as JPEGs."""
    return is_large(column) or isinstance(column, Ragged) and not column.is_text
