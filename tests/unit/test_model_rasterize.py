"""The batched rasteriser: exact against brute force and `bfm.rasterize`; its gradients against finite differences."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes
from toy import toy_model

import bfm.rasterize
from bfm.open_face import open_face_model
from bfm.pose import project, project_homogeneous
from model.rasterize import barycentric_weights, covered_pixels, interpolate, rasterize, weights_at

SQUARE = torch.tensor([[1.0, 1, 0], [4, 1, 0], [1, 3, 0], [4, 3, 0]])  # x right, y down, depth
HALVES = torch.tensor([[0, 1, 2], [1, 3, 2]])
DRAWN = [[-1] * 6, [-1, 0, 0, 0, 0, -1], [-1, 0, 0, 1, 1, -1], [-1, 0, 1, 1, 1, -1], [-1] * 6]


def brute_force(points, triangles, height, width):
    """Every triangle at every pixel by a 3 x 3 solve; the nearest that covers it, by one z-buffer.

    Points are (V, 3), or (V, 4) homogeneous. With p = (column, row, 1) the pixel's ray meets the triangle's plane at
    weights m, where ``(x w, y w, w) m = w_p p`` and the weights' sum is 1; the depth there is ``(depth w) m / w_p``,
    and w_p is positive before the camera.
    """
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1).astype(float)
    ids, weights = np.full(height * width, -1), np.zeros((height * width, 3))
    buffer = np.full(height * width, -np.inf)
    points = points if points.shape[1] == 4 else np.insert(points, 3, 1, axis=1)
    for index, corners in enumerate(points[triangles]):
        system = corners[:, [0, 1, 3]].T
        if abs(np.linalg.det(system)) < 1e-9:
            continue
        here = np.linalg.solve(system, pixels)  # m / w_p
        depth = corners[:, 2] @ here
        won = (here >= 0).all(0) & (depth > buffer)
        ids[won], weights[won], buffer[won] = index, (here[:, won] / here[:, won].sum(0)).T, depth[won]
    return ids.reshape(height, width), weights.reshape(height, width, 3)


def soup(rng, count, size, height, width):
    """Triangles of about one size around the image, a fifth of them without area."""
    middle = rng.uniform(-0.2, 1.2, (count, 1, 2)) * [width, height]
    corners = np.concatenate([middle + rng.normal(0, size, (count, 3, 2)), rng.uniform(-50, 50, (count, 3, 1))], 2)
    flat = np.arange(count) % 5 == 4
    corners[flat, 2] = corners[flat, 0]
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.3, 1, 6, 40, 300])
def test_equals_brute_force_whatever_the_size_of_the_triangles(size, dtype):
    rng, height, width = np.random.default_rng(0), 37, 50
    soups = [soup(rng, 300, size, height, width) for _ in range(2)]
    points, triangles = torch.tensor(np.stack([points for points, _ in soups]), dtype=dtype), soups[0][1]
    triangle_ids, barycentric = rasterize(points, torch.tensor(triangles), height, width)
    assert triangle_ids.dtype == torch.int64 and barycentric.dtype == dtype
    for image, ids, weights in zip(points.double().numpy(), triangle_ids.numpy(), barycentric.numpy()):
        expected_ids, expected_weights = brute_force(image, triangles, height, width)
        assert np.array_equal(ids, expected_ids) and len(np.unique(ids)) > 2
        np.testing.assert_allclose(weights, expected_weights, atol=1e-6 if dtype == torch.float32 else 1e-8)


def test_huge_and_tiny_triangles_together_equal_brute_force():
    rng = np.random.default_rng(1)
    points = np.concatenate([soup(rng, 60, size, 64, 48)[0] for size in (0.5, 2, 30, 1e5)])
    points[:, 2] += np.repeat([60, 40, 20, 0], 180)  # the small ones in front
    triangles = np.arange(len(points)).reshape(-1, 3)
    triangle_ids, _ = rasterize(torch.tensor(points)[None], torch.tensor(triangles), 64, 48)
    assert np.array_equal(triangle_ids[0], brute_force(points, triangles, 64, 48)[0])
    assert {0, 1, 2, 3} <= set(np.unique(triangle_ids // 60))


def in_space(rng, count, size, nearest):
    """Triangles of about one size (mm) around a camera that looks along -z: from `nearest`, behind it if < 0."""
    middle = np.stack([rng.normal(0, 20, count), rng.normal(0, 20, count), rng.uniform(nearest, 90, count)], 1)[:, None]
    x, y, ahead = np.moveaxis(middle + rng.normal(0, size, (count, 3, 3)), 2, 0)
    w = ahead / 40
    points = np.stack([25 * w + x, 18 * w - y, 40 - ahead, w], 2)
    return points.reshape(-1, 4), np.arange(3 * count).reshape(-1, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nearest", [30, 3, -90])
def test_homogeneous_points_equal_brute_force_before_across_and_behind_the_camera(nearest, dtype):
    height, width, tolerance, seen = 37, 50, 1e-6 if dtype == torch.float32 else 1e-8, set()
    for size in (0.3, 1, 3, 20, 1e4):
        rng = np.random.default_rng(0)
        images = [in_space(rng, 250, size, nearest) for _ in range(2)]
        points, triangles = torch.tensor(np.stack([points for points, _ in images]), dtype=dtype), images[0][1]
        triangle_ids, barycentric = rasterize(points, torch.tensor(triangles), height, width)
        assert triangle_ids.dtype == torch.int64 and barycentric.dtype == dtype
        for image, ids, weights in zip(points.double().numpy(), triangle_ids.numpy(), barycentric.numpy()):
            expected_ids, expected_weights = brute_force(image, triangles, height, width)
            assert np.array_equal(ids, expected_ids) and (ids >= 0).any()
            np.testing.assert_allclose(weights, expected_weights, atol=tolerance)
            behind = (image[triangles, 3] < 0).sum(1)
            seen |= set(behind[ids[ids >= 0]])
    assert seen == {0, 1, 2}  # with so many corners behind the camera


def test_a_floor_that_runs_under_the_camera_by_hand():
    # 8 below the axis, from 1 behind the camera to 4 before it: row 8 / w, and as wide as 200 (4 - w) either side
    floor = torch.tensor([[[-1000.0, 8, 0, -1], [1000, 8, 0, -1], [0, 8, 0, 4]]], dtype=torch.float64)
    triangle_ids, barycentric = rasterize(floor, torch.tensor([[0, 1, 2]]), 30, 250)
    rows, columns = np.mgrid[:30, :250]
    w = 8 / np.maximum(rows, 1e-9)
    seen = (rows >= 2) & (columns * w <= 200 * (4 - w))
    assert np.array_equal(triangle_ids[0].numpy() == 0, seen) and seen[3:6].any(1).all() and not seen.all(1)[2:4].any()
    np.testing.assert_allclose(barycentric[0, ..., 2].numpy()[seen], (w[seen] + 1) / 5, atol=1e-12)
    assert (rasterize(floor * torch.tensor([1, 1, 1, -1]), torch.tensor([[0, 1, 2]]), 30, 250)[0][:, :8] == -1).all()
    behind = floor - torch.tensor([0, 0, 0, 4])
    assert (rasterize(behind, torch.tensor([[0, 1, 2]]), 30, 250)[0] == -1).all()


@pytest.mark.parametrize("size", [1, 30, 1000])
@pytest.mark.parametrize("camera", ["far", "near", "between"])
def test_an_edge_that_two_triangles_share_lets_no_pixel_through_however_it_is_rounded(size, camera):
    rng = np.random.default_rng(0)
    along, across = rng.normal(0, size, (2, 3000, 2))
    either_side = rng.uniform(0.1, 1, (3000, 2, 1))
    away = np.stack([either_side[:, 0] * along, -either_side[:, 1] * along, across, -across], 1)  # from pixel 4, 4
    w = np.ones((3000, 4, 1)) if camera == "far" else rng.uniform(0.2, 3, (3000, 4, 1))
    if camera == "between":
        w[:, 2] *= -1  # one triangle's far corner is behind
    points = np.concatenate([4 * w + away * np.abs(w), np.zeros((3000, 4, 1)), w], 2)[..., :3 if camera == "far" else 4]
    for triangles in ([[0, 1, 2], [1, 0, 3]], [[1, 0, 3], [0, 1, 2]]):
        triangle_ids, _ = rasterize(torch.tensor(points), torch.tensor(triangles), 9, 9)
        assert (triangle_ids[:, 4, 4] == 0).all()


def test_small_triangles_far_from_the_corner_let_no_pixel_through_whatever_w_they_are_divided_by():
    rng, pixel = np.random.default_rng(0), np.stack(np.meshgrid(*[np.arange(4, 2000, 8)] * 2), -1).reshape(-1, 1, 2)
    along, across = rng.normal(0, 0.5, (2, len(pixel), 2))
    either_side = rng.uniform(0.1, 1, (len(pixel), 2, 1))
    away = np.stack([either_side[:, 0] * along, -either_side[:, 1] * along, across, -across], 1)
    w = rng.uniform(0.2, 3, (len(pixel), 4, 1))
    points = np.concatenate([(pixel + away) * w, 0 * w, w], 2).reshape(1, -1, 4)
    corners = 4 * np.arange(len(pixel))[:, None]
    triangles = np.concatenate([corners + [0, 1, 2], corners + [1, 0, 3]])
    triangle_ids, _ = rasterize(torch.tensor(points), torch.tensor(triangles), 2000, 2000)
    x, y = pixel[:, 0].T
    assert (triangle_ids[0, y, x] % len(pixel) == torch.arange(len(pixel))).all()


def test_a_tiled_floor_that_runs_under_the_camera_has_no_seams():
    rng = np.random.default_rng(0)
    x, w = np.meshgrid(np.linspace(-90, 90, 13), np.linspace(-3, 9, 13))
    x[:, 1:-1] += rng.uniform(-6, 6, (13, 11))
    w[1:-1] += rng.uniform(-0.4, 0.4, (11, 13))
    index = np.arange(169).reshape(13, 13)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = torch.tensor(np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]))
    points = torch.tensor(np.stack([20 * w + x, 8 + 0 * w, 0 * w, w], -1).reshape(1, -1, 4))
    ids = rasterize(points, triangles, 200, 40)[0][0].numpy()
    rows, columns = np.mgrid[:200, :40]
    assert np.array_equal(ids >= 0, (rows > 0) & (np.abs(columns - 20) * 8 <= 90 * rows) & (8 <= 9 * rows))
    corners = points[0, triangles, 3].numpy()
    assert len(np.unique(ids)) > 30 and {0, 1} == set((corners < 0).sum(1)[ids[ids >= 0]])


def test_corners_that_meet_the_camera_s_plane_or_almost_are_no_trouble():
    points = [[3.1, 4.2, 1, 0], [-20.3, 30.4, 1, 1e-300], [40.3, 30.4, 1, 1], [0, 0, 0, 0], [1.1, 1, 1, 0]]
    points = torch.tensor([points], dtype=torch.float64)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [2, 3, 3], [0, 1, 4]])
    triangle_ids, barycentric = rasterize(points, torch.tensor(triangles), 40, 50)
    expected_ids, expected_weights = brute_force(points[0].numpy(), triangles, 40, 50)
    assert np.array_equal(triangle_ids[0], expected_ids) and {-1, 0} == set(np.unique(expected_ids))
    np.testing.assert_allclose(barycentric[0], expected_weights, atol=1e-8)


def test_homogeneous_points_with_w_1_are_as_without_and_w_may_be_of_any_size():
    rng = np.random.default_rng(0)
    points, triangles = (torch.tensor(array) for array in soup(rng, 400, 8, 37, 50))
    plain = rasterize(points[None], triangles, 37, 50)
    for w in (torch.ones(1, dtype=torch.float64), torch.tensor(rng.uniform(1e-3, 1e3, (len(points), 1)))):
        homogeneous = torch.cat([points * w, w.expand(len(points), 1)], 1)[None]
        triangle_ids, barycentric = rasterize(homogeneous, triangles, 37, 50)
        assert torch.equal(triangle_ids, plain[0])
        on_screen = barycentric * w[triangles, 0][triangle_ids] if len(w) > 1 else barycentric
        on_screen = on_screen / on_screen.sum(-1, keepdim=True)
        covered = triangle_ids >= 0
        torch.testing.assert_close(on_screen[covered], plain[1][covered], rtol=0, atol=1e-9)


POSES = np.array([[0, 0, 0], [0.3, 0.6, -0.2], [-0.4, -1.2, 0.3], [0.1, 1.5, 0], [0, 3, 0]])


@pytest.mark.parametrize("model", [open_face_model, toy_model])
def test_a_face_is_as_the_numpy_rasteriser_draws_it_and_has_no_holes(model):
    model = model()
    triangles = np.concatenate([model.triangles, model.mouth_triangles])
    position = np.array([[127.5, 140, 1.1], [100, 120, 1], [127.5, 140, 1.3], [130, 140, 0.2], [140, 60, 2.2]])
    points = project(model.mean_shape.astype(np.float64), POSES, position).astype(np.float32)
    triangle_ids, barycentric = rasterize(torch.from_numpy(points), torch.from_numpy(triangles), 256, 250)
    for image, ids, weights in zip(points, triangle_ids.numpy(), barycentric.numpy()):
        expected_ids, expected_weights = bfm.rasterize.rasterize(image[:, :2], image[:, 2], triangles, 256, 250)
        assert np.array_equal(ids, expected_ids)
        np.testing.assert_allclose(weights, expected_weights, atol=1e-6)
        assert (ids >= 0).sum() > 300
    front = triangle_ids[0].numpy() >= 0
    assert np.array_equal(binary_fill_holes(front), front)


def test_a_grid_with_edges_through_pixel_centres_has_no_seams_and_every_edge_goes_to_the_lowest_index():
    rows, columns = np.mgrid[:9, :9] * 1.5 + 0.5
    index = np.arange(81).reshape(9, 9)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    for rotation in (np.eye(2), np.array([[0.75, 0.5], [-0.5, 0.75]])):
        points = np.concatenate([np.stack([columns, rows], -1).reshape(-1, 2) @ rotation, np.ones((81, 1))], 1)
        ids = rasterize(torch.tensor(points)[None], torch.tensor(triangles), 14, 14)[0][0].numpy()
        assert np.array_equal(ids, bfm.rasterize.rasterize(points[:, :2], points[:, 2], triangles, 14, 14)[0])
        assert np.array_equal(binary_fill_holes(ids >= 0), ids >= 0)


def test_a_square_of_two_triangles_by_hand_in_a_batch():
    points = torch.stack([SQUARE, SQUARE + torch.tensor([1.0, 0, 0])])
    triangle_ids, barycentric = rasterize(points, HALVES, 5, 6)
    assert triangle_ids[0].tolist() == DRAWN
    assert triangle_ids[1].tolist() == [[-1, *row[:-1]] for row in DRAWN]
    torch.testing.assert_close(barycentric[0, 2, 2], torch.tensor([1 / 6, 1 / 3, 1 / 2]))
    torch.testing.assert_close(barycentric[1, 2, 4], torch.tensor([1 / 2, 1 / 6, 1 / 3]))
    assert (barycentric[triangle_ids < 0] == 0).all()


def test_larger_depth_wins_whatever_the_order_and_the_winding_and_ties_go_to_the_lowest_index():
    points = torch.cat([SQUARE, SQUARE]).repeat(3, 1, 1)
    points[:, :, 2] = torch.tensor([[-2.0] * 4 + [-1.0] * 4, [-1.0] * 4 + [-2.0] * 4, [-0.0] * 4 + [0.0] * 4])
    triangles = torch.cat([HALVES, HALVES.flip(1) + 4])
    triangle_ids, _ = rasterize(points, triangles, 5, 6)
    assert [ids.unique().tolist() for ids in triangle_ids] == [[-1, 2, 3], [-1, 0, 1], [-1, 0, 1]]
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = torch.tensor(rng.integers(-4, 14, (1, 3, 3)).astype(float))
        triangles = torch.tensor(np.stack([rng.permutation(3) for _ in range(4)]))
        assert set(rasterize(points, triangles, 9, 9)[0].unique().tolist()) <= {-1, 0}


def test_depths_are_as_fine_as_their_image_needs():
    points = torch.cat([SQUARE, SQUARE]).double().repeat(2, 1, 1)
    points[:, 4:, 2] = torch.tensor([[1.0], [1e-6]])
    points[0, :, 2] += 1e8
    triangle_ids, _ = rasterize(points, torch.cat([HALVES, HALVES + 4]), 5, 6)
    assert [ids.unique().tolist() for ids in triangle_ids] == [[-1, 2, 3]] * 2


def test_what_lies_outside_or_has_no_area_is_not_drawn():
    points = torch.tensor([[-5.0, 1], [-1, 1], [-3, 4], [2, 2], [4, 4], [3, 3], [9, 9], [9.9, 9], [9, 9.9]])
    points = torch.cat([points, torch.zeros(9, 1)], 1)[None]
    triangles = torch.tensor([[0, 1, 2], [3, 4, 5], [3, 3, 4], [6, 7, 8]])
    for some in (triangles, triangles[:0]):
        triangle_ids, barycentric = rasterize(points, some, 6, 6)
        assert triangle_ids.shape == (1, 6, 6) and (triangle_ids == -1).all() and (barycentric == 0).all()
    assert rasterize(points[:0], triangles, 6, 6)[1].shape == (0, 6, 6, 3)


def test_a_sliver_covers_the_centres_on_its_edge():
    points = torch.tensor([[[-1.0, -1, 0], [8, 8, 0], [8, 8 + 1e-9, 0]]], dtype=torch.float64)
    triangle_ids, barycentric = rasterize(points, torch.tensor([[0, 1, 2]]), 8, 8)
    assert torch.equal(triangle_ids[0], torch.eye(8, dtype=torch.int64) - 1)
    torch.testing.assert_close(barycentric[0].diagonal()[0], (8 - torch.arange(8).double()) / 9, rtol=0, atol=1e-6)
    assert (barycentric >= 0).all()


def test_memory_chunks_do_not_show(monkeypatch):
    rng = np.random.default_rng(0)
    points = torch.tensor(rng.uniform(-9, 60, (5, 60, 3)))
    triangles = torch.tensor(rng.integers(0, 60, (90, 3)))
    whole = rasterize(points, triangles, 50, 40)
    monkeypatch.setattr("model.nearest_triangles._ON_CPU", 200)
    for a, b in zip(whole, rasterize(points, triangles, 50, 40)):
        assert torch.equal(a, b)


def scene(distance=None):
    """Two images of a toy face in float64: points with gradient, triangles, and what covers the pixels."""
    model = toy_model(rows=9, columns=7)
    pose, position = np.array([[0.1, 0.3, 0], [0, -0.4, 0.2]]), np.array([[6.0, 7, 0.07], [5, 6, 0.05]])
    placed = (model.mean_shape.astype(np.float64), pose, position)
    points = torch.tensor(project_homogeneous(*placed, distance) if distance else project(*placed), requires_grad=True)
    triangles = torch.from_numpy(model.triangles)
    return points, triangles, *rasterize(points, triangles, 14, 12)


@pytest.mark.parametrize(("distance", "shared"), [(None, False), (None, True), (300, False)])
def test_gradients_are_those_of_finite_differences(distance, shared):
    points, triangles, triangle_ids, _ = scene(distance)
    values = torch.rand((*points.shape[1 if shared else 0:2], 2), dtype=torch.float64, requires_grad=True)

    def shade(points, values):
        return interpolate(values, triangles, triangle_ids, barycentric_weights(points, triangles, triangle_ids))

    assert torch.autograd.gradcheck(shade, (points, values), atol=1e-7, fast_mode=shared)
    assert shade(points, values).shape == (2, 14, 12, 2)
    shade(points, values).sum().backward()
    assert (points.grad[..., :2].abs().amax((0, 1)) > 0).all() and (points.grad[..., 2] == 0).all()
    assert distance is None or points.grad[..., 3].abs().max() > 0


def test_weights_with_gradient_are_those_without_and_place_each_pixel_where_it_is():
    points, triangles, triangle_ids, barycentric = scene()
    assert not triangle_ids.requires_grad and not barycentric.requires_grad
    weights = barycentric_weights(points, triangles, triangle_ids)
    torch.testing.assert_close(weights, barycentric, rtol=0, atol=1e-12)
    covered = triangle_ids >= 0
    assert 60 < covered.sum() < covered.numel() and (weights[~covered] == 0).all()
    torch.testing.assert_close(barycentric[covered].sum(-1), torch.ones_like(barycentric[covered][:, 0]))
    places = interpolate(points[..., :2], triangles, triangle_ids, weights)
    row, column = covered.nonzero(as_tuple=True)[1:]
    torch.testing.assert_close(places[covered], torch.stack([column, row], -1).double())
    assert (places[~covered] == 0).all()
    places.square().sum().backward()  # a pixel stays in its place, wherever the points go
    assert points.grad.abs().max() < 1e-9


def test_perspective_weights_give_the_point_of_space_behind_each_pixel():
    points, triangles, triangle_ids, _ = scene(300)
    weights = barycentric_weights(points, triangles, triangle_ids)
    places = interpolate(points, triangles, triangle_ids, weights)
    covered = triangle_ids >= 0
    row, column = covered.nonzero(as_tuple=True)[1:]
    seen = places[covered]
    torch.testing.assert_close(seen[:, :2] / seen[:, 3:], torch.stack([column, row], -1).double())
    linear = rasterize(points[..., :3] / points[..., 3:], triangles, 14, 12)
    assert torch.equal(linear[0], triangle_ids) and (linear[1] - weights).abs().max() > 0.01


@pytest.mark.parametrize("w", [None, 1.0, 0.4])
def test_a_triangle_shows_its_front_where_its_corners_run_counter_clockwise_to_the_eye(w):
    points = SQUARE[None] if w is None else torch.cat([SQUARE, torch.ones(4, 1)], 1)[None] * w
    triangles = torch.stack([HALVES[0].flip(0), HALVES[1]])  # y is down: the first is seen from its front
    triangle_ids, _ = rasterize(points, triangles, 5, 6)
    front = weights_at(points, covered_pixels(triangle_ids, triangles))[1]
    assert torch.equal(front, triangle_ids[triangle_ids >= 0] == 0) and 0 < front.sum() < len(front)


def test_a_triangle_without_area_that_covers_nothing_leaves_the_gradient_finite():
    points = torch.cat([SQUARE[:1], SQUARE])[None].requires_grad_()
    triangles = torch.cat([torch.tensor([[0, 1, 1]]), HALVES + 1])
    triangle_ids, _ = rasterize(points, triangles, 5, 6)
    weights = barycentric_weights(points, triangles, triangle_ids)
    interpolate(points, triangles, triangle_ids, weights).sum().backward()
    assert weights.dtype == torch.float32 and points.grad.isfinite().all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e10])
@pytest.mark.parametrize("axis", [0, 2])
def test_refuses_numbers_that_are_not_places(value, axis):
    points = SQUARE.clone()[None]
    points[0, 2, axis] = value
    with pytest.raises(ValueError, match="finite numbers below 1e9"):
        rasterize(points, HALVES, 5, 6)


def test_refuses_shapes_that_are_wrong():
    with pytest.raises(ValueError, match=r"\(B, V, 4\) and triangles \(F, 3\), got \(4, 3\) and \(2, 3\)"):
        rasterize(SQUARE, HALVES, 5, 6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("distance", [None, 400])
def test_the_gpu_draws_what_the_cpu_draws(distance):
    model = open_face_model()
    position = np.array([[127.5, 140, 1.1], [100, 120, 1], [127.5, 140, 1.3], [130, 140, 0.2], [140, 60, 2.2]])
    placed = (model.mean_shape.astype(np.float64), POSES, position)
    points = torch.tensor(project_homogeneous(*placed, distance) if distance else project(*placed))
    triangles = torch.tensor(model.triangles)
    for some in (points, points.float()):
        on_cpu, on_gpu = (rasterize(some.to(device), triangles.to(device), 256, 250) for device in ("cpu", "cuda"))
        assert torch.equal(on_gpu[0].cpu(), on_cpu[0])
        torch.testing.assert_close(on_gpu[1].cpu(), on_cpu[1], rtol=0, atol=1e-6)
