"""Builds on a Dask cluster of separate processes, some of which die."""

import os
import signal
import threading
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from dask_cluster import DaskCluster
from toy_tree import FACE, MODEL, hashes, write_tree
from tqdm import tqdm

from asmgen.build import asmd_plan
from asmgen.clusters import WorkersLost, cluster
from asmgen.faces import FacePlacer
from asmgen.pipeline import PhotoPass, fill_shards
from asmgen.workers import run_tasks
from bfm.model_file import save_model
from cli.main import main


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    started = DaskCluster(tmp_path_factory.mktemp("dask"))
    started.grow(1)
    yield started
    started.close()


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_tree(root, {"AFW": 6, "HELEN": 5})
    return root


@pytest.fixture(scope="module")
def wanted(tree, tmp_path_factory) -> dict:
    """Bytes of a build by processes of this machine."""
    out_dir = tmp_path_factory.mktemp("local")
    build(tree, out_dir, FacePlacer)
    return hashes(out_dir)


class MortalPlacer(FacePlacer):
    """Ends its process at a photo, as often as there are files named for it in a folder."""

    def __init__(self, deaths: Path, *options):
        super().__init__(*options)
        self._deaths = deaths

    def place_batch(self, entries):
        for entry in entries:
            for death in [*self._deaths.glob(f"{entry.name}.*")][:1]:
                death.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().place_batch(entries)


def build(tree: Path, out_dir: Path, placer, progress=partial(tqdm, disable=True)):
    """What `build_asmd` does, with another placer."""
    photos = PhotoPass(tree, MODEL, size=64, encoding="dense", chart="default", shard_size=2, seed=0, count=None,
                       refit=False)
    return fill_shards(photos.entries, 2, partial(placer, FACE, 64, False), [asmd_plan(photos, out_dir)],
                       photos.constants, 1, progress)


def test_one_worker_is_a_cluster_too(dask):
    """Joblib alone would do the tasks in this process."""
    with cluster("dask", dask.address):
        assert run_tasks(os.getpid, [()] * 3, 1) == [dask.workers[0].pid] * 3


def test_a_cluster_makes_the_same_bytes(tree, dask, wanted, tmp_path, monkeypatch):
    """From the command line, with paths from a folder that the workers do not know."""
    monkeypatch.chdir(tmp_path)
    save_model(MODEL, Path("model.h5"))
    options = ["--face-model", "model.h5", "--size", "64", "--shard-size", "2"]
    os.symlink(tree, "photos")
    result = CliRunner().invoke(
        main, ["build", "asmd", "photos", "shards", *options, "--backend", "dask", "--scheduler", dask.address]
    )
    assert result.exit_code == 0, result.output
    made = hashes(tmp_path / "shards")
    assert made.pop("command.toml") and made == wanted
    assert "backend" not in Path("shards/command.toml").read_text()


def test_a_worker_killed_in_the_middle_of_a_shard_costs_nothing(tree, dask, wanted, tmp_path):
    """Its shards go to the other, bytes and bar are as ever, and nothing half written is left."""
    dask.grow(2)
    deaths, out_dir, bars = tmp_path / "deaths", tmp_path / "shards", []
    deaths.mkdir()
    (deaths / "AFW_2_0.1").touch()

    def bar(**options):
        bars.append(tqdm(**options, file=StringIO()))
        return bars[-1]

    with cluster("dask", dask.address):
        summary = build(tree, out_dir, partial(MortalPlacer, deaths), bar)[0]
    assert sum(worker.poll() is not None for worker in dask.workers) == 1 and not any(deaths.iterdir())
    assert {path.name for path in out_dir.iterdir()} == set(wanted) and hashes(out_dir) == wanted
    assert bars[0].n == bars[0].total == summary.photos == 11
    assert (summary.samples, sum(summary.rejected.values())) == (7, 4)


def test_photos_that_end_every_worker_are_named_and_the_others_are_made(tree, dask, wanted, tmp_path):
    """Joblib alone would wait for their result for ever. A rerun makes what lacks."""
    dask.grow(3)
    deaths, out_dir = tmp_path / "deaths", tmp_path / "shards"
    deaths.mkdir()
    for life in range(2):
        (deaths / f"AFW_2_0.{life}").touch()
    with cluster("dask", dask.address):
        named = "AFW/AFW_2_0 to AFW/AFW_3_0.* has no result .*2 different workers, but all"
        with pytest.raises(WorkersLost, match=named):
            build(tree, out_dir, partial(MortalPlacer, deaths))
        assert len(list(out_dir.glob("*.h5"))) == 5
        build(tree, out_dir, FacePlacer)
    assert hashes(out_dir) == wanted


def test_workers_that_come_later_go_on_when_all_have_died(tree, wanted, tmp_path):
    alone, deaths = DaskCluster(tmp_path), tmp_path / "deaths"
    deaths.mkdir()
    (deaths / "AFW_2_0.1").touch()
    alone.grow(1)
    later = threading.Thread(target=lambda: (alone.workers[0].wait(), alone.grow(1)))
    later.start()
    try:
        with cluster("dask", alone.address):
            build(tree, tmp_path / "shards", partial(MortalPlacer, deaths))
    finally:
        alone.workers[0].kill()
        later.join()
        alone.close()
    assert not any(deaths.iterdir()) and hashes(tmp_path / "shards") == wanted


def test_a_lost_scheduler_is_told(tmp_path):
    alone = DaskCluster(tmp_path)
    alone.grow(1)
    try:
        with pytest.raises(WorkersLost, match="the scheduler is lost; .* what is written is kept"):
            with cluster("dask", alone.address):
                run_tasks(os.kill, [(alone.scheduler.pid, signal.SIGKILL)] + [(os.getpid(), 0)] * 3, 1)
    finally:
        alone.close()
