"""Scans of known faces: another topology, moved, with noise along the normal, and with hair and neck."""

import numpy as np

from bfm.rasterize import rasterize
from bfm.render import vertex_normals
from model.evaluation.scans import Scan


HAIR = 45  # mm below the top of the face: where hair begins, 8 mm thick
NECK = 60.0  # mm: its depth


def depth_grid(vertices, triangles, spacing, margin=12, clutter=False):
    """Resample a frontal surface on a grid; with clutter, a bulge above it (hair) and a slope below it (neck)."""
    low = vertices.min(0) - margin
    pixels = (vertices - low) / spacing
    width, height, _ = np.ceil(pixels.max(0)).astype(int) + int(margin / spacing)
    places = np.stack([pixels[:, 0], pixels[:, 1]], 1)
    ids, weights = rasterize(places, pixels[:, 2], triangles, height, width)
    hit = ids >= 0
    rows, columns = np.nonzero(hit)
    depth = np.full((height, width), np.nan)
    depth[hit] = np.einsum("nk,nk->n", weights[hit], vertices[triangles[ids[hit]], 2])
    if clutter:
        x, y = columns * spacing + low[0], rows * spacing + low[1]
        lift = 8 * np.clip((y - vertices[:, 1].max() + HAIR) / 10, 0, 1) * np.clip(1 - (np.abs(x) - 50) / 10, 0, 1)
        depth[hit] += lift  # hair before the forehead
        neck = np.isnan(depth) & (np.abs(np.arange(width) * spacing + low[0]) < 45)[None]
        neck &= (np.arange(height)[:, None] * spacing + low[1]) < vertices[:, 1].min() + 25
        depth[neck] = NECK
    index = np.full((height, width), -1)
    known = np.isfinite(depth)
    index[known] = np.arange(known.sum())
    rows, columns = np.nonzero(known)
    points = np.stack([columns * spacing + low[0], rows * spacing + low[1], depth[known]], 1)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
    faces = faces[(faces >= 0).all(1)]
    steps = np.ptp(points[faces][..., 2], axis=1)
    return points, faces[steps < 8 * spacing].astype(np.int32)  # not across occlusions


def made_scan(model, vertices, motion, spacing=1.5, noise=0.0, clutter=False, landmarks=True, seed=0):
    """A scan of (V, 3) vertices of a model, moved by a rigid `Similarity`."""
    points, faces = depth_grid(vertices, model.triangles, spacing, clutter=clutter)
    used = np.unique(faces)
    renumber = np.full(len(points), -1)
    renumber[used] = np.arange(len(used))
    points, faces = points[used], renumber[faces].astype(np.int32)
    offsets = noise * np.random.default_rng(seed).standard_normal((len(points), 1))
    points = points + offsets * vertex_normals(points, faces)
    known = dict(enumerate(motion.apply(vertices[model.landmarks]))) if landmarks else {}
    return Scan(motion.apply(points), faces, known, "made")
