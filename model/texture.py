"""The texture stream (Sec. III-B): the generator G_t of Eq. (12) and its discriminator.

Dimension key: B batch, S side of the photo and of the albedo maps in pixels, C channels, n regions, h/w the sides of
the mid-level features, S/8.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from model.layers import FullPrecisionConv2d, UpsampledConv2d, he_initialise, scaled
from model.regions import RegionModulation, SharedRegions, adaptive_instance_norm, region_stylise

ENCODER_CHANNELS = (64, 128, 256, 512, 512, 512, 512, 512)
"""Output channels of pix2pix's eight encoder layers."""

MID_LEVEL = 3
"""SRSM follows this layer of the encoders: 32 x 32 for photos of 256 x 256."""

STYLISATIONS = ("srsm", "adain", "transform")

DARKEST = 0.02
"""I_u is kept this far from 0 and 1 where the output starts from it, so that sigmoid is not flat there."""


class Stylised(NamedTuple):
    """What the generator makes, and how.

    Attributes
    ----------
    albedo_map : torch.Tensor
        (B, 3, S, S) the generated I_a in [0, 1], float32.
    regions : torch.Tensor | None
        (B, n, h, w) X_s; None without SRSM.
    features : torch.Tensor
        (B, C, h, w) the stylised mid-level features X_r.
    content, style : torch.Tensor
        (B, C, h, w) X_u and X_o, of the linear albedo map and of the photo.
    """

    albedo_map: torch.Tensor
    regions: torch.Tensor | None
    features: torch.Tensor
    content: torch.Tensor
    style: torch.Tensor


class TextureStream(nn.Module):
    """G_t, Eq. (12): a linear albedo map and a photo to a realistic albedo map.

    A U-Net over I_u whose skips add, layer l to layer h - l; a style encoder of the same shape for I_o; at the mid
    level the style goes over, and the result is both what goes on down and the skip of its level. Layers are as in
    pix2pix, activation first, with bilinear upsampling for the transposed convolutions and without dropout. The
    outermost skip, l = 0, adds I_u itself to the output (before the sigmoid), so the untrained stream returns about
    I_u; without skips it returns grey.

    Parameters
    ----------
    regions : int
        n, for SRSM.
    stylisation : str
        ``srsm``; ``adain``: mean and deviation of the whole map, nothing learned; or ``transform``: a convolution
        of both features, as in the paper's earlier version.
    skips : bool
        Without skips it is a plain encoder and decoder (Fig. 13).
    landmark_branch : bool
        Whether landmark heatmaps guide the regions of SRSM (Eq. 9).
    width : float
        Factor on every channel count.
    size : int
        S, a power of two from 16 to 256; log2(S) layers down and up.
    whole_map : bool
        Take the statistics of SRSM over the whole map, as Eq. (14) is written; see `region_statistics`.

    Attributes
    ----------
    uses_heatmaps : bool
        Whether `forward` needs heatmaps: SRSM with its landmark branch.

    Raises
    ------
    ValueError
        If the size is not one that the layers can make, or the stylisation is unknown.
    """

    def __init__(
        self, regions: int = 16, stylisation: str = "srsm", skips: bool = True, landmark_branch: bool = True,
        width: float = 1.0, size: int = 256, whole_map: bool = False,
    ):
        super().__init__()
        depth = int(math.log2(size))
        if 2**depth != size or not 4 <= depth <= len(ENCODER_CHANNELS):
            raise ValueError(f"size must be a power of two from 16 to {2 ** len(ENCODER_CHANNELS)}, got {size}")
        if stylisation not in STYLISATIONS:
            raise ValueError(f"stylisation must be one of {', '.join(STYLISATIONS)}, got {stylisation!r}")
        self.size, self.stylisation, self.skips, self.whole_map = size, stylisation, skips, whole_map
        self.uses_heatmaps = stylisation == "srsm" and landmark_branch
        encoded = [scaled(channels, width) for channels in ENCODER_CHANNELS[:depth]]
        decoded = [*encoded[-2::-1], encoded[0]]
        self.content_encoder = _encoder(encoded, depth)
        self.style_encoder = nn.Sequential(*_encoder(encoded, MID_LEVEL))
        self.decoder = nn.ModuleList(_up(*pair) for pair in zip(encoded[-1:] + decoded, decoded))
        self.output = nn.Sequential(nn.ReLU(), FullPrecisionConv2d(decoded[-1], 3))
        channels = encoded[MID_LEVEL - 1]
        if stylisation == "srsm":
            self.shared_regions = SharedRegions(channels, regions, landmark_branch, width)
            self.modulation = RegionModulation(channels)
        elif stylisation == "transform":
            self.transform = nn.Sequential(
                nn.LeakyReLU(0.2), nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
            )
        for part in (self.content_encoder, self.style_encoder, self.decoder, self.output):
            he_initialise(part)
        with torch.no_grad():
            self.output[1].weight.mul_(0.01)

    def forward(
        self, linear_albedo: torch.Tensor, image: torch.Tensor, heatmaps: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the albedo map alone; see `stylise`."""
        return self.stylise(linear_albedo, image, heatmaps).albedo_map

    def stylise(
        self, linear_albedo: torch.Tensor, image: torch.Tensor, heatmaps: torch.Tensor | None = None
    ) -> Stylised:
        """Generate albedo maps.

        Parameters
        ----------
        linear_albedo : torch.Tensor
            (B, 3, S, S) I_u, RGB in [0, 1], 0 outside the chart.
        image : torch.Tensor
            (B, 3, S, S) I_o, RGB in [0, 1].
        heatmaps : torch.Tensor | None
            (B, 68, S/4, S/4) K(I_o); not looked at unless `uses_heatmaps`.

        Returns
        -------
        Stylised
            The map, and the regions and features that it came from.

        Raises
        ------
        ValueError
            If an input has another shape, or the heatmaps are missing.
        """
        for name, value in (("linear_albedo", linear_albedo), ("image", image)):
            if tuple(value.shape[1:]) != (3, self.size, self.size):
                raise ValueError(f"{name} must have shape (B, 3, {self.size}, {self.size}), got {tuple(value.shape)}")
        photo = 2 * image - 1
        style = self.style_encoder(photo)  # (B, 256 width, S/8, S/8)
        levels, features = [], 2 * linear_albedo - 1
        for layer in self.content_encoder[:MID_LEVEL]:
            features = layer(features)
            levels.append(features)
        content = features  # (B, 256 width, S/8, S/8)

        regions = None
        if self.stylisation == "srsm":
            regions = self.shared_regions(content, style, photo, heatmaps)
            scale, shift = self.modulation(style, regions, self.whole_map)
            features = region_stylise(content, regions, scale, shift, self.whole_map)
        elif self.stylisation == "adain":
            features = adaptive_instance_norm(content, style)
        else:
            features = self.transform(torch.cat([content, style], 1))
        levels[-1] = stylised = features

        for layer in self.content_encoder[MID_LEVEL:]:
            features = layer(features)  # down to (B, 512 width, 1, 1)
            levels.append(features)
        for layer, skipped in zip(self.decoder, levels[-2::-1]):
            features = layer(features)  # up to (B, 64 width, S/2, S/2)
            if self.skips:
                features = features + skipped
        features = self.decoder[-1](features)  # (B, 64 width, S, S)
        logits = self.output(features)
        if self.skips:
            logits = logits + torch.logit(linear_albedo, DARKEST)
        return Stylised(torch.sigmoid(logits), regions, stylised, content, style)


class PatchDiscriminator(nn.Module):
    """D of Eq. (16): pix2pix's discriminator, which judges each patch of 70 x 70 texels.

    It sees the albedo map alone: with I_u beside it (as pix2pix conditions), it would reward maps that copy I_u's
    tone, which the photo is to replace.

    Parameters
    ----------
    width : float
        Factor on every channel count.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        channels = [3] + [scaled(count, width) for count in (64, 128, 256, 512)]
        layers = []
        for level, (incoming, outgoing) in enumerate(zip(channels, channels[1:])):
            stride = 2 if level < 3 else 1
            layers.append(nn.Conv2d(incoming, outgoing, 4, stride, padding=1, bias=level == 0))
            layers += [nn.BatchNorm2d(outgoing)] if level else []
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, padding=1))
        he_initialise(self)

    def forward(self, albedo_map: torch.Tensor) -> torch.Tensor:
        """Return (B, 1, S/8 - 2, S/8 - 2) logits, one a patch, of (B, 3, S, S) maps in [0, 1]."""
        return self.layers(2 * albedo_map - 1)


def _encoder(channels: list[int], count: int) -> nn.ModuleList:
    """The first `count` layers down; pix2pix normalises neither the first nor the one that ends in a single texel."""
    layers = []
    for level, (incoming, outgoing) in enumerate(zip([3, *channels], channels[:count])):
        normalised = 0 < level < len(channels) - 1
        layer = [nn.LeakyReLU(0.2)] if level else []
        layer.append(nn.Conv2d(incoming, outgoing, 4, stride=2, padding=1, bias=not normalised))
        layer += [nn.BatchNorm2d(outgoing)] if normalised else []
        layers.append(nn.Sequential(*layer))
    return nn.ModuleList(layers)


def _up(incoming: int, outgoing: int) -> nn.Sequential:
    """One layer up."""
    return nn.Sequential(
        nn.ReLU(),
        UpsampledConv2d(incoming, outgoing),
        nn.BatchNorm2d(outgoing),
    )
