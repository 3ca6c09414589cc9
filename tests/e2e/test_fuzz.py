"""Damaged files of users: each is read or refused, soon, in little memory, and no process dies of one."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz.py"


def fuzz(kind: str, count: int, seed: int, seconds: float) -> None:
    """Read damaged files in a process of its own; most are refused, and some are read."""
    done = subprocess.run(
        [sys.executable, FUZZ, kind, str(count), str(seed)], capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stderr[-3000:]
    read, refused = map(int, done.stdout.split())
    assert read + refused == count and read > count / 20 and refused > count / 3


@pytest.mark.skipif(sys.platform == "win32", reason="there are no alarms on Windows")
@pytest.mark.parametrize("kind, count", [
    ("photo", 700), ("mat", 1000), ("landmarks", 700), ("mesh", 300), ("face model", 400), ("basel", 700),
])
def test_damaged_files_are_read_or_refused(kind, count):
    fuzz(kind, count, 0, 60)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no alarms on Windows")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", ["photo", "mat", "landmarks", "mesh", "face model", "basel"])
def test_many_damaged_files_are_read_or_refused(kind, seed):
    fuzz(kind, 30_000, seed, 600)
