"""How far what is predicted is from the truth, a sample.

Dimension key: B batch, V vertices.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from asmgen.maps import AttributeMaps
from bfm.pose import project, rotation_matrix
from model.batches import GeometryBatch, TextureBatch
from model.geometry import Geometry, denormalise_position


def geometry_errors(
    predicted: Geometry, truth: GeometryBatch, maps: AttributeMaps, landmarks: torch.Tensor,
    camera_distance: float = math.inf, decoupled: bool = True,
) -> dict[str, torch.Tensor]:
    """Return the errors of a batch.

    Shapes are compared without alignment, in canonical space; both are read from their maps in the same way.

    Parameters
    ----------
    predicted : Geometry
        From the network.
    truth : GeometryBatch
        Not augmented, or augmented as the network's input was.
    maps : AttributeMaps
        Of the face model, on the device of both.
    landmarks : torch.Tensor
        (68,) landmark vertices.
    camera_distance : float
        Of the camera that the predicted placement is for, mm; infinite for scaled orthographic projection.
    decoupled : bool
        Whether the two predicted maps are identity and expression; if not, only their sum is compared.

    Returns
    -------
    dict[str, torch.Tensor]
        (B,) each: mean vertex distance of the neutral face and the expression's offset, if they are decoupled, and of
        the full face (``identity_mm``, ``expression_mm``, ``full_mm``), angle between the rotations
        (``pose_degrees``), mean distance of the projected landmarks in the crop (``landmark_pixels``), and root mean
        square of the albedo coefficients' error in standard deviations (``albedo_stddevs``), if there are any.
    """
    size = truth.image.shape[-1]
    identity: Any
    expression: Any
    identity, expression = (
        maps.sample(found - true) * maps.scale
        for found, true in (
            (predicted.identity_map, truth.identity_map), (predicted.expression_map, truth.expression_map)
        )
    )
    shape = maps.vertices(predicted.identity_map + predicted.expression_map)[:, landmarks]
    position = denormalise_position(predicted.parameters.position, size)
    projected: Any = project(shape, predicted.parameters.pose, position, camera_distance)[..., :2]
    errors = {
        "identity_mm": identity.norm(dim=-1).mean(-1),
        "expression_mm": expression.norm(dim=-1).mean(-1),
    } if decoupled else {}
    errors |= {
        "full_mm": (identity + expression).norm(dim=-1).mean(-1),
        "pose_degrees": pose_distance(predicted.parameters.pose, truth.parameters.pose),
        "landmark_pixels": (projected - truth.landmarks).norm(dim=-1).mean(-1),
    }
    if truth.parameters.albedo.numel():
        difference = predicted.parameters.albedo - truth.parameters.albedo
        errors["albedo_stddevs"] = difference.square().mean(-1).sqrt()
    return errors


def pose_distance(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the angle, (B,) degrees, of the rotation between (B, 3) poses, radians; exact for small ones too."""
    turned = rotation_matrix(predicted) - rotation_matrix(truth)
    half_sine = turned.square().sum((1, 2)).sqrt() / math.sqrt(8)
    return torch.rad2deg(2 * torch.asin(half_sine.clamp(max=1)))


def landmark_errors(predicted: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return how far landmarks are from where they should be.

    Parameters
    ----------
    predicted : torch.Tensor
        (B, 68, 2) or (B, 68, 3) x, y (z), any unit.
    truth : torch.Tensor
        Of the same shape and unit; crop pixels for the names to hold.

    Returns
    -------
    dict[str, torch.Tensor]
        (B,) each: mean distance (``landmark_pixels``), and the normalised mean error (NME), that distance in percent
        of sqrt(width x height) of the box about the true landmarks (``landmark_percent``).
    """
    pixels = (predicted - truth).norm(dim=-1).mean(-1)
    side = (truth.amax(1) - truth.amin(1))[:, :2].prod(-1).sqrt()
    return {"landmark_pixels": pixels, "landmark_percent": 100 * pixels / side}


def texture_errors(generated: torch.Tensor, truth: TextureBatch) -> dict[str, torch.Tensor]:
    """Return how far generated albedo maps are from the photographed ones, where the photo shows the face.

    Parameters
    ----------
    generated : torch.Tensor
        (B, 3, S, S) RGB in [0, 1], 0 outside the chart.
    truth : TextureBatch
        What they were generated from, and the truth.

    Returns
    -------
    dict[str, torch.Tensor]
        (B,) each, means over visible texels: absolute error, RGB in [0, 1], of the generated map (``albedo_mae``)
        and, to compare with, of I_u (``linear_mae``); and structural similarity of both (``albedo_ssim``,
        ``linear_ssim``, see `ssim_map`).
    """
    count = truth.visible.sum((1, 2, 3)).clamp(min=1)

    def visible_mean(values: torch.Tensor) -> torch.Tensor:
        return (values.mean(1, keepdim=True) * truth.visible).sum((1, 2, 3)) / count

    return {
        "albedo_mae": visible_mean((generated - truth.albedo).abs()),
        "linear_mae": visible_mean((truth.linear_albedo - truth.albedo).abs()),
        "albedo_ssim": visible_mean(ssim_map(generated, truth.albedo)),
        "linear_ssim": visible_mean(ssim_map(truth.linear_albedo, truth.albedo)),
    }


def ssim_map(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity of two images about each pixel [1]_.

    Parameters
    ----------
    a : torch.Tensor
        (B, C, H, W) in [0, 1]; taken as 0 beyond its border.
    b : torch.Tensor
        Likewise.

    Returns
    -------
    torch.Tensor
        (B, C, H, W) float64, 1 where they agree; statistics are Gaussian, 11 pixels wide, of deviation 1.5.

    References
    ----------
    .. [1] Z. Wang et al., Image quality assessment: from error visibility to structural similarity, 2004, Eq. (13).
    """
    a, b = a.double(), b.double()  # the variances are small differences, which TF32 convolutions would lose
    offset = torch.arange(-5, 6, dtype=a.dtype, device=a.device)
    kernel = torch.exp(-offset.square() / (2 * 1.5**2))
    kernel = kernel / kernel.sum()

    def blurred(values: torch.Tensor) -> torch.Tensor:
        single = values.flatten(0, 1)[:, None]
        single = F.conv2d(single, kernel.view(1, 1, -1, 1), padding=(5, 0))
        return F.conv2d(single, kernel.view(1, 1, 1, -1), padding=(0, 5)).view(values.shape)

    mean_a, mean_b, c1, c2 = blurred(a), blurred(b), 0.01**2, 0.03**2
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    return (
        (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    )
