"""The embedded open face model: topology, symmetry, scale, movements, and the same bits everywhere."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bfm.morphable_model import REGIONS
from bfm.mouth import boundary_loops
from bfm.open_face import DATA_FILE, expression_units, open_face_model
from bfm.open_face.acts import ACTS, act_coefficients, random_expressions

GOLDEN_SHA256 = "65c2c1e68b4e80a079ddb687c9ea92c3b3f07fcb4bdddb999b66ae062b1acfed"
FLIP = np.array([-1, 1, 1], np.float32)
# mirror images in the 68-point scheme
TWIN68 = np.concatenate([
    np.arange(16, -1, -1), np.arange(26, 16, -1), np.arange(27, 31), np.arange(35, 30, -1),
    [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],
    [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65],
])


@pytest.fixture(scope="module")
def model():
    return open_face_model()


def posed(model, **strengths: float) -> np.ndarray:
    """Vertices of the mean face in an expression."""
    return model.shape(np.zeros(199, np.float32), act_coefficients(**strengths))


def triangle_normals(vertices, triangles):
    a, b, c = (vertices[corner].astype(np.float64) for corner in triangles.T)
    return np.cross(b - a, c - a)


def directed_edges(triangles):
    return np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).astype(np.int64)


def test_bits_are_the_same_on_every_machine(model):
    assert model.sha256 == GOLDEN_SHA256, (
        "the open face model changed: shards that name the old one won't match; if that is meant, change the "
        "coefficient space's number with it"
    )


def test_sizes(model):
    assert model.id_basis.shape[0] == 199 and model.exp_basis.shape[0] == 29 and model.albedo_basis.shape[0] == 199
    assert 35_000 <= len(model.mean_shape) <= 50_000
    assert (model.layout, model.coefficients) == ("open", "open-face-1")
    assert DATA_FILE.stat().st_size < 6e6
    for array in (model.mean_shape, model.id_basis, model.exp_basis, model.mean_albedo, model.albedo_basis,
                  model.id_stddev, model.exp_stddev, model.albedo_stddev):
        assert array.dtype == np.float32 and np.isfinite(array).all()


def test_surface_is_one_manifold_disc_once_the_mouth_is_filled(model):
    count = len(model.mean_shape)
    for triangles, loops in ((model.triangles, 2), (np.concatenate([model.triangles, model.mouth_triangles]), 1)):
        edges = directed_edges(triangles)
        code = edges[:, 0] * count + edges[:, 1]
        assert len(np.unique(code)) == len(code)  # each side once a direction: manifold, consistently wound
        assert len(np.unique(triangles)) == count
        undirected = len(np.unique(np.sort(edges, 1), axis=0))
        assert count - undirected + len(triangles) == 2 - loops
        assert len(boundary_loops(triangles)) == loops
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(count, count))
    assert connected_components(graph, directed=False)[0] == 1


def test_triangles_have_area_and_face_outward(model):
    normals = triangle_normals(model.mean_shape, model.triangles)
    assert np.linalg.norm(normals, axis=1).min() / 2 > 1e-3  # mm^2
    centre = np.array([0, 0, 30])
    # all but the undersides of lids, lips and nostrils
    outward = ((model.mean_shape[model.triangles].mean(1) - centre) * normals).sum(1) > 0
    assert np.average(outward, weights=np.linalg.norm(normals, axis=1)) > 0.97
    assert triangle_normals(model.mean_shape, model.mouth_triangles)[:, 2].sum() > 0


def test_boundary_is_smooth(model):
    outline = model.mean_shape[boundary_loops(model.triangles)[0]].astype(np.float64)
    step = np.roll(outline, -1, axis=0) - outline
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    turn = np.degrees(np.arccos(np.clip((step * np.roll(step, -1, axis=0)).sum(1), -1, 1)))
    assert np.median(turn) < 3 and turn.max() < 25


def test_mirror_is_an_exact_involution(model):
    mirror = model.mirror
    assert (mirror[mirror] == np.arange(len(mirror))).all()
    on_plane = mirror == np.arange(len(mirror))
    assert (model.mean_shape[on_plane, 0] == 0).all() and on_plane.sum() > 100
    assert np.array_equal(model.mean_shape[mirror] * FLIP, model.mean_shape)
    assert np.array_equal(model.id_basis[:, mirror] * FLIP, model.id_basis)
    corners = np.sort(mirror[model.triangles], axis=1)
    assert np.array_equal(np.unique(corners, axis=0), np.unique(np.sort(model.triangles, axis=1), axis=0))
    assert np.array_equal(mirror[model.landmarks], model.landmarks[TWIN68])
    assert np.array_equal(model.regions[mirror], model.regions)


def test_left_movements_mirror_right_ones(model):
    names = list(expression_units())
    for name, basis in zip(names, model.exp_basis):
        mirrored = basis[model.mirror] * FLIP
        if name.endswith("_left"):
            expected = model.exp_basis[names.index(name.removesuffix("left") + "right")]
        elif name in ("jaw_side", "mouth_side"):
            expected = -basis
        elif not name.endswith("_right"):
            expected = basis
        else:
            continue
        assert np.abs(mirrored - expected).max() < 2e-3, name


def test_scale_and_axes_are_a_persons(model):
    points = model.mean_shape[model.landmarks]
    assert points[45, 0] > 0 > points[36, 0]  # the subject's left is +x, landmark 45 is the left eye's
    assert points[27, 1] > points[8, 1] and points[30, 2] > points[16, 2]
    assert 82 < np.linalg.norm(points[36] - points[45]) < 95
    assert 28 < np.linalg.norm(points[39] - points[42]) < 38
    assert 45 < np.linalg.norm(points[48] - points[54]) < 58
    assert 105 < points[27, 1] - points[8, 1] < 130
    assert 130 < np.ptp(model.mean_shape[:, 0]) < 160
    middle = (points[36] + points[45]) / 2
    assert middle == pytest.approx([0, 27, 85], abs=1.5)


def test_landmarks_follow_the_68_point_order(model):
    points = model.mean_shape[model.landmarks]
    assert len(np.unique(model.landmarks)) == 68
    assert (np.diff(points[:17, 0]) > 0).all()  # the jaw from the subject's right to left
    assert (np.diff(points[17:27, 0]) > 0).all()
    assert (np.diff(points[27:31, 1]) < 0).all() and (np.diff(points[31:36, 0]) > 0).all()
    assert (points[[27, 28, 29, 30, 33, 51, 57, 62, 66, 8], 0] == 0).all()
    for eye in (points[36:42], points[42:48]):
        assert eye[1:3, 1].min() > eye[4:6, 1].max() and eye[0, 0] < eye[1, 0] < eye[2, 0] < eye[3, 0]
    assert points[51, 1] > points[62, 1] > points[66, 1] > points[57, 1] > points[8, 1]
    assert points[17:27, 1].min() > points[36:48, 1].max()


@pytest.mark.real
def test_landmarks_lie_where_the_basel_models_do(model):
    if "DUALFACE_REAL_DATA" not in os.environ:
        pytest.skip("DUALFACE_REAL_DATA is not set: no real BFM mean to compare with")
    folder = Path(os.environ["DUALFACE_REAL_DATA"]) / "bfm_pieces_3ddfa"
    mean = (np.load(folder / "u_shp.npy") + np.load(folder / "u_exp.npy")).reshape(-1, 3) / 1000
    theirs = mean[np.load(folder / "keypoints_sim.npy").reshape(-1, 3)[:, 0] // 3].astype(np.float64)
    ours = model.mean_shape[model.landmarks].astype(np.float64)
    theirs, ours = theirs - theirs.mean(0), ours - ours.mean(0)
    u, s, vt = np.linalg.svd(ours.T @ theirs)
    scale = s.sum() / (theirs**2).sum()
    assert 0.93 < scale < 1.07
    assert np.linalg.norm(ours - scale * theirs @ (u @ vt).T, axis=1).mean() < 4.0


def test_identity_modes_are_orthogonal_and_their_stddevs_honest(model):
    # orthogonal on the coarse mesh they were found on: the vertices that subdivision keeps come first
    coarse = np.load(DATA_FILE)
    half, mirror = coarse["id_basis"], coarse["mirror"]
    half = np.ldexp(half.astype(np.float64), coarse["id_basis_exponent"][:, None, None])
    left = np.flatnonzero(np.arange(len(mirror)) <= mirror)
    weight = np.where(mirror[left] == left, 1.0, 2.0)
    flat = (half * np.sqrt(weight)[:, None]).reshape(199, -1)
    gram = flat @ flat.T
    norm = np.sqrt(np.diag(gram))
    assert norm * 1000 == pytest.approx(model.id_stddev.astype(np.float64), rel=1e-4)  # micrometres
    assert (np.diff(norm) < 0).all()
    assert np.abs(gram / np.outer(norm, norm) - np.eye(199)).max() < 2e-3
    # a face moves a few mm, and not by moving the head: no net shift up or forward
    assert 2 < np.sqrt((model.id_basis**2).sum((0, 2)).mean()) < 6
    assert np.abs((half * weight[:, None]).sum(1)[:, 1:] / weight.sum()).max() < 1e-4


def test_neutral_face_is_closed_mouth_and_open_eyes(model):
    points = model.mean_shape[model.landmarks]
    assert 0 <= points[62, 1] - points[66, 1] < 3
    assert min(points[43, 1] - points[47, 1], points[44, 1] - points[46, 1]) > 5


@pytest.mark.parametrize("name, left", [("blink_left", True), ("blink_right", False)])
def test_blink_closes_one_eye(model, name, left):
    points = posed(model, **{name: 1.0})[model.landmarks]
    gaps = {False: points[[37, 38], 1] - points[[41, 40], 1], True: points[[43, 44], 1] - points[[47, 46], 1]}
    assert np.abs(gaps[left]).max() < 1.5 and gaps[not left].min() > 5


def test_named_movements_do_what_they_say(model):
    neutral = model.mean_shape[model.landmarks]

    def moved(name: str) -> np.ndarray:
        return posed(model, **{name: 1.0})[model.landmarks] - neutral

    assert moved("jaw_open")[62, 1] - moved("jaw_open")[66, 1] > 20
    assert moved("jaw_open")[8, 1] < -15
    assert moved("smile_left")[54, 1] > 3 and abs(moved("smile_left")[48, 1]) < 1
    assert moved("smile_right")[48, 1] > 3 and abs(moved("smile_right")[54, 1]) < 1
    assert moved("frown_left")[54, 1] < -2
    assert moved("pucker")[54, 0] < -3 and moved("pucker")[48, 0] > 3
    assert moved("funnel")[62, 1] - moved("funnel")[66, 1] > 4 and moved("funnel")[54, 0] < -2
    assert moved("brow_inner_up")[[21, 22], 1].min() > 2
    assert moved("brow_down")[[21, 22], 1].max() < -2
    assert moved("eyes_wide")[[43, 37], 1].min() > 1
    assert moved("squint_left")[46, 1] > 0.5
    assert moved("jaw_side")[8, 0] > 2
    cheek = np.linalg.norm(posed(model, cheek_puff=1.0) - model.mean_shape, axis=1)
    assert cheek.max() > 8


def test_expression_units_are_unit_weights(model):
    units = expression_units()
    assert len(units) == 29
    for (name, coefficients), row in zip(units.items(), np.eye(29)):
        assert coefficients.dtype == np.float32
        assert coefficients * model.exp_stddev == pytest.approx(row), name


def test_an_unknown_movement_is_named():
    with pytest.raises(ValueError, match="a movement must be one of jaw_open, .*; got jaw_opne"):
        act_coefficients(jaw_opne=1.0)


def test_random_expressions_are_plausible_and_repeatable(model):
    first, again = (random_expressions(np.random.default_rng(3), 60) for _ in range(2))
    assert first.dtype == np.float32 and np.array_equal(first, again)
    assert set().union(*ACTS.values()) <= set(expression_units())
    lips = model.exp_basis[:, model.landmarks[[62, 66]], 1]
    opening = first @ (lips[:, 0] - lips[:, 1]) + np.ptp(model.mean_shape[model.landmarks[[62, 66]], 1])
    assert opening.min() > -8 and opening.max() > 15  # lips may fold and press, but don't pass through each other


def test_albedo_looks_like_skin_eyes_and_lips(model):
    albedo, points = model.mean_albedo, model.mean_shape
    assert 0 <= albedo.min() and albedo.max() <= 1

    def at(place) -> np.ndarray:
        return albedo[np.linalg.norm(points - place, axis=1).argmin()]

    marks = points[model.landmarks]
    cheek, forehead = at([40, -10, 90]), at([0, 70, 105])
    for skin in (cheek, forehead):
        assert skin[0] > skin[1] > skin[2] and 0.4 < skin.mean() < 0.75
    pupil = at((marks[42] + marks[45]) / 2)
    white = at((0.25 * marks[42] + 0.75 * marks[45]) + [0, -0.5, 1])
    assert pupil.max() < 0.2 < 0.5 < white.min()
    lips = at((marks[57] + marks[66]) / 2)
    assert lips[0] - lips[1] > forehead[0] - forehead[1] + 0.03
    assert at((marks[24] + [0, -2, 0])).mean() < forehead.mean() - 0.2  # the brow


def test_albedo_modes_are_independent_and_their_stddevs_honest(model):
    flat = model.albedo_basis.reshape(199, -1).astype(np.float64)
    norm = np.linalg.norm(flat, axis=1)
    assert model.albedo_stddev == pytest.approx(255 * norm, rel=1e-5)
    singular = np.linalg.svd(flat[:, ::7] / norm[:, None], compute_uv=False)
    assert singular[-1] > 0.02  # no mode is a sum of the others
    faces = model.mean_albedo + np.tensordot(
        np.random.default_rng(0).normal(size=(40, 199)), flat, 1
    ).reshape(40, -1, 3)
    assert ((faces < 0) | (faces > 1)).mean() < 0.02
    brightness = faces.mean((1, 2))
    assert brightness.min() < 0.4 and brightness.max() > 0.65  # dark and fair people


def test_regions(model):
    points = model.landmarks
    assert set(np.unique(model.regions)) == {REGIONS.index(name) for name in ("face", "eyes", "nose", "mouth")}
    of_part = {"eyes": range(36, 48), "nose": range(28, 36), "mouth": range(48, 68), "face": range(17)}
    for name, numbers in of_part.items():
        assert (model.regions[points[list(numbers)]] == REGIONS.index(name)).all(), name


def test_model_is_made_once():
    assert open_face_model() is open_face_model()
