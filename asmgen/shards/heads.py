"""What can be told of a shard without reading its samples, and whether two shards belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmgen.shards.files import open_shard, reading, subgroup
from asmgen.shards.folders import is_shard_name
from asmgen.shards.stored import columns_of, kind_of
from bfm.hdf5_file import attributes_of, plain
from bfm.seal import broken_seal, has_seal

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
            samples = attributes_of(subgroup(file, "samples")) if "samples" in file else {}
            if samples.get("format") not in FORMATS:
                raise ValueError(f"{path} is HDF5 but no shard of format 1 or 2; see docs/shards.md")
            name, count = samples.get("name", path.name), samples["count"]
            if is_shard_name(path.name) and name != path.name:
                raise ValueError(f"{path} was written as {name}; give it that name again, or build again with --repair")
            if type(count) is not int or not 0 <= count <= file.id.get_filesize():
                raise OSError(f"the number of samples is {count}")
            columns = columns_of(file, "samples", count)
            columns_of(file, "rejected")
            for key in ("source", "reason"):
                subgroup(subgroup(file, "rejected"), key)
            return cls(
                count=count,
                attributes=attributes_of(file),
                constants_sha256=attributes_of(subgroup(file, "constants"))["sha256"],
                kinds={key: kind_of(column) for key, column in columns.items()},
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


def first_difference(ours: dict, theirs: dict) -> str | None:
    """The first attribute in which two shards differ."""
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in ours or key not in theirs:
            return key
        a, b = ours[key], theirs[key]
        if type(a) is not type(b) or not np.array_equal(a, b):
            return key
    return None


def shard_matches(path: str | Path, attributes: dict, every_byte: bool = False) -> bool:
    """Return whether there is a shard that opens and has exactly these attributes, and a digest at its end.

    Its samples are not read, unless `every_byte` is to be compared with the digest.
    """
    path = Path(path)
    try:
        if not has_seal(path) or every_byte and broken_seal(path):
            return False
        found = Head.read(path).attributes
    except (FileNotFoundError, ValueError):
        return False
    return first_difference(found, {key: plain(value) for key, value in attributes.items()}) is None
