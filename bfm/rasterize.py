"""Which triangle covers each pixel, exactly: the one rasteriser behind UV charts, visibility and previews.

Dimension key: V vertices, F triangles, H/W pixels.
Pixels are 0-based with centres at whole numbers, x right, y down.
"""

from __future__ import annotations

import numpy as np

_LARGEST = 1e9
_FLAT = 1e-100  # square pixels; below, products underflow
_PIXELS_AT_ONCE = 1 << 17


def rasterize(
    points: np.ndarray, depth: np.ndarray, triangles: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest triangle at each pixel centre, and where in the triangle the centre lies.

    Triangles are closed sets of either winding: a centre on an edge belongs to both neighbours, so a mesh has
    neither holes nor seams. No centre of a closed triangle is missed; one counted in excess lies within the
    rounding error, ``1e-14`` times the triangle's size, of an edge. Weights and depths are exact to ``1e-14`` times
    the triangle's size squared over its area, which is much in slivers. Triangles without area are left out.

    Parameters
    ----------
    points : np.ndarray
        (V, 2) x and y in pixels; they may lie outside the image.
    depth : np.ndarray
        (V,) larger is nearer; varies linearly over a triangle. Depths closer than about ``1e-9`` of the greatest
        depth tie, and the triangle with the lowest index wins.
    triangles : np.ndarray
        (F, 3) vertex indices.
    height : int
        Image height in pixels.
    width : int
        Image width in pixels.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (H, W) int32 triangle indices, -1 where there is none, and (H, W, 3) float32 barycentric weights of its
        corners, non-negative with sum 1 (all 0 where there is no triangle).

    Raises
    ------
    ValueError
        If the shapes disagree, or a coordinate is not a finite number below 1e9.
    """
    points, depth = np.asarray(points, np.float64), np.asarray(depth, np.float64)
    triangles = np.asarray(triangles).reshape(-1, 3)
    if points.ndim != 2 or points.shape[1] != 2 or depth.shape != points.shape[:1]:
        raise ValueError(f"points must have shape (V, 2) and depth (V,), got {points.shape} and {depth.shape}")
    if not (np.abs(points) < _LARGEST).all() or not (np.abs(depth) < _LARGEST).all():
        raise ValueError("points and depth must be finite numbers below 1e9; check the pose and the shape")

    best = np.full(height * width, np.iinfo(np.int64).min)
    for pixel, key in _covered_pixels(points, depth, triangles, height, width):
        np.maximum.at(best, pixel, key)
    covered = np.flatnonzero(best != np.iinfo(np.int64).min)
    winner = (np.iinfo(np.int32).max - (best[covered] & 0xFFFFFFFF)).astype(np.int32)

    triangle_ids = np.full(height * width, -1, np.int32)
    triangle_ids[covered] = winner
    barycentric = np.zeros((height * width, 3), np.float32)
    barycentric[covered] = _barycentric(points, triangles[winner].T, covered % width, covered // width).T
    return triangle_ids.reshape(height, width), barycentric.reshape(height, width, 3)


def _covered_pixels(points, depth, triangles, height, width):
    """Yield flat pixel indices and a key for each triangle that covers them; the largest key wins a pixel."""
    corners = np.ascontiguousarray(triangles.T)
    x, y = points[:, 0][corners], points[:, 1][corners]  # (3, F)
    left, right, top, bottom = x.min(0), x.max(0), y.min(0), y.max(0)
    # the inward edge normal of side k, opposite corner k; the cross product of two sides is twice the area
    normal_x, normal_y = y[[1, 2, 0]] - y[[2, 0, 1]], x[[2, 0, 1]] - x[[1, 2, 0]]
    area = normal_x[1] * normal_y[2] - normal_y[1] * normal_x[2]
    rounding = 8 * np.finfo(np.float64).eps * (np.abs(normal_x) * (right - left) + np.abs(normal_y) * (bottom - top))
    # the box of each triangle in whole pixels, clipped to the image
    first_column, last_column = np.ceil(np.maximum(left, 0)), np.floor(np.minimum(right, width - 1))
    first_row, last_row = np.ceil(np.maximum(top, 0)), np.floor(np.minimum(bottom, height - 1))
    drawn = np.flatnonzero(
        (np.abs(area) > np.maximum(rounding.max(0), _FLAT)) & (first_column <= last_column) & (first_row <= last_row)
    )
    if not len(drawn):
        return
    facing = np.sign(area[drawn])
    x, y, area, rounding = x[:, drawn], y[:, drawn], np.abs(area[drawn]), rounding[:, drawn]
    normal_x, normal_y = normal_x[:, drawn] * facing, normal_y[:, drawn] * facing
    first_column, last_column = first_column[drawn], last_column[drawn]
    z = depth[corners[:, drawn]]
    slope = np.stack([z[1] - z[0], z[2] - z[0]]) / area
    slope_x, slope_y = (normal[1] * slope[0] + normal[2] * slope[1] for normal in (normal_x, normal_y))
    nearest, farthest = z.max(0), z.min(0)
    # depths are compared in whole steps, fine ones, so that rounding does not break ties; |depth| takes 30 bits
    depth_bits = 30 - max(np.frexp(np.abs(z).max())[1], -900)

    # every (triangle, pixel row) pair, and the columns between the sides there
    of, step = spread((last_row[drawn] - first_row[drawn]).astype(np.int64) + 1)
    row = first_row[drawn][of] + step
    start = np.zeros(len(of))
    stop = (last_column - first_column)[of]
    for k in range(3):
        gain = normal_x[k][of]
        slack = (
            gain * (first_column[of] - x[(k + 1) % 3][of]) + normal_y[k][of] * (row - y[(k + 1) % 3][of])
            + rounding[k][of]
        )
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            zero = -slack / gain
        start = np.where(gain > 0, np.maximum(start, np.ceil(zero)), start)
        stop = np.where(gain < 0, np.minimum(stop, np.floor(zero)), stop)  # a level side bounds the rows already
    keep = np.flatnonzero(stop >= start)
    of, row, start, stop = of[keep], row[keep], start[keep], stop[keep]
    column = first_column[of] + start
    count = (stop - start).astype(np.int64) + 1
    z_start = z[0][of] + slope_x[of] * (column - x[0][of]) + slope_y[of] * (row - y[0][of])
    pixel_start = (row * width + column).astype(np.int64)

    # the pixels of those rows, some rows at a time to bound the memory
    ends = np.cumsum(count)
    begin = 0
    while begin < len(count):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _PIXELS_AT_ONCE, side="right")))
        part, step = spread(count[begin:end])
        part += begin
        of_part = of[part]
        pixel_depth = np.clip(z_start[part] + slope_x[of_part] * step, farthest[of_part], nearest[of_part])
        # nearer is larger, then lower index is larger
        level = np.rint(np.ldexp(pixel_depth, depth_bits)).astype(np.int64)
        yield pixel_start[part] + step, (level << 32) | (np.iinfo(np.int32).max - drawn[of_part])
        begin = end


def spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return owners and steps of runs: for counts (2, 1, 3), owners (0, 0, 1, 2, 2, 2), steps (0, 1, 0, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _barycentric(points, corners, column, row):
    """(3, N) weights of (3, N) corner indices at (N,) pixels."""
    x, y = points[:, 0][corners] - column, points[:, 1][corners] - row
    area = x[[1, 2, 0]] * y[[2, 0, 1]] - x[[2, 0, 1]] * y[[1, 2, 0]]
    weights = np.maximum(area * np.sign(area.sum(0)), 0)
    return weights / weights.sum(0)
