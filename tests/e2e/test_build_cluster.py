"""Builds on a Dask cluster of separate processes, some of which die."""

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dask_cluster import DaskCluster
from toy_tree import FACE, MODEL, hashes, write_tree
from tqdm import tqdm

from asmgen.build import asmd_plan
from asmgen.clusters import WorkersLost, cluster
from asmgen.faces import FacePlacer
from asmgen.pipeline import PhotoPass, fill_shards
from bfm.model_file import save_model
from cli.main import main


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    started = DaskCluster(tmp_path_factory.mktemp("dask"))
    started.grow(2)
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
    """Ends its process as if from outside, at a photo that is named by an empty file; `lives` of them are survived."""

    def __init__(self, deaths: Path, *options):
        super().__init__(*options)
        self._deaths = deaths

    def place_batch(self, entries):
        for entry in entries:
            for death in self._deaths.glob(f"{entry.name}.*"):
                death.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().place_batch(entries)


def build(tree: Path, out_dir: Path, placer, progress=partial(tqdm, disable=True)):
    """What `build_asmd` does, with another placer."""
    photos = PhotoPass(tree, MODEL, size=64, encoding="dense", chart="default", shard_size=2, seed=0, count=None,
                       refit=False)
    return fill_shards(photos.entries, 2, partial(placer, FACE, 64, False), [asmd_plan(photos, out_dir)],
                       photos.constants, 1, progress)


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
    assert hashes(tmp_path / "shards") == wanted
