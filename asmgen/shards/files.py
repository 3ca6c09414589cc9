"""An open shard: its columns, and one sentence for whatever is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

SMALL_CHUNK = 16384
"""Bytes: a sample's array from this size has its own chunk, smaller ones share one of this size."""


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

    def __getitem__(self, row: int) -> bytes | str:
        value = self._bytes[self._offsets[row]:self._offsets[row + 1]].tobytes()
        return value.decode() if self._text else value


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
    return {key: item if isinstance(item, h5py.Dataset) else Ragged(item) for key, item in items(group)}
