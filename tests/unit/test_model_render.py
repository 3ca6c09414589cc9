"""The renderer: against numpy twins, against finite differences, without holes; and from a picture back to a scene."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes
from toy import toy_model

import bfm.rasterize
import bfm.render
from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.light import UNIT_LIGHT, sh_basis
from bfm.open_face import open_face_model
from bfm.pose import project, project_homogeneous, rotation_matrix
from model.render import FaceRenderer, vertex_normals

POSES = np.array([[0, 0, 0], [0.3, 0.6, -0.2], [-0.3, -1.2, 0.3], [0.1, 1.5, 0]])
POSITIONS = np.array([[63.5, 69, 0.55], [50, 60, 0.5], [62, 70, 0.6], [40, 30, 1.3]])
LIGHTS = np.array([[2.6, 0.3, 0.5, 0.4, 0.1, 0.2, -0.1, 0.15, 0.2]]) * np.linspace(0.7, 1.3, 4)[:, None]
DISTANCES = [np.inf, 1000.0, 350.0]


def some_modes(model, count):
    """The model with the first modes of its bases only."""
    parts = {
        f"{kind}_{what}": getattr(model, f"{kind}_{what}")[:count]
        for kind in ("id", "exp", "albedo") for what in ("basis", "stddev")
    }
    return replace(model, **parts)


@pytest.fixture(scope="module")
def face(open_chart):
    """The open face model with a few modes, and its map space."""
    model = some_modes(open_face_model().face_only(), 8)
    return model, AttributeMaps.from_model(model, open_chart)


def toy_face(size=16, **shape):
    model = toy_model(**shape)
    return model, AttributeMaps.from_model(model, make_chart(model, "cylindrical", size))


def tensors(*arrays, dtype=torch.float32):
    return [torch.tensor(array, dtype=dtype) for array in arrays]


def drawn_in_numpy(model, vertices, albedo, light, pose, position, size, distance):
    """One face, float64, from the definition: ids, and image, albedo, normals (H, W, 3) and depth (H, W)."""
    points = project_homogeneous(vertices, pose, position, distance)
    screen = points[:, :3] / points[:, 3:]
    ids, linear = bfm.rasterize.rasterize(screen[:, :2], screen[:, 2], model.triangles, size, size)
    corners = model.triangles[ids]
    weights = linear / points[corners, 3]
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-9)
    turned = vertices @ rotation_matrix(pose).T
    a, b, c = turned[model.triangles].swapaxes(0, 1)
    to_camera = [0, 0, 1] if np.isinf(distance) else [0, 0, distance] - a
    ids = np.where((np.cross(b - a, c - a) * to_camera).sum(1)[ids] > 0, ids, -1)
    colour, normals, depth = (
        np.einsum("hwk,hwkc->hwc", weights, values[corners])
        for values in (albedo, bfm.render.vertex_normals(turned, model.triangles), turned[:, 2:])
    )
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    image = colour * (sh_basis(normals) @ light)[..., None]
    return ids, *(np.where((ids >= 0)[..., None], values, 0) for values in (image, colour, normals, depth))


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_face_is_as_numpy_draws_it(face, distance):
    model, maps = face
    rng = np.random.default_rng(0)
    vertices, albedo = model.shape(rng.normal(size=(4, 8))), model.albedo(rng.normal(size=(4, 8)))
    scene = (vertices, albedo, LIGHTS, POSES, POSITIONS)
    renderer = FaceRenderer(model, maps, distance)
    exact = renderer.render_vertices(*tensors(*scene, dtype=torch.float64), 128)
    for index, one in enumerate(zip(*scene)):
        ids, *expected = drawn_in_numpy(model, *one, 128, distance)
        assert np.array_equal(exact.mask[index, 0], ids >= 0) and (ids >= 0).sum() > 2000
        for found, wanted, tolerance in zip(exact[:1] + exact[2:5], expected, (2e-6, 1e-6, 5e-6, 1e-4)):
            np.testing.assert_allclose(found[index].permute(1, 2, 0), wanted, rtol=0, atol=tolerance)
        points = project(vertices[index, model.landmarks], *one[3:], distance)[:, :2]
        np.testing.assert_allclose(exact.landmarks[index], points, atol=1e-9)
    # float32 moves an edge over a pixel here and there
    single = renderer.render_vertices(*tensors(*scene), 128)
    assert all(part.dtype == torch.float32 for part in single if part is not single.mask)
    same = (single.mask == exact.mask).float()
    assert same.mean() > 0.9999
    for found, wanted, tolerance in zip(single, exact, (1e-4, 0, 1e-4, 1e-3, 1e-2)):
        assert tolerance == 0 or ((found - wanted).abs() * same).quantile(0.999) < tolerance
    torch.testing.assert_close(single.landmarks.double(), exact.landmarks, rtol=0, atol=1e-4)


def test_without_light_and_shade_it_is_the_picture_of_the_colours(face):
    model, maps = face
    albedo = model.mean_albedo
    points = project(model.mean_shape, POSES[1].astype(np.float32), POSITIONS[1].astype(np.float32))
    picture = bfm.render.render(points, albedo, model.triangles, np.zeros((128, 128, 3), np.uint8))
    rendered = FaceRenderer(model, maps).render_vertices(
        *tensors(model.mean_shape[None], albedo[None], [UNIT_LIGHT], POSES[1:2], POSITIONS[1:2]), 128
    )
    difference = np.rint(rendered.image[0].permute(1, 2, 0).numpy() * 255) - picture
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 1e-3
    assert np.array_equal(rendered.mask[0, 0], picture.any(2))


def test_a_mesh_is_assembled_from_the_maps():
    model, maps = toy_face()
    rng = np.random.default_rng(0)
    full_map, albedo_map = rng.normal(size=(2, 3, 3, 16, 16)).astype(np.float32)
    renderer = FaceRenderer(model, maps)
    vertices, albedo = renderer.vertices(torch.tensor(full_map)), renderer.vertex_albedo(torch.tensor(albedo_map))
    np.testing.assert_allclose(vertices, maps.vertices(full_map), rtol=0, atol=1e-4)
    np.testing.assert_allclose(albedo, maps.sample(albedo_map), rtol=0, atol=1e-6)
    given = tensors(LIGHTS[:3], POSES[:3], POSITIONS[:3] / 8)
    for size in (None, 24):
        by_map = renderer(torch.tensor(full_map), torch.tensor(albedo_map), *given, size)
        by_mesh = renderer.render_vertices(vertices, albedo, *given, size or 16)
        assert by_map.image.shape == (3, 3, size or 16, size or 16) and by_map.mask.any()
        assert all(torch.equal(a, b) for a, b in zip(by_map, by_mesh))


def test_the_maps_of_a_face_give_its_picture(face, open_chart):
    model, maps = face
    coeffs = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    renderer = FaceRenderer(model, maps, 1000.0)
    given = tensors(LIGHTS[:2], POSES[:2], POSITIONS[:2])
    direct = renderer.render_vertices(*tensors(model.shape(coeffs), model.albedo(coeffs)), *given, 128)
    albedo_map = open_chart.unwrap(model.albedo(coeffs))
    by_map = renderer(*tensors(maps.identity_map(coeffs), albedo_map), *given, 128)
    assert (direct.mask != by_map.mask).float().mean() < 2e-3
    both = direct.mask & by_map.mask
    assert ((direct.image - by_map.image).abs() * both).sum() / both.sum() / 3 < 3e-3
    assert (direct.landmarks - by_map.landmarks).norm(dim=2).max() < 0.2


@pytest.mark.parametrize("size", [48, 160])
@pytest.mark.parametrize("distance", [np.inf, 500.0])
def test_there_are_no_holes_but_the_mouth_s(face, size, distance):
    model, maps = face
    closed = replace(model, triangles=np.concatenate([model.triangles, model.mouth_triangles]))
    exp = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    given = tensors(model.shape(0 * exp, exp), 0 * model.shape(exp), LIGHTS, POSES, POSITIONS * size / 128)
    opened, sealed = (
        FaceRenderer(topology, maps, distance).render_vertices(*given, size).mask[:, 0].numpy()
        for topology in (model, closed)
    )
    for outline in sealed:
        assert np.array_equal(binary_fill_holes(outline), outline) and outline.sum() > size**2 / 8
    gap = sealed & ~opened
    assert not (opened & ~sealed).any() and gap.mean() < 0.004


def test_nothing_is_drawn_where_no_face_is_and_each_face_is_drawn_as_if_alone():
    model, maps = toy_face()
    renderer = FaceRenderer(model, maps, 600.0)
    vertices = np.stack([model.mean_shape, 1.1 * model.mean_shape, model.mean_shape + [9e3, 0, 0]])
    albedo = np.random.default_rng(0).uniform(0.1, 1, (3, len(model.mean_shape), 3))
    given = tensors(vertices, albedo, LIGHTS[:3], POSES[:3], POSITIONS[:3] / 3)
    together = renderer.render_vertices(*given, 40)
    assert together.mask.dtype == torch.bool and together.mask.flatten(1).any(1).tolist() == [True, True, False]
    for part in (together.image, together.albedo, together.normals, together.depth):
        assert (part.masked_select(~together.mask) == 0).all()
    on_face = together.normals.norm(dim=1, keepdim=True)[together.mask]
    torch.testing.assert_close(on_face, torch.ones_like(on_face))
    for index in range(3):
        alone = renderer.render_vertices(*(part[index:index + 1] for part in given), 40)
        assert all(torch.equal(a[0], b[index]) for a, b in zip(alone, together))
    light = given[2][2:].requires_grad_()
    unseen = renderer.render_vertices(given[0][2:], given[1][2:], light, given[3][2:], given[4][2:], 40)
    (gradient,) = torch.autograd.grad(unseen.image.sum(), light)
    assert not unseen.mask.any() and (gradient == 0).all()


@pytest.mark.parametrize("distance", [np.inf, 500.0])
def test_the_inner_side_hides_what_is_behind_it_and_has_no_gradient(distance):
    model, maps = toy_face()
    renderer = FaceRenderer(model, maps, distance)
    half_a_turn = np.array([[0, np.pi, 0]])
    vertices, albedo, *given = (
        part.requires_grad_() for part in tensors(
            model.mean_shape[None], np.ones((1, len(model.mean_shape), 3)), LIGHTS[:1], half_a_turn, POSITIONS[:1] / 3
        )
    )
    rendered = renderer.render_vertices(vertices, albedo, *given, 40)
    points = project(model.mean_shape.astype(np.float64), half_a_turn[0], POSITIONS[0] / 3)
    ids = bfm.rasterize.rasterize(points[:, :2], points[:, 2], model.triangles, 40, 40)[0]
    assert (ids >= 0).sum() > 50 and rendered.mask.sum() < 0.2 * (ids >= 0).sum()
    for part in (rendered.image, rendered.albedo, rendered.normals, rendered.depth):
        assert (part.masked_select(~rendered.mask) == 0).all()
    unseen = [(part * ~rendered.mask).sum() for part in rendered[:1] + rendered[2:5]]
    for gradient in torch.autograd.grad(sum(unseen), (vertices, albedo, *given[:2])):
        assert (gradient == 0).all()


@pytest.mark.parametrize("distance", [np.inf, 300.0])
def test_gradients_are_those_of_finite_differences(distance):
    model, maps = toy_face(rows=9, columns=7)
    renderer = FaceRenderer(model, maps, distance).double()
    pose, position = np.array([[0.1, 0.3, 0], [0, -0.4, 0.2]]), np.array([[6.0, 7, 0.07], [5, 6, 0.05]])
    albedo = np.random.default_rng(0).uniform(0.2, 0.8, (2, len(model.mean_shape), 3))
    scene = tensors(model.shape(np.eye(2, 5)), albedo, LIGHTS[:2], pose, position, dtype=torch.float64)
    for part in scene:
        part.requires_grad_()

    def draw(*scene):
        rendered = renderer.render_vertices(*scene, 13)
        return rendered.image, rendered.normals, rendered.depth, rendered.landmarks

    assert torch.autograd.gradcheck(draw, scene, atol=1e-6, fast_mode=True)
    image = draw(*scene)[0]
    assert all(gradient.abs().max() > 1e-4 for gradient in torch.autograd.grad(image.square().sum(), scene))


def test_gradients_to_the_maps_are_those_of_finite_differences():
    model, maps = toy_face(rows=9, columns=7)
    renderer = FaceRenderer(model, maps, 500.0).double()
    coeffs = np.random.default_rng(0).normal(size=(1, 5)).astype(np.float32)
    albedo_map = maps.chart.unwrap(model.albedo(coeffs[:, :4]))
    scene = tensors(
        maps.identity_map(coeffs), albedo_map, LIGHTS[:1], POSES[1:2], [[7.3, 8, 0.07]], dtype=torch.float64
    )
    for part in scene:
        part.requires_grad_()
    assert torch.autograd.gradcheck(lambda *scene: renderer(*scene).image, scene, atol=1e-6, fast_mode=True)


def test_autocast_leaves_the_geometry_in_full_precision():
    model, maps = toy_face()
    renderer = FaceRenderer(model, maps, 700.0)
    given = tensors(maps.identity_map(np.eye(2, 5)), np.ones((2, 3, 16, 16)), LIGHTS[:2], POSES[:2], POSITIONS[:2] / 8)
    plain = renderer(*given)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(renderer(*given), plain))
        vertices = renderer.vertices(given[0])
        landmarks = renderer.project_landmarks(vertices, *given[3:])
    assert torch.equal(landmarks, plain.landmarks) and landmarks.shape == (2, 68, 2)


def test_what_is_fixed_follows_the_device_but_is_in_no_checkpoint():
    renderer = FaceRenderer(*toy_face())
    assert not renderer.state_dict() and not list(renderer.parameters())
    assert {buffer.device.type for buffer in renderer.to("meta").buffers()} == {"meta"}


def test_normals_are_those_of_the_numpy_twin():
    model = open_face_model()
    vertices = model.shape(np.random.default_rng(0).normal(size=(3, 199)))
    normals = vertex_normals(torch.tensor(vertices), torch.tensor(model.triangles))
    for found, shape in zip(normals, vertices):
        np.testing.assert_allclose(found, bfm.render.vertex_normals(shape, model.triangles), atol=1e-9)
    single = torch.tensor(vertices, dtype=torch.float32)
    first, second = (vertex_normals(single, torch.tensor(model.triangles)) for _ in range(2))
    assert torch.equal(first, second) and first.dtype == torch.float32


def test_normals_without_area_are_zero_and_their_gradient_is_finite():
    vertices = torch.tensor([[[0.0, 0, 0], [4, 0, 0], [0, 2, 0], [9, 9, 9], [0, 0, 3]]], requires_grad=True)
    triangles = torch.tensor([[0, 1, 2], [3, 3, 4], [0, 2, 4]])
    normals = vertex_normals(vertices, triangles)
    torch.testing.assert_close(normals[0, 0], torch.tensor([6.0, 0, 8]) / 10)
    assert normals[0, 3].tolist() == [0, 0, 0]
    (gradient,) = torch.autograd.grad(normals.sum(), vertices)
    assert gradient.isfinite().all() and gradient.abs().max() < 10
    exact = vertices.detach().double()[:, [0, 1, 2, 4]].requires_grad_()
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, torch.tensor([[0, 1, 2], [0, 2, 3]])), (exact,))


def test_gradient_steps_on_the_picture_find_a_perturbed_scene_again(face):
    path = Path(__file__).parents[2] / "benchmarks" / "render_recover.py"
    spec = importlib.util.spec_from_file_location("render_recover", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    before, after = benchmark.recover(face[0], FaceRenderer(*face, 1000.0), faces=1, size=48, steps=80)
    assert before["pose_deg"] > 7 and before["landmarks_px"] > 2.5 and before["photometric"] > 0.1
    assert before["light_percent"] > 25 and before["shape_mm"] > 2 and before["scale_percent"] > 3.9
    assert after["photometric"] < 0.005 and after["landmarks_px"] < 0.25 and after["pose_deg"] < 2
    assert after["light_percent"] < 10 and after["shape_mm"] < 1.2 and after["scale_percent"] < 2
