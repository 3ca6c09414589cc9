"""Deferred shading in torch: which triangle covers each pixel, without gradient, then attributes there, with it.

The batched twin of `bfm.rasterize`, for the CPU and the GPU. The gradient is that of the surface under fixed
triangles: it knows how a pixel's place on its triangle moves with the points, not that an outline moves over it.

Dimension key: B batch, V vertices, F triangles, C channels, N covered pixels, H/W pixels.
Points are what `bfm.pose` gives, x right and y down in pixels with centres at whole numbers:

(B, V, 3)  `project`: x, y and depth, larger nearer. Depth and attributes vary linearly over a triangle on the screen.
(B, V, 4)  `project_homogeneous`: x w, y w, depth w and w, the distance from the camera. Attributes vary linearly
           over the triangle in space. The part of a triangle that lies behind the camera, w < 0, is not seen; it need
           not be cut off, as its edge functions are linear in homogeneous coordinates (Olano and Greer, 1997).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

_LARGEST = 1e9
_EPSILON = torch.finfo(torch.float64).eps
_FLAT = 1e-100  # square pixels; below, products underflow
_EMPTY = torch.iinfo(torch.int64).min
_LAST = torch.iinfo(torch.int32).max
_DEPTH_BITS = 30
_ON_CPU, _ON_GPU = 1 << 18, 1 << 22


class Covered(NamedTuple):
    """The pixels that show a triangle.

    Attributes
    ----------
    place : tuple[torch.Tensor, torch.Tensor, torch.Tensor]
        (N,) image, row and column of each.
    corners : torch.Tensor
        (N, 3) int64 vertex indices.
    shape : torch.Size
        B, H, W.
    """

    place: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
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


@torch.no_grad()
def nearest_triangles(points: torch.Tensor, triangles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the nearest triangle at each pixel centre.

    Triangles are closed sets of either winding and any size: a centre on an edge belongs to both neighbours, so a
    mesh has neither holes nor seams. Computed in float64, whatever the dtype of `points`: no centre of a closed
    triangle is missed, and one counted in excess lies within the rounding error of an edge. Triangles without
    area are left out, and so is what lies behind the camera. Every pixel of a triangle's box inside the image is
    tried, some at a time: the time grows with the boxes, the memory only with the input and the output.

    Parameters
    ----------
    points : torch.Tensor
        (B, V, 3) x and y in pixels, which may lie outside the image, and depth, larger nearer; or (B, V, 4)
        homogeneous, w about 1. Depths closer than about ``1e-9`` of an image's greatest depth tie, and the triangle
        with the lowest index wins; for homogeneous points that depth is the greatest ``|depth w|``, and beyond it ties
        are as fine in its inverse.
    triangles : torch.Tensor
        (F, 3) integer vertex indices.
    height : int
        Image height in pixels.
    width : int
        Image width in pixels.

    Returns
    -------
    torch.Tensor
        (B, H, W) int64 triangle indices, -1 where there is none.

    Raises
    ------
    ValueError
        If the shapes are wrong, or a coordinate is not a finite number below 1e9.
    """
    if points.ndim != 3 or points.shape[2] not in (3, 4) or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(
            f"points must have shape (B, V, 3) or (B, V, 4) and triangles (F, 3), got {tuple(points.shape)} and "
            f"{tuple(triangles.shape)}"
        )
    if not (points.abs() < _LARGEST).all():
        raise ValueError("points must be finite numbers below 1e9; check the pose and the shape")
    images_at_once = max(1, _at_once(points.device) // max(1, len(triangles)))
    triangles = triangles.long()
    return torch.cat([_nearest(some, triangles, height, width) for some in points.split(images_at_once)])


def covered_pixels(triangle_ids: torch.Tensor, triangles: torch.Tensor) -> Covered:
    """Return the pixels of (B, H, W) triangle indices that are not -1; `triangles` is (F, 3)."""
    place = (triangle_ids >= 0).nonzero(as_tuple=True)
    return Covered(place, triangles.long().index_select(0, triangle_ids[place]), triangle_ids.shape)


def weights_at(points: torch.Tensor, covered: Covered) -> torch.Tensor:
    """Return where in its triangle each covered pixel's centre lies, with gradient to the points.

    Parameters
    ----------
    points : torch.Tensor
        (B, V, 3), or (B, V, 4) homogeneous: then perspective-correct, linear in space.
    covered : Covered
        What these points cover.

    Returns
    -------
    torch.Tensor
        (N, 3) weights with sum 1 in the dtype of `points`, computed in float64; below 0 by no more than rounding.
    """
    image, row, column = covered.place
    x, y, _, w = _corners(points, covered.corners, image)
    area = _minors(x - column * w, y - row * w)
    return (area / area.sum(0)).T.to(points.dtype)


def front_side(points: torch.Tensor, triangles: torch.Tensor, triangle_ids: torch.Tensor) -> torch.Tensor:
    """Return the triangle indices, -1 where a triangle shows its back: the inner side of an open mesh.

    Parameters
    ----------
    points : torch.Tensor
        (B, V, 3), or (B, V, 4) homogeneous.
    triangles : torch.Tensor
        (F, 3) integer vertex indices, counter-clockwise seen from the front (clockwise in pixels, where y is down).
    triangle_ids : torch.Tensor
        (B, H, W) triangle indices, -1 where there is none, as `nearest_triangles` gives for these points.

    Returns
    -------
    torch.Tensor
        (B, H, W) int64.
    """
    place, corners, _ = covered_pixels(triangle_ids, triangles)
    image, row, column = place
    x, y, _, w = _corners(points, corners, image)
    volume = (_minors(x - column * w, y - row * w) * w).sum(0)  # of the triangle and the camera; its area without w
    return triangle_ids.index_put(place, triangle_ids[place].where(volume < 0, -1))


def values_at(values: torch.Tensor, covered: Covered, weights: torch.Tensor) -> torch.Tensor:
    """Return (N, C) attributes at the covered pixels: (B, V, C) ones, or (V, C), mixed by (N, 3) `weights`."""
    corners = covered.corners
    if values.ndim == 3:
        corners = corners + covered.place[0][:, None] * values.shape[1]
        values = values.flatten(0, 1)
    # index_select: its backward pass adds without sorting
    at_corners = values.index_select(0, corners.flatten()).unflatten(0, (-1, 3))
    return (weights[..., None] * at_corners).sum(1)


def to_images(values: torch.Tensor, covered: Covered) -> torch.Tensor:
    """Return (B, H, W, C) images of (N, C) values at the covered pixels, 0 elsewhere."""
    return values.new_zeros((*covered.shape, values.shape[1])).index_put(covered.place, values)


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
    return to_images(weights_at(points, covered), covered)


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
    return to_images(values_at(values, covered, barycentric[covered.place]), covered)


def _nearest(points, triangles, height, width):
    """(B, H, W) int64 triangle indices, by the largest key (depth, then lower index) of all that cover a pixel."""
    best = points.new_full((len(points) * height * width,), _EMPTY, dtype=torch.int64)
    homogeneous = points.shape[2] == 4
    # depths are compared in whole steps, fine ones, so that rounding does not break ties; |depth| takes 30 bits
    exponent = points[..., 2].double().abs().amax(1).frexp().exponent.clamp(min=-900)
    steps = torch.exp2(_DEPTH_BITS - exponent.double())
    places = points[..., :2]
    if homogeneous:
        points, beside = _divided(points.double())
        places = points[..., :2].masked_fill(beside[..., None], torch.nan)  # in no box
    # the box of each triangle in whole pixels, clipped to the image; most small triangles have none in theirs.
    # Rounding to float32 moves no corner across a pixel's centre
    x, y = (part.float().index_select(1, triangles.T.flatten()).unflatten(1, (3, -1)) for part in places.unbind(2))
    box = torch.stack([
        x.amin(1).clamp(min=0).ceil(), x.amax(1).clamp(max=width - 1).floor(),
        y.amin(1).clamp(min=0).ceil(), y.amax(1).clamp(max=height - 1).floor(),
    ])  # (4, B, F)
    image, triangle = ((box[0] <= box[1]) & (box[2] <= box[3])).nonzero(as_tuple=True)
    box = box.flatten(1).index_select(1, image * len(triangles) + triangle).long()
    _draw_(best, points[..., :3], steps, triangles, image, triangle, box, height, width, homogeneous)
    if homogeneous and beside.any():
        crosses = beside[:, triangles].any(2) & (points[..., 3] > 0)[:, triangles].any(2)
        image, triangle = crosses.nonzero(as_tuple=True)
        box = torch.tensor([0, width - 1, 0, height - 1], device=points.device)[:, None].expand(4, len(image))
        _draw_(best, points, steps, triangles, image, triangle, box, height, width, homogeneous)
    triangle_ids = torch.where(best == _EMPTY, -1, _LAST - (best & 0xFFFFFFFF))
    return triangle_ids.view(len(points), height, width)


def _divided(points):
    """Homogeneous points over w, and (B, V) bool: which cannot be divided, being beside or behind the camera.

    Those stay as they are; any corner may be scaled by a positive number without a change to what is covered.
    """
    w = points[..., 3:]
    beside = w * _LARGEST <= points[..., :3].abs().amax(2, keepdim=True)
    return torch.where(beside, points, points / w), beside[..., 0]


def _draw_(best, points, steps, triangles, image, triangle, box, height, width, homogeneous):
    """Raise `best` to the keys of N triangles at the pixels of their (4, N) boxes that they cover."""
    x, y, z, w = _corners(points, triangles.index_select(0, triangle), image)
    z = z * steps[image]
    first_column, last_column, first_row, last_row = box
    columns, rows = last_column - first_column + 1, last_row - first_row + 1
    # twice the area, opposite each corner, of the triangle with a pixel of its box is e + right * e_x + down * e_y
    x, y = x - first_column * w, y - first_row * w
    e, e_x, e_y = _minors(x, y), _minors(y, w), _minors(w, x)
    area, largest_w = (e * w).sum(0), w.abs().amax(0)
    rounding = 8 * _EPSILON * (x.abs().amax(0) + columns * largest_w) * (y.abs().amax(0) + rows * largest_w)
    has_area = area.abs() > (4 * rounding * largest_w).clamp(min=_FLAT)  # so that its sign and w's are certain
    sign = area.sign()
    sides = torch.stack([sign * e + rounding, sign * e_x, sign * e_y], 1)  # (3, 3, N)
    corner, tie = (image * height + first_row) * width + first_column, _LAST - triangle

    # every (triangle, pixel of its box) pair, some at a time to bound the memory
    ends = (columns * rows * has_area).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends])[:-1]
    pairs, at_once = int(ends[-1]) if len(ends) else 0, _at_once(points.device)
    for begin in range(0, pairs, at_once):
        end = min(begin + at_once, pairs)
        counts = (ends.clamp(max=end) - starts.clamp(min=begin)).clamp(min=0)
        of = torch.repeat_interleave(counts, output_size=end - begin)
        step = torch.arange(begin, end, device=points.device) - starts.index_select(0, of)
        in_row = columns.index_select(0, of)
        down = step // in_row
        right = step - down * in_row
        weights = [e + right * e_x + down * e_y for e, e_x, e_y in (_take(side, of) for side in sides)]
        covered = ((weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0)).nonzero().squeeze(1)
        weights, (of, down, right) = _take(weights, covered), _take((of, down, right), covered)
        depth, over = (
            sum(weight * value for weight, value in zip(weights, _take(values, of))) for values in (z, w)
        )
        if homogeneous:
            over = over + depth.abs() * 2**-_DEPTH_BITS
        level = (depth / over).round().long()
        pixel = corner.index_select(0, of) + down * width + right
        best.scatter_reduce_(0, pixel, (level << 32) | tie.index_select(0, of), "amax")


def _corners(points, corners, image):
    """x, y, depth and w, (3, N) float64, of (N, 3) `corners` in (N,) images; w is 1 where the points have none."""
    at = (corners + image[:, None] * points.shape[1]).T.flatten()
    x, y, depth, *w = points.flatten(0, 1).index_select(0, at).double().T.unflatten(1, (3, -1))
    return x, y, depth, w[0] if w else torch.ones_like(x)


def _minors(x, y):
    """(3, N) ``x_i y_j - x_j y_i``, where i and j are the corners after each."""
    return torch.stack([x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]])


def _take(rows, index):
    """Each of the (N,) rows at an index; one at a time is three times as fast on the CPU as all together."""
    return [row.index_select(0, index) for row in rows]


def _at_once(device):
    """How many triangles of whole images, or pixels of boxes, to have in memory; a GPU wants few and long kernels."""
    return _ON_CPU if device.type == "cpu" else _ON_GPU
