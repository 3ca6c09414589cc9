"""Reading the samples of shards at random, from any process."""

from __future__ import annotations

import operator
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from asmgen.shards.files import open_shard, reading, subgroup
from asmgen.shards.folders import find_shards
from asmgen.shards.heads import Head
from asmgen.shards.stored import arrays_of, columns_of, for_random_reads

_OPEN_FILES = 128  # handles kept a process; each has about 1.5 MB of small values when a thousand samples are in a file


def open_kind(source: str | Path | Sequence, kind: str, schema_version: int) -> ShardSet:
    """Open shards whose attributes say they are of this kind and schema; ValueError for any other."""
    shards = ShardSet(source)
    found = shards.attributes.get("kind"), shards.attributes.get("schema_version")
    if found != (kind, schema_version):
        raise ValueError(
            f"{shards.paths[0]} must be '{kind}' of schema {schema_version}, got {found}; take the program that "
            "wrote it, or build it with this one"
        )
    return shards


class Named(dict):
    """What a shard holds by name; ValueError for what it lacks."""

    def __init__(self, found: dict, path: Path):
        super().__init__(found)
        self._path = path

    def __missing__(self, key: str):
        raise ValueError(f"{self._path} holds no {key!r}, only {sorted(self)}; build it with this program")


class ShardSet:
    """The samples of one or more shards, as one sequence of dicts.

    Files are opened when first read, by each process for itself, so a set may be handed to worker processes
    however they are started (fork, spawn, pickled).

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards, one shard, or a list of them.
    fields : Sequence[str] | None
        Fields to read; None is all.

    Raises
    ------
    ValueError
        If shards don't belong together, or a field is unknown; later, from any access, if a file is damaged.
        `find_shards` raises for those that are missing.

    Attributes
    ----------
    paths : list[Path]
        The shards, sorted.
    attributes : dict
        Attributes, equal in all shards.
    fields : tuple[str, ...]
        Fields that are read.
    """

    def __init__(self, source: str | Path | Sequence, fields: Sequence[str] | None = None):
        self.paths = find_shards(source)
        heads = [Head.read(path) for path in self.paths]
        first = max(range(len(heads)), key=lambda index: heads[index].count > 0)  # an empty shard has no fields
        for path, head in zip(self.paths, heads):
            difference = heads[first].difference(head)
            if difference:
                raise ValueError(
                    f"{path} does not belong with {self.paths[first].name}: {difference}; build both in one run"
                )
        self.attributes = Named(heads[first].attributes, self.paths[first])
        known = tuple(sorted(heads[first].kinds))
        self.fields = known if fields is None else tuple(fields)
        unknown = set(self.fields) - set(known)
        if unknown and heads[first].count:
            raise ValueError(f"fields must be among {list(known)}, got {sorted(unknown)}")
        self._starts = np.cumsum([0] + [head.count for head in heads])
        self._handles: OrderedDict[int, tuple] = OrderedDict()
        self._pid = os.getpid()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_handles": OrderedDict(), "_pid": None}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict:
        shard, row = self._locate(index)
        with reading(self.paths[shard], f"row {row} of "):
            _file, columns = self._open_shard(shard)
            return Named({key: columns[key][row] for key in self.fields}, self.paths[shard])

    def location(self, index: int) -> tuple[Path, int]:
        """Return the shard and the row in it of a sample."""
        shard, row = self._locate(index)
        return self.paths[shard], row

    def column(self, key: str) -> Any:
        """Return one field of every sample: an (N, ...) array, or a list of bytes or texts."""
        parts = []
        for shard in np.flatnonzero(np.diff(self._starts)):
            with reading(self.paths[shard], f"field {key!r} of "):
                _file, columns = self._open_shard(int(shard))
                if key not in columns:
                    raise ValueError(f"the field must be among {sorted(columns)}, got {key!r}")
                parts.append(columns[key][:])
        if all(isinstance(part, list) for part in parts):
            return [value for part in parts for value in part]
        return np.concatenate(parts)

    def stored_bytes(self) -> dict[str, int]:
        """Return the bytes that each field takes in the files, compressed as it is."""
        sizes = dict.fromkeys(sorted(self.fields), 0)
        for path in self.paths:
            with open_shard(path) as file, reading(path):
                for key in sizes.keys() & file["samples"].keys():
                    item = file["samples"][key]
                    parts = [item] if isinstance(item, h5py.Dataset) else item.values()
                    sizes[key] += sum(part.id.get_storage_size() for part in parts)
        return sizes

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """The arrays that all samples share."""
        with open_shard(self.paths[0]) as file, reading(self.paths[0]):
            return Named(arrays_of(subgroup(file, "constants")), self.paths[0])

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """(source, reason) of everything that gave no sample."""
        return list(zip(self._rejected_column("source"), self._rejected_column("reason")))

    @property
    def rejected_previews(self) -> list[bytes]:
        """A JPEG of everything that gave no sample, in the order of `rejected`; b"" where none was kept."""
        return self._rejected_column("preview", b"")

    def _rejected_column(self, key: str, missing: bytes | None = None) -> list:
        """One column of what was rejected; `missing` stands in where a shard has no such column."""
        values = []
        for path in self.paths:
            with open_shard(path) as file, reading(path):
                columns: dict[str, Any] = columns_of(file, "rejected")
                if missing is not None and key not in columns:
                    values += [missing] * len(columns["source"])
                else:
                    values += columns[key]
        return values

    def _locate(self, index: int) -> tuple[int, int]:
        """Shard number and row of a sample; negative indices count from the end."""
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"sample {index} is out of range for {len(self)} samples")
        position %= len(self)
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return shard, position - int(self._starts[shard])

    def _open_shard(self, shard: int) -> tuple[h5py.File, dict]:
        """A shard among this process's few open files, and its columns, which live as long as the file is held."""
        if self._pid != os.getpid():  # a handle that came through fork reads wrong data
            self._handles, self._pid = OrderedDict(), os.getpid()
        if shard not in self._handles:
            file = open_shard(self.paths[shard])
            columns = columns_of(file, "samples")
            self._handles[shard] = file, {key: for_random_reads(column) for key, column in columns.items()}
            if len(self._handles) > _OPEN_FILES:
                self._handles.popitem(last=False)  # it closes when its last user lets go
        self._handles.move_to_end(shard)
        return self._handles[shard]
