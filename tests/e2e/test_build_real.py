"""Real annotated photos, fitted on the open model, through shards to a sheet."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from asmgen.asmd import AsmdReader, face_box
from asmgen.build import build_asmd
from asmgen.inspect import inspect_sheet, statistics_table
from asmgen.shards import ShardSet, verify_shards
from bfm.open_face import open_face_model
from bfm.pose import project

DATA = os.environ.get("DUALFACE_REAL_DATA")
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA, reason="DUALFACE_REAL_DATA names no folder of real files")]


@pytest.mark.parametrize("folder, samples, unannotated", [("300w_lp", 22, 3), ("aflw2000_3d", 11, 0)])
def test_real_photos_are_fitted_and_built(tmp_path, folder, samples, unannotated):
    """All annotated photos give samples; their landmarks lie within 3 % of the face box of the labels, each."""
    summary = build_asmd(
        Path(DATA) / folder, tmp_path, open_face_model(), refit=True, jobs=2, shard_size=16,
        progress=partial(tqdm, disable=True),
    )
    assert summary.samples == samples
    assert summary.rejected == ({"no annotation": unannotated} if unannotated else {})
    assert summary.landmark_percent < 1.5 and summary.out_of_range == 0
    assert verify_shards(tmp_path).problems == []
    shards = ShardSet(tmp_path)
    assert (shards.column("landmark_error") / face_box(shards.column("landmarks"))).max() < 0.03
    reader = AsmdReader(tmp_path)
    for sample in reader.shards:
        assert np.abs(sample["position"][:2] - 127.5).max() < 128
        shape = reader.vertices(sum(reader.maps(sample)))  # from the maps alone, the landmarks are met again
        placed = project(shape[reader.landmarks], sample["pose"], sample["position"])[:, :2]
        assert np.linalg.norm(placed - sample["landmarks"], axis=1).mean() < 0.5
    sheet = np.asarray(inspect_sheet(tmp_path, [0, -1]))
    assert sheet.std() > 40
    assert f"{samples} in" in statistics_table(tmp_path)
