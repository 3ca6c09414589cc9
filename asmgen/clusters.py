"""Tasks on other machines, through joblib's backends for Dask and Ray. All machines see the same files.

A worker may die: its tasks are done again. So what a task makes must appear whole, and be the same when it is made
twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from importlib import import_module

import joblib
from joblib.parallel import LokyBackend, ParallelBackendBase, get_active_backend

BACKENDS = ("loky", "dask", "ray")
"""``loky`` is worker processes of this machine."""

_AHEAD = "256 + 2 * n_jobs"
"""Tasks that are handed out at a time: enough for workers that join later; 10,000 would fill the scheduler."""
WATCH_EVERY = 0.2
"""Seconds."""

_RETRIES = 3  # of a task whose worker died
_WAIT_FOR_WORKERS = 30  # seconds
_one_task = threading.Lock()


class WorkersLost(RuntimeError):
    """Workers died, and with them what they had in work.

    Parameters
    ----------
    message : str
        What was lost, and what to do.
    tasks : tuple[int, ...]
        Numbers of the tasks that are to blame, where that is known.
    """

    def __init__(self, message: str, tasks: tuple[int, ...] = ()):
        super().__init__(message, tasks)
        self.tasks = tasks

    def __str__(self) -> str:
        return self.args[0]


@contextmanager
def cluster(backend: str, address: str | None = None) -> Iterator[None]:
    """Send what `asmgen.workers.run_tasks` does within this context to the workers of a cluster.

    Parameters
    ----------
    backend : str
        One of `BACKENDS`; ``loky`` changes nothing.
    address : str | None
        Of the scheduler. None is what the environment says: DASK_SCHEDULER_ADDRESS, or RAY_ADDRESS and else a Ray
        on this machine.

    Raises
    ------
    ValueError
        If there is no such backend, it needs an address or takes none, or its package is not installed. OSError if
        nothing answers at the address; `WorkersLost` if it has no workers.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if backend == "loky":
        if address is not None:
            raise ValueError(f"worker processes of this machine have no scheduler, got {address}; add --backend dask")
        yield
        return
    for package in (backend, "threadpoolctl"):
        try:
            import_module(package)
        except ImportError as error:
            raise ValueError(f"{package} cannot be imported ({error}); pip install 'dualface[{backend}]'") from error
    with {"dask": _dask, "ray": _ray}[backend](address):
        yield


def on_cluster() -> bool:
    """Return whether joblib has been given another backend than its own processes."""
    return not isinstance(get_active_backend()[0], LokyBackend)


def run_on_cluster(function: Callable, tasks: Sequence[tuple], watch: Callable[[], None]) -> list:
    """Do the work of `asmgen.workers.run_tasks` on the workers of joblib's active backend, whatever their number.

    Parameters
    ----------
    function : Callable
        Of a module that is installed where the workers are.
    tasks : Sequence[tuple]
        Arguments, small ones; files by their full path.
    watch : Callable[[], None]
        Called by a thread several times a second, and here after the last task.

    Returns
    -------
    list
        What the calls returned, in the order of the tasks.

    Raises
    ------
    WorkersLost
        After all others, if tasks ended every worker that took them, or workers could not read them; at once, if the
        scheduler is lost. What a task raises is raised here.
    """
    calls = (joblib.delayed(_alone)(number, function, *task) for number, task in enumerate(tasks))
    with _watching(watch):
        results = dict(joblib.Parallel(n_jobs=-1, batch_size=1, pre_dispatch=_AHEAD, max_nbytes=None)(calls))
    watch()
    lost = {number: result.reason for number, result in sorted(results.items()) if isinstance(result, _Lost)}
    if lost:
        number, reason = next(iter(lost.items()))
        raise WorkersLost(f"task {number} has no result ({reason})", tuple(lost))
    return [results[number] for number in range(len(tasks))]


class _Lost:
    """In place of a result, what became of a task that its worker did not survive."""

    def __init__(self, reason: str):
        self.reason = reason


def _alone(number: int, function: Callable, *task) -> tuple[int, object]:
    """Do a task in a worker, with one thread of arithmetic as everywhere: sums of several may differ in a last bit."""
    import cv2
    from threadpoolctl import threadpool_limits

    if not _one_task.acquire(blocking=False):
        raise ValueError(
            "a worker was given two tasks at once, and they share what it holds; give workers one thread and start "
            "more of them: dask worker --nthreads 1 --nworkers -1"
        )
    try:
        cv2.setNumThreads(1)
        with threadpool_limits(1):
            return number, function(*task)
    finally:
        _one_task.release()


@contextmanager
def _watching(watch: Callable[[], None]) -> Iterator[None]:
    """Call `watch` from a thread, as joblib's results are waited for in this one."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(WATCH_EVERY):
            watch()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _dask(address: str | None) -> Iterator[None]:
    """Let joblib work through a scheduler of Dask, which gives a task to others when its worker dies."""
    import dask
    from distributed import Client
    from distributed import TimeoutError as DaskTimeoutError  # Python's own only since 3.11

    address = address or dask.config.get("scheduler-address", None)
    if address is None:
        raise ValueError("dask needs the address that `dask scheduler` prints; give it: --scheduler tcp://host:8786")
    with Client(address, set_as_default=False) as client:
        try:
            client.wait_for_workers(1, timeout=_WAIT_FOR_WORKERS)
        except DaskTimeoutError as error:
            raise WorkersLost(
                f"the scheduler {address} has no workers; start some: dask worker {address} --nthreads 1 --nworkers -1"
            ) from error
        with joblib.parallel_config(_surviving_backend(client)):
            yield


def _surviving_backend(client: object) -> ParallelBackendBase:
    """Joblib's backend for Dask (1.6) with two faults mended.

    Where a task has no result, as its workers died, it waits for ever; here joblib is told. Where one worker is there
    yet, it does all tasks in this process.
    """
    from joblib._dask import DaskDistributedBackend

    class Surviving(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs):
            return max(2, super().effective_n_jobs(n_jobs))

        def submit(self, func, callback=None):
            (_, (number, *_), _), = func.items

            def tell(done) -> None:
                if done.exception():
                    callback([(number, _Lost(str(done.exception())))])

            future = super().submit(func, callback)
            future.add_done_callback(tell)
            return future

        def retrieve_result_callback(self, out):
            if isinstance(out, CancelledError):
                raise WorkersLost("the scheduler is lost; start it again, with workers: what is written is kept")
            return super().retrieve_result_callback(out)

    return Surviving(client=client)


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Let joblib work through Ray, which starts a worker that died again, and its task with it."""
    import ray
    from ray.util.joblib import register_ray

    register_ray()
    lives = {"max_restarts": -1, "max_task_retries": _RETRIES}
    with ray.init(address=address or "auto"), joblib.parallel_config("ray", ray_remote_args=lives):
        try:
            yield
        except ray.exceptions.RayActorError as error:
            raise WorkersLost(
                f"a task ended {_RETRIES + 1} workers of Ray; give workers more memory, what is written is kept"
            ) from error
