import numpy as np
import pytest
import trimesh
from PIL import Image
from toy import toy_model

from bfm.charts import make_chart
from model.mesh_files import textured_mesh, write_glb, write_obj, write_ply


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def mesh(model):
    chart = make_chart(model, "cylindrical", 64)
    albedo = np.stack([np.clip(model.mean_shape[:, axis] / 200 + 0.5, 0, 1) for axis in range(3)], 1)
    return textured_mesh(model.mean_shape, model.triangles, albedo, chart)


def texture_at(mesh, uv, texture):
    """Bilinear lookup as a viewer does it: u = 0 and 1 are the picture's edges, v = 1 its top."""
    height, width = texture.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    x0, y0 = np.clip(np.floor(x).astype(int), 0, width - 2), np.clip(np.floor(y).astype(int), 0, height - 2)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    values = texture.astype(float)
    top = values[y0, x0] * (1 - fx) + values[y0, x0 + 1] * fx
    bottom = values[y0 + 1, x0] * (1 - fx) + values[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy


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
    off = np.abs(texture_at(mesh, face.visual.uv, picture) - mesh.colours)
    assert off.max() < 6
    assert off[:, 1].max() < 1  # y, linear in v, changes by 3.6 a texel: half a texel would show


def test_obj_names_its_material_and_texture(mesh, model, tmp_path):
    obj, material, picture = write_obj(tmp_path / "a face.obj", mesh)
    assert material.name in obj.read_text() and picture.name in material.read_text()
    with Image.open(picture) as opened:
        np.testing.assert_array_equal(np.asarray(opened), mesh.texture)
    face = trimesh.load(obj, process=False)
    np.testing.assert_allclose(face.vertices, mesh.vertices, atol=1e-4)  # millimetres
    np.testing.assert_array_equal(face.faces, model.triangles)
    np.testing.assert_allclose(face.visual.uv, mesh.uv, atol=1e-5)
    assert face.visual.material.image is not None
    lines = obj.read_text().splitlines()
    assert lines[-1] == "f " + " ".join(f"{k}/{k}/{k}" for k in model.triangles[-1] + 1)


def test_ply_has_colours(mesh, model, tmp_path):
    face = trimesh.load(write_ply(tmp_path / "face.ply", mesh), process=False)
    np.testing.assert_array_equal(face.vertices.astype(np.float32), mesh.vertices)
    np.testing.assert_array_equal(face.faces, model.triangles)
    np.testing.assert_array_equal(face.visual.vertex_colors[:, :3], mesh.colours)


def test_no_black_seam(model):
    chart = make_chart(model, "cylindrical", 64)
    white = textured_mesh(model.mean_shape, model.triangles, np.ones((len(model.mean_shape), 3)), chart)
    assert (white.texture == 255).all()
