"""What all the networks are built of. Dimension key: B batch, H/W pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class UpsampledConv2d(nn.Conv2d):
    """Bilinear upsampling by 2 and a 3x3 convolution without bias, done as one.

    Both are linear, so they are one transposed convolution of stride 2, whose 6x6 kernel is the 3x3 one spread by the
    bilinear weights: as many operations, without the upsampled features, whose writing and reading took longer than
    the products. Beyond the border features count as 0 before they are upsampled, not after.

    Parameters
    ----------
    incoming : int
        Channels before.
    outgoing : int
        Channels after.
    """

    def __init__(self, incoming: int, outgoing: int):
        super().__init__(incoming, outgoing, 3, bias=False)
        taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
        spread = torch.stack([F.pad(taps, (2 - k, k)) for k in range(3)])  # a tap of the 3x3 kernel to six
        spread = torch.einsum("kp,lq->klpq", spread, spread).reshape(9, 36)
        self.register_buffer("spread", spread, persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, outgoing, 2H, 2W) features of (B, incoming, H, W) ones."""
        with full_precision(features):
            kernel = (self.weight.flatten(2) @ self.spread).unflatten(2, (6, 6)).transpose(0, 1)
        if features.shape[2:] == (1, 1):  # the border hides all but the middle of the kernel
            return torch.einsum("bi,iohw->bohw", features[:, :, 0, 0], kernel[:, :, 2:4, 2:4])
        return F.conv_transpose2d(features, kernel, stride=2, padding=2)


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
