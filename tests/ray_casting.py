"""Visibility from its definition: a ray from each point toward the camera meets no triangle."""

import numpy as np

_CLEAR = 1e-2  # pixels: the triangle that a point lies on is not before it


def rays_reach_camera(origins: np.ndarray, points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N,) for (N, 3) origins and a mesh in pixels and depth; Moeller and Trumbore's test, float64."""
    a, b, c = (points[triangles[:, corner]].astype(np.float64) for corner in range(3))
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    (low_x, low_y), (high_x, high_y) = (np.ascontiguousarray(side[:, :2].T) for side in (low, high))
    free = np.ones(len(origins), bool)
    for ray, origin in enumerate(origins.astype(np.float64)):
        x, y, depth = origin
        near = np.flatnonzero((low_x <= x) & (x <= high_x) & (low_y <= y) & (y <= high_y))
        near = near[high[near, 2] > depth]
        edge_b, edge_c, offset = b[near] - a[near], c[near] - a[near], origin - a[near]
        across = np.cross([0, 0, 1], edge_c)
        determinant = (edge_b * across).sum(1)
        solid = np.abs(determinant) > 1e-12
        scale = np.divide(1, determinant, out=np.zeros(len(solid)), where=solid)
        u, turned = (offset * across).sum(1) * scale, np.cross(offset, edge_b)
        v, distance = turned[:, 2] * scale, (edge_c * turned).sum(1) * scale
        free[ray] = not (solid & (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > _CLEAR)).any()
    return free
