"""An open shard: what it holds itself, its attributes, and one sentence for whatever is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

SMALL_CHUNK = 16384
"""Bytes: a sample's array from this size has its own chunk, smaller ones share one of this size."""

DAMAGE = (KeyError, OSError, RuntimeError, UnicodeDecodeError, MemoryError)
"""What h5py raises for damaged data, names and headers."""

_LARGEST = 2**16  # bytes of an attribute


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


def member(group: h5py.Group, key: str) -> h5py.Group | h5py.Dataset:
    """Return what a group holds itself; OSError for nothing, and for a link, which may lead out of the file."""
    if isinstance(key, bytes):
        raise OSError(f"{group.name} holds {key}, which is no UTF-8")  # h5py's way to name it
    links, name = group.id.links, key.encode(errors="surrogateescape")
    if not links.exists(name) or links.get_info(name).type != h5py.h5l.TYPE_HARD:
        raise OSError(f"{group.name.rstrip('/')}/{key} is {'elsewhere' if links.exists(name) else 'missing'}")
    return group[key]


def subgroup(group: h5py.Group, key: str) -> h5py.Group:
    """Return a group that a group holds itself; OSError if it is anything else."""
    found = member(group, key)
    if not isinstance(found, h5py.Group):
        raise OSError(f"{found.name} is no group")
    return found


def items(group: h5py.Group) -> list[tuple]:
    """Name and member of a group; h5py's own `items` gives None for a damaged one, this raises KeyError."""
    return [(key, member(group, key)) for key in group]


def attributes_of(item: h5py.Group | h5py.Dataset) -> dict:
    """Return attributes: texts, Python's own numbers, and arrays; OSError for anything else."""
    return {key: _attribute(item, key) for key in item.attrs}


def _attribute(item: h5py.Group | h5py.Dataset, key: str) -> str | bool | int | float | np.ndarray:
    if item.attrs.get_id(key).get_storage_size() <= _LARGEST:
        value = item.attrs[key]
        if isinstance(value, (bytes, str)):
            return value.decode() if isinstance(value, bytes) else value
        if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind in "biuf":
            return plain(value)
    raise OSError(f"attribute {key!r} is no text, number or array of numbers")


def set_attribute(item: h5py.Group | h5py.Dataset, key: str, value: str | bool | int | float | np.ndarray) -> None:
    """Write an attribute; a text with its length, because HDF5 keeps other texts without checksum."""
    if isinstance(value, str):
        text = value.encode()
        value = np.array(text, h5py.string_dtype("utf-8", max(1, len(text))))
    item.attrs[key] = value


def plain(value):
    """Numbers as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
