"""Which texels of a face the face itself hides, exactly: a ray from the texel to the camera meets a triangle, or none.

A face is seen from outside: a ray that leaves its surface toward the camera and meets it again enters it there, so the
first triangle that hides a texel turned to the camera is one that is turned away. Those are few. Only at the mouth may
a ray come from inside: through the opening, or from where the lips pass through each other. So all triangles of one lip
are also tested against the texels of the other, and all triangles against the few texels of the mouth that have another
texel clearly before them.

Triangles and texels are put into square cells of the view, and a texel is tested against the triangles of its cell that
reach nearer than it. Dimension key: V vertices, F triangles, N texels or points; x right, y down and depth in pixels,
larger nearer.
"""

from __future__ import annotations

import numpy as np

from bfm.charts import Chart
from bfm.morphable_model import REGIONS, MorphableModel
from bfm.rasterize import spread

CLEAR = 1e-2
"""Pixels of depth: the triangle that a point lies on is not before it."""


_INNER_LIPS = np.array([[60, 60], [61, 67], [62, 66], [63, 65], [64, 64]])
"""Landmarks of the upper and the lower lip where they meet, from corner to corner."""


class Occlusion:
    """Tells which texels of a face are hidden by it; made once a process.

    Exact where the surface does not pass through itself, and between the lips also there. On rendered faces that leaves
    a few texels in a million, where one lip folds into itself.

    Parameters
    ----------
    model : MorphableModel
        The face alone (`MorphableModel.face_only`), numpy arrays.
    chart : Chart
        Its chart.
    texels : np.ndarray
        (N,) flat indices of the texels in question.
    """

    def __init__(self, model: MorphableModel, chart: Chart, texels: np.ndarray):
        u, v = chart.uv.T
        line = chart.uv[model.landmarks[_INNER_LIPS]].mean(axis=1)
        line = line[line[:, 0].argsort()]
        upper, mouth = v > np.interp(u, *line.T), model.regions == REGIONS.index("mouth")
        self._corners = np.ascontiguousarray(model.triangles.T, np.intp)
        self._upper_lip, self._lower_lip = (
            self._corners[:, (mouth & side)[self._corners].any(axis=0)] for side in (upper, ~upper)
        )
        nearest = chart.texel_barycentric.argmax(-1).ravel()[texels]
        vertex = chart.triangles[chart.texel_triangles.ravel()[texels], nearest]
        self._upper, self._mouth = upper[vertex], mouth[vertex]

    def hidden(
        self, points: np.ndarray, away: np.ndarray, texels: np.ndarray, some: np.ndarray, cell: float
    ) -> np.ndarray:
        """Return which texels are hidden.

        Parameters
        ----------
        points : np.ndarray
            (3, V) vertices in the photo.
        away : np.ndarray
            (F,) bool: triangles turned away from the camera, or seen edge-on.
        texels : np.ndarray
            (3, N) texels in the photo.
        some : np.ndarray
            (M,) which texels are asked for: those turned to the camera.
        cell : float
            Side of a cell, pixels; about twice the spacing of the texels is fast.

        Returns
        -------
        np.ndarray
            (N,) bool, False for all others.
        """
        hidden, upper = np.zeros(texels.shape[1], bool), self._upper[some]

        def behind(corners, asked):
            return asked[hidden_points(texels.take(asked, axis=1), points.take(corners, axis=1), cell)]

        through = _deep(texels, some[self._mouth[some]], cell)
        for corners, asked in (
            (self._corners[:, away], some), (self._upper_lip, some[~upper]), (self._lower_lip, some[upper]),
            (self._about(points, texels[:, through]), through),
        ):
            hidden[behind(corners, asked)] = True
        return hidden

    def _about(self, points, places):
        """(3, ...) corners of the triangles whose boxes in the view meet that of some places."""
        corners = self._corners
        for values, among in zip(points[:2], places) if places.size else ():
            sides = values.take(corners)
            corners = corners[:, (sides.min(axis=0) <= among.max()) & (sides.max(axis=0) >= among.min())]
        return corners


def _deep(texels, asked, cell):
    """Which of the texels asked for lie more than a cell deeper than another texel in their cell."""
    x, y, depth = texels
    column, row = ((values - values.min()) / cell for values in (x, y))
    place = row.astype(np.intp) * (int(column.max()) + 1) + column.astype(np.intp)
    nearest = np.full(place.max() + 1, -np.inf, np.float32)
    np.maximum.at(nearest, place, depth)
    return asked[nearest[place[asked]] > depth[asked] + cell]


def hidden_points(points: np.ndarray, corners: np.ndarray, cell: float) -> np.ndarray:
    """Return which points some triangle hides.

    Parameters
    ----------
    points : np.ndarray
        (3, N) x, y and depth.
    corners : np.ndarray
        (3, 3, F) x, y and depth of the corners of each triangle, corner by corner: ``corners[axis, corner]``.
    cell : float
        Side of a cell, pixels; about twice the spacing of the points is fast.

    Returns
    -------
    np.ndarray
        (N,) bool. Triangles are closed, and count from either side.
    """
    hidden = np.zeros(points.shape[1], bool)
    if not corners.size or not points.size:
        return hidden
    low, high = corners.min(axis=1), corners.max(axis=1)
    left, top = low[0].min(), low[1].min()
    columns, rows = int((high[0].max() - left) / cell) + 1, int((high[1].max() - top) / cell) + 1
    first_column, last_column = (((side[0] - left) / cell).astype(np.intp) for side in (low, high))
    first_row, last_row = (((side[1] - top) / cell).astype(np.intp) for side in (low, high))
    width = last_column - first_column + 1
    triangle, step = spread(width * (last_row - first_row + 1))
    down, along = np.divmod(step, width[triangle])
    place = (first_row[triangle] + down) * columns + first_column[triangle] + along
    nearest = np.full(rows * columns, -np.inf, np.float32)
    np.maximum.at(nearest, place, high[2].take(triangle))

    column, row = (points[0] - left) / cell, (points[1] - top) / cell
    within = np.flatnonzero((column >= 0) & (column < columns) & (row >= 0) & (row < rows))
    cells = row[within].astype(np.intp) * columns + column[within].astype(np.intp)
    below = np.flatnonzero(nearest[cells] > points[2, within] + CLEAR)
    doubtful, cells = within[below], cells[below]

    wanted = np.zeros(rows * columns, bool)
    wanted[cells] = True
    listed = np.flatnonzero(wanted[place])
    listed = listed[np.argsort(place[listed], kind="stable")]
    count = np.bincount(place[listed], minlength=rows * columns)
    start = np.cumsum(count) - count
    point, step = spread(count[cells])
    triangle = triangle[listed[start[cells][point] + step]]
    point = doubtful[point]
    near = np.flatnonzero(high[2][triangle] > points[2][point] + CLEAR)
    point, triangle = point[near], triangle[near]
    hidden[point[_before(points.take(point, axis=1), corners.take(triangle, axis=2))]] = True
    return hidden


def _before(points, corners):
    """(N,) whether each of (3, N) points lies behind its triangle, (3, 3, N)."""
    (ax, bx, cx), (ay, by, cy) = (corners[axis] - points[axis] for axis in (0, 1))
    a, b, c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    inside = ((a >= 0) & (b >= 0) & (c >= 0)) | ((a <= 0) & (b <= 0) & (c <= 0))
    ahead = a * corners[2, 0] + b * corners[2, 1] + c * corners[2, 2] - (a + b + c) * (points[2] + CLEAR)
    return inside & (ahead * (a + b + c) > 0)
