"""How a slice of photos becomes batches of faces."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from toy_tree import FACE, MODEL, PHOTO, write_tree

from asmgen import faces, shard_job
from asmgen.faces import FacePlacer
from asmgen.pipeline import PhotoPass
from asmgen.shard_job import ShardPlan
from asmgen.shards import ShardSet, shard_path
from asmgen.workers import share


class BatchMaker:
    """Samples that tell the size of their batch."""

    def fill(self, writer, batch):
        for face in batch:
            writer.add({"source": face.fields["source"], "batch": len(batch)})


@pytest.mark.parametrize("batch, pixels, wanted", [
    (32, 50_000_000, [5, 5, 5, 5, 5]), (3, 50_000_000, [3, 3, 3, 2, 2]),
    (32, 2 * PHOTO**2, [3, 3, 3, 2, 2]), (4, PHOTO**2, [2, 2, 2, 2, 1]), (32, 0, [1, 1, 1, 1, 1]),
])
def test_batches_hold_so_many_photos_and_pixels(tmp_path, monkeypatch, batch, pixels, wanted):
    """The photo that cannot be read, the fourth, counts for the number but holds no pixels."""
    monkeypatch.setattr(shard_job, "BATCH", batch)
    monkeypatch.setattr(faces, "BATCH_PIXELS", pixels)
    write_tree(tmp_path / "photos", {"AFW": 5, "LFPW": 1})
    photos = PhotoPass(tmp_path / "photos", MODEL, size=32, encoding="params", chart="default", shard_size=9, seed=0,
                       count=None, refit=False)
    plan, path = ShardPlan(tmp_path, {}, {}, BatchMaker()), shard_path(tmp_path, 0, 1)
    job = share(shard_job.Job(partial(FacePlacer, FACE, 32, False), photos.constants, [plan]), tmp_path / "job")
    shard_job.fill_slice(job, tmp_path / "ticks", photos.entries, [path])
    shards = ShardSet(path)
    assert shards.column("source") == [entry.source for index, entry in enumerate(photos.entries) if index != 3]
    np.testing.assert_array_equal(shards.column("batch"), wanted)
    assert (tmp_path / "ticks").stat().st_size == 6 and len(shards.rejected) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_progress_that_cannot_be_written_ends_the_shard(tmp_path):
    write_tree(tmp_path / "photos", {"AFW": 1})
    photos = PhotoPass(tmp_path / "photos", MODEL, size=32, encoding="params", chart="default", shard_size=1, seed=0,
                       count=None, refit=False)
    (tmp_path / "out").mkdir()
    plan, path = ShardPlan(tmp_path / "out", {}, {}, BatchMaker()), shard_path(tmp_path / "out", 0, 1)
    job = share(shard_job.Job(partial(FacePlacer, FACE, 32, False), photos.constants, [plan]), tmp_path / "job")
    with pytest.raises(OSError, match="^/dev/full cannot be written: No space left on device; mend that and run again"):
        shard_job.fill_slice(job, Path("/dev/full"), photos.entries, [path])
    assert not list((tmp_path / "out").iterdir())
