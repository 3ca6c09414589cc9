"""A shape that is known, found again where its points are seen."""

import math

import numpy as np
import pytest

from asmgen.rigid_pose import rigid_pose
from bfm.pose import pose_from_rotation, project

SHAPE = np.random.default_rng(1).uniform(-80, 80, (51, 3))


@pytest.mark.parametrize("distance", [math.inf, 600.0])
@pytest.mark.parametrize("pose", [(0.0, 0, 0), (0.3, -1.4, 0.2), (-0.8, 0.7, 2.5)])
def test_it_is_found_exactly(distance, pose):
    seen = project(SHAPE, np.array(pose), np.array([40.0, 70.0, 1.3]), distance)[:, :2]
    rotation, shift, scale = rigid_pose(SHAPE, seen * [1, -1], distance)
    np.testing.assert_allclose(pose_from_rotation(rotation), pose, atol=1e-6)
    np.testing.assert_allclose([*shift, scale], [40, -70, 1.3], rtol=1e-6)


def test_no_pose_nearby_is_nearer_to_points_that_are_not_exact():
    rng = np.random.default_rng(2)
    position = np.array([40.0, 70.0, 1.3])
    seen = project(SHAPE, np.array([0.3, -0.9, 0.2]), position)[:, :2] + rng.normal(0, 5, (51, 2))
    rotation, shift, scale = rigid_pose(SHAPE, seen * [1, -1])
    found = pose_from_rotation(rotation), np.array([shift[0], -shift[1], scale])

    def distance(pose, position):
        return ((project(SHAPE, pose, position)[:, :2] - seen) ** 2).sum()

    for _ in range(50):
        moved = distance(found[0] + rng.normal(0, 1e-3, 3), found[1] + rng.normal(0, 1e-3, 3))
        assert moved > distance(*found)
