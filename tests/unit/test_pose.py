"""Placement by hand: which way each angle and offset moves a face."""

import numpy as np
import pytest

from bfm.pose import (
    mirror_placement, pose_from_rotation, project, project_homogeneous, rotation_matrix, transform_placement,
)

NOSE, LEFT_EAR, CHIN = np.array([0.0, 0, 100]), np.array([70.0, 0, 0]), np.array([0.0, -90, 60])
CENTRED = np.array([120.0, 80.0, 2.0])


def placed(pose, position=CENTRED, distance=np.inf):
    return project(np.stack([NOSE, LEFT_EAR, CHIN]), np.radians(np.array(pose, float)), position, distance)


def test_a_frontal_face_by_hand():
    nose, left_ear, chin = placed([0, 0, 0])
    assert nose.tolist() == [120, 80, 200]
    assert left_ear.tolist() == [260, 80, 0]  # the subject's left is the image's right
    assert chin.tolist() == [120, 260, 120]  # down in the image


def test_quarter_turns_by_hand():
    # 300W-LP: positive pitch looks up, positive yaw to the image's left, positive roll turns clockwise
    np.testing.assert_allclose(placed([90, 0, 0])[0], [120, 80 - 200, 0], atol=1e-12)
    np.testing.assert_allclose(placed([0, 90, 0])[0], [120 - 200, 80, 0], atol=1e-12)
    np.testing.assert_allclose(placed([0, 90, 0])[1], [120, 80, 140], atol=1e-12)
    np.testing.assert_allclose(placed([0, 0, 90])[1], [120, 80 + 140, 0], atol=1e-12)


def test_turns_are_applied_roll_first():
    np.testing.assert_allclose(placed([0, 90, 90])[1], [120, 80 + 140, 0], atol=1e-12)
    np.testing.assert_allclose(placed([90, 90, 0])[1], [120, 80 - 140, 0], atol=1e-12)


def test_a_near_camera_by_hand():
    # from 400 mm the nose is at three quarters of the origin's distance, the chin at 340 / 400
    nose, left_ear, chin = placed([0, 0, 0], distance=400.0)
    assert nose.tolist() == [120, 80, 200 / 0.75]
    assert left_ear.tolist() == [260, 80, 0]
    np.testing.assert_allclose(chin, [120, 80 + 180 / 0.85, 120 / 0.85])
    # a quarter turn to the right swings the left ear to the back: 470 mm away
    np.testing.assert_allclose(placed([0, -90, 0], distance=400.0)[1], [120, 80, -140 / (470 / 400)], atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_infinitely_distant_camera_is_scaled_orthographic_to_the_bit(dtype):
    rng = np.random.default_rng(0)
    vertices, pose = rng.normal(0, 60, (4, 300, 3)).astype(dtype), rng.normal(size=(4, 3)).astype(dtype)
    position = rng.uniform([0, 0, 0.1], [400, 400, 3], (4, 3)).astype(dtype)
    turned = vertices @ rotation_matrix(pose).swapaxes(1, 2) * position[:, None, 2:]
    expected = turned * np.array([1, -1, 1], dtype) + np.concatenate([position[:, :2], 0 * position[:, :1]], 1)[:, None]
    for points in (project(vertices, pose, position), project_homogeneous(vertices, pose, position)[..., :3]):
        assert np.array_equal(points, expected) and points.dtype == dtype
    assert (project_homogeneous(vertices, pose, position)[..., 3] == 1).all()


def test_beside_and_behind_the_camera_homogeneous_points_by_hand():
    points = project_homogeneous(np.array([[10.0, 20, 50], [10, 20, 100], [10, 20, 150]]), np.zeros(3), CENTRED, 100.0)
    assert points.tolist() == [[80, 0, 100, 0.5], [20, -40, 200, 0], [-40, -80, 300, -0.5]]


@pytest.mark.parametrize("distance", [0.0, -1000.0, np.nan])
@pytest.mark.parametrize("function", [project, project_homogeneous])
def test_refuses_a_camera_that_is_not_before_the_face(function, distance):
    with pytest.raises(ValueError, match="distance must be positive, in mm"):
        function(np.zeros((1, 3)), np.zeros(3), CENTRED, distance)


def test_an_in_plane_turn_of_a_frontal_face_is_roll():
    turn = np.array([[0.0, -1, 0], [1, 0, 0]])  # x right goes to y down: clockwise
    pose, position = transform_placement(np.zeros(3), CENTRED, turn)
    np.testing.assert_allclose(pose, [0, 0, np.pi / 2], atol=1e-15)
    np.testing.assert_allclose(position, [-80, 120, 2])


def test_a_crop_and_resize_leaves_the_pose():
    pose, position = transform_placement(
        np.array([0.1, -0.7, 0.3]), CENTRED, np.array([[0.5, 0, -30], [0, 0.5, 7]])
    )
    np.testing.assert_allclose(pose, [0.1, -0.7, 0.3], atol=1e-15)
    assert position.tolist() == [30, 47, 1]


def test_mirroring_by_hand():
    pose, position = mirror_placement(np.array([0.1, 0.2, 0.3]), CENTRED, 450)
    assert pose.tolist() == [0.1, -0.2, -0.3] and position.tolist() == [329, 80, 2]


@pytest.mark.parametrize("yaw", [90, -90])
def test_a_profile_has_a_pose(yaw):
    rotation = rotation_matrix(np.radians([20.0, yaw, 50]))
    np.testing.assert_allclose(rotation_matrix(pose_from_rotation(rotation)), rotation, atol=1e-12)


def test_inputs_are_left_alone():
    pose, position = np.array([0.1, 0.2, 0.3]), CENTRED.copy()
    transform_placement(pose, position, np.eye(2, 3))
    mirror_placement(pose, position, 100)
    assert pose.tolist() == [0.1, 0.2, 0.3] and position.tolist() == CENTRED.tolist()


@pytest.mark.parametrize("yaw", [0.3, np.pi / 2, -1.9])
def test_an_upright_transform_keeps_the_angles(yaw):
    pose, position = np.array([0.2, yaw, -0.4]), np.array([100.0, 120.0, 1.5])
    scaling = np.array([[0.5, 0.0, 3.0], [0.0, 0.5, -7.0]])
    kept, moved = transform_placement(pose, position, scaling)
    assert np.array_equal(kept, pose)
    assert np.allclose(moved, [53.0, 53.0, 0.75])
    half_turn = np.array([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    turned, _ = transform_placement(pose, position, half_turn)
    assert np.allclose(rotation_matrix(turned), np.diag([-1, -1, 1]) @ rotation_matrix(pose), atol=1e-7)
