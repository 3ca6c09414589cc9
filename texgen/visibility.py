"""Which texels of a face a photo shows: those that face the camera, before all else, away from outlines.

The face's surface is sampled densely and evenly (the texels of a chart are such samples), and the samples are sorted
into square cells of the view that are a little wider than their spacing, so that no cell on the face stays empty. The
nearest sample of a cell, continued along its tangent plane, stands for the surface there. That costs a few passes
over the samples, a tenth of rasterising a dense mesh, and is right but for one cell along outlines, which the margin
leaves out anyway.

Dimension key: T texels, N samples of the surface. Points and normals as in `bfm.render`: x right, y down and depth
in pixels, larger nearer; normals in camera axes, y up.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

STEEPEST = 3.0
"""Tangent of the steepest slope that a plane is continued with; a steeper step between cells is an outline."""
SLACK = 1.0
"""Cells of depth by which a surface must be nearer to hide a texel that faces the camera."""


def visible_texels(
    texels: np.ndarray, normals: np.ndarray, surface: np.ndarray, surface_normals: np.ndarray, cell: float,
    facing: float = 0.0, margin: float = 0.0,
) -> np.ndarray:
    """Return which texels the camera sees.

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
    margin : float
        Pixels; texels as near to an outline of the face (its silhouette, its rim, an edge that hides something
        behind it) are left out: where the mesh is off by so much, the photo shows something else there.

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
    corner = surface[:, :2].min(axis=0) - 2 * cell  # two empty cells around the face
    columns, rows = (np.floor((surface[:, :2].max(axis=0) - corner) / cell).astype(int) + 3).tolist()
    place = _cells(surface, corner, cell, columns)
    order = np.argsort(surface[:, 2])
    nearest = np.full(rows * columns, -1)
    nearest[place[order]] = order  # the last written is the nearest
    at = np.clip(_cells(texels, corner, cell, columns), 0, rows * columns - 1)
    front = nearest[at]

    offset = (texels[:, :2] - surface[front, :2]) * [-1, 1]  # y down
    normal = surface_normals[front]
    slope = normal[:, :2] / np.maximum(normal[:, 2:], 1e-3)
    slope *= np.minimum(1, STEEPEST / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6))
    before = surface[front, 2] + (offset * slope).sum(axis=1) - texels[:, 2]
    seen = (normals[:, 2] > facing) & (before <= SLACK * cell)
    if margin > 0:
        depth = np.where(nearest < 0, -np.inf, surface[nearest, 2]).reshape(rows, columns)
        clear = cell * distance_transform_edt(~_outlines(depth, STEEPEST * cell)).ravel()
        seen &= clear[at] > margin
    return seen


def _cells(points, corner, cell, columns):
    """(N,) flat cell of each point."""
    column, row = ((points[:, axis] - corner[axis]) * (1 / cell) for axis in (0, 1))
    return row.astype(np.int64) * columns + column.astype(np.int64)


def _outlines(depth, step):
    """(rows, columns) bool: empty cells, and cells beside a step of the depth."""
    outline = ~np.isfinite(depth)
    depth = np.where(outline, 0, depth)
    across, down = np.abs(np.diff(depth, axis=1)) > step, np.abs(np.diff(depth, axis=0)) > step
    for sides, jump in (((outline[:, 1:], outline[:, :-1]), across), ((outline[1:], outline[:-1]), down)):
        for side in sides:
            side |= jump
    return outline
