"""Sharded HDF5: many samples of one kind in a few files. Knows nothing of faces; docs/shards.md is the format.

A sample is a dict of arrays (or numbers), bytes and text; the keys, and the shape and dtype of each array, are
the same for every sample. A shard also holds attributes and constants, equal in all shards of a set, and the
list of sources that gave no sample, with reasons.
"""

from __future__ import annotations

import hashlib
import operator
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

FORMAT = 1
"""Version of the layout written here, in the attribute ``format`` of the group ``samples``."""

_LIBVER = ("v110", "v110")  # fixed, for equal bytes; has checksums on metadata; every HDF5 since 2016 reads it
_CHUNK = 16384  # bytes: a sample's array from this size has its own chunk, smaller ones share one of this size
_OPEN_FILES = 32  # handles kept a process
_NAME = re.compile(r"shard-(\d{5})-of-(\d{5})\.h5")


def shard_path(folder: str | Path, index: int, count: int) -> Path:
    """Return the path of shard `index` (from 0) of `count` in `folder`."""
    return Path(folder) / f"shard-{index:05d}-of-{count:05d}.h5"


def write_shard(
    path: str | Path,
    samples: Iterable[dict],
    attributes: dict,
    constants: dict | None = None,
    rejected: Sequence[tuple[str, str]] = (),
) -> int:
    """Write one shard of samples that are at hand; see `ShardWriter` for what may go wrong.

    Parameters
    ----------
    path : str | Path
        File to write; one of that name is replaced at the end.
    samples : Iterable[dict]
        Field name to array or number, bytes, or str. There may be none.
    attributes : dict
        Name to str, number, or numeric array: what a reader must know.
    constants : dict | None
        Name to array: what all samples share.
    rejected : Sequence[tuple[str, str]]
        (source, reason) pairs. Read after the last sample, so a generator of samples may fill the list.

    Returns
    -------
    int
        Number of samples written.
    """
    with ShardWriter(path, attributes, constants) as writer:
        for sample in samples:
            writer.add(sample)
        for source, reason in rejected:
            writer.reject(source, reason)
    return writer.count


class ShardWriter:
    """A shard being written: a context that takes samples and rejected sources.

    The shard appears under its name at the end of the context, when it is whole and has been read back; if the
    context is left by an exception, nothing does. Until then its name is like no other's, so that a writer does not
    meet the file of one that was killed, and may not be quite dead. The same input gives the same bytes. Arrays of
    16 kB and more go to the file as they come, so memory does not grow with them.

    Parameters
    ----------
    path : str | Path
        File to write; one of that name is replaced at the end.
    attributes : dict
        Name to str, number, or numeric array: what a reader must know.
    constants : dict | None
        Name to array: what all samples share.

    Raises
    ------
    ValueError
        If an attribute is anything else. At the end of the context, OSError if the file does not read back.

    Attributes
    ----------
    path : Path
        File to write.
    count : int
        Samples taken so far.
    """

    def __init__(self, path: str | Path, attributes: dict, constants: dict | None = None):
        for key, value in attributes.items():
            if not isinstance(value, (str, bool, int, float, np.generic, np.ndarray)):
                raise ValueError(f"attribute {key!r} must be text, a number or an array, got {type(value).__name__}")
        self.path, self.count = Path(path), 0
        self._partial = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.partial")
        self._attributes, self._constants = attributes, constants or {}
        self._kinds: dict[str, tuple] = {}
        self._streamed: dict[str, h5py.Dataset] = {}
        self._gathered: dict[str, list] = {}
        self._rejected: list[tuple[str, str, bytes]] = []

    def __enter__(self) -> ShardWriter:
        self._file = h5py.File(self._partial, "w", libver=_LIBVER)
        for key, value in sorted(self._attributes.items()):
            self._file.attrs[key] = value
        self._samples = self._file.create_group("samples")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with self._file:
                if kind is None:
                    self._finish()
            if kind is None:
                self._publish()
        finally:
            self._partial.unlink(missing_ok=True)

    def add(self, sample: dict) -> None:
        """Write a sample.

        Parameters
        ----------
        sample : dict
            Field name to array or number, bytes, or str; large arrays are not kept.

        Raises
        ------
        ValueError
            If it differs from the first in its fields, a shape or a dtype, or a value cannot be stored.
        """
        sample = {key: _as_value(key, value) for key, value in sample.items()}
        kinds = {key: _kind(value) for key, value in sample.items()}
        if not self.count:
            self._kinds = kinds
        elif kinds != self._kinds:
            raise ValueError(_difference(self.count, kinds, self._kinds))
        self.count += 1
        for key, value in sample.items():
            if isinstance(value, np.ndarray) and value.nbytes >= _CHUNK:
                if key not in self._streamed:
                    self._streamed[key] = self._samples.create_dataset(
                        key, (0, *value.shape), value.dtype, maxshape=(None, *value.shape), chunks=(1, *value.shape),
                        fletcher32=True, **_compression(value),
                    )
                self._streamed[key].resize(self.count, axis=0)
                self._streamed[key][self.count - 1] = value
            else:
                self._gathered.setdefault(key, []).append(value)

    def reject(self, source: str, reason: str, preview: bytes = b"") -> None:
        """Record an input that gives no sample, and why; `preview` is a JPEG of it, for people."""
        self._rejected.append((source, reason, preview))

    def _finish(self) -> None:
        """Write what was gathered, what all samples share, and what was rejected."""
        for key, values in sorted(self._gathered.items()):
            if isinstance(values[0], np.ndarray):
                _create(self._samples, key, np.stack(values))
            else:
                _write_ragged(self._samples, key, values)
        self._samples.attrs["count"] = self.count
        self._samples.attrs["format"] = FORMAT
        self._streamed.clear()  # closes them; open ones would lie elsewhere in the file
        group = self._file.create_group("constants")
        group.attrs["sha256"] = _digest(self._constants)
        for key, value in sorted(self._constants.items()):
            _create(group, key, np.asarray(value), compress=True)
        group = self._file.create_group("rejected")
        sources, reasons, previews = ([row[place] for row in self._rejected] for place in range(3))
        _write_ragged(group, "source", sources)
        _write_ragged(group, "reason", reasons)
        if any(previews):
            _write_ragged(group, "preview", previews)

    def _publish(self) -> None:
        """Read the closed file back, and give it its name."""
        problems = check_shard(self._partial)
        if problems:
            raise OSError(f"{self._partial} does not read back ({problems[0].text}); check the disk")
        _sync(self._partial)
        os.replace(self._partial, self.path)
        _sync(self.path.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_value(key: str, value) -> np.ndarray | bytes | str:
    """Turn numbers into arrays; refuse what has no place in a shard."""
    if isinstance(value, (bytes, str)):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"field {key!r} must be a numeric array, bytes or text, got {type(value).__name__}")
    return array


def _kind(value: np.ndarray | bytes | str) -> tuple:
    """What must be equal in all samples."""
    return (value.dtype.str, value.shape) if isinstance(value, np.ndarray) else (type(value).__name__,)


def _difference(index: int, found: dict, wanted: dict) -> str:
    """Say how a sample differs from the first."""
    if found.keys() != wanted.keys():
        return f"sample {index} must have the fields {sorted(wanted)} of sample 0, got {sorted(found)}"
    key = next(key for key in wanted if found[key] != wanted[key])
    return f"field {key!r} of sample {index} must be {wanted[key]} as in sample 0, got {found[key]}"


def _compression(array: np.ndarray) -> dict:
    """Whole numbers compress (maps, masks); measured floats and JPEG bytes don't."""
    return {"shuffle": True, "compression": "gzip", "compression_opts": 1} if array.dtype.kind in "biu" else {}


def _create(group: h5py.Group, key: str, array: np.ndarray, compress: bool = False) -> None:
    """Write a whole array with checksums, in chunks of some rows (HDF5 has no chunks for an empty one)."""
    if array.size == 0 or array.ndim == 0:
        group.create_dataset(key, data=array)
        return
    rows = min(len(array), max(1, _CHUNK * len(array) // array.nbytes))
    group.create_dataset(
        key, data=array, chunks=(rows, *array.shape[1:]), fletcher32=True, **(_compression(array) if compress else {})
    )


def _write_ragged(group: h5py.Group, key: str, values: list) -> None:
    """Write bytes or texts of any length, joined, with the offset of each."""
    text = all(isinstance(value, str) for value in values)
    blobs = [value.encode() if text else value for value in values]
    group = group.create_group(key)
    group.attrs["type"] = "text" if text else "bytes"
    _create(group, "bytes", np.frombuffer(b"".join(blobs), np.uint8))
    _create(group, "offsets", np.cumsum([0] + [len(blob) for blob in blobs], dtype=np.int64))


def _digest(constants: dict) -> str:
    """Hex digest of arrays, to compare shards without reading them."""
    digest = hashlib.sha256()
    for key, value in sorted(constants.items()):
        value = np.ascontiguousarray(value)
        digest.update(f"{key} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


class _Ragged:
    """One ragged column of an open file."""

    def __init__(self, group: h5py.Group):
        self._bytes, self._offsets = group["bytes"], group["offsets"][:].tolist()
        self._text = group.attrs["type"] == "text"

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> bytes | str:
        value = self._bytes[self._offsets[row]:self._offsets[row + 1]].tobytes()
        return value.decode() if self._text else value


def _open(path: Path) -> h5py.File:
    """Open for reading; the cache is small because a sample is read whole, once."""
    try:
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=8 * _CHUNK)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise ValueError(f"{path} cannot be opened as a shard ({error}); delete it and build again") from error


@contextmanager
def _reading(path: Path, what: str = "") -> Iterator[None]:
    """Turn what h5py raises for damaged data, names and headers into one sentence."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (KeyError, OSError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(f"{what}{path} is damaged ({error}); delete it and build again") from error


def _items(group: h5py.Group) -> list[tuple]:
    """Name and member of a group; h5py's own `items` gives None for a damaged one, this raises KeyError."""
    return [(key, group[key]) for key in group]


def _columns(group: h5py.Group) -> dict:
    """Return the columns of an open group by name, ready to be indexed by row."""
    return {key: item if isinstance(item, h5py.Dataset) else _Ragged(item) for key, item in _items(group)}


@dataclass(frozen=True)
class _Head:
    """What can be told of a shard without reading its samples."""

    count: int
    attributes: dict
    constants_sha256: str
    kinds: dict

    @classmethod
    def read(cls, path: Path) -> _Head:
        with _open(path) as file, _reading(path):
            if file.get("samples") is None or file["samples"].attrs.get("format") != FORMAT:
                raise ValueError(f"{path} is HDF5 but no shard of format {FORMAT}; see docs/shards.md")
            return cls(
                count=int(file["samples"].attrs["count"]),
                attributes={key: _plain(value) for key, value in file.attrs.items()},
                constants_sha256=file["constants"].attrs["sha256"],
                kinds={
                    key: (item.dtype.str, item.shape[1:]) if isinstance(item, h5py.Dataset) else (item.attrs["type"],)
                    for key, item in _items(file["samples"])
                },
            )

    def difference(self, other: _Head) -> str | None:
        """Name the first thing that two shards of one set may not differ in; None if they fit."""
        key = _first_difference(self.attributes, other.attributes)
        if key:
            return f"attribute {key!r} is {other.attributes.get(key)!r} and not {self.attributes.get(key)!r}"
        if self.constants_sha256 != other.constants_sha256:
            return "the constants differ"
        if self.count and other.count and self.kinds != other.kinds:
            return f"the fields are {other.kinds} and not {self.kinds}"
        return None


def _plain(value):
    """Numbers as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _first_difference(ours: dict, theirs: dict) -> str | None:
    """The first attribute in which two shards differ."""
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key), theirs.get(key)
        if type(a) is not type(b) or not np.array_equal(a, b):
            return key
    return None


def shard_matches(path: str | Path, attributes: dict) -> bool:
    """Return whether there is a shard that opens and has exactly these attributes; its samples are not read."""
    try:
        found = _Head.read(Path(path)).attributes
    except (FileNotFoundError, ValueError):
        return False
    return _first_difference(found, {key: _plain(value) for key, value in attributes.items()}) is None


def find_shards(source: str | Path | Sequence) -> list[Path]:
    """Return the shards of a folder, checked to be all there; a file or a list of files is taken as it is.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder, file, or files.

    Returns
    -------
    list[Path]
        Sorted paths.

    Raises
    ------
    FileNotFoundError
        If there is none, or one of the numbering is missing.
    ValueError
        If shards of two numberings share the folder.
    """
    if not isinstance(source, (str, Path)):
        paths = sorted(Path(path) for path in source)
        if not paths:
            raise FileNotFoundError("the list of shards is empty; name at least one")
        return paths
    folder = Path(source)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no shard or folder {folder}")
    names = {path: _NAME.fullmatch(path.name) for path in sorted(folder.iterdir())}
    paths = [path for path, match in names.items() if match]
    if not paths:
        raise FileNotFoundError(f"{folder} holds no shards (shard-00000-of-00001.h5, ...); build some into it")
    counts = {int(names[path][2]) for path in paths}
    if len(counts) > 1:
        raise ValueError(f"{folder} mixes shards of sets of {sorted(counts)} shards; keep one set in a folder")
    for index in range(*counts):
        if shard_path(folder, index, *counts) not in paths:
            raise FileNotFoundError(
                f"{shard_path(folder, index, *counts)} is missing; run the build again to finish the set, "
                "or name the shards you want one by one"
            )
    return paths


def open_kind(source: str | Path | Sequence, kind: str, schema_version: int) -> ShardSet:
    """Open shards whose attributes say they are of this kind and schema; ValueError for any other."""
    shards = ShardSet(source)
    found = shards.attributes.get("kind"), shards.attributes.get("schema_version")
    if found != (kind, schema_version):
        raise ValueError(f"{shards.paths[0]} must be '{kind}' of schema {schema_version}, got {found}")
    return shards


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
        heads = [_Head.read(path) for path in self.paths]
        first = max(range(len(heads)), key=lambda index: heads[index].count > 0)  # an empty shard has no fields
        for path, head in zip(self.paths, heads):
            difference = heads[first].difference(head)
            if difference:
                raise ValueError(
                    f"{path} does not belong with {self.paths[first].name}: {difference}; build both in one run"
                )
        self.attributes = heads[first].attributes
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
        with _reading(self.paths[shard], f"row {row} of "):
            _file, columns = self._open_shard(shard)
            return {key: columns[key][row] for key in self.fields}

    def location(self, index: int) -> tuple[Path, int]:
        """Return the shard and the row in it of a sample."""
        shard, row = self._locate(index)
        return self.paths[shard], row

    def column(self, key: str) -> np.ndarray | list:
        """Return one field of every sample: an (N, ...) array, or a list of bytes or texts."""
        parts = []
        for shard in np.flatnonzero(np.diff(self._starts)):
            with _reading(self.paths[shard], f"field {key!r} of "):
                _file, columns = self._open_shard(int(shard))
                if key not in columns:
                    raise ValueError(f"the field must be among {sorted(columns)}, got {key!r}")
                parts.append(columns[key][:] if isinstance(columns[key], h5py.Dataset) else list(columns[key]))
        if all(isinstance(part, list) for part in parts):
            return [value for part in parts for value in part]
        return np.concatenate(parts)

    def stored_bytes(self) -> dict[str, int]:
        """Return the bytes that each field takes in the files, compressed as it is."""
        sizes = dict.fromkeys(sorted(self.fields), 0)
        for path in self.paths:
            with _open(path) as file, _reading(path):
                for key in sizes.keys() & file["samples"].keys():
                    item = file["samples"][key]
                    parts = [item] if isinstance(item, h5py.Dataset) else item.values()
                    sizes[key] += sum(part.id.get_storage_size() for part in parts)
        return sizes

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """The arrays that all samples share."""
        with _open(self.paths[0]) as file, _reading(self.paths[0]):
            return {key: dataset[()] for key, dataset in _items(file["constants"])}

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
            with _open(path) as file, _reading(path):
                columns = _columns(file["rejected"])
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
            file = _open(self.paths[shard])
            self._handles[shard] = file, _columns(file["samples"])
            if len(self._handles) > _OPEN_FILES:
                self._handles.popitem(last=False)  # it closes when its last user lets go
        self._handles.move_to_end(shard)
        return self._handles[shard]


@dataclass(frozen=True)
class Problem:
    """Something wrong in a shard: its file, the sample (None: the shard as a whole), and what."""

    path: Path
    sample: int | None
    text: str


@dataclass
class VerifyReport:
    """What `verify_shards` found: samples and bytes read, sources rejected, and problems (none is good)."""

    shards: int = 0
    samples: int = 0
    rejected: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.samples} samples read from {self.shards} shard{'s' * (self.shards != 1)}, "
            f"{self.bytes / 1e6:.1f} MB, {self.rejected} sources rejected; {len(self.problems) or 'no'} "
            f"problem{'s' * (len(self.problems) != 1)}"
        ]
        for problem in self.problems:
            row = "" if problem.sample is None else f" sample {problem.sample}"
            lines.append(f"{problem.path.name}{row}: {problem.text}")
        return "\n".join(lines)


def check_shard(path: str | Path) -> list[Problem]:
    """Read all of one shard and return what is wrong with it; checksums are compared on the way."""
    path, problems = Path(path), []
    try:
        head = _Head.read(path)
        with _open(path) as file:
            constants = {key: dataset[()] for key, dataset in _items(file["constants"])}
            if _digest(constants) != head.constants_sha256:
                problems.append(Problem(path, None, "the constants do not match their digest"))
            rejected, columns = _columns(file["rejected"]), _columns(file["samples"])
            lengths = {len(column) for column in rejected.values()}
            if len(lengths) != 1:
                problems.append(Problem(path, None, f"the rejected columns differ in length: {sorted(lengths)}"))
            for group in (rejected, columns):
                for key, column in group.items():
                    if group is columns and len(column) != head.count:
                        problems.append(
                            Problem(path, None, f"field {key!r} has {len(column)} samples instead of {head.count}")
                        )
                    for row in range(len(column)):
                        try:
                            column[row]
                        except (OSError, UnicodeDecodeError) as error:
                            place = (row, f"field {key!r}") if group is columns else (None, f"rejected {key} {row}")
                            problems.append(Problem(path, place[0], f"{place[1]} cannot be read: {error}"))
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        problems.append(Problem(path, None, str(error)))
    return problems


def verify_shards(source: str | Path | Sequence) -> VerifyReport:
    """Reread everything in a set of shards, and check that they belong together.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards, one shard, or a list of them.

    Returns
    -------
    VerifyReport
        What was read; `problems` names shard, sample and what is wrong. Missing shards raise, as in `find_shards`.
    """
    report = VerifyReport()
    paths = find_shards(source)
    for path in paths:
        found = check_shard(path)
        report.problems += found
        report.shards += 1
        report.bytes += path.stat().st_size
    damaged = {problem.path for problem in report.problems}
    whole = [path for path in paths if path not in damaged]
    heads = {path: _Head.read(path) for path in whole}
    for path, head in heads.items():
        difference = next(iter(heads.values())).difference(head)
        if difference:
            report.problems.append(Problem(path, None, f"does not belong with {whole[0].name}: {difference}"))
        report.samples += head.count
        report.rejected += len(ShardSet(path).rejected)
    return report
