"""K(.), the landmark network (Sec. III-B): 68 heatmaps of a face crop, and the points they stand for.

A heatmap cell is 4 x 4 crop pixels: cell i has its centre at crop pixel 4 i + 1.5, pixel centres at whole numbers.
Dimension key: B batch, C channels, S side of the crop in pixels.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from model.checkpoint import (
    CHECKPOINT_NAME, checked_state, load_networks, load_published_network, load_tensors, published_state,
)
from model.torchscript import is_torchscript, load_torchscript_tensors

LANDMARK_COUNT = 68
STRIDE = 4
"""Crop pixels a heatmap cell."""

HOURGLASS_DEPTH = 4
"""Halvings within an hourglass."""

MOST_STACKS = 16
"""Hourglasses; FAN has 4. A file may ask for no more."""

SIDE_MULTIPLE = STRIDE * 2**HOURGLASS_DEPTH
"""The side of an image, pixels, is a multiple of this."""

_FLOOR = 1e-3
"""Of a heatmap's peak: what is below counts as this much in the logarithm."""


class ConvBlock(nn.Module):
    """Residual block of three 3x3 convolutions in a row, 1/2, 1/4 and 1/4 of the channels, joined [1]_.

    Normalisation and ReLU come before each convolution.

    Parameters
    ----------
    incoming : int
        Channels.
    outgoing : int
        Channels, a multiple of 4.

    References
    ----------
    .. [1] Bulat and Tzimiropoulos, Binarized convolutional landmark localizers for human pose estimation and face
       alignment with limited resources, ICCV 2017, Fig. 4b.
    """

    def __init__(self, incoming: int, outgoing: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(incoming), _conv3x3(incoming, outgoing // 2)
        self.bn2, self.conv2 = nn.BatchNorm2d(outgoing // 2), _conv3x3(outgoing // 2, outgoing // 4)
        self.bn3, self.conv3 = nn.BatchNorm2d(outgoing // 4), _conv3x3(outgoing // 4, outgoing // 4)
        self.downsample = None if incoming == outgoing else nn.Sequential(  # in channels; the name is FAN's
            nn.BatchNorm2d(incoming), nn.ReLU(inplace=True), nn.Conv2d(incoming, outgoing, 1, bias=False)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, outgoing, H, W) for (B, incoming, H, W)."""
        half = self.conv1(F.relu(self.bn1(features), inplace=True))
        quarter = self.conv2(F.relu(self.bn2(half), inplace=True))
        last = self.conv3(F.relu(self.bn3(quarter), inplace=True))
        skipped = features if self.downsample is None else self.downsample(features)
        return torch.cat([half, quarter, last], 1) + skipped


def _conv3x3(incoming: int, outgoing: int) -> nn.Conv2d:
    return nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False)


class Hourglass(nn.Module):
    """Down `HOURGLASS_DEPTH` halvings and up again, with a skip at each; level 1 is the coarsest.

    Parameters
    ----------
    channels : int
        In and out, a multiple of 4.
    """

    def __init__(self, channels: int):
        super().__init__()
        for level in range(HOURGLASS_DEPTH, 0, -1):
            for part in ("b1", "b2", "b3") if level > 1 else ("b1", "b2", "b2_plus", "b3"):
                self.add_module(f"{part}_{level}", ConvBlock(channels, channels))

    def forward(self, features: torch.Tensor, level: int = HOURGLASS_DEPTH) -> torch.Tensor:
        """Return (B, C, H, W) for (B, C, H, W), whose sides are multiples of 2^level."""
        coarse = self.get_submodule(f"b2_{level}")(F.avg_pool2d(features, 2))  # (B, C, H/2, W/2)
        coarse = self(coarse, level - 1) if level > 1 else self.b2_plus_1(coarse)
        coarse = self.get_submodule(f"b3_{level}")(coarse)
        return self.get_submodule(f"b1_{level}")(features) + F.interpolate(coarse, scale_factor=2, mode="nearest")


class LandmarkNetwork(nn.Module):
    """FAN [1]_: hourglasses one after another, each giving all heatmaps, each but the first refining the last's.

    Parameters are named as in the authors' PyTorch version, so that its weights fit.

    Parameters
    ----------
    stacks : int
        Number of hourglasses; 4 is FAN.
    width : float
        Factor on every channel count; 1 is FAN.

    Raises
    ------
    ValueError
        If there is no stack.

    References
    ----------
    .. [1] Bulat and Tzimiropoulos, How far are we from solving the 2D & 3D face alignment problem?, ICCV 2017.
    """

    def __init__(self, stacks: int = 4, width: float = 1.0):
        super().__init__()
        if not 1 <= stacks <= MOST_STACKS:
            raise ValueError(f"stacks must be from 1 to {MOST_STACKS}, got {stacks}")
        self.stacks, self.width = stacks, width
        first, second, channels = (4 * max(1, round(count * width / 4)) for count in (64, 128, 256))
        self.conv1, self.bn1 = nn.Conv2d(3, first, 7, stride=2, padding=3), nn.BatchNorm2d(first)
        self.conv2, self.conv3 = ConvBlock(first, second), ConvBlock(second, second)
        self.conv4 = ConvBlock(second, channels)
        for stack in range(stacks):
            self.add_module(f"m{stack}", Hourglass(channels))
            self.add_module(f"top_m_{stack}", ConvBlock(channels, channels))
            self.add_module(f"conv_last{stack}", nn.Conv2d(channels, channels, 1))
            self.add_module(f"bn_end{stack}", nn.BatchNorm2d(channels))
            self.add_module(f"l{stack}", _heatmap_layer(channels))
            if stack < stacks - 1:
                self.add_module(f"bl{stack}", nn.Conv2d(channels, channels, 1))
                self.add_module(f"al{stack}", nn.Conv2d(LANDMARK_COUNT, channels, 1))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the heatmaps of each stack, the last the best.

        Parameters
        ----------
        image : torch.Tensor
            (B, 3, S, S) RGB in [0, 1].

        Returns
        -------
        list[torch.Tensor]
            (B, 68, S/4, S/4), one a stack; a visible or hidden landmark is a blob of height about 1.

        Raises
        ------
        ValueError
            If S is not a multiple of 64: each hourglass halves its input four times.
        """
        if any(side % SIDE_MULTIPLE for side in image.shape[-2:]):
            raise ValueError(
                f"image must have sides that are multiples of {SIDE_MULTIPLE} pixels, got {tuple(image.shape[-2:])}; "
                "resize it, or build the shards with such a --size"
            )
        features = F.relu(self.bn1(self.conv1(image)), inplace=True)      # (B, C/4, S/2, S/2)
        features = self.conv3(F.avg_pool2d(self.conv2(features), 2))      # (B, C/2, S/4, S/4)
        features = self.conv4(features)                                   # (B, C, S/4, S/4)
        heatmaps = []
        for stack in range(self.stacks):
            bn_end, conv_last, head = (self.get_submodule(f"{name}{stack}") for name in ("bn_end", "conv_last", "l"))
            found = self.get_submodule(f"top_m_{stack}")(self.get_submodule(f"m{stack}")(features))
            found = F.relu(bn_end(conv_last(found)), inplace=True)
            heatmaps.append(head(found))                                  # (B, 68, S/4, S/4)
            if stack < self.stacks - 1:
                features = features + self.get_submodule(f"bl{stack}")(found) \
                    + self.get_submodule(f"al{stack}")(heatmaps[-1])
        return heatmaps


def _heatmap_layer(channels: int) -> nn.Conv2d:
    """Return a layer that starts near empty heatmaps, which true ones nearly are; a random start takes long to forget.

    (200 steps on 216 faces at width 1/8, 2 stacks: 6.8 pixels of error for 64 at a 128 pixel crop.)
    """
    layer = nn.Conv2d(channels, LANDMARK_COUNT, 1)
    with torch.no_grad():
        layer.weight.mul_(0.01)
        layer.bias.zero_()
    return layer


def landmark_heatmaps(landmarks: torch.Tensor, size: int) -> torch.Tensor:
    """Return what the network is trained to give: a Gaussian of height 1 and deviation one cell at each landmark.

    Parameters
    ----------
    landmarks : torch.Tensor
        (B, 68, 2) x, y in crop pixels; one outside the crop has an empty heatmap.
    size : int
        S, side of the crop, pixels.

    Returns
    -------
    torch.Tensor
        (B, 68, S/4, S/4).
    """
    cells = torch.arange(size // STRIDE, device=landmarks.device)
    x, y = ((landmarks - (STRIDE - 1) / 2) / STRIDE).unbind(-1)
    inside = ((landmarks > -0.5) & (landmarks < size - 0.5)).all(-1)
    across, down = (torch.exp(-(cells - place[..., None]).square() / 2) for place in (x, y))
    return (down * inside[..., None])[..., :, None] * across[..., None, :]


def landmarks_from_heatmaps(heatmaps: torch.Tensor) -> torch.Tensor:
    """Return where the heatmaps peak, to a fraction of a cell.

    The rows and the columns of the 3x3 cells about the highest are summed, and a parabola is laid through the
    logarithms of the three sums: exact for a Gaussian of any width anywhere between the cells, also at the border.
    Differentiable in the values of these cells. (Mean error for Gaussians of one cell, clean and with noise of 5 % of
    the peak: 0.00 and 0.26 pixels; FAN's quarter of a cell toward the higher neighbour 0.77 and 0.84.)

    Parameters
    ----------
    heatmaps : torch.Tensor
        (B, 68, H, W) of one stack, at least 3 cells a side.

    Returns
    -------
    torch.Tensor
        (B, 68, 2) x, y in crop pixels, float32 or finer.
    """
    height, width = heatmaps.shape[-2:]
    heatmaps = heatmaps if heatmaps.dtype == torch.float64 else heatmaps.float()
    flat = heatmaps.flatten(-2)
    peak = flat.argmax(-1)
    column, row = (peak % width).clamp(1, width - 2), (peak // width).clamp(1, height - 2)  # the 3x3 lies inside
    steps = torch.arange(-1, 2, device=heatmaps.device)
    around = ((row[..., None] + steps) * width)[..., :, None] + (column[..., None] + steps)[..., None, :]
    around = flat.gather(-1, around.flatten(-2)).unflatten(-1, (3, 3)).clamp(min=0)  # (B, 68, 3, 3)
    place = torch.stack([column + _vertex(around.sum(-2)), row + _vertex(around.sum(-1))], -1)
    return STRIDE * place + (STRIDE - 1) / 2


def _vertex(sums: torch.Tensor) -> torch.Tensor:
    """Return where the parabola through the logarithms of (..., 3) values at -1, 0, 1 is highest, in [-1.5, 1.5]."""
    floor = _FLOOR * sums.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(sums.dtype).tiny / _FLOOR)
    left, middle, right = torch.log(torch.maximum(sums, floor)).unbind(-1)
    return ((right - left) / (2 * (2 * middle - left - right)).clamp(min=1e-6)).clamp(-1.5, 1.5)


def load_landmark_network(path: Path) -> LandmarkNetwork:
    """Read a landmark network, to be used and not trained; nothing in the file is run.

    FAN was trained on crops in which the box about the landmarks takes about half of the side, ours 0.63: it sees our
    faces near the largest it knows.

    Parameters
    ----------
    path : Path
        Run of ``dualface train landmarks`` (its folder or checkpoint), FAN as the TorchScript archive of the
        face-alignment package (3DFAN4-*.zip; 2DFAN4-*.zip marks the visible outline instead of the jaw), or a state
        dict of FAN (.pth, .pth.tar).

    Returns
    -------
    LandmarkNetwork
        On the CPU, in evaluation mode, without gradients.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or of another network.
    """
    path = Path(path)
    path = path / CHECKPOINT_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; give the folder of a run of `dualface train landmarks`, or a 3D-FAN file"
        )
    state = load_torchscript_tensors(path) if is_torchscript(path) else load_tensors(path)
    state = state if isinstance(state, dict) else {}
    if "networks" in state:
        saved = checked_state(state, path, "landmarks")
        config = saved["config"]
        network = load_networks(saved, lambda: {"landmarks": LandmarkNetwork(config["stacks"], config["width"])})
        return network["landmarks"].eval().requires_grad_(False)
    state = published_state(state)
    stacks = sum(re.fullmatch(r"l\d+\.weight", key) is not None for key in state)
    if not stacks:
        raise ValueError(
            f"{path} must hold the weights of FAN, its heatmap layers named l0.weight, l1.weight, ...; its first "
            f"entry is {next(iter(state), 'nothing')[:60]}"
        )
    return load_published_network(lambda: LandmarkNetwork(stacks), state, path, f"FAN of {stacks} stack(s)")
