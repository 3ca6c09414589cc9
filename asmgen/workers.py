"""Worker processes with one thread of arithmetic each: sums run alike there, whatever the number of workers."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from asmgen.clusters import WATCH_EVERY, WorkersLost, on_cluster, run_on_cluster
from asmgen.writing import writing

ONE_THREAD = dict.fromkeys((
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OPENCV_FOR_THREADS_NUM",
), "1")
"""What the environment of a process must say for one thread of arithmetic, before it starts."""

_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""glibc keeps what is freed for the next batch: to ask for a photo's memory anew takes as long as to decode it."""
_IDLE, _SILENCE = 10, 1800  # seconds


def run_tasks(function: Callable, tasks: Sequence[tuple], jobs: int, watch: Callable[[], None] = lambda: None) -> list:
    """Call a function for each task, in worker processes also where one would do; within `cluster`, in its workers.

    Parameters
    ----------
    function : Callable
        Of a module, so that workers find it; called as ``function(*task)``.
    tasks : Sequence[tuple]
        Arguments, small ones; large arrays go through `share`.
    jobs : int
        Workers at most; a cluster has its own. If this process is interrupted or a task fails, they are stopped.
    watch : Callable[[], None]
        Called in this process several times a second, and after the last task.

    Returns
    -------
    list
        What the calls returned, in the order of the tasks.

    Raises
    ------
    WorkersLost
        If a worker dies. What a task raises is raised here.
    """
    if not tasks:
        return []
    if on_cluster():
        return run_on_cluster(function, tasks, watch)
    workers = min(jobs, len(tasks))
    pool, left, running, results = _pool(workers), iter(range(len(tasks))), {}, {}
    watched = heard = time.monotonic()
    try:
        while len(results) < len(tasks):
            # no more than the pool's own queue takes: stopped with others waiting, its thread ends in a traceback
            for number in islice(left, 2 * workers - len(running)):
                running[pool.submit(function, *tasks[number])] = number
            done, _ = wait(running, WATCH_EVERY, FIRST_COMPLETED)
            if not done and not pool._executor_manager_thread.is_alive():
                _kill(pool)
                raise WorkersLost("the thread that feeds the workers has failed; run again, what is written is kept")
            if time.monotonic() - watched >= WATCH_EVERY:
                watch()
                watched = time.monotonic()
            heard = _listen(pool, heard, done)
            for future in done:
                results[running[future]] = future.result()
                del running[future]
        watch()
        return [results[number] for number in range(len(tasks))]
    except BrokenProcessPool as error:
        raise WorkersLost(
            "a worker process died, perhaps for lack of memory; run again with fewer jobs, what is written is kept"
        ) from error
    finally:
        if running:
            pool.shutdown(wait=True, kill_workers=True)
            _pool.cache_clear()


@lru_cache(maxsize=1)
def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes for this and the next run, until they are idle for a while. No pool of loky's reusable ones: those
    are joblib.Parallel's, which fails on one that it did not make."""
    return ProcessPoolExecutor(
        workers, timeout=_IDLE, env=ONE_THREAD | _MEMORY, initializer=_end_with,
        initargs=(os.getpid(),),
    )


def _listen(pool: ProcessPoolExecutor, heard: float, done: set) -> float:
    """Return when a task last ended, or when it was said that none has for long."""
    now = time.monotonic()
    if not done and now - heard < _SILENCE:
        return heard
    if not done:
        pids = ", ".join(map(str, sorted(pool._processes)))
        warnings.warn(
            f"no task has ended for {_SILENCE / 60:.0f} minutes; kill -USR1 makes a worker say where it stands: {pids}",
            stacklevel=3,
        )
    return now


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the workers of a pool whose own thread can not: it died of an exception (as one while it started a worker in
    place of another), and neither tasks nor this process would ever end."""
    for worker in pool._processes.values():
        worker.terminate()
        worker.join()


def _end_with(parent: int) -> None:
    """End this worker soon after its parent, also one that was killed: a rerun must not meet it at the same files.

    ``kill -USR1 PID`` makes it say where it stands.
    """
    if hasattr(faulthandler, "register"):  # not on Windows
        faulthandler.register(signal.SIGUSR1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def share(value: object, path: Path) -> str:
    """Write a value for the workers, and return the name that `shared` takes."""
    with writing(path):
        joblib.dump(value, path)
    return str(path)


@lru_cache(maxsize=1)
def shared(name: str) -> Any:
    """Return a value that was written by `share`; its arrays are mapped, read-only, so all workers use one copy."""
    return joblib.load(name, mmap_mode="r")
