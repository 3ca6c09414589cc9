"""Deferred shading in torch: which triangle covers each pixel, without gradient, then attributes there, with it.

The gradient is that of the surface under fixed triangles: it knows how a pixel's place on its triangle moves with the
points, not that an outline moves over it. Attributes vary linearly over a triangle on the screen where the points are
(B, V, 3), and linearly over the triangle in space where they are (B, V, 4), homogeneous; see `nearest_triangles`.

Dimension key: B batch, V vertices, F triangles, C channels, N covered pixels, H/W pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from model.nearest_triangles import minors, nearest_triangles


class Covered(NamedTuple):
    """The N pixels that show a triangle.

    Attributes
    ----------
    pixels : torch.Tensor
        (N,) their places in the flattened (B, H, W) images, ascending.
    images : torch.Tensor
        (N,) the image of each.
    corners : torch.Tensor
        (3, N) int64 vertex indices.
    shape : torch.Size
        B, H, W.
    """

    pixels: torch.Tensor
    images: torch.Tensor
    corners: torch.Tensor
    shape: torch.Size


def rasterize(
    points: torch.Tensor, triangles: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest triangle at each pixel centre, and where in the triangle the centre lies, without gradient.

    Parameters
    ----------
    points : torch.Tensor
        (B, V, 3), or (B, V, 4) homogeneous; see `nearest_triangles`.
    triangles : torch.Tensor
        (F, 3) integer vertex indices.
    height : int
        Image height in pixels.
    width : int
        Image width in pixels.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        (B, H, W) int64 triangle indices, -1 where there is none, and (B, H, W, 3) barycentric weights of its
        corners in the dtype of `points`, non-negative with sum 1 (all 0 where there is no triangle).
    """
    triangle_ids = nearest_triangles(points, triangles, height, width)
    with torch.no_grad():
        weights = barycentric_weights(points, triangles, triangle_ids).clamp(min=0)
        # the sum is 0 or, but for rounding, 1
        return triangle_ids, weights / weights.sum(-1, keepdim=True).clamp(min=0.5)


def covered_pixels(triangle_ids: torch.Tensor, triangles: torch.Tensor) -> Covered:
    """Return the pixels of (B, H, W) triangle indices that are not -1; `triangles` is (F, 3)."""
    shape, triangle_ids = triangle_ids.shape, triangle_ids.flatten()
    pixels = (triangle_ids >= 0).nonzero().squeeze(1)
    corners = triangles.long().T.contiguous().index_select(1, triangle_ids.index_select(0, pixels))
    return Covered(pixels, pixels.div(shape[1] * shape[2], rounding_mode="floor"), corners, shape)


def weights_at(points: torch.Tensor, covered: Covered) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where in its triangle each covered pixel's centre lies, with gradient to the points, and the side it sees.

    Parameters
    ----------
    points : torch.Tensor
        (B, V, 3), or (B, V, 4) homogeneous: then perspective-correct, linear in space.
    covered : Covered
        What these points cover.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        (3, N) weights of the corners with sum 1 in the dtype of `points`, computed in float64, below 0 by no more
        than rounding; and (N,) bool: whether the pixel shows the triangle's front, from where its corners run
        counter-clockwise (clockwise in pixels, where y is down).
    """
    height, width = covered.shape[1:]
    column, row = covered.pixels % width, covered.pixels.div(width, rounding_mode="floor") % height
    x, y, _, *w = at_corners(points, covered).double().unbind(2)
    if w:
        area = minors(x - column * w[0], y - row * w[0])
        volume = (area.detach() * w[0].detach()).sum(0)  # of the triangle and the camera
        return (area / area.sum(0)).to(points.dtype), volume < 0
    area = minors(x - column, y - row)
    whole = area.sum(0)
    return (area / whole).to(points.dtype), whole < 0


def at_corners(values: torch.Tensor, covered: Covered) -> torch.Tensor:
    """Return (3, N, C) attributes at the corners of what covered pixels show: of (B, V, C) ones, or (V, C)."""
    corners = covered.corners
    if values.ndim == 3:
        corners = corners + covered.images * values.shape[1]
        values = values.flatten(0, 1)
    # index_select: its backward pass adds without sorting
    return values.index_select(0, corners.flatten()).unflatten(0, (3, -1))


def values_at(values: torch.Tensor, covered: Covered, weights: torch.Tensor) -> torch.Tensor:
    """Return (N, C) attributes at the covered pixels: (B, V, C) ones, or (V, C), mixed by (3, N) `weights`."""
    return (weights[..., None] * at_corners(values, covered)).sum(0)


def to_images(values: torch.Tensor, covered: Covered) -> torch.Tensor:
    """Return (B, H, W, C) images of (N, C) values at the covered pixels, 0 elsewhere."""
    images = values.new_zeros((math.prod(covered.shape), values.shape[1]))
    return images.index_copy(0, covered.pixels, values).unflatten(0, covered.shape)


def barycentric_weights(points: torch.Tensor, triangles: torch.Tensor, triangle_ids: torch.Tensor) -> torch.Tensor:
    """Return `weights_at` as images.

    Parameters
    ----------
    points : torch.Tensor
        (B, V, 3), or (B, V, 4) homogeneous.
    triangles : torch.Tensor
        (F, 3) integer vertex indices.
    triangle_ids : torch.Tensor
        (B, H, W) triangle indices, -1 where there is none, as `rasterize` gives for these points.

    Returns
    -------
    torch.Tensor
        (B, H, W, 3) weights with sum 1, with gradient to the points; 0 where there is no triangle.
    """
    covered = covered_pixels(triangle_ids, triangles)
    return to_images(weights_at(points, covered)[0].T, covered)


def interpolate(
    values: torch.Tensor, triangles: torch.Tensor, triangle_ids: torch.Tensor, barycentric: torch.Tensor
) -> torch.Tensor:
    """Return vertex attributes at the pixels, with gradient to the attributes and to the weights.

    Parameters
    ----------
    values : torch.Tensor
        (B, V, C) attributes of the vertices, or (V, C) where all images share them.
    triangles : torch.Tensor
        (F, 3) integer vertex indices.
    triangle_ids : torch.Tensor
        (B, H, W) triangle indices, -1 where there is none.
    barycentric : torch.Tensor
        (B, H, W, 3) weights: those of `barycentric_weights` lead the gradient on to the points, those of `rasterize`
        end it.

    Returns
    -------
    torch.Tensor
        (B, H, W, C); 0 where there is no triangle.
    """
    covered = covered_pixels(triangle_ids, triangles)
    weights = barycentric.flatten(0, 2).index_select(0, covered.pixels).T
    return to_images(values_at(values, covered, weights), covered)
