"""What an HDF5 file of ours holds: itself, its attributes, and what is raised where it is damaged."""

from __future__ import annotations

import h5py
import numpy as np

DAMAGE = (KeyError, OSError, RuntimeError, UnicodeDecodeError, MemoryError)
"""What h5py raises for damaged data, names and headers."""

_LARGEST = 2**16  # bytes of an attribute


def member(group: h5py.Group, key: str) -> h5py.Group | h5py.Dataset:
    """Return what a group holds itself; OSError for nothing, and for a link, which may lead out of the file."""
    if isinstance(key, bytes):
        raise OSError(f"{group.name} holds {key}, which is no UTF-8")  # h5py's way to name it
    links, name = group.id.links, key.encode(errors="surrogateescape")
    if not links.exists(name) or links.get_info(name).type != h5py.h5l.TYPE_HARD:
        raise OSError(f"{group.name.rstrip('/')}/{key} is {'elsewhere' if links.exists(name) else 'missing'}")
    return group[key]


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
