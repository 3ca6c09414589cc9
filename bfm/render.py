"""Pictures of meshes: normals, Gouraud rendering, visibility, and grey previews.

Dimension key: V vertices, F triangles, H/W pixels.
Points are what `bfm.pose.project` gives: x right and y down in pixels with centres at whole numbers, and depth
in pixels, larger nearer. Normals are in camera axes (y up), as `bfm.light` wants them.
"""

from __future__ import annotations

import numpy as np

from bfm.pose import project
from bfm.rasterize import rasterize, spread

_NEARER = 1e-3  # pixels of depth: above rounding, below anything a face has before another part
_CLAY_LIGHT = np.array([-0.35, 0.45, 0.82])
_CLAY_COLOUR = np.array([0.80, 0.78, 0.76])


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the normal of each vertex: the mean of its triangles' normals, weighted by area.

    Parameters
    ----------
    vertices : np.ndarray
        (V, 3) in right-handed axes; points in pixels go through `camera_vertices` first.
    triangles : np.ndarray
        (F, 3), ``cross(b - a, c - a)`` outward.

    Returns
    -------
    np.ndarray
        (V, 3) unit normals, the dtype of `vertices`; zero where a vertex has no triangle with area.
    """
    corners = np.ascontiguousarray(triangles.T)
    a, b, c = (np.ascontiguousarray(vertices.T)[:, corner] for corner in corners)
    (ux, uy, uz), (vx, vy, vz) = b - a, c - a
    total = np.stack([
        np.bincount(corners.ravel(), np.tile(face_normal, 3), len(vertices))
        for face_normal in (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)
    ], -1)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, length, out=np.zeros_like(total), where=length > 0).astype(vertices.dtype)


def camera_vertices(points: np.ndarray) -> np.ndarray:
    """Return (V, 3) projected points in right-handed camera axes, in pixels: x right, y up, z toward the camera."""
    return points * np.array([1, -1, 1], points.dtype)


def render(
    points: np.ndarray, colours: np.ndarray, triangles: np.ndarray, background: np.ndarray, antialias: int = 1
) -> np.ndarray:
    """Draw a mesh with vertex colours over a picture.

    Parameters
    ----------
    points : np.ndarray
        (V, 3) x, y and depth in pixels.
    colours : np.ndarray
        (V, 3) RGB in [0, 1]; values outside are clipped after interpolation.
    triangles : np.ndarray
        (F, 3) vertex indices; both sides are drawn.
    background : np.ndarray
        (H, W, 3) uint8 picture, not changed.
    antialias : int
        Each pixel is the mean of so many by so many samples.

    Returns
    -------
    np.ndarray
        (H, W, 3) uint8.
    """
    height, width = background.shape[:2]
    # sample s of pixel p is at p + (s + 1/2) / antialias - 1/2
    places = (points[:, :2] + 0.5) * antialias - 0.5
    ids, barycentric = rasterize(places, points[:, 2], triangles, height * antialias, width * antialias)
    covered = ids >= 0
    corners = triangles[ids[covered]]
    drawn = np.einsum("nk,nkc->nc", barycentric[covered], colours[corners].astype(np.float32))
    picture = background.repeat(antialias, 0).repeat(antialias, 1).astype(np.float32)
    picture[covered] = np.clip(drawn, 0, 1) * 255
    picture = picture.reshape(height, antialias, width, antialias, 3).mean(axis=(1, 3))
    return np.rint(picture).astype(np.uint8)


def visible_vertices(points: np.ndarray, triangles: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return which vertices the camera sees: inside the image, facing it, and with no triangle before them.

    Each vertex is tested against every triangle that covers it, so the answer does not depend on pixels.

    Parameters
    ----------
    points : np.ndarray
        (V, 3) x, y and depth in pixels.
    triangles : np.ndarray
        (F, 3), ``cross(b - a, c - a)`` outward in camera axes.
    height : int
        Image height in pixels.
    width : int
        Image width in pixels.

    Returns
    -------
    np.ndarray
        (V,) bool.
    """
    x, y, depth = np.ascontiguousarray(points.T, np.float64)
    seen = (np.abs(x - (width - 1) / 2) <= width / 2) & (np.abs(y - (height - 1) / 2) <= height / 2)
    seen &= vertex_normals(camera_vertices(points), triangles)[:, 2] > 0
    # candidates sorted by pixel row, then x: those a triangle may cover are one run of them in each row
    span = 2 * width + 2
    key = np.clip(np.round(y), 0, height - 1) * span + x
    candidates = np.flatnonzero(seen)
    candidates = candidates[np.argsort(key[candidates])]
    corners = np.ascontiguousarray(triangles.T)
    first, last = (np.clip(np.round(f(y[corners], axis=0)), 0, height - 1) for f in (np.min, np.max))
    left, right = (np.clip(f(x[corners], axis=0), -1, width) for f in (np.min, np.max))
    of, step = spread((last - first).astype(np.int64) + 1)
    row = (first[of] + step) * span
    start = np.searchsorted(key[candidates], row + left[of])
    stop = np.searchsorted(key[candidates], row + right[of], side="right")
    pair, step = spread(np.maximum(stop - start, 0))
    vertex, (a, b, c) = candidates[start[pair] + step], corners[:, of[pair]]
    ax, bx, cx = (x[corner] - x[vertex] for corner in (a, b, c))
    ay, by, cy = (y[corner] - y[vertex] for corner in (a, b, c))
    weights = np.stack([bx * cy - cx * by, cx * ay - ax * cy, ax * by - bx * ay])
    area = weights.sum(0)
    covers = np.flatnonzero(((weights >= 0).all(0) | (weights <= 0).all(0)) & (area != 0))
    surface = sum(weights[k, covers] * depth[corner[covers]] for k, corner in enumerate((a, b, c))) / area[covers]
    seen[vertex[covers[surface > depth[vertex[covers]] + _NEARER]]] = False
    return seen


def clay(points: np.ndarray, triangles: np.ndarray, background: np.ndarray, antialias: int = 2) -> np.ndarray:
    """Draw a mesh as grey clay, lit from above the viewer's left shoulder, over a picture.

    Parameters
    ----------
    points : np.ndarray
        (V, 3) x, y and depth in pixels.
    triangles : np.ndarray
        (F, 3), ``cross(b - a, c - a)`` outward in camera axes.
    background : np.ndarray
        (H, W, 3) uint8 picture, not changed.
    antialias : int
        Samples along each side of a pixel.

    Returns
    -------
    np.ndarray
        (H, W, 3) uint8.
    """
    colours = clay_colours(vertex_normals(camera_vertices(points), triangles))
    return render(points, colours, triangles, background, antialias)


def clay_colours(normals: np.ndarray) -> np.ndarray:
    """Return the (..., 3) RGB of grey clay under the light of `clay`, for (..., 3) unit normals in camera axes."""
    light = _CLAY_LIGHT / np.linalg.norm(_CLAY_LIGHT)
    half = light + [0, 0, 1]
    shade = 0.22 + 0.72 * np.clip(normals @ light, 0, None)
    gloss = 0.10 * np.clip(normals @ (half / np.linalg.norm(half)), 0, None) ** 24
    return shade[..., None] * _CLAY_COLOUR + gloss[..., None]


def portrait(
    vertices: np.ndarray,
    triangles: np.ndarray,
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0),
    size: int = 256,
    extent: float | None = None,
    colours: np.ndarray | None = None,
) -> np.ndarray:
    """Draw a face alone on white, centred, as clay or with its colours.

    Parameters
    ----------
    vertices : np.ndarray
        (V, 3) mm.
    triangles : np.ndarray
        (F, 3), ``cross(b - a, c - a)`` outward.
    pose : tuple[float, float, float]
        Pitch, yaw, roll in radians.
    size : int
        Side of the picture in pixels.
    extent : float | None
        Millimetres across the picture, for pictures at one scale; None fits the face.
    colours : np.ndarray | None
        (V, 3) RGB in [0, 1], drawn without shading; None draws clay.

    Returns
    -------
    np.ndarray
        (size, size, 3) uint8.
    """
    posed = project(np.asarray(vertices, np.float64), np.asarray(pose, np.float64), np.array([0.0, 0.0, 1.0]))
    low, high = posed.min(0), posed.max(0)
    scale = size / (extent or 1.08 * (high - low)[:2].max())
    points = (posed - (low + high) / 2) * scale + [(size - 1) / 2, (size - 1) / 2, 0]
    white = np.full((size, size, 3), 255, np.uint8)
    return clay(points, triangles, white) if colours is None else render(points, colours, triangles, white, 2)
