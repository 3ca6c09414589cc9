"""Clusters: what is missing is said, and what a worker may do."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import joblib
import numpy  # noqa: F401  (so that there is arithmetic to limit)
import pytest
from dask_cluster import DaskCluster
from joblib.parallel import ThreadingBackend
from threadpoolctl import threadpool_info, threadpool_limits

from asmgen import clusters
from asmgen.clusters import WorkersLost, cluster
from asmgen.workers import run_tasks


@pytest.mark.parametrize("backend, address, text", [
    ("slurm", None, "backend must be one of .* got 'slurm'"), ("loky", "tcp://a:1", "have no scheduler, got tcp://a:1"),
    ("dask", None, "needs the address .*--scheduler tcp://host:8786"), ("ray", None, "pip install 'dualface.ray.'"),
])
def test_what_cannot_be_used_is_said(backend, address, text, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=text), cluster(backend, address):
        pass


def test_a_cluster_without_workers_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "_WAIT_FOR_WORKERS", 0.1)
    dask = DaskCluster(tmp_path)
    try:
        with pytest.raises(WorkersLost, match=f"start some: dask worker {dask.address} --nthreads 1"):
            with cluster("dask", dask.address):
                pass
    finally:
        dask.close()


def test_ray_is_registered_and_its_lost_workers_are_ours(monkeypatch):
    """A Ray of paper: the real one is 80 MB, and too slow to start for a test."""
    class Backend(ThreadingBackend):
        def __init__(self, ray_remote_args, **options):
            super().__init__(**options)
            seen.append(ray_remote_args)

        def effective_n_jobs(self, n_jobs):
            return 1

    seen, lost = [], type("RayActorError", (Exception,), {})
    ray = ModuleType("ray")
    ray.init = lambda address: nullcontext(seen.append(address))
    ray.exceptions = SimpleNamespace(RayActorError=lost)
    register = SimpleNamespace(register_ray=lambda: joblib.register_parallel_backend("ray", Backend))
    for name, module in {"ray": ray, "ray.util": ModuleType("ray.util"), "ray.util.joblib": register}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(joblib.parallel.BACKENDS, "ray", raising=False)
    ticks = []
    with cluster("ray"):
        assert run_tasks(divmod, [(7, 2), (9, 4)], 1, lambda: ticks.append(1)) == [(3, 1), (2, 1)]
    assert seen == ["auto", {"max_restarts": -1, "max_task_retries": 3}] and ticks
    with pytest.raises(WorkersLost, match="ended 4 workers of Ray"), cluster("ray", "head:6379"):
        raise lost
    assert seen[2] == "head:6379" and not clusters.on_cluster()


def test_a_worker_does_one_task_at_a_time():
    """What it holds of the work before is for one."""
    begun, end = threading.Event(), threading.Event()

    def wait() -> str:
        begun.set()
        return end.wait(20)

    with ThreadPoolExecutor(1) as other:
        first = other.submit(clusters._alone, 0, wait)
        assert begun.wait(20)
        with pytest.raises(ValueError, match="two tasks at once.*--nthreads 1"):
            clusters._alone(1, abs, -1)
        end.set()
        assert first.result() == (0, True)
    assert clusters._alone(1, abs, -1) == (1, 1)


def test_a_worker_has_one_thread_of_arithmetic():
    def threads() -> set:
        return {pool["num_threads"] for pool in threadpool_info()}

    with threadpool_limits(2):
        assert threads() == {2} and clusters._alone(0, threads) == (0, {1})
        assert threads() == {2}
