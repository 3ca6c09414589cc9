"""Builds that are killed anywhere end with the bytes of one that never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from killed_builds import SHARD_SIZE, SIZE
from toy_tree import MODEL, hashes, write_tree
from tqdm import tqdm

from asmgen.workers import ONE_THREAD
from bfm.model_file import save_model
from texgen.build import build_ftd

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_tree(root, {"AFW": 4})
    return root


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory) -> Path:
    """Both sets, by two worker processes that nobody killed."""
    folder = tmp_path_factory.mktemp("whole")
    build_ftd(
        tree, folder / "ftd", MODEL, size=SIZE, shard_size=SHARD_SIZE, jobs=2, asmd_dir=folder / "asmd",
        progress=partial(tqdm, disable=True),
    )
    return folder


@pytest.mark.parametrize("kind, what, kills, ends", [
    ("asmd", "all", 150, 3), ("ftd", "random", 50, 3), ("asmd", "worker", 50, 2), ("ftd", "parent", 4, 8),
    ("ftd", "together", 5, 5),
])
def test_killed_at_lines_that_write_or_refused(tree, whole, tmp_path, kind, what, kills, ends):
    """Files whole, equal to those of other processes that were not killed, and nothing else, each time; see
    `killed_builds`. `kills` and `ends` are far from what there are, so that a line more or less does not matter."""
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))}
    found = subprocess.run(
        [sys.executable, TESTS / "killed_builds.py", tree, whole, tmp_path / "out", kind, what], env=environment,
        capture_output=True, text=True,
    )
    assert not found.returncode, found.stderr
    assert not found.stderr
    counts = json.loads(found.stdout)
    assert counts["kills"] >= kills and counts["ended"] >= ends


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["asmd", "ftd"])
def test_killed_commands(tmp_path, kind):
    """The command itself, with its workers: of 50 runs, the command, one of its workers, or all are killed at random
    times, and the run after continues."""
    root, log, chance, killed = tmp_path / "photos", tmp_path / "log", random.Random(0), {}
    write_tree(root, {"AFW": 6, "HELEN": 14})
    save_model(MODEL, tmp_path / "model.h5")

    def start(out: Path) -> subprocess.Popen:
        beside = ["--with-asm", out / "asmd"] if kind == "ftd" else []
        log.unlink(missing_ok=True)
        with open(log, "w") as told:  # no pipe, whose end would be that of workers which live on a little
            return subprocess.Popen(
                [sys.executable, "-m", "cli", "build", kind, root, out / kind, *beside, "--size", "64", "--shard-size",
                 "1", "--jobs", "2", "--face-model", tmp_path / "model.h5"],
                cwd=TESTS.parent, start_new_session=True, stdout=subprocess.DEVNULL, stderr=told,
            )

    def made(out: Path) -> dict:
        """Digests of all that there is."""
        assert not [path for path in out.glob("*/*") if not path.is_file()]
        return {folder.name: hashes(folder) for folder in out.iterdir()}

    began = time.monotonic()
    assert not start(tmp_path / "whole").wait(), log.read_text()
    seconds, whole, rounds = time.monotonic() - began, made(tmp_path / "whole"), 0
    while sum(killed.values()) < 50:
        rounds += 1
        out = tmp_path / f"killed{rounds}"
        while True:
            run, what = start(out), chance.choice(("command", "worker", "all"))
            deadline = time.monotonic() + chance.uniform(0, 1.1 * seconds)
            while run.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if run.poll() is None:
                workers = workers_of(run.pid)
                if what == "all":
                    os.killpg(run.pid, signal.SIGKILL)
                else:
                    os.kill(chance.choice(workers) if what == "worker" and workers else run.pid, signal.SIGKILL)
                killed[what] = killed.get(what, 0) + 1
            code, told = run.wait(), log.read_text()
            assert "Traceback" not in told
            if code == 0:  # also if its worker had nothing left to do
                break
            assert code == -signal.SIGKILL or "a worker process died" in told, told
        assert made(out) == whole
    print(killed, rounds)


def workers_of(command: int) -> list[int]:
    """Processes of the session of a command that work for it."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "-s", str(command)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "popen_loky" in line]
