"""Samples as tar files, as WebDataset streams them: the files of a sample follow each other and share a name."""

from __future__ import annotations

import io
import json
import math
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from asmgen.dataset_files import npy_bytes
from asmgen.writing import sync, writing

IMAGE_SUFFIX = "jpg"


def sample_files(sample: Mapping, described: Mapping) -> dict[str, bytes]:
    """Return the files of a sample by their endings.

    Parameters
    ----------
    sample : Mapping
        As shards hold it: the crop ``image`` and other pictures (bytes, JPEG), maps (names that end in ``_map``, and
        ``mask``), numbers, short arrays and texts.
    described : Mapping
        What else a reader of this sample alone needs, numbers and texts.

    Returns
    -------
    dict[str, bytes]
        ``jpg`` the crop, ``<field>.jpg`` other pictures, ``<field>.npy`` maps, ``json`` all else; NaN is null.
    """
    files, numbers = {}, dict(described)
    for key, value in sample.items():
        if isinstance(value, bytes):
            files[IMAGE_SUFFIX if key == "image" else f"{key}.{IMAGE_SUFFIX}"] = value
        elif key.endswith("_map") or key == "mask":
            files[f"{key}.npy"] = npy_bytes(value)
        else:
            numbers[key] = value
    return {**files, "json": json_bytes(numbers)}


def json_bytes(values: Mapping) -> bytes:
    """Return numbers, arrays and texts as JSON that every reader takes, sorted by name; what is not finite is null."""
    def plain(value: object) -> object:
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.tolist()
        if isinstance(value, Mapping):
            return {key: plain(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return (json.dumps(plain(values), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def write_tars(
    samples: Iterable[Mapping[str, bytes]], count: int, out_dir: Path, tar_size: int,
    tick: Callable[[], object] = lambda: None,
) -> list[Path]:
    """Write samples into tar files, the same bytes for the same samples.

    Parameters
    ----------
    samples : Iterable[Mapping[str, bytes]]
        Of each its files by their endings; taken one by one.
    count : int
        How many there are.
    out_dir : Path
        Folder for ``faces-00000.tar``, ...; samples are named by their number, from 0.
    tar_size : int
        Samples a file.
    tick : Callable[[], object]
        Called after each sample.

    Returns
    -------
    list[Path]
        The files; each appears under its name only when whole.

    Raises
    ------
    ValueError
        If `tar_size` is below 1.
    """
    if tar_size < 1:
        raise ValueError(f"tar_size must be at least 1, got {tar_size}")
    numbered, paths = enumerate(samples), []
    for number in range(math.ceil(count / tar_size)):
        path = Path(out_dir) / f"faces-{number:05d}.tar"
        partial = path.with_name(path.name + ".partial")
        with writing(path):
            with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
                for index, files in islice(numbered, tar_size):
                    for ending, data in files.items():
                        tar.addfile(_entry(f"{index:08d}.{ending}", len(data)), io.BytesIO(data))
                    tick()
            sync(partial)
            os.replace(partial, path)
        paths.append(path)
    return paths


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """A file of a tar: without owner, and without date, which would change the bytes."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry
