"""UV charts: where each vertex of the face lies in a square map, and each texel of the map on the face.

A chart is fixed, so it is rasterised once; a map is then one sparse product with the vertices, and back.
Dimension key: V vertices of `MorphableModel.face_only`, F triangles, C channels, S side of the map in texels.

uv      (V, 2) u right (to the subject's left), v up, both in [0, 1].
Texels  0-based with centres at whole numbers: ``column = u * (S - 1)``, ``row = (1 - v) * (S - 1)``, so that
        flipping the columns of a map is ``u -> 1 - u``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.ndimage import binary_dilation
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from bfm.morphable_model import MorphableModel
from bfm.mouth import boundary_loops
from bfm.rasterize import rasterize
from bfm.render import vertex_normals
from bfm.sampling import bilinear_taps
from bfm.solved_charts import GRID, solved_uv

CHARTS = ("cylindrical", "harmonic", "file")
DEFAULT_CHART = "harmonic"

_STRETCH_ROUNDS = 4
_SQUARENESS = 4
_BAND = 1 / 100  # of the outline's length
_SMOOTHING_ROUNDS = 30
_NEAR_TRIANGLES = 48
_COLUMNS = 8  # of a sparse product; all 597 of a basis at once took four times as long


@dataclass(frozen=True, eq=False)
class Chart:
    """A map of a face onto a square, rasterised.

    The mask is what bilinear reads at the vertices need: the texels whose centre lies in a triangle, and a ring of
    one texel about them, into which triangles near it are continued as planes. So a function linear in uv is
    unwrapped and sampled back exactly, up to the boundary.

    Attributes
    ----------
    name : str
        Which of `CHARTS`.
    uv : np.ndarray
        (V, 2) float32.
    triangles : np.ndarray
        (F, 3) int32, those that close the mouth included.
    size : int
        S.
    texel_triangles : np.ndarray
        (S, S) int32 triangle of each texel; -1 outside the mask.
    texel_barycentric : np.ndarray
        (S, S, 3) float32 weights of its corners; negative ones occur in the ring; 0 outside the mask.
    """

    name: str
    uv: np.ndarray
    triangles: np.ndarray
    size: int
    texel_triangles: np.ndarray
    texel_barycentric: np.ndarray

    @cached_property
    def mask(self) -> np.ndarray:
        """(S, S) bool: the texels that hold values."""
        return self.texel_triangles >= 0

    @cached_property
    def vertex_pixels(self) -> np.ndarray:
        """(V, 2) float64 column and row of each vertex in the map."""
        return _pixels(self.uv, self.size)

    @cached_property
    def to_texels(self) -> sparse.csr_array:
        """(S * S, V) float32 sparse matrix from vertex values to texel values."""
        texels = np.flatnonzero(self.mask)
        corners = self.triangles[self.texel_triangles.ravel()[texels]]
        weights = self.texel_barycentric.reshape(-1, 3)[texels]
        return sparse.csr_array(
            (weights.ravel(), (texels.repeat(3), corners.ravel())), (self.size**2, len(self.uv))
        )

    @cached_property
    def to_vertices(self) -> sparse.csr_array:
        """(V, S * S) float32 sparse matrix from texel values to vertex values."""
        texels, weights = bilinear_taps(self.vertex_pixels, self.size, self.size)
        return sparse.csr_array(
            (weights.ravel(), (np.arange(len(self.uv)).repeat(4), texels.ravel())), (len(self.uv), self.size**2)
        )

    def unwrap(self, values: np.ndarray) -> np.ndarray:
        """Return maps of vertex values.

        Parameters
        ----------
        values : np.ndarray
            (..., V, C) values at the vertices of the chart.

        Returns
        -------
        np.ndarray
            (..., C, S, S) of the dtype of `values` if that is floating; 0 outside the mask.

        Raises
        ------
        ValueError
            If V is not the chart's.
        """
        if values.shape[-2] != len(self.uv):
            raise ValueError(
                f"values must have shape (..., {len(self.uv)}, C) to match the chart, got {values.shape}; "
                "charts are of `face_only()` models"
            )
        return _apply(self.to_texels, np.moveaxis(values, -1, -2)).reshape(
            *values.shape[:-2], values.shape[-1], self.size, self.size
        )

    def sample(self, maps: np.ndarray) -> np.ndarray:
        """Return the values of maps at the vertices, bilinearly.

        Parameters
        ----------
        maps : np.ndarray
            (..., C, S, S).

        Returns
        -------
        np.ndarray
            (..., V, C) of the dtype of `maps` if that is floating.

        Raises
        ------
        ValueError
            If S is not the chart's.
        """
        if maps.shape[-2:] != (self.size, self.size):
            raise ValueError(f"maps must have shape (..., C, {self.size}, {self.size}), got {maps.shape}")
        return np.moveaxis(_apply(self.to_vertices, maps.reshape(*maps.shape[:-2], -1)), -1, -2)


def make_chart(model: MorphableModel, name: str = "default", size: int = 256) -> Chart:
    """Make a chart of the face (`MorphableModel.face_only`) of a model.

    - ``cylindrical``: u is the angle about a vertical axis behind the face and v the height, as in the paper; where
      it folds the outermost surface is kept, and hidden vertices read that surface.
    - ``harmonic``: a bijection, see `harmonic_uv`; no vertex is hidden.
    - ``file``: the texture coordinates that came with the model.
    - ``default``: ``harmonic``, which has the least round-trip error. Mean and maximum at 256 texels, mm: open model
      0.02 and 0.7 (cylindrical 0.34 and 11, as it hides the inner lips and the underside of the nose); BFM mean
      0.011 and 0.8 (its own coordinates 0.015 and 8.6, cylindrical 0.033 and 20).

    Parameters
    ----------
    model : MorphableModel
        Any face model; its "outside" region is left out.
    name : str
        See above.
    size : int
        Side of the map in texels.

    Returns
    -------
    Chart
        Mirror-symmetric (``u' = 1 - u`` for twins, exactly) where the model's topology is, except ``file``.

    Raises
    ------
    ValueError
        If the name is unknown, the size below 2, the model has no texture coordinates, or the face is not a disc.
    """
    name = DEFAULT_CHART if name == "default" else name
    face = model.face_only()
    triangles = _closed(face)
    if size < 2:
        raise ValueError(f"size must be at least 2 texels, got {size}")
    depth = np.zeros(len(face.mean_shape))
    if name == "cylindrical":
        uv, depth = _cylindrical_uv(face.mean_shape)
    elif name == "harmonic":
        uv = solved_uv(face)
        uv = harmonic_uv(face) if uv is None else uv
    elif name == "file":
        if face.uv is None:
            raise ValueError(f"the face model '{face.name}' came without texture coordinates; choose another chart")
        uv = face.uv
    else:
        raise ValueError(f"chart must be one of default, {', '.join(CHARTS)}, got '{name}'")
    if name != "file":
        uv = _on_grid(_symmetrized(uv, triangles, face.mirror))
    uv = uv.astype(np.float32)
    return Chart(name, uv, triangles, size, *_rasterized(_pixels(uv, size), depth, triangles, size))


def harmonic_uv(face: MorphableModel) -> np.ndarray:
    """Solve the harmonic chart of a face.

    A disc is mapped into the unit square by convex combinations, so that no triangle folds (Tutte, Floater).
    A band of virtual triangles about the face takes up the convex outline that the proof wants, and leaves the
    face's own outline free. Mean-value weights [1]_ crush whatever sticks out (the nose); so they are relaxed by
    the local stretch, which spreads the texels evenly over the surface [2]_. All weights stay positive.

    Parameters
    ----------
    face : MorphableModel
        Face part only; errors are those of `make_chart`.

    Returns
    -------
    np.ndarray
        (V, 2) float64 in [0, 1], mirror-symmetric where the topology is, whole steps of `GRID`.

    References
    ----------
    .. [1] M. Floater, Mean value coordinates, 2003.
    .. [2] S. Yoshizawa, A. Belyaev, H.-P. Seidel, A fast and simple stretch-minimizing mesh parameterization, 2004.
    """
    triangles = _closed(face)
    uv = _convex_combinations(face.mean_shape.astype(np.float64), triangles)
    return _on_grid(_symmetrized(uv, triangles, face.mirror))


def round_trip_error(model: MorphableModel, chart: Chart) -> tuple[float, float]:
    """Return the mean and the greatest distance, mm, that the mean face's vertices move through a map and back.

    Parameters
    ----------
    model : MorphableModel
        The model the chart was made of.
    chart : Chart
        The chart.

    Returns
    -------
    tuple[float, float]
        Mean and maximum, mm.
    """
    vertices = model.face_only().mean_shape.astype(np.float64)
    moved = np.linalg.norm(chart.sample(chart.unwrap(vertices)) - vertices, axis=1)
    return float(moved.mean()), float(moved.max())


def _pixels(uv, size):
    """(V, 2) column and row of uv, float64."""
    return np.stack([uv[:, 0], 1 - uv[:, 1].astype(np.float64)], -1) * (size - 1)


def _apply(matrix, columns):
    """Apply an (N, M) sparse matrix to the last axis of a (..., M) array, a few columns at a time to stay in cache."""
    dtype = np.result_type(columns.dtype, np.float32)
    matrix, flat = matrix.astype(dtype, copy=False), columns.reshape(-1, matrix.shape[1])
    applied = np.empty((len(flat), matrix.shape[0]), dtype)
    for start in range(0, len(flat), _COLUMNS):
        some = slice(start, start + _COLUMNS)
        applied[some] = (matrix @ np.ascontiguousarray(flat[some].T, dtype)).T
    return applied.reshape(*columns.shape[:-1], matrix.shape[0])


def _rasterized(pixels, depth, triangles, size):
    """Triangle and weights of each texel, with the ring of texels that reads at the vertices may touch."""
    ids, barycentric = rasterize(pixels, depth, triangles, size, size)
    texels, weights = bilinear_taps(pixels, size, size)
    needed = binary_dilation(ids >= 0, np.ones((3, 3)))
    needed.ravel()[texels[weights > 0]] = True
    ring = np.flatnonzero(needed & (ids < 0))
    if len(ring):
        ids.ravel()[ring], barycentric.reshape(-1, 3)[ring] = _continued(pixels, triangles, ring % size, ring // size)
    return ids, barycentric


def _continued(pixels, triangles, column, row):
    """Of the triangles near each texel outside the mesh, the one least outside of which it lies, and its weights."""
    corners = pixels[triangles]  # (F, 3, 2)
    side_b, side_c = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = side_b[:, 0] * side_c[:, 1] - side_b[:, 1] * side_c[:, 0]
    solid = np.flatnonzero(np.abs(area) > 1e-9)
    places = np.stack([column, row], -1).astype(np.float64)
    _, near = cKDTree(corners[solid].mean(1)).query(places, k=min(_NEAR_TRIANGLES, len(solid)))
    near = solid[near.reshape(len(places), -1)]
    offset = places[:, None] - corners[near, 0]
    b = (offset[..., 0] * side_c[near, 1] - offset[..., 1] * side_c[near, 0]) / area[near]
    c = (offset[..., 1] * side_b[near, 0] - offset[..., 0] * side_b[near, 1]) / area[near]
    weights = np.stack([1 - b - c, b, c], -1)
    best = weights.min(-1).argmax(1)
    each = np.arange(len(places))
    return near[each, best], weights[each, best]


def _cylindrical_uv(mean_shape):
    """Angle and height about the vertical axis at the rearmost point's depth, and the distance from the axis."""
    x, y, z = mean_shape.astype(np.float64).T
    angle, radius = np.arctan2(x, z - z.min()), np.hypot(x, z - z.min())
    u = 0.5 + angle / (2 * np.abs(angle).max())
    return np.stack([u, (y - y.min()) / np.ptp(y)], -1), radius


def _symmetrized(uv, triangles, mirror):
    """Make ``u' = 1 - u, v' = v`` for mirror twins, if the triangles are symmetric."""
    def as_set(corners):
        corners = np.sort(corners, axis=1).astype(np.int64)
        return np.unique((corners[:, 0] * len(uv) + corners[:, 1]) * len(uv) + corners[:, 2])

    own = as_set(triangles)
    if np.array_equal(mirror[mirror], np.arange(len(mirror))) and np.array_equal(own, as_set(mirror[triangles])):
        uv = (uv + np.stack([1 - uv[mirror, 0], uv[mirror, 1]], -1)) / 2
    return uv


def _closed(face):
    """(F, 3) triangles of a face, those that close the mouth included."""
    return np.concatenate([face.triangles, face.mouth_triangles])


def _on_grid(uv):
    """Coordinates as whole steps of the grid."""
    return np.rint(uv * GRID) / GRID


def _convex_combinations(mean_shape, triangles):
    """(V, 2) places in the unit square, by `harmonic_uv`."""
    vertices, triangles, outline = _banded_disc(mean_shape, triangles)
    free = np.setdiff1d(np.arange(len(vertices)), outline)
    weights = _mean_value_weights(vertices, triangles)
    uv = np.empty((len(vertices), 2))
    uv[outline] = _on_rounded_square(vertices[outline])
    for relax in range(_STRETCH_ROUNDS + 1):
        if relax:
            weights = (weights @ sparse.diags_array(1 / _vertex_stretch(vertices, triangles, uv))).tocsr()
        rows = weights[free]
        system = sparse.diags_array(rows.sum(1)) - rows[:, free]
        uv[free] = splu(system.tocsc()).solve(rows[:, outline] @ uv[outline])
    uv = uv[:len(mean_shape)]
    reach, low, high = np.abs(uv[:, 0] - 0.5).max(), uv[:, 1].min(), uv[:, 1].max()
    return np.stack([0.5 + (uv[:, 0] - 0.5) / (2 * reach), (uv[:, 1] - low) / (high - low)], 1)


def _banded_disc(mean_shape, triangles):
    """The mesh with its holes filled by fans and a band about its outline; returns the band's outer vertices too."""
    outline, *holes = boundary_loops(triangles) or [[]]
    fans = [
        np.stack([np.full(len(hole), len(mean_shape) + k), np.roll(hole, -1), hole], 1) for k, hole in enumerate(holes)
    ]
    closed = np.concatenate([triangles, *fans])
    count = len(mean_shape) + len(holes)
    low, high = np.sort(closed[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).astype(np.int64), axis=1).T
    parts, _ = connected_components(sparse.coo_array((np.ones(len(low)), (low, high)), (count, count)), directed=False)
    euler = count - len(np.unique(low * count + high)) + len(closed)
    if parts != 1 or euler != 1:
        raise ValueError(
            f"a harmonic chart needs a face in one piece with one outline, got {parts} pieces and Euler "
            f"characteristic {euler}; remove loose parts such as eyeballs, or choose another chart"
        )

    def smoothed(loop):
        for _ in range(_SMOOTHING_ROUNDS):
            loop = (np.roll(loop, 1, axis=0) + 2 * loop + np.roll(loop, -1, axis=0)) / 4
        return loop

    path = smoothed(mean_shape[outline])
    outward = smoothed(np.cross(
        np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0), vertex_normals(mean_shape, triangles)[outline]
    ))
    length = np.linalg.norm(np.roll(path, -1, axis=0) - path, axis=1).sum()
    outer = path + outward / np.linalg.norm(outward, axis=1, keepdims=True) * _BAND * length
    vertices = np.concatenate([mean_shape, *(mean_shape[hole].mean(0, keepdims=True) for hole in holes), outer])
    outer = np.arange(len(vertices) - len(outline), len(vertices))
    following, outer_following = np.roll(outline, -1), np.roll(outer, -1)
    # both diagonals meet in a centre, so that the band is as symmetric as the outline
    centres = (vertices[outline] + vertices[following] + vertices[outer] + vertices[outer_following]) / 4
    centre = np.arange(len(vertices), len(vertices) + len(outline))
    band = [(following, outline), (outline, outer), (outer, outer_following), (outer_following, following)]
    band = np.concatenate([np.stack([a, b, centre], 1) for a, b in band])
    return np.concatenate([vertices, centres]), np.concatenate([closed, band]), outer


def _on_rounded_square(path):
    """(N, 2) places in proportion to arc length; where a closed path crosses x = 0 stays in the middle."""
    following = np.roll(path, -1, axis=0)
    start = np.concatenate([[0], np.cumsum(np.linalg.norm(following - path, axis=1))])
    crossing = np.flatnonzero((path[:, 0] >= 0) != (following[:, 0] >= 0))
    at = start[crossing] + path[crossing, 0] / (path[crossing, 0] - following[crossing, 0]) * np.diff(start)[crossing]
    top, bottom = at[path[crossing, 1].argmax()], at[path[crossing, 1].argmin()]
    down = (bottom - top) % start[-1]
    along = (start[:-1] - top) % start[-1]
    turn = np.where(along < down, along / down, 1 + (along - down) / (start[-1] - down)) / 2  # 0 top, 1/2 bottom
    angle = np.linspace(0, 2 * np.pi, 4097)
    curve = np.stack([-np.sin(angle), np.cos(angle)], 1)
    curve /= (np.abs(curve) ** _SQUARENESS).sum(1, keepdims=True) ** (1 / _SQUARENESS)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    return np.stack([np.interp(turn * length[-1], length, curve[:, k]) for k in range(2)], 1) / 2 + 0.5


def _mean_value_weights(vertices, triangles):
    """(V, V) csr: from vertex i to neighbour j, the tangents of half the angles beside the edge over its length."""
    count = len(vertices)
    total = sparse.csr_array((count, count))
    for k in range(3):
        i, j, h = (triangles[:, (k + s) % 3] for s in range(3))
        to_j, to_h = vertices[j] - vertices[i], vertices[h] - vertices[i]
        length_j, length_h = np.linalg.norm(to_j, axis=1), np.linalg.norm(to_h, axis=1)
        half_tangent = np.linalg.norm(np.cross(to_j, to_h), axis=1) / (length_j * length_h + (to_j * to_h).sum(1))
        values = np.concatenate([half_tangent / length_j, half_tangent / length_h])
        total += sparse.csr_array((values, (np.tile(i, 2), np.concatenate([j, h]))), (count, count))
    return total


def _vertex_stretch(vertices, triangles, uv):
    """(V,) root mean square stretch of the map from uv to the surface, averaged over each vertex's triangles."""
    corners, flat = vertices[triangles], uv[triangles]
    area = ((flat[:, 1, 0] - flat[:, 0, 0]) * (flat[:, 2, 1] - flat[:, 0, 1])
            - (flat[:, 2, 0] - flat[:, 0, 0]) * (flat[:, 1, 1] - flat[:, 0, 1]))
    along_u = sum(corners[:, k] * (flat[:, k - 2, 1] - flat[:, k - 1, 1])[:, None] for k in range(3)) / area[:, None]
    along_v = sum(corners[:, k] * (flat[:, k - 1, 0] - flat[:, k - 2, 0])[:, None] for k in range(3)) / area[:, None]
    squared = ((along_u**2).sum(1) + (along_v**2).sum(1)) / 2
    surface = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    total, weight = (
        np.bincount(triangles.ravel(), np.repeat(value, 3), len(vertices)) for value in (surface * squared, surface)
    )
    return np.sqrt(total / weight)
