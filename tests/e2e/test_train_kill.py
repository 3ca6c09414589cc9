"""Training that is killed, or told to end, at any instant goes on to what it would have been without."""

import json
import os
import subprocess
import sys
from pathlib import Path

import killed_training
import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork, and has no SIGKILL")


def killed(folder: Path, *times: str) -> dict:
    """How often each way of killing killed a run, and how often one came to its end, the same as never killed."""
    tests = Path(killed_training.__file__).parent
    done = subprocess.run(
        [sys.executable, killed_training.__file__, str(folder), *times], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"},
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The ways of every day."""
    return killed(tmp_path_factory.mktemp("killed"))


def test_killed_at_every_line(found):
    assert found["lines"]["kills"] > 200 and found["lines"]["ends"] > 1


def test_killed_at_every_line_after_the_last_but_one_checkpoint(found):
    """What is saved before it is validated is validated, and drawn, after."""
    assert found["last lines"]["kills"] > 80 and found["last lines"]["ends"] > 1
    assert found["last lines"]["resumed"] > 80


def test_told_to_end_at_every_line(found):
    assert found["told"]["kills"] > 100 and found["told"]["ends"] > 1


@pytest.mark.parametrize("kind", killed_training.KILLS)
def test_real_kinds_killed_at_random(found, kind):
    assert found[kind]["kills"] == killed_training.KILLS[kind] and found[kind]["ends"] > 0
    assert found[kind]["resumed"] > 0


@pytest.mark.slow
def test_real_kinds_killed_often(tmp_path):
    found = killed(tmp_path, "50")
    assert found.keys() == killed_training.KILLS.keys()
    assert all(ways["kills"] == 50 and ways["ends"] > 0 and ways["resumed"] > 20 for ways in found.values())
