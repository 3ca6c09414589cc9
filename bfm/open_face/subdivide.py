"""Loop subdivision of a triangle mesh as one linear operator: each triangle becomes four, smoothly.

All weights are multiples of 1/512, so that applied in float64 to coordinates on a coarse binary grid every
product and sum is exact: the result doesn't depend on the machine.

Dimension key: V vertices, F triangles, E edges.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

WEIGHT_STEP = 2.0**-9


def subdivision(
    triangles: np.ndarray, mirror: np.ndarray, levels: int
) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    """Return the operator that subdivides values at vertices, and the topology that goes with it.

    Parameters
    ----------
    triangles : np.ndarray
        (F, 3) vertex indices of a manifold mesh.
    mirror : np.ndarray
        (V,) mirror twin of each vertex; the triangles are mirror-symmetric.
    levels : int
        How many times each triangle becomes four.

    Returns
    -------
    tuple[sparse.csr_array, np.ndarray, np.ndarray]
        (V', V) operator, its rows sum to 1; (4**levels F, 3) int32 triangles with the same winding; (V',)
        int32 mirror map. The old vertices keep their numbers.
    """
    operator = sparse.eye_array(len(mirror), format="csr")
    for _ in range(levels):
        triangles, edges, opposite = _split(np.asarray(triangles, np.int64), len(mirror))
        operator = _loop_operator(edges, opposite, len(mirror)) @ operator
        mirror = _mirror_with_edges(edges, np.asarray(mirror, np.int64))
    return operator, triangles.astype(np.int32), mirror.astype(np.int32)


def _split(triangles: np.ndarray, vertex_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the (4 F, 3) triangles, (E, 2) edges whose vertices are the new ones, and (E, 2) corners opposite.

    An edge of the boundary has -1 for its second opposite corner.
    """
    sides = np.sort(np.stack([triangles, np.roll(triangles, -1, axis=1)], -1), axis=-1).reshape(-1, 2)  # ab, bc, ca
    key, edge_of_side = np.unique(sides[:, 0] * vertex_count + sides[:, 1], return_inverse=True)
    edges = np.stack([key // vertex_count, key % vertex_count], 1)
    corner = np.roll(triangles, 1, axis=1).ravel()  # c, a, b
    order = np.argsort(edge_of_side, kind="stable")
    start = np.searchsorted(edge_of_side[order], np.arange(len(edges) + 1))
    shared = np.diff(start) == 2
    opposite = np.stack([corner[order[start[:-1]]], np.full(len(edges), -1)], 1)
    opposite[shared, 1] = corner[order[start[:-1][shared] + 1]]
    ab, bc, ca = (edge_of_side.reshape(-1, 3) + vertex_count).T
    a, b, c = triangles.T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.stack([np.stack(part, 1) for part in parts], 1).reshape(-1, 3), edges, opposite


def _loop_operator(edges: np.ndarray, opposite: np.ndarray, count: int) -> sparse.csr_array:
    """Return the (V + E, V) operator of one level.

    Inside: Loop's rules with Warren's weight 3 / (8 valence), rounded. On the boundary: the cubic spline.
    """
    rim = opposite[:, 1] < 0
    number = np.arange(len(edges))

    def matrix(rows: np.ndarray, columns: np.ndarray, values: float | np.ndarray, height: int) -> sparse.csr_array:
        values = np.broadcast_to(values, rows.shape).ravel().astype(np.float64)
        return sparse.csr_array((values, (rows.ravel(), columns.ravel())), shape=(height, count))

    new = (
        matrix(np.stack([number, number], 1), edges, np.where(rim, 0.5, 0.375)[:, None], len(edges))
        + matrix(np.stack([number, number], 1)[~rim], opposite[~rim], 0.125, len(edges))
    )
    on_rim = np.zeros(count, bool)
    on_rim[edges[rim]] = True
    valence = np.bincount(edges.ravel(), minlength=count)
    pull = np.where(valence == 3, 0.1875, np.round(0.375 / np.maximum(valence, 1) / WEIGHT_STEP) * WEIGHT_STEP)
    pull = np.where(on_rim, 0.125, pull)
    both = np.concatenate([edges, edges[:, ::-1]])  # vertex, neighbour
    used = ~on_rim[both[:, 0]] | np.concatenate([rim, rim])
    both = both[used]
    stay = 1 - pull * np.bincount(both[:, 0], minlength=count)
    old = matrix(both[:, 0], both[:, 1], pull[both[:, 0]], count) + matrix(
        np.arange(count), np.arange(count), stay, count
    )
    return sparse.vstack([old, new], format="csr")


def _mirror_with_edges(edges: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Return the mirror map extended to the new vertices on the edges."""
    count = len(mirror)
    twins = np.sort(mirror[edges], axis=1)
    place = np.searchsorted(edges[:, 0] * count + edges[:, 1], twins[:, 0] * count + twins[:, 1])
    return np.concatenate([mirror, count + place])
