"""The written face in stock loaders: upright, facing +z, in metres, with every colour at its place."""

import json
import math

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from asmgen.locate import Placement
from asmgen.maps import AttributeMaps
from bfm.model_file import load_model
from bfm.pose import project
from bfm.render import visible_vertices
from bfm.sampling import sample_image
from model.dual_stream import TrainedFaces
from model.face_files import FaceWriter, FacialMaps, PhotoFace
from model.render import FaceRenderer
from model.views import PlacedFace, Surroundings, draw

PAINT = {(220, 30, 30): slice(36, 48), (30, 220, 30): slice(48, 68), (30, 30, 220): slice(27, 36)}
"""Of the eyes, the lips, the nose: by landmark."""


@pytest.fixture(scope="module")
def faces(open_chart):
    model = load_model("open").face_only()
    maps = AttributeMaps.from_model(model, open_chart)
    described = {**dict.fromkeys(("face_model", "face_model_sha256", "licence", "chart"), ""), "kind": "", "size": 256}
    return TrainedFaces(None, FaceRenderer(model, maps, 700.0), model, maps, described, True)


def face_of(faces, albedo):
    """A random face with (V, 3) albedo, turned, under a strong light, and its picture."""
    rng = np.random.default_rng(3)
    model, maps = faces.model, faces.maps
    identity, expression = (
        make(rng.normal(size=(1, len(basis))).astype(np.float32))[0]
        for make, basis in ((maps.identity_map, model.id_basis), (maps.expression_map, model.exp_basis))
    )
    light = np.array([2.2, 0.5, 0.6, 0.9, 0.1, 0.1, -0.1, 0.1, 0.1])
    facial = FacialMaps(
        identity, expression, maps.chart.unwrap(albedo.astype(np.float32)), np.zeros(3), light,
        np.array([0.1, -0.4, 0.2]), np.array([200.0, 220, 2.2]),
    )
    picture = np.zeros((440, 400, 3), np.uint8)
    return PhotoFace(facial, Placement((0, 0, 440), "box"), Surroundings(picture, np.eye(3)[:2]))


@pytest.fixture(scope="module")
def painted(faces, tmp_path_factory):
    """Files of a grey face with painted eyes, lips and nose, and its (V, 3) colours and vertices."""
    model = faces.model
    colours = np.full((len(model.mean_shape), 3), 128.0)
    for colour, marks in PAINT.items():
        near = cKDTree(model.mean_shape[model.landmarks[marks]]).query(model.mean_shape)[0] < 4
        colours[near] = colour
    face = face_of(faces, colours / 255)
    stem = tmp_path_factory.mktemp("written") / "face"
    FaceWriter(faces).write(face, stem)
    return stem, faces.maps.vertices(face.maps.identity_map + face.maps.expression_map)


def check(vertices, triangles, colours, model, true):
    """Assert that a loaded face is the one that was written: metres, upright, facing +z, painted as it was."""
    nearest = cKDTree(vertices).query(true[model.landmarks] / 1000)
    assert nearest[0].max() < 1e-6
    eyes, lips, nose = (vertices[nearest[1][part]].mean(0) for part in (slice(36, 48), slice(48, 68), slice(30, 31)))
    assert 0.04 < eyes[1] - lips[1] < 0.09 and abs(eyes[0]) < 0.005  # upright
    assert nose[2] > max(eyes[2], lips[2]) + 0.005
    left, right = (vertices[nearest[1][part]].mean(0) for part in (slice(42, 48), slice(36, 42)))
    assert left[0] - right[0] > 0.04  # the subject's left is at +x
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    assert normals[:, 2].sum() > 0.4 * np.linalg.norm(normals, axis=1).sum()
    for colour, marks in PAINT.items():
        np.testing.assert_allclose(colours[nearest[1][marks]], [colour] * len(nearest[1][marks]), atol=12)
    np.testing.assert_allclose(colours[nearest[1][[2, 8, 14]]], 128, atol=2)  # the jaw


def test_trimesh_reads_the_face(faces, painted):
    stem, true = painted
    (face,) = trimesh.load(stem.with_suffix(".glb")).geometry.values()
    texture = np.asarray(face.visual.material.baseColorTexture.convert("RGB"))
    places = face.visual.uv * [1, -1] + [0, 1]  # trimesh: v up
    colours = sample_image(texture, places * texture.shape[0] - 0.5)
    check(np.asarray(face.vertices), face.faces, colours, faces.model, true)


def test_open3d_reads_the_face(faces, painted):
    open3d = pytest.importorskip("open3d", exc_type=ImportError)
    stem, true = painted
    face = open3d.io.read_triangle_mesh(str(stem.with_suffix(".glb")))
    vertices, triangles = np.asarray(face.vertices), np.asarray(face.triangles)
    texture = np.asarray(face.textures[0])
    # a place for each corner; open3d turns pictures over, last row first, so that rows go up as v does
    places = np.asarray(face.triangle_uvs) * texture.shape[0] - 0.5
    colours = np.zeros((len(vertices), 3))
    colours[triangles.ravel()] = sample_image(texture, places)
    check(vertices, triangles, colours, faces.model, true)


def test_the_lit_texture_is_what_is_rendered(faces, tmp_path):
    model = faces.model
    coeffs = np.random.default_rng(5).normal(size=len(model.albedo_basis)).astype(np.float32)
    face = face_of(faces, np.clip(model.albedo(coeffs), 0, 1))
    _, error = FaceWriter(faces, meshes=("glb",)).write(face, tmp_path / "face")
    (loaded,) = trimesh.load(tmp_path / "face_lit.glb").geometry.values()
    marked = [b"KHR_materials_unlit" in (tmp_path / name).read_bytes() for name in ("face.glb", "face_lit.glb")]
    assert marked == [False, True]
    texture = np.asarray(loaded.visual.material.baseColorTexture.convert("RGB"))
    baked = sample_image(texture, (loaded.visual.uv * [1, -1] + [0, 1]) * 256 - 0.5)

    maps = face.maps
    shape = loaded.vertices * 1000
    placed = PlacedFace(shape, faces.maps.sample(maps.albedo_map), maps.light, maps.pose, maps.position)
    rendered = draw(faces.renderer, placed, 440, 400)
    picture = rendered.image[0].permute(1, 2, 0).numpy() * 255
    points = project(shape, maps.pose, maps.position, 700.0)
    seen = visible_vertices(points, model.triangles, 440, 400)
    inside = binary_erosion(rendered.mask[0, 0].numpy(), iterations=3)
    columns, rows = np.rint(points[:, :2]).astype(int).T
    seen[seen] = inside[rows[seen], columns[seen]]
    shown = sample_image(picture, points[seen, :2])
    assert seen.mean() > 0.4 and np.ptp(shown) > 100
    off = np.abs(np.clip(shown, 0, 255) - baked[seen])
    # where normals turn within a texel, in creases, the texture cannot hold all of the shading
    assert np.median(off) < 0.6 and np.quantile(off, 0.9) < 6
    assert np.abs((np.clip(shown, 0, 255) - baked[seen]).mean(0)).max() < 0.2
    # the picture that was written has the same colours
    overlay = np.asarray(Image.open(tmp_path / "face_overlay.png"))[:, 400:800]
    np.testing.assert_allclose(overlay[inside], np.clip(picture, 0, 255)[inside], atol=0.51)
    described = json.loads((tmp_path / "face_parameters.json").read_text())
    assert described["camera_distance"] == 700 and math.isclose(described["photometric_error"], error)
