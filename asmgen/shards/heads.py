"""What can be told of a shard without reading its samples, and whether two shards belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from asmgen.shards.files import items, open_shard, reading

FORMATS = (1, 2)
"""Versions of the layout, in the attribute ``format`` of the group ``samples``: 2 has arrays held as differences."""


@dataclass(frozen=True)
class Head:
    """What can be told of a shard without reading its samples."""

    count: int
    attributes: dict
    constants_sha256: str
    kinds: dict

    @classmethod
    def read(cls, path: Path) -> Head:
        with open_shard(path) as file, reading(path):
            if file.get("samples") is None or file["samples"].attrs.get("format") not in FORMATS:
                raise ValueError(f"{path} is HDF5 but no shard of format 1 or 2; see docs/shards.md")
            return cls(
                count=int(file["samples"].attrs["count"]),
                attributes={key: plain(value) for key, value in file.attrs.items()},
                constants_sha256=file["constants"].attrs["sha256"],
                kinds={
                    key: (item.dtype.str, item.shape[1:]) if isinstance(item, h5py.Dataset) else (item.attrs["type"],)
                    for key, item in items(file["samples"])
                },
            )

    def difference(self, other: Head) -> str | None:
        """Name the first thing that two shards of one set may not differ in; None if they fit."""
        key = first_difference(self.attributes, other.attributes)
        if key:
            return f"attribute {key!r} is {other.attributes.get(key)!r} and not {self.attributes.get(key)!r}"
        if self.constants_sha256 != other.constants_sha256:
            return "the constants differ"
        if self.count and other.count and self.kinds != other.kinds:
            return f"the fields are {other.kinds} and not {self.kinds}"
        return None


def plain(value):
    """Numbers as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def first_difference(ours: dict, theirs: dict) -> str | None:
    """The first attribute in which two shards differ."""
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key), theirs.get(key)
        if type(a) is not type(b) or not np.array_equal(a, b):
            return key
    return None


def shard_matches(path: str | Path, attributes: dict) -> bool:
    """Return whether there is a shard that opens and has exactly these attributes; its samples are not read."""
    try:
        found = Head.read(Path(path)).attributes
    except (FileNotFoundError, ValueError):
        return False
    return first_difference(found, {key: plain(value) for key, value in attributes.items()}) is None
