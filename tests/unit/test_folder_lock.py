"""One writer a folder, of all processes; none that is dead."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asmgen import folder_lock
from asmgen.folder_lock import LOCK_FILE, locked

HOLDER = (
    "import sys, time; from pathlib import Path; from asmgen.folder_lock import locked\n"
    "with locked(*map(Path, sys.argv[1:])):\n"
    "    print('locked', flush=True); time.sleep(60)\n"
)


def hold(*folders: Path) -> subprocess.Popen:
    """A process that holds folders, and tells when it does."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, *folders], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_process_is_told_who_writes_until_that_is_killed(tmp_path):
    """What the killed one left is no bar, and is gone when the next has ended."""
    holder = hold(tmp_path)
    wanted = rf"{tmp_path} is being written by process {holder.pid} on .+ since .+ 20\d\d; wait for its end"
    for _ in range(2):
        with pytest.raises(BlockingIOError, match=wanted), locked(tmp_path):
            pass
    holder.kill()
    holder.communicate()
    assert (tmp_path / LOCK_FILE).exists()
    with locked(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / LOCK_FILE).read_text()
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"), locked(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_folders_in_any_order(tmp_path):
    """Two that want the same two folders, in opposite orders and by other names, try them in one order."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    with locked(two, one):
        for folders in ((one,), (two,), (one, two), (two, tmp_path / "two/../one")):
            with pytest.raises(BlockingIOError, match=r"(two/../)?one is being" if one in folders else "is being"):
                with locked(*folders):
                    pass
        assert (one / LOCK_FILE).exists() and (two / LOCK_FILE).exists()
    assert not list(tmp_path.glob("*/*"))


def test_folders_are_taken_in_one_order(tmp_path, monkeypatch):
    """Or of two that want the same, each might have one and get none."""
    take, taken = folder_lock._take, []
    monkeypatch.setattr(folder_lock, "_take", lambda path: (taken.append(path.parent.resolve().name), take(path))[1])
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    (tmp_path / "zero").symlink_to(two)
    for folders in ((one, two), (two, one), (tmp_path / "zero", one)):
        with locked(*folders):
            pass
    assert taken == ["one", "two"] * 3


def test_a_folder_that_is_busy_gives_back_the_others(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    with locked(two):
        with pytest.raises(BlockingIOError), locked(one, two):
            pass
        with locked(one):
            pass


def test_a_forked_child_holds_nothing(tmp_path):
    """Such as workers of a loader, which outlive a parent that was killed by seconds."""
    reader, writer = os.pipe()
    parent = os.fork()
    if not parent:
        with locked(tmp_path):
            if not os.fork():
                os.write(writer, str(os.getpid()).encode())
                time.sleep(60)
                os._exit(0)
            time.sleep(60)
        os._exit(0)
    child = int(os.read(reader, 100))
    try:
        with pytest.raises(BlockingIOError, match=f"process {parent} on"), locked(tmp_path):
            pass
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        with locked(tmp_path):
            os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader), os.close(writer)


def test_a_forked_child_that_leaves_the_context_does_not_end_the_lock(tmp_path):
    lock = locked(tmp_path)
    lock.__enter__()
    child = os.fork()
    if not child:
        lock.__exit__(None, None, None)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"), locked(tmp_path):
        pass
    lock.__exit__(None, None, None)
    assert not list(tmp_path.iterdir())


def test_a_holder_that_removes_its_file_in_the_last_moment(tmp_path, monkeypatch):
    """Between the opening of the file and its locking; a lock on a file without a name would exclude nobody."""
    lock, seen = folder_lock._lock, []

    def late(descriptor: int) -> None:
        if not seen:
            (tmp_path / LOCK_FILE).unlink()
        seen.append(descriptor)
        lock(descriptor)

    monkeypatch.setattr(folder_lock, "_lock", late)
    with locked(tmp_path):
        assert len(seen) == 2
        with pytest.raises(BlockingIOError), locked(tmp_path):
            pass


def test_no_locks_and_no_folder(tmp_path, monkeypatch):
    absent = tmp_path / "absent"
    with pytest.raises(OSError, match=f"absent/{LOCK_FILE} cannot be written: No such file"), locked(absent):
        pass

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock, "_lock", refuse)
    with pytest.warns(UserWarning, match="has no locks: let nothing else write there") as told, locked(tmp_path):
        pass
    assert told[0].filename == __file__ and not list(tmp_path.iterdir())


def test_a_lock_file_that_someone_removed_is_no_harm(tmp_path):
    with locked(tmp_path):
        (tmp_path / LOCK_FILE).unlink()
    with locked(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir())
