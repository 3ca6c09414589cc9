import dataclasses

import numpy as np
import pytest
from toy import toy_model

from bfm.morphable_model import REGIONS


def test_shape_is_the_sum_of_its_modes():
    model, rng = toy_model(), np.random.default_rng(1)
    id_coeffs, exp_coeffs = rng.standard_normal((2, 5)), rng.standard_normal((2, 3))
    expected = model.mean_shape.astype(float)[None].repeat(2, 0)
    for b in range(2):
        for k in range(5):
            expected[b] += id_coeffs[b, k] * model.id_basis[k]
        for k in range(3):
            expected[b] += exp_coeffs[b, k] * model.exp_basis[k]
    assert np.abs(model.shape(id_coeffs, exp_coeffs) - expected).max() < 1e-5
    assert np.abs(model.shape(id_coeffs[1], exp_coeffs[1]) - expected[1]).max() < 1e-5
    neutral = model.shape(id_coeffs)
    assert np.abs(neutral + model.expression_offset(exp_coeffs) - expected).max() < 1e-5


def test_zero_coefficients_are_the_mean():
    model = toy_model()
    assert np.array_equal(model.shape(np.zeros(5, np.float32), np.zeros(3, np.float32)), model.mean_shape)
    assert np.array_equal(model.albedo(np.zeros(4, np.float32)), model.mean_albedo)


def test_torch_gives_the_same_numbers():
    torch = pytest.importorskip("torch")
    model, rng = toy_model(), np.random.default_rng(2)
    id_coeffs, exp_coeffs = (rng.standard_normal((4, k)).astype(np.float32) for k in (5, 3))
    there = model.to("cpu")
    shape = there.shape(torch.tensor(id_coeffs), torch.tensor(exp_coeffs))
    assert shape.dtype == torch.float32
    assert np.abs(shape.numpy() - model.shape(id_coeffs, exp_coeffs)).max() < 1e-4
    albedo_coeffs = rng.standard_normal((4, 4)).astype(np.float32)
    assert np.abs(there.albedo(torch.tensor(albedo_coeffs)).numpy() - model.albedo(albedo_coeffs)).max() < 1e-6
    assert there.triangles.dtype == torch.int64


def test_take_keeps_what_hangs_together():
    model = toy_model()
    keep = np.flatnonzero(model.mean_shape[:, 1] > -80)
    keep = np.union1d(keep, model.landmarks)[::-1]  # any order
    part = model.take(keep, "part")
    coeffs = np.random.default_rng(0).standard_normal(5)
    assert np.allclose(part.shape(coeffs), model.shape(coeffs)[keep], atol=1e-5)
    assert np.array_equal(part.mean_shape[part.landmarks], model.mean_shape[model.landmarks])
    kept = np.isin(model.triangles, keep).all(axis=1)
    assert np.array_equal(part.mean_shape[part.triangles], model.mean_shape[model.triangles[kept]])
    paired = part.mirror != np.arange(len(keep))
    assert np.allclose(part.mean_shape[part.mirror][paired], part.mean_shape[paired] * [-1, 1, 1], atol=1e-4)


def test_face_only_drops_the_outside():
    model = toy_model()
    regions = model.regions.copy()
    regions[:17] = REGIONS.index("outside")  # the top row holds no landmark
    face = dataclasses.replace(model, regions=regions).face_only()
    assert len(face.mean_shape) == len(model.mean_shape) - 17
    assert face.layout == "toy-face"
    assert model.face_only() is model


def test_losing_a_landmark_is_refused():
    model = toy_model()
    with pytest.raises(ValueError, match="include all 68 landmarks; landmark 0 is missing"):
        model.take(np.setdiff1d(np.arange(len(model.mean_shape)), model.landmarks[:1]), "part")


def test_hash_sees_every_array_and_no_text():
    model = toy_model()
    assert model.sha256 == toy_model().sha256
    assert dataclasses.replace(model, name="other").sha256 == model.sha256
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if isinstance(value, np.ndarray):
            changed = value.copy()
            changed.flat[0] = changed.flat[0] + 1
            assert dataclasses.replace(model, **{field.name: changed}).sha256 != model.sha256, field.name


def test_hash_sees_types_and_which_basis_a_mode_is_of():
    model = toy_model()
    assert dataclasses.replace(model, regions=model.regions.view(np.int8)).sha256 != model.sha256
    first, rest = model.id_basis[:1], model.id_basis[1:]
    moved = dataclasses.replace(
        model, id_basis=first, id_stddev=model.id_stddev[:1], exp_basis=np.concatenate([rest, model.exp_basis]),
        exp_stddev=np.concatenate([model.id_stddev[1:], model.exp_stddev]),
    )
    assert moved.sha256 != model.sha256


@pytest.mark.parametrize("field, value, message", [
    ("id_basis", np.zeros((5, 10, 3)), r"id_basis must have shape \(K, 357, 3\)"),
    ("exp_stddev", np.zeros(4), r"exp_stddev must have shape \(3,\)"),
    ("albedo_basis", np.zeros((4, 357, 4)), r"albedo_basis must have shape \(K, 357, 3\).*, got \(4, 357, 4\)"),
    ("id_basis", np.zeros((5, 357)), r"id_basis must have shape \(K, 357, 3\) to match mean_shape, got \(5, 357\)"),
    ("landmarks", np.zeros(67, np.int32), r"landmarks must have shape \(68,\), got \(67,\)"),
    ("mean_albedo", np.zeros((357, 4)), r"mean_albedo must have shape \(357, 3\), got \(357, 4\)"),
    ("mirror", np.zeros(356, int), r"mirror must have shape \(357,\), got \(356,\)"),
    ("regions", np.zeros(358, int), r"regions must have shape \(357,\), got \(358,\)"),
    ("uv", np.zeros((357, 3)), r"uv must have shape \(357, 2\), got \(357, 3\)"),
    ("triangles", np.zeros((5, 4), int), r"triangles must have shape \(5, 3\), got \(5, 4\)"),
    ("mouth_triangles", np.zeros(0, int), r"mouth_triangles must have shape \(0, 3\), got \(0,\)"),
    ("mean_shape", np.zeros((357, 2)), r"mean_shape must have shape \(357, 3\), got \(357, 2\)"),
    ("mouth_triangles", np.array([[0, 1, -1]]), "mouth_triangles must index 357 vertices from 0, got -1 to 1"),
    ("landmarks", np.full(68, 357), "landmarks must index 357 vertices from 0, got 357 to 357"),
    ("mirror", np.full(357, -1), "mirror must index 357 vertices from 0, got -1 to -1"),
    ("triangles", np.array([[0, 1, 357]]), "triangles must index 357 vertices from 0, got 0 to 357"),
])
def test_what_does_not_fit_is_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(toy_model(), **{field: value})


def test_wrong_coefficient_counts_are_refused():
    with pytest.raises(ValueError, match=r"id_coeffs must have shape \(\.\.\., 5\) to match id_basis, got \(4,\)"):
        toy_model().shape(np.zeros(4))


def test_a_model_without_texture_says_so():
    assert toy_model(albedo_modes=1).has_albedo and not toy_model(albedo_modes=0).has_albedo
    with pytest.raises(ValueError, match="has no texture"):
        toy_model(albedo_modes=0).albedo(np.zeros(0))
