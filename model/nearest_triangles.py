"""Which triangle covers each pixel, in torch, without gradient: the batched twin of `bfm.rasterize` for CPU and GPU.

Every triangle has a box of whole pixels; those whose box holds a pixel centre, about half of a face at its own size,
get the weights of two of their corners as linear functions over the box; each pixel of each box is tried, and the
largest key, depth before index, wins by an atomic maximum. Boxes are in the points' own precision, the rest in float64;
the host waits for the device four times, for homogeneous points five.

Dimension key: B batch, V vertices, F triangles, N triangles to draw, P pixels of their boxes, H/W pixels.
Points are what `bfm.pose` gives, x right and y down in pixels with centres at whole numbers:

(B, V, 3)  `project`: x, y and depth, larger nearer. Depth varies linearly over a triangle on the screen.
(B, V, 4)  `project_homogeneous`: x w, y w, depth w and w, the distance from the camera. The part of a triangle that
           lies behind the camera, w < 0, is not seen; it need not be cut off, as its edge functions are linear in
           homogeneous coordinates (Olano and Greer, 1997).
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

_LARGEST = 1e9
_EPSILON = torch.finfo(torch.float64).eps
_ROUNDING = 24 * _EPSILON
_FLAT = 1e-100  # square pixels; below, products underflow
_LAST = torch.iinfo(torch.int32).max
_EMPTY = torch.iinfo(torch.int64).min + _LAST + 1  # of no triangle: -1
_DEPTH_BITS = 30
_ON_CPU, _ON_GPU = 1 << 16, 1 << 22


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
    triangles = triangles.long().T.contiguous()
    return torch.cat([_nearest(some, triangles, height, width) for some in points.split(images_at_once)])


def _nearest(points, triangles, height, width):
    """(B, H, W) int64 triangle indices, by the largest key (depth, then lower index) of all that cover a pixel."""
    best = points.new_full((len(points) * height * width,), _EMPTY, dtype=torch.int64)
    parts = points.mT.contiguous()  # (B, 3 or 4, V)
    x, y = parts[:, 0], parts[:, 1]
    x_there, y_there, z, *w = parts.double().unbind(1)
    # depths are compared in whole steps, fine ones, so that rounding does not break ties; |depth| takes 30 bits
    exponent = z.abs().amax(1, keepdim=True).frexp().exponent.clamp(min=-900)
    z = z * torch.exp2(_DEPTH_BITS - exponent.double())
    if w:
        beside = w[0] * _LARGEST <= points[..., :3].abs().amax(2)
        across = torch.stack([x_there, y_there, z, w[0]])
        x_there, y_there, z = (part / w[0] for part in (x_there, y_there, z))
        x, y = (part.masked_fill(beside, torch.nan) for part in (x_there, y_there))  # in no box
    if _by_kernel(points.device):
        from model.draw_triangles import draw_triangles_

        draw_triangles_(
            best.view(-1, height, width), x.double(), y_there, z, triangles, _ROUNDING, _EPSILON, _FLAT, _LAST, bool(w)
        )
        drawn = []
    else:
        box, drawn = _boxes(x, y, triangles, height, width)
        drawn = drawn.nonzero().squeeze(1)
    if len(drawn):
        box = _take(box, drawn)
        image = drawn.div(triangles.shape[1], rounding_mode="floor")
        triangle = drawn - image * triangles.shape[1]
        corners = (triangles.index_select(1, triangle) + image * points.shape[1]).flatten()
        x, y, depth = (part.view(3, -1) for part in _take((x_there.flatten(), y_there.flatten(), z.flatten()), corners))
        sides, has_area = _sides(x, y, box, bool(w))
        _draw_(best.view(-1), sides, has_area, depth, box, image, triangle, height, width, bool(w))
    if w and beside.any():
        _draw_across_(best, across, beside, triangles, height, width)
    return (_LAST - (best & 0xFFFFFFFF)).view(len(points), height, width)


def _by_kernel(device):
    """Whether there is a GPU and what makes kernels for it; PyTorch brings it on Linux."""
    return device.type == "cuda" and find_spec("triton") is not None


def _boxes(x, y, triangles, height, width):
    """Four (B F,) first and last column, first and last row of each triangle in the image; bool: whether it has any.

    Most small triangles have none. The first are whole numbers, the last not yet; (3, F) triangles.
    """
    limits = []
    for place, end in ((x, width), (y, height)):
        at_corners = place.clamp(-0.5, end - 0.5).index_select(1, triangles.flatten()).unflatten(1, (3, -1))
        limits += [at_corners.amin(1).ceil_().flatten(), at_corners.amax(1).flatten()]
    return limits, (limits[0] <= limits[1]) & (limits[2] <= limits[3])


def _sides(x, y, box, divided):
    """Weights of two corners over N triangles, from (3, N) places; and (N,) bool: which triangles have area.

    For corner 1 and for corner 2, (N,) each: the weight at the first pixel of the triangle's box, and what it gains a
    pixel to the right and a pixel down. All are a little too large, by more than their rounding error: no pixel that
    is covered is lost.
    """
    first_x, last_x, first_y, last_y = box
    left, top = first_x - x[0], first_y - y[0]
    right_1, down_1, right_2, down_2 = x[1] - x[0], y[1] - y[0], x[2] - x[0], y[2] - y[0]
    area = right_1 * down_2 - down_1 * right_2  # twice the triangle's
    across, along = right_1.abs() + right_2.abs(), down_1.abs() + down_2.abs()
    rounding = _ROUNDING * across * along
    if divided:  # so were the places themselves rounded
        rounding += _EPSILON * (last_x.abs() * along + last_y.abs() * across)
    has_area = area.abs() > (2 * rounding).clamp(min=_FLAT)
    rounding = rounding.copysign(area)
    whole = area + 3 * rounding
    return (
        ((left * down_2 - top * right_2 + rounding) / whole, down_2 / whole, -right_2 / whole),
        ((top * right_1 - left * down_1 + rounding) / whole, -down_1 / whole, right_1 / whole),
    ), has_area


def _draw_(best, sides, has_area, depth, box, image, triangle, height, width, divided):
    """Raise `best` to the keys of N triangles at the pixels of their boxes that they cover."""
    first_x, last_x, first_y, last_y = box
    columns, rows = ((last.floor() - first).long() + 1 for first, last in ((first_x, last_x), (first_y, last_y)))
    corner = (image * height + first_y.long()) * width + first_x.long()
    depth, tie = (depth[0], depth[1] - depth[0], depth[2] - depth[0]), _LAST - triangle

    # every (triangle, pixel of its box) pair, some at a time to bound the memory
    counts = columns * rows * has_area
    ends = counts.cumsum(0)
    starts, pairs, at_once = ends - counts, int(ends[-1]), _at_once(best.device)
    for begin in range(0, pairs, at_once):
        end = min(begin + at_once, pairs)
        if pairs > at_once:
            counts = (ends.clamp(max=end) - starts.clamp(min=begin)).clamp(min=0)
        of = torch.repeat_interleave(counts, output_size=end - begin)
        weights, pixel = _weights(of, begin, starts, columns, corner, sides, width)
        covered = ((weights[0] >= 0) & (weights[1] >= 0) & (weights[0] + weights[1] <= 1)).nonzero().squeeze(1)
        *weights, of, pixel = _take((*weights, of, pixel), covered)
        best.scatter_reduce_(0, pixel, _keys(weights, of, depth, tie, divided), "amax")


def _weights(of, begin, starts, columns, corner, sides, width):
    """The two weights, and the place in the flattened images, of the pixels after `begin`, each `of` a triangle."""
    step = torch.arange(begin, begin + len(of), device=of.device) - starts.index_select(0, of)
    in_row = columns.index_select(0, of)
    down = step.div(in_row, rounding_mode="floor")
    right = step - down * in_row
    pixel = corner.index_select(0, of) + down * width + right
    right, down = right.double(), down.double()
    return [
        start.addcmul_(right, a_pixel_right).addcmul_(down, a_pixel_down)
        for start, a_pixel_right, a_pixel_down in (_take(side, of) for side in sides)
    ], pixel


def _keys(weights, of, depth, tie, divided):
    """The keys, larger nearer, then larger for a lower index, of pixels in triangles."""
    start, to_1, to_2 = _take(depth, of)
    level = start.addcmul_(weights[0], to_1).addcmul_(weights[1], to_2)
    if divided:
        level = level / (1 + level.abs() * 2**-_DEPTH_BITS)
    return tie.index_select(0, of).add_(level.round_().long(), alpha=1 << 32)


def _draw_across_(best, points, beside, triangles, height, width):
    """Raise `best` to the keys of the triangles with corners before and beside or behind the camera, at every pixel.

    Homogeneous (4, B, V) points: x w, y w, depth w in steps, and w.
    """
    behind = beside[:, triangles]  # (B, 3, F)
    crosses = behind.any(1) & (points[3] > 0)[:, triangles].any(1)
    rows, columns = torch.meshgrid(
        *(torch.arange(side, dtype=torch.float64, device=best.device) for side in (height, width)), indexing="ij"
    )
    best = best.view(-1, height * width)
    for some in crosses.nonzero().split(max(1, _at_once(best.device) // (height * width))):
        image, triangle = some.T
        x, y, z, w = points[:, image, triangles[:, triangle]]  # (3, N)
        e, e_x, e_y = minors(x, y), minors(y, w), minors(w, x)
        volume, largest_w = (e * w).sum(0), w.abs().amax(0)
        rounding = _ROUNDING * (x.abs().amax(0) + width * largest_w) * (y.abs().amax(0) + height * largest_w)
        has_area = volume.abs() > (2 * rounding * largest_w).clamp(min=_FLAT)  # so that its sign and w's are certain
        sign = volume.sign()
        e, e_x, e_y, z, w = (
            part[..., None, None] for part in (sign * e + rounding, sign * e_x, sign * e_y, z, w)
        )
        weights = e + columns * e_x + rows * e_y  # (3, N, H, W)
        depth, over = (weights * z).sum(0), (weights * w).sum(0)
        level = (depth / (over + depth.abs() * 2**-_DEPTH_BITS)).round().long()
        key = (level << 32) | (_LAST - triangle)[:, None, None]
        key = key.where((weights >= 0).all(0) & has_area[:, None, None], _EMPTY).flatten(1)
        best.scatter_reduce_(0, image[:, None].expand_as(key), key, "amax")


def minors(x, y):
    """Return (3, N) ``x_i y_j - x_j y_i``, where i and j are the corners after each."""
    (x0, x1, x2), (y0, y1, y2) = x.unbind(), y.unbind()
    return torch.stack([x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0])


def _take(rows, index):
    """Each of the (N,) rows at an index; one at a time is three times as fast on the CPU as all together."""
    return [row.index_select(0, index) for row in rows]


def _at_once(device):
    """How many triangles of whole images, or pixels of boxes, to have in memory; a GPU wants few and long kernels."""
    return _ON_CPU if device.type == "cpu" else _ON_GPU
