"""Scores and thresholds: by hand on made textures, and on drawn faces with planted light, occluders and colours."""

from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from toy import toy_model

from asmgen.photometry import Photometry
from bfm.charts import make_chart
from bfm.light import sh_basis
from bfm.open_face import open_face_model
from bfm.pose import project, rotation_matrix
from bfm.render import render, vertex_normals
from texgen.selection import ScoreTexels, measure
from texgen.texture import Texture, TextureMapper
from texgen.thresholds import Scores, Selection

GOOD = Scores(
    visible_fraction=0.6, yaw=10.0, light_ratio=1.1, saturation=0.0, exposure=0.5, albedo_residual=0.05,
    skin_fraction=0.95,
)
OFF = Selection(**dict.fromkeys(asdict(Selection())))
SIDE = 256


# --- thresholds

@pytest.mark.parametrize("name, option, value, reason", [
    ("yaw", "max_yaw", 71.234, "turned too far: 71.2, at most 70 wanted"),
    ("visible_fraction", "min_visible", 0.21, "too little visible: 0.21, at least 0.3 wanted"),
    ("exposure", "min_exposure", 0.05, "too dark: 0.05, at least 0.1 wanted"),
    ("exposure", "max_exposure", 0.9, "too bright: 0.9, at most 0.85 wanted"),
    ("saturation", "max_saturation", 0.3, "overexposed: 0.3, at most 0.15 wanted"),
    ("light_ratio", "max_light_ratio", 2.5, "lit from one side: 2.5, at most 1.8 wanted"),
    ("skin_fraction", "min_skin", 0.5, "covered or odd skin: 0.5, at least 0.6 wanted"),
    ("albedo_residual", "max_albedo_residual", 0.25, "poor albedo fit: 0.25, at most 0.2 wanted"),
])
def test_each_threshold_has_its_reason_and_an_off(name, option, value, reason):
    bad, selection = replace(GOOD, **{name: value}), Selection()
    assert selection.reason(GOOD) is None
    assert selection.reason(bad) == reason
    assert replace(selection, **{option: None}).reason(bad) is None
    assert replace(OFF, **{option: getattr(selection, option)}).reason(bad) == reason
    assert replace(selection, **{option: value}).reason(bad) is None  # the limit itself is within
    assert selection.reason(replace(GOOD, **{name: np.nan})) is not None


def test_all_off_takes_everything():
    assert OFF.reason(Scores(*[np.nan] * len(fields(Scores)))) is None


# --- by hand

@pytest.fixture(scope="module")
def toy():
    """Toy face, its chart of 65 texels, and the texels of the scores."""
    model = toy_model()
    chart = make_chart(model, "cylindrical", 65)
    return model, chart, ScoreTexels.from_model(model, chart)


def at(texels, colours):
    """Colours of a map where scores are taken."""
    return colours.reshape(-1, 3)[texels.surface]


def flat_texture(chart, colour, visible=None, shading=1.0) -> Texture:
    """A texture of one colour under one shading."""
    shape = chart.mask.shape
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(*shape, 3)).astype(np.float32)
    return Texture(
        colours=np.broadcast_to(np.float32(colour), (*shape, 3)).copy(),
        visible=chart.mask if visible is None else visible, normals=normals,
        shading=np.full(shape, shading, np.float32), mirrored=np.arange(chart.size**2),
    )


def test_the_albedo_of_scores_is_that_of_the_map(toy):
    model, chart, texels = toy
    mapper = TextureMapper(model, chart)
    coeffs = 20 * np.random.default_rng(0).standard_normal((3, len(model.albedo_basis)), np.float32)
    for given in (coeffs, coeffs[:, :0]):
        albedo = texels.linear_albedo(given)
        assert albedo.dtype == np.float32
        for each, whole in zip(albedo, mapper.linear_albedo(given), strict=True):
            np.testing.assert_allclose(each, at(texels, whole), atol=2e-6)
    assert {0, 1} <= set(np.unique(texels.linear_albedo(coeffs)))  # clipped


def test_scores_of_made_textures(toy):
    _, chart, texels = toy
    linear = np.broadcast_to(np.float32([0.5, 0.4, 0.3]), (65, 65, 3)).copy()
    texture = flat_texture(chart, [0.45, 0.35, 0.25], shading=0.8)
    rng = np.random.default_rng(1)
    hidden = rng.choice(texels.surface, round(0.3 * len(texels.surface)), replace=False)
    texture.visible.setflags(write=False)
    texture = replace(texture, visible=chart.mask & ~np.isin(np.arange(65 * 65), hidden).reshape(65, 65))
    seen = np.setdiff1d(texels.surface, hidden)
    burnt = rng.choice(seen, len(seen) // 20, replace=False)
    texture.colours.reshape(-1, 3)[burnt, 2] = 250 / 255
    texture.colours.reshape(-1, 3)[hidden] = 1  # not in sight, so of no account
    before = texture.colours.copy(), linear.copy()
    scores = measure(texture, at(texels, linear), texels, np.radians([20, -37.5, 10]))
    assert scores.visible_fraction == pytest.approx(1 - len(hidden) / len(texels.surface))
    assert scores.yaw == pytest.approx(37.5)
    assert scores.saturation == pytest.approx(len(burnt) / len(seen))
    plain = 0.299 * 0.45 + 0.587 * 0.35 + 0.114 * 0.25
    assert scores.exposure == pytest.approx(plain + 0.114 * (250 / 255 - 0.25) * len(burnt) / len(seen), rel=1e-5)
    # I_a - I_u is (0.0625, 0.0375, 0.0125); the burnt twentieth is among the worst tenth
    assert scores.albedo_residual == pytest.approx(np.sqrt((0.0625**2 + 0.0375**2 + 0.0125**2) / 3), rel=1e-4)
    assert scores.light_ratio < 1.05
    assert 0.8 < scores.skin_fraction < 1
    np.testing.assert_array_equal(texture.colours, before[0])
    np.testing.assert_array_equal(linear, before[1])
    assert all(type(value) is float for value in asdict(scores).values())


def test_light_ratio_is_that_of_the_halves_by_their_normals(toy):
    """Brightness of the texels that face right is 1.5 times that of the others, whatever their place and albedo."""
    _, chart, texels = toy
    for flip in (1, -1):
        texture = flat_texture(chart, [0.4, 0.4, 0.4])
        linear = np.random.default_rng(2).uniform(0.3, 0.6, (65, 65, 3)).astype(np.float32)
        facing = flip * texture.normals[..., 0]
        skin = texels.surface[texels.part >= 0]
        right = facing > np.median(facing.reshape(-1)[skin])
        texture = replace(texture, colours=linear * np.where(right, 0.9, 0.6).astype(np.float32)[..., None])
        assert measure(texture, at(texels, linear), texels, np.zeros(3)).light_ratio == pytest.approx(1.5, rel=1e-4)


def test_skin_fraction_is_of_the_worst_part(toy):
    """A tenth of everything off, a third of one part: the part counts. A part hardly in sight does not."""
    _, chart, texels = toy
    linear = np.broadcast_to(np.float32([0.5, 0.4, 0.3]), (65, 65, 3)).copy()
    texture, rng = flat_texture(chart, [0.5, 0.4, 0.3]), np.random.default_rng(3)
    assert measure(texture, at(texels, linear), texels, np.zeros(3)).skin_fraction == 1
    sizes = np.bincount(texels.part + 1, minlength=6)[1:]
    part = int(sizes.argmax())
    of_part = texels.surface[texels.part == part]
    off = rng.choice(of_part, len(of_part) // 3, replace=False)
    texture.colours.reshape(-1, 3)[off] = [0.1, 0.2, 0.5]
    scores = measure(texture, at(texels, linear), texels, np.zeros(3))
    assert scores.skin_fraction == pytest.approx(1 - len(off) / len(of_part))
    few = np.union1d(off[:len(texels.surface) // 50], texels.surface[texels.part != part])
    texture = replace(texture, visible=np.isin(np.arange(65 * 65), few).reshape(65, 65))
    skin = np.setdiff1d(few, texels.surface[texels.part < 0])
    assert measure(texture, at(texels, linear), texels, np.zeros(3)).skin_fraction == pytest.approx(
        1 - len(texels.surface) // 50 / len(skin)
    )


def test_skin_is_told_relative_to_the_face_itself(toy):
    """The whole face in another colour and light is skin; a texel of another tint or brightness is not.

    A face of uneven brightness forgives more, and a shadow may be tinted.
    """
    _, chart, texels = toy
    linear = np.broadcast_to(np.float32([0.6, 0.55, 0.5]), (65, 65, 3)).copy()
    part = texels.surface[texels.part == np.bincount(texels.part + 1)[1:].argmax()]
    some = part[:len(part) // 3]
    face = np.float32([0.55, 0.35, 0.2])  # orange, and darker than the fitted light says
    uneven = np.exp(np.random.default_rng(4).normal(0, 0.15, (65, 65, 1))).astype(np.float32)

    def found(factor, face=face):
        texture = flat_texture(chart, [0, 0, 0])
        texture.colours[:] = face
        texture.colours.reshape(-1, 3)[some] *= np.float32(factor)
        return measure(texture, at(texels, linear), texels, np.zeros(3)).skin_fraction < 1 - 0.9 * len(some) / len(part)

    assert not found([1, 1, 1]) and not found(1.15) and not found(0.85) and not found([1.05, 1, 0.95])
    assert found(1.5) and found(0.65)
    assert found([1.3, 1, 1 / 1.3]) and found([1 / 1.3, 1, 1.3])
    assert not found(1.3, face * uneven) and found(0.3, face * uneven)
    assert found([1.16, 1, 1 / 1.16]) and not found(0.82 * np.array([1.16, 1, 1 / 1.16]))


def test_nothing_in_sight_is_no_error(toy):
    _, chart, texels = toy
    texture = flat_texture(chart, [0.5, 0.4, 0.3], np.zeros_like(chart.mask))
    scores = measure(texture, at(texels, texture.colours), texels, np.zeros(3))
    assert scores.visible_fraction == 0 and np.isnan(list(asdict(scores).values())[2:]).all()
    assert Selection().reason(scores) == "too little visible: 0, at least 0.3 wanted"
    one = np.zeros_like(chart.mask)
    one.reshape(-1)[texels.surface[texels.part >= 0][0]] = True
    scores = measure(replace(texture, visible=one), at(texels, texture.colours), texels, np.zeros(3))
    assert (scores.light_ratio, scores.skin_fraction) == (1, 1)


# --- drawn faces

class Studio:
    """Draws faces of the open model and scores the pictures, with the true coefficients or with fitted ones."""

    def __init__(self):
        self.face = open_face_model().face_only()
        self.chart = make_chart(self.face, size=128)
        self.mapper, self.photometry = TextureMapper(self.face, self.chart), Photometry(self.face)
        self.texels = ScoreTexels.from_model(self.face, self.chart)

    def draw(self, albedo_coeffs, light, yaw=0.0):
        """Picture, placement, and projected points."""
        vertices, pose = self.face.mean_shape, np.array([0, yaw, 0.0])
        position = np.array([SIDE / 2, SIDE / 2, SIDE / 220])
        points = project(vertices, pose, position)
        normals = vertex_normals(vertices, self.face.triangles) @ rotation_matrix(pose).T
        shading = np.maximum(sh_basis(normals) @ light, 0)[:, None]
        colours = np.clip(self.face.albedo(albedo_coeffs), 0.02, 1) * shading
        image = render(points, colours, self.face.triangles, np.full((SIDE, SIDE, 3), 90, np.uint8))
        noise = np.random.default_rng(1).normal(0, 2, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8), (pose, position), points

    def scores(self, image, placement, albedo_coeffs=None) -> Scores:
        """Light, and where they are not given albedo coefficients, are fitted to the picture."""
        shape = np.zeros(len(self.face.id_basis)), np.zeros(len(self.face.exp_basis))
        if albedo_coeffs is None:
            albedo_coeffs, light, _ = self.photometry.fit_albedo_and_light(image, *shape, *placement)
        else:
            light, _ = self.photometry.fit_light(image, *shape, albedo_coeffs, *placement)
        texture = self.mapper.extract(image, self.face.mean_shape, *placement, light)
        return measure(texture, self.texels.linear_albedo(albedo_coeffs[None])[0], self.texels, placement[0])


@pytest.fixture(scope="module")
def studio() -> Studio:
    """Made once."""
    return Studio()


SOFT = np.array([2.6, 0.3, 0.9, 0.2, 0, 0, 0.1, 0, 0])


def coefficients(studio, seed=0):
    return np.random.default_rng(seed).standard_normal(len(studio.face.albedo_basis)).astype(np.float32)


def covered(image, centre, reach, colour):
    """An ellipse of one colour over a picture."""
    row, column = np.mgrid[:SIDE, :SIDE]
    inside = np.hypot((column - centre[0]) / reach[0], (row - centre[1]) / reach[1]) < 1
    return np.where(inside[..., None], np.clip(np.array(colour) * 255, 0, 255), image).astype(np.uint8)


def skin_colour(image, points, studio):
    """Colour of the picture at the cheeks."""
    column, row = np.rint(points[studio.face.landmarks[[2, 14]], :2].mean(0)).astype(int)
    return np.median(image[row - 30:row + 30, column - 60:column + 60].reshape(-1, 3), axis=0) / 255


@pytest.mark.parametrize("given", [True, False], ids=["annotated", "refit"])
@pytest.mark.parametrize("what, colour, size", [
    ("black microphone", (0.03, 0.03, 0.03), 1), ("blue scarf", (0.2, 0.3, 0.7), 1), ("white bandage", (1, 1, 1), 1),
    ("pale hand", None, 1.4),
])
def test_what_covers_a_cheek_is_found(studio, what, colour, size, given):
    """A palm of 50 x 70 mm over the cheek rejects the photo; the same face without passes."""
    albedo_coeffs = coefficients(studio)
    image, placement, points = studio.draw(albedo_coeffs, SOFT)
    cheek = points[studio.face.landmarks[[2, 31]], :2].mean(axis=0)
    if colour is None:  # much brighter than the face: a hand in other light, or of somebody else
        colour = 1.45 * skin_colour(image, points, studio)
    patched = covered(image, cheek, np.array([25, 35]) * size * placement[1][2], colour)
    known = albedo_coeffs if given else None
    clean, hidden = studio.scores(image, placement, known), studio.scores(patched, placement, known)
    assert Selection().reason(clean) is None and clean.skin_fraction > 0.97
    assert hidden.skin_fraction < Selection().min_skin
    assert replace(OFF, min_skin=Selection().min_skin).reason(hidden).startswith("covered or odd skin: ")


@pytest.mark.parametrize("yaw", [0, 0.6])
def test_dark_glasses_and_hair_are_found(studio, yaw):
    image, placement, points = studio.draw(coefficients(studio, 1), SOFT, yaw)
    landmarks = points[studio.face.landmarks, :2]
    glasses = image
    for eye in (slice(36, 42), slice(42, 48)):
        lens = landmarks[eye].mean(axis=0) + [0, 2]
        glasses = covered(glasses, lens, np.array([29, 22]) * placement[1][2], (0.05, 0.05, 0.06))
    assert studio.scores(glasses, placement).skin_fraction < Selection().min_skin
    fringe = image.copy()
    fringe[:int(landmarks[17:27, 1].mean())] = (60, 40, 30)
    assert studio.scores(fringe, placement).skin_fraction < Selection().min_skin


@pytest.mark.parametrize("yaw, from_behind", [(0, 1.8), (0.6, 1.8), (1.2, 1.4)])
def test_side_light_is_found_at_every_yaw(studio, yaw, from_behind):
    """Light from either side, not from above or the camera; in a profile, light from behind shows less."""
    albedo_coeffs = coefficients(studio, 2)

    def ratio(light):
        image, placement, _ = studio.draw(albedo_coeffs, np.array(light, float), yaw)
        return studio.scores(image, placement, albedo_coeffs).light_ratio

    limit = Selection().max_light_ratio
    assert ratio([1.6, 0, 0.3, 1.2, 0, 0, 0, 0, 0]) > limit
    assert ratio([1.6, 0, 0.3, -1.2, 0, 0, 0, 0, 0]) > from_behind
    assert ratio([2.2, 0.6, 0.5, 0, 0, 0, 0, 0, 0]) < 1.25
    mild, strong = (ratio([2.2, 0, 0.3, side, 0, 0, 0, 0, 0]) for side in (0.25, 0.6))
    assert mild < strong < limit


def test_a_hard_shadow_on_one_side_is_found(studio):
    """Half of the face darkened, which no light of nine coefficients has, still shows in the ratio."""
    albedo_coeffs = coefficients(studio, 2)
    image, placement, _ = studio.draw(albedo_coeffs, SOFT)
    image[:, :SIDE // 2] = image[:, :SIDE // 2] * 0.4
    assert studio.scores(image, placement, albedo_coeffs).light_ratio > Selection().max_light_ratio


def test_exposure_and_saturation(studio):
    albedo_coeffs = coefficients(studio)
    image, placement, _ = studio.draw(albedo_coeffs, SOFT)
    normal = studio.scores(image, placement, albedo_coeffs)
    assert normal.saturation < 0.01 and 0.4 < normal.exposure < 0.7
    burnt = studio.draw(albedo_coeffs, 1.4 * SOFT)[0]
    assert Selection().reason(studio.scores(burnt, placement, albedo_coeffs)).startswith("overexposed: ")
    dark = studio.draw(albedo_coeffs, 0.12 * SOFT)[0]
    assert Selection().reason(studio.scores(dark, placement, albedo_coeffs)).startswith("too dark: ")


def test_a_wrong_albedo_shows_in_the_residual(studio):
    """I_u of another person: the residual grows; with the right one it is about the noise."""
    albedo_coeffs, other = coefficients(studio), coefficients(studio)
    other[0] -= 4
    image, placement, _ = studio.draw(albedo_coeffs, SOFT)
    assert studio.scores(image, placement, albedo_coeffs).albedo_residual < 0.02
    grey = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    assert studio.scores(grey, placement, albedo_coeffs).albedo_residual > 0.08


@pytest.mark.parametrize("given", [True, False], ids=["annotated", "refit"])
def test_no_colour_of_skin_is_rejected(studio, given):
    """All of +-2.5 sigma, dark to light, in ordinary light: the same scores of light and skin."""
    rng, count = np.random.default_rng(5), len(studio.face.albedo_basis)
    people = [2.5 * sign * np.eye(count, dtype=np.float32)[mode] for mode in range(3) for sign in (-1, 1)]
    people += [np.clip(1.6 * rng.standard_normal(count), -2.5, 2.5).astype(np.float32) for _ in range(6)]
    brightness = []
    for person in people:
        image, placement, _ = studio.draw(person, 0.8 * SOFT, 0.3)
        scores = studio.scores(image, placement, person if given else None)
        assert Selection().reason(scores) is None
        assert scores.skin_fraction > 0.97 and scores.light_ratio < 1.15
        brightness.append(scores.exposure)
    assert min(brightness) < 0.25 and max(brightness) > 0.7


# --- which texels

def test_texels_cover_the_face_and_know_its_parts(studio):
    """Evenly over the chart, mouth gap aside; eyes, brows and lips are no skin; landmarks lie in their parts."""
    face, chart, texels = studio.face, studio.chart, studio.texels
    surface = chart.mask & (chart.texel_triangles < len(face.triangles))
    assert surface.ravel()[texels.surface].all()
    assert len(texels.surface) == pytest.approx(surface.sum() / 4, rel=0.05)
    share = np.bincount(texels.part + 1, minlength=6) / len(texels.part)
    assert 0.08 < share[0] < 0.2 and share[1:].min() > 0.1
    assert share[4] == pytest.approx(share[5], rel=0.05)
    lattice = np.stack([texels.surface % chart.size, texels.surface // chart.size], 1)

    def part_at(vertices):
        distance = np.linalg.norm(chart.vertex_pixels[vertices][:, None] - lattice, axis=-1)
        return texels.part[distance.argmin(axis=1)].tolist()

    assert set(part_at(face.landmarks[[18, 19, 20, 23, 24, 25, 37, 38, 40, 41, 43, 44, 50, 51, 52, 57]])) == {-1}
    assert part_at(face.landmarks[[30, 33, 8, 3, 13]]) == [2, 2, 2, 4, 3]
    top = int(face.mean_shape[:, 1].argmax())
    assert part_at(np.array([top])) == [0]


def test_without_texture_whole_regions_are_left_out():
    model = toy_model(albedo_modes=0)
    chart = make_chart(model, "cylindrical", 65)
    texels = ScoreTexels.from_model(model, chart)
    corner = chart.triangles[chart.texel_triangles.ravel()[texels.surface]][
        np.arange(len(texels.surface)), chart.texel_barycentric.reshape(-1, 3)[texels.surface].argmax(1)
    ]
    features = np.isin(model.regions[corner], (2, 4))
    assert features.any() and (texels.part[features] == -1).all()
    assert (texels.part[model.regions[corner] == 3] >= 0).mean() > 0.5
