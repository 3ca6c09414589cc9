"""Layouts, regions, mouth and UV against the real files that others published for the BFM 2009."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from bfm.landmarks import BFM_53215, BFM_53490
from bfm.layouts import to_layout
from bfm.mirror import asymmetry, mirror_map
from bfm.morphable_model import REGIONS
from bfm.mouth import boundary_loops, close_mouth
from bfm.readers import read_face_model
from bfm.readers.texture_coordinates import read_uv
from face_files import REAL_DATA, real_face, real_info, write_3ddfa, write_expressions, write_raw

pytestmark = [pytest.mark.real, pytest.mark.skipif(REAL_DATA is None, reason="DUALFACE_REAL_DATA is not set")]
ROOT = Path(REAL_DATA or ".")
INFO = ROOT / "bfm_index" / "Model_info.mat"
NO_NECK = ROOT / "bfm_index" / "indices_38365.npy"
FRONT = ROOT / "bfm_index" / "deep3dfacerecon" / "BFM_front_idx.mat"
SELECT = ROOT / "bfm_index" / "deep3dfacerecon" / "select_vertex_id.mat"
LISTS = [INFO, NO_NECK, FRONT, SELECT, ROOT / "bfm_index" / "deep3dfacerecon" / "BFM_exp_idx.mat"]


@pytest.fixture(scope="module")
def face():
    return real_face(id_modes=2, exp_modes=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory, face):
    folder = tmp_path_factory.mktemp("real")
    return read_face_model([
        write_3ddfa(folder, face), write_expressions(folder, face), INFO, ROOT / "uv" / "BFM_UV_53490.mat",
    ])


def overlap(a, b):
    """Intersection over union."""
    return (a & b).sum() / (a | b).sum()


def test_published_landmarks_are_the_tables(face):
    np.testing.assert_array_equal(face.landmarks, BFM_53215)
    np.testing.assert_array_equal(face.trim[face.landmarks], BFM_53490)


def test_layouts_are_those_published(model):
    """Sizes, triangles of Deep3D's own file, and either way to it."""
    front = to_layout(model, "bfm-35709", [INFO, FRONT])
    published = scipy.io.loadmat(ROOT / "bfm_index" / "deep3dfacerecon" / "facemodel_info.mat")
    np.testing.assert_array_equal(front.landmarks, published["keypoints"].ravel() - 1)

    def turned(triangles):
        return {tuple(np.roll(triangle, -triangle.argmin()).tolist()) for triangle in triangles}

    # Deep3D's list, unlike 3DDFA's, is wound outward
    assert turned(front.triangles) == turned(published["tri"].astype(int) - 1)
    no_neck = to_layout(model, "bfm-38365", LISTS)
    assert len(no_neck.triangles) == 76073
    assert to_layout(no_neck, "bfm-35709", LISTS).sha256 == front.sha256 == to_layout(
        model, "bfm-35709", [INFO, SELECT]).sha256
    assert len(front.mouth_triangles) == len(no_neck.mouth_triangles) == 76


def test_300wlp_coefficients_give_one_surface_on_every_layout(tmp_path, face, model):
    """The raw file cut to each layout equals 3DDFA's cut to it, and the official formula on its vertices."""
    raw = read_face_model([write_raw(tmp_path, face), write_expressions(tmp_path, face), INFO])
    alone = read_face_model([write_raw(tmp_path, face)])
    assert (raw.layout, alone.layout) == ("bfm-53215", "bfm-53490")
    np.testing.assert_array_equal(alone.landmarks, BFM_53490)
    shape_para, exp_para = np.array([4e5, -2e5]), np.array([0.8])
    official = face.shape(shape_para, exp_para)
    lists = {"bfm-53215": np.arange(53215), "bfm-38365": np.load(NO_NECK),
             "bfm-35709": scipy.io.loadmat(FRONT)["idx"].ravel().astype(int) - 1}
    for layout, vertices in lists.items():
        ours = [to_layout(source, layout, LISTS) for source in (model, raw)]
        for cut in ours:
            shape = cut.shape((shape_para / cut.id_stddev).astype("f4"), (exp_para / cut.exp_stddev).astype("f4"))
            np.testing.assert_allclose(shape * 1000, official[vertices], rtol=0, atol=0.06)
        identity = to_layout(alone, layout, LISTS).id_basis
        np.testing.assert_array_equal(identity, ours[0].id_basis)


def test_face_agrees_with_what_others_call_the_face(model):
    """Overlap (vertices) with Deep3D's front, 3DDFA_V2's mask and PRNet's; they overlap each other 0.92 to 0.93."""
    face = model.regions != REGIONS.index("outside")
    published = {"front": scipy.io.loadmat(FRONT)["idx"].ravel().astype(int) - 1, "no neck": np.load(NO_NECK)}
    for vertices in published.values():
        mask = np.zeros(len(face), bool)
        mask[vertices] = True
        assert overlap(face, mask) > 0.94
    uv = read_uv(ROOT / "uv" / "BFM_UV_53215.mat")
    column, row = np.rint(uv[:, 0] * 255).astype(int), np.rint(255 - uv[:, 1] * 255).astype(int)
    prnet = np.asarray(Image.open(ROOT / "uv" / "prnet" / "uv_face_mask.png"))[row, column] > 0
    assert overlap(face, prnet) > 0.92
    features = np.asarray(Image.open(ROOT / "uv" / "prnet" / "uv_weight_mask.png"))[row, column] >= 60
    assert overlap(model.regions > REGIONS.index("face"), features & prnet) > 0.72
    segments = real_info()["segbin"][real_info()["trimIndex"].ravel().astype(int) - 1]
    for name, column, least in (("nose", 0, 0.78), ("eyes", 1, 0.66), ("mouth", 2, 0.7)):
        assert overlap(model.regions == REGIONS.index(name), segments[:, column] > 0) > least, name


def test_face_keeps_landmarks_and_leaves_ears_and_neck(model):
    face = model.regions != REGIONS.index("outside")
    assert face[model.landmarks].all()
    x, y, z = model.mean_shape.T
    assert not face[z < 10].any()  # ears and behind
    assert not face[(y < -95) | ((y < -70) & (z < 40))].any()  # neck
    assert face[(np.abs(x) < 35) & (y > 50)].all()  # forehead, to the edge of the mesh
    only = model.face_only()
    rim, mouth = boundary_loops(only.triangles)
    assert len(set(rim)) == len(rim)
    assert len(mouth) == 78
    assert len(np.unique(only.triangles)) == len(only.mean_shape)


def test_mouth_is_closed_in_the_mesh_and_in_the_published_chart(model):
    mouth = close_mouth(model.triangles, model.mean_shape, model.landmarks)
    closed = np.concatenate([model.triangles, mouth])
    assert [len(loop) for loop in boundary_loops(closed)] == [512]
    # the whole unit square is covered once: areas sum to it, and hardly any lies backwards
    uv = read_uv(ROOT / "uv" / "BFM_UV_53215.mat").astype(np.float64)
    a, b, c = (uv[corner] for corner in closed.T)
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert area.sum() == pytest.approx(1, abs=1e-6)
    assert -area[area < 0].sum() < 5e-5  # 3 texels of 65536, all in slivers the file itself has
    # face3d's list fills the same gap
    theirs = np.load(ROOT / "bfm_index" / "bfm_info_extras.npz")["tri_mouth"].T - 1
    assert set(theirs.ravel()) == set(mouth.ravel())


def test_mirror_pairs_found_are_no_worse_than_those_published(model):
    found = mirror_map(model.mean_shape)
    published = asymmetry(model.mean_shape, model.mirror)
    ours = asymmetry(model.mean_shape, found)
    assert ours.mean() < published.mean() < 0.8
    assert (found[found] == np.arange(len(found))).mean() > 0.97


def test_uv_of_the_raw_file_becomes_that_of_the_trimmed_one(model):
    published = read_uv(ROOT / "uv" / "BFM_UV_53215.mat")
    slipped = [10031, 10154, 10279]
    others = np.setdiff1d(np.arange(53215), slipped)
    np.testing.assert_array_equal(model.uv[others], published[others])
    assert np.abs(model.uv[slipped] - published[slipped]).max() < 0.006  # 1.5 texels, on the inner lip
    about = model.triangles[np.isin(model.triangles, slipped).any(axis=1)]
    a, b, c = (model.uv[corner].astype(float) for corner in about.T)
    assert ((b - a)[:, 0] * (c - a)[:, 1] > (b - a)[:, 1] * (c - a)[:, 0]).all()
