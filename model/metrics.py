"""How far predicted geometry is from the truth, a sample.

Dimension key: B batch, V vertices.
"""

from __future__ import annotations

import math

import torch

from asmgen.maps import AttributeMaps
from bfm.pose import project, rotation_matrix
from model.data import Batch
from model.geometry import Geometry, denormalise_position


def geometry_errors(
    predicted: Geometry, truth: Batch, maps: AttributeMaps, landmarks: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the errors of a batch.

    Shapes are compared without alignment, in canonical space; both are read from their maps in the same way.

    Parameters
    ----------
    predicted : Geometry
        From the network.
    truth : Batch
        Not augmented, or augmented as the network's input was.
    maps : AttributeMaps
        Of the face model, on the device of both.
    landmarks : torch.Tensor
        (68,) landmark vertices.

    Returns
    -------
    dict[str, torch.Tensor]
        (B,) each: mean vertex distance of the neutral face, the expression's offset and the full face
        (``identity_mm``, ``expression_mm``, ``full_mm``), angle between the rotations (``pose_degrees``), mean
        distance of the projected landmarks in the crop (``landmark_pixels``), and root mean square of the
        albedo coefficients' error in standard deviations (``albedo_stddevs``), if there are any.
    """
    size = truth.image.shape[-1]
    identity, expression = (
        maps.sample(found - true) * maps.scale
        for found, true in (
            (predicted.identity_map, truth.identity_map), (predicted.expression_map, truth.expression_map)
        )
    )
    shape = maps.vertices(predicted.identity_map + predicted.expression_map)[:, landmarks]
    position = denormalise_position(predicted.parameters.position, size)
    projected = project(shape, predicted.parameters.pose, position)[..., :2]
    turned = rotation_matrix(predicted.parameters.pose) - rotation_matrix(truth.parameters.pose)
    half_sine = turned.square().sum((1, 2)).sqrt() / math.sqrt(8)
    errors = {
        "identity_mm": identity.norm(dim=-1).mean(-1),
        "expression_mm": expression.norm(dim=-1).mean(-1),
        "full_mm": (identity + expression).norm(dim=-1).mean(-1),
        "pose_degrees": torch.rad2deg(2 * torch.asin(half_sine.clamp(max=1))),
        "landmark_pixels": (projected - truth.landmarks).norm(dim=-1).mean(-1),
    }
    if truth.parameters.albedo.numel():
        difference = predicted.parameters.albedo - truth.parameters.albedo
        errors["albedo_stddevs"] = difference.square().mean(-1).sqrt()
    return errors


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
