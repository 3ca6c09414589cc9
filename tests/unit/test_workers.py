"""Worker processes: order, threads, failures, and peace with joblib."""

import os
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from joblib.externals.loky import process_executor

from asmgen import workers
from asmgen.clusters import WorkersLost
from asmgen.workers import run_tasks, share, shared


def total(name: str, factor: int) -> tuple:
    """Something of a shared array, and what the process is."""
    time.sleep(0.02 * (factor == 0))
    array, threads = shared(name), os.environ["OPENBLAS_NUM_THREADS"]
    return factor * int(array.sum()), type(array), array.flags.writeable, threads, os.getpid()


def fail(kind: str):
    """Raise, die, or take long."""
    if kind == "die":
        os._exit(3)
    if kind == "raise":
        raise ValueError("bad task")
    time.sleep(60 if kind == "sleep" else 0)


def test_results_are_in_order_and_arrays_shared(tmp_path):
    name = share(np.arange(1000), tmp_path / "array")
    seen = []
    found = run_tasks(total, [(name, factor) for factor in range(30)], 2, watch=lambda: seen.append(1))
    assert [value for value, *_ in found] == [factor * 499500 for factor in range(30)] and seen
    assert {row[1:4] for row in found} == {(np.memmap, False, "1")}
    assert os.getpid() not in {row[4] for row in found}
    assert run_tasks(total, [], 2) == []
    # joblib.Parallel once took our pool for its own and failed
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(value) for value in (-1, -2)) == [1, 2]


@pytest.mark.parametrize("kind, error, text", [
    ("die", WorkersLost, "worker process died"), ("raise", ValueError, "bad task"),
])
def test_a_failure_ends_the_run_at_once(tmp_path, kind, error, text):
    started = time.perf_counter()
    with pytest.raises(error, match=text):
        run_tasks(fail, [("sleep",), (kind,)], 2)
    assert time.perf_counter() - started < 30
    name = share(np.arange(3), tmp_path / "array")
    assert run_tasks(total, [(name, 2)], 2)[0][0] == 6


def test_a_failure_with_many_tasks_waiting_leaves_no_exception_in_the_thread_of_the_pool():
    """Pytest makes one a warning, and so an error; loky has it when stopped with more tasks than its queue takes."""
    with pytest.raises(ValueError, match="bad task"):
        run_tasks(fail, [("pass",)] * 5 + [("raise",)] + [("sleep",)] * 50, 2)


def grow(number: int) -> int:
    """Make loky think that this worker has grown too large; it is then replaced by another."""
    process_executor._MEMORY_LEAK_CHECK_DELAY, process_executor._MAX_MEMORY_LEAK_SIZE = 0, -1e15
    return number


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_pool_whose_thread_dies_is_told():
    """Once tasks stood still for ever: loky warns when it replaces a worker, and here a warning is an error."""
    pool = workers._pool(2)
    with pytest.raises(WorkersLost, match="thread that feeds the workers has failed"):
        run_tasks(grow, [(number,) for number in range(50)], 2)
    assert pool._processes and not any(worker.is_alive() for worker in pool._processes.values())
    assert run_tasks(abs, [(-1,)], 2) == [1]


def test_long_silence_is_told(monkeypatch):
    watched = []
    monkeypatch.setattr(workers, "_SILENCE", 0.6)
    with pytest.warns(UserWarning, match=r"no task has ended for 0 minutes; kill -USR1 .*: \d+, \d+$") as told:
        run_tasks(time.sleep, [(0,), (2,)], 2, lambda: watched.append(1))
    assert len(told) <= len(watched) / 2


def sign(path: Path):
    """Say that this worker lives, and take long."""
    path.touch()
    time.sleep(60)


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """Or they would work on beside a rerun. They hold the output that the parent had, so it ends with the last one."""
    program, signs = tmp_path / "program.py", [tmp_path / "a", tmp_path / "b"]
    program.write_text(
        f"import sys; sys.path[:0] = {[str(Path(__file__).parents[2]), str(Path(__file__).parent)]!r}\n"
        "from pathlib import Path; from asmgen.workers import run_tasks; from test_workers import sign\n"
        "if __name__ == '__main__':\n"
        "    run_tasks(sign, [(Path(name),) for name in sys.argv[1:]], 2)\n"
    )
    parent = subprocess.Popen([sys.executable, program, *signs], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in signs):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.communicate(timeout=20)
