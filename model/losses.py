"""Losses of the geometry stream, Eq. (4) to (8), as functions of tensors.

The paper sums over texels; here every loss is a mean over texels or vertices, so that its value does not depend
on the resolution. Dimension key: B batch, V vertices, S side of the map in texels.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch

from asmgen.maps import AttributeMaps
from bfm.morphable_model import REGIONS, MorphableModel
from model.geometry import Parameters
from model.sparse_operator import SparseOperator

LANDMARK_WEIGHT = 16.0
REGION_WEIGHTS = {"outside": 0.0, "face": 3.0, "eyes": 4.0, "nose": 4.0, "mouth": 4.0}
"""W of Eq. (5), as in PRNet: landmarks 16, eyes, nose and mouth 4, rest of the face 3, outside 0."""


def parameter_loss(
    predicted: Parameters, truth: Parameters, mode_weights: torch.Tensor, tau: float
) -> torch.Tensor:
    """Return the parametric loss of Eq. (4).

    Departs from Eq. (4): each group (albedo, light, pose, position) enters by its mean square, not by its sum,
    because 199 albedo coefficients of unit variance, most of which no photo shows, would drown the three angles;
    and the mean over the albedo coefficients is weighted by the colour that each one moves (`albedo_weights`). With
    equal weights the tone of the skin, one mode in 199 and 88 % of the open model's variance, was not learned:
    after 500 steps it correlated with the truth by 0.14 on training samples, by 0.90 with these weights.

    Parameters
    ----------
    predicted : Parameters
        From the network.
    truth : Parameters
        Position normalised.
    mode_weights : torch.Tensor
        (K,) from `albedo_weights`; they sum to 1.
    tau : float
        Weight of the mean square of the albedo coefficients.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    groups = [(p - t).square().mean() for p, t in zip(predicted[1:], truth[1:])]
    if predicted.albedo.numel():
        groups.append(((predicted.albedo - truth.albedo).square() * mode_weights).sum(1).mean())
        groups.append(tau * predicted.albedo.square().mean())
    return sum(groups)


def asm_loss(
    identity_map: torch.Tensor, expression_map: torch.Tensor,
    true_identity: torch.Tensor, true_expression: torch.Tensor, weights: torch.Tensor,
    expression_weights: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Return the ASM loss of Eq. (5): squared distances, those of the identity weighted, averaged over texels.

    Parameters
    ----------
    identity_map : torch.Tensor
        (B, 3, S, S) predicted.
    expression_map : torch.Tensor
        (B, 3, S, S) predicted.
    true_identity : torch.Tensor
        (B, 3, S, S).
    true_expression : torch.Tensor
        (B, 3, S, S).
    weights : torch.Tensor
        (S, S) facial weight mask W, from `identity_weights`.
    expression_weights : torch.Tensor | float
        (S, S) weights of the expression's distances; Eq. (5) has none.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    identity = ((identity_map - true_identity).square().sum(1) * weights).mean()
    return identity + ((expression_map - true_expression).square().sum(1) * expression_weights).mean()


def symmetry_loss(identity_map: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the symmetry loss of Eq. (6): the L1 distance of A_id from its mirror image, averaged over the face.

    Departs from Eq. (6): mirroring a face also negates x; the literal formula would pull every x to 0.

    Parameters
    ----------
    identity_map : torch.Tensor
        (B, 3, S, S).
    mask : torch.Tensor
        (S, S) bool, texels of the chart; itself mirror-symmetric.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    distance = (identity_map - mirror_map(identity_map)).abs().sum(1)
    return (distance * mask).sum() / (len(identity_map) * mask.sum())


def smoothness_loss(full_map: torch.Tensor, laplacian: SparseOperator) -> torch.Tensor:
    """Return the regularisation of Eq. (7): mean squared distance, mm^2, of a vertex from its neighbours' mean.

    Parameters
    ----------
    full_map : torch.Tensor
        (B, 3, S, S) I_g = A_id + A_exp.
    laplacian : SparseOperator
        (V, S * S), from `map_laplacian`.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    columns = full_map.flatten(2).flatten(0, 1).T  # (S * S, 3 B)
    return (laplacian @ columns).square().sum() / (len(laplacian.matrix) * len(full_map))


def mirror_map(maps: torch.Tensor) -> torch.Tensor:
    """Return (..., 3, S, S) attribute maps of the mirrored face: columns reversed and x negated."""
    mirrored = maps.flip(-1)
    return torch.cat([-mirrored[..., :1, :, :], mirrored[..., 1:, :, :]], -3)  # signs in a list wait for the GPU


def albedo_weights(model: MorphableModel) -> np.ndarray:
    """Return (K,) float32: the share of each albedo mode in the variance of the model's colours; they sum to 1."""
    energy = np.einsum("kvc,kvc->k", model.albedo_basis, model.albedo_basis, dtype=np.float64)
    return (energy / energy.sum()).astype(np.float32) if len(energy) else energy.astype(np.float32)


def identity_weights(model: MorphableModel, maps: AttributeMaps) -> np.ndarray:
    """Return the facial weight mask W of Eq. (5).

    Parameters
    ----------
    model : MorphableModel
        Gives the regions and landmarks; the model of `maps`.
    maps : AttributeMaps
        Numpy, not yet on a device.

    Returns
    -------
    np.ndarray
        (S, S) float32; a texel has the region of its nearest triangle corner, and the up to four texels
        from which a landmark is read have the landmarks' weight.
    """
    chart = maps.chart
    corner = chart.texel_barycentric.argmax(-1)
    triangles = chart.triangles[np.maximum(chart.texel_triangles, 0)]
    vertices = np.take_along_axis(triangles, corner[..., None], -1)[..., 0]
    by_region = np.array([REGION_WEIGHTS[name] for name in REGIONS], np.float32)
    weights = np.where(chart.mask, by_region[model.regions[vertices]], 0).astype(np.float32)
    touched = maps.vertex_weights[model.landmarks] > 0
    weights.reshape(-1)[maps.vertex_texels[model.landmarks][touched]] = LANDMARK_WEIGHT
    return weights


def equal_weights(weights: np.ndarray) -> np.ndarray:
    """Return the weights of Eq. (5) without W: one weight all over the face, 0 outside.

    It is W's mean over the face, so that the loss without W (Table III) spreads the same weight in another way, and
    does not also weigh the identity map otherwise against the expression map and the parameters.

    Parameters
    ----------
    weights : np.ndarray
        (S, S) W, from `identity_weights`.

    Returns
    -------
    np.ndarray
        (S, S) of the same mean.
    """
    face = weights > 0
    return np.where(face, weights[face].mean(dtype=np.float64), 0).astype(weights.dtype)


def map_laplacian(model: MorphableModel, maps: AttributeMaps) -> SparseOperator:
    """Return the operator of Eq. (7): from the texels of one channel to each vertex minus its neighbours' mean.

    Departs from Eq. (7): it is taken in millimetres, not in map units, where the paper's weight of 1e-3 would
    leave nothing of it.

    Parameters
    ----------
    model : MorphableModel
        Gives the triangles; the model of `maps`.
    maps : AttributeMaps
        Numpy, not yet on a device.

    Returns
    -------
    SparseOperator
        (V, S * S) float32, mm a map unit.
    """
    count = len(model.mean_shape)
    a, b, c = model.triangles.T
    ends = np.concatenate([[a, b], [b, c], [c, a], [b, a], [c, b], [a, c]], 1)
    adjacency = scipy.sparse.csr_array((np.ones(ends.shape[1]), ends), (count, count))
    adjacency.data[:] = 1  # an edge shared by two triangles was counted twice
    degree = np.diff(adjacency.indptr)
    # a vertex without neighbours has no term
    ring_mean = scipy.sparse.diags_array(1 / np.maximum(degree, 1)) @ adjacency
    laplacian = scipy.sparse.diags_array((degree > 0) * 1.0) - ring_mean
    return SparseOperator.of((laplacian @ maps.chart.to_vertices.astype(np.float64) * maps.scale).astype(np.float32))
