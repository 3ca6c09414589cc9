"""Vertex layouts of the BFM 2009, on made vertex lists of the real sizes."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.io

from bfm.layouts import LAYOUTS, to_layout
from bfm.morphable_model import MorphableModel
from toy import toy_model

COUNTS = (53490, 53215, 38365, 35709)


@pytest.fixture(scope="module")
def lists():
    """Random nested vertex lists: 53215 and 35709 in 53490, 38365 and 35709 in 53215."""
    rng = np.random.default_rng(0)
    trim = np.sort(rng.choice(53490, 53215, replace=False))
    no_neck = np.sort(rng.choice(53215, 38365, replace=False))
    front = np.sort(rng.choice(no_neck, 35709, replace=False))
    return {"trim": trim, "no_neck": no_neck, "front": front, "select": trim[front]}


@pytest.fixture(scope="module")
def files(tmp_path_factory, lists):
    folder = tmp_path_factory.mktemp("lists")
    scipy.io.savemat(folder / "info.mat", {"trimIndex": lists["trim"][:, None] + 1, "segbin": np.zeros((3, 4))})
    scipy.io.savemat(folder / "front.mat", {"idx": (lists["front"][:, None] + 1).astype(np.float32)})
    scipy.io.savemat(folder / "select.mat", {"select_id": (lists["select"][:, None] + 1).astype(np.uint16)})
    np.save(folder / "neck.npy", lists["no_neck"].astype(np.int32))
    (folder / "std_exp.txt").write_text("1.0 2.0")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def raw(lists):
    """A model whose first coordinate is the number of the raw vertex; landmarks and triangles in the front."""
    count = 53490
    empty, none = np.zeros((0, count, 3), np.float32), np.zeros(0, np.float32)
    mean = np.zeros((count, 3), np.float32)
    mean[:, 0] = np.arange(count)
    front = lists["select"]
    triangles = np.concatenate([front[:30].reshape(10, 3), [[front[0], front[1], lists["trim"][-1]]]])
    return MorphableModel(
        mean_shape=mean, id_basis=mean[None] * 2, exp_basis=empty, mean_albedo=mean, albedo_basis=empty,
        id_stddev=np.ones(1, np.float32), exp_stddev=none, albedo_stddev=none, triangles=triangles.astype(np.int32),
        mouth_triangles=triangles[:2].astype(np.int32), landmarks=front[:68].astype(np.int32),
        mirror=np.arange(count, dtype=np.int32), regions=(np.arange(count) % 5).astype(np.uint8), name="made",
        layout="bfm-53490", coefficients="bfm2009-1", licence="made in the test",
    )


def expected_vertices(lists):
    return {53215: lists["trim"], 38365: lists["trim"][lists["no_neck"]], 35709: lists["select"]}


@pytest.mark.parametrize("target", COUNTS[1:])
def test_each_layout_takes_its_vertices_of_the_raw_model(raw, files, lists, target):
    model = to_layout(raw, f"bfm-{target}", list(files.values()))
    wanted = expected_vertices(lists)[target]
    np.testing.assert_array_equal(model.mean_shape[:, 0], wanted)
    np.testing.assert_array_equal(model.id_basis[0, :, 0], 2 * wanted)
    np.testing.assert_array_equal(model.regions, wanted % 5)
    assert model.layout == f"bfm-{target}"
    # triangles still join the same raw vertices
    np.testing.assert_array_equal(wanted[model.triangles[:10]], raw.triangles[:10])
    np.testing.assert_array_equal(wanted[model.landmarks], raw.landmarks)


def test_a_vertex_that_loses_its_twin_gets_the_nearest_to_its_mirror_image():
    model = toy_model()
    side = model.landmarks[0]  # at x = -70
    twin = model.mirror[side]
    assert twin == model.landmarks[16]
    swap = model.landmarks.copy()
    swap[16] = swap[30]  # a landmark may not go
    keep = np.delete(np.arange(len(model.mean_shape)), twin)
    cut = replace(model, landmarks=swap).take(keep, "cut")
    lone = int(np.flatnonzero(keep == side)[0])
    off = np.linalg.norm(cut.mean_shape - cut.mean_shape[lone] * [-1, 1, 1], axis=1)
    assert cut.mirror[lone] == off.argmin()
    others = np.delete(np.arange(len(keep)), lone)
    np.testing.assert_array_equal(keep[cut.mirror[others]], model.mirror[keep[others]])


def test_every_vertex_that_loses_its_twin_gets_the_nearest_to_its_mirror_image():
    model = toy_model()
    gone = np.setdiff1d(np.flatnonzero(model.mean_shape[:, 0] > 5), model.landmarks)[::3]
    keep = np.setdiff1d(np.arange(len(model.mean_shape)), gone)
    cut = model.take(keep, "cut")
    bereft = np.isin(model.mirror[keep], gone)
    assert bereft.sum() > 20
    images = cut.mean_shape[bereft] * [-1, 1, 1]
    far = np.linalg.norm(cut.mean_shape[None] - images[:, None], axis=-1)
    np.testing.assert_allclose(far[np.arange(len(far)), cut.mirror[bereft]], far.min(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(keep[cut.mirror[~bereft]], model.mirror[keep[~bereft]])


@pytest.mark.parametrize(("names", "message"), [
    (["select"], None), (["info", "front"], None), (["front"], "lead from bfm-53490 to bfm-35709"),
    (["info", "neck"], r"those given \(bfm-53215 in bfm-53490, bfm-38365 in bfm-53215\) do not"),
    ([], r"those given \(none\) do not"),
])
def test_either_list_leads_to_the_front(raw, files, lists, names, message):
    sources = [files[name] for name in names]
    if message is None:
        np.testing.assert_array_equal(to_layout(raw, "bfm-35709", sources).mean_shape[:, 0], lists["select"])
    else:
        with pytest.raises(ValueError, match=message):
            to_layout(raw, "bfm-35709", sources)


def test_the_way_does_not_matter(raw, files):
    sources = list(files.values())
    direct = to_layout(raw, "bfm-35709", sources)
    steps = raw
    for layout in LAYOUTS[1:]:
        steps = to_layout(steps, layout, sources)
    assert steps.sha256 == direct.sha256
    assert to_layout(direct, "bfm-35709", []) is direct


def test_a_larger_layout_is_refused(raw, files):
    sources = list(files.values())
    front = to_layout(raw, "bfm-35709", sources)
    with pytest.raises(ValueError, match="bfm-35709 lacks 2656 of the 38365 vertices of bfm-38365; convert from a"):
        to_layout(front, "bfm-38365", sources)
    with pytest.raises(ValueError, match="must be one of bfm-53490, .*, got bfm-3721"):
        to_layout(front, "bfm-3721", sources)
    with pytest.raises(ValueError, match="must be one of .*, got open"):
        to_layout(replace(raw, layout="open"), "bfm-53215", sources)


def test_a_list_given_twice_is_one(raw, files, lists):
    twice = to_layout(raw, "bfm-35709", [files["select"], files["select"]])
    np.testing.assert_array_equal(twice.mean_shape[:, 0], lists["select"])


def test_lists_that_contradict_are_refused(raw, files, lists, tmp_path):
    other = tmp_path / "other.mat"
    scipy.io.savemat(other, {"select_id": lists["select"][::-1, None] + 1})
    with pytest.raises(ValueError, match="other.mat lists other vertices for bfm-35709 in bfm-53490 than a file befor"):
        to_layout(raw, "bfm-35709", [files["select"], other])
    scipy.io.savemat(other, {"trimIndex": np.arange(53491) + 1})
    with pytest.raises(ValueError, match="trimIndex of .* must hold vertex numbers 1 to 53490, got 1 to 53491"):
        to_layout(raw, "bfm-53215", [other])
