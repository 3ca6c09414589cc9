import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image
from toy import toy_model

from bfm.charts import make_chart
from bfm.sampling import sample_image
from model.mesh_files import MeshTemplate, write_glb, write_obj, write_ply


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def chart(model):
    return make_chart(model, "cylindrical", 64)


@pytest.fixture(scope="module")
def albedo(model):
    return np.stack([np.clip(model.mean_shape[:, axis] / 200 + 0.5, 0, 1) for axis in range(3)], 1)


@pytest.fixture(scope="module")
def mesh(model, chart, albedo):
    return MeshTemplate(model.triangles, chart).textured(model.mean_shape, chart.unwrap(albedo))


def texture_at(uv, texture):
    """Bilinear lookup as a viewer does it: u = 0 and 1 are the picture's edges, v = 1 its top."""
    height, width = texture.shape[:2]
    return sample_image(texture, np.stack([uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5], 1))


def test_the_texture_is_the_map(mesh, chart, albedo):
    inside = chart.mask
    wanted = np.rint(chart.unwrap(albedo).transpose(1, 2, 0)[inside] * 255)
    np.testing.assert_array_equal(mesh.texture[inside], wanted)
    np.testing.assert_array_equal(mesh.colours, np.rint(chart.sample(chart.unwrap(albedo)) * 255))
    assert np.abs(mesh.colours / 255 - albedo)[:, 1].max() < 0.002  # y is linear in v
    # a colour that no viewer can show is clipped
    bright = mesh.template.textured(mesh.vertices, np.full((3, 64, 64), 1.5))
    assert (bright.texture == 255).all() and (bright.colours == 255).all()


def test_glb_in_a_stock_reader(mesh, model, tmp_path):
    scene = trimesh.load(write_glb(tmp_path / "face.glb", mesh))
    (face,) = scene.geometry.values()
    assert len(face.vertices) == len(model.mean_shape) and len(face.faces) == len(model.triangles)
    np.testing.assert_allclose(face.vertices, mesh.vertices / 1000, atol=1e-6)  # metres
    np.testing.assert_allclose(face.extents, [0.14, 0.18, np.ptp(model.mean_shape[:, 2]) / 1000], atol=1e-5)
    nose = face.vertices[:, 2].argmax()
    assert abs(face.vertices[nose, 0]) < 1e-6 and abs(face.vertices[nose, 1]) < 0.02
    # what faces the viewer faces +z
    assert face.face_normals[:, 2].mean() > 0.5
    np.testing.assert_allclose(face.vertex_normals[nose], [0, 0, 1], atol=0.2)
    picture = np.asarray(face.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_array_equal(picture, mesh.texture)
    assert face.visual.material.metallicFactor == 0
    # the texture puts on each vertex the colour that it has
    off = np.abs(texture_at(face.visual.uv, picture) - mesh.colours)
    assert off.max() < 6
    assert off[:, 1].max() < 1  # y, linear in v, changes by 3.6 a texel: half a texel would show


def test_an_unlit_glb_says_so_and_is_read_alike(mesh, tmp_path):
    def header(path):
        data = path.read_bytes()
        (length,) = struct.unpack("<I", data[12:16])
        return json.loads(data[20:20 + length])

    lit, unlit = write_glb(tmp_path / "face.glb", mesh), write_glb(tmp_path / "unlit.glb", mesh, unlit=True)
    assert "extensionsUsed" not in header(lit) and "extensions" not in header(lit)["materials"][0]
    assert header(unlit)["extensionsUsed"] == ["KHR_materials_unlit"]
    assert header(unlit)["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}
    ours, theirs = (next(iter(trimesh.load(path).geometry.values())) for path in (lit, unlit))
    np.testing.assert_array_equal(theirs.vertices, ours.vertices)
    np.testing.assert_array_equal(
        *(np.asarray(face.visual.material.baseColorTexture.convert("RGB")) for face in (ours, theirs))
    )


def test_obj_names_its_material_and_texture(mesh, model, tmp_path):
    obj, material, picture = write_obj(tmp_path / "a face.obj", mesh)
    assert material.name in obj.read_text() and picture.name in material.read_text()
    with Image.open(picture) as opened:
        np.testing.assert_array_equal(np.asarray(opened), mesh.texture)
    face = trimesh.load(obj, process=False)
    np.testing.assert_allclose(face.vertices, mesh.vertices, atol=1e-4)  # millimetres
    np.testing.assert_array_equal(face.faces, model.triangles)
    np.testing.assert_allclose(face.visual.uv, mesh.template.uv, atol=1e-5)
    np.testing.assert_allclose(face.vertex_normals, mesh.normals, atol=1e-4)
    assert face.visual.material.image is not None
    lines = obj.read_text().splitlines()
    assert lines[-1] == "f " + " ".join(f"{k}/{k}/{k}" for k in model.triangles[-1] + 1)
    # the next face of the same template has its own vertices
    moved = mesh.template.textured(mesh.vertices + 1, np.zeros((3, 64, 64)))
    again = trimesh.load(write_obj(tmp_path / "moved.obj", moved)[0], process=False)
    np.testing.assert_allclose(again.vertices, mesh.vertices + 1, atol=1e-4)


def test_ply_has_colours(mesh, model, tmp_path):
    face = trimesh.load(write_ply(tmp_path / "face.ply", mesh), process=False)
    np.testing.assert_array_equal(face.vertices.astype(np.float32), mesh.vertices)
    np.testing.assert_array_equal(face.faces, model.triangles)
    np.testing.assert_array_equal(face.visual.vertex_colors[:, :3], mesh.colours)


def test_no_black_seam(mesh, chart):
    white = mesh.template.textured(mesh.vertices, np.where(chart.mask, np.ones((3, 1, 1)), 0))
    assert (white.texture == 255).all() and (white.colours == 255).all()
