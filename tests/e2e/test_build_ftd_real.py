"""Real annotated photos, fitted on the open model, through FTD and ASMD shards in one pass."""

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from asmgen.images import decode_image
from asmgen.shards import ShardSet, verify_shards
from bfm.open_face import open_face_model
from bfm.pose import project
from bfm.sampling import sample_image
from texgen.build import SCORES, build_ftd
from texgen.ftd import FtdReader
from texgen.thresholds import Selection

DATA = os.environ.get("DUALFACE_REAL_DATA")
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA, reason="DUALFACE_REAL_DATA names no folder of real files")]
ALL = Selection(**dict.fromkeys(asdict(Selection())))


@pytest.mark.parametrize("folder, samples", [("300w_lp", 22), ("aflw2000_3d", 11)])
def test_textures_of_real_photos(tmp_path, folder, samples):
    """Left lit and read at the vertices in sight, I_a is what the crop shows there."""
    model = open_face_model()
    face = model.face_only()
    summary = build_ftd(
        Path(DATA) / folder, tmp_path / "ftd", model, refit=True, lit=True, selection=ALL, asmd_dir=tmp_path / "asmd",
        progress=partial(tqdm, disable=True),
    )
    assert (summary.samples, summary.beside[0].samples) == (samples, samples)
    assert verify_shards(tmp_path / "ftd").problems == verify_shards(tmp_path / "asmd").problems == []
    reader = FtdReader(tmp_path / "ftd")
    assert reader.shards.column("source") == ShardSet(tmp_path / "asmd").column("source")
    constants = reader.shards.constants
    texels, weights = constants["vertex_texels"], constants["vertex_weights"]
    for sample in reader.shards:
        assert all(np.isfinite(sample[name]) for name in SCORES)
        mask, albedo = reader.mask(sample), reader.albedo(sample)
        assert 0.05 < mask[constants["mask"]].mean() < 0.95
        in_sight = mask.reshape(-1)[texels].all(axis=1)
        lit = (albedo.reshape(-1, 3)[texels] * weights[..., None]).sum(1)[in_sight]
        points = project(face.shape(sample["id_coeffs"], sample["exp_coeffs"]), sample["pose"], sample["position"])
        inside = ((points > 1) & (points < 254))[in_sight, :2].all(axis=1)
        shown = sample_image(decode_image(sample["image"]), points[in_sight, :2]) / 255
        assert inside.sum() > 500
        assert np.median(np.abs(lit - shown)[inside]) < 0.03, sample["source"]
