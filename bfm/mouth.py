"""Holes of a face mesh, and the triangles that close them in a UV chart."""

from __future__ import annotations

import numpy as np

INNER_LIPS = slice(60, 68)


def close_mouth(triangles: np.ndarray, mean_shape: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Return the triangles that close the gap between the lips.

    The gap is the hole of the mesh that lies nearest to the inner-lip landmarks. Its upper and lower rims are
    zipped from corner to corner; a symmetric rim gives symmetric triangles.

    Parameters
    ----------
    triangles : np.ndarray
        (F, 3) triangles of the surface, consistently wound.
    mean_shape : np.ndarray
        (V, 3) mm.
    landmarks : np.ndarray
        (68,) landmark vertices.

    Returns
    -------
    np.ndarray
        (M, 3) int32, wound as `triangles`; empty where the mouth has no gap.
    """
    return close_hole(triangles, mean_shape, landmarks[INNER_LIPS])


def close_hole(triangles: np.ndarray, mean_shape: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Return the triangles that close the hole around some vertices, (M, 3) int32, wound as `triangles`.

    Parameters
    ----------
    triangles : np.ndarray
        (F, 3) triangles of the surface, consistently wound.
    mean_shape : np.ndarray
        (V, 3) mm.
    around : np.ndarray
        (N,) vertices about the hole, such as landmarks of a lid or lip; the hole must lie among them.

    Returns
    -------
    np.ndarray
        (M, 3) int32; empty where there is no such hole.
    """
    outline = mean_shape[around]
    centre = outline.mean(axis=0)
    reach = np.linalg.norm(outline - centre, axis=1).max()
    holes = [loop for loop in boundary_loops(triangles)
             if np.linalg.norm(mean_shape[loop] - centre, axis=1).max() < 1.5 * reach]
    if not holes:
        return np.zeros((0, 3), np.int32)
    nearest = min(holes, key=lambda loop: np.linalg.norm(mean_shape[loop].mean(axis=0) - centre))
    return _zip_loop(nearest, mean_shape)


def boundary_loops(triangles: np.ndarray) -> list[np.ndarray]:
    """Return the closed loops of edges that only one triangle has, longest first.

    Parameters
    ----------
    triangles : np.ndarray
        (F, 3) consistently wound.

    Returns
    -------
    list[np.ndarray]
        Vertices of each loop, in the order the triangles' edges run. Where loops touch in a vertex they are
        taken apart there.
    """
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).astype(np.int64)
    stride = int(triangles.max()) + 1 if len(triangles) else 1
    rim = edges[~np.isin(edges[:, 0] * stride + edges[:, 1], edges[:, 1] * stride + edges[:, 0])]
    onward: dict[int, list[int]] = {}
    for start, end in rim.tolist():
        onward.setdefault(start, []).append(end)
    loops = []
    for start in list(onward):
        while onward[start]:
            path, seen = [start], {start: 0}
            while onward.get(path[-1]):  # None where an edge has three triangles
                vertex = onward[path[-1]].pop()
                if vertex in seen:  # a loop is closed: cut it off and go on from where it was joined
                    loops.append(np.array(path[seen[vertex]:], np.int64))
                    for dropped in path[seen[vertex] + 1:]:
                        del seen[dropped]
                    del path[seen[vertex] + 1:]
                else:
                    seen[vertex] = len(path)
                    path.append(vertex)
    return sorted(loops, key=len, reverse=True)


def _zip_loop(loop: np.ndarray, mean_shape: np.ndarray) -> np.ndarray:
    """Fill a slit-like loop: both rims, cut at the outermost left and right, are zipped by their x."""
    loop = np.roll(loop, -int(mean_shape[loop, 0].argmin()))
    turn = int(mean_shape[loop, 0].argmax())
    # the surface's edges run along the loop, so new triangles run against it
    there, back = loop[:turn + 1], np.concatenate([loop[:1], loop[:turn - 1:-1]])
    # halfway points between neighbours: the zip is then the same from either end
    steps = [(np.maximum.accumulate(mean_shape[rim, 0])[:-1] + np.maximum.accumulate(mean_shape[rim, 0])[1:]) / 2
             for rim in (there, back)]
    i = j = 0
    filled = []
    while i < len(there) - 1 or j < len(back) - 1:
        forward = j == len(back) - 1 or (i < len(there) - 1 and steps[0][i] <= steps[1][j])
        if forward:
            filled.append((there[i + 1], there[i], back[j]))
            i += 1
        else:
            filled.append((there[i], back[j], back[j + 1]))
            j += 1
    kept = [triangle for triangle in filled if len(set(triangle)) == 3]
    return np.array(kept, np.int32).reshape(-1, 3)
