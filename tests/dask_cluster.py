"""A Dask cluster of separate processes, as `dask scheduler` and `dask worker` start them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent


class DaskCluster:
    """A scheduler, and workers of one thread.

    Parameters
    ----------
    folder : Path
        For the file that tells the address.
    """

    def __init__(self, folder: Path):
        self.folder, self.workers = folder, []
        self._file = folder / "scheduler.json"
        self.scheduler = self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        deadline = time.monotonic() + 60
        while not self._file.exists():
            assert self.scheduler.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def address(self) -> str:
        """What `--scheduler` takes."""
        return json.loads(self._file.read_text())["address"]

    def grow(self, workers: int) -> None:
        """Start workers until so many live."""
        living = [worker for worker in self.workers if worker.poll() is None]
        self.workers = living + [
            self._start(
                "dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", self.folder
            )
            for _ in range(workers - len(living))
        ]

    def close(self) -> None:
        """End all processes."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def _start(self, program: str, *options) -> subprocess.Popen:
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "e2e"))),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",  # a task may end two workers
        }
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", self._file, *options],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder,
        )
