import json

import numpy as np
import pytest
import trimesh

from model.evaluation.scans import (
    BND_PARTS, Scan, border, interocular_distance, nose_tip, read_bnd, read_ljson, read_scan,
)

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.25]], float)


def written(path, text):
    path.write_text(text)
    return path


OBJ = """# a comment
mtllib scan.mtl
o head
v 0 0 0 0.5 0.5 0.5
v 1 0 0 0.5 0.5 0.5
v\t1 1 0
vt 0 0
vn 0 0 1
v 0 1 2.5e-1
g face
usemtl skin
"""


@pytest.mark.parametrize("faces, triangles", [
    ("f 1 2 3\nf 1 3 4\n", [[0, 1, 2], [0, 2, 3]]),
    ("f 1/1/1 2/1/1 3/1/1 4/1/1\n", [[0, 1, 2], [0, 2, 3]]),
    ("f 1//1 2//1 4//1 # the last\n", [[0, 1, 3]]),
    ("f -4 -3 -1\nv 9 9 9\nf -1 1 -2\n", [[0, 1, 3], [4, 0, 3]]),
    ("f 1 2 \\\n 3 4\n", [[0, 1, 2], [0, 2, 3]]),
])
def test_obj(tmp_path, faces, triangles):
    scan = read_scan(written(tmp_path / "scan.obj", OBJ + faces))
    np.testing.assert_array_equal(scan.vertices[:4], SQUARE)
    np.testing.assert_array_equal(scan.triangles, triangles)
    assert scan.landmarks == {} and scan.name == "scan"


WRL = """#VRML V2.0 utf8
# made by hand, with a bracket ] and coordIndex [ in a comment
Group { children [ Shape {
  appearance Appearance { texture ImageTexture { url "a#1.bmp" } }
  geometry IndexedFaceSet {
    coord DEF C Coordinate { point [ 0 0 0, 1 0 0,
      1 1 0 0, 1 +2.5E-1 ] }
    texCoord TextureCoordinate { point [ 0 0, 1 1 ] }
    texCoordIndex [ 0, 1, 0, -1 ]
    coordIndex [ %s ]
  } } %s ] }
"""


@pytest.mark.parametrize("faces", ["0, 1, 2, -1, 0, 2, 3, -1", "0 1 2 3 -1", "0,1,2,3", "0 1 2 -1 # three\n 0 2 3 -1,"])
def test_vrml(tmp_path, faces):
    scan = read_scan(written(tmp_path / "scan.WRL", WRL % (faces, "")))
    np.testing.assert_array_equal(scan.vertices, SQUARE)
    np.testing.assert_array_equal(scan.triangles, [[0, 1, 2], [0, 2, 3]])


def test_vrml_with_two_shapes_counts_on(tmp_path):
    other = "Shape { geometry IndexedFaceSet { coord Coordinate { point [5 5 5 6 5 5 5 6 5] } coordIndex [2 1 0] } }"
    scan = read_scan(written(tmp_path / "scan.wrl", WRL % ("0 1 2 -1", other)))
    assert len(scan.vertices) == 7
    np.testing.assert_array_equal(scan.triangles, [[0, 1, 2], [6, 5, 4]])


def test_ply_keeps_the_order_of_vertices(tmp_path):
    vertices = np.concatenate([SQUARE, SQUARE[:1]])  # two at one place
    trimesh.Trimesh(vertices, [[4, 1, 2], [0, 2, 3]], process=False).export(tmp_path / "scan.ply")
    scan = read_scan(tmp_path / "scan.ply")
    np.testing.assert_array_equal(scan.vertices, vertices)
    np.testing.assert_array_equal(scan.triangles, [[4, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize("name, text, message", [
    ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "triangles between its 3 vertices, got indices 0 to 3"),
    ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "index 0"),
    ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n", "3 corners at least, got 2"),
    ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n", "got none"),
    ("a.obj", "v 0 0 0\nv 1 0 nan\nv 0 1 0\nf 1 2 3\n", "finite vertices"),
    ("a.obj", "v 0 0 0\nv 1 0\nf 1 2 2\n", "cannot be read"),
    ("a.obj", "f 1 2 3\n", "finite vertices"),
    ("a.wrl", "#VRML V1.0 ascii\n", "must be #VRML V2.0"),
    ("a.wrl", WRL % ("0 1 4 -1", ""), "within its 4 points, got up to 4"),
    ("a.wrl", WRL.replace("coordIndex [ %s ]", "%s") % ("", ""), "needs a coordIndex, got 1 and 0"),
    ("a.wrl", WRL.replace("1 1 0 0, 1", "1 1 0 0,") % ("0 1 2", ""), "cannot be read"),
    ("a.ply", "ply\n", "cannot be read"),
    ("a.stl", "", "must be a mesh in .obj, .ply, .wrl"),
])
def test_what_is_no_mesh_is_told_in_a_sentence(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_scan(written(tmp_path / name, text))
    assert name in str(raised.value)


def test_a_missing_scan(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.obj does not exist"):
        read_scan(tmp_path / "none.obj")


@pytest.mark.parametrize("wrap", [lambda group: {"groups": {"LJSON": group}, "version": 3}, lambda group: group])
def test_menpo_landmarks_beside_the_scan(tmp_path, wrap):
    points = np.arange(204.0).reshape(68, 3).tolist()
    points[3] = [None, None, None]
    written(tmp_path / "scan.ljson", json.dumps(wrap({"landmarks": {"points": points}})))
    scan = read_scan(written(tmp_path / "scan.obj", OBJ + "f 1 2 3\n"))
    assert sorted(scan.landmarks) == [k for k in range(68) if k != 3]
    np.testing.assert_array_equal(scan.landmarks[67], [201, 202, 203])


@pytest.mark.parametrize("text, message", [
    ("{", "one group"), ("[]", "one group"), ('{"groups": {"a": 1, "b": 2}}', "one group"),
    ('{"landmarks": {"points": [[1, 2, 3]]}}', "got shape"),
])
def test_damaged_menpo_landmarks(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_ljson(written(tmp_path / "a.ljson", text))


def bnd_points(turn=0.0):
    """83 points: eyes as ellipses that begin anywhere, a wide-open mouth, a head that is tilted."""
    points = np.zeros((83, 3))
    rng = np.random.default_rng(0)
    for part, middle, wide, high in (("eye", (-31, 20), 14, 5), ("other eye", (31, 20), 14, 5),
                                     ("outer mouth", (0, -40), 20, 30)):
        count = len(range(*BND_PARTS[part].indices(83)))
        angles = np.roll(2 * np.pi * np.arange(count) / count, rng.integers(count))
        points[BND_PARTS[part], :2] = np.array(middle) + np.stack([wide * np.cos(angles), high * np.sin(angles)], 1)
    c, s = np.cos(turn), np.sin(turn)
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def write_bnd(path, points):
    return written(path, "".join(f"{7 * k}\t{x}\t{y}\t{z}\n" for k, (x, y, z) in enumerate(points)))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("turn", [0.0, 0.3, -0.3])
def test_bnd_gives_the_corners_whatever_the_order_within_the_parts(tmp_path, turn, swapped):
    points = bnd_points(turn)
    if swapped:
        points[:16] = np.roll(points[:16], 8, axis=0)
    found = read_bnd(write_bnd(tmp_path / "a.bnd", points))
    c, s = np.cos(turn), np.sin(turn)
    expected = {36: (-45, 20), 39: (-17, 20), 42: (17, 20), 45: (45, 20), 48: (-20, -40), 54: (20, -40)}
    assert sorted(found) == sorted(expected)
    for number, (x, y) in expected.items():
        np.testing.assert_allclose(found[number], [c * x - s * y, s * x + c * y, 0], atol=1e-9)
    scan = Scan(np.zeros((3, 3)), np.array([[0, 1, 2]]), found)
    assert interocular_distance(scan) == pytest.approx(90)


@pytest.mark.parametrize("text, message", [
    ("1 2 3\n", "got shape"), ("1 2 3 x\n", "lines of index"), ("", "got shape"),
])
def test_damaged_bnd(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_bnd(written(tmp_path / "a.bnd", text))


def test_the_nose_is_the_landmark_or_protrudes():
    vertices = np.array([[0, 0, 30], [0, 90, 35], [5, 5, 20], [0, 200, 99]], float)
    triangles = np.array([[0, 1, 2]])
    corners = {number: np.array([*point, 0.0]) for number, point in (
        (36, (-45, 20)), (39, (-17, 20)), (42, (17, 20)), (45, (45, 20)), (48, (-20, -40)), (54, (20, -40)),
    )}
    np.testing.assert_array_equal(nose_tip(Scan(vertices, triangles, {30: np.ones(3)})), [1, 1, 1])
    np.testing.assert_array_equal(nose_tip(Scan(vertices, triangles, corners)), [0, 0, 30])  # neither hair nor brim
    np.testing.assert_array_equal(nose_tip(Scan(vertices, triangles)), [0, 200, 99])
    with pytest.raises(ValueError, match="far has no vertex near"):
        nose_tip(Scan(vertices + 1000, triangles, corners, "far"))


def test_the_eyes_must_be_known():
    with pytest.raises(ValueError, match="head has no outer eye corners"):
        interocular_distance(Scan(np.zeros((3, 3)), np.array([[0, 1, 2]]), {36: np.zeros(3)}, "head"))


def test_the_border_of_a_grid_is_its_rim():
    index = np.arange(20).reshape(4, 5)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = np.concatenate([np.stack([a, b, d], 1), np.stack([d, c, a], 1)])
    rim = np.ones((4, 5), bool)
    rim[1:-1, 1:-1] = False
    np.testing.assert_array_equal(border(triangles, 21), [*rim.ravel(), False])
