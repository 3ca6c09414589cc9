"""Which texels a face hides from the camera, against rays; its few tests against that of every triangle."""

import numpy as np
import pytest
from ray_casting import rays_reach_camera

from bfm.open_face import open_face_model
from texgen.occlusion import hidden_points
from texgen.texture import CELL, FACING, TextureMapper

POSITION = np.array([225.0, 225.0, 1.4], np.float32)


def scattered(count, reach, seed):
    """Corners of random triangles, (3, 3, F), as vertices and as a mesh of their own."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 60, (count, 1, 3))
    vertices = (centres + rng.normal(0, reach, (count, 3, 3))).reshape(-1, 3).astype(np.float32)
    return vertices, np.arange(3 * count).reshape(count, 3)


@pytest.mark.parametrize("count, reach", [(3000, 0.5), (150, 4.0), (20, 25.0)])
@pytest.mark.parametrize("cell", [1.3, 7.0])
def test_a_point_is_hidden_if_a_ray_from_it_meets_a_triangle(count, reach, cell):
    vertices, triangles = scattered(count, reach, seed=3)
    points = np.random.default_rng(4).uniform(-5, 65, (600, 3)).astype(np.float32)
    free = rays_reach_camera(points, vertices, triangles)
    assert 0.1 < free.mean() < 0.95
    assert np.array_equal(hidden_points(points.T, vertices[triangles].T, cell), ~free)


def test_a_triangle_does_not_hide_what_lies_on_it():
    vertices, triangles = scattered(1, 20.0, seed=1)
    inside = np.random.default_rng(0).dirichlet(np.ones(3), 50).astype(np.float32) @ vertices
    for offset, hidden in ((0, False), (0.5, False), (-0.5, True)):
        found = hidden_points((inside + [0, 0, offset]).T, vertices[triangles].T, 2.0)
        assert np.array_equal(found, np.full(50, hidden))


def test_of_nothing_nothing_is_hidden():
    vertices, triangles = scattered(5, 3.0, seed=0)
    corners = vertices[triangles].T
    assert hidden_points(np.zeros((3, 0)), corners, 1.0).shape == (0,)
    assert np.array_equal(hidden_points(np.zeros((3, 4)), corners[..., :0], 1.0), np.zeros(4, bool))


@pytest.fixture(scope="module")
def mapper(open_chart):
    """Of the open model."""
    return TextureMapper(open_face_model(), open_chart)


def placed(mapper, yaw, seed, mouth=0.0):
    """A random face in a photo: its surface, texels, and which of them are turned to the camera."""
    model, rng = open_face_model(), np.random.default_rng(seed)
    id_coeffs, exp_coeffs = (rng.standard_normal(len(basis), np.float32) for basis in (model.id_basis, model.exp_basis))
    lower, upper = model.landmarks[66], model.landmarks[62]
    opening = model.exp_basis[:, upper, 1] - model.exp_basis[:, lower, 1]
    exp_coeffs += np.float32(mouth) * np.sign(opening) * (np.abs(opening) >= np.sort(np.abs(opening))[-2])
    pose = np.array([rng.normal(0, 0.2), np.radians(yaw), rng.normal(0, 0.2)], np.float32)
    surface = mapper.surface.place(mapper.vertices(id_coeffs[None], exp_coeffs[None])[0], pose, POSITION)
    texels, normals = (values.take(mapper.surface.texels, axis=1) for values in (surface.places, surface.normals))
    return model, surface, texels, np.flatnonzero(normals[2] > FACING)


FACES = [(0, 0, 0.0), (20, 6, 0.0), (-45, 7, 3.0), (60, 4, 2.0), (-80, 2, 3.0), (82, 3, 0.0)]


@pytest.mark.parametrize("yaw, seed, mouth", FACES)
def test_the_triangles_turned_away_and_the_mouth_tell_what_all_triangles_do(mapper, yaw, seed, mouth):
    model, surface, texels, front = placed(mapper, yaw, seed, mouth)
    cell = CELL * mapper.spacing * float(POSITION[2])
    hidden = mapper.occlusion.hidden(surface.points, surface.away, texels, front, cell)
    corners = surface.points[:, model.triangles.T]
    truth = np.zeros_like(hidden)
    truth[front] = hidden_points(texels[:, front], corners, cell)
    assert truth.sum() > 20
    assert not (hidden & ~truth).any()  # nothing is called hidden that a ray can leave
    assert (truth & ~hidden).sum() <= 5e-4 * len(front)  # a lip that folds into itself
    drawn = np.random.default_rng(0).choice(front, 150, replace=False)
    assert np.array_equal(truth[drawn], ~rays_reach_camera(texels.T[drawn], surface.points.T, model.triangles))


def test_away_is_what_shows_its_back(mapper):
    model, surface, _, _ = placed(mapper, 40, 1)
    a, b, c = (surface.points.T[model.triangles[:, corner]] * np.array([1.0, -1, 1]) for corner in range(3))
    toward = np.cross(b - a, c - a)[:, 2]
    clear = np.abs(toward) > 1e-3
    assert np.array_equal(surface.away[clear], toward[clear] <= 0) and 0.1 < surface.away.mean() < 0.5


def test_about_a_box_are_the_triangles_that_reach_over_it_and_nearer(mapper):
    model, surface, texels, _ = placed(mapper, 20, 6)
    places = texels[:, np.abs(texels[:2] - np.median(texels[:2], axis=1, keepdims=True)).max(axis=0) < 9]
    corners = surface.points[:, model.triangles.T]
    low, high, least, most = corners.min(axis=1), corners.max(axis=1), places.min(axis=1), places.max(axis=1)
    over = (low[:2] <= most[:2, None]).all(axis=0) & (high[:2] >= least[:2, None]).all(axis=0) & (high[2] > least[2])
    assert 100 < over.sum() < 0.2 * len(over)
    assert np.array_equal(mapper.occlusion._about(surface.points, places), model.triangles[over].T)
    assert mapper.occlusion._about(surface.points, places[:, :0]).shape == (3, 0)
