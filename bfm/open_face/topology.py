"""Cut the face out of MakeHuman's head: a disc with closed eyes and a mouth slit, as a linear operator.

Every vertex of the face is a fixed linear combination of MakeHuman's vertices (a row of `FaceCut.operator`),
so that one matrix product takes any target to the face. Only the left half is made; the right half is its
mirror image, which makes everything symmetric by construction.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.interpolate import CubicSpline
from scipy.sparse.linalg import spsolve

from bfm.open_face.makehuman import MakeHuman

# closed edge loops of MakeHuman's base mesh, given by one directed edge each
LEFT_LID_LOOP = (13352, 13353)
LIP_LOOP = (554, 7297)
INNER_LIP_LOOPS = (LIP_LOOP, (537, 7282))
LIP_LOOPS = INNER_LIP_LOOPS + ((520, 7267), (474, 7229), (468, 7224))
LASH_LOOP = (6784, 6790)
EYE_RINGS = (0.84, 0.67, 0.5, 0.33, 0.16)
# outline of the face in the side view, decimetres (z, y), from the hairline past the ear to under the chin
OUTLINE = (
    (1.33, 8.05), (1.12, 7.93), (0.88, 7.72), (0.69, 7.45), (0.605, 7.20), (0.61, 6.95), (0.63, 6.72), (0.74, 6.50),
    (0.93, 6.32), (1.10, 6.22),
)
OUTLINE_CENTRE = (1.25, 7.10)
SNAP = 0.3  # an edge cut closer than this to one of its ends moves that end instead


@dataclass(frozen=True)
class FaceCut:
    """The face's topology and the way to it from MakeHuman's vertices.

    Attributes
    ----------
    operator : sparse.csr_array
        (V, V_makehuman): face vertices are ``operator @ makehuman + bulge``.
    bulge : np.ndarray
        (V, 3) constant offset, non-zero on the eyes' inside only: the roundness of the eyeball.
    triangles : np.ndarray
        (F, 3), outward.
    mirror : np.ndarray
        (V,) mirror twins.
    areas : dict[str, np.ndarray]
        Vertices of ``eye`` (inside the lid rims), ``lash`` (upper lid margins), ``lips`` (where they meet and
        behind) and ``mouth_inside``.
    index_of : dict[int, int]
        Face vertex of each MakeHuman vertex that is kept as it is.
    """

    operator: sparse.csr_array
    bulge: np.ndarray
    triangles: np.ndarray
    mirror: np.ndarray
    areas: dict[str, np.ndarray]
    index_of: dict[int, int]


def cut_face(source: MakeHuman, head: np.ndarray) -> FaceCut:
    """Cut the face, deciding everything on the average `head`.

    Parameters
    ----------
    source : MakeHuman
        Base mesh; only its topology is used.
    head : np.ndarray
        (V_makehuman, 3) average shape, decimetres, exactly mirror-symmetric.

    Returns
    -------
    FaceCut
        The cut.
    """
    near = head[source.quads].mean(1)
    quads = source.quads[(near[:, 1] > 5.8) & (np.abs(near[:, 0]) < 0.95)]
    mesh = _QuadMesh(quads)
    lid_rim, lips = mesh.loop(*LEFT_LID_LOOP), mesh.loop(*LIP_LOOP)
    lash_loop = mesh.loop(*LASH_LOOP)
    lashes = [v for v in lash_loop if head[v, 1] > head[lash_loop, 1].mean() + 0.01]
    inside = mesh.flood(7773, lid_rim) | mesh.flood(622, lips)
    left = quads[(head[quads][..., 0] > -1e-9).all(1) & ~np.isin(quads, list(inside)).any(1)]
    diagonal = np.linalg.norm(head[left[:, [0, 1]]] - head[left[:, [2, 3]]], axis=-1)
    first = (diagonal[:, 0] <= diagonal[:, 1])[:, None]
    triangles = np.concatenate([
        np.where(first, left[:, [0, 1, 2]], left[:, [0, 1, 3]]), np.where(first, left[:, [0, 2, 3]], left[:, [1, 2, 3]])
    ])
    rows, triangles = _clip(head, triangles)
    centre, radius = _eyeball(head)
    patch_rows, patch_bulge, patch_triangles = _eye_patch(head, lid_rim, centre, radius, len(rows))
    # local indices: kept vertices first, then the eye's
    triangles = np.concatenate([triangles, patch_triangles])
    rows += patch_rows
    bulge = np.zeros((len(rows), 3))
    bulge[len(rows) - len(patch_rows):] = patch_bulge
    used, triangles = np.unique(triangles, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    eye = np.flatnonzero(used >= len(rows) - len(patch_rows))
    rows, bulge = [rows[i] for i in used], bulge[used]

    half = _row_matrix(rows, len(head))
    x = (half @ head)[:, 0]
    middle = np.abs(x) < 1e-9
    side = np.flatnonzero(~middle)
    count = len(rows)
    twin = np.arange(count)
    twin[side] = count + np.arange(len(side))
    flip = sparse.csr_array((np.ones(len(head)), (np.arange(len(head)), source.twin)))
    operator = sparse.vstack([half, half[side] @ flip], format="csr")
    mirror = np.concatenate([twin, side])
    index_of = {next(iter(row)): i for i, row in enumerate(rows) if len(row) == 1}
    index_of |= {int(source.twin[v]): int(mirror[i]) for v, i in index_of.items()}
    return FaceCut(
        operator=operator,
        bulge=np.concatenate([bulge, bulge[side] * [-1, 1, 1]]),
        triangles=np.concatenate([triangles, twin[triangles][:, ::-1]]),
        mirror=mirror,
        areas={
            "eye": np.concatenate([eye, mirror[eye]]),
            "lash": np.array([index_of[v] for v in lashes + source.twin[lashes].tolist()]),
            "lips": np.array([index_of[v] for edge in LIP_LOOPS for v in mesh.loop(*edge)]),
            "mouth_inside": np.array([index_of[v] for edge in INNER_LIP_LOOPS for v in mesh.loop(*edge)]),
        },
        index_of=index_of,
    )


class _QuadMesh:
    """Neighbourhood queries on a quad mesh."""

    def __init__(self, quads: np.ndarray):
        self.neighbours, self.faces = defaultdict(set), defaultdict(set)
        for face, quad in enumerate(quads.tolist()):
            for a, b in zip(quad, quad[1:] + quad[:1]):
                self.neighbours[a].add(b)
                self.neighbours[b].add(a)
                self.faces[frozenset((a, b))].add(face)

    def loop(self, first: int, second: int) -> list[int]:
        """Follow an edge straight across vertices of valence four until it closes."""
        loop = [first, second]
        while True:
            behind, here = loop[-2:]
            taken = self.faces[frozenset((behind, here))]
            ahead = [
                v for v in self.neighbours[here] if v != behind and not taken & self.faces[frozenset((here, v))]
            ]
            assert len(ahead) == 1, f"the edge loop stops at vertex {here}"
            if ahead[0] == first:
                return loop
            loop.append(ahead[0])

    def flood(self, seed: int, wall: list[int]) -> set[int]:
        """Return the vertices that `seed` reaches without crossing `wall`."""
        reached, front, wall = {seed}, [seed], set(wall)
        while front:
            new = self.neighbours[front.pop()] - reached - wall
            reached |= new
            front += new
        return reached


def _clip(head: np.ndarray, triangles: np.ndarray) -> tuple[list[dict[int, float]], np.ndarray]:
    """Cut triangles along the outline; return each vertex as weights of MakeHuman's, and the triangles kept."""
    level = _inside_outline(head)
    rows = [{v: 1.0} for v in range(len(head))]
    edges = np.unique(np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1),
                      axis=0)
    a, b = edges[level[edges[:, 0]] * level[edges[:, 1]] < 0].T
    along = level[a] / (level[a] - level[b])
    middle = np.abs(head[:, 0]) < 1e-9
    # move the nearer end of a cut edge onto the cut, nearest first; the midline stays on the midline
    ends = np.concatenate([np.stack([along, a, b], 1), np.stack([1 - along, b, a], 1)])
    level = level.copy()
    for share, vertex, other in ends[np.argsort(ends[:, 0], kind="stable")]:
        vertex, other = int(vertex), int(other)
        if share > SNAP or level[vertex] == 0 or (middle[vertex] and not middle[other]):
            continue
        rows[vertex] = {vertex: 1 - share, other: share}
        level[vertex] = 0.0
    cut = {}

    def crossing(p: int, q: int) -> int:
        key = (min(p, q), max(p, q))
        if key not in cut:
            share = level[key[0]] / (level[key[0]] - level[key[1]])
            cut[key] = len(rows)
            rows.append({key[0]: 1 - share, key[1]: share})
        return cut[key]

    kept = []
    for triangle in triangles.tolist():
        polygon = []
        for p, q in zip(triangle, triangle[1:] + triangle[:1]):
            if level[p] >= 0:
                polygon.append(p)
            if level[p] * level[q] < 0:
                polygon.append(crossing(p, q))
        if len(polygon) < 3 or all(v < len(level) and level[v] == 0 for v in polygon):
            continue
        kept += [(polygon[0], polygon[i], polygon[i + 1]) for i in range(1, len(polygon) - 1)]
    kept = np.array(kept)
    # what the outline leaves elsewhere (none, or scraps of the neck) goes with every piece but the largest
    graph = sparse.coo_array((np.ones(2 * len(kept)), (kept[:, [0, 1]].ravel(), kept[:, [1, 2]].ravel())),
                             shape=(len(rows), len(rows)))
    _, label = sparse.csgraph.connected_components(graph, directed=False)
    return rows, kept[label[kept[:, 0]] == np.bincount(label[kept[:, 0]]).argmax()]


def _inside_outline(points: np.ndarray) -> np.ndarray:
    """Return a level that is positive inside the outline of the side view, in decimetres from it."""
    z, y = (points[:, 2] - OUTLINE_CENTRE[0]), (points[:, 1] - OUTLINE_CENTRE[1])
    outline = np.array(OUTLINE) - OUTLINE_CENTRE
    angle = np.arctan2(outline[:, 1], -outline[:, 0])  # 0 toward the back of the head, growing upward
    order = np.argsort(angle)
    reach = CubicSpline(angle[order], np.hypot(*outline.T)[order], bc_type="natural")
    at = np.arctan2(y, -z)
    inside = reach(np.clip(at, angle.min(), angle.max())) - np.hypot(y, z)
    return np.where(np.abs(at) > 2.0, 1.0, inside)


def _eyeball(head: np.ndarray) -> tuple[np.ndarray, float]:
    """Return centre and radius of the left eyeball, as MakeHuman's socket vertices outline it."""
    socket = head[7799:7999]
    solution, *_ = np.linalg.lstsq(
        np.column_stack([2 * socket, np.ones(len(socket))]), (socket**2).sum(1), rcond=None
    )
    return solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


def _eye_patch(head: np.ndarray, rim: list[int], centre: np.ndarray, radius: float, start: int):
    """Close the lid rim with rings on the eyeball; inner vertices follow the rim harmonically.

    Returns rows, bulges and triangles, new vertices numbered from `start`.
    """
    points, count = head[rim], len(rim)
    pupil = np.array([centre[0], points[:, 1].mean()])
    flat = np.concatenate(
        [points[:, :2]] + [pupil + share * (points[:, :2] - pupil) for share in EYE_RINGS] + [pupil[None]]
    )
    triangles = []
    for ring in range(len(EYE_RINGS)):
        for i in range(count):
            a, b = ring * count + i, ring * count + (i + 1) % count
            triangles += [(a, b, a + count), (b, b + count, a + count)]
    last = len(EYE_RINGS) * count
    triangles += [(last + i, last + (i + 1) % count, len(flat) - 1) for i in range(count)]
    triangles = np.array(triangles)
    corner = flat[triangles]
    area = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    if area.sum() < 0:
        triangles = triangles[:, ::-1]
    weights = np.zeros((len(flat), len(flat)))
    for k in range(3):
        o, p, q = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        u, v = flat[p] - flat[o], flat[q] - flat[o]
        cotangent = (u * v).sum(1) / np.abs(np.cross(u, v))
        np.add.at(weights, (p, q), cotangent)
        np.add.at(weights, (q, p), cotangent)
    laplacian = np.diag(weights.sum(1)) - weights
    share = spsolve(sparse.csc_array(laplacian[count:, count:]), sparse.csc_array(-laplacian[count:, :count])).toarray()
    share[np.abs(share) < 1e-9] = 0
    share /= share.sum(1, keepdims=True)

    def ball(xy: np.ndarray) -> np.ndarray:
        return centre[2] + np.sqrt(np.clip(radius**2 - ((xy - centre[:2]) ** 2).sum(1), 0, None))

    inner = flat[count:]
    depth = share @ (points[:, 2] - ball(points[:, :2])) + ball(inner)
    bulge = np.column_stack([inner, depth]) - share @ points
    rows = [{v: w for v, w in zip(rim, row) if w} for row in share.tolist()]
    numbers = np.concatenate([rim, start + np.arange(len(inner))])
    return rows, bulge, numbers[triangles]


def _row_matrix(rows: list[dict[int, float]], width: int) -> sparse.csr_array:
    """Return the sparse matrix with these rows."""
    columns = [column for row in rows for column in row]
    values = [value for row in rows for value in row.values()]
    pointers = np.cumsum([0] + [len(row) for row in rows])
    return sparse.csr_array((values, columns, pointers), shape=(len(rows), width))
