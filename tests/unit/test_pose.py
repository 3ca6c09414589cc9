"""Placement by hand: which way each angle and offset moves a face."""

import numpy as np
import pytest

from bfm.pose import mirror_placement, pose_from_rotation, project, rotation_matrix, transform_placement

NOSE, LEFT_EAR, CHIN = np.array([0.0, 0, 100]), np.array([70.0, 0, 0]), np.array([0.0, -90, 60])
CENTRED = np.array([120.0, 80.0, 2.0])


def placed(pose, position=CENTRED):
    return project(np.stack([NOSE, LEFT_EAR, CHIN]), np.radians(np.array(pose, float)), position)


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
