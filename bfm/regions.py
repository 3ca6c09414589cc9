"""Which part of the face each vertex belongs to, from the mean shape and the 68 landmarks alone."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull

from bfm.morphable_model import REGIONS

# landmarks whose hull, widened, is a feature; a later one covers an earlier one where they meet
_FEATURES = {
    "eyes": np.r_[17:27, 36:48],
    "nose": np.r_[27:36],
    "mouth": np.r_[48:60],
}
# all lengths in units of the distance between the outer corners of the eyes (86 mm in the BFM mean)
_WIDEN = {"eyes": 0.13, "nose": 0.11, "mouth": 0.12}
_DEPTH = 0.35
_BELOW_JAW = 0.05
_BEHIND_EARS = 1.03  # this one in azimuths of the first landmark


def label_regions(mean_shape: np.ndarray, triangles: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Label every vertex.

    The face is bounded by the jaw line below, by the line of the ears (landmarks 1 and 17) behind, and by an
    ellipse over the forehead as high as the hairline is by the rule of thirds; it is one sheet without pinched
    corners. Eyes (with the brows), nose and mouth are the widened hulls of their landmarks in the front view.

    Parameters
    ----------
    mean_shape : np.ndarray
        (V, 3) mm, upright, facing +z.
    triangles : np.ndarray
        (F, 3).
    landmarks : np.ndarray
        (68,) landmark vertices.

    Returns
    -------
    np.ndarray
        (V,) uint8, indices into `REGIONS`.

    Raises
    ------
    ValueError
        If a landmark is not on the face sheet, as when landmarks or axes are of another model.
    """
    points = mean_shape[landmarks].astype(np.float64)
    unit = np.linalg.norm(points[45] - points[36])
    face = _one_sheet(_inside_outline(mean_shape, points, unit), triangles, landmarks)
    off = np.flatnonzero(~face[landmarks])
    if len(off):
        raise ValueError(
            f"the 68 landmarks must lie on one face sheet, landmark {off[0] + 1} does not; check that landmarks and "
            "mesh are of one model, upright and facing +z"
        )
    regions = np.where(face, REGIONS.index("face"), REGIONS.index("outside")).astype(np.uint8)
    for name, of_feature in _FEATURES.items():
        outline = points[of_feature]
        near = face & (mean_shape[:, 2] > outline[:, 2].min() - _DEPTH * unit)
        near[near] = _distance_to_hull(mean_shape[near, :2], outline[:, :2]) < _WIDEN[name] * unit
        regions[near] = REGIONS.index(name)
    return regions


def _distance_to_hull(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) distance of (N, 2) queries from the convex hull of points; 0 inside."""
    hull = ConvexHull(points)
    start = points[hull.vertices]
    side = np.roll(start, -1, axis=0) - start
    offset = queries[:, None] - start
    along = np.clip((offset * side).sum(axis=-1) / (side**2).sum(axis=-1), 0, 1)
    distance = np.linalg.norm(offset - along[..., None] * side, axis=-1).min(axis=1)
    inside = (queries @ hull.equations[:, :2].T + hull.equations[:, 2] <= 0).all(axis=1)
    return np.where(inside, 0, distance)


def _inside_outline(mean_shape: np.ndarray, points: np.ndarray, unit: float) -> np.ndarray:
    """(V,) bool: between jaw, ears and hairline, in cylindrical coordinates about a vertical axis between the ears."""
    axis = (points[0] + points[16]) / 2
    azimuth = np.arctan2(mean_shape[:, 0] - axis[0], mean_shape[:, 2] - axis[2])
    height = mean_shape[:, 1] - axis[1]
    jaw_azimuth = np.arctan2(points[:17, 0] - axis[0], points[:17, 2] - axis[2])
    jaw_height = points[:17, 1] - axis[1] - _BELOW_JAW * unit
    # rule of thirds: chin to nose base, nose base to brows, brows to hairline
    top = points[17:27, 1].mean() + (points[17:27, 1].mean() - points[8, 1]) / 2 - axis[1]
    side = np.where(azimuth < 0, jaw_azimuth[0], jaw_azimuth[16]) * _BEHIND_EARS
    above = (azimuth / side) ** 2 + (np.maximum(height, 0) / top) ** 2 <= 1
    order = np.argsort(jaw_azimuth)
    return above & (height >= np.interp(azimuth, jaw_azimuth[order], jaw_height[order]))


def _one_sheet(inside: np.ndarray, triangles: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Keep the part of the mesh, joined through edges, that holds the nose; cut off what hangs by a corner."""
    inside = inside.copy()
    while True:
        kept = triangles[inside[triangles].all(axis=1)]
        component = _edge_component(kept)
        of_nose = component[(kept == landmarks[30]).any(axis=1)]
        kept = kept[np.isin(component, of_nose[:1])]
        inside = np.zeros_like(inside)
        inside[kept] = True
        edges = np.sort(np.concatenate([kept[:, [0, 1]], kept[:, [1, 2]], kept[:, [2, 0]]]), axis=1)
        edge, count = np.unique(edges, axis=0, return_counts=True)
        rim_edges = np.bincount(edge[count == 1].ravel(), minlength=len(inside))
        if (rim_edges <= 2).all():
            return inside
        inside[rim_edges > 2] = False


def _edge_component(triangles: np.ndarray) -> np.ndarray:
    """(F,) number of the component of triangles joined through common edges."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    edge_id = np.unique(edges, axis=0, return_inverse=True)[1].ravel()
    owner = np.tile(np.arange(len(triangles)), 3)
    edge_count = int(edge_id.max()) + 1
    incidence = coo_array((np.ones(len(owner)), (owner, edge_id)), shape=(len(triangles), edge_count)).tocsr()
    return connected_components(incidence @ incidence.T, directed=False)[1]
