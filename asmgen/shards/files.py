"""An open shard: its columns, and one sentence for whatever is damaged."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from asmgen.shards.packing import DIFFERENCES, inflated_differences, undo_differences

SMALL_CHUNK = 16384
"""Bytes: a sample's array from this size has its own chunk, smaller ones share one of this size."""

_KEPT = 2**23  # bytes of a column of small values


def digest(constants: dict) -> str:
    """Hex digest of arrays, to compare shards without reading them."""
    whole = hashlib.sha256()
    for key, value in sorted(constants.items()):
        value = np.ascontiguousarray(value)
        whole.update(f"{key} {value.dtype.str} {value.shape}".encode())
        whole.update(value.tobytes())
    return whole.hexdigest()


class Ragged:
    """One ragged column of an open file."""

    def __init__(self, group: h5py.Group):
        self._bytes, self._offsets = group["bytes"], group["offsets"][:].tolist()
        self._text = group.attrs["type"] == "text"

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
        return [blob.decode() for blob in blobs] if self._text else blobs


class SmallValues:
    """One column of an open file with few bytes a sample: read whole at first use, which is as quick as one sample."""

    def __init__(self, dataset: h5py.Dataset):
        self._dataset = dataset

    @cached_property
    def _values(self) -> np.ndarray:
        return self._dataset[:]

    def __getitem__(self, rows: int | slice) -> np.ndarray:
        return self._values[rows].copy()


class Differences:
    """One column of an open file that holds the differences of rows."""

    def __init__(self, dataset: h5py.Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, rows: int | slice) -> np.ndarray:
        if isinstance(rows, slice):
            return undo_differences(self.dataset[rows])
        shape = self.dataset.shape[1:]
        _, chunk = self.dataset.id.read_direct_chunk((rows, *[0] * len(shape)))  # igzip is faster than HDF5's zlib
        return undo_differences(inflated_differences(chunk, shape, self.dataset.dtype))


def open_shard(path: Path) -> h5py.File:
    """Open for reading; the cache is small because a sample is read whole, once."""
    try:
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=8 * SMALL_CHUNK)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise ValueError(f"{path} cannot be opened as a shard ({error}); delete it and build again") from error


@contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Turn what h5py raises for damaged data, names and headers into one sentence."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (KeyError, OSError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(f"{what}{path} is damaged ({error}); delete it and build again") from error


def items(group: h5py.Group) -> list[tuple]:
    """Name and member of a group; h5py's own `items` gives None for a damaged one, this raises KeyError."""
    return [(key, group[key]) for key in group]


def columns_of(group: h5py.Group) -> dict:
    """Return the columns of an open group by name, ready to be indexed by row."""
    return {key: _column(item) for key, item in items(group)}


def _column(item: h5py.Dataset | h5py.Group) -> h5py.Dataset | Differences | Ragged:
    if isinstance(item, h5py.Group):
        return Ragged(item)
    return Differences(item) if DIFFERENCES in item.attrs else item


def for_random_reads(column: h5py.Dataset | Differences | Ragged) -> Differences | Ragged | SmallValues | h5py.Dataset:
    """Return a column that answers for single samples fast."""
    is_small = isinstance(column, h5py.Dataset) and column.nbytes <= min(_KEPT, SMALL_CHUNK * len(column))
    return SmallValues(column) if is_small else column


def large_chunks(column: h5py.Dataset | Differences | Ragged) -> int | None:
    """Return how many chunks are stored of a column of large arrays, one a sample; None for any other column."""
    dataset = column.dataset if isinstance(column, Differences) else column
    if isinstance(dataset, Ragged) or not dataset.chunks or dataset.chunks[0] > 1:
        return None
    large = dataset.dtype.itemsize * math.prod(dataset.chunks) >= SMALL_CHUNK
    return dataset.id.get_num_chunks() if large else None
