"""Normals, Gouraud rendering, visibility and previews."""

import numpy as np
import pytest

from bfm.pose import project
from bfm.rasterize import rasterize
from bfm.render import camera_vertices, clay, clay_colours, portrait, render, vertex_normals, visible_vertices
from toy import toy_model

SQUARE = np.array([[1.0, 1, 0], [4, 1, 0], [1, 3, 0], [4, 3, 0]])
HALVES = np.array([[0, 2, 1], [1, 2, 3]])  # outward is toward the camera
GREY = np.full((5, 6, 3), 77, np.uint8)


def brute_force_visible(points, triangles, height, width):
    """Every vertex against every triangle, from the definition."""
    x, y, depth = points.T
    seen = vertex_normals(camera_vertices(points), triangles)[:, 2] > 0
    seen &= (-0.5 <= x) & (x <= width - 0.5) & (-0.5 <= y) & (y <= height - 0.5)
    for corners in points[triangles]:
        system = np.vstack([corners[:, :2].T, np.ones(3)])
        if abs(np.linalg.det(system)) > 1e-12:
            weights = np.linalg.solve(system, np.stack([x, y, np.ones(len(x))]))
            seen &= (weights.min(0) < -1e-12) | (corners[:, 2] @ weights <= depth + 1e-3)
    return seen


def test_normals_of_a_sphere_point_along_the_radius():
    model = toy_model(rows=41, columns=41)
    sphere = model.mean_shape * [1 / 70, 1 / 90, 0]
    sphere[:, 2] = 3
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    triangles = np.concatenate([model.triangles, model.mouth_triangles])
    normals = vertex_normals(sphere, triangles)
    inner = np.abs(model.mean_shape[:, 0]) < 69
    inner &= np.abs(model.mean_shape[:, 1]) < 89
    np.testing.assert_allclose(normals[inner], sphere[inner], atol=4e-3)
    np.testing.assert_allclose(vertex_normals(sphere, triangles[:, ::-1]), -normals, atol=1e-12)


def test_normals_are_weighted_by_area():
    vertices = np.array([[0, 0, 0], [4.0, 0, 0], [0, 2, 0], [0, 0, 3], [9, 9, 9]])
    normals = vertex_normals(vertices, np.array([[0, 1, 2], [0, 2, 3]]))
    np.testing.assert_allclose(normals[0], np.array([6, 0, 8]) / 10)
    np.testing.assert_allclose(normals[1], [0, 0, 1])
    assert normals[4].tolist() == [0, 0, 0]
    assert vertex_normals(vertices.astype(np.float32), np.array([[0, 1, 2]])).dtype == np.float32


def test_colours_are_interpolated_over_the_background():
    colours = np.array([[0.0, 0, 0], [0.6, 0, 0], [0, 0.8, 0], [0.6, 0.8, 2]])
    picture = render(SQUARE, colours, HALVES, GREY)
    assert picture[1, 2].tolist() == [51, 0, 0] and picture[2, 1].tolist() == [0, 102, 0]
    assert picture[3, 4].tolist() == [153, 204, 255]  # clipped
    assert (picture[0] == 77).all() and (picture[:, 0] == 77).all() and (GREY == 77).all()


def test_antialiased_pixels_are_the_mean_of_their_samples():
    points = np.array([[0.25, 0.75, 0], [9.25, 0.75, 0], [0.25, 9.75, 0], [9.25, 9.75, 0]])
    picture = render(points, np.ones((4, 3)), HALVES, np.zeros((5, 6, 3), np.uint8), antialias=4)
    assert picture[3, 3, 0] == 255
    assert picture[3, 0, 0] == round(255 / 4)  # right of .25 in the pixel that ends at .5
    assert picture[0, 3, 0] == 0 and picture[1, 3, 0] == round(255 * 3 / 4)
    assert picture[1, 0, 0] == round(255 * 3 / 16)


@pytest.mark.parametrize("pose", [(0.0, 0.0, 0.0), (0.2, 0.9, -0.3), (-0.4, -1.4, 0.1), (0.0, np.pi, 0.0)])
def test_visibility_agrees_with_brute_force(pose):
    model = toy_model()
    face = model.mean_shape.astype(np.float64) + [0, 0, -60]
    mask = face * [0.5, 0.4, 1] + [-12, 9, 25]  # a smaller face before it
    triangles = np.concatenate([model.triangles, model.triangles + len(face)])
    points = project(np.concatenate([face, mask]), np.array(pose), np.array([31.3, 33.1, 0.4]))
    seen = visible_vertices(points, triangles, 64, 56)
    assert np.array_equal(seen, brute_force_visible(points, triangles, 64, 56))
    alone = visible_vertices(points[:len(face)], model.triangles, 64, 56)
    hidden = alone & ~seen[:len(face)]
    assert hidden.sum() > 10 and seen.any() if abs(pose[1]) < 1 else not seen.all()


def test_what_hides_may_itself_face_away():
    points = np.concatenate([SQUARE, [[1.5, 1.5, -5], [2.5, 1.5, -5], [1.5, 2.5, -5]]])
    triangles = np.array([[0, 1, 2], [1, 3, 2], [4, 6, 5]])
    assert not visible_vertices(points, triangles, 5, 6).any()
    points[4:, 2] = 5
    assert visible_vertices(points, triangles, 5, 6).tolist() == [False] * 4 + [True] * 3


def test_an_edge_or_a_corner_hides_what_lies_exactly_behind():
    points = np.concatenate([SQUARE + [0, 0, 5], SQUARE * [1, 1, 0], [[2.5, 3, 0], [2.5, 1, 0], [4, 2, 0]]])
    triangles = np.concatenate([HALVES, HALVES + 4, [[4, 8, 9], [8, 10, 9]]])
    assert visible_vertices(points, triangles, 5, 6).tolist() == [True] * 4 + [False] * 7


def test_a_triangle_seen_edge_on_hides_nothing_and_one_of_a_pixel_what_is_behind():
    behind = np.array([[2.0, 2, 0], [4, 2, 0], [2, 4, 0]])
    edge_on = [[1.0, 2, 9], [5, 2, 9], [3, 2, 7]]
    points = np.concatenate([behind, edge_on])
    assert visible_vertices(points, np.array([[0, 2, 1], [3, 4, 5]]), 6, 6)[:3].all()
    small = [[1.75, 1.5, 9.0], [2.75, 1.5, 9], [1.75, 2.5, 9]]
    points = np.concatenate([behind, small])
    assert visible_vertices(points, np.array([[0, 2, 1], [3, 5, 4]]), 6, 6).tolist() == [False] + [True] * 5


@pytest.mark.parametrize("nearer, hides", [(0.0011, True), (0.0009, False)])
def test_what_is_a_thousandth_of_a_pixel_nearer_hides(nearer, hides):
    points = np.concatenate([SQUARE, SQUARE * [2, 2, 0] + [-2, -2, nearer]])
    assert (visible_vertices(points, np.concatenate([HALVES, HALVES + 4]), 6, 9)[:4] == (not hides)).all()


def test_what_lies_on_the_border_of_the_picture_is_hidden_too():
    corners = np.array([[-0.5, -0.5, 0], [5.5, -0.5, 0], [-0.5, 5.5, 0], [5.5, 5.5, 0]])
    points = np.concatenate([corners, corners * [3, 3, 0] + [-5, -5, 9]])
    assert visible_vertices(points[:4], HALVES, 6, 6).all()
    assert not visible_vertices(points, np.concatenate([HALVES, HALVES + 4]), 6, 6).any()


def test_clay_is_brightest_where_it_faces_the_light_and_leaves_the_background():
    model = toy_model(rows=41, columns=41)
    points = project(model.mean_shape.astype(np.float64), np.zeros(3), np.array([49.5, 49.5, 0.45]))
    background = np.zeros((100, 100, 3), np.uint8)
    picture = clay(points, model.triangles, background, antialias=1)
    ids, _ = rasterize(points[:, :2], points[:, 2], model.triangles, 100, 100)
    assert np.array_equal((picture > 0).all(axis=2), ids >= 0)
    assert picture[20:45, 20:45].mean() > 1.2 * picture[60:85, 60:80].mean()


def test_clay_is_lit_by_hand():
    light = np.array([-0.35, 0.45, 0.82]) / np.sqrt(0.35**2 + 0.45**2 + 0.82**2)
    half = (light + [0, 0, 1]) / np.linalg.norm(light + [0, 0, 1])
    colour = np.array([0.80, 0.78, 0.76])
    towards, between, away = clay_colours(np.stack([light, half, -light]))
    cosine = half @ light
    np.testing.assert_allclose(towards, 0.94 * colour + 0.10 * cosine**24)
    np.testing.assert_allclose(between, (0.22 + 0.72 * cosine) * colour + 0.10)
    np.testing.assert_allclose(away, 0.22 * colour)


def test_a_coloured_portrait_has_its_colours_unlit_and_soft_edges():
    model = toy_model()
    shape = np.concatenate([model.triangles, model.mouth_triangles])
    picture = portrait(model.mean_shape, shape, (0.1, 0.5, 0.2), 90, colours=np.tile([0.2, 0.4, 0.0], (357, 1)))
    assert picture[45, 45].tolist() == [51, 102, 0]
    # means of four samples on white
    assert np.unique(picture[..., 2]).tolist() == [0, 64, 128, 191, 255]
    assert portrait(model.mean_shape, shape).shape == (256, 256, 3)


def test_a_portrait_depends_neither_on_where_the_face_is_nor_on_its_depth():
    model = toy_model()
    colours = np.random.default_rng(0).random((357, 3))
    shape = model.mean_shape.astype(np.float64)
    for pose, other in (
        ((0.0, 0.0, 0.0), shape * [1, 1, 40]), ((0.0, 0.0, 0.0), shape + [128, -512, 64]),
        ((0.1, 0.5, 0.2), shape + [128, -512, 64]),
    ):
        picture = portrait(shape, model.triangles, pose, 90, colours=colours)
        assert np.array_equal(picture, portrait(other, model.triangles, pose, 90, colours=colours))


def test_portrait_is_centred_and_keeps_its_scale():
    model = toy_model()
    for picture in (
        portrait(model.mean_shape, model.triangles, size=90),
        portrait(model.mean_shape, model.triangles, (0.1, 0.5, 0.2), size=90, colours=model.mean_albedo * 0),
    ):
        drawn = np.argwhere((picture < 250).any(axis=2))
        assert np.abs(drawn.min(0) + drawn.max(0) - 89).max() <= 2
        assert 78 <= np.ptp(drawn, axis=0).max() <= 86
    drawn = np.argwhere((portrait(model.mean_shape, model.triangles, size=90, extent=360.0) < 250).any(axis=2))
    assert abs(np.ptp(drawn[:, 0]) - 180 * 90 / 360) <= 2 and abs(np.ptp(drawn[:, 1]) - 140 * 90 / 360) <= 2
