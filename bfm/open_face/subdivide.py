"""Subdivision of a triangle mesh as one linear operator: each triangle becomes four.

All weights are multiples of a power of two, so that applied in float64 to coordinates on a coarse binary
grid every product and sum is exact: the result doesn't depend on the machine.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


def split_triangles(triangles: np.ndarray, vertex_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the subdivided triangles, and the edges whose midpoints are the new vertices.

    Parameters
    ----------
    triangles : np.ndarray
        (F, 3) vertex indices.
    vertex_count : int
        Number of vertices V; the new vertices are numbered V, V + 1, ...

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (4 F, 3) triangles with the same winding, and (E, 2) edges in the order of the new vertices,
        lower index first.
    """
    corners = np.asarray(triangles)
    sides = np.sort(np.stack([corners, np.roll(corners, -1, axis=1)], -1), axis=-1)  # ab, bc, ca
    edges, edge_of_side = np.unique(sides.reshape(-1, 2), axis=0, return_inverse=True)
    ab, bc, ca = (edge_of_side.reshape(-1, 3) + vertex_count).T
    a, b, c = corners.T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.stack([np.stack(part, 1) for part in parts], 1).reshape(-1, 3), edges


def midpoint_operator(edges: np.ndarray, vertex_count: int) -> sparse.csr_array:
    """Return the (V + E, V) operator that keeps the vertices and puts the new ones halfway along `edges`."""
    count = len(edges)
    halves = sparse.csr_array(
        (np.full(2 * count, 0.5), (np.repeat(np.arange(count), 2), edges.ravel())), shape=(count, vertex_count)
    )
    return sparse.vstack([sparse.eye_array(vertex_count), halves], format="csr")


def subdivide(
    values: np.ndarray, triangles: np.ndarray, mirror: np.ndarray, levels: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values, triangles and mirror map on the subdivided mesh.

    Parameters
    ----------
    values : np.ndarray
        (K, V, C) values at the vertices, any kind: shapes, modes, colours.
    triangles : np.ndarray
        (F, 3) vertex indices.
    mirror : np.ndarray
        (V,) mirror twin of each vertex.
    levels : int
        How many times each triangle becomes four.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, np.ndarray]
        (K, V', C) float32 values, (4**levels F, 3) int32 triangles and (V',) int32 mirror map. The old
        vertices keep their numbers.
    """
    count = values.shape[1]
    operator = sparse.eye_array(count, format="csr")
    for _ in range(levels):
        triangles, edges = split_triangles(triangles, len(mirror))
        operator = midpoint_operator(edges, len(mirror)) @ operator
        mirror = _mirror_edges(edges, mirror)
    fine = np.stack([(operator @ mode).astype(np.float32) for mode in values.astype(np.float64)])
    return fine, triangles.astype(np.int32), mirror.astype(np.int32)


def _mirror_edges(edges: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Return the mirror map extended to the vertices at the edges' midpoints."""
    count = len(mirror)
    twins = np.sort(mirror[edges], axis=1)
    place = np.searchsorted(edges[:, 0] * count + edges[:, 1], twins[:, 0] * count + twins[:, 1])
    return np.concatenate([mirror, count + place])
