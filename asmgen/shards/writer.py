"""Writing one shard: whole or not at all, and the same bytes for the same input."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from asmgen.shards.check import check_shard
from asmgen.shards.columns import ArrayColumn, RaggedColumn, write_array, write_ragged
from asmgen.shards.files import SMALL_CHUNK, digest
from asmgen.shards.packing import PACKINGS
from asmgen.writing import begin_to_sync, sync, writing
from bfm.hdf5_file import set_attribute
from bfm.seal import seal

_LIBVER = ("v110", "v110")  # fixed, for equal bytes; has checksums on metadata; every HDF5 since 2016 reads it
_SYNCED_AT_ONCE = 2**23  # bytes


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

    The shard appears under its name at the end of the context, when it is whole and has been read back, but for
    large arrays and JPEG bytes, which are only seen to be there. If the context is left by an exception, nothing
    appears. Until then its name is like no other's, so that a writer does not meet the file of one that was killed,
    and may not be quite dead. The same input gives the same bytes. Bytes, texts and arrays of 16 kB and more go to
    the file as they come, so memory does not grow with them.

    Parameters
    ----------
    path : str | Path
        File to write; one of that name is replaced at the end.
    attributes : dict
        Name to str, number, or numeric array: what a reader must know.
    constants : dict | None
        Name to array: what all samples share.
    packing : Mapping[str, str] | None
        Field to one of `asmgen.shards.packing.PACKINGS`, for large arrays of whole numbers that are not smallest as
        ``gzip``. Measured floats and JPEG bytes are stored as they are.

    Raises
    ------
    ValueError
        If an attribute is anything else, or there is no such packing. At the end of the context, OSError if the file
        does not read back.

    Attributes
    ----------
    path : Path
        File to write.
    count : int
        Samples taken so far.
    """

    def __init__(
        self, path: str | Path, attributes: dict, constants: dict | None = None,
        packing: Mapping[str, str] | None = None,
    ):
        for key, value in attributes.items():
            if not isinstance(value, (str, bool, int, float, np.generic, np.ndarray)):
                raise ValueError(f"attribute {key!r} must be text, a number or an array, got {type(value).__name__}")
        for key, name in (packing or {}).items():
            if name not in PACKINGS:
                raise ValueError(f"packing of {key!r} must be one of {PACKINGS}, got {name!r}")
        self.path, self.count = Path(path), 0
        self._partial = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.partial")
        self._attributes, self._constants, self._packing = attributes, constants or {}, packing or {}
        self._kinds: dict[str, tuple] = {}
        self._streamed: dict[str, ArrayColumn | RaggedColumn] = {}
        self._gathered: dict[str, bytearray] = {}
        self._rejected: list[tuple[str, str, bytes]] = []
        self._file: Any = None  # the h5py.File, within the context
        self._syncing = 0  # bytes

    def __enter__(self) -> ShardWriter:
        try:
            with writing(self.path):
                self._file = h5py.File(self._partial, "w", libver=_LIBVER, rdcc_nbytes=0)  # a chunk is written once
                for key, value in sorted(self._attributes.items()):
                    set_attribute(self._file, key, value)
                self._samples = self._file.create_group("samples")
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                with writing(self.path):
                    self._finish()
                    self._file.close()
                self._publish()
        finally:
            self._discard()

    def add(self, sample: dict) -> None:
        """Write a sample.

        Parameters
        ----------
        sample : dict
            Field name to array or number, bytes, or str; arrays are not kept, their memory may be used again.

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
        with writing(self.path):
            for key, value in sample.items():
                if isinstance(value, np.ndarray) and value.nbytes < SMALL_CHUNK:
                    self._gathered.setdefault(key, bytearray()).extend(value.tobytes())
                else:
                    if key not in self._streamed:
                        self._streamed[key] = self._new_column(key, value)
                    self._streamed[key].append(value)
            size = self._file.id.get_filesize()
            if size - self._syncing >= _SYNCED_AT_ONCE:
                begin_to_sync(self._file.id.get_vfd_handle(), self._syncing, size)
                self._syncing = size

    def reject(self, source: str, reason: str, preview: bytes = b"") -> None:
        """Record an input that gives no sample, and why; `preview` is a JPEG of it, for people."""
        self._rejected.append((source, reason, preview))

    def _new_column(self, key: str, first: np.ndarray | bytes | str) -> ArrayColumn | RaggedColumn:
        """A column that goes to the file as it grows; whole numbers compress, measured floats don't."""
        if isinstance(first, np.ndarray):
            packing = self._packing.get(key, "gzip") if first.dtype.kind in "biu" else "none"
            return ArrayColumn(self._samples, key, first, packing)
        return RaggedColumn(self._samples, key, isinstance(first, str))

    def _finish(self) -> None:
        """Write the rest: what was gathered, what all samples share, and what was rejected."""
        for key, joined in sorted(self._gathered.items()):
            dtype, shape = self._kinds[key]
            write_array(self._samples, key, np.frombuffer(joined, dtype).reshape(self.count, *shape))
        for _, column in sorted(self._streamed.items()):
            column.finish()
        self._samples.attrs["count"] = self.count
        set_attribute(self._samples, "name", self.path.name)
        self._samples.attrs["format"] = 2 if any(column.as_differences for column in self._streamed.values()) else 1
        self._streamed.clear()  # closes them; open ones would lie elsewhere in the file
        group = self._file.create_group("constants")
        set_attribute(group, "sha256", digest(self._constants))
        for key, value in sorted(self._constants.items()):
            write_array(group, key, np.asarray(value), compress=True)
        group = self._file.create_group("rejected")
        sources, reasons, previews = zip(*self._rejected) if self._rejected else ((), (), ())
        write_ragged(group, "source", sources, text=True)
        write_ragged(group, "reason", reasons, text=True)
        if any(previews):
            write_ragged(group, "preview", previews, text=False)

    def _publish(self) -> None:
        """Append the digest of the closed file, read it back, and give it its name."""
        with writing(self.path):
            seal(self._partial)
        problems = check_shard(self._partial, large=False)
        if problems:
            raise OSError(f"{self._partial} does not read back ({problems[0].text}); check the disk")
        with writing(self.path):
            sync(self._partial)
            os.replace(self._partial, self.path)
            sync(self.path.parent)

    def _discard(self) -> None:
        """Close the file, and remove it unless it has its name."""
        with suppress(OSError, RuntimeError):  # of a full disk; what went wrong first is told
            if self._file:
                self._file.close()
        with suppress(OSError):
            self._partial.unlink()


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
