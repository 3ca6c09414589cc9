"""Light and albedo from a rendered photo whose truth is known."""

import numpy as np
import pytest
from toy import toy_model

from asmgen.photometry import ALBEDO_SIGMA, Look, Photometry, _hidden
from bfm.light import sh_basis
from bfm.open_face import open_face_model
from bfm.pose import project, rotation_matrix
from bfm.render import camera_vertices, render, vertex_normals, visible_vertices

MODEL = toy_model(rows=101, columns=81)
PHOTOMETRY = Photometry(MODEL)
POSITION = np.array([100.0, 100.0, 0.9])


def photo(yaw=0.3, albedo_scale=1.0, seed=0):
    """A noiseless photo and its truth: id, exp, albedo coefficients, pose, light, normals in sight."""
    rng = np.random.default_rng(seed)
    id_coeffs, exp_coeffs = rng.normal(size=5).astype(np.float32), rng.normal(size=3).astype(np.float32)
    albedo_coeffs = (albedo_scale * rng.normal(size=4)).astype(np.float32)
    light = np.array([2.6, 0.3, 0.6, 0.4, 0.05, 0.05, 0.1, 0.05, -0.05], np.float32)
    pose = np.array([0.1, yaw, 0.05])
    points = project(MODEL.shape(id_coeffs, exp_coeffs), pose, POSITION)
    normals = vertex_normals(camera_vertices(points), MODEL.triangles)
    colours = MODEL.albedo(albedo_coeffs) * (sh_basis(normals) @ light)[:, None]
    image = render(points, colours, MODEL.triangles, np.zeros((200, 200, 3), np.uint8))
    return image, (id_coeffs, exp_coeffs, albedo_coeffs, pose), light, normals[normals[:, 2] > 0.2]


@pytest.mark.parametrize("yaw", [-0.8, 0.0, 0.8])
def test_light_of_a_known_face_comes_back(yaw):
    image, (id_coeffs, exp_coeffs, albedo_coeffs, pose), light, normals = photo(yaw)
    found, residual = PHOTOMETRY.fit_light(image, id_coeffs, exp_coeffs, albedo_coeffs, pose, POSITION)
    assert found.shape == (9,) and found.dtype == np.float32
    difference = np.abs(sh_basis(normals) @ (found - light))
    assert difference.mean() < 0.006 and np.quantile(difference, 0.99) < 0.03
    assert residual < 0.02


def test_light_survives_a_bar_across_the_photo():
    image, (id_coeffs, exp_coeffs, albedo_coeffs, pose), light, normals = photo()
    image[90:105] = 30
    found, residual = PHOTOMETRY.fit_light(image, id_coeffs, exp_coeffs, albedo_coeffs, pose, POSITION)
    np.testing.assert_allclose(sh_basis(normals) @ found, sh_basis(normals) @ light, atol=0.06)
    assert residual > 0.05  # and the score tells


def test_no_albedo_coefficients_means_the_mean_albedo():
    image, (id_coeffs, exp_coeffs, _, pose), _, _ = photo(albedo_scale=0)
    zeros = PHOTOMETRY.fit_light(image, id_coeffs, exp_coeffs, np.zeros(4, np.float32), pose, POSITION)
    for absent in (None, np.zeros(0, np.float32)):
        found = PHOTOMETRY.fit_light(image, id_coeffs, exp_coeffs, absent, pose, POSITION)
        np.testing.assert_array_equal(found[0], zeros[0])


@pytest.mark.parametrize("sigma, residual_limit, albedo_limit", [(ALBEDO_SIGMA, 0.05, 0.045), (0.01, 0.025, 0.0005)])
def test_albedo_and_light_explain_the_photo_together(monkeypatch, sigma, residual_limit, albedo_limit):
    monkeypatch.setattr("asmgen.photometry.ALBEDO_SIGMA", sigma)  # at 0.01 the photo outweighs the prior
    image, (id_coeffs, exp_coeffs, albedo_coeffs, pose), light, normals = photo(albedo_scale=2.0, seed=3)
    truth = MODEL.albedo(albedo_coeffs)
    assert PHOTOMETRY.fit_light(image, id_coeffs, exp_coeffs, None, pose, POSITION)[1] > 0.06
    assert np.abs(truth - MODEL.mean_albedo).mean() > 0.1
    found, found_light, residual = PHOTOMETRY.fit_albedo_and_light(image, id_coeffs, exp_coeffs, pose, POSITION)
    assert residual < residual_limit
    guess = MODEL.albedo(found)
    gain = (truth * guess).sum() / (guess * guess).sum()  # brightness is shared between the two
    assert np.abs(gain * guess - truth).mean() < albedo_limit
    assert np.abs(sh_basis(normals) @ (found_light / gain - light)).mean() < 0.01


def test_nearer_sample_hides_the_one_behind_it():
    placed = np.array([[0, 0, 0], [1, 1, 30], [1, 1, 29], [50, 0, 0], [0, 50, 18], [1, 51, 25]], float)
    hidden = [True, False, False, False, False, False]
    np.testing.assert_array_equal(_hidden(np.stack([placed, placed[::-1]])), [hidden, hidden[::-1]])
    # what lies beyond the last of 64 cells shares it, and no other's
    far = np.array([[0, 0, 0], [0, 7, 0], [385, 0, 30], [900, 0, 60], [0, 700, 90]], float)
    np.testing.assert_array_equal(_hidden(far[None]), [[False, False, True, False, False]])


@pytest.mark.parametrize("channel", range(3))
def test_the_brightest_channel_tells_what_is_black_or_saturated(channel):
    for level, is_seen in ((4, False), (5, True), (249, True), (250, False)):
        image = np.zeros((200, 200, 3), np.uint8)
        image[..., channel] = level
        look = PHOTOMETRY.look([image], np.zeros((1, 5), np.float32), np.zeros((1, 3), np.float32), np.zeros((1, 3)),
                               POSITION[None])
        assert look.seen.any() == is_seen and look.colours.dtype == np.float32
        np.testing.assert_allclose(look.colours[look.seen][:, channel], level / 255, rtol=1e-6)


def test_a_look_is_enough_from_60_samples_on():
    seen = np.zeros((2, 90), bool)
    seen[0, :60] = seen[1, 20:79] = True
    look = Look(np.zeros((2, 90, 3), np.float32), np.zeros((2, 90, 3), np.float32), seen)
    np.testing.assert_array_equal(look.enough, [True, False])
    look.check(0)
    with pytest.raises(ValueError, match="at least 60 surface samples must be in sight, .* got 59;"):
        look.check(1)
    np.testing.assert_array_equal(look.take([1]).seen, seen[1:])


def test_a_face_off_the_photo_or_overexposed_is_refused():
    image, (id_coeffs, exp_coeffs, _, pose), _, _ = photo()
    with pytest.raises(ValueError, match="at least 60 surface samples .* got 0; the face is mostly outside"):
        PHOTOMETRY.fit_light(image, id_coeffs, exp_coeffs, None, pose, np.array([900, 100, 0.9]))
    for level in (0, 255):
        with pytest.raises(ValueError, match="badly exposed"):
            PHOTOMETRY.fit_albedo_and_light(np.full_like(image, level), id_coeffs, exp_coeffs, pose, POSITION)


def test_samples_lie_below_the_brows_and_between_the_ears():
    """Up to 8 mm above the brows, and 0.9 of the jaw's half width, which they reach to a triangle."""
    model = open_face_model()
    x, y, _ = Photometry(model)._mean[0, 0]
    jaw, brows = model.mean_shape[model.landmarks[:17]], model.mean_shape[model.landmarks[17:27]]
    assert 0 < brows[:, 1].max() + 8 - y.max() < 3
    for side in (x, -x):
        assert 0 < 0.9 * np.abs(jaw[:, 0]).max() - side.max() < 3
    assert y.min() - jaw[:, 1].min() < 10 and 700 < len(x) <= 800


def test_samples_used_are_the_visible_ones():
    _, (id_coeffs, exp_coeffs, _, _), _, _ = photo()
    image = np.full((200, 200, 3), 128, np.uint8)
    pose = np.array([0.0, 1.0, 0.0])
    points = project(MODEL.shape(id_coeffs, exp_coeffs), pose, POSITION)
    exact = visible_vertices(points, MODEL.triangles, 200, 200)
    look = PHOTOMETRY.look([image], id_coeffs[None], exp_coeffs[None], pose[None], POSITION[None])
    places = PHOTOMETRY._mean[0, 0].T[look.seen[0]]
    nearest = np.linalg.norm(MODEL.mean_shape[None] - places[:, None], axis=2).argmin(axis=1)
    assert exact[nearest].mean() > 0.99
    assert 0.15 < look.normals[look.seen][:, 2].min() < 0.17
    np.testing.assert_allclose(np.linalg.norm(look.normals, axis=2), 1, atol=1e-5)


def test_normals_turn_with_the_face():
    """To the last bits of float32, which poses and places have."""
    pose, coeffs = np.array([0.1003, 0.7003, -0.2003]), (np.ones((1, 5), np.float32), np.ones((1, 3), np.float32))
    image = np.full((200, 200, 3), 128, np.uint8)
    before, after = (PHOTOMETRY.look([image], *coeffs, at[None], POSITION[None]) for at in (0 * pose, pose))
    np.testing.assert_allclose(after.normals, before.normals @ rotation_matrix(pose).T, atol=1e-6)
    assert before.normals.dtype == np.float32


def test_what_is_seen_does_not_hang_on_the_resolution_of_the_photo():
    pose, seen = np.array([0.1, 1.1, 0.2]), []
    for times in (1, 4):
        position = times * POSITION
        image = np.full((200 * times, 200 * times, 3), 128, np.uint8)
        zeros = np.zeros((1, 5), np.float32), np.zeros((1, 3), np.float32)
        seen.append(PHOTOMETRY.look([image], *zeros, pose[None], position[None]).seen)
    assert 400 < seen[0].sum() < 600 and (seen[0] != seen[1]).sum() <= 1


def test_albedo_survives_something_before_the_face():
    image, (id_coeffs, exp_coeffs, albedo_coeffs, pose), _, _ = photo()
    image[100:150, 100:150] = (10, 10, 120)
    found, _, _ = PHOTOMETRY.fit_albedo_and_light(image, id_coeffs, exp_coeffs, pose, POSITION)
    truth, guess = MODEL.albedo(albedo_coeffs), MODEL.albedo(found)
    gain = (truth * guess).sum() / (guess * guess).sum()
    assert np.abs(gain * guess - truth).mean() < 0.011  # 0.014 with every sample, 0.040 for the mean albedo


def test_photos_of_a_batch_may_have_any_sizes():
    image, (id_coeffs, exp_coeffs, albedo_coeffs, pose), _, _ = photo()
    wide = np.pad(image, ((0, 40), (0, 70), (0, 0)))
    batch = (np.stack([part, part]) for part in (id_coeffs, exp_coeffs, pose))
    look = PHOTOMETRY.look([image, wide], *batch, np.stack([POSITION, POSITION]))
    np.testing.assert_array_equal(look.seen[0], look.seen[1])
    np.testing.assert_array_equal(look.colours[0][look.seen[0]], look.colours[1][look.seen[0]])
