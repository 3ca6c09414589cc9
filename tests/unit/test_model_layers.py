"""Layers that do what plainer ones do, faster."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from model.layers import FullPrecisionConv2d, UpsampledConv2d


def upsampled_with_empty_border(features, weight):
    """Upsample the features with zeros around them, then convolve: one pixel of u beyond the border is not 0."""
    pixels = F.interpolate(F.pad(features, (1,) * 4), scale_factor=2, mode="bilinear")
    return F.conv2d(pixels, weight)[:, :, 1:-1, 1:-1]


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize("height, width", ((32, 40), (64, 32)))
def test_upsampling_and_convolution_in_one(height, width, layout):
    torch.manual_seed(0)
    layer = UpsampledConv2d(5, 3).double().to(memory_format=layout)
    features = torch.randn(2, 5, height, width, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    factors = torch.randn(2, 3, 2 * height, 2 * width, dtype=torch.float64)
    made, wanted = layer(features), upsampled_with_empty_border(features, layer.weight)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12)
    assert made.is_contiguous(memory_format=layout)
    for gradient, expected in zip(*(
        torch.autograd.grad((output * factors).sum(), (features, layer.weight)) for output in (made, wanted)
    )):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
    plain = F.conv2d(F.interpolate(features, scale_factor=2, mode="bilinear"), layer.weight, padding=1)
    torch.testing.assert_close(made[..., 2:-2, 2:-2], plain[..., 2:-2, 2:-2], rtol=0, atol=1e-12)


def test_small_features_are_upsampled_first():
    layer, features = UpsampledConv2d(5, 3), torch.randn(2, 5, 31, 40)
    plain = F.conv2d(F.interpolate(features, scale_factor=2, mode="bilinear"), layer.weight, padding=1)
    assert torch.equal(layer(features), plain)


def test_a_single_pixel_is_repeated():
    layer, features = UpsampledConv2d(5, 3).double(), torch.randn(2, 5, 1, 1, dtype=torch.float64)
    plain = F.conv2d(F.interpolate(features, scale_factor=2, mode="bilinear"), layer.weight, padding=1)
    torch.testing.assert_close(layer(features), plain, rtol=0, atol=1e-14)


class GradientOrders(TorchDispatchMode):
    """Notes whether the gradients that go back through convolutions are channels last."""

    def __init__(self):
        super().__init__()
        self.channels_last = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten.convolution_backward.default:
            self.channels_last.append(args[0].is_contiguous(memory_format=torch.channels_last))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
def test_the_gradient_comes_in_the_memory_order_of_the_convolution(layout):
    layer = UpsampledConv2d(8, 8).to(memory_format=layout)
    made = layer(torch.randn(2, 8, 32, 32).to(memory_format=layout))
    with GradientOrders() as seen:
        made.square().sum().backward()
    assert seen.channels_last == [layout == torch.channels_last]


def test_a_last_convolution_keeps_the_precision_of_its_weights():
    torch.manual_seed(0)
    layer = FullPrecisionConv2d(6, 3)
    features = torch.randn(2, 6, 8, 8)
    assert torch.equal(layer(features), nn.Conv2d.forward(layer, features))
    half = features.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(half)
    wanted = nn.Conv2d.forward(layer, half.float())
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-6)  # bfloat16 has steps of 4e-3 there
    factors = torch.randn_like(made)
    inputs = (half, layer.weight, layer.bias)
    for gradient, expected in zip(*(torch.autograd.grad((v * factors).sum(), inputs) for v in (made, wanted))):
        assert gradient.dtype == expected.dtype
        assert (gradient - expected).float().norm() < 0.01 * expected.float().norm()
