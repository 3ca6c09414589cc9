"""Draw random people of the open face model: ``python -m bfm.open_face.sheet docs/open_face_model.png``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bfm.light import sh_basis
from bfm.morphable_model import MorphableModel
from bfm.open_face import open_face_model
from bfm.open_face.acts import random_expressions
from bfm.pose import project
from bfm.render import camera_vertices, render, vertex_normals

BACKGROUND = (92, 96, 102)
LIGHT_DIRECTION = (-0.45, 0.35, 0.8)
GLOSS = 0.07
MOUTH_SHADE = 0.35
PX_PER_MM = 1.16  # at 256 px


def contact_sheet(seed: int = 0, rows: int = 4, columns: int = 4, size: int = 256) -> np.ndarray:
    """Return a picture of random faces: identity, albedo, expression and pose.

    Parameters
    ----------
    seed : int
        Which people.
    rows : int
        How many people down.
    columns : int
        How many people across.
    size : int
        Side of one face's picture in pixels.

    Returns
    -------
    np.ndarray
        (rows * size, columns * size, 3) uint8.
    """
    model, count = open_face_model(), rows * columns
    rng = np.random.default_rng(seed)
    identity, albedo = rng.normal(size=(count, 199)), rng.normal(size=(count, 199))
    expressions = random_expressions(rng, count)
    poses = rng.normal(0, (0.1, 0.35, 0.06), (count, 3))
    pictures = [
        _photograph(model, *face, size)
        for face in zip(identity.astype(np.float32), expressions, albedo.astype(np.float32), poses.astype(np.float32))
    ]
    return np.concatenate([np.concatenate(pictures[i * columns:(i + 1) * columns], 1) for i in range(rows)])


def _photograph(model: MorphableModel, identity, expression, albedo, pose, size: int) -> np.ndarray:
    """Return (size, size, 3) uint8 of one face under soft light from its upper right, the mouth filled dark."""
    vertices = model.shape(identity, expression)
    scale = PX_PER_MM * size / 256
    middle = project(np.array([[0, 3, 75]], np.float32), pose, np.array([0, 0, scale], np.float32))[0]
    points = project(vertices, pose, np.array([size / 2 - middle[0], size / 2 - middle[1], scale], np.float32))
    normals = vertex_normals(camera_vertices(points), model.triangles)
    toward = np.array(LIGHT_DIRECTION) / np.linalg.norm(LIGHT_DIRECTION)
    shading = sh_basis(normals) @ _soft_light(toward)
    half = (toward + [0, 0, 1]) / np.linalg.norm(toward + [0, 0, 1])
    gloss = GLOSS * np.clip(normals @ half, 0, 1) ** 12
    colours = np.clip(model.albedo(albedo), 0.02, 1) * shading[:, None] + gloss[:, None]
    rim, filling = np.unique(model.mouth_triangles, return_inverse=True)
    return render(
        np.concatenate([points, points[rim] - np.array([0, 0, 2 * scale], np.float32)]),
        np.clip(np.concatenate([colours, colours[rim] * MOUTH_SHADE]), 0, 1).astype(np.float32),
        np.concatenate([model.triangles, filling.reshape(-1, 3).astype(np.int32) + len(points)]),
        np.full((size, size, 3), BACKGROUND, np.uint8), 2,
    )


def _soft_light(toward: np.ndarray) -> np.ndarray:
    """Return the (9,) light of a wide lamp and a grey room."""
    sphere = np.random.default_rng(0).normal(size=(2000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    wanted = 0.42 + 0.68 * np.clip(sphere @ toward, 0, None)
    return np.linalg.lstsq(sh_basis(sphere), wanted, rcond=None)[0]


if __name__ == "__main__":
    Image.fromarray(contact_sheet()).save(Path(sys.argv[1]), optimize=True)
