"""Which texels of a face a photo shows: those that face the camera, before all else, away from outlines.

The texels sample the surface densely and evenly. They are put into square cells of the view that are a little wider
than their spacing, so that no cell on the face stays empty. The nearest texel of a cell tells the depth there: outlines
are where it ends or breaks off. What the face itself hides, `texgen.occlusion` tells.

Dimension key: T texels. Points and normals as in `bfm.render`: x right, y down and depth in pixels, larger nearer;
normals in camera axes, y up.
"""

from __future__ import annotations

import cv2
import numpy as np

from bfm.sampling import sample_image


def visible_texels(
    texels: np.ndarray, normals: np.ndarray, hidden: np.ndarray, cell: float, facing: float = 0.0,
    outer_margin: float | np.ndarray = 0.0, inner_margin: float = 0.0, step: float = np.inf,
) -> np.ndarray:
    """Return which texels the camera sees.

    Margins leave out what a mesh that is off by so much would mistake for the face: near its outline the
    background, hair and neck; near an edge that hides something, what is before or behind it.

    Parameters
    ----------
    texels : np.ndarray
        (T, 3) places on the surface, about evenly spaced.
    normals : np.ndarray
        (T, 3) unit normals there.
    hidden : np.ndarray
        (T,) bool: those that something is before.
    cell : float
        Side of a cell in pixels, about 1.7 times the spacing of the texels: smaller makes holes of gaps between them,
        larger is coarser along outlines.
    facing : float
        Least cosine between normal and view.
    outer_margin : float | np.ndarray
        Least distance from the outline of the face, pixels; one, or (T,).
    inner_margin : float
        Least distance from a hole of the view (the open mouth) and from steps in depth, pixels.
    step : float
        Least height of such a step, pixels of depth between neighbouring cells.

    Returns
    -------
    np.ndarray
        (T,) bool.

    Raises
    ------
    ValueError
        If there is no texel, or `cell` is not positive.
    """
    if not len(texels) or not cell > 0:
        raise ValueError(f"visibility needs texels and a positive cell, got {len(texels)} and {cell}")
    shown = (normals[:, 2] > facing) & ~hidden
    if np.any(outer_margin) or inner_margin:
        x, y, depth = np.ascontiguousarray(texels.T)  # no copy, if that is how they lie in memory
        x, y = ((values - (values.min() - 2 * cell)) / cell for values in (x, y))  # two empty cells around the face
        columns, rows = int(x.max()) + 3, int(y.max()) + 3
        place = y.astype(np.intp) * columns + x.astype(np.intp)
        nearest = np.full((rows, columns), -np.inf, depth.dtype)
        np.maximum.at(nearest.ravel(), place, depth)
        outlines = _outlines(np.where(np.isinf(nearest), np.nan, nearest), step)
        # from the centres of cells, of which half is covered
        rooms = [np.float32(cell) * (_distance(outline) - np.float32(0.5)) for outline in outlines]
        kept = np.flatnonzero(shown)
        margins = np.broadcast_to(outer_margin, len(texels))[kept], np.broadcast_to(inner_margin, len(kept))
        # where even the least room of a cell and its neighbours is enough, there is none to be interpolated
        little = np.zeros(len(kept), bool)
        for room, margin in zip(rooms, margins):
            little |= cv2.erode(room, np.ones((3, 3), np.uint8)).take(place[kept]) <= margin
        kept, margins = kept[little], [margin[little] for margin in margins]
        room = sample_image(cv2.merge(rooms), np.stack([x[kept], y[kept]], 1) - np.float32(0.5))
        shown[kept] = np.logical_and(*((left > margin) | (margin == 0) for left, margin in zip(room.T, margins)))
    return shown


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
