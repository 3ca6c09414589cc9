"""Placements: what must hold for any pose, position and image transform, in numpy and in torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bfm.pose import (
    mirror_placement, pose_from_rotation, project, project_homogeneous, rotation_matrix, transform_placement,
    transform_points,
)

BATCH = 3
angle = st.floats(-3.1, 3.1)
yaw = st.one_of(st.floats(-1.57, 1.57), st.sampled_from([np.pi / 2, -np.pi / 2, 0.0]))


def batch_of(*parts):
    columns = [hnp.arrays(np.float64, BATCH, elements=part) for part in parts]
    return st.tuples(*columns).map(lambda arrays: np.stack(arrays, -1))


poses = batch_of(angle, yaw, angle)
positions = batch_of(st.floats(-500, 500), st.floats(-500, 500), st.floats(0.1, 20))
similarities = st.tuples(
    st.floats(0.1, 9), st.floats(-3.1, 3.1), st.floats(-300, 300), st.floats(-300, 300)
).map(lambda p: np.array([
    [p[0] * np.cos(p[1]), -p[0] * np.sin(p[1]), p[2]], [p[0] * np.sin(p[1]), p[0] * np.cos(p[1]), p[3]],
]))
vertices = hnp.arrays(np.float64, (BATCH, 5, 3), elements=st.floats(-100, 100))
distances = st.one_of(st.just(np.inf), st.floats(200, 3000))  # of the camera, which no vertex reaches


@given(poses)
def test_a_rotation_matrix_is_the_product_of_its_parts_and_a_rotation(pose):
    rotation = rotation_matrix(pose)
    for (p, y, r), matrix in zip(pose, rotation):
        (cp, cy, cr), (sp, sy, sr) = (np.cos([p, y, r]), np.sin([p, y, r]))
        parts = (
            np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]]) @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
            @ np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
        )
        np.testing.assert_allclose(matrix, parts, atol=1e-14)
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2), np.tile(np.eye(3), (BATCH, 1, 1)), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-14)


@given(poses)
def test_pose_and_rotation_are_inverse(pose):
    back = pose_from_rotation(rotation_matrix(pose))
    np.testing.assert_allclose(rotation_matrix(back), rotation_matrix(pose), atol=1e-7)
    usual = np.abs(pose[:, 1]) < 1.5
    np.testing.assert_allclose(back[usual], pose[usual], atol=1e-9)


@given(vertices, poses, positions, similarities, distances)
def test_projecting_commutes_with_an_image_transform(vertices, pose, position, transform, distance):
    points = project(vertices, pose, position, distance)
    new_pose, new_position = transform_placement(pose, position, transform)
    moved = project(vertices, new_pose, new_position, distance)
    factor = np.hypot(transform[0, 0], transform[1, 0])
    np.testing.assert_allclose(moved[..., :2], transform_points(points[..., :2], transform), atol=2e-3)
    np.testing.assert_allclose(moved[..., 2], points[..., 2] * factor, atol=2e-3)


@given(vertices, poses, positions, st.integers(1, 900), distances)
def test_projecting_commutes_with_a_flip(vertices, pose, position, width, distance):
    points = project(vertices, pose, position, distance)
    flipped = project(vertices * [-1, 1, 1], *mirror_placement(pose, position, width), distance)
    np.testing.assert_allclose(flipped, points * [-1, 1, 1] + [width - 1, 0, 0], atol=1e-8)
    for twice, once in zip(mirror_placement(*mirror_placement(pose, position, width), width), (pose, position)):
        np.testing.assert_allclose(twice, once, atol=1e-12)


@given(vertices, poses, positions)
def test_depth_and_image_are_one_rigid_scaled_body(vertices, pose, position):
    points = project(vertices, pose, position) * [1, -1, 1]
    before = np.linalg.norm(vertices - vertices[:, :1], axis=-1) * position[:, None, 2]
    np.testing.assert_allclose(np.linalg.norm(points - points[:, :1], axis=-1), before, atol=1e-8)


@given(vertices, poses, positions, distances)
def test_homogeneous_points_are_the_projected_ones_times_their_relative_distance(vertices, pose, position, distance):
    points = project_homogeneous(vertices, pose, position, distance)
    away = 1 - np.einsum("bij,bvj->bvi", rotation_matrix(pose), vertices)[..., 2] / distance
    np.testing.assert_allclose(points[..., 3], away, atol=1e-12)
    expected = project(vertices, pose, position, distance) * away[..., None]
    np.testing.assert_allclose(points[..., :3], expected, rtol=1e-9, atol=1e-9)


@given(vertices, poses, positions, similarities)
def test_torch_gives_the_same_numbers(vertices, pose, position, transform):
    for function, inputs in (
        (project, (vertices, pose, position)), (rotation_matrix, (pose,)),
        (lambda *a: project(*a, 700.0), (vertices, pose, position)),
        (lambda *a: project_homogeneous(*a, 700.0), (vertices, pose, position)),
        (pose_from_rotation, (rotation_matrix(pose),)), (transform_placement, (pose, position, transform)),
        (lambda *a: mirror_placement(*a, 256), (pose, position)),
        (transform_points, (vertices[..., :2], transform)),
    ):
        expected, found = function(*inputs), function(*map(torch.as_tensor, inputs))
        for a, b in zip(*((result if isinstance(result, tuple) else (result,)) for result in (expected, found))):
            assert isinstance(b, torch.Tensor)
            np.testing.assert_allclose(b.numpy(), a, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_stay(dtype):
    pose, position = np.zeros(3, dtype), np.ones(3, dtype)
    assert project(np.ones((4, 3), dtype), pose, position).dtype == dtype
    assert project_homogeneous(np.ones((4, 3), dtype), pose, position, 900.0).dtype == dtype
    assert all(part.dtype == dtype for part in transform_placement(pose, position, np.eye(2, 3, dtype=dtype)))
    assert all(part.dtype == dtype for part in mirror_placement(pose, position, 9))
