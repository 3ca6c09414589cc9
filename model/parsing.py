"""M, what of a photo is face: BiSeNet from its weights file, so that hair, glasses and hands count for nothing.

The file, ``79999_iter.pth`` of face-parsing.PyTorch, is behind a download page: what is tested is a file made with its
names and shapes. Pixels are 0-based with centres at whole numbers. Dimension key: B batch, C channels, S side of an
image in pixels.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from model.checkpoint import load_published_network, load_tensors, published_state

CLASSES = (
    "background", "skin", "left brow", "right brow", "left eye", "right eye", "glasses", "left ear", "right ear",
    "earring", "nose", "mouth", "upper lip", "lower lip", "neck", "necklace", "cloth", "hair", "hat",
)
"""What the network tells apart, those of CelebAMask-HQ."""

FACE = ("skin", "left brow", "right brow", "left eye", "right eye", "nose", "upper lip", "lower lip")
"""What of it the face model has: no ears, and nothing within the mouth."""

INPUT_SIZE = 512
"""Side of the images that the network was trained on, pixels."""

_MEAN, _STDDEV = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class ConvNormReLU(nn.Module):
    """Convolution, batch normalisation and ReLU; as all parts here, named as in the published program.

    Parameters
    ----------
    incoming : int
        Channels.
    outgoing : int
        Channels.
    side : int
        Of the kernel, 1 or 3.
    """

    def __init__(self, incoming: int, outgoing: int, side: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(incoming, outgoing, side, padding=side // 2, bias=False)
        self.bn = nn.BatchNorm2d(outgoing)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, outgoing, H, W) for (B, incoming, H, W)."""
        return F.relu(self.bn(self.conv(features)), inplace=True)


class ResidualBlock(nn.Module):
    """Block of ResNet-18: two 3x3 convolutions, and a 1x1 one beside them where the shape changes.

    Parameters
    ----------
    incoming : int
        Channels.
    outgoing : int
        Channels.
    stride : int
        Of the first convolution.
    """

    def __init__(self, incoming: int, outgoing: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, outgoing, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outgoing)
        self.conv2 = nn.Conv2d(outgoing, outgoing, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outgoing)
        self.downsample = None if incoming == outgoing else nn.Sequential(
            nn.Conv2d(incoming, outgoing, 1, stride=stride, bias=False), nn.BatchNorm2d(outgoing)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, outgoing, H / stride, W / stride) for (B, incoming, H, W)."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features)), inplace=True)))
        skipped = features if self.downsample is None else self.downsample(features)
        return F.relu(inner + skipped, inplace=True)


class ResNet18(nn.Module):
    """ResNet-18 without its classifier; its layers 2, 3 and 4 are what is used."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64)
        for index, (incoming, outgoing, stride) in enumerate(
            ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)), 1
        ):
            blocks = ResidualBlock(incoming, outgoing, stride), ResidualBlock(outgoing, outgoing, 1)
            self.add_module(f"layer{index}", nn.Sequential(*blocks))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (B, 128, S/8, S/8), (B, 256, S/16, S/16) and (B, 512, S/32, S/32) of (B, 3, S, S)."""
        features = F.max_pool2d(F.relu(self.bn1(self.conv1(image)), inplace=True), 3, stride=2, padding=1)
        eighth = self.layer2(self.layer1(features))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """Features weighted by channel, the weights from their mean over the image [1]_, Sec. 3.2.

    Parameters
    ----------
    incoming : int
        Channels.
    outgoing : int
        Channels.

    References
    ----------
    .. [1] Yu et al., BiSeNet: bilateral segmentation network for real-time semantic segmentation, ECCV 2018.
    """

    def __init__(self, incoming: int, outgoing: int):
        super().__init__()
        self.conv = ConvNormReLU(incoming, outgoing)
        self.conv_atten, self.bn_atten = nn.Conv2d(outgoing, outgoing, 1, bias=False), nn.BatchNorm2d(outgoing)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, outgoing, H, W) for (B, incoming, H, W)."""
        features = self.conv(features)
        return features * torch.sigmoid(self.bn_atten(self.conv_atten(features.mean((2, 3), keepdim=True))))


class ContextPath(nn.Module):
    """The deep half of BiSeNet: a ResNet-18 whose coarse features are refined and brought up to those of layer 2."""

    def __init__(self):
        super().__init__()
        self.resnet = ResNet18()
        self.arm16, self.arm32 = AttentionRefinement(256, 128), AttentionRefinement(512, 128)
        self.conv_head16, self.conv_head32 = ConvNormReLU(128, 128), ConvNormReLU(128, 128)
        self.conv_avg = ConvNormReLU(512, 128, side=1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return layer 2 and the context, both (B, 128, S/8, S/8), of (B, 3, S, S)."""
        eighth, sixteenth, coarsest = self.resnet(image)
        whole = self.conv_avg(coarsest.mean((2, 3), keepdim=True))             # (B, 128, 1, 1)
        context = self.conv_head32(_doubled(self.arm32(coarsest) + whole))     # (B, 128, S/16, S/16)
        return eighth, self.conv_head16(_doubled(self.arm16(sixteenth) + context))


def _doubled(features: torch.Tensor) -> torch.Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")


class FeatureFusion(nn.Module):
    """The two halves of BiSeNet joined, and again weighted by channel."""

    def __init__(self):
        super().__init__()
        self.convblk = ConvNormReLU(256, 256, side=1)
        self.conv1, self.conv2 = nn.Conv2d(256, 64, 1, bias=False), nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, detail: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return (B, 256, H, W) for two (B, 128, H, W)."""
        features = self.convblk(torch.cat([detail, context], 1))
        weights = self.conv2(F.relu(self.conv1(features.mean((2, 3), keepdim=True))))
        return features * (1 + torch.sigmoid(weights))


class ClassHead(nn.Module):
    """Features to one score a class.

    Parameters
    ----------
    incoming : int
        Channels.
    inner : int
        Channels between the two convolutions.
    """

    def __init__(self, incoming: int, inner: int):
        super().__init__()
        self.conv, self.conv_out = ConvNormReLU(incoming, inner), nn.Conv2d(inner, len(CLASSES), 1, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, 19, H, W) for (B, incoming, H, W)."""
        return self.conv_out(self.conv(features))


class FaceParsing(nn.Module):
    """BiSeNet as trained on CelebAMask-HQ, with ResNet-18's layer 2 for the spatial path."""

    def __init__(self):
        super().__init__()
        self.cp, self.ffm, self.conv_out = ContextPath(), FeatureFusion(), ClassHead(256, 256)
        self.conv_out16, self.conv_out32 = ClassHead(128, 64), ClassHead(128, 64)  # in the file, for training only
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("stddev", torch.tensor(_STDDEV).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the score of each class at each pixel, the highest being what is there.

        The scores, on a grid of 64 a side, are interpolated at the pixels, as the published program does at the
        pixels of its 512 x 512 image: its grid reaches from the middle of the first pixel to that of the last.

        Parameters
        ----------
        image : torch.Tensor
            (B, 3, S, S) RGB in [0, 1]; the network sees it resized to 512 x 512.

        Returns
        -------
        torch.Tensor
            (B, 19, S, S), in the order of `CLASSES`.
        """
        size = image.shape[-1]
        resized = F.interpolate(image, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True)
        scores = self.conv_out(self.ffm(*self.cp((resized - self.mean) / self.stddev))).float()  # (B, 19, 64, 64)
        centres = (torch.arange(size, device=image.device) + 0.5) * INPUT_SIZE / size - 0.5  # in pixels of 512
        places = (2 * centres / (INPUT_SIZE - 1) - 1).expand(len(image), size, size)
        grid = torch.stack([places, places.mT], -1)
        return F.grid_sample(scores, grid, mode="bilinear", padding_mode="border", align_corners=True)

    @torch.no_grad()
    def face_mask(self, image: torch.Tensor, classes: tuple[str, ...] = FACE) -> torch.Tensor:
        """Return where a photo shows what the face model has.

        Parameters
        ----------
        image : torch.Tensor
            (B, 3, S, S) RGB in [0, 1].
        classes : tuple[str, ...]
            What counts, of `CLASSES`; not hair, glasses, a hand or background, unless they are named.

        Returns
        -------
        torch.Tensor
            (B, 1, S, S) bool.
        """
        is_face = torch.tensor([name in classes for name in CLASSES], device=image.device)
        return is_face[self(image).argmax(1, keepdim=True)]


def load_parsing_network(path: Path) -> FaceParsing:
    """Read BiSeNet, to be used and not trained; nothing in the file is run.

    Parameters
    ----------
    path : Path
        State dict of face-parsing.PyTorch (``79999_iter.pth``).

    Returns
    -------
    FaceParsing
        On the CPU, in evaluation mode, without gradients of its own.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give BiSeNet's weights file (79999_iter.pth)")
    state = published_state(load_tensors(path))
    if "cp.resnet.conv1.weight" not in state:
        raise ValueError(
            f"{path} must hold BiSeNet under the names of face-parsing.PyTorch, cp.resnet.conv1.weight, ...; its first "
            f"entry is {next(iter(state), 'nothing')[:60]}"
        )
    return load_published_network(FaceParsing, state, path, "BiSeNet")
