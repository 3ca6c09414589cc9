import numpy as np
import pytest
from PIL import Image, ImageFilter

from asmgen.crop import (
    MARGIN, RISE, crop_image, face_square, placement_in_photo, square_about, square_transform,
)
from bfm.pose import project, transform_points


def ramp(width: int, height: int) -> np.ndarray:
    """An image whose red is its column and whose green is its row."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x, y, 0 * x], -1).astype(np.uint8)


@pytest.mark.parametrize("square", [(20, 30, 64), (20, 31, 66), (11, 18, 101), (40, 40, 33)])
def test_crop_shows_what_the_transform_says(square):
    size = 64
    crop, negative = (
        crop_image(image, square, size)[..., :2].astype(float) for image in (ramp(200, 160), 255 - ramp(200, 160))
    )
    inverse = np.linalg.inv(np.vstack([square_transform(square, size), [0, 0, 1]]))[:2]
    columns, rows = np.meshgrid(np.arange(size), np.arange(size))
    source = transform_points(np.stack([columns, rows], -1).reshape(-1, 2).astype(float), inverse)
    error = crop.reshape(-1, 2) - source
    # a linear image survives any resampling, up to rounding to whole values in each of the two passes
    assert np.abs(error).max() <= 1.01
    # what is too dark there is no error of place: it is too dark in the negative as well
    dark = (255 - crop - negative).mean(axis=(0, 1)) / 2
    assert np.abs(error.mean(axis=0) + dark).max() < 0.03 and -0.01 <= dark.min() and dark.max() < 0.15


def test_whole_image_at_its_own_size_is_unchanged():
    image = ramp(64, 64)
    assert np.array_equal(crop_image(image, (0, 0, 64), 64), image)
    assert np.allclose(square_transform((0, 0, 64), 64), [[1, 0, 0], [0, 1, 0]])


def test_outside_the_image_the_edge_repeats():
    crop = crop_image(ramp(50, 50), (-50, 0, 50 * 2), 100)
    assert (crop[:, :49, 0] == 0).all()  # the last one before the edge is blended
    assert (crop[55:, :, 1] == 49).all()
    assert np.array_equal(crop[:50, 50:], ramp(50, 50))


def by_pillow(image: np.ndarray, square: tuple, size: int) -> np.ndarray:
    """The same crop by pillow's resize, the photo's edges repeated beforehand as far as any square here reaches."""
    left, top, side = square
    wide = Image.fromarray(np.pad(image, ((400, 400), (400, 400), (0, 0)), mode="edge"))
    box = (left + 400, top + 400, left + 400 + side, top + 400 + side)
    return np.asarray(wide.resize((size, size), Image.Resampling.BILINEAR, box=box))


def scene() -> np.ndarray:
    """Blurred noise, 300 x 260."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (260, 300, 3)).astype(np.uint8))
    return np.asarray(noise.filter(ImageFilter.GaussianBlur(3)))


@pytest.mark.parametrize("size, square", [
    (128, (20, 31, 90)), (128, (20, 31, 128)), (128, (61, 9, 171)), (64, (25, 32, 120)), (64, (80, 51, 134)),
    (64, (31, 20, 222)), (32, (44, 20, 200)), (128, (-71, -80, 200)), (64, (121, 140, 260)), (64, (-90, 10, 400)),
])
def test_a_crop_is_that_of_pillow(size, square):
    """But for rounding, and another filter of the same spread; a quarter of a pixel aside it is another."""
    ours, image = crop_image(scene(), square, size).astype(float), scene()
    wrong = np.sqrt(np.square(ours - by_pillow(image, square, size)).mean())
    shifted = by_pillow(image, (square[0] + 0.25 * square[2] / size, *square[1:]), size)
    assert wrong < 1.1 and abs((ours - by_pillow(image, square, size)).mean()) < 0.2
    assert np.square(ours - shifted).mean() > 1.5 * wrong**2


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.3, 1.9, 2.0, 2.6, 3.0, 4.4])
def test_a_crop_is_placed_to_a_64th_of_a_pixel(factor):
    """A wave along each axis comes out with the phase that the transform says, and its strength."""
    size, period = 64, 32 * max(1, factor)
    square = (20, 12, round(size * factor))
    columns, rows = np.meshgrid(np.arange(320), np.arange(320))
    image = np.stack([127 + 100 * np.sin(2 * np.pi * places / period) for places in (columns, rows, columns)], -1)
    crop = crop_image(np.rint(image).astype(np.uint8), square, size).astype(float)
    transform = square_transform(square, size)
    for axis, wave in enumerate((crop[..., 0].mean(axis=0), crop[..., 1].mean(axis=1))):
        angle = 2 * np.pi * (np.arange(size) - transform[axis, 2]) / transform[axis, axis] / period
        terms = np.stack([np.sin(angle), np.cos(angle), np.ones(size)], 1)
        sine, cosine, _ = np.linalg.lstsq(terms, wave, rcond=None)[0]
        assert abs(np.arctan2(cosine, sine) * period / (2 * np.pi) / factor) < 1 / 64
        assert np.hypot(sine, cosine) == pytest.approx(100, abs=2)


@pytest.mark.parametrize("factor", [1.5, 2.0, 2.9, 4.5])
def test_a_crop_that_shrinks_is_antialiased(factor):
    """White noise loses what pillow's filter takes from it, to a quarter."""
    noise = np.random.default_rng(1).integers(0, 256, (320, 320, 3)).astype(np.uint8)
    square = (10, 9, round(64 * factor))
    assert crop_image(noise, square, 64).std() == pytest.approx(by_pillow(noise, square, 64).std(), rel=0.25)


def test_square_holds_the_landmarks_with_room_above():
    assert face_square(np.array([[10.0, 20.0], [51.0, 80.0]])) == (-14, -2, 90)  # 31 and 50.5 - 0.12 * 60, less 45
    assert face_square(np.array([[10.2, 20.3], [51.0, 80.0]])) == (-14, -2, 90)  # of sides 89.55
    assert (MARGIN, RISE) == (1.5, 0.12)


@pytest.mark.parametrize("centre", [(50.0, 40.0), (50.3, 40.7), (-8.9, 1e4 + 0.2)])
@pytest.mark.parametrize("side", [0.2, 1.0, 63.4, 64.6])
def test_squares_are_of_whole_pixels_about_their_centre(centre, side):
    square = square_about(*centre, side)
    assert all(type(edge) is int for edge in square)
    assert square[2] == max(1, round(side))
    assert np.abs(np.add(square[:2], square[2] / 2) - centre).max() <= 0.5


@pytest.mark.parametrize("square", [
    (300, 0, 10), (0, -20, 10), (-5000, -5000, 9000), (200, 0, 10), (0, 100, 10), (-10, 0, 10), (0, -10, 10),
    (0, 0, 1601),
])
def test_square_off_the_image_is_refused(square):
    with pytest.raises(ValueError, match="face square .* the 200x100 image|times the 200x100"):
        crop_image(ramp(200, 100), square, 32)


@pytest.mark.parametrize("square, pixel", [
    ((199, 0, 10), (199, 0)), ((0, 99, 10), (0, 99)), ((-9, 0, 10), (0, 0)), ((0, -9, 10), (0, 0)),
])
def test_a_square_that_meets_the_image_in_one_row_shows_it(square, pixel):
    crop = crop_image(ramp(200, 100), square, 10)
    assert tuple(crop[0 if square[1] >= 0 else -1, 0 if square[0] >= 0 else -1, :2]) == pixel
    assert crop_image(ramp(200, 100), (0, 0, 1600), 16).shape == (16, 16, 3)  # eight times as large


def test_landmarks_must_span_a_box():
    with pytest.raises(ValueError, match="span at least a pixel"):
        face_square(np.full((68, 2), 7.0))
    assert face_square(np.array([[7.0, 7.0], [7.0, 8.0]]))[2] == 2  # 1.5 times a pixel
    with pytest.raises(ValueError, match="span at least a pixel"):
        face_square(np.array([[7.0, 7.0], [7.9, 7.9]]))
    for lost in (np.nan, np.inf):
        landmarks = np.random.default_rng(0).uniform(0, 99, (68, 2))
        landmarks[5, 1] = lost
        with pytest.raises(ValueError, match=r"must be finite points of shape \(N, 2\), got shape \(68, 2\)"):
            face_square(landmarks)
    for shape in ((68, 3), (136,), (1, 68, 2)):
        with pytest.raises(ValueError, match="finite points of shape"):
            face_square(np.arange(float(np.prod(shape))).reshape(shape))


def test_what_is_placed_in_the_crop_is_placed_in_the_photo():
    square, size = (-12, 30, 150), 64
    pose, position = np.array([0.2, -1.1, 0.4], np.float32), np.array([30.5, 28, 0.3], np.float32)
    vertices = np.random.default_rng(0).normal(0, 50, (20, 3))
    placed = project(vertices, *placement_in_photo(pose, position, square, size))[:, :2]
    in_crop = project(vertices, pose.astype(float), position.astype(float))[:, :2]
    np.testing.assert_allclose(transform_points(placed, square_transform(square, size)), in_crop, atol=1e-9)


@pytest.mark.parametrize("shape", ((50, 40000, 3), (40000, 50, 3)))
def test_photos_longer_than_what_opencv_warps(shape):
    photo = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    long = int(shape[1] > shape[0])  # the place of the long side in (top, left)
    start = np.array([3, 3])
    start[long] += 39000
    near = photo[:, 38990:39100] if long else photo[38990:39100]
    offset = np.array([0, 0])
    offset[long] = 38990
    made = crop_image(photo, (start[1], start[0], 30), 32)
    np.testing.assert_array_equal(made, crop_image(near, (*(start - offset)[::-1], 30), 32))
