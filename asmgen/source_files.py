"""Files and folders as users have them: nothing read here blocks, never ends, or fills the memory."""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, other ends of lines, and bytes of names that are not UTF-8."""


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a file.

    Parameters
    ----------
    path : Path
        A regular file, or a link to one.
    most : int
        Bytes that it may have; nothing is read of a longer one.

    Returns
    -------
    bytes
        All of it.

    Raises
    ------
    ValueError
        If it is a pipe or device, which might never end, has more bytes, or the system cannot read it; the sentence has
        no path, so that it is the same wherever the file lies.
    """
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ValueError("it must be a file, and is a pipe or device; put the file itself there")
            if found.st_size > most:
                raise ValueError(f"it must have at most {most} bytes, and has {found.st_size}; make it smaller")
            return file.read()
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror}); make it a readable file, or remove it") from error


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe, too, without waiting for who writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def walk_folders(root: Path, leave_out: Callable[[str], bool]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """List a tree of files, each folder once, also if it links back to itself.

    Links to folders are followed after all else, so that a folder that lies in the tree goes by its own name.

    Parameters
    ----------
    root : Path
        Top of the tree.
    leave_out : Callable[[str], bool]
        Says of the path of a folder that neither it nor what is in it is wanted.

    Yields
    ------
    tuple[tuple[str, ...], list[str]]
        Parts of a folder's path below the root, and the names of all that is no folder in it; hidden ones of both
        are left out. Always in the same order. OSError is raised where a folder cannot be listed.
    """
    tops, seen = deque([os.fspath(root)]), set()
    while tops:
        for folder, subfolders, names in os.walk(tops.popleft(), onerror=_raise):
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
            paths = {name: os.path.join(folder, name) for name in sorted(subfolders) if not name.startswith(".")}
            wanted = {name: path for name, path in paths.items() if not leave_out(path)}
            tops.extend(path for path in wanted.values() if os.path.islink(path))
            subfolders[:] = [name for name, path in wanted.items() if not os.path.islink(path)]
            yield Path(folder).relative_to(root).parts, sorted(name for name in names if not name.startswith("."))


def _raise(error: OSError) -> None:
    """What `os.walk` would pass over in silence."""
    raise error


def printable(text: str) -> str:
    """Return a text with names of files in it as one line that UTF-8 and terminals can hold; the rest is escaped."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)
