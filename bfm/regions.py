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
_MARGIN = 0.04


def label_regions(mean_shape: np.ndarray, triangles: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Label every vertex.

    The face is bounded by the jaw line, and from its ends before the ears by an ellipse over the forehead, as high
    as the hairline is by the rule of thirds; it is one sheet without pinched corners. Eyes (with the brows), nose
    and mouth are the widened hulls of their landmarks in the front view.

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
    unit = float(np.linalg.norm(points[45] - points[36]))
    face = _one_sheet(_inside_outline(mean_shape, points, unit), triangles, landmarks)
    off = np.flatnonzero(~face[landmarks])
    if len(off):
        raise ValueError(
            f"the 68 landmarks must lie on one face sheet, landmark {off[0] + 1} does not; check that landmarks and "
            "mesh are of one model, upright and facing +z"
        )
    regions = np.where(face, REGIONS.index("face"), REGIONS.index("outside")).astype(np.uint8)
    for name, of_feature in _FEATURES.items():
        outline = points[of_feature, :2]
        hull = outline[ConvexHull(outline).vertices]
        regions[face & (_distance(mean_shape[:, :2], hull) < _WIDEN[name] * unit)] = REGIONS.index(name)
    return regions


def _inside_outline(mean_shape: np.ndarray, points: np.ndarray, unit: float) -> np.ndarray:
    """(V,) bool: between jaw, ears and hairline, on the cylinder about a vertical axis between the ears."""
    axis = (points[0] + points[16]) / 2
    radius = np.linalg.norm(points[16] - axis)

    def unrolled(xyz: np.ndarray) -> np.ndarray:
        """Azimuth as a length on the cylinder, and height above the ears' landmarks."""
        offset = xyz - axis
        return np.stack([radius * np.arctan2(offset[:, 0], offset[:, 2]), offset[:, 1]], 1)

    jaw = unrolled(points[:17])
    # rule of thirds: chin to nose base, nose base to brows, brows to hairline
    brows = points[17:27, 1].mean()
    hairline = brows + (brows - points[8, 1]) / 2 - axis[1]
    turn = np.linspace(0, np.pi, 33)[1:-1, None]
    sides = np.where(turn < np.pi / 2, jaw[16, 0], -jaw[0, 0])
    forehead = np.concatenate([np.cos(turn) * sides, np.sin(turn) * hairline], 1)
    return _distance(unrolled(mean_shape), np.concatenate([jaw, forehead])) < _MARGIN * unit


def _distance(queries: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """(N,) distance of (N, 2) queries from the inside of a closed outline (M, 2); 0 within."""
    side = np.roll(outline, -1, axis=0) - outline
    offset = queries[:, None] - outline
    along = np.clip((offset * side).sum(axis=-1) / np.maximum((side**2).sum(axis=-1), 1e-12), 0, 1)
    distance = np.linalg.norm(offset - along[..., None] * side, axis=-1).min(axis=1)
    # even-odd rule: how many sides a ray to the right of the query crosses
    crosses = (offset[..., 1] < 0) != (offset[..., 1] < side[:, 1])
    left = offset[..., 0] * side[:, 1] < offset[..., 1] * side[:, 0]
    inside = (crosses & (left == (side[:, 1] > 0))).sum(axis=1) % 2 == 1
    return np.where(inside, 0, distance)


def _one_sheet(inside: np.ndarray, triangles: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Keep the part of the mesh, joined through edges, that holds the nose; cut off what hangs by a corner."""
    inside = inside.copy()
    while True:
        kept = triangles[inside[triangles].all(axis=1)]
        if not len(kept):
            return np.zeros_like(inside)
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
