"""The rasteriser against its definition in exact arithmetic, and what must hold for any mesh."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bfm.rasterize import rasterize

HEIGHT, WIDTH = 7, 9
# on the pixel grid and its halves ties and edges through centres are common; other floats have none
coordinate = st.one_of(
    st.integers(-8, 24).map(lambda n: n / 2), st.floats(-6, 14), st.sampled_from([-1e6, 3e5, 4 + 1e-15, 1e-300])
)
scene = st.integers(3, 9).flatmap(lambda count: st.tuples(
    st.lists(st.tuples(coordinate, coordinate, st.integers(-4, 4)), min_size=count, max_size=count),
    st.lists(st.tuples(*[st.integers(0, count - 1)] * 3), min_size=1, max_size=8),
))


def exact_sides(corners: list, column: int, row: int) -> tuple[list[Fraction], Fraction]:
    """Twice the areas of the pixel against each side, all >= 0 inside, and twice the area of the triangle."""
    (ax, ay), (bx, by), (cx, cy) = [(Fraction(x) - column, Fraction(y) - row) for x, y in corners]
    sides = [bx * cy - cx * by, cx * ay - ax * cy, ax * by - bx * ay]
    area = sum(sides)
    return [side * (1 if area > 0 else -1) for side in sides], abs(area)


@settings(max_examples=80)
@given(scene)
@example(([(-6, -6, 4), (14, 14, -4), (4, 4 + 1e-9, 3), (14, -6, 0)], [(0, 1, 2), (0, 1, 3)]))
@example(([(-6, -6, 4), (14, 14, -4), (1, 1 + 1e-12, 3), (14, -6, 0)], [(0, 1, 2), (0, 1, 3)]))
def test_agrees_with_exact_arithmetic(scene):
    vertices, triangles = scene
    points, depth = np.array(vertices)[:, :2], np.array(vertices)[:, 2]
    triangle_ids, barycentric = rasterize(points, depth, np.array(triangles), HEIGHT, WIDTH)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            covering, error, near_edge = {}, {}, set()
            for index, triangle in enumerate(triangles):
                corners = [tuple(points[vertex]) for vertex in triangle]
                sides, area = exact_sides(corners, column, row)
                extent = np.ptp(np.array(corners), axis=0).sum()
                lengths = [np.hypot(*np.subtract(corners[k - 1], corners[k - 2])) for k in range(3)]
                slack = [Fraction(1e-14 * extent) * Fraction(float(length)) for length in lengths]
                if area > 0:
                    error[index] = float(max(slack) / area)  # of a weight: rounding counts for more in slivers
                if area > 0 and all(side >= 0 for side in sides):
                    covering[index] = float(sum(side * int(depth[v]) for side, v in zip(sides, triangle)) / area)
                sliver = 0 < area <= max(*slack, Fraction(1e-100))
                if sliver or any(abs(side) <= s and side != 0 for side, s in zip(sides, slack)):
                    near_edge.add(index)
            winner = triangle_ids[row, column]
            if not near_edge:
                surely = max((z - 8 * error[i] for i, z in covering.items()), default=None)
                rivals = [i for i, z in covering.items() if z + 8 * error[i] > surely - 1e-7]
                if max((error[i] for i in rivals), default=0) < 1e-10:
                    assert winner == min(rivals, default=-1), (row, column, covering)
                else:
                    assert winner in rivals, (row, column, covering, error)
            elif set(covering) - near_edge:
                assert winner in covering or winner in near_edge
            if winner < 0:
                assert (barycentric[row, column] == 0).all()
            elif winner not in near_edge:
                sides, area = exact_sides([tuple(points[v]) for v in triangles[winner]], column, row)
                np.testing.assert_allclose(
                    barycentric[row, column], [float(side / area) for side in sides], atol=1e-6 + error[winner]
                )


@st.composite
def planar_mesh(draw, snapped: bool):
    """A grid mesh over the image and beyond, its inner vertices moved without folding, windings random."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    low, high = (-1, 0) if snapped else (-1.137, 0.291)
    x, y = np.meshgrid(np.linspace(low, WIDTH + high, columns), np.linspace(low, HEIGHT + high, rows))
    cell = np.array([x[0, 1] - x[0, 0], y[1, 0] - y[0, 0]])
    moved = rng.uniform(-0.24, 0.24, (rows, columns, 2)) * cell
    moved[[0, -1]] = moved[:, [0, -1]] = 0
    points = (np.stack([x, y], -1) + moved * (not snapped)).reshape(-1, 2)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    triangles = rng.permutation(triangles)
    order = np.argsort(rng.random(triangles.shape), axis=1)
    return points, np.take_along_axis(triangles, order, 1), rng


@settings(max_examples=60)
@given(planar_mesh(snapped=False))
def test_a_mesh_has_no_holes_and_no_pixel_twice(mesh):
    points, triangles, _ = mesh
    depth = np.zeros(len(points))
    times = sum(rasterize(points, depth, triangle[None], HEIGHT, WIDTH)[0] >= 0 for triangle in triangles)
    assert (times == 1).all()
    assert (rasterize(points, depth, triangles, HEIGHT, WIDTH)[0] >= 0).all()


def test_an_edge_through_a_pixel_centre_leaves_no_hole_between_its_triangles():
    rng = np.random.default_rng(0)
    for _ in range(500):
        centre, along = rng.integers(0, 7, 2), rng.integers(-5, 6, 2)
        ends = [centre + t * along for t in rng.uniform([-3, 0.1], [-0.1, 3])]
        sides = [centre + rng.uniform(0.2, 4) * sign * np.array([-along[1], along[0]]) for sign in (1, -1)]
        if along.any():
            triangle_ids, _ = rasterize(np.array([*ends, *sides]), np.zeros(4), np.array([[0, 1, 2], [3, 1, 0]]), 7, 7)
            assert triangle_ids[centre[1], centre[0]] >= 0


@settings(max_examples=60)
@given(planar_mesh(snapped=True))
def test_a_mesh_with_edges_through_pixel_centres_has_no_holes_and_the_lowest_triangle_wins(mesh):
    points, triangles, _ = mesh
    depth = np.full(len(points), 0.1)  # a constant depth stays constant
    single = np.stack([rasterize(points, depth, triangle[None], HEIGHT, WIDTH)[0] >= 0 for triangle in triangles])
    assert single.any(axis=0).all()
    assert np.array_equal(rasterize(points, depth, triangles, HEIGHT, WIDTH)[0], single.argmax(axis=0))


@settings(max_examples=60)
@given(planar_mesh(snapped=False))
def test_a_linear_field_survives(mesh):
    points, triangles, rng = mesh
    slope = rng.uniform(-3, 3, 2)
    triangle_ids, barycentric = rasterize(points, np.zeros(len(points)), triangles, HEIGHT, WIDTH)
    field = np.einsum("hwk,hwk->hw", barycentric, (points @ slope)[triangles[triangle_ids]])
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    np.testing.assert_allclose(field, column * slope[0] + row * slope[1], atol=2e-5)


@settings(max_examples=60)
@given(planar_mesh(snapped=False))
def test_the_nearer_of_two_crossing_sheets_wins_at_every_pixel(mesh):
    points, triangles, rng = mesh
    slopes = rng.uniform(-3, 3, (2, 2))
    depth = np.concatenate([points @ slopes[0], points @ slopes[1]])
    both = np.concatenate([triangles, triangles + len(points)])
    triangle_ids, _ = rasterize(np.concatenate([points, points]), depth, both, HEIGHT, WIDTH)
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    first, second = (column * slope[0] + row * slope[1] for slope in slopes)
    clear = np.abs(first - second) > 1e-4
    assert np.array_equal((triangle_ids < len(triangles))[clear], (first > second)[clear])


@pytest.mark.parametrize("side", [30.0, 1e3, 1e6])
def test_one_triangle_larger_than_the_image(side):
    points = np.array([[-side, -side], [3 * side, -side], [-side, 3 * side]])
    triangle_ids, barycentric = rasterize(points, np.zeros(3), np.array([[0, 2, 1]]), 20, 30)
    assert (triangle_ids == 0).all()
    column = barycentric.astype(np.float64) @ points[[0, 2, 1], 0]
    np.testing.assert_allclose(column, np.broadcast_to(np.arange(30), (20, 30)), atol=3e-7 * side)
