"""Which texels of a face a photo shows: those that face the camera, before all else, away from outlines.

The face's surface is sampled densely and evenly (the texels of a chart are such samples), and the samples are put
into square cells of the view that are a little wider than their spacing, so that no cell on the face stays empty. The
nearest sample of a cell tells the depth there: outlines are where it ends or breaks off. Where nobody knows better
(`texgen.occlusion` does, for a face's own texels), that sample, continued along its tangent plane, also stands for
the surface that may hide others; that is right but for one cell along outlines.

Dimension key: T texels, N samples of the surface. Points and normals as in `bfm.render`: x right, y down and depth
in pixels, larger nearer; normals in camera axes, y up.
"""

from __future__ import annotations

import cv2
import numpy as np

from bfm.sampling import sample_image

STEEPEST = 3.0
"""Tangent of the steepest slope that the nearest sample's plane is continued with."""
SLACK = 1.0
"""Cells of depth by which the surface must be nearer to hide a texel."""


def visible_texels(
    texels: np.ndarray, normals: np.ndarray, surface: np.ndarray, surface_normals: np.ndarray, cell: float,
    facing: float = 0.0, outer_margin: float | np.ndarray = 0.0, inner_margin: float = 0.0, step: float = np.inf,
    hidden: np.ndarray | None = None,
) -> np.ndarray:
    """Return which texels the camera sees.

    Margins leave out what a mesh that is off by so much would mistake for the face: near its outline the
    background, hair and neck; near an edge that hides something, what is before or behind it.

    Parameters
    ----------
    texels : np.ndarray
        (T, 3) places on the surface.
    normals : np.ndarray
        (T, 3) unit normals there.
    surface : np.ndarray
        (N, 3) samples of the surface that may hide them, about evenly spaced; may be `texels`.
    surface_normals : np.ndarray
        (N, 3) unit normals there.
    cell : float
        Side of a cell in pixels, about 1.7 times the spacing of the samples: smaller lets texels be seen through
        the surface, larger is coarser along outlines.
    facing : float
        Least cosine between normal and view.
    outer_margin : float | np.ndarray
        Least distance from the outline of the face, pixels; one, or (T,).
    inner_margin : float
        Least distance from a hole of the view (the open mouth) and from steps in depth, pixels.
    step : float
        Least height of such a step, pixels of depth between neighbouring cells.
    hidden : np.ndarray | None
        (T,) bool, what is known to be hidden; None judges by the nearest samples.

    Returns
    -------
    np.ndarray
        (T,) bool.

    Raises
    ------
    ValueError
        If there is no sample, or `cell` is not positive.
    """
    if not len(surface) or not cell > 0:
        raise ValueError(f"visibility needs samples and a positive cell, got {len(surface)} and {cell}")
    sample_x, sample_y, sample_depth = np.ascontiguousarray(surface.T)  # no copy, if that is how they lie in memory
    left, top = sample_x.min() - 2 * cell, sample_y.min() - 2 * cell  # two empty cells around the face
    columns, rows = int((sample_x.max() - left) / cell) + 3, int((sample_y.max() - top) / cell) + 3

    def cells(x, y):  # what lies off the surface is in an empty cell of the border
        column, row = ((x - left) / cell).astype(np.intp), ((y - top) / cell).astype(np.intp)
        return np.clip(row, 0, rows - 1) * columns + np.clip(column, 0, columns - 1)

    nearest = _nearest(sample_depth, cells(sample_x, sample_y), rows * columns)
    shown = normals[:, 2] > facing
    if hidden is None:
        shown &= ~_behind(texels, surface, surface_normals, nearest[cells(*texels[:, :2].T)], SLACK * cell)
    else:
        shown &= ~hidden
    if np.any(outer_margin) or inner_margin:
        kept = np.flatnonzero(shown)
        x, y = (values.take(kept) for values in np.ascontiguousarray(texels.T[:2]))
        outer_margin = np.broadcast_to(outer_margin, len(texels))[kept]
        relief = np.where(nearest < 0, np.nan, sample_depth[nearest]).reshape(rows, columns)
        away = cv2.merge([_distance(outline) for outline in _outlines(relief, step)])
        places = np.stack([(x - left) / cell, (y - top) / cell], 1) - np.float32(0.5)
        room = cell * (sample_image(away, places) - 0.5)  # from the centres of cells, of which half is covered
        shown[kept] = (
            ((room[:, 0] > outer_margin) | (outer_margin == 0)) & ((room[:, 1] > inner_margin) | (inner_margin == 0))
        )
    return shown


def _behind(texels, surface, surface_normals, front, slack):
    """(T,) whether texels lie behind the plane of the sample `front` of their cell; not where that is -1."""
    x, y, depth = texels.T
    sample_x, sample_y, sample_depth = surface.T
    right, up, toward = surface_normals[front].T
    slope = np.minimum(1 / np.maximum(toward, 1e-3), STEEPEST / np.maximum(np.hypot(right, up), 1e-6))
    plane = sample_depth[front] + ((sample_x[front] - x) * right + (y - sample_y[front]) * up) * slope
    return (plane - depth > slack) & (front >= 0)


def _nearest(depth, place, count):
    """(count,) the nearest sample in each cell, the last of several; -1 where there is none."""
    key = ((depth - depth.min()) * (65535 / max(float(np.ptp(depth)), 1e-6))).astype(np.int64)
    key <<= 32
    key |= np.arange(len(depth))
    nearest = np.full(count, -1)
    np.maximum.at(nearest, place, key)
    return np.where(nearest < 0, -1, nearest & 0xFFFFFFFF)


def _outlines(relief, step):
    """Cells beyond the face; and cells of its holes and beside a step of the depth, NaN where there is none."""
    empty = np.isnan(relief)
    filled = empty.astype(np.uint8)
    cv2.floodFill(filled, None, (0, 0), 2)
    outside = filled == 2
    inside = empty & ~outside
    for axis in (0, 1):
        jump = np.abs(np.diff(relief, axis=axis)) > step  # no step where either is NaN
        for beside in (np.s_[:-1], np.s_[1:]):
            inside[beside if axis == 0 else (slice(None), beside)] |= jump
    return outside, inside


def _distance(outline):
    """Distance of each cell from the nearest one of an outline, cells."""
    if not outline.any():
        return np.full(outline.shape, np.float32(outline.size))
    return cv2.distanceTransform((~outline).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
