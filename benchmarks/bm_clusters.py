"""What it costs to hand the shards of a build to workers, and to find them again.

The seconds between a task that does nothing and the next, for the processes of this machine and for a Dask cluster of
as many, both with their workers up. Then what reading the heads of a set of shards costs, which every reader does, and
a build that goes on: against opening and closing each file.

    python benchmarks/bm_clusters.py --shards 4000 -o clusters.json
"""

import json
import os
import tempfile
from functools import partial
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from provenance import provenance
from timing import Timing, interleaved

from asmgen.clusters import cluster
from asmgen.shards import ShardSet, shard_matches, shard_path, write_shard
from asmgen.workers import run_tasks


def time_tasks(tasks: int, workers: int, rounds: int) -> dict[str, Timing]:
    """Time rounds of empty tasks, by backend."""
    from distributed import LocalCluster

    def on_dask() -> None:
        with cluster("dask", dask.scheduler_address):
            run_tasks(abs, calls, workers)

    calls = [(number,) for number in range(tasks)]
    with tempfile.TemporaryDirectory() as folder, LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=folder
    ) as dask:
        return interleaved({"loky": partial(run_tasks, abs, calls, workers), "dask": on_dask}, rounds)


def time_heads(shards: int, rounds: int) -> dict[str, Timing]:
    """Time what opens a set of shards with the fields and attributes of ASMD, about; the files are one, linked."""
    attributes = {f"attribute_{number}": "as long as most" for number in range(25)}
    sample = {f"field_{number}": np.zeros(8, np.float32) for number in range(14)} | {"source": "AFW/AFW_1_0"}
    with tempfile.TemporaryDirectory() as folder:
        first, *others = (shard_path(folder, index, shards) for index in range(shards))
        write_shard(first, [sample] * 4, attributes, {"uv": np.zeros((4000, 2), np.float32)})
        for path in others:
            os.link(first, path)

        def opened() -> None:
            for path in Path(folder).iterdir():
                h5py.File(path, "r").close()

        return interleaved({
            "open, close": opened, "ShardSet": lambda: ShardSet(folder),
            "shard_matches": lambda: [shard_matches(path, attributes) for path in (first, *others)],
        }, rounds)


def measure(quick: bool) -> list[dict]:
    """Return the rows for `make bench`."""
    tasks, shards, rounds = (50, 40, 3) if quick else (1000, 2000, 5)
    handed, heads = time_tasks(tasks, 2, rounds), time_heads(shards, rounds)
    return [
        _row("a task handed to a worker", "loky", "dask", handed, tasks),
        _row("the head of a shard read", "open, close", "ShardSet", heads, shards),
        _row("a shard of a build found again", "open, close", "shard_matches", heads, shards),
    ]


def _row(operation: str, baseline: str, ours: str, timings: dict[str, Timing], count: int) -> dict:
    """Milliseconds each; a ratio above 1 is in our favour."""
    least, spent = timings[baseline].seconds, timings[ours].seconds
    return {
        "operation": operation, "baseline": f"{baseline} {1e3 * least / count:.2f} ms",
        "ours": f"{ours} {1e3 * spent / count:.2f} ms", "ratio": least / spent,
    }


@click.command()
@click.option("--tasks", default=1000, show_default=True, help="Empty tasks a round.")
@click.option("--workers", default=2, show_default=True, help="Processes of each backend.")
@click.option("--shards", default=2000, show_default=True, help="Files of the set.")
@click.option("--rounds", default=5, show_default=True, help="How often each is timed.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(tasks, workers, shards, rounds, output):
    """Print milliseconds a task and a shard: median, 10 % and 90 % of rounds, and processor time of this process."""
    results = {}
    for count, timings in ((tasks, time_tasks(tasks, workers, rounds)), (shards, time_heads(shards, rounds))):
        for name, timing in timings.items():
            results[name] = {key: 1e3 * value / count for key, value in timing._asdict().items()}
            median, low, high, process = results[name].values()
            click.echo(f"{name:13s} {median:7.2f} ms ({low:.2f} .. {high:.2f}), {process:.2f} ms of this process")
    if output:
        sizes = {"tasks": tasks, "workers": workers, "shards": shards}
        report = {**provenance(torch.device("cpu")), **sizes, "milliseconds": results}
        output.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
