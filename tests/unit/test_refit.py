"""Fitting a model to 68 landmarks, and albedo and light to a photo."""

import numpy as np
import pytest
from toy import toy_model

from asmgen.refit import LandmarkFitter, Refitter
from bfm.morphable_model import REGIONS
from bfm.open_face import open_face_model
from bfm.pose import project, rotation_matrix

MODEL = toy_model()
FITTER = LandmarkFitter(MODEL)
FACE = open_face_model()


def truth(seed, yaw_degrees):
    """A random face and placement: coefficients, pose, position and its landmarks."""
    rng = np.random.default_rng(seed)
    id_coeffs, exp_coeffs = rng.normal(size=5), rng.normal(size=3)
    pose = np.radians([rng.normal(0, 15), yaw_degrees, rng.normal(0, 15)])
    position = np.array([220.0, 240.0, rng.uniform(0.8, 1.8)])
    points = project(MODEL.shape(id_coeffs, exp_coeffs)[MODEL.landmarks], pose, position)[:, :2]
    return id_coeffs, exp_coeffs, pose, position, points


def angle_between(pose, other):
    """Degrees from one rotation to another."""
    turn = rotation_matrix(np.asarray(pose, float)).T @ rotation_matrix(other)
    return np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))


@pytest.mark.parametrize("yaw", [-90, -80, -45, 0, 20, 60, 80, 90])
def test_landmarks_and_pose_come_back(yaw):
    for seed in range(5):
        id_coeffs, exp_coeffs, pose, position, points = truth(seed, yaw)
        fit = FITTER.fit(points)
        assert fit.landmark_error < 0.5
        assert angle_between(fit.pose, pose) < 2
        shape = MODEL.shape(fit.id_coeffs, fit.exp_coeffs)[MODEL.landmarks]
        placed = project(shape, fit.pose, fit.position)[:, :2]
        assert np.linalg.norm(placed - points, axis=1).mean() == pytest.approx(fit.landmark_error, abs=1e-3)
        again = FITTER.fit(points)
        assert all((getattr(fit, key) == getattr(again, key)).all() for key in ("id_coeffs", "pose", "position"))


def test_trusted_labels_give_the_coefficients_back():
    id_coeffs, exp_coeffs, pose, position, points = truth(1, 30)
    fit = LandmarkFitter(MODEL, landmark_sigma=0.01).fit(points)
    np.testing.assert_allclose(fit.id_coeffs, id_coeffs, atol=0.02)
    np.testing.assert_allclose(fit.exp_coeffs, exp_coeffs, atol=0.02)
    np.testing.assert_allclose(fit.position, position, rtol=1e-3)


def test_untrusted_labels_give_the_mean_face():
    points = truth(2, 10)[-1]
    fit = LandmarkFitter(MODEL, landmark_sigma=1000).fit(points)
    assert np.abs(fit.id_coeffs).max() < 0.01 and np.abs(fit.exp_coeffs).max() < 0.01


def test_fit_does_not_depend_on_the_unit_of_pixels():
    points = truth(3, -35)[-1]
    small, large = FITTER.fit(points), FITTER.fit(4 * points)
    np.testing.assert_allclose(large.id_coeffs, small.id_coeffs, atol=1e-4)
    np.testing.assert_allclose(large.position, 4 * small.position, rtol=1e-5)


def on_the_outline(points, pose):
    """Labels of a posed open face, (V, 3) pixels, whose far jaw is that of people: of the skin at a jaw point's height
    what lies furthest out, square to the axis of the head."""
    labels = points[FACE.landmarks, :2].copy()
    far, side = (range(8), -1) if pose[1] > 0 else (range(9, 17), 1)
    skin = np.isin(FACE.regions, [REGIONS.index(name) for name in ("face", "nose", "mouth")])
    outward = side * points[:, :2] @ rotation_matrix(pose)[[1, 0], 1]
    for index in far:
        near = np.abs(FACE.mean_shape[:, 1] - FACE.mean_shape[FACE.landmarks[index], 1]) < 1.5
        of_this_height = np.flatnonzero(skin & near & (side * FACE.mean_shape[:, 0] >= 0))
        labels[index] = points[of_this_height[outward[of_this_height].argmax()], :2]
    return labels


@pytest.mark.parametrize("yaw, misled", [(-70, 25), (-45, 9), (-20, 2), (20, 2), (45, 9), (70, 25)])
def test_labels_of_a_far_jaw_that_is_the_outline_give_the_pose(yaw, misled):
    """That of labels on the jaw itself; a fit that takes the outline for the jaw is misled by so many degrees."""
    fitter, marched, kept = LandmarkFitter(FACE), [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        pose, position = np.radians([rng.normal(0, 10), yaw, rng.normal(0, 20)]), np.array([128, 140, 1.0])
        points = project(FACE.shape(rng.normal(size=len(FACE.id_basis))), pose, position)
        labels, wanted = on_the_outline(points, pose), fitter.fit(points[FACE.landmarks, :2]).pose
        fit = fitter.fit(labels, "2d")
        assert fit.landmark_error < 0.6
        marched.append(angle_between(fit.pose, wanted))
        kept.append(angle_between(fitter.fit(labels, "3d").pose, wanted))
    assert max(marched) < 1.5 and np.mean(kept) > misled


@pytest.mark.parametrize("landmarks, words", [
    (np.zeros((67, 2)), r"68 finite points, got an array of shape \(67, 2\)"),
    (np.full((68, 2), np.nan), "68 finite points"),
    (np.arange(136.0).reshape(68, 2), "span an area"),
])
def test_degenerate_landmarks_are_refused(landmarks, words):
    with pytest.raises(ValueError, match=words):
        FITTER.fit(landmarks)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="landmark_sigma must be positive millimetres, got 0"):
        LandmarkFitter(MODEL, 0)
    with pytest.raises(ValueError, match="kind must be '2d' or '3d', got '4d'"):
        FITTER.fit(truth(0, 0)[-1], "4d")
    assert Refitter
