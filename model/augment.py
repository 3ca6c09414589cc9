"""Random changes of training crops: drawn once a batch, so that all that is known of a crop changes alike.

Dimension key: B batch, L landmarks, S side of the crop in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from bfm.pose import transform_points
from model.config import Augmentation
from model.corrupt import Corruption, draw_corruption
from model.distributed import own_part, process_count

LANDMARK_MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)
"""For each of the 68 landmarks the one on the other side of the face."""


@lru_cache
def _landmark_mirror(device: torch.device) -> torch.Tensor:
    return torch.tensor(LANDMARK_MIRROR, device=device)


@dataclass(frozen=True, eq=False)
class Changes:
    """What happens to each crop of a batch: it is turned, scaled, shifted and recoloured, then mirrored or not.

    Attributes
    ----------
    angle : torch.Tensor
        (B,) radians, clockwise as seen.
    transform : torch.Tensor
        (B, 2, 3) from old to new pixels.
    flipped : torch.Tensor
        (B,) bool.
    brightness : torch.Tensor
        (B,) factor on the light.
    tint : torch.Tensor
        (B, 3) factor on each colour channel.
    saturation : torch.Tensor
        (B,) factor on the distance from grey.
    corruption : Corruption | None
        What befalls the photo beside.
    """

    angle: torch.Tensor
    transform: torch.Tensor
    flipped: torch.Tensor
    brightness: torch.Tensor
    tint: torch.Tensor
    saturation: torch.Tensor
    corruption: Corruption | None

    def choose(self, mirrored: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
        """Return, of two (B, ...) versions, the mirrored one where the crop is flipped."""
        return torch.where(self.flipped.view(-1, *[1] * (original.ndim - 1)), mirrored, original)

    def recolour(self, colours: torch.Tensor, lit: bool) -> torch.Tensor:
        """Return (B, 3, S, S) RGB tinted and saturated; what is `lit` is also made brighter or darker."""
        gain = self.brightness[:, None] * self.tint if lit else self.tint
        grey = colours.mean(1, keepdim=True)
        return (grey + (colours - grey) * self.saturation.view(-1, 1, 1, 1)) * gain[:, :, None, None]

    def image(self, image: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, S, S) photos in [0, 1], everything done to them."""
        image = self.recolour(warp(image, self.transform), lit=True)
        image = self.choose(image.flip(-1), image).clamp(0, 1)
        return self.corruption.apply(image) if self.corruption else image

    def chart_maps(self, maps: torch.Tensor) -> torch.Tensor:
        """Return (B, C, S, S) maps of colours or masks in a mirror-symmetric chart, mirrored as the crops are."""
        return self.choose(maps.flip(-1), maps)

    def landmarks(self, landmarks: torch.Tensor, size: int) -> torch.Tensor:
        """Return (B, 68, 2) landmarks, pixels, of crops of this size where they went."""
        landmarks = transform_points(landmarks, self.transform)
        mirrored = landmarks[:, _landmark_mirror(landmarks.device)]
        mirrored = torch.stack([size - 1 - mirrored[..., 0], mirrored[..., 1]], -1)
        return self.choose(mirrored, landmarks)


def draw_changes(image: torch.Tensor, augmentation: Augmentation, generator: torch.Generator) -> Changes:
    """Draw the changes of a batch of crops.

    Parameters
    ----------
    image : torch.Tensor
        (B, 3, S, S), for its shape and device.
    augmentation : Augmentation
        Amounts.
    generator : torch.Generator
        On the CPU, so that every device draws the same numbers; the same in all processes that share a step's batch.

    Returns
    -------
    Changes
        On the device of the image.
    """
    count, _, _, size = image.shape
    uniform = own_part(torch.rand(count * process_count(), 10, generator=generator)).to(image.device, non_blocking=True)
    either_way = uniform * 2 - 1
    angle = either_way[:, 0] * math.radians(augmentation.rotation)
    factor = 1 + either_way[:, 1] * augmentation.scale
    shift = either_way[:, 2:4] * augmentation.shift * size
    corruption = None
    if augmentation.corruption:
        corruption = draw_corruption(count, augmentation.corruption, generator, image.device)
    return Changes(
        angle, similarity(angle, factor, shift, size), uniform[:, 4] < augmentation.flip,
        brightness=1 + either_way[:, 5] * augmentation.brightness,
        tint=1 + either_way[:, 6:9] * augmentation.tint,
        saturation=1 + either_way[:, 9] * augmentation.saturation,
        corruption=corruption,
    )


def similarity(angle: torch.Tensor, factor: torch.Tensor, shift: torch.Tensor, size: int) -> torch.Tensor:
    """Return (B, 2, 3) transforms of crop pixels about the middle of the crop.

    Parameters
    ----------
    angle : torch.Tensor
        (B,) radians, from x toward y: clockwise as seen.
    factor : torch.Tensor
        (B,) magnification.
    shift : torch.Tensor
        (B, 2) pixels, applied last.
    size : int
        Side of the crop, pixels.

    Returns
    -------
    torch.Tensor
        (B, 2, 3), from old to new pixels.
    """
    a, b = factor * torch.cos(angle), factor * torch.sin(angle)
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    middle = (size - 1) / 2
    return torch.cat([linear, (shift + middle - linear.sum(-1) * middle)[..., None]], -1)


def warp(image: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    """Move images, (B, 3, S, S), by (B, 2, 3) transforms of pixels; beyond the border its pixels are repeated."""
    size = image.shape[-1]
    inverse = torch.linalg.inv_ex(transform[..., :2])[0]  # `inv` waits for the GPU to say that there is one
    # from pixels to the [-1, 1] of grid_sample, whose ends are pixel centres here
    middle = (size - 1) / 2
    origin = -(inverse @ transform[..., 2:]) / middle + inverse.sum(-1, keepdim=True) - 1
    grid = F.affine_grid(torch.cat([inverse, origin], -1), list(image.shape), align_corners=True)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)
