import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toy import toy_model

from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.light import UNIT_LIGHT, sh_basis
from bfm.pose import transform_points
from model.render import FaceRenderer, Rendered
from model.views import (
    BACKDROP, PICTURE_SIZE, PlacedFace, clay, depth_picture, draw, normal_picture, surroundings, textured, turntable,
    write_gif,
)

MODEL = toy_model()
MAPS = AttributeMaps.from_model(MODEL, make_chart(MODEL, "cylindrical", 32))
FACE = PlacedFace(
    MODEL.mean_shape, np.full_like(MODEL.mean_shape, 0.5), np.array(UNIT_LIGHT), np.zeros(3), np.array([20.0, 24, 0.2])
)


def spotted(width, height, x, y):
    """A photo with one soft white spot."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 12**2))
    return np.rint(255 * spot[..., None].repeat(3, 2)).astype(np.uint8)


@pytest.mark.parametrize("square, size", [
    ((100, 80, 200), (240, 240)), ((-50, 20, 200), (170, 240)), ((450, 300, 300), (280, 330)),
    ((100, 50, 600), (512, 465)), ((-100, 50, 400.5), (341, 482)), ((200, -10, 600), (477, 512)),
])
def test_surroundings_are_the_photo_about_the_face(square, size):
    left, top, side = square
    x, y = left + 0.6 * side, top + 0.4 * side
    picture, transform = surroundings(spotted(700, 600, x, y), square)
    height, width = picture.shape[:2]
    assert (width, height) == size and max(size) <= PICTURE_SIZE
    weights = picture[..., 0].astype(float)
    rows, columns = np.indices(weights.shape)
    found = [(weights * places).sum() / weights.sum() for places in (columns, rows)]
    np.testing.assert_allclose(found, transform_points(np.array([[x, y]]), transform)[0], atol=0.02)


def test_a_large_photo_is_reduced():
    picture, transform = surroundings(np.zeros((2000, 3000, 3), np.uint8), (0, 0, 2000))
    assert picture.shape == (512 * 2000 // 2200, 512, 3)
    np.testing.assert_allclose(transform_points(np.array([[-0.5, -0.5], [2199.5, -0.5]]), transform), [
        [-0.5, -0.5], [511.5, -0.5]
    ], atol=1e-9)


def test_a_picture_need_not_be_square():
    renderer = FaceRenderer(MODEL, MAPS)
    wide, square = draw(renderer, FACE, 30, 48), draw(renderer, FACE, 48, 48)
    assert wide.mask.any() and wide.image.shape == (1, 3, 30, 48)
    for ours, theirs in zip(wide, square):
        torch.testing.assert_close(ours, theirs[..., :30, :] if theirs.ndim == 4 else theirs, rtol=0, atol=0)


def rendered_pixels(normal=(0.0, 0, 1), depth=0.0, image=0.5):
    """A 1 x 2 picture whose second pixel shows a face."""
    def picture(values):
        values = torch.tensor(values).view(1, -1, 1, 1)
        return torch.cat([torch.zeros_like(values), values], 3)

    return Rendered(
        picture([image] * 3), torch.tensor([[[[False, True]]]]), picture([image] * 3), picture(normal),
        picture([depth]), torch.zeros(1, 68, 2),
    )


def test_pixels_by_hand():
    behind = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    for image, byte in ((0.5, 128), (1.7, 255), (-1.0, 0)):
        np.testing.assert_array_equal(textured(rendered_pixels(image=image), behind), [[[1, 2, 3], [byte] * 3]])
    for depth, value in ((0.0, 32768), (12.34, 34002), (-5.0, 32268), (1e4, 65535), (-1e4, 1)):
        np.testing.assert_array_equal(depth_picture(rendered_pixels(depth=depth)), [[0, value]])
    assert depth_picture(rendered_pixels()).dtype == np.uint16
    for normal, colour in (
        ((0.0, 0, 1), (128, 128, 255)), ((-1.0, 0, 0), (0, 128, 128)), ((0.0, 0.6, 0.8), (128, 204, 230))
    ):
        np.testing.assert_array_equal(normal_picture(rendered_pixels(normal)), [[[0, 0, 0], colour]])
    upward, downward = (clay(rendered_pixels((0.0, y, 0.6)), behind) for y in (0.8, -0.8))
    np.testing.assert_array_equal(upward[0, 0], [1, 2, 3])
    assert (upward[0, 1].astype(int) > downward[0, 1] + 50).all()  # lit from above


@pytest.mark.parametrize("distance", [math.inf, 600.0])
def test_the_turntable_turns_about_the_vertical_axis(distance):
    renderer = FaceRenderer(MODEL, MAPS, distance)
    # its own pose and position are not used; the side at image right is red
    albedo = 0.5 + 0.4 * np.sign(MODEL.mean_shape[:, :1]) * [1, 0, -1]
    face = replace(FACE, albedo=albedo, pose=np.array([0.3, 0.8, 0.1]))
    frames = turntable(renderer, face, frames=12, size=64)
    assert len(frames) == 12 and all(frame.shape == (64, 128, 3) and frame.dtype == np.uint8 for frame in frames)
    on_face = [(frame != BACKDROP).any(-1) for frame in frames]
    for shown in on_face:
        assert not shown[[0, -1]].any() and not shown[:, [0, 63, 64, 127]].any()  # all of it is in the picture
        np.testing.assert_array_equal(shown[:, :64], shown[:, 64:])
    if math.isinf(distance):  # a turn about the vertical axis moves no point up or down
        assert all(np.array_equal(shown.any(1), on_face[0].any(1)) for shown in on_face)
    assert max(np.ptp(np.flatnonzero(shown.any(axis))) for shown in on_face for axis in (0, 1)) > 54
    # frontal at the start and in the middle, and as far to one side as to the other
    np.testing.assert_array_equal(frames[0], frames[6])
    red = [(frame[:, :64].astype(int) @ [1, 0, -1] > 50).sum() for frame in frames]
    blue = [(frame[:, :64].astype(int) @ [-1, 0, 1] > 50).sum() for frame in frames]
    assert red[6] == pytest.approx(blue[6], rel=0.1)
    assert abs(red[3] - blue[9]) < 0.1 * red[3] and min(red[3], blue[3]) * 2 < max(red[3], blue[3])
    mirrored = on_face[3][:, :64][:, ::-1]
    assert (mirrored == on_face[9][:, :64]).mean() > 0.99


def test_the_light_of_the_turntable_stays():
    light = np.array([2.0, 0, 0, 1.0, 0, 0, 0, 0, 0])  # from image right
    frames = turntable(FaceRenderer(MODEL, MAPS), replace(FACE, light=light), frames=4, size=64)
    for frame in frames:
        columns = [frame[32, x, 0] for x in np.flatnonzero((frame[32, :64] != BACKDROP).any(-1))]
        assert columns[-1] > columns[0] + 20
    facing = np.rint(255 * 0.5 * float(sh_basis(np.array([0.0, 0, 1])) @ light))
    assert abs(int(frames[0][32, 32, 0]) - facing) < 12


def test_a_gif_keeps_its_frames(tmp_path):
    frames = [np.full((16, 32, 3), (60, 100, 200), np.uint8) for _ in range(8)]
    for k, frame in enumerate(frames):
        frame[4:8, 2 * k:2 * k + 4] = 250
    with Image.open(write_gif(tmp_path / "face.gif", frames)) as gif:
        assert (gif.n_frames, gif.info["loop"], gif.info["duration"]) == (8, 0, 80)
        for k in range(8):
            gif.seek(k)
            np.testing.assert_allclose(np.asarray(gif.convert("RGB")).astype(int), frames[k], atol=4)
