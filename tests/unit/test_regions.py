"""Region labels, mouth closing and mirror pairs, on a made head-like mesh."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bfm import regions
from bfm.landmarks import NAMED, complete_landmarks
from bfm.mirror import asymmetry, mirror_map
from bfm.morphable_model import REGIONS
from bfm.mouth import _zip_loop, boundary_loops, close_hole, close_mouth
from bfm.open_face import open_face_model
from bfm.regions import label_regions
from bfm.similarity import fit_similarity
from face_files import landmark_targets, made_mesh

OUTSIDE, FACE, EYES, NOSE, MOUTH = range(len(REGIONS))


@pytest.fixture(scope="module")
def head():
    vertices, cells, landmarks, mirror = made_mesh()
    triangles = np.concatenate([cells[:, [0, 1, 2]], cells[:, [0, 2, 3]]])
    return vertices.astype(np.float32), triangles.astype(np.int32), landmarks, mirror


def test_landmarks_fall_into_their_regions(head):
    vertices, triangles, landmarks, _ = head
    labels = label_regions(vertices, triangles, landmarks)[landmarks]
    assert (labels[:17] == FACE).all()
    assert (labels[36:48] == EYES).all()
    assert (labels[17:22] == EYES).all()
    assert (labels[[28, 29, 30, 33]] == NOSE).all()
    assert (labels[48:] == MOUTH).all()


def test_ears_neck_and_back_are_outside(head):
    vertices, triangles, landmarks, _ = head
    labels = label_regions(vertices, triangles, landmarks)
    x, y, z = vertices.T
    assert (labels[z < 8] == OUTSIDE).all()
    assert (labels[y < -94] == OUTSIDE).all()
    assert (labels[(np.abs(x) < 30) & (y > -80) & (z > 60)] != OUTSIDE).all()  # forehead to chin
    assert (labels[(np.abs(x) > 60) & (y < -75)] == OUTSIDE).all()


def test_the_face_is_one_sheet_with_the_mouth_as_its_only_hole(head):
    vertices, triangles, landmarks, _ = head
    inside = label_regions(vertices, triangles, landmarks) != OUTSIDE
    kept = triangles[inside[triangles].all(axis=1)]
    assert set(np.unique(kept)) == set(np.flatnonzero(inside))
    edges = np.unique(np.sort(np.concatenate([kept[:, [0, 1]], kept[:, [1, 2]], kept[:, [2, 0]]])), axis=0)
    assert inside.sum() - len(edges) + len(kept) == 0  # Euler: a disc with one hole
    rim, mouth = boundary_loops(kept)
    assert len(set(rim)) == len(rim)
    assert np.abs(vertices[mouth].mean(axis=0)[1] + 41) < 4


def test_labels_of_a_symmetric_face_are_symmetric(head):
    vertices, triangles, landmarks, mirror = head
    symmetric = landmarks.copy()
    labels = label_regions(vertices, triangles, symmetric)
    assert (labels == labels[mirror]).mean() > 0.995


def distance_by_definition(query, outline):
    """0 where the outline winds about the query, else the distance of the nearest of its sides."""
    offset = outline - query
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    turn = (np.roll(angle, -1) - angle + np.pi) % (2 * np.pi) - np.pi
    if abs(turn.sum()) > np.pi:
        return 0.0
    best = np.inf
    for start, end in zip(offset, np.roll(offset, -1, axis=0)):
        side = end - start
        share = min(max(-start @ side / max(side @ side, 1e-300), 0), 1)
        best = min(best, np.hypot(*(start + share * side)))
    return best


def test_distances_from_an_outline_by_definition():
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 24))
    star = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(1, 6, (24, 1))
    star = np.insert(star, 7, star[7], axis=0)  # a side without length
    queries = rng.uniform(-7, 7, (600, 2))
    for outline in (star, star[::-1]):
        expected = [distance_by_definition(query, outline) for query in queries]
        assert 100 < sum(value == 0 for value in expected) < 500
        np.testing.assert_allclose(regions._distance(queries, outline), expected, atol=1e-12)


def test_the_outline_of_the_face_by_definition(head):
    """On the cylinder between the ears: jaw, then half an ellipse as high as the hairline; 4 % of the eyes wider."""
    vertices, _, landmarks, _ = head
    vertices, points = vertices[::6].astype(np.float64), vertices[landmarks].astype(np.float64)
    points[0] += [3, 0, 2]  # as no face is symmetric
    points[17] += [0, 0, 20]
    axis = (points[0] + points[16]) / 2
    radius = np.linalg.norm(points[0] - points[16]) / 2

    def unrolled(xyz):
        return [[radius * np.arctan2(p[0] - axis[0], p[2] - axis[2]), p[1] - axis[1]] for p in xyz]

    jaw, brows = unrolled(points[:17]), np.mean(points[17:27, 1])
    height = brows + (brows - points[8, 1]) / 2 - axis[1]
    forehead = [
        [(jaw[16][0] if angle < 90 else -jaw[0][0]) * np.cos(np.radians(angle)), height * np.sin(np.radians(angle))]
        for angle in np.arange(5.625, 180, 5.625)
    ]
    outline = np.array(jaw + forehead)
    unit = np.linalg.norm(points[45] - points[36])
    # on the face, and on the cylinder about its outline
    u, y = (outline[np.arange(480) % len(outline)] + np.random.default_rng(0).uniform(-8, 8, (480, 2))).T
    about = axis + np.stack([radius * np.sin(u / radius), y, radius * np.cos(u / radius)], 1)
    queries = np.concatenate([vertices, about])
    expected = np.array([distance_by_definition(query, outline) for query in np.array(unrolled(queries))])
    assert 300 < (expected == 0).sum() < 900 and 60 < ((0 < expected) & (expected < 0.04 * unit)).sum()
    np.testing.assert_array_equal(regions._inside_outline(queries, points, unit), expected < 0.04 * unit)


def test_the_labels_of_the_open_model_follow_from_the_rule():
    model = open_face_model()
    labels = label_regions(model.mean_shape, model.triangles, model.landmarks)
    labels = np.maximum(labels, labels[model.mirror])  # as it was built
    np.testing.assert_array_equal(np.maximum(labels, FACE), model.regions)


def test_labels_scale_and_shift_with_the_face(head):
    vertices, triangles, landmarks, _ = head
    labels = label_regions(vertices, triangles, landmarks)
    moved = (vertices * 1.5 + np.array([3, -200, 70])).astype(np.float32)
    assert (label_regions(moved, triangles, landmarks) == labels).mean() > 0.999


def test_a_face_hanging_by_a_corner_is_cut_off(head):
    vertices, triangles, landmarks, _ = head
    before = label_regions(vertices, triangles, landmarks)
    # a loose triangle over the cheek, joined to the face by one vertex
    cheek = int(np.argmin(np.linalg.norm(vertices - [45, -10, 90], axis=1)))
    flap = np.array([[50, -10, 100], [50, -5, 100]], np.float32)
    count = len(vertices)
    after = label_regions(
        np.concatenate([vertices, flap]), np.concatenate([triangles, [[cheek, count, count + 1]]]), landmarks
    )
    np.testing.assert_array_equal(after[:count], before)
    assert (after[count:] == OUTSIDE).all()


def test_a_vertex_where_two_gaps_meet_joins_them():
    index = np.arange(49).reshape(7, 7)
    cells = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    triangles = np.concatenate([cells[:, [0, 1, 2]], cells[:, [0, 2, 3]]])
    inside = np.ones(49, bool)
    inside[index[3, [2, 4]]] = False
    sheet = regions._one_sheet(inside, triangles, np.full(68, index[1, 1]))
    assert set(np.flatnonzero(~sheet)) == set(index[3, 2:5])


def test_a_landmark_off_the_sheet_is_named(head):
    vertices, triangles, landmarks, _ = head
    loose = np.concatenate([vertices, vertices[landmarks[40:41]]])
    wrong = landmarks.copy()
    wrong[40] = len(vertices)
    with pytest.raises(ValueError, match="must lie on one face sheet, landmark 41 does not"):
        label_regions(loose, triangles, wrong)


def test_the_mouth_is_closed_to_the_last_edge(head):
    vertices, triangles, landmarks, mirror = head
    rim = boundary_loops(triangles)[1]
    mouth = close_mouth(triangles, vertices, landmarks)
    assert mouth.dtype == np.int32
    assert len(mouth) == len(rim) - 2
    assert set(mouth.ravel()) == set(rim)
    closed = np.concatenate([triangles, mouth])
    assert len(boundary_loops(closed)) == 1
    # wound as the surface: no directed edge twice, every inner edge once each way
    edges = np.concatenate([closed[:, [0, 1]], closed[:, [1, 2]], closed[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)
    # a flat slit in the plane: positive area everywhere
    a, b, c = (vertices[corner, :2].astype(float) for corner in mouth.T)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area > 0).all()
    assert {frozenset(t) for t in mirror[mouth].tolist()} == {frozenset(t) for t in mouth.tolist()}


def test_rims_are_zipped_halfway_between_their_vertices_by_hand():
    shape = np.zeros((8, 3))
    shape[:, 0] = 0, 1, 2, 3, 10, 5, 6, 9  # one rim is 0 1 2 3 4, the other 0 5 6 7 4
    for loop in ([0, 1, 2, 3, 4, 7, 6, 5], [4, 7, 6, 5, 0, 1, 2, 3]):
        # halfway are .5 1.5 2.5 6.5 on one, 2.5 5.5 7.5 9.5 on the other
        assert _zip_loop(np.array(loop), shape).tolist() == [
            [2, 1, 0], [3, 2, 0], [3, 0, 5], [3, 5, 6], [4, 3, 6], [4, 6, 7]
        ]


def test_a_closed_mouth_needs_no_triangles(head):
    vertices, triangles, landmarks, _ = head
    closed = np.concatenate([triangles, close_mouth(triangles, vertices, landmarks)])
    assert close_mouth(closed, vertices, landmarks).shape == (0, 3)
    # nor is the outline taken for a mouth, nor the mouth for an eye
    assert close_hole(triangles, vertices, landmarks[36:42]).shape == (0, 3)


def test_loops_that_touch_are_taken_apart():
    #  two square holes of a 5 x 5 grid that share a corner
    index = np.arange(36).reshape(6, 6)
    cells = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1)
    keep = np.ones((5, 5), bool)
    keep[1, 1] = keep[2, 2] = False
    cells = cells[keep]
    loops = boundary_loops(np.concatenate([cells[:, [0, 1, 2]], cells[:, [0, 2, 3]]]))
    assert sorted(len(loop) for loop in loops) == [4, 4, 20]
    assert {frozenset(loop.tolist()) for loop in loops[1:]} == {
        frozenset(index[1:3, 1:3].ravel().tolist()), frozenset(index[2:4, 2:4].ravel().tolist())
    }


def test_loops_are_simple_and_share_out_the_edges_of_one_triangle():
    index = np.arange(81).reshape(9, 9)
    cells = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    rng = np.random.default_rng(0)
    for _ in range(25):
        kept = cells[rng.random(64) < 0.6]
        loops = boundary_loops(rng.permutation(np.concatenate([kept[:, [0, 1, 2]], kept[:, [0, 2, 3]]])))
        sides = {(a, b) for cell in kept.tolist() for a, b in zip(cell, cell[1:] + cell[:1])}
        found = [(a, b) for loop in loops for a, b in zip(loop.tolist(), np.roll(loop, -1).tolist())]
        assert sorted(found) == sorted((a, b) for a, b in sides if (b, a) not in sides)
        assert all(len(set(loop.tolist())) == len(loop) for loop in loops)
        assert [len(loop) for loop in loops] == sorted(map(len, loops), reverse=True)


def test_mirror_pairs_of_a_symmetric_mesh_are_exact(head):
    vertices, _, _, mirror = head
    found = mirror_map(vertices)
    np.testing.assert_array_equal(found, mirror)
    assert asymmetry(vertices, found).max() < 1e-4


def mirror_by_definition(points):
    """Pairs that choose each other among the eight nearest mirror images, round by round."""
    far = [[(np.linalg.norm(b - a * [-1, 1, 1]), j) for j, b in enumerate(points)] for a in points]
    near = [[j for _, j in sorted(row)[:8]] for row in far]
    twin = {}
    while True:
        choice = [next((j for j in row if j not in twin), row[0]) for row in near]
        pairs = [v for v in range(len(points)) if v not in twin and choice[choice[v]] == v]
        if not pairs:
            return [twin.get(v, row[0]) for v, row in enumerate(near)]
        twin.update({v: choice[v] for v in pairs})


def test_mirror_pairs_by_definition():
    rng = np.random.default_rng(2)
    for count in (1, 5, *12 * [40]):
        points = rng.normal(size=(count, 3))
        found = mirror_map(points)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, mirror_by_definition(points))


def test_mirror_pairs_of_a_bent_mesh_are_mutual(head):
    vertices, _, _, _ = head
    rng = np.random.default_rng(0)
    bent = vertices + rng.normal(size=vertices.shape).astype(np.float32) * 1.5
    found = mirror_map(bent)
    assert (found[found] == np.arange(len(bent))).mean() > 0.93  # by mutual nearest alone: 0.62
    np.testing.assert_allclose(
        asymmetry(bent, found)[:50],
        [np.linalg.norm(bent[found[v]] * [-1, 1, 1] - bent[v]) for v in range(50)], rtol=1e-5,
    )


def test_landmarks_are_found_by_those_of_a_similar_face(head):
    vertices, triangles, landmarks, _ = head
    truth = vertices[landmarks].astype(np.float64)
    turn = Rotation.from_euler("xyz", [5, -10, 3], degrees=True).as_matrix()
    template = (truth * 1.2) @ turn.T + [4, -9, 30]
    known = {number: truth[number] for number in NAMED.values()}
    found = complete_landmarks(known, template, vertices)
    np.testing.assert_allclose(vertices[found], truth, atol=1e-3)
    # a known point is met even where the other face disagrees
    template[30] += [0, 0, 8]
    assert complete_landmarks(known, template, vertices)[30] == landmarks[30]


def test_between_known_points_the_offset_is_spread_linearly_in_distance():
    """By definition: offset(p) = c + sum w_k |p - p_k| with sum w_k = 0, met at the known points."""
    rng = np.random.default_rng(5)
    template = rng.uniform(-80, 80, (68, 3))
    known = {number: template[number] + rng.normal(0, 4, 3) for number in (3, 30, 36, 45, 48, 54)}
    anchors, target = np.array(list(known)), np.array(list(known.values()))
    laid = fit_similarity(template[anchors], target).apply(template)
    far = np.linalg.norm(laid[:, None] - laid[anchors], axis=-1)
    one = np.ones((6, 1))
    system = np.block([[far[anchors], one], [one.T, np.zeros((1, 1))]])
    weights = np.linalg.solve(system, np.concatenate([target - laid[anchors], np.zeros((1, 3))]))
    expected = laid + far @ weights[:6] + weights[6]
    decoys = (expected[:, None] + 0.2 * np.concatenate([np.eye(3), -np.eye(3)])).reshape(-1, 3)
    found = complete_landmarks(known, template, np.concatenate([expected, decoys]))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, np.arange(68))


def test_made_landmarks_are_where_they_were_asked(head):
    vertices, _, landmarks, _ = head
    assert np.abs(vertices[landmarks, :2] - landmark_targets()).max() < 8
