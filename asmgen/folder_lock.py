"""One writer a folder: a lock of the operating system, which ends with its process, however that ends."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from asmgen.writing import writing

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_FILE = "writer.lock"
"""In the folder while something writes there; tells what does. One that a killed process left holds nobody up."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: set[int] = set()  # descriptors


@contextmanager
def locked(*folders: Path) -> Iterator[None]:
    """Be the only one, of all processes on all machines that ask for it, to write into some folders.

    Raises BlockingIOError, which names the process, if another has locked one; OSError if one cannot be written into.
    Where a file system has no locks, as some network ones, a warning says so. Readers need no lock.

    Parameters
    ----------
    *folders : Path
        Folders that exist. Of those who ask for the same ones, in any order, one gets all.
    """
    with ExitStack() as stack:
        for folder in sorted(folders, key=Path.resolve):
            stack.enter_context(_locked(folder))
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of one folder."""
    path = folder / LOCK_FILE
    descriptor = _take(path)
    _let_go_in_children()
    _held.add(descriptor)
    try:
        with writing(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}".encode())
        yield
    finally:
        if descriptor in _held:  # not in a child that was forked here
            _held.remove(descriptor)
            if os.name != "nt":  # still locked, or the name might be the next holder's
                path.unlink(missing_ok=True)
            os.close(descriptor)
            if os.name == "nt":  # removes what is closed, and refuses what another has opened
                with suppress(OSError):
                    path.unlink()


def _take(path: Path) -> int:
    """Open and lock the file of this name; its last holder may just be removing it."""
    while True:
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            if _is_named(descriptor, path):
                return descriptor
            os.close(descriptor)
        except (BlockingIOError, PermissionError) as error:
            os.lseek(descriptor, 0, os.SEEK_SET)
            holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise BlockingIOError(
                f"{path.parent} is being written by {holder}; wait for its end, or choose another folder"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            warnings.warn(f"the file system of {path.parent} has no locks: let nothing else write there", stacklevel=7)
            return descriptor


def _lock(descriptor: int) -> None:
    """Lock an open file, or raise OSError at once."""
    if sys.platform == "win32":
        os.lseek(descriptor, 2**30, os.SEEK_SET)  # far behind the text: nobody else can read what is locked
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_named(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@lru_cache
def _let_go_in_children() -> None:
    """Close the locks in processes forked from this one; these would hold them after this one was killed."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """Close the locks."""
    while _held:
        os.close(_held.pop())
