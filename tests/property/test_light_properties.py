"""What must hold for any light: turning and mirroring pictures, the same numbers in numpy and torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bfm.light import fit_light, mirror_light, rotate_light_in_plane, sh_basis
from bfm.pose import rotation_matrix

lights = hnp.arrays(np.float64, (4, 9), elements=st.floats(-5, 5))
angles = hnp.arrays(np.float64, 4, elements=st.floats(-7, 7))


def unit_normals(count, seed=0):
    normals = np.random.default_rng(seed).normal(size=(count, 3))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


@given(lights, angles)
def test_turning_the_picture_turns_the_light(light, angle):
    normals = unit_normals(20)
    turn = rotation_matrix(np.stack([0 * angle, 0 * angle, angle], -1))
    turned = normals @ turn.swapaxes(1, 2)
    after = sh_basis(turned) @ rotate_light_in_plane(light, angle)[..., None]
    np.testing.assert_allclose(after[..., 0], light @ sh_basis(normals).T, atol=1e-12)


@given(lights)
def test_mirroring_the_picture_mirrors_the_light(light):
    normals = unit_normals(20)
    np.testing.assert_array_equal(
        sh_basis(normals * [-1, 1, 1]) * mirror_light(light)[0], sh_basis(normals) * light[0]
    )
    np.testing.assert_array_equal(mirror_light(mirror_light(light)), light)


@given(lights, angles)
def test_torch_gives_the_same_numbers(light, angle):
    normals = unit_normals(12)
    for function, inputs in (
        (sh_basis, (normals,)), (rotate_light_in_plane, (light, angle)), (mirror_light, (light,)),
    ):
        result = function(*map(torch.as_tensor, inputs))
        assert isinstance(result, torch.Tensor)
        np.testing.assert_allclose(result.numpy(), function(*inputs), rtol=1e-12, atol=1e-13)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3]))
def test_a_fit_explains_the_shading_it_was_shown(seed, spoiled):
    rng = np.random.default_rng(seed)
    normals = unit_normals(2000, seed)
    normals[:, 2] = np.abs(normals[:, 2])  # what a camera sees
    albedo = rng.uniform(0.2, 0.7, (2000, 3))
    light = np.array([3.0, *rng.uniform(-0.25, 0.25, 8)])
    shading = sh_basis(normals) @ light
    colours = albedo * shading[:, None]
    bad = rng.random(2000) < spoiled
    colours[bad] = rng.uniform(0, 0.15, (bad.sum(), 3))  # hair
    colours[:5] = 1.0  # highlights
    fitted, residual = fit_light(albedo, colours, normals)
    np.testing.assert_allclose(sh_basis(normals) @ fitted, shading, atol=0.01)
    bad[:5] = False
    expected = np.sqrt(((albedo * shading[:, None] - colours)[5:] ** 2).mean())
    assert residual == pytest.approx(expected, abs=2e-3) and (spoiled or residual < 2e-3)
