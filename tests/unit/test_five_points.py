"""The pose of the mean face from five points, and the square that it gives."""

import numpy as np
import pytest
from scipy.optimize import brentq, least_squares

from asmgen.crop import face_square
from asmgen.five_points import five_point_square, five_points, landmarks_from_five
from bfm.open_face import open_face_model
from bfm.pose import project

MODEL = open_face_model()
POSES = [(0.0, 0.0, 0.0), (0.3, -0.7, 0.2), (-0.4, 1.3, -0.5), (0.1, 0.4, 3.0)]


def placed(shape: np.ndarray, pose: tuple, position: tuple = (120.0, 90.0, 0.7)) -> np.ndarray:
    return project(shape[MODEL.landmarks].astype(np.float64), np.array(pose), np.array(position))[:, :2]


@pytest.mark.parametrize("pose", POSES)
def test_the_mean_face_gives_its_own_landmarks(pose):
    landmarks = placed(MODEL.mean_shape, pose)
    before = five_points(landmarks)
    np.testing.assert_allclose(landmarks_from_five(before), landmarks, atol=1e-6)
    np.testing.assert_allclose(five_point_square(before), face_square(landmarks), atol=1e-6)


def test_the_five_are_eyes_nose_and_mouth():
    points = np.arange(136.0).reshape(68, 2)
    np.testing.assert_array_equal(five_points(points)[:, 0], [77, 89, 60, 96, 108])
    eyes_nose_mouth = five_points(placed(MODEL.mean_shape, POSES[0])) - (120, 90)
    assert (np.sign(eyes_nose_mouth[:, 0].round(3)) == [-1, 1, 0, -1, 1]).all()
    assert (np.diff(eyes_nose_mouth[[0, 2, 3], 1]) > 10).all()


@pytest.mark.parametrize("seed", range(8))
def test_the_fit_is_that_of_a_general_solver(seed):
    """Points that are off by some pixels: scipy's least squares, from the definition, ends at the same landmarks."""
    rng = np.random.default_rng(seed)
    pose, position = rng.uniform([-0.4, -1.2, -0.4], [0.4, 1.2, 0.4]), np.array([120, 110, 0.9])
    mean = MODEL.mean_shape[MODEL.landmarks].astype(np.float64)
    points = five_points(project(mean, pose, position)[:, :2]) + rng.normal(0, 3, (5, 2))

    def missed(placement: np.ndarray) -> np.ndarray:
        return (project(five_points(mean), placement[:3], placement[3:])[:, :2] - points).ravel()

    found = least_squares(missed, np.concatenate([pose, position]), x_scale=[0.1, 0.1, 0.1, 5, 5, 0.05], xtol=1e-12).x
    wanted = project(mean, found[:3], found[3:])[:, :2]
    np.testing.assert_allclose(landmarks_from_five(points), wanted, atol=0.02)


def test_squares_of_random_faces():
    """How far they are from those of the landmarks, for faces of every shape, expression and pose."""
    rng, at = np.random.default_rng(0), MODEL.landmarks
    modes = np.concatenate([MODEL.id_basis[:, at], MODEL.exp_basis[:, at]])
    sides, shifts = [], []
    for _ in range(200):
        shape = MODEL.mean_shape[at] + np.tensordot(rng.normal(size=len(modes)), modes, 1)
        landmarks = project(shape, rng.uniform([-0.4, -1.2, -0.4], [0.4, 1.2, 0.4]), np.array([120, 110, 0.9]))[:, :2]
        square, wanted = np.array(five_point_square(five_points(landmarks))), np.array(face_square(landmarks))
        sides.append(abs(np.log(square[2] / wanted[2])))
        shifts.append(np.linalg.norm((square - wanted)[:2] + (square - wanted)[2] / 2) / wanted[2])
    found = [np.quantile(values, share) for values in (sides, shifts) for share in (0.5, 0.95)]
    np.testing.assert_allclose(found, [0.031, 0.098, 0.019, 0.042], rtol=0.05)


@pytest.mark.parametrize("change", [
    lambda points: points[[1, 0, 2, 3, 4]], lambda points: points[[0, 1, 2, 4, 3]],
    lambda points: points[[1, 0, 2, 4, 3]], lambda points: points[[3, 4, 2, 0, 1]],
], ids=["eyes", "mouth", "both", "mouth above"])
def test_points_that_are_no_face_are_refused(change):
    points = change(five_points(placed(MODEL.mean_shape, (0.1, 0.3, 0.1))) - (120, 90))
    with pytest.raises(ValueError, match="five points must be two eyes, the nose and two corners"):
        landmarks_from_five(points)


@pytest.mark.parametrize("yaw", [-1, 1])
def test_a_face_is_seen_up_to_120_degrees(yaw):
    seen = placed(MODEL.mean_shape, (0.0, yaw * np.radians(119), 0.0))
    np.testing.assert_allclose(landmarks_from_five(five_points(seen)), seen, atol=1e-6)
    with pytest.raises(ValueError, match="seen from the front or a side"):
        landmarks_from_five(five_points(placed(MODEL.mean_shape, (0.0, yaw * np.radians(121), 0.0))))


def test_points_may_be_16_mm_from_those_of_the_mean_face():
    """Root mean square of the five, where a general solver says that it is reached."""
    mean, start = five_points(MODEL.mean_shape[MODEL.landmarks].astype(np.float64)), np.array([0, 0, 0, 1, 1, 1.0])
    aside = np.random.default_rng(0).normal(size=(5, 2))

    def points(far: float) -> np.ndarray:
        return project(mean, start[:3], start[3:])[:, :2] + far * aside

    def residual(far: float) -> float:
        fit = least_squares(lambda at: (project(mean, at[:3], at[3:])[:, :2] - points(far)).ravel(), start)
        return np.sqrt((fit.fun**2).sum() / 5) / fit.x[5]

    far = brentq(lambda far: residual(far) - 16, 10, 25, xtol=1e-3)
    assert landmarks_from_five(points(0.99 * far)).shape == (68, 2)
    with pytest.raises(ValueError, match="are not those of a face"):
        landmarks_from_five(points(1.01 * far))


def test_points_must_be_five_finite_and_apart():
    one_lost = np.arange(10.0).reshape(5, 2)
    one_lost[3, 1] = np.nan
    for wrong, message in (
        (np.zeros((4, 2)), r"got shape \(4, 2\)"), (np.full((5, 2), np.nan), "five finite points"),
        (one_lost, "five finite points"), (np.full((5, 2), 7.0), "span at least a pixel"),
    ):
        with pytest.raises(ValueError, match=message):
            landmarks_from_five(wrong)
