"""F_id of Eq. (21): ArcFace's network, which tells people apart, and the crop of a face that it is given.

Pixels are 0-based with centres at whole numbers. Dimension key: B batch, C channels, S side of an image in pixels.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from asmgen.five_points import five_points
from model.checkpoint import (
    CHECKPOINT_NAME, checked_state, load_networks, load_published_network, load_tensors, published_state,
)

CROP_SIZE = 112
"""Side of the crop that the network takes, pixels."""

FEATURES = 512
"""Numbers that stand for a person."""

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
"""Blocks of each of the four layers of the published networks, by their depth."""

TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Where ArcFace's crop has the points of `five_points`: x, y in its pixels."""

_CHANNELS = (64, 128, 256, 512)
_FLOOR = 1e-9  # so that points which are no face give no NaN
_WRAPPERS = ("state_dict", "state_dict_backbone")  # the latter in insightface's training checkpoints


class IdentityBlock(nn.Module):
    """Residual block: normalisation before, between and after two 3x3 convolutions, nothing after the sum [1]_.

    Parameters
    ----------
    incoming : int
        Channels.
    outgoing : int
        Channels.
    stride : int
        Of the second convolution, and of the 1x1 convolution that then stands in for the identity.

    References
    ----------
    .. [1] Deng et al., ArcFace: additive angular margin loss for deep face recognition, CVPR 2019, Sec. 3.1.
    """

    def __init__(self, incoming: int, outgoing: int, stride: int = 1):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(incoming)
        self.conv1 = nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(outgoing), nn.PReLU(outgoing)
        self.conv2 = nn.Conv2d(outgoing, outgoing, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outgoing)
        self.downsample = None if stride == 1 else nn.Sequential(
            nn.Conv2d(incoming, outgoing, 1, stride=stride, bias=False), nn.BatchNorm2d(outgoing)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, outgoing, H / stride, W / stride) for (B, incoming, H, W)."""
        inner = self.prelu(self.bn2(self.conv1(self.bn1(features))))
        skipped = features if self.downsample is None else self.downsample(features)
        return self.bn3(self.conv2(inner)) + skipped


class IdentityNetwork(nn.Module):
    """The improved ResNet of ArcFace [1]_ (iResNet); parameters are named as in insightface, so its weights fit.

    Parameters
    ----------
    layers : tuple[int, ...]
        Blocks of each of the four layers, such as a value of `LAYERS`.
    width : float
        Factor on every channel count but that of the features; 1 is ArcFace.

    References
    ----------
    .. [1] Deng et al., ArcFace: additive angular margin loss for deep face recognition, CVPR 2019.
    """

    def __init__(self, layers: tuple[int, ...] = LAYERS[50], width: float = 1.0):
        super().__init__()
        self.width = width
        channels = [max(1, round(count * width)) for count in _CHANNELS]
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(channels[0]), nn.PReLU(channels[0])
        for index, (blocks, incoming, outgoing) in enumerate(zip(layers, [channels[0], *channels], channels), 1):
            first, others = IdentityBlock(incoming, outgoing, stride=2), range(1, blocks)
            self.add_module(
                f"layer{index}", nn.Sequential(first, *(IdentityBlock(outgoing, outgoing) for _ in others))
            )
        self.bn2 = nn.BatchNorm2d(channels[-1])
        self.fc = nn.Linear(channels[-1] * (CROP_SIZE // 16) ** 2, FEATURES)
        self.features = nn.BatchNorm1d(FEATURES)
        self.features.weight.requires_grad_(False)  # 1: the loss sees directions only

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        """Return what a face is recognised by; people are compared by the cosine of the angle between theirs.

        Parameters
        ----------
        crop : torch.Tensor
            (B, 3, 112, 112) RGB in [0, 1], from `face_crop`.

        Returns
        -------
        torch.Tensor
            (B, 512) features, of no particular length.

        Raises
        ------
        ValueError
            If the crop has another size.
        """
        if crop.shape[1:] != (3, CROP_SIZE, CROP_SIZE):
            raise ValueError(
                f"crop must have shape (B, 3, {CROP_SIZE}, {CROP_SIZE}), got {tuple(crop.shape)}; make it by face_crop"
            )
        features = self.prelu(self.bn1(self.conv1(2 * crop - 1)))            # (B, C, 112, 112)
        features = self.layer2(self.layer1(features))                        # (B, 2 C, 28, 28)
        features = self.bn2(self.layer4(self.layer3(features))).flatten(1)   # (B, 8 C 7 7)
        with torch.autocast(features.device.type, enabled=False):  # an angle takes more than bfloat16's three digits
            return self.features(self.fc(features.to(self.fc.weight.dtype)))


def face_crop(image: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
    """Cut ArcFace's crop out of images: the similarity that takes five points closest to their places in it.

    Closest in the least squares; a shape is never mirrored for it. To avoid aliasing where the crop is smaller than
    the face in the image, each pixel is the mean of k x k bilinear samples, k = ceil(S / 112), which lie at most a
    pixel of the image apart as long as the crop is no larger than the image. Outside the image it is black, as
    insightface has it. Differentiable in both arguments.

    Parameters
    ----------
    image : torch.Tensor
        (B, 3, S, S) RGB in [0, 1].
    landmarks : torch.Tensor
        (B, 68, 2) x, y in its pixels; five points that coincide place no crop, and all of it is the colour there.

    Returns
    -------
    torch.Tensor
        (B, 3, 112, 112) RGB in [0, 1].
    """
    points, size = five_points(landmarks), image.shape[-1]
    fine = math.ceil(size / CROP_SIZE)
    template = _template(points.dtype, points.device)
    middle, template_middle = points.mean(1), template.mean(0)
    points, template = points - middle[:, None], template - template_middle
    # with points as complex numbers, template = (cosine + i sine) points / spread; inverted it leads to the image
    spread = points.square().sum((1, 2))
    cosine = (points * template).sum((1, 2))
    sine = (points[..., 0] * template[:, 1] - points[..., 1] * template[:, 0]).sum(1)
    factor = spread / (cosine.square() + sine.square()).clamp(min=_FLOOR)
    a, b = (factor * cosine)[:, None, None], (factor * sine)[:, None, None]
    places = (torch.arange(CROP_SIZE * fine, dtype=points.dtype, device=points.device) + 0.5) / fine - 0.5
    x, y = places - template_middle[0], (places - template_middle[1])[:, None]
    grid = torch.stack([a * x + b * y, a * y - b * x], -1) + middle[:, None, None]  # (B, 112 k, 112 k, 2) image pixels
    grid = (2 * grid + 1) / size - 1  # grid_sample counts from -1 to 1 between the image's edges
    samples = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(samples, fine)


@lru_cache
def _template(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """`TEMPLATE` on a device: once, as copying it there waits for the device."""
    return torch.tensor(TEMPLATE, dtype=dtype, device=device)


def load_identity_network(path: Path) -> IdentityNetwork:
    """Read F_id, to be used and not trained; nothing in the file is run.

    Parameters
    ----------
    path : Path
        Run of ``dualface train identity`` (its folder or checkpoint), or a state dict of insightface's iResNet
        (arcface_torch's ``backbone.pth``), of any depth.

    Returns
    -------
    IdentityNetwork
        On the CPU, in evaluation mode, without gradients of its own.

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
            f"{path} does not exist; give an ArcFace file of insightface (iResNet), or the folder of a run of "
            "`dualface train identity`"
        )
    state = load_tensors(path)
    if isinstance(state, dict) and "networks" in state:
        saved = checked_state(state, path, "identity")
        config = saved["config"]
        network = load_networks(saved, lambda: {"identity": IdentityNetwork(LAYERS[config["depth"]], config["width"])})
        return network["identity"].eval().requires_grad_(False)
    state = published_state(state, _WRAPPERS)
    layers = tuple(_count(rf"layer{index}\.\d+\.conv1\.weight", state) for index in range(1, 5))
    if not all(layers) or "features.running_mean" not in state:
        raise ValueError(
            f"{path} must hold ArcFace's iResNet under insightface's names, conv1.weight, layer1.0.bn1.weight, ..., "
            f"features.weight; its first entry is {next(iter(state), 'nothing')[:60]}"
        )
    return load_published_network(lambda: IdentityNetwork(layers), state, path, f"an iResNet of {sum(layers)} blocks")


def _count(pattern: str, state: dict) -> int:
    return sum(re.fullmatch(pattern, key) is not None for key in state)
