"""Which texels of a face the face itself hides, exactly: a ray from the texel to the camera meets a triangle, or none.

A face is seen from outside: a ray that leaves its surface toward the camera and meets it again enters it there, so the
first triangle that hides a texel turned to the camera is one that is turned away. Those are few. Only at the mouth may
a ray come from inside: through the opening, or from where the lips pass through each other. So all triangles of one lip
are also tested against the texels of the other, and all triangles against the few texels of the mouth that have another
texel clearly before them.

Triangles and texels are put into square cells of the view. Cells tell most of them apart at once: triangles that reach
no nearer than the deepest texel about them, and texels that no triangle about them is nearer than. Of the others, each
texel is tested against the triangles whose boxes it lies in.

Dimension key: V vertices, F triangles, N texels or points; x right, y down and depth in pixels, larger nearer.
"""

from __future__ import annotations

import cv2
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
            Pixels, about twice the spacing of the texels.

        Returns
        -------
        np.ndarray
            (N,) bool, False for all others.
        """
        hidden, upper = np.zeros(texels.shape[1], bool), self._upper[some]

        def test(corners, asked):
            behind = hidden_points(texels.take(asked, axis=1), points.take(corners, axis=1), cell / 2)
            hidden[asked[behind]] = True

        test(self._corners.take(np.flatnonzero(away), axis=1), some)
        test(self._upper_lip, some[~upper])
        test(self._lower_lip, some[upper])
        through = _deep(texels, some[self._mouth[some]], cell)
        through = through[~hidden[through]]
        test(self._about(points, texels.take(through, axis=1)), through)
        return hidden

    def _about(self, points, places):
        """(3, ...) corners of the triangles that lie over the box of some places in the view, and reach nearer."""
        if not places.size:
            return self._corners[:, :0]
        beyond = (points[2] <= places[2].min()).astype(np.uint8)  # a bit for each side of the box
        for values, among in zip(points[:2], places):
            for outside in (values < among.min(), values > among.max()):
                beyond = 2 * beyond + outside
        a, b, c = (beyond.take(corner) for corner in self._corners)
        return self._corners.take(np.flatnonzero(a & b & c == 0), axis=1)  # no side that all corners lie beyond


def _deep(texels, asked, cell):
    """Which of the texels asked for lie more than a cell deeper than another texel in their cell."""
    if not len(asked):
        return asked
    places, depth = texels[:2], texels[2]
    origin, among = places.min(axis=1), places.take(asked, axis=1)
    about = _between(texels, among.min(axis=1) - cell, among.max(axis=1) + cell)
    columns = int((places[0].max() - origin[0]) / cell) + 1

    def cells(some):
        column, row = ((places.take(some, axis=1) - origin[:, None]) / cell).astype(np.intp)
        return row * columns + column

    place, ours = cells(about), cells(asked)
    nearest = np.full(place.max() + 1, -np.inf, np.float32)
    np.maximum.at(nearest, place, depth[about])
    return asked[nearest[ours] > depth[asked] + cell]


def hidden_points(points: np.ndarray, corners: np.ndarray, cell: float) -> np.ndarray:
    """Return which points some triangle hides.

    Parameters
    ----------
    points : np.ndarray
        (3, N) x, y and depth.
    corners : np.ndarray
        (3, 3, F) x, y and depth of the corners of each triangle, corner by corner: ``corners[axis, corner]``.
    cell : float
        Side of a cell, pixels; about the spacing of the points is fast.

    Returns
    -------
    np.ndarray
        (N,) bool. Triangles are closed, and count from either side.
    """
    hidden = np.zeros(points.shape[1], bool)
    if not corners.size or not points.size:
        return hidden
    low, high = corners.min(axis=1), corners.max(axis=1)
    asked = _between(points, low.min(axis=1), high.max(axis=1))
    asked = asked[points[2, asked] + CLEAR < high[2].max()]
    if not len(asked):
        return hidden
    points = points.take(asked, axis=1)
    point, triangle = _in_boxes(points, low, high, cell)
    behind = _before(points.take(point, axis=1), corners.take(triangle, axis=2))
    hidden[asked[point[behind]]] = True
    return hidden


def _between(points, low, high):
    """Which of (3, N) points lie between two corners of the view."""
    x, y = points[:2]
    return np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))


def _in_boxes(points, low, high, cell):
    """All pairs of a point and a triangle whose box, (3, F) low to high, it lies in or behind."""
    depth, origin = points[2] + CLEAR, points[:2].min(axis=1)[:, None]

    def cells(places):
        return ((places - origin) / cell).astype(np.int32)

    column, row = cells(points[:2])
    rows, columns = row.max() + 1, column.max() + 1
    first, last = np.maximum(cells(low[:2]), 0), np.minimum(cells(high[:2]), [[columns - 1], [rows - 1]])
    width, height = last - first + 1  # of boxes, in cells of the points; below 1 if they lie outside
    place, start = (down.astype(np.intp) * columns + along for along, down in ((column, row), first))

    # the depth to pass in any cell of a box, and the nearest that any box over a cell reaches, are bounded for boxes of
    # the greatest width and height
    most = max(1, int(width.max())), max(1, int(height.max()))
    window = np.ones(most[::-1], np.uint8)
    deepest = np.full((rows, columns), np.inf, depth.dtype)
    np.minimum.at(deepest.ravel(), place, depth)
    deepest = cv2.erode(deepest, window, anchor=(0, 0))
    triangles = np.flatnonzero(
        (high[2] > deepest.ravel().take(start, mode="clip")) & (width > 0) & (height > 0)
    )
    start, width, height = start[triangles], width[triangles], height[triangles]
    nearest = np.full((rows, columns), -np.inf, depth.dtype)
    np.maximum.at(nearest.ravel(), start, high[2, triangles])
    nearest = cv2.dilate(nearest, window, anchor=(most[0] - 1, most[1] - 1))
    doubtful = np.flatnonzero(nearest.ravel().take(place) > depth)
    doubtful = doubtful[np.argsort(place[doubtful])]

    # the points below a row of cells of a box stand in a row too
    ends = np.concatenate([[0], np.bincount(place[doubtful], minlength=rows * columns).cumsum()])
    box, step = spread(height)
    left = start[box] + step * columns
    begin = ends[left]
    count = ends[left + width[box]] - begin
    some = np.flatnonzero(count)
    run, step = spread(count[some])
    point, triangle = doubtful[begin[some][run] + step], triangles[box[some][run]]
    near = np.flatnonzero(high[2].take(triangle) > depth.take(point))
    for axis in (0, 1):
        point, triangle = point[near], triangle[near]
        place = points[axis].take(point)
        near = np.flatnonzero((low[axis].take(triangle) <= place) & (place <= high[axis].take(triangle)))
    return point[near], triangle[near]


def _before(points, corners):
    """(N,) whether each of (3, N) points lies behind its triangle, (3, 3, N)."""
    (ax, bx, cx), (ay, by, cy) = (corners[axis] - points[axis] for axis in (0, 1))
    a, b, c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    inside = ((a >= 0) & (b >= 0) & (c >= 0)) | ((a <= 0) & (b <= 0) & (c <= 0))
    ahead = a * corners[2, 0] + b * corners[2, 1] + c * corners[2, 2] - (a + b + c) * (points[2] + CLEAR)
    return inside & (ahead * (a + b + c) > 0)
