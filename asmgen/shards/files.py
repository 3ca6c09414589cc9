"""An open shard: what it holds itself, its attributes, and one sentence for whatever is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from bfm.hdf5_file import DAMAGE, member

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


def open_shard(path: Path) -> h5py.File:
    """Open for reading; the cache is small because a sample is read whole, once."""
    try:
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=8 * SMALL_CHUNK)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise ValueError(
            f"{path} cannot be opened as a shard ({error}); repair it (build again with --repair)"
        ) from error


@contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Turn `DAMAGE` into one sentence."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except DAMAGE as error:
        raise ValueError(f"{what}{path} is damaged ({error}); repair it (build again with --repair)") from error


def subgroup(group: h5py.Group, key: str) -> h5py.Group:
    """Return a group that a group holds itself; OSError if it is anything else."""
    found = member(group, key)
    if not isinstance(found, h5py.Group):
        raise OSError(f"{found.name} is no group")
    return found


def items(group: h5py.Group) -> list[tuple]:
    """Name and member of a group; h5py's own `items` gives None for a damaged one, this raises KeyError."""
    return [(key, member(group, key)) for key in group]
