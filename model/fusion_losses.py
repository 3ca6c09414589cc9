"""Losses of the fusion module, Eq. (20) to (22), as functions of tensors, and the error that photos are compared by.

Dimension key: B batch, N points, C features, S side of the image in pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.distributed import average

PAPER_SIZE = 256
"""Side of the paper's images, pixels, in which Eq. (22) counts."""


def pixel_loss(rendered: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the occlusion-aware pixel loss of Eq. (20): absolute differences within the mask, over the whole image.

    Departs from Eq. (20): colours count in 8-bit levels and by the mean of their channels, as in Eq. (15) of
    `model.texture_losses`, because in [0, 1] the paper's weight of 0.1 would leave nothing of the term.

    Parameters
    ----------
    rendered : torch.Tensor
        (B, 3, S, S) I_R, RGB of [0, 1], not clipped: what is too bright has a gradient.
    image : torch.Tensor
        (B, 3, S, S) I_o, RGB in [0, 1].
    mask : torch.Tensor
        (B, 1, S, S) bool, M: pixels of the face that nothing hides.

    Returns
    -------
    torch.Tensor
        Scalar, 8-bit levels.
    """
    return 255 * ((rendered.float() - image).abs() * mask).mean()


def identity_loss(rendered: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return the identity-preserving loss of Eq. (21): 1 less the cosine between features, averaged over the batch.

    Parameters
    ----------
    rendered : torch.Tensor
        (B, C) F_id(I_R).
    image : torch.Tensor
        (B, C) F_id(I_o).

    Returns
    -------
    torch.Tensor
        Scalar from 0 to 2.
    """
    return 1 - F.cosine_similarity(rendered.float(), image.float(), dim=1).mean()


def alignment_loss(rendered: torch.Tensor, image: torch.Tensor, size: int) -> torch.Tensor:
    """Return the alignment loss of Eq. (22): the mean distance of landmarks, in pixels of the paper's 256 x 256 images.

    Parameters
    ----------
    rendered : torch.Tensor
        (B, 68, 2) H(I_R), pixels.
    image : torch.Tensor
        (B, 68, 2) H(I_o), pixels.
    size : int
        S, pixels.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    return (rendered - image).norm(dim=-1).mean() * (PAPER_SIZE / size)


def keep_loss(points: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return the mean squared distance, mm^2, of (B, N, 3) points of faces from where the network began, (B, N, 3).

    Not in the paper: photos say little about depth, and without it the pixel loss trades shape for shading.
    """
    return (points - start).square().sum(-1).mean()


def compose(rendered: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the photo with the rendered face in it: I_R, clipped to [0, 1], within the mask and I_o elsewhere."""
    return torch.where(mask, rendered.clamp(0, 1), image)


def photometric_error(rendered: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return how far pictures of faces are from their photos, a photo.

    Parameters
    ----------
    rendered : torch.Tensor
        (B, 3, S, S) I_R; clipped to [0, 1].
    image : torch.Tensor
        (B, 3, S, S) I_o, RGB in [0, 1].
    mask : torch.Tensor
        (B, 1, S, S) bool, pixels to compare.

    Returns
    -------
    torch.Tensor
        (B,) mean absolute difference in [0, 1] over these pixels and their channels; NaN where there are none, as a
        face that is not in the picture is not a perfect one.
    """
    difference = (rendered.clamp(0, 1) - image).abs().mean(1, keepdim=True) * mask
    return difference.sum((1, 2, 3)) / mask.sum((1, 2, 3))


def spread(points: torch.Tensor) -> torch.Tensor:
    """Return by how much the faces of a batch differ: the RMS distance, mm, of (B, N, 3) points from their mean."""
    middle = average(points.mean(0))  # of all processes that share a step's batch
    return average((points - middle).square().sum(-1).mean()).sqrt()
