"""One sentence where a file cannot be written: no room, no permission, a disk that fails."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in what goes wrong when it is written here, and say what to do.

    Parameters
    ----------
    path : Path
        What is written, under its final name.

    Raises
    ------
    OSError
        In place of what Python and HDF5 raise; HDF5 also raises RuntimeError.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{path} cannot be written: {_reason(error)}; mend that and run again, what is finished is kept"
        ) from error


def _reason(error: Exception) -> str:
    """What the system says; HDF5 puts its number into the text."""
    told = re.search(r"errno = (\d+)", str(error))
    number = int(told[1]) if told else getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def begin_to_sync(descriptor: int, start: int, stop: int) -> None:
    """Have the system begin to write some bytes of an open file to the disk, so that `sync` has less to wait for.

    Linux does so when told that they are not needed soon, and keeps those in memory that are not yet on the disk.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, stop - start, os.POSIX_FADV_DONTNEED)
