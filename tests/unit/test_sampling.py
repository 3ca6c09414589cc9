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


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 6), (5, 1), (2, 2), (3, 4)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_both_ways_are_bilinear_by_definition_on_the_smallest_images(shape, channels):
    rng = np.random.default_rng(1)
    height, width = shape
    image = rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
    borders = [[x, y] for x in (-1, 0, 0.5, width - 1, width) for y in (0, 1, height - 1, height)]
    points = np.concatenate([rng.uniform(-2, 7, (40, 2)), borders])
    expected = np.zeros((len(points), channels))
    for row in range(height):
        for column in range(width):
            across = np.maximum(1 - np.abs(np.clip(points[:, 0], 0, width - 1) - column), 0)
            down = np.maximum(1 - np.abs(np.clip(points[:, 1], 0, height - 1) - row), 0)
            expected += (across * down)[:, None] * image[row, column]
    for read in (image, image / 255 * 255):
        values = sample_image(read, points)
        assert (values.shape, values.dtype) == (expected.shape, np.float32)
        np.testing.assert_allclose(values, expected, atol=1e-4)
    texels, weights = bilinear_taps(points, height, width)
    assert (texels.dtype, weights.dtype) == (np.int64, np.float32) and texels.min() >= 0 and weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    taken = image.reshape(-1, channels)[texels]
    np.testing.assert_allclose(np.einsum("nk,nkc->nc", weights, taken), expected, atol=1e-4)


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
