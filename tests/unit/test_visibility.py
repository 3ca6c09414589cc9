"""Visible texels against ray casting, and the margins on shapes whose outlines are known."""

import numpy as np
import pytest
from ray_casting import rays_reach_camera
from scipy.ndimage import distance_transform_edt

from bfm.open_face import open_face_model
from bfm.pose import project
from bfm.rasterize import rasterize
from bfm.render import camera_vertices, vertex_normals
from texgen.occlusion import hidden_points
from texgen.surface import surface_texels
from texgen.visibility import visible_texels

FACING = 0.3
SIDE = 450
UP = np.array([0.0, 0, 1])


@pytest.fixture(scope="module")
def open_face(open_chart):
    """The open model, and the matrix from its vertices to the texels on its surface."""
    model = open_face_model()
    return model, open_chart.to_texels[np.flatnonzero(surface_texels(model, open_chart))]


def away_from_outlines(points, triangles, texels, pixels, least):
    """(T,) whether a texel is further than so many pixels from where the rasterised depth breaks off by `least`."""
    ids, barycentric = rasterize(points[:, :2], points[:, 2], triangles, SIDE, SIDE)
    depth = np.where(ids < 0, np.nan, (points[triangles[ids], 2] * barycentric).sum(-1))
    broken = np.isnan(depth)
    for axis in (0, 1):
        step = np.abs(np.diff(depth, axis=axis, append=np.nan)) > least
        broken |= step | np.roll(step, 1, axis)
    column, row = np.rint(texels[:, :2]).astype(int).T
    return distance_transform_edt(~broken)[row, column] > pixels + 1  # both are up to half a pixel off


@pytest.mark.parametrize("yaw", [0, 20, -40, 60, -75, 90])
def test_open_face_agrees_with_ray_casting(open_face, yaw):
    model, to_texels = open_face
    rng = np.random.default_rng(abs(yaw))
    shape = model.shape(*(rng.standard_normal(len(basis), np.float32) for basis in (model.id_basis, model.exp_basis)))
    pose = np.array([rng.normal(0, 0.2), np.radians(yaw), rng.normal(0, 0.2)])
    scale = 1.4
    points = project(shape.astype(np.float64), pose, np.array([225, 225, scale]))
    texels = to_texels @ points
    normals = to_texels @ vertex_normals(camera_vertices(points), model.triangles)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    drawn = rng.choice(len(texels), 800, replace=False)
    hidden = hidden_points(texels.T, points.T[:, model.triangles.T], 1.5 * scale)
    seen = visible_texels(texels, normals, hidden, 1.5 * scale, FACING)[drawn]
    reach = rays_reach_camera(texels[drawn], points, model.triangles)
    truth = reach & (normals[drawn, 2] > FACING)
    assert 0.2 < truth.mean() < 0.8
    assert np.array_equal(seen, truth)
    # with margins, what is left is away from outlines
    sure = visible_texels(texels, normals, hidden, 1.5 * scale, FACING, 5 * scale, 2.5 * scale, 8 * scale)[drawn]
    assert (sure <= seen).all() and sure.sum() > 0.6 * seen.sum()
    near = ~away_from_outlines(points, model.triangles, texels[drawn], 1, 8 * scale)
    assert near[sure].sum() <= 3 < 6 <= near[seen].sum()


def sheet(columns, rows, depth=0.0, x=0.0, y=0.0):
    """(N, 3) samples a pixel apart of a flat sheet that faces the camera."""
    column, row = np.meshgrid(np.arange(columns) + x, np.arange(rows) + y)
    return np.stack([column, row, np.full(column.shape, depth)], -1).reshape(-1, 3)


def shown(places, cell=2.0, normals=None, **margins):
    """What is visible of a surface made of samples."""
    normals = np.broadcast_to(UP, places.shape) if normals is None else normals
    return visible_texels(places, normals, np.zeros(len(places), bool), cell, **margins)


def test_only_what_faces_the_camera_enough():
    cosine = np.linspace(-1, 1, 41)
    normals = np.stack([np.sqrt(1 - cosine**2), 0 * cosine, cosine], 1)
    places = np.stack([10.0 * np.arange(41), np.zeros(41), np.zeros(41)], 1)
    assert np.array_equal(shown(places, normals=normals), cosine > 0)
    assert np.array_equal(shown(places, normals=normals, facing=0.32), cosine > 0.32)


def test_outer_margin_is_a_distance_from_the_outline():
    places = sheet(60, 50)
    x, y = places[:, 0], places[:, 1]
    distance = np.minimum(np.minimum(x, 59 - x), np.minimum(y, 49 - y))
    for margin in (4.0, 9.0):
        seen = shown(places, outer_margin=margin)
        assert seen[distance > margin + 2].all() and not seen[distance < margin - 2].any()
    of_texel = np.where(x < 30, 4.0, 12.0)
    seen = shown(places, outer_margin=of_texel)
    assert seen[distance > of_texel + 2].all() and not seen[distance < of_texel - 2].any()
    assert shown(places).all()


def test_inner_margin_is_a_distance_from_holes_and_steps():
    places = sheet(60, 50)
    x, y = places[:, 0], places[:, 1]
    from_hole = np.hypot(np.maximum(np.abs(x - 20) - 4, 0), np.maximum(np.abs(y - 25) - 4, 0))
    with_hole = places[from_hole > 0]
    seen = shown(with_hole, inner_margin=5.0)
    from_hole = from_hole[from_hole > 0]
    assert seen[from_hole > 7.5].all() and not seen[from_hole < 3].any()
    assert seen[from_hole > 7.5].sum() > 1500  # the rim of the sheet too
    stepped = places + [0, 0, 1] * (x > 40)[:, None] * 12.0
    seen = shown(stepped, inner_margin=5.0, step=8.0)
    from_step = np.abs(x - 40.5)
    assert seen[from_step > 8].all() and not seen[from_step < 3].any()
    assert shown(stepped, inner_margin=5.0, step=13.0)[from_step > 2].all()  # a cell holds both sides
    assert shown(stepped, outer_margin=1e-6, step=8.0)[(from_step < 3) & (x > 40) & (np.abs(y - 25) < 20)].all()


def test_inputs_are_left_alone_and_refused_by_name():
    places = sheet(9, 9)
    kept = places.copy()
    shown(places, outer_margin=1.0, inner_margin=1.0)
    assert np.array_equal(places, kept)
    for texels, cell in ((places[:0], 1.0), (places, 0.0), (places, np.nan)):
        with pytest.raises(ValueError, match="visibility needs texels and a positive cell, got"):
            shown(texels, cell)
