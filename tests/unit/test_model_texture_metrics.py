import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from model.batches import TextureBatch
from model.metrics import ssim_map, texture_errors


def reference_ssim(a, b):
    """Eq. (13) of Wang et al., one (H, W) channel, with an 11-tap Gaussian window and zeros beyond the border."""
    weights = np.exp(-(np.arange(11) - 5.0) ** 2 / (2 * 1.5**2))
    weights /= weights.sum()

    def window(values):
        return correlate1d(correlate1d(values, weights, 0, mode="constant"), weights, 1, mode="constant")

    mean_a, mean_b = window(a), window(b)
    var_a, var_b = window(a * a) - mean_a**2, window(b * b) - mean_b**2
    covariance = window(a * b) - mean_a * mean_b
    c1, c2 = 0.0001, 0.0009
    return (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def test_ssim_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 1, (2, 3, 20, 17)).astype(np.float32)
    b = np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1).astype(np.float32)
    found = ssim_map(torch.tensor(a), torch.tensor(b)).numpy()
    for sample in range(2):
        for channel in range(3):
            expected = reference_ssim(a[sample, channel].astype(np.float64), b[sample, channel].astype(np.float64))
            np.testing.assert_allclose(found[sample, channel], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ssim_map(torch.tensor(a), torch.tensor(a)), torch.ones(2, 3, 20, 17).double())


def test_errors_are_those_of_the_visible_texels():
    inside = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    visible = torch.zeros_like(inside)
    visible[0, :, :2] = True  # 16 texels
    visible[1, :, :, 5] = True  # 8
    albedo, generated = torch.full((2, 3, 8, 8), 0.5), torch.full((2, 3, 8, 8), 0.9)
    generated[0, :, :2] = 0.5
    generated[0, 1, 0, 0] = 0.3  # of one texel's three channels
    generated[1, :, :, 5] = 0.4
    linear = albedo - torch.tensor([0.1, 0.0]).view(2, 1, 1, 1)
    batch = TextureBatch(torch.zeros(2, 3, 8, 8), linear, albedo, visible, inside)
    errors = texture_errors(generated, batch)
    assert errors["albedo_mae"].tolist() == pytest.approx([0.2 / 48, 0.1])
    assert errors["linear_mae"].tolist() == pytest.approx([0.1, 0.0], abs=1e-7)
    maps = ssim_map(generated, albedo)
    expected = [float(maps[0, :, :2].mean()), float(maps[1, :, :, 5].mean())]
    assert errors["albedo_ssim"].tolist() == pytest.approx(expected)
    assert errors["linear_ssim"].tolist()[1] == pytest.approx(1)
    nothing = batch._replace(visible=torch.zeros_like(visible))
    assert texture_errors(generated, nothing)["albedo_mae"].tolist() == [0, 0]
