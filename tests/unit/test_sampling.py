import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from bfm.sampling import bilinear_taps, sample_image


def test_matches_scipy_inside_and_beyond_the_border():
    rng = np.random.default_rng(0)
    image = rng.random((13, 17, 3))
    points = rng.uniform(-3, 20, (500, 2))
    reference = np.stack(
        [map_coordinates(image[..., c], points[:, ::-1].T, order=1, mode="nearest") for c in range(3)], -1
    )
    assert np.abs(sample_image(image, points) - reference).max() < 1e-6


def test_whole_pixels_are_read_exactly():
    image = np.arange(6.0).reshape(2, 3, 1)
    points = np.array([[x, y] for y in range(2) for x in range(3)], float)
    assert np.array_equal(sample_image(image, points)[:, 0], np.arange(6))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_no_points_are_no_values(channels):
    values = sample_image(np.zeros((4, 5, channels), np.uint8), np.zeros((0, 2)))
    assert (values.shape, values.dtype) == ((0, channels), np.float32)


def test_one_pixel_image():
    texels, weights = bilinear_taps(np.array([[0.0, 0.0], [5.0, -2.0]]), 1, 1)
    assert (texels == 0).all() and np.allclose(weights.sum(1), 1)
