"""`nearest_triangles` on a GPU in one Triton kernel: a thread a triangle, which tries the pixels of its box.

The whole-array way of `model.nearest_triangles`, which this is the twin of, reads and writes every intermediate; here
they stay in registers, and what moves is the corners in and an atomic maximum for each covered pixel. Triton comes with
PyTorch on Linux, and nothing is compiled until the first call. Dimension key: B batch, V vertices, F triangles.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 128
"""Triangles a program: few, as each waits for the largest of its boxes."""


@triton.jit
def _draw(
    x, y, depth, triangles, best, count, vertices, faces, height, width, last, rounding_unit: tl.constexpr,
    epsilon: tl.constexpr, flat: tl.constexpr, divided: tl.constexpr, block: tl.constexpr,
):
    # the names and formulas are those of `nearest_triangles._boxes`, `_sides`, `_weights` and `_keys`
    number = tl.program_id(0) * block + tl.arange(0, block)
    exists = number < count
    image = number // faces
    triangle = number - image * faces
    first = image.to(tl.int64) * vertices
    at_0 = first + tl.load(triangles + triangle, exists, 0)
    at_1 = first + tl.load(triangles + faces + triangle, exists, 0)
    at_2 = first + tl.load(triangles + 2 * faces + triangle, exists, 0)
    x_0, x_1, x_2 = tl.load(x + at_0, exists, 0), tl.load(x + at_1, exists, 0), tl.load(x + at_2, exists, 0)
    y_0, y_1, y_2 = tl.load(y + at_0, exists, 0), tl.load(y + at_1, exists, 0), tl.load(y + at_2, exists, 0)

    exists &= (x_0 == x_0) & (x_1 == x_1) & (x_2 == x_2)  # a corner that cannot be divided is NaN
    left, right = tl.minimum(tl.minimum(x_0, x_1), x_2), tl.maximum(tl.maximum(x_0, x_1), x_2)
    top, bottom = tl.minimum(tl.minimum(y_0, y_1), y_2), tl.maximum(tl.maximum(y_0, y_1), y_2)
    first_x = tl.ceil(tl.minimum(tl.maximum(left, -0.5), width - 0.5))
    last_x = tl.minimum(tl.maximum(right, -0.5), width - 0.5)
    first_y = tl.ceil(tl.minimum(tl.maximum(top, -0.5), height - 0.5))
    last_y = tl.minimum(tl.maximum(bottom, -0.5), height - 0.5)
    exists &= (first_x <= last_x) & (first_y <= last_y)

    left, top = first_x - x_0, first_y - y_0
    right_1, down_1, right_2, down_2 = x_1 - x_0, y_1 - y_0, x_2 - x_0, y_2 - y_0
    area = right_1 * down_2 - down_1 * right_2
    across, along = tl.abs(right_1) + tl.abs(right_2), tl.abs(down_1) + tl.abs(down_2)
    rounding = rounding_unit * across * along
    if divided:
        rounding += epsilon * (tl.abs(last_x) * along + tl.abs(last_y) * across)
    exists &= tl.abs(area) > tl.maximum(2 * rounding, flat)
    rounding = tl.where(area < 0, -rounding, rounding)
    whole = tl.where(exists, area + 3 * rounding, 1.0)
    start_1, start_2 = left * down_2 - top * right_2 + rounding, top * right_1 - left * down_1 + rounding
    start_1, step_right_1, step_down_1 = start_1 / whole, down_2 / whole, -right_2 / whole
    start_2, step_right_2, step_down_2 = start_2 / whole, -down_1 / whole, right_1 / whole
    depth_0 = tl.load(depth + at_0, exists, 0)
    to_1, to_2 = tl.load(depth + at_1, exists, 0) - depth_0, tl.load(depth + at_2, exists, 0) - depth_0

    columns = tl.where(exists, (tl.floor(last_x) - first_x).to(tl.int32) + 1, 1)
    pixels = tl.where(exists, columns * ((tl.floor(last_y) - first_y).to(tl.int32) + 1), 0)
    corner = (image.to(tl.int64) * height + first_y.to(tl.int64)) * width + first_x.to(tl.int64)
    for step in range(tl.max(pixels, 0)):
        down = step // columns
        along_row = step - down * columns
        weight_1 = start_1 + along_row * step_right_1 + down * step_down_1
        weight_2 = start_2 + along_row * step_right_2 + down * step_down_2
        covers = (step < pixels) & (weight_1 >= 0) & (weight_2 >= 0) & (weight_1 + weight_2 <= 1)
        level = depth_0 + weight_1 * to_1 + weight_2 * to_2
        if divided:
            level = level / (1 + tl.abs(level) * (1.0 / (1 << 30)))
        level = (level + 6755399441055744.0) - 6755399441055744.0  # rounded to even: beyond it float64 has no fractions
        key = level.to(tl.int64) * (1 << 32) + (last - triangle)
        tl.atomic_max(best + corner + down * width + along_row, key, covers, sem="relaxed")


def draw_triangles_(
    best: torch.Tensor, x: torch.Tensor, y: torch.Tensor, depth: torch.Tensor, triangles: torch.Tensor,
    rounding_unit: float, epsilon: float, flat: float, last: int, divided: bool,
):
    """Raise keys to those of the triangles that cover each pixel.

    Parameters
    ----------
    best : torch.Tensor
        (B, H, W) int64 keys, depth steps before the index, counted down from `last`; changed.
    x : torch.Tensor
        (B, V) float64, pixels; NaN where a corner is in no box.
    y : torch.Tensor
        (B, V) float64, pixels.
    depth : torch.Tensor
        (B, V) float64, in steps, larger nearer.
    triangles : torch.Tensor
        (3, F) int64 vertex indices.
    rounding_unit : float
        Of an edge function, over the triangle's extent.
    epsilon : float
        Of places that were divided, over their size.
    flat : float
        Square pixels; triangles of less area are left out.
    last : int
        Index that the key counts down from.
    divided : bool
        Whether places and depths are quotients of homogeneous ones.
    """
    count = len(best) * triangles.shape[1]
    if count:
        _draw[triton.cdiv(count, BLOCK),](
            x.contiguous(), y.contiguous(), depth.contiguous(), triangles.contiguous(), best, count, x.shape[1],
            triangles.shape[1], *best.shape[1:], last, rounding_unit, epsilon, flat, divided, BLOCK,
            enable_fp_fusion=False,
        )
