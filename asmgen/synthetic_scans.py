"""Scans of synthetic faces: what a 3D scanner before a face would give, with the truth.

The face, and about it something like hair and neck, is moved rigidly and sampled on a grid of depths, so that the mesh
of the scan has nothing to do with that of the face model, and ends where surfaces jump. Noise goes along the normals.

Dimension key: V vertices of the face model, N vertices and M triangles of the scan, H/W samples of the grid.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from asmgen.dataset_files import npy_bytes, write_whole
from asmgen.synthetic_faces import SyntheticFace
from bfm.morphable_model import MorphableModel
from bfm.mouth import boundary_loops
from bfm.pose import rotation_matrix
from bfm.rasterize import rasterize
from bfm.render import vertex_normals

TRUTH = "truth"
"""Folder of a dataset of scans for what no real one has."""

MIN_SPACING = 0.2  # mm; a scan has a million vertices then
_RINGS = 8
_RING_WIDTH = 4.0  # mm
_LONGEST_SIDE = 6.0  # of a triangle, in steps of the grid


class SyntheticScan(NamedTuple):
    """A scan and its truth.

    Attributes
    ----------
    vertices : np.ndarray
        (N, 3) float64, mm, in the axes of the scanner: x right, y up, z to the viewer. In no order.
    triangles : np.ndarray
        (M, 3) int32, ``cross(b - a, c - a)`` outward.
    uv : np.ndarray
        (N, 2) place in the texture, [0, 1], v up.
    texture : np.ndarray
        (H, W, 3) uint8.
    landmarks : np.ndarray
        (68, 3) mm, without noise, hidden ones included.
    on_face : np.ndarray
        (N,) bool: whether a vertex is of the face, not of hair or neck.
    motion : np.ndarray
        (4, 4) from the face model's axes to the scanner's, a rigid motion of column vectors, mm.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    landmarks: np.ndarray
    on_face: np.ndarray
    motion: np.ndarray


def write_truth(out_dir: Path, name: str, scan: SyntheticScan) -> None:
    """Write the motion of a scan, and which of its vertices are of the face, to ``<out>/truth/<name>_....npy``."""
    for what, array in (("motion", scan.motion), ("on_face", scan.on_face)):
        write_whole(out_dir / TRUTH / f"{name}_{what}.npy", npy_bytes(array))


def random_motion(rng: np.random.Generator, degrees: float, shift: float) -> np.ndarray:
    """Return a (4, 4) rigid motion with N(0, `degrees`) pitch, yaw and roll and N(0, `shift`) mm along each axis."""
    motion = np.eye(4)
    motion[:3, :3] = rotation_matrix(np.radians(rng.normal(0, degrees, 3)))
    motion[:3, 3] = rng.normal(0, shift, 3)
    return motion


def scan_face(
    model: MorphableModel, face: SyntheticFace, motion: np.ndarray, rng: np.random.Generator, noise: float = 0.1,
    spacing: float = 0.8,
) -> SyntheticScan:
    """Scan a face from the front.

    Parameters
    ----------
    model : MorphableModel
        The face's.
    face : SyntheticFace
        Who is scanned.
    motion : np.ndarray
        (4, 4) rigid, from the face model's axes to the scanner's, mm.
    rng : np.random.Generator
        Source of chance: where the grid lies, noise, order of the vertices.
    noise : float
        Standard deviation along the normal, mm.
    spacing : float
        Of the grid, mm.

    Returns
    -------
    SyntheticScan
        Without noise, its vertices lie on the moved triangles.
    """
    head, triangles, colours = _with_hair_and_neck(model, face)
    moved = head @ motion[:3, :3].T + motion[:3, 3]
    corner = np.array([moved[:, 0].min(), moved[:, 1].max()]) - spacing * rng.uniform(0, 1, 2)  # left, top
    points = (moved[:, :2] - corner) * [1, -1] / spacing
    width, height = np.ceil(points.max(axis=0)).astype(int) + 2
    ids, weights = rasterize(points, moved[:, 2] / spacing, triangles, height, width)
    seen = ids >= 0
    corners, weights = triangles[ids[seen]], weights[seen].astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    texture = np.zeros((height, width, 3), np.uint8)
    texture[seen] = np.rint(255 * np.clip(np.einsum("nk,nkc->nc", weights, colours[corners]), 0, 1))

    vertices = np.einsum("nk,nkc->nc", weights, moved[corners])
    mesh = _grid_triangles(seen)
    sides = vertices[mesh] - vertices[mesh[:, [1, 2, 0]]]
    mesh = mesh[np.linalg.norm(sides, axis=2).max(axis=1) < _LONGEST_SIDE * spacing]
    used = rng.permutation(np.unique(mesh))
    renumber = np.zeros(len(vertices), np.int32)
    renumber[used] = np.arange(len(used), dtype=np.int32)
    vertices, mesh = vertices[used], renumber[mesh]
    vertices = vertices + noise * rng.standard_normal((len(vertices), 1)) * vertex_normals(vertices, mesh)

    row, column = (index[used] for index in np.nonzero(seen))
    return SyntheticScan(
        vertices, mesh, np.stack([(column + 0.5) / width, 1 - (row + 0.5) / height], 1), texture,
        moved[model.landmarks], ids[seen][used] < len(model.triangles), motion,
    )


def _grid_triangles(seen: np.ndarray) -> np.ndarray:
    """(M, 3) two triangles for each square of four samples that were seen; they are numbered row by row."""
    number = np.full(seen.shape, -1, np.int32)
    number[seen] = np.arange(seen.sum())
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    return triangles[(triangles >= 0).all(axis=1)]


def _with_hair_and_neck(model: MorphableModel, face: SyntheticFace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (mm, float64), triangles and lit colours of the face and rings about its rim, hair above, neck below."""
    rim = boundary_loops(model.triangles)[0]
    start = face.vertices[rim].astype(np.float64)
    away = start[:, :2] - start[:, :2].mean(axis=0)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    above, below = np.clip(away[:, 1], 0, None), np.clip(-away[:, 1], 0, None)
    locks = np.sin(24 * np.arctan2(away[:, 1], away[:, 0]))
    rings = []
    for ring in range(1, _RINGS + 1):
        part = ring / _RINGS
        z = -4.0 * ring * (1 + below) + above * (16 * np.sin(np.pi * part) + 2 * locks * part)
        down = -6.0 * ring * below**2
        rings.append(start + np.stack([_RING_WIDTH * ring * away[:, 0], _RING_WIDTH * ring * away[:, 1] + down, z], 1))
    around, count = len(rim), len(face.vertices)
    numbers = np.concatenate([rim, count + np.arange(_RINGS * around)]).reshape(_RINGS + 1, around)
    inner, outer = numbers[:-1], numbers[1:]
    inner_next, outer_next = np.roll(inner, -1, axis=1), np.roll(outer, -1, axis=1)
    skirt = [np.stack(corners, -1).reshape(-1, 3) for corners in (
        (inner_next, inner, outer), (inner_next, outer, outer_next)  # against the rim, which runs with the face
    )]
    skin = face.colours[rim].mean(axis=0)
    tint = np.where(above[:, None] > 0.2, face.hair, 0.8 * skin)
    shade = 0.55 + 0.45 * np.clip(face.normals[:, 2:], 0, 1)
    return (
        np.concatenate([face.vertices.astype(np.float64), *rings]),
        np.concatenate([model.triangles, *skirt]).astype(np.int32),
        np.concatenate([shade * face.colours, *[tint] * _RINGS]),
    )
