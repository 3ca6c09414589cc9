"""What all the networks are built of. Dimension key: B batch, H/W pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_MERGED_FROM = 32
"""Side of the features from which `UpsampledConv2d` is one convolution: below, the border is much of the picture, and
upsampling costs little."""


class UpsampledConv2d(nn.Conv2d):
    """Bilinear upsampling by 2 and a 3x3 convolution without bias; of large features, both in one.

    Both are linear, and every second pixel is made alike: so four 3x3 convolutions of the features as they are give
    the four pixels that each pixel becomes, with kernels that mix the taps of the given one by the bilinear weights. As
    many operations, without the upsampled features, whose writing and reading took longer than the products. Beyond
    the border features then count as 0 before they are upsampled, not after.

    Parameters
    ----------
    incoming : int
        Channels before.
    outgoing : int
        Channels after.
    """

    def __init__(self, incoming: int, outgoing: int):
        super().__init__(incoming, outgoing, 3, padding=1, bias=False)
        # of the left or upper pixel, then the other: from the taps of the given kernel to those on the features
        mixed = torch.tensor([[[3, 1, 0], [1, 3, 0], [0, 3, 1]], [[1, 3, 0], [0, 3, 1], [0, 1, 3]]]) / 4
        self.register_buffer("mixed", torch.einsum("akp,blq->klabpq", mixed, mixed).reshape(9, 36), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, outgoing, 2H, 2W) features of (B, incoming, H, W) ones."""
        if features.shape[2:] == (1, 1):  # interpolation would loop over samples and channels in four threads of a GPU
            return super().forward(features.expand(-1, -1, 2, 2))
        if min(features.shape[2:]) < _MERGED_FROM:
            return super().forward(F.interpolate(features, scale_factor=2, mode="bilinear"))
        last = self.weight.is_contiguous(memory_format=torch.channels_last)
        with full_precision(features):
            kernels = (self.weight.flatten(2) @ self.mixed).unflatten(2, (4, 3, 3)).movedim(2, 0).flatten(0, 1)
            kernels = kernels.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        four = F.conv2d(features, kernels, padding=1)
        if last:
            four = _ChannelsLastGradient.apply(four)
        four = four.unflatten(1, (2, 2, -1))  # (B, 2, 2, outgoing, H, W)
        if last:  # as F.pixel_shuffle, which on a GPU gives up the memory format
            return four.permute(0, 4, 1, 5, 2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
        return four.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


class _ChannelsLastGradient(torch.autograd.Function):
    """What is given; its gradient in the memory order of the convolution that it goes to, which else copies it slowly:
    compiled, the copy is part of what makes the gradient."""

    @staticmethod
    def forward(ctx, features):
        return features.view_as(features)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.contiguous(memory_format=torch.channels_last)


class FullPrecisionConv2d(nn.Conv2d):
    """The 3x3 convolution that ends a network: its result keeps the precision of its weights, also under autocast.

    Parameters
    ----------
    incoming : int
        Channels before.
    outgoing : int
        Channels after.
    """

    def __init__(self, incoming: int, outgoing: int):
        super().__init__(incoming, outgoing, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, outgoing, H, W) values of (B, incoming, H, W) features, in the precision of the weights."""
        with full_precision(features):
            if features.dtype == self.weight.dtype:
                return super().forward(features)
            return _MixedConvolution.apply(features, self.weight, self.bias)


class _MixedConvolution(torch.autograd.Function):
    """Forward in the precision of the weights, backward in that of the features, as in all layers before."""

    @staticmethod
    def forward(ctx, features, weight, bias):
        ctx.save_for_backward(features, weight)
        # one channel more: cuDNN has no fast kernels for three
        more = -len(weight) % 4
        weight, bias = F.pad(weight, (0,) * 7 + (more,)), F.pad(bias, (0, more))
        return F.conv2d(features.to(weight.dtype), weight, bias, padding=1)[:, :len(weight) - more]

    @staticmethod
    def backward(ctx, gradient):
        features, weight = ctx.saved_tensors
        gradients = torch.ops.aten.convolution_backward(
            gradient.to(features.dtype), features, weight.to(features.dtype), [len(weight)], [1, 1], [1, 1], [1, 1],
            False, [0, 0], 1, [True, True, True],
        )
        return gradients[0], *(part.to(weight.dtype) for part in gradients[1:])


def scaled(channels: int, width: float) -> int:
    """Return a channel count times `width`, at least 4."""
    return max(4, round(channels * width))


def full_precision(tensor: torch.Tensor) -> torch.autocast:
    """Return a context in which autocast is off on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)


def he_initialise(module: nn.Module):
    """Draw the convolutions so that variance survives the depth; PyTorch's default loses it without norms."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
