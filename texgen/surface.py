"""Where the texels of a face lie in a photo, and how they are turned.

The chart is fixed, so where a texel lies on the mesh is known once a process. Coordinates lie plane by plane, (3, N),
which numpy computes with several times as fast as with (N, 3).

Dimension key: V vertices, F triangles, S side of the chart in texels, T texels on the surface. Points as in
`bfm.render`: x right, y down and depth in pixels, larger nearer; normals in camera axes, y up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from bfm.charts import Chart
from bfm.morphable_model import MorphableModel
from bfm.pose import project


def surface_texels(model: MorphableModel, chart: Chart) -> np.ndarray:
    """Return the texels that lie on the face: (S, S) bool, without the mouth gap and the ring about the chart."""
    return chart.mask & (chart.texel_triangles < len(model.triangles)) & (chart.texel_barycentric >= 0).all(-1)


class PlacedSurface(NamedTuple):
    """A face in a photo, float32.

    Attributes
    ----------
    points : np.ndarray
        (3, V) vertices.
    away : np.ndarray
        (F,) bool: the triangles that are turned away from the camera, or seen edge-on.
    places : np.ndarray
        (3, S * S) texels; 0 outside the chart.
    normals : np.ndarray
        (3, S * S) unit normals there; 0 outside the chart.
    """

    points: np.ndarray
    away: np.ndarray
    places: np.ndarray
    normals: np.ndarray


class FaceSurface:
    """Places the texels of one face model; made once a process.

    Parameters
    ----------
    model : MorphableModel
        The face alone (`MorphableModel.face_only`), numpy arrays.
    chart : Chart
        Its chart.

    Attributes
    ----------
    texels : np.ndarray
        (T,) flat indices of the texels on the surface.
    spacing : float
        Millimetres between texels on the mean face: the root of its area a texel.
    to_texels : sparse.csr_array
        (S * S, V) `Chart.to_texels`, with indices of 32 bits: a third less to read in a product.
    """

    def __init__(self, model: MorphableModel, chart: Chart):
        self.texels = np.flatnonzero(surface_texels(model, chart))
        self.spacing = _spacing(model, chart)
        self.to_texels = _short(chart.to_texels)
        self._corners = np.ascontiguousarray(model.triangles.T, np.intp)
        count = len(model.triangles)
        self._about_vertex = _short(sparse.csr_array(
            (np.ones(3 * count, np.float32), (self._corners.ravel(), np.tile(np.arange(count), 3))),
            (len(model.mean_shape), count),
        ))

    def place(self, vertices: np.ndarray, pose: np.ndarray, position: np.ndarray) -> PlacedSurface:
        """Return where a face lies: (V, 3) vertices in mm, (3,) pose and position (`bfm.pose`)."""
        # projection is affine: that of four points, exactly, tells all of it, and planes need no reordering
        origin, *axes = project(np.eye(4, 3, -1), np.asarray(pose, np.float64), np.asarray(position, np.float64))
        points = (axes - origin).T.astype(np.float32) @ vertices.T + origin[:, None].astype(np.float32)
        normals, away = self._normals(points)
        at_texels = np.stack([self.to_texels @ values for values in (*points, *normals)])
        return PlacedSurface(points, away, at_texels[:3], _unit_(at_texels[3:]))

    def _normals(self, points):
        """(3, V) unit normals, as `bfm.render.vertex_normals`, whose sums are prepared here; what is turned away."""
        x, y, z = points
        (ax, bx, cx), (ay, by, cy), (az, bz, cz) = (
            [values.take(corner) for corner in self._corners] for values in (x, -y, z)
        )
        for a, b, c in ((ax, bx, cx), (ay, by, cy), (az, bz, cz)):
            b -= a
            c -= a
        normals = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
        return _unit_(np.stack([self._about_vertex @ values for values in normals])), normals[2] <= 0


def _short(matrix):
    """A sparse matrix with indices of 32 bits."""
    indices, starts = (numbers.astype(np.int32) for numbers in (matrix.indices, matrix.indptr))
    return sparse.csr_array((matrix.data, indices, starts), matrix.shape)


def _unit_(vectors):
    """(3, N) vectors brought to length 1; zero stays zero."""
    x, y, z = vectors
    vectors /= np.maximum(np.sqrt(x * x + y * y + z * z), 1e-12)
    return vectors


def _spacing(model, chart) -> float:
    """Root of the mean face's area a texel, mm."""
    a, b, c = (model.mean_shape[model.triangles[:, k]].astype(np.float64) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    return float(np.sqrt(area / np.count_nonzero(chart.mask)))
