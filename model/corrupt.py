"""What photos suffer and renderings do not: covered faces, grey film, harsh tones, blur and noise, at random.

A face's shape and place do not change with them, and its albedo and light are still those of the clean photo, so a
network that has seen them knows a face by more than its clean outline.

Dimension key: B batch, S side of the crop in pixels, N covers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.distributed import own_part, process_count, roll_samples

COVERS = 3
BLUR = 4
MAX_NOISE = 0.06
MAX_GAMMA = 0.5
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class Corruption:
    """What befalls each crop of a batch.

    Attributes
    ----------
    covers : torch.Tensor
        (B, N, 7) shapes of covers, numbers in [0, 1): presence, middle, width, height, turn, softness of the edge.
    probability : float
        Of each cover.
    grey, gamma, blur, noise : torch.Tensor
        (B, 1, 1, 1) share of colour that is lost, exponent on the tones, share of the sharp image that is lost, and
        standard deviation of the noise in [0, 1] RGB.
    noise_seed : int
        Of the noise itself, of which each kind of device has its own.
    """

    covers: torch.Tensor
    probability: float
    grey: torch.Tensor
    gamma: torch.Tensor
    blur: torch.Tensor
    noise: torch.Tensor
    noise_seed: int

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, S, S) crops, RGB in [0, 1], as they come out; a cover shows another crop, upside down."""
        count, _, size, _ = image.shape
        image = torch.lerp(image, roll_samples(image).flip(-2), self._covered(size))
        grey = sum(weight * image[:, channel:channel + 1] for channel, weight in enumerate(GREY))
        image = torch.lerp(image, grey, self.grey)
        image = image.clamp(min=1e-4) ** self.gamma
        coarse = F.avg_pool2d(image, BLUR, ceil_mode=True, count_include_pad=False)
        image = torch.lerp(image, F.interpolate(coarse, (size, size), mode="bilinear"), self.blur)
        source = torch.Generator(image.device).manual_seed(self.noise_seed)
        drawn = (count * process_count(), 1, size, size)
        noise = torch.randn(drawn, generator=source, device=image.device, dtype=image.dtype)
        return (image + own_part(noise) * self.noise).clamp(0, 1)

    def _covered(self, size: int) -> torch.Tensor:
        """(B, 1, S, S) how much of each pixel is covered."""
        present, x, y, width, height, turn, edge = self.covers[..., None, None].unbind(2)
        axis = (torch.arange(size, device=self.covers.device) + 0.5) / size
        right, down = axis - x, axis[:, None] - y
        cosine, sine = torch.cos(turn * math.pi), torch.sin(turn * math.pi)
        along, across = right * cosine + down * sine, down * cosine - right * sine
        distance = torch.hypot(along / (0.05 + 0.35 * width), across / (0.05 + 0.25 * height))
        inside = torch.sigmoid((1 - distance) * (5 + 25 * edge)) * (present < self.probability)
        return inside.amax(1, keepdim=True)


def draw_corruption(count: int, probability: float, generator: torch.Generator, device: torch.device) -> Corruption:
    """Draw what befalls a batch: each of up to three covers, and each of the rest, independently.

    Parameters
    ----------
    count : int
        Crops B.
    probability : float
        Of each, in [0, 1].
    generator : torch.Generator
        On the CPU, so that every device draws the same numbers.
    device : torch.device
        Of the crops.

    Returns
    -------
    Corruption
        Grey is all or nothing; tones are bent by powers between ``exp(-0.5)`` and ``exp(0.5)``; noise goes up to 0.06.
    """
    total = count * process_count()
    covers = torch.rand(total, COVERS, 7, generator=generator)
    happens = (torch.rand(4, total, 1, 1, 1, generator=generator) < probability).float()
    amount = torch.rand(3, total, 1, 1, 1, generator=generator)
    gamma, blur, noise = (2 * amount[0] - 1) * happens[1], amount[1] * happens[2], amount[2] * happens[3]
    covers, grey, gamma, blur, noise = (
        own_part(drawn).to(device, non_blocking=True) for drawn in (covers, happens[0], gamma, blur, noise)
    )
    return Corruption(
        covers, probability, grey, torch.exp(gamma * MAX_GAMMA), blur, noise * MAX_NOISE,
        noise_seed=int(torch.randint(2**62, (), generator=generator)),
    )
