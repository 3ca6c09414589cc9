"""The names of shards, and the shards of a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(r"shard-(\d{5})-of-(\d{5})\.h5")


def shard_path(folder: str | Path, index: int, count: int) -> Path:
    """Return the path of shard `index` (from 0) of `count` in `folder`."""
    return Path(folder) / f"shard-{index:05d}-of-{count:05d}.h5"


def is_shard_name(name: str) -> bool:
    """Return whether a file's name says which shard of a set it is."""
    return _NAME.fullmatch(name) is not None


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
    counts = {int(match[2]) for match in names.values() if match}
    if len(counts) > 1:
        raise ValueError(f"{folder} mixes shards of sets of {sorted(counts)} shards; keep one set in a folder")
    for index in range(*counts):
        if shard_path(folder, index, *counts) not in paths:
            raise FileNotFoundError(
                f"{shard_path(folder, index, *counts)} is missing; run the build again to finish the set, "
                "or name the shards you want one by one"
            )
    return paths
