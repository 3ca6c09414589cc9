"""Deferred shading in torch: which triangle covers each pixel, without gradient, then attributes there, with it.

The batched twin of `bfm.rasterize`, for the CPU and the GPU. The gradient is that of the surface under fixed
triangles: it knows how a pixel's place on its triangle moves with the points, not that an outline moves over it.

Dimension key: B batch, V vertices, F triangles, C channels, H/W pixels.
Points are what `bfm.pose.project` gives: x right and y down in pixels with centres at whole numbers, and depth,
larger nearer. Depth and attributes vary linearly over a triangle on the screen, as under a (scaled) orthographic
camera. Under perspective the inverse of the distance does so: it is the depth to give, and the weights of attributes
are each corner's weight times its inverse distance, divided by their sum; triangles that reach behind the camera are
to be cut before they are projected.
"""

from __future__ import annotations

import torch

_LARGEST = 1e9
_FLAT = 1e-100  # square pixels; below, products underflow
_EPSILON = torch.finfo(torch.float64).eps
_EMPTY = torch.iinfo(torch.int64).min
_LAST = torch.iinfo(torch.int32).max
_TRIANGLES_AT_ONCE = 1 << 18  # whole images of them
_PIXELS_AT_ONCE = 1 << 18


@torch.no_grad()
def rasterize(
    points: torch.Tensor, triangles: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest triangle at each pixel centre, and where in the triangle the centre lies, without gradient.

    Triangles are closed sets of either winding and any size: a centre on an edge belongs to both neighbours, so a
    mesh has neither holes nor seams. Computed in float64, whatever the dtype of `points`: no centre of a closed
    triangle is missed, and one counted in excess lies within the rounding error of an edge. Triangles without
    area are left out. Every pixel of a triangle's box inside the image is tried, some at a time: the time grows with
    the boxes, the memory only with the input and the output.

    Parameters
    ----------
    points : torch.Tensor
        (B, V, 3) x and y in pixels, which may lie outside the image, and depth, larger nearer. Depths closer than
        about ``1e-9`` of an image's greatest depth tie, and the triangle with the lowest index wins.
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

    Raises
    ------
    ValueError
        If the shapes are wrong, or a coordinate is not a finite number below 1e9.
    """
    if points.ndim != 3 or points.shape[2] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(
            f"points must have shape (B, V, 3) and triangles (F, 3), got {tuple(points.shape)} and "
            f"{tuple(triangles.shape)}"
        )
    if not (points.abs() < _LARGEST).all():
        raise ValueError("points must be finite numbers below 1e9; check the pose and the shape")
    triangles = triangles.long()
    images_at_once = max(1, _TRIANGLES_AT_ONCE // max(1, len(triangles)))
    triangle_ids = torch.cat([_nearest(some, triangles, height, width) for some in points.split(images_at_once)])
    weights = barycentric_weights(points, triangles, triangle_ids).clamp(min=0)
    # the sum is 0 or, but for rounding, 1
    return triangle_ids, weights / weights.sum(-1, keepdim=True).clamp(min=0.5)


def barycentric_weights(points: torch.Tensor, triangles: torch.Tensor, triangle_ids: torch.Tensor) -> torch.Tensor:
    """Return where in its triangle each pixel centre lies, with gradient to the points' x and y.

    Parameters
    ----------
    points : torch.Tensor
        (B, V, 3) or (B, V, 2) x and y in pixels.
    triangles : torch.Tensor
        (F, 3) integer vertex indices.
    triangle_ids : torch.Tensor
        (B, H, W) triangle indices, -1 where there is none, as `rasterize` gives for these points.

    Returns
    -------
    torch.Tensor
        (B, H, W, 3) weights with sum 1 in the dtype of `points`, computed in float64; 0 where there is no triangle.
        They are affine in the pixel's place, below 0 by no more than rounding.
    """
    place = (triangle_ids >= 0).nonzero(as_tuple=True)
    image, row, column = place
    corners = triangles.long()[triangle_ids[place]] + image[:, None] * points.shape[1]
    x, y = points[..., :2].flatten(0, 1).index_select(0, corners.T.flatten()).double().T.unflatten(1, (3, -1))
    ahead, behind = _products(x - column, y - row)
    area = ahead - behind
    weights = (area / area.sum(0)).T.to(points.dtype)
    return weights.new_zeros((*triangle_ids.shape, 3)).index_put(place, weights)


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
    place = (triangle_ids >= 0).nonzero(as_tuple=True)
    corners = triangles.long()[triangle_ids[place]]
    if values.ndim == 3:
        corners = corners + place[0][:, None] * values.shape[1]
        values = values.flatten(0, 1)
    # index_select: its backward pass adds without sorting
    at_corners = values.index_select(0, corners.flatten()).unflatten(0, (-1, 3))
    mixed = (barycentric[place][..., None] * at_corners).sum(1)
    return mixed.new_zeros((*triangle_ids.shape, values.shape[-1])).index_put(place, mixed)


def _nearest(points, triangles, height, width):
    """(B, H, W) int64 triangle indices, by the largest key (depth, then lower index) of all that cover a pixel."""
    best = points.new_full((len(points) * height * width,), _EMPTY, dtype=torch.int64)
    # index_select is three times as fast as an index in brackets on the CPU
    corners = triangles.T.flatten()
    x, y, depth = points.permute(2, 0, 1).contiguous().index_select(2, corners).unflatten(2, (3, -1))  # (B, 3, F)
    # the box of each triangle in whole pixels, clipped to the image; most small triangles have none in theirs
    box = torch.stack([
        x.amin(1).clamp(min=0).ceil(), x.amax(1).clamp(max=width - 1).floor(),
        y.amin(1).clamp(min=0).ceil(), y.amax(1).clamp(max=height - 1).floor(),
    ])
    image, triangle = ((box[0] <= box[1]) & (box[2] <= box[3])).nonzero(as_tuple=True)
    first_column, last_column, first_row, last_row = box[:, image, triangle].long()
    x, y, z = (values[image, :, triangle].T.double() for values in (x, y, depth))  # (3, N)
    sides_x, sides_y = x[[1, 2]] - x[0], y[[1, 2]] - y[0]
    area = sides_x[0] * sides_y[1] - sides_x[1] * sides_y[0]
    square = (x.amax(0) - x.amin(0)) * (y.amax(0) - y.amin(0))
    has_area = area.abs() > (16 * _EPSILON * square).clamp(min=_FLAT)
    # depths are compared in whole steps, fine ones, so that rounding does not break ties; |depth| takes 30 bits
    exponent = points[..., 2].double().abs().amax(1).frexp().exponent.clamp(min=-900)
    z = z * torch.exp2(30 - exponent.double())[image]

    # every (triangle, pixel of its box) pair, some at a time to bound the memory
    columns = last_column - first_column + 1
    ends = (columns * (last_row - first_row + 1) * has_area).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends])[:-1]
    pairs = int(ends[-1]) if len(ends) else 0
    for begin in range(0, pairs, _PIXELS_AT_ONCE):
        end = min(begin + _PIXELS_AT_ONCE, pairs)
        counts = (ends.clamp(max=end) - starts.clamp(min=begin)).clamp(min=0)
        of = torch.repeat_interleave(counts, output_size=end - begin)
        step = torch.arange(begin, end, device=points.device) - starts[of]
        down = step // columns[of]
        row, column = first_row[of] + down, first_column[of] + step - down * columns[of]
        ahead, behind = _products(x.index_select(1, of) - column, y.index_select(1, of) - row)
        inside = (ahead - behind) * area.sign()[of]
        covered = (inside >= -4 * _EPSILON * (ahead.abs() + behind.abs())).all(0).nonzero().squeeze(1)
        weights, of = inside.index_select(1, covered).clamp(min=0), of[covered]
        level = ((weights * z.index_select(1, of)).sum(0) / weights.sum(0)).round().long()
        pixel = (image[of] * height + row[covered]) * width + column[covered]
        best.scatter_reduce_(0, pixel, (level << 32) | (_LAST - triangle[of]), "amax")
    triangle_ids = torch.where(best == _EMPTY, -1, _LAST - (best & 0xFFFFFFFF))
    return triangle_ids.view(len(points), height, width)


def _products(x, y):
    """The two products whose difference is twice the signed area opposite each corner; (3, N) relative to a pixel."""
    x, y = x.unbind(), y.unbind()
    return (
        torch.stack([x[1] * y[2], x[2] * y[0], x[0] * y[1]]), torch.stack([x[2] * y[1], x[0] * y[2], x[1] * y[0]])
    )
