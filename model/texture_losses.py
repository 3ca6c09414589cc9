"""Losses of the texture stream, Eq. (15) to (18), as functions of tensors.

Dimension key: B batch, C channels, N points of a layer, S side of the albedo maps in texels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from model.distributed import average

BANDWIDTH = 0.5
"""h of the contextual loss."""
EPSILON = 1e-3
"""Added to the least distance of a point. The published 1e-5 is below what bfloat16 features can tell apart, and its
square divides the gradient: of two equal points float32's rounding would drown all others."""
MOST_POINTS = 64 * 64
"""Points of a layer that the contextual loss compares at most; each with each."""
_CHUNK = 2**24
"""Similarities held at once (twice over): one sample of `MOST_POINTS`, many of fewer."""


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
    total = average(weights.sum())  # of all processes that share a step's batch
    return (255**2 / 3) * ((generated.float() - albedo).square() * weights).sum() / total


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
        Scalar, at least 0. The N x N similarities of one or a few samples are held at a time, and none for the
        gradient.

    References
    ----------
    .. [1] R. Mechrez, I. Talmi, L. Zelnik-Manor, The contextual loss for image transformation with non-aligned data,
       ECCV 2018.
    """
    layers = []
    for ours, theirs, chosen in zip(generated, true, points):
        coarse = ours.dtype != torch.float32  # then tensor cores, of 10 bits in a factor, round no more than was
        ours, theirs = (  # (B, N, C); index_select, as the gradient of indexing sorts the places
            values.flatten(2).mT.index_select(1, chosen).float() for values in (ours, theirs.detach())
        )
        centre = theirs.mean(1, keepdim=True)
        ours, theirs = F.normalize(ours - centre, dim=2), F.normalize(theirs - centre, dim=2)
        samples = max(1, _CHUNK // len(chosen)**2)
        best = torch.cat([
            _BestSimilarity.apply(*pair, coarse) for pair in zip(ours.split(samples), theirs.split(samples))
        ])
        layers.append(-best.logsumexp(1).mean() + math.log(len(chosen)))
    return torch.stack(layers).sum()


class _BestSimilarity(torch.autograd.Function):
    """(B, N) logarithm of max_i CX_ij, from (B, N, C) unit vectors x_i, generated, and y_j, true.

    With the nearest y of each x_i called y(i) and a_i = 1 / (h (1 + eps - x_i . y(i))), CX_ij is the softmax over j of
    a_i x_i . y_j. For a gradient g_j, of which those whose maximum lies at i are summed, the gradient in x_i is
    a_i t_i + h a_i^2 (x_i . t_i) y(i) with t_i = sum_j g_j (y_j - sum_k CX_ik y_k): it needs no N x N matrix.
    """

    @staticmethod
    def forward(ctx, ours: torch.Tensor, theirs: torch.Tensor, coarse: bool = False) -> torch.Tensor:
        with _tensor_cores(coarse):
            similarity = ours @ theirs.mT  # (B, N, N)
        closest, nearest = similarity.max(2, keepdim=True)
        sharpness = 1 / (BANDWIDTH * (1 + EPSILON - closest))
        similarity = similarity.mul_(sharpness).log_softmax(2)
        best, chosen = similarity.max(1)
        with _tensor_cores(coarse):
            mean = similarity.exp_() @ theirs  # (B, N, C)
        ctx.save_for_backward(ours, theirs, sharpness, nearest, chosen, mean)
        return best

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        ours, theirs, sharpness, nearest, chosen, mean = ctx.saved_tensors
        gradient, chosen = gradient[..., None], chosen[..., None]
        pull = torch.zeros_like(ours).scatter_add_(1, chosen.expand_as(ours), gradient * theirs)
        pull -= torch.zeros_like(gradient).scatter_add_(1, chosen, gradient) * mean
        along = theirs.gather(1, nearest.expand_as(ours))
        return sharpness * (pull + BANDWIDTH * sharpness * (ours * pull).sum(2, keepdim=True) * along), None, None


@contextmanager
def _tensor_cores(wanted: bool) -> Iterator[None]:
    """Let float32 products be done by a GPU's tensor cores, in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if wanted else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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
