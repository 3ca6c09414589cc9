import numpy as np
import pytest

from asmgen.crop import MARGIN, crop_image, face_square, placement_in_photo, square_transform
from bfm.pose import project, transform_points


def ramp(width: int, height: int) -> np.ndarray:
    """An image whose red is its column and whose green is its row."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x, y, 0 * x], -1).astype(np.uint8)


@pytest.mark.parametrize("square", [(20.0, 30.0, 64.0), (20.25, 30.5, 66.1), (11.3, 17.8, 100.7), (40.0, 40.0, 33.0)])
def test_crop_shows_what_the_transform_says(square):
    size = 64
    crop = crop_image(ramp(200, 160), square, size).astype(float)
    inverse = np.linalg.inv(np.vstack([square_transform(square, size), [0, 0, 1]]))[:2]
    columns, rows = np.meshgrid(np.arange(size), np.arange(size))
    source = transform_points(np.stack([columns, rows], -1).reshape(-1, 2).astype(float), inverse)
    error = crop[..., :2].reshape(-1, 2) - source
    # a linear image survives any resampling, up to rounding to whole values in each of the two passes
    assert np.abs(error).max() <= 1.01
    assert np.abs(error.mean(axis=0)).max() < 0.06


def test_whole_image_at_its_own_size_is_unchanged():
    image = ramp(64, 64)
    assert np.array_equal(crop_image(image, (0, 0, 64), 64), image)
    assert np.allclose(square_transform((0, 0, 64), 64), [[1, 0, 0], [0, 1, 0]])


def test_outside_the_image_the_edge_repeats():
    crop = crop_image(ramp(50, 50), (-50, 0, 50 * 2), 100)
    assert (crop[:, :49, 0] == 0).all()  # the last one before the edge is blended
    assert (crop[55:, :, 1] == 49).all()
    assert np.array_equal(crop[:50, 50:], ramp(50, 50))


def test_square_holds_the_landmarks_with_room_above():
    landmarks = np.array([[10.0, 20.0], [50.0, 80.0]])
    left, top, side = face_square(landmarks)
    assert side == pytest.approx(MARGIN * 60)
    assert left + side / 2 == pytest.approx(30.5)
    assert top + side / 2 < 50.5


@pytest.mark.parametrize("square", [(300, 0, 10), (0, -20, 10), (-5000, -5000, 9000)])
def test_square_off_the_image_is_refused(square):
    with pytest.raises(ValueError, match="face square .* the 200x100 image|times the 200x100"):
        crop_image(ramp(200, 100), square, 32)


def test_landmarks_must_span_a_box():
    with pytest.raises(ValueError, match="span at least a pixel"):
        face_square(np.full((68, 2), 7.0))
    with pytest.raises(ValueError, match="finite"):
        face_square(np.full((68, 2), np.nan))


def test_what_is_placed_in_the_crop_is_placed_in_the_photo():
    square, size = (-12.5, 30.25, 150.0), 64
    pose, position = np.array([0.2, -1.1, 0.4], np.float32), np.array([30.5, 28, 0.3], np.float32)
    vertices = np.random.default_rng(0).normal(0, 50, (20, 3))
    placed = project(vertices, *placement_in_photo(pose, position, square, size))[:, :2]
    in_crop = project(vertices, pose.astype(float), position.astype(float))[:, :2]
    np.testing.assert_allclose(transform_points(placed, square_transform(square, size)), in_crop, atol=1e-9)
