"""From a file's arrays to ours: units, index bases, and what does not fit."""

import numpy as np
import pytest

from bfm.readers.assemble import modes, outward, points, triangle_list, vertex_list

CORNERS = np.array([[1, 2, 3], [3, 2, 4], [4, 2, 1], [1, 3, 4]])  # counted from 1


def test_points_by_hand():
    found = points(np.array([[1000], [2], [-3], [4], [5], [6]], np.int16), 1e-3, "the mean")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32([[1, 0.002, -0.003], [0.004, 0.005, 0.006]]))


@pytest.mark.parametrize("count", [0, 1, 4])
def test_numbers_that_are_no_points(count):
    with pytest.raises(ValueError, match=f"the mean must hold x, y, z of each vertex, got {count} numbers"):
        points(np.zeros(count), 1, "the mean")


def test_modes_by_hand():
    basis = np.arange(12.0).reshape(6, 2)
    found = modes(basis, np.array([10, 100]), 0.5, 2, "the basis")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [
        [[0, 10, 20], [30, 40, 50]], [[50, 150, 250], [350, 450, 550]],
    ])


@pytest.mark.parametrize("basis, stddev, message", [
    (np.zeros((5, 2)), np.ones(2), r"the basis must have shape \(6, K\) to match 2 vertices, got \(5, 2\)"),
    (np.zeros(6), np.ones(1), r"the basis must have shape \(6, K\) to match 2 vertices, got \(6,\)"),
    (np.zeros((6, 2)), np.ones(3), r"deviations of the basis must be 2, one a mode, got shape \(3,\)"),
    (np.zeros((6, 2)), np.ones((2, 1)), r"deviations of the basis must be 2, one a mode, got shape \(2, 1\)"),
])
def test_modes_that_do_not_fit(basis, stddev, message):
    with pytest.raises(ValueError, match=message):
        modes(basis, stddev, 1, 2, "the basis")


@pytest.mark.parametrize("array", [CORNERS, CORNERS.T, CORNERS.astype(float), CORNERS.T.astype(np.uint8)])
def test_triangles_in_rows_or_columns_from_one(array):
    found = triangle_list(array, 1, 4, "tri")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, CORNERS - 1)


@pytest.mark.parametrize("array, message", [
    (CORNERS - 1, "tri must hold vertex numbers 1 to 4, got 0 to 3"),
    (CORNERS + 1, "tri must hold vertex numbers 1 to 4, got 2 to 5"),
    (CORNERS * np.nan, "tri must hold vertex numbers 1 to 4, got nan to nan"),
    (np.zeros((0, 3)), "tri must hold vertex numbers 1 to 4, got none to none"),
    (np.ones((4, 4)), r"tri must have shape \(3, F\) or \(F, 3\), got \(4, 4\)"),
    (np.ones(3), r"tri must have shape \(3, F\) or \(F, 3\), got \(3,\)"),
])
def test_what_are_no_triangles(array, message):
    with pytest.raises(ValueError, match=message):
        triangle_list(array, 1, 4, "tri")


def test_vertices_in_any_shape():
    found = vertex_list(np.array([[4.0], [1.0]]), 1, 4, "keypoints")
    assert found.dtype == np.int32 and found.tolist() == [3, 0]
    assert vertex_list(np.array([0, 3]), 0, 4, "keypoints").tolist() == [0, 3]


@pytest.mark.parametrize("array, message", [
    (np.array([1, 5]), "keypoints must hold vertex numbers 1 to 4, got 1 to 5"),
    (np.array([0, 4]), "keypoints must hold vertex numbers 1 to 4, got 0 to 4"),
    (np.array([np.nan]), "keypoints must hold vertex numbers 1 to 4, got nan to nan"),
    (np.zeros(0), "keypoints must hold vertex numbers 1 to 4, got none"),
])
def test_what_are_no_vertices(array, message):
    with pytest.raises(ValueError, match=message):
        vertex_list(array, 1, 4, "keypoints")


def test_triangles_are_turned_together_wherever_the_mesh_is():
    tetrahedron = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    out = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    for offset in ([0, 0, 0], [50, -30, 70], [-50, 30, -70]):
        np.testing.assert_array_equal(outward(out, tetrahedron + np.float32(offset)), out)
        np.testing.assert_array_equal(outward(out[:, ::-1], tetrahedron + np.float32(offset)), out)
