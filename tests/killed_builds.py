"""Builds of a small tree that are killed at lines that write, in forked processes; see tests/e2e/test_kill.py.

Usage: killed_builds.py ROOT WANTED OUT KIND HOW. WANTED and OUT have a folder a set: asmd, and ftd if KIND is that.
HOW tells what is killed: all (at every line), random (all, 50 times), worker or parent; or that several build together.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

from kill_harness import kill_at_every_line, kill_at_random, kill_beside_a_worker, run_killed
from toy_tree import MODEL, hashes
from tqdm import tqdm

from asmgen import pipeline
from asmgen.build import asmd_plan
from asmgen.clusters import WorkersLost
from asmgen.shards import ShardWriter
from texgen.build import ftd_plan
from texgen.thresholds import Selection

PROJECT = Path(__file__).parents[1]
OF_WORKERS = [PROJECT / "asmgen" / name for name in ("shard_job.py", "shards/writer.py")]
FILES = [*OF_WORKERS, PROJECT / "bfm/seal.py", *(PROJECT / "asmgen" / name for name in (
    "build_folder.py", "folder_lock.py", "pipeline.py", "dataset_files.py", "writing.py", "shards/columns.py",
))]
SIZE, SHARD_SIZE = 32, 2


def here(function, tasks, jobs, watch):
    """In place of `asmgen.workers.run_tasks`: the work of workers, in this process."""
    for task in tasks:
        function(*task)
        watch()


def forked(function, tasks, jobs, watch):
    """The same, in a forked process a task, one after another."""
    for task in tasks:
        worker = os.fork()
        if not worker:
            try:
                function(*task)
            finally:
                os._exit(sys.exc_info()[0] is not None)
        if os.waitpid(worker, 0)[1]:
            raise WorkersLost("a worker process died")
        watch()


def lines_of(*functions) -> list:
    """File and number of the lines of functions."""
    codes = [function.__code__ for function in functions]
    return [(code.co_filename, line) for code in codes for line in sorted({row[2] for row in code.co_lines()} - {None})]


def fill(photos: pipeline.PhotoPass, plans: list) -> None:
    """Build; if a worker dies, this process tidies up, and then is as good as killed too."""
    try:
        photos.fill(plans, 1, partial(tqdm, disable=True))
    except WorkersLost:
        left = [path for plan in plans for path in plan.out_dir.iterdir()]
        assert not [path for path in left if path.suffix not in (".h5", ".json")]
        os.kill(os.getpid(), signal.SIGKILL)


def build_together(photos: pipeline.PhotoPass, plans: list) -> tuple[int, int]:
    """Let six processes build the same at the same moment, every other one with its sets in the other order; return how
    many ended well, and how many were refused."""
    reader, writer = os.pipe()
    builders = []
    for number in range(6):
        builders.append(os.fork())
        if not builders[-1]:
            os.close(writer)
            os.read(reader, 1)  # until all are there
            try:
                photos.fill(plans[::-1] if number % 2 else plans, 1, partial(tqdm, disable=True))
            except BlockingIOError as error:
                os._exit(3 if " is being written by " in str(error) else 1)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    os.close(writer), os.close(reader)
    codes = [os.waitstatus_to_exitcode(os.waitpid(builder, 0)[1]) for builder in builders]
    assert set(codes) <= {0, 3}
    return codes.count(0), codes.count(3)


def no_half_files(event: str, arguments: tuple) -> None:
    """An audit hook: what is begun does not have the name of what is whole."""
    if event == "open" and arguments[2] & (os.O_CREAT | os.O_TRUNC):
        assert not str(arguments[0]).endswith((".h5", ".json", ".md")), arguments[0]


def main(root: Path, wanted: Path, out: Path, kind: str, how: str) -> None:
    """Kill the build of some kind in some way; tell how often (or how many were refused), and how often it was whole in
    the end."""
    sys.addaudithook(no_half_files)
    pipeline.run_tasks = forked if how in ("worker", "parent") else here
    photos = pipeline.PhotoPass(
        root, MODEL, size=SIZE, encoding="dense", chart="default", shard_size=SHARD_SIZE, seed=0, count=None,
        refit=False,
    )
    plans = [asmd_plan(photos, out / "asmd")]
    if kind == "ftd":
        plans.insert(0, ftd_plan(photos, out / "ftd", Selection(), lit=False))
    program = partial(fill, photos, plans)
    whole = {plan.out_dir.name: hashes(wanted / plan.out_dir.name) for plan in plans}
    ended = []

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()

    def end() -> None:
        for name, files in whole.items():
            assert hashes(out / name) == files
            assert {path.name for path in (out / name).iterdir()} == files.keys()
        ended.append(True)

    def again() -> None:
        assert run_killed(program, FILES, lambda line: False) is None
        end()

    if how == "all":
        kills = len(kill_at_every_line(program, FILES, begin, end))
    elif how == "worker":
        kills = len(kill_at_every_line(program, OF_WORKERS, begin, end))
    elif how == "random":
        kills = 50
        kill_at_random(program, FILES, begin, end, kills, lines=2500)
    elif how == "together":
        kills = 0
        for _ in range(5):
            begin()
            well, refused = build_together(photos, plans)
            assert well
            kills += refused
            end()
    else:
        kills = 0
        writer = ShardWriter
        for line in lines_of(writer.__enter__, writer._finish, writer._publish, writer._discard)[::6]:
            begin()
            if kill_beside_a_worker(program, OF_WORKERS, line, again):
                kills += 1
                end()
    print(json.dumps({"kills": kills, "ended": len(ended)}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
