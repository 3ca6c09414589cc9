"""Losses of the texture stream, Eq. (15) to (18), as functions of tensors.

Dimension key: B batch, C channels, N points of a layer, S side of the albedo maps in texels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

BANDWIDTH = 0.5
"""h of the contextual loss."""
EPSILON = 1e-5
"""Added to the least distance of a point, against division by zero."""
MOST_POINTS = 64 * 64
"""Points of a layer that the contextual loss compares at most; each with each."""
_CHUNK = 2**24
"""Similarities held at once: one sample of `MOST_POINTS`, many of fewer."""


def reconstruction_loss(
    generated: torch.Tensor, albedo: torch.Tensor, visible: torch.Tensor, inside: torch.Tensor, fill_weight: float
) -> torch.Tensor:
    """Return the pixel reconstruction loss of Eq. (15): the mean square of the difference.

    Departs from Eq. (15): colours count in 8-bit levels, because with colours in [0, 1] the paper's weight of 0.1
    would make this term a thousandth of the others, while its weights are said to make them alike. And what the photo
    does not show, which was filled in, counts less, and what lies outside the chart not at all.

    Parameters
    ----------
    generated : torch.Tensor
        (B, 3, S, S) RGB in [0, 1].
    albedo : torch.Tensor
        (B, 3, S, S) true I_a.
    visible : torch.Tensor
        (B, 1, S, S) bool, texels that the photo shows.
    inside : torch.Tensor
        (B, 1, S, S) bool, texels of the chart.
    fill_weight : float
        Weight of the texels inside that are not visible; the visible ones have 1.

    Returns
    -------
    torch.Tensor
        Scalar, squared 8-bit levels.
    """
    weights = torch.where(visible, 1.0, fill_weight) * inside
    return (255**2 / 3) * ((generated.float() - albedo).square() * weights).sum() / weights.sum()


def discriminator_loss(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """Return what the discriminator minimises: the negative of Eq. (16), halved as in pix2pix.

    Eq. (16) writes D(I_a) twice; the first must be of the true albedo map.

    Parameters
    ----------
    real : torch.Tensor
        Logits of true albedo maps, any shape.
    generated : torch.Tensor
        Logits of generated ones.

    Returns
    -------
    torch.Tensor
        Scalar; log 2 = 0.69 for one that cannot tell.
    """
    return (F.softplus(-real.float()).mean() + F.softplus(generated.float()).mean()) / 2


def adversarial_loss(generated: torch.Tensor) -> torch.Tensor:
    """Return what the generator minimises for Eq. (16), from the logits of its maps.

    Departs from Eq. (16): -log D for log(1 - D), as in pix2pix, because the gradient of the latter vanishes where the
    discriminator is sure.
    """
    return F.softplus(-generated.float()).mean()


def contextual_loss(
    generated: Sequence[torch.Tensor], true: Sequence[torch.Tensor], points: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return the contextual loss of Eq. (17) [1]_, summed over the layers and averaged over the samples.

    Every point of a layer is compared with every other, so the maps need not be aligned, only be made of the same
    things. With d_ij the cosine distance of point i of the generated map and point j of the true one, both less the
    true one's mean: w_ij = exp((1 - d_ij / (min_k d_ik + eps)) / h), CX_ij = w_ij / sum_k w_ik, and the loss is
    -log of the mean over j of max_i CX_ij. So CX_i is a softmax over j, in which the 1 cancels.

    Parameters
    ----------
    generated : Sequence[torch.Tensor]
        (B, C, H, W) features of each layer.
    true : Sequence[torch.Tensor]
        Likewise; no gradient reaches them.
    points : Sequence[torch.Tensor]
        (N,) flat indices of the points to compare in each layer, from `layer_points`.

    Returns
    -------
    torch.Tensor
        Scalar, at least 0. One or a few samples' N x N similarities are held at a time, and made anew for the
        gradient.

    References
    ----------
    .. [1] R. Mechrez, I. Talmi, L. Zelnik-Manor, The contextual loss for image transformation with non-aligned data,
       ECCV 2018.
    """
    layers = []
    for ours, theirs, chosen in zip(generated, true, points):
        ours, theirs = (values.flatten(2)[:, :, chosen].float() for values in (ours, theirs.detach()))  # (B, C, N)
        centre = theirs.mean(2, keepdim=True)
        ours, theirs = F.normalize(ours - centre, dim=1), F.normalize(theirs - centre, dim=1)
        samples = max(1, _CHUNK // len(chosen)**2)
        best = torch.cat([  # (B, N)
            checkpoint(_best_similarity, *pair, use_reentrant=False, preserve_rng_state=False)
            for pair in zip(ours.split(samples), theirs.split(samples))
        ])
        layers.append(-best.mean(1).log().mean())
    return torch.stack(layers).sum()


def _best_similarity(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return (B, N) max_i CX_ij of (B, C, N) unit vectors."""
    cosine = ours.transpose(1, 2) @ theirs  # (B, N, N)
    sharpness = 1 / (BANDWIDTH * (1 + EPSILON - cosine.amax(2, keepdim=True)))
    return (cosine * sharpness).log_softmax(2).amax(1).exp()


def layer_points(mask: torch.Tensor, sides: Sequence[int]) -> list[torch.Tensor]:
    """Return which places of each layer lie in the chart: what is outside is the same in all maps.

    Parameters
    ----------
    mask : torch.Tensor
        (S, S) bool, texels of the chart.
    sides : Sequence[int]
        Side of each layer; each divides S.

    Returns
    -------
    list[torch.Tensor]
        (N,) flat indices: half of the texels that a place stands for, or more, are in the chart.
    """
    texels = mask.float()[None]
    return [
        (F.avg_pool2d(texels, len(mask) // side).flatten() >= 0.5).nonzero()[:, 0] for side in sides
    ]


def draw_points(
    candidates: Sequence[torch.Tensor], generator: torch.Generator, most: int = MOST_POINTS
) -> list[torch.Tensor]:
    """Return at most `most` of the places of each layer, drawn without repetition.

    Parameters
    ----------
    candidates : Sequence[torch.Tensor]
        (N,) each, from `layer_points`, on any device.
    generator : torch.Generator
        On the CPU.
    most : int
        All are returned where there are no more.

    Returns
    -------
    list[torch.Tensor]
        On the device of the candidates.
    """
    return [
        places if len(places) <= most
        else places[torch.randperm(len(places), generator=generator)[:most].to(places.device, non_blocking=True)]
        for places in candidates
    ]
