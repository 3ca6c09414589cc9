"""Loop subdivision against its definition, its exactness, and the brushes of the procedural skin."""

import numpy as np
import pytest

from bfm.open_face import DATA_FILE, LEVELS
from bfm.open_face.paint import below, curve, hill, noise, stroke
from bfm.open_face.subdivide import subdivision

OCTAHEDRON = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
BIPYRAMID = np.array([[i, (i + 1) % 5, 5] for i in range(5)] + [[(i + 1) % 5, i, 6] for i in range(5)])
CORNERS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)


def slow_loop(points, triangles):
    """One level from the definition; valence weight 3 / (8 n) (n > 3), 3 / 16 (n = 3), spline on the boundary."""
    sides = {}
    for a, b, c in triangles.tolist():
        for p, q, r in ((a, b, c), (b, c, a), (c, a, b)):
            sides.setdefault(frozenset((p, q)), []).append(r)
    new = {}
    for edge, opposite in sides.items():
        p, q = edge
        if len(opposite) == 1:
            new[edge] = (points[p] + points[q]) / 2
        else:
            new[edge] = 0.375 * (points[p] + points[q]) + 0.125 * (points[opposite[0]] + points[opposite[1]])
    old = []
    for v, point in enumerate(points):
        around = [next(iter(edge - {v})) for edge in sides if v in edge]
        rim = [next(iter(edge - {v})) for edge, opposite in sides.items() if v in edge and len(opposite) == 1]
        if rim:
            old.append(0.75 * point + 0.125 * sum(points[u] for u in rim))
        else:
            weight = 0.1875 if len(around) == 3 else 0.375 / len(around)
            old.append((1 - len(around) * weight) * point + weight * sum(points[u] for u in around))
    return np.array(old), new


@pytest.mark.parametrize("triangles", [OCTAHEDRON, OCTAHEDRON[:5], OCTAHEDRON[:4], TETRAHEDRON, BIPYRAMID])
def test_one_level_equals_the_definition(triangles):
    count = triangles.max() + 1
    points = np.random.default_rng(0).normal(0, 1, (count, 3))
    operator, fine, _ = subdivision(triangles, np.arange(count), 1)
    old, new = slow_loop(points, triangles)
    result = operator @ points
    assert result[:count] == pytest.approx(old, abs=2e-2)  # the valence weight is rounded to 1/512
    assert len(result) == count + len(new) and len(fine) == 4 * len(triangles)
    for point in new.values():
        assert np.linalg.norm(result[count:] - point, axis=1).min() < 1e-12


def test_triangles_keep_their_sense_and_their_area_on_a_flat_mesh():
    x, y = np.meshgrid(np.arange(4.0), np.arange(4.0))
    points = np.stack([x.ravel(), y.ravel()], 1)
    cell = np.array([i + 4 * j for j in range(3) for i in range(3)])
    triangles = np.concatenate([np.stack([cell, cell + 1, cell + 5], 1), np.stack([cell, cell + 5, cell + 4], 1)])
    operator, fine, _ = subdivision(triangles, np.arange(16), 2)
    a, b, c = (operator @ points)[fine].swapaxes(0, 1)
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert (area > 0).all() and len(fine) == 16 * len(triangles)


def test_mirror_map_follows_the_mesh():
    mirror = np.array([1, 0, 2, 3, 4, 5])
    operator, fine, fine_mirror = subdivision(OCTAHEDRON, mirror, 2)
    points = operator @ CORNERS
    assert points[fine_mirror] * [-1, 1, 1] == pytest.approx(points, abs=1e-15)
    assert (fine_mirror[fine_mirror] == np.arange(len(points))).all()


def test_open_face_arithmetic_is_exact():
    """Every weight is a whole number of 2**-18, so sums of the stored whole numbers fit 53 bits in any order."""
    data = np.load(DATA_FILE)
    operator, _, _ = subdivision(data["triangles"], data["mirror"], LEVELS)
    whole = operator.data * 2.0 ** (9 * LEVELS)
    assert np.array_equal(whole, np.round(whole))
    assert np.abs(operator).sum(axis=1).max() == 1 and (operator.data > 0).all()
    assert np.abs(data["mean_shape"]).max() < 2**18  # 18 + 18 bits, far from 53
    assert np.array_equal(operator.sum(axis=1), np.ones(operator.shape[0]))


def test_brushes():
    x = np.linspace(-2, 2, 401)
    assert below(np.array([0.0, 0.5, 1.0, 1.5, 2.0]), 1.0, 0.5) == pytest.approx([1, 1, 0.5, 0, 0])
    knots = np.array([[-1.0, 3.0], [0.0, 1.0], [1.5, 2.0]])
    assert curve(knots[:, 0], knots) == pytest.approx(knots[:, 1])
    assert curve(np.array([-9.0, 9.0]), knots) == pytest.approx([3.0, 2.0])
    assert np.abs(np.diff(curve(x, knots))).max() < 0.05  # no jumps
    assert np.abs(np.diff(curve(x, knots), 2)).max() < 3e-3  # nor kinks
    assert hill(np.array([0.0, 3.0, 1.5]), np.array([1.0, 1.0, 1.0]), (0, 1), (3, 2)) == pytest.approx([1, 0, 0.421875])
    line = stroke(np.array([0.5, 0.5, 2.0]), np.array([0.0, 3.0, 0.2]), ((0, 0), (1, 0)), 1.0)
    assert line == pytest.approx([1, 0, 0])


def test_noise_is_smooth_repeatable_and_of_unit_size():
    rng = np.random.default_rng(0)
    points = rng.uniform(-50, 50, (20_000, 3))
    values = noise(points, 5)
    assert abs(values.mean()) < 0.05 and 0.6 < values.std() < 1.2
    assert np.abs(noise(points + 1e-4, 5) - values).max() < 2e-3
    assert abs(np.corrcoef(values, noise(points, 6))[0, 1]) < 0.05
    lattice = np.array([[0, 0, 0], [3, -2, 7]])
    assert np.abs(noise(lattice + 1e-3, 4) - noise(lattice + 0.0, 4)).max() < 1e-4  # level at the lattice points
    # at a lattice point the noise is the hash itself
    assert noise(lattice.astype(float), 4) == pytest.approx([3 * slow_hash(*(place + 1000), 4) for place in lattice])


def slow_hash(x, y, z, seed):
    """The lattice hash in whole numbers of any size."""
    prime = 0xD6E8FEB86659FD93
    h = (int(x) * 0x9E3779B97F4A7C15 + int(y) * 0xC2B2AE3D27D4EB4F + int(z) * 0x165667B19E3779F9 + (seed + 1) * prime)
    for shift in (32, 29, 32):
        h %= 2**64
        h = (h ^ (h >> shift)) * prime
    return (h % 2**64 >> 11) / 2**52 - 1
