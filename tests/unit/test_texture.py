"""The texture of a rendered photo: places, colours, light divided out, and nothing that is not the face."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from toy import toy_model

from bfm.charts import make_chart
from bfm.light import UNIT_LIGHT, sh_basis
from bfm.morphable_model import REGIONS
from bfm.open_face import open_face_model
from bfm.pose import project
from bfm.render import camera_vertices, render, vertex_normals
from bfm.sampling import sample_image
from texgen.texture import DARKEST, FACING, Texture, TextureMapper

MODEL = toy_model(rows=101, columns=81)
CHART = make_chart(MODEL, size=96)
MAPPER = TextureMapper(MODEL, CHART)
LIGHT = np.array([2.6, 0.3, 0.6, 0.4, 0.05, 0.05, 0.1, 0.05, -0.05], np.float32)
POSITION = np.array([149.7, 151.2, 1.0])
MAGENTA = (255, 0, 255)


def coefficients(seed=0):
    """Identity, expression and albedo of the toy model, float32."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(len(basis), np.float32)
            for basis in (MODEL.id_basis, MODEL.exp_basis, MODEL.albedo_basis)]


def photograph(model, vertices, albedo, pose, position, light=LIGHT, side=300):
    """A photo of a lit face before a magenta wall."""
    points = project(vertices.astype(np.float64), pose, position)
    shading = sh_basis(vertex_normals(camera_vertices(points), model.triangles)) @ light
    wall = np.full((side, side, 3), MAGENTA, np.uint8)
    return render(points, albedo * shading[:, None], model.triangles, wall), points


@pytest.fixture(scope="module")
def open_mapper(open_chart):
    """The open model and its mapper."""
    model = open_face_model()
    return model, TextureMapper(model, open_chart)


def test_linear_albedo_is_the_model_s_at_every_texel():
    coeffs = np.stack([coefficients(seed)[2] for seed in range(3)]) * 20
    maps = MAPPER.linear_albedo(coeffs)
    assert maps.shape == (3, 96, 96, 3) and maps.dtype == np.float32
    assert (maps[:, ~CHART.mask] == 0).all()
    corners = CHART.triangles[CHART.texel_triangles[CHART.mask]]
    for each, albedo in zip(maps, MODEL.albedo(coeffs)):
        expected = (albedo[corners] * CHART.texel_barycentric[CHART.mask][..., None]).sum(1)
        assert ((expected > 1) | (expected < 0)).any()
        np.testing.assert_allclose(each[CHART.mask], np.clip(expected, 0, 1), atol=1e-6)
    np.testing.assert_allclose(MAPPER.linear_albedo(np.zeros((2, 0), np.float32))[1],
                               MAPPER.linear_albedo(np.zeros((1, 4), np.float32))[0], atol=1e-6)


def test_vertices_are_the_model_s():
    id_coeffs, exp_coeffs = (np.stack(each) for each in zip(coefficients(1)[:2], coefficients(2)[:2]))
    vertices = MAPPER.vertices(id_coeffs, exp_coeffs)
    assert vertices.dtype == np.float32
    np.testing.assert_allclose(vertices, MODEL.shape(id_coeffs, exp_coeffs), atol=2e-4)


@pytest.mark.parametrize("yaw", [0.0, 0.5, -0.9])
def test_places_normals_and_shading_of_every_texel(yaw):
    id_coeffs, exp_coeffs, _ = coefficients()
    vertices, pose = MODEL.shape(id_coeffs, exp_coeffs), np.array([0.1, yaw, 0.2])
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    texture = MAPPER.extract(image, vertices, pose, POSITION, LIGHT)
    points = project(vertices.astype(np.float64), pose, POSITION)
    places = np.moveaxis(CHART.unwrap(points), 0, -1)[CHART.mask]
    expected = np.stack([
        map_coordinates(image[..., channel].astype(float), places[:, [1, 0]].T, order=1, mode="nearest")
        for channel in range(3)
    ], -1) / 255
    normals = np.moveaxis(CHART.unwrap(vertex_normals(camera_vertices(points), MODEL.triangles)), 0, -1)[CHART.mask]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    np.testing.assert_allclose(texture.normals[CHART.mask], normals, atol=1e-4)
    turned, away = normals[:, 2] > FACING + 1e-5, normals[:, 2] < FACING - 1e-5
    assert turned.sum() > 500 and (turned | away).mean() > 0.999
    np.testing.assert_allclose(texture.colours[CHART.mask][turned], expected[turned], atol=1e-3)
    assert (texture.colours[CHART.mask][away] == 0).all()
    np.testing.assert_allclose(texture.shading[CHART.mask], sh_basis(normals) @ LIGHT, atol=1e-3)
    for outside in (texture.colours, texture.normals, texture.shading):
        assert outside.dtype == np.float32 and (outside[~CHART.mask] == 0).all()
    gap = CHART.texel_triangles >= len(MODEL.triangles)
    ring = (CHART.texel_barycentric < 0).any(-1)
    assert gap.sum() > 3 and ring.sum() > 5 and not texture.visible[gap | ring | ~CHART.mask].any()
    assert (texture.normals[texture.visible][:, 2] > FACING).all()


@pytest.mark.parametrize("yaw", [0.0, 0.4, -0.9])
def test_the_albedo_comes_back_without_the_light(yaw):
    id_coeffs, exp_coeffs, albedo_coeffs = coefficients()
    vertices, pose = MODEL.shape(id_coeffs, exp_coeffs), np.array([0.1, yaw, 0.2])
    image, _ = photograph(MODEL, vertices, MODEL.albedo(albedo_coeffs), pose, POSITION)
    texture = MAPPER.extract(image, vertices, pose, POSITION, LIGHT)
    truth = MAPPER.linear_albedo(albedo_coeffs[None])[0]
    seen = texture.visible
    assert 0.2 < seen.sum() / CHART.mask.sum() < 0.95
    error = np.abs(texture.albedo - truth)[seen]
    assert error.mean() < 0.005 and error.max() < 0.05
    assert np.abs(texture.colours - truth)[seen].mean() > 0.03  # the light was worth dividing out
    filled = texture.filled_albedo()
    assert filled.shape == (96, 96, 3) and 0 <= filled.min() and filled.max() <= 1
    np.testing.assert_array_equal(filled[seen], texture.albedo[seen])
    hidden = CHART.mask & ~seen
    assert np.abs(filled - truth)[hidden].mean() < 0.06
    np.testing.assert_array_equal(texture.filled(texture.colours)[seen], texture.colours[seen])


def test_a_texel_of_several_pixels_is_their_mean():
    id_coeffs, exp_coeffs, albedo_coeffs = coefficients()
    vertices, pose = MODEL.shape(id_coeffs, exp_coeffs), np.array([0.1, 0.4, 0.2])
    small, _ = photograph(MODEL, vertices, MODEL.albedo(albedo_coeffs), pose, np.array([74.7, 76.2, 0.7]), side=150)
    factor = 6
    checks = np.where(np.indices((150 * factor, 150 * factor)).sum(0) % 2, 40, -40)[..., None]
    large = np.clip(small.repeat(factor, 0).repeat(factor, 1).astype(int), 40, 215) + checks
    # pixel p of the small photo is pixels 6 p to 6 p + 5 of the large one
    position = np.array([74.7 * factor + 2.5, 76.2 * factor + 2.5, 0.7 * factor])
    fine = MAPPER.extract(large.astype(np.uint8), vertices, pose, position, LIGHT)
    coarse = MAPPER.extract(small, vertices, pose, np.array([74.7, 76.2, 0.7]), LIGHT)
    both = fine.visible & coarse.visible
    assert both.sum() > 0.95 * coarse.visible.sum()
    difference = np.abs(fine.colours - np.clip(coarse.colours, 40 / 255, 215 / 255))[both]
    assert difference.mean() < 0.01  # a single pixel is off by 40 / 255
    # and where the face reaches out of the photo
    cut = MAPPER.extract(large[:, 500:].astype(np.uint8), vertices, pose, position - [500, 0, 0], LIGHT)
    both &= cut.visible
    assert both.sum() > 100 and np.abs(cut.colours - fine.colours)[both].mean() < 0.01


def test_reduced_photos_are_read_at_the_same_places():
    side, factor = 600, 6
    ramp = np.linspace(0, 255, side)
    image = np.rint(np.stack([*np.meshgrid(ramp, ramp), np.zeros((side, side))], -1)).astype(np.uint8)
    vertices, pose, position = MODEL.mean_shape, np.array([0.1, 0.4, 0.2]), np.array([301.0, 297.0, 0.5 * factor])
    texture = MAPPER.extract(image, vertices, pose, position, LIGHT)
    places = np.moveaxis(CHART.unwrap(project(vertices.astype(np.float64), pose, position)), 0, -1)[..., :2]
    assert int(MAPPER.spacing * position[2]) >= 4
    off = (texture.colours[..., :2] * 255 - places * 255 / (side - 1))[texture.visible]
    assert np.abs(off.mean(axis=0)).max() < 0.1  # half a pixel is 0.2, half a box more


def test_what_lies_outside_the_photo_is_not_visible():
    id_coeffs, exp_coeffs, albedo_coeffs = coefficients()
    vertices, pose = MODEL.shape(id_coeffs, exp_coeffs), np.zeros(3)
    image, points = photograph(MODEL, vertices, MODEL.albedo(albedo_coeffs), pose, POSITION)
    whole = MAPPER.extract(image, vertices, pose, POSITION, LIGHT)
    cut = MAPPER.extract(image[60:, 40:170], vertices, pose, POSITION - [40, 60, 0], LIGHT)
    x, y = np.moveaxis(CHART.unwrap(points), 0, -1)[..., :2].T
    inside = ((x.T >= 40) & (x.T <= 169) & (y.T >= 60))
    assert np.array_equal(cut.visible, whole.visible & inside)
    assert (whole.visible & ~inside).sum() > 500
    nowhere = MAPPER.extract(image, vertices, pose, POSITION + [900, 0, 0], LIGHT)
    assert not nowhere.visible.any()
    with pytest.raises(ValueError, match="at least one valid texel"):
        nowhere.filled_albedo()


def test_of_a_head_seen_from_behind_nothing_is_visible():
    photo, turned = np.zeros((300, 300, 3), np.uint8), np.array([0, np.pi, 0])
    behind = MAPPER.extract(photo, MODEL.mean_shape, turned, POSITION, LIGHT)
    assert not behind.visible.any() and (behind.normals[CHART.mask, 2] <= FACING).all()


def test_shading_counts_no_less_than_a_share_of_its_median():
    shading = np.array([[1.0, 0.8, 0.6], [0.1, -0.4, 1.2]], np.float32)
    texture = Texture(
        colours=np.full((2, 3, 3), 0.3, np.float32), visible=np.array([[True, True, True], [False, True, True]]),
        normals=np.zeros((2, 3, 3), np.float32), shading=shading, mirrored=np.arange(6),
    )
    least = DARKEST * 0.8
    assert texture.least_shading == pytest.approx(least)
    np.testing.assert_allclose(texture.albedo[..., 0], 0.3 / np.maximum(shading, least), rtol=1e-6)
    assert replace(texture, visible=np.zeros((2, 3), bool)).least_shading > 0
    assert replace(texture, shading=-shading).least_shading > 0


@pytest.mark.parametrize("name", ["harmonic", "cylindrical"])
def test_the_other_side_of_a_symmetric_chart_is_its_mirror_image(name):
    chart = make_chart(MODEL, name, 96)
    mirrored = TextureMapper(MODEL, chart)._mirrored.reshape(96, 96)
    row, column = np.mgrid[:96, :96]
    assert np.array_equal(mirrored[chart.mask], (row * 96 + 95 - column)[chart.mask])
    assert np.array_equal(mirrored[~chart.mask], (row * 96 + column)[~chart.mask])


def test_a_sliver_of_the_far_side_is_left_out_and_a_piece_seen_only_once_kept():
    visible = np.zeros((96, 96), bool)
    visible[30:60, 15:40] = True
    expected = visible.copy()
    visible[40:45, 60:70] = True  # the mirror image of seen texels
    visible[70:75, 60:70] = expected[70:75, 60:70] = True
    visible[10:30, 50:80] = expected[10:30, 50:80] = True  # no sliver, nor seen twice
    assert np.array_equal(MAPPER._without_islands(visible), expected)
    visible[20:50, 50:85] = expected[20:50, 50:85] = True  # large
    expected[40:45, 60:70] = True
    assert np.array_equal(MAPPER._without_islands(visible), expected)


def magenta(colours):
    """Where a colour has the wall in it: skin has more green than blue."""
    return colours[..., 2] - colours[..., 1] > 0.1


@pytest.mark.parametrize("yaw", [0, 35, -60, 85])
def test_no_wall_and_no_nose_on_the_cheek_when_the_mesh_is_off(open_mapper, yaw):
    model, mapper = open_mapper
    rng = np.random.default_rng(abs(yaw))
    coeffs = [rng.standard_normal(len(basis), np.float32) for basis in (model.id_basis, model.exp_basis)]
    vertices, scale = mapper.vertices(*(part[None] for part in coeffs))[0], 1.4
    pose, position = np.radians([5.0, yaw, 5.0]), np.array([225.0, 225.0, scale])
    nose = (model.regions == REGIONS.index("nose"))[:, None]
    albedo = np.where(nose, np.float32([0.1, 0.8, 0.1]), np.float32([0.8, 0.6, 0.5]))
    image, _ = photograph(model, vertices, albedo, pose, position, np.array(UNIT_LIGHT), side=450)
    chart = mapper._chart
    is_nose = chart.unwrap(nose.astype(np.float32))[0]
    mouth = chart.unwrap((model.regions == REGIONS.index("mouth")).astype(np.float32)[:, None])[0] > 0
    for shift in ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)):  # mm
        moved = position + np.array([*shift, 0]) * scale
        texture = mapper.extract(image, vertices, pose, moved, np.array(UNIT_LIGHT))
        seen = texture.visible
        assert seen.sum() > 0.3 * chart.mask.sum()
        assert not (seen & magenta(texture.colours) & ~mouth).any()
        assert (seen & magenta(texture.colours)).sum() < 100  # a slit between the lips, narrower than a cell
        cheek = seen & (is_nose == 0) & ~_near(is_nose > 0, 6)
        green = texture.colours[..., 1] > texture.colours[..., 0] + 0.1
        assert green[cheek].mean() < 0.002
    hidden = chart.mask & ~seen & (is_nose == 0)
    assert magenta(texture.colours[hidden]).any() or green[hidden].any()  # there was something to leave out


def _near(mask, texels):
    """Texels within some steps of a mask."""
    for _ in range(texels):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask


def test_an_open_mouth_is_not_skin(open_mapper):
    model, mapper = open_mapper
    chart = mapper._chart
    lower, upper = model.landmarks[66], model.landmarks[62]
    opening = model.exp_basis[:, upper, 1] - model.exp_basis[:, lower, 1]
    exp_coeffs = 2 * np.sign(opening) * (np.abs(opening) >= np.sort(np.abs(opening))[-2])
    vertices = mapper.vertices(np.zeros((1, len(model.id_basis)), np.float32), exp_coeffs[None])[0]
    assert vertices[upper, 1] - vertices[lower, 1] > 8  # mm
    albedo = np.broadcast_to(np.float32([0.8, 0.6, 0.5]), vertices.shape)
    position = np.array([225.0, 225.0, 1.4])
    image, _ = photograph(model, vertices, albedo, np.zeros(3), position, np.array(UNIT_LIGHT), side=450)
    texture = mapper.extract(image, vertices, np.zeros(3), position, np.array(UNIT_LIGHT))
    gap = (chart.texel_triangles >= len(model.triangles)).reshape(texture.visible.shape)
    places = mapper.surface.place(vertices, np.zeros(3), position).places[:2, gap.ravel()]
    assert magenta(sample_image(image, places.T) / 255).mean() > 0.3  # the wall shows through the mesh
    assert not texture.visible[gap].any() and not magenta(texture.colours[texture.visible]).any()
    assert np.abs(texture.filled_albedo()[chart.mask] - [0.8, 0.6, 0.5]).max() < 0.05
