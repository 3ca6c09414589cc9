"""The rasteriser by hand: a few pixels, ties, depth, refusals."""

import numpy as np
import pytest

from bfm.rasterize import rasterize

SQUARE = np.array([[1.0, 1], [4, 1], [1, 3], [4, 3]])  # x right, y down
HALVES = np.array([[0, 1, 2], [1, 3, 2]])


def test_a_square_of_two_triangles_by_hand():
    triangle_ids, barycentric = rasterize(SQUARE, np.zeros(4), HALVES, 5, 6)
    assert triangle_ids.tolist() == [
        [-1, -1, -1, -1, -1, -1],
        [-1, 0, 0, 0, 0, -1],
        [-1, 0, 0, 1, 1, -1],
        [-1, 0, 1, 1, 1, -1],
        [-1, -1, -1, -1, -1, -1],
    ]
    np.testing.assert_allclose(barycentric[2, 2], [1 / 6, 1 / 3, 1 / 2], rtol=1e-6)
    np.testing.assert_allclose(barycentric[2, 3], [1 / 2, 1 / 6, 1 / 3], rtol=1e-6)
    assert (barycentric[triangle_ids < 0] == 0).all()
    assert triangle_ids.dtype == np.int32 and barycentric.dtype == np.float32


def test_larger_depth_wins_whatever_the_order_and_the_winding():
    points, depth = np.concatenate([SQUARE, SQUARE]), np.repeat([-2.0, -1.0], 4)
    triangles = np.concatenate([HALVES, HALVES[:, ::-1] + 4])
    triangle_ids, _ = rasterize(points, depth, triangles, 5, 6)
    assert set(np.unique(triangle_ids)) == {-1, 2, 3}
    triangle_ids, _ = rasterize(points, depth[::-1], triangles, 5, 6)
    assert set(np.unique(triangle_ids)) == {-1, 0, 1}
    triangle_ids, _ = rasterize(points, [-0.0] * 4 + [0.0] * 4, triangles, 5, 6)
    assert set(np.unique(triangle_ids)) == {-1, 0, 1}


def test_what_lies_outside_or_has_no_area_is_not_drawn():
    points = np.array([[-5.0, 1], [-1, 1], [-3, 4], [2, 2], [4, 4], [3, 3], [9, 9], [9.9, 9], [9, 9.9]])
    triangles = np.array([[0, 1, 2], [3, 4, 5], [3, 3, 4], [6, 7, 8]])
    triangle_ids, barycentric = rasterize(points, np.zeros(9), triangles, 6, 6)
    assert (triangle_ids == -1).all() and (barycentric == 0).all()
    assert (rasterize(points, np.zeros(9), np.zeros((0, 3), int), 6, 6)[0] == -1).all()


def test_a_pixel_wide_triangle_at_the_image_corner():
    points = np.array([[5.0, 5], [6, 5], [5, 6]])
    triangle_ids, barycentric = rasterize(points, np.zeros(3), np.array([[0, 1, 2]]), 6, 6)
    assert triangle_ids[5, 5] == 0 and (triangle_ids >= 0).sum() == 1
    assert barycentric[5, 5].tolist() == [1, 0, 0]


def test_memory_chunks_do_not_show(monkeypatch):
    rng = np.random.default_rng(0)
    points, depth, triangles = rng.uniform(-9, 60, (60, 2)), rng.uniform(-9, 9, 60), rng.integers(0, 60, (90, 3))
    whole = rasterize(points, depth, triangles, 50, 40)
    monkeypatch.setattr("bfm.rasterize._PIXELS_AT_ONCE", 7)
    for a, b in zip(whole, rasterize(points, depth, triangles, 50, 40)):
        assert np.array_equal(a, b)


def test_takes_places_up_to_a_billion_pixels_away():
    far = 0.999e9
    points = np.array([[-far, -far], [far, -far], [0, far]])
    assert (rasterize(points, np.array([far, -far, far]), np.array([[0, 1, 2]]), 3, 4)[0] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9, 1e9])
def test_refuses_numbers_that_are_not_places(value):
    points = SQUARE.copy()
    points[2, 1] = value
    with pytest.raises(ValueError, match="finite numbers below 1e9"):
        rasterize(points, np.zeros(4), HALVES, 5, 6)
    with pytest.raises(ValueError, match="finite numbers below 1e9"):
        rasterize(SQUARE, np.array([0, value, 0, 0]), HALVES, 5, 6)


def test_refuses_shapes_that_disagree():
    with pytest.raises(ValueError, match=r"points must have shape \(V, 2\) and depth \(V,\), got \(4, 2\) and \(3,\)"):
        rasterize(SQUARE, np.zeros(3), HALVES, 5, 6)


def test_the_same_triangle_twice_is_a_tie_however_its_corners_are_ordered():
    rng = np.random.default_rng(0)
    for _ in range(100):
        points, depth = rng.integers(-4, 14, (3, 2)).astype(float), rng.integers(-4, 5, 3).astype(float)
        triangles = np.stack([rng.permutation(3) for _ in range(4)])
        assert set(np.unique(rasterize(points, depth, triangles, 9, 9)[0])) <= {-1, 0}
