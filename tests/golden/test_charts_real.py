"""The charts on real topology: the BFM's texture coordinates, PRNet's tables, round trips."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from bfm.charts import make_chart, round_trip_error
from bfm.mirror import mirror_map
from bfm.morphable_model import MorphableModel
from bfm.mouth import close_mouth
from bfm.open_face import open_face_model
from bfm.rasterize import rasterize
from bfm.regions import label_regions

ROOT = Path(os.environ.get("DUALFACE_REAL_DATA", "."))
needs_real_files = [
    pytest.mark.real,
    pytest.mark.skipif("DUALFACE_REAL_DATA" not in os.environ, reason="DUALFACE_REAL_DATA names no real files"),
]


@pytest.fixture(scope="module")
def bfm_mean():
    """The real BFM mean face in the 3DDFA layout, with no modes."""
    pieces = ROOT / "bfm_pieces_3ddfa"
    mean = ((np.load(pieces / "u_shp.npy") + np.load(pieces / "u_exp.npy")) / 1000).reshape(-1, 3).astype(np.float32)
    triangles = loadmat(pieces / "tri.mat")["tri"].T[:, ::-1].astype(np.int32) - 1
    landmarks = (np.load(pieces / "keypoints_sim.npy").ravel()[::3] // 3).astype(np.int32)
    no_modes, none = np.zeros((0, len(mean), 3), np.float32), np.zeros(0, np.float32)
    return MorphableModel(
        mean_shape=mean, id_basis=no_modes, exp_basis=no_modes, albedo_basis=no_modes, mean_albedo=mean * 0,
        id_stddev=none, exp_stddev=none, albedo_stddev=none, triangles=triangles,
        mouth_triangles=close_mouth(triangles, mean, landmarks), landmarks=landmarks, mirror=mirror_map(mean),
        regions=label_regions(mean, triangles, landmarks), name="BFM mean", layout="bfm-53215", coefficients="none",
        licence="test only", uv=loadmat(ROOT / "uv/BFM_UV_53215.mat")["UV"].astype(np.float32),
    )


def rasterized_uv(model, triangles):
    pixels = np.stack([model.uv[:, 0], 1 - model.uv[:, 1].astype(np.float64)], 1) * 255
    ids, barycentric = rasterize(pixels, np.zeros(len(pixels)), triangles, 256, 256)
    return ids, barycentric


def is_bijective(chart):
    a, b, c = (chart.uv[chart.triangles[:, k]].astype(np.float64) for k in range(3))
    return ((b - a)[:, 0] * (c - a)[:, 1] > (b - a)[:, 1] * (c - a)[:, 0]).all()


class TestBFM:
    pytestmark = needs_real_files

    def test_the_file_chart_covers_every_texel_once_the_mouth_is_closed(self, bfm_mean):
        assert (rasterized_uv(bfm_mean, bfm_mean.triangles)[0] < 0).sum() == 129  # the mouth gap
        closed = np.concatenate([bfm_mean.triangles, bfm_mean.mouth_triangles])
        assert (rasterized_uv(bfm_mean, closed)[0] >= 0).all()

    def test_every_pixel_of_prnets_tables_agrees(self, bfm_mean):
        theirs = np.load(ROOT / "uv/prnet_face_pixels_to_bfm_triangles.npz")
        with Image.open(ROOT / "uv/prnet/uv_face_mask.png") as image:
            face = np.asarray(image) > 0
        mouth = np.load(ROOT / "bfm_index/bfm_info_extras.npz")["tri_mouth"].T - 1
        triangles = np.concatenate([bfm_mean.triangles, mouth])
        ids, barycentric = rasterized_uv(bfm_mean, triangles)
        corners, weights = triangles[ids[face]], barycentric[face]
        assert len(corners) == len(theirs["triangles"]) == 43867
        order, their_order = np.argsort(corners, axis=1), np.argsort(theirs["triangles"], axis=1)
        assert np.array_equal(
            np.take_along_axis(corners, order, 1), np.take_along_axis(theirs["triangles"], their_order, 1)
        )
        np.testing.assert_allclose(
            np.take_along_axis(weights, order, 1), np.take_along_axis(theirs["weights"], their_order, 1), atol=6e-5
        )

    def test_the_harmonic_chart_has_the_least_round_trip_error(self, bfm_mean):
        harmonic = make_chart(bfm_mean, "harmonic")
        assert is_bijective(harmonic)
        mean, greatest = round_trip_error(bfm_mean, harmonic)
        assert mean < 0.013 and greatest < 1.0
        for other in ("file", "cylindrical"):
            other_mean, other_greatest = round_trip_error(bfm_mean, make_chart(bfm_mean, other))
            assert other_mean > mean and other_greatest > 8 * greatest


def test_the_open_models_default_chart():
    model = open_face_model()
    chart = make_chart(model)
    assert chart.name == "harmonic" and is_bijective(chart)
    assert chart.mask.mean() > 0.9
    mean, greatest = round_trip_error(model, chart)
    assert mean < 0.03 and greatest < 0.8
    twins = chart.uv[model.face_only().mirror]
    assert np.array_equal(twins[:, 0], 1 - chart.uv[:, 0]) and np.array_equal(twins[:, 1], chart.uv[:, 1])
    assert round_trip_error(model, make_chart(model, "cylindrical"))[0] > mean
