"""Photographs of synthetic faces: a random light, a random background, and a camera with its faults.

Gloss, blur and noise are in no parameter of the model, as the skin detail of the faces: a method cannot fit them, as on
real photos.

Dimension key: V vertices, H = W pixels of a photo.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from asmgen.backdrop import draw_backdrop
from asmgen.synthetic_faces import SyntheticFace
from bfm.light import sh_basis
from bfm.morphable_model import MorphableModel
from bfm.pose import project, rotation_matrix
from bfm.render import render

SHININESS = 20.0
MOUTH_TINT = np.array([0.30, 0.14, 0.14])
BEHIND_LIPS = np.array([0, 0, 2.0], np.float32)


class Photograph(NamedTuple):
    """A picture of a face, and the light in it.

    Attributes
    ----------
    picture : Image.Image
        (H, H) RGB.
    light : np.ndarray
        (9,) float32, the light of `bfm.light` in camera axes that shaded the albedo.
    illumination : np.ndarray
        (10,) ``Illum_Para`` of 300W-LP: the ambient and key light that `light` was made of.
    """

    picture: Image.Image
    light: np.ndarray
    illumination: np.ndarray


def centred_position(
    model: MorphableModel, face: SyntheticFace, pose: np.ndarray, scale: float, image_size: int, offset: np.ndarray
) -> np.ndarray:
    """Return the (3,) position that puts a face's landmarks, by their box, in the middle of a photo.

    Parameters
    ----------
    model : MorphableModel
        The face's.
    face : SyntheticFace
        Who is photographed.
    pose : np.ndarray
        (3,) radians.
    scale : float
        Pixels a millimetre.
    image_size : int
        Side of the photo, pixels.
    offset : np.ndarray
        (2,) from the middle, pixels.

    Returns
    -------
    np.ndarray
        (3,) t_x, t_y (pixels), scale, see `bfm.pose`.
    """
    placed = project(face.vertices[model.landmarks], pose, np.array([0, 0, scale]))[:, :2]
    middle = (placed.min(axis=0) + placed.max(axis=0)) / 2
    return np.array([*((image_size - 1) / 2 + offset - middle), scale])


def landmarks_in_photo(
    model: MorphableModel, face: SyntheticFace, pose: np.ndarray, position: np.ndarray
) -> np.ndarray:
    """Return the (68, 2) float64 landmarks of a face that stands so, hidden ones included; pixels from 0."""
    return project(face.vertices[model.landmarks].astype(np.float64), pose, position)[:, :2]


def photograph(
    model: MorphableModel, face: SyntheticFace, pose: np.ndarray, position: np.ndarray, rng: np.random.Generator,
    image_size: int, harshness: float = 0.0, blur: float = 0.0,
) -> Photograph:
    """Photograph a face under a random light, before a random background.

    Parameters
    ----------
    model : MorphableModel
        The face's.
    face : SyntheticFace
        Who is photographed.
    pose : np.ndarray
        (3,) radians, see `bfm.pose`.
    position : np.ndarray
        (3,) t_x, t_y (pixels), scale (pixels a millimetre).
    rng : np.random.Generator
        Source of chance: light, background, focus, sensor noise.
    image_size : int
        Side of the photo, pixels.
    harshness : float
        0 to 1: how much of the ambient light is taken away, the key light growing by as much.
    blur : float
        Further blur, standard deviation in pixels.

    Returns
    -------
    Photograph
        The picture and its light.
    """
    points = project(face.vertices, pose.astype(np.float32), position.astype(np.float32))
    rotation = rotation_matrix(pose)
    normals = face.normals @ rotation.T.astype(np.float32)
    light, illumination, gloss = _random_light(rng, normals, rotation, harshness)
    colours = face.colours * (sh_basis(normals) @ light)[:, None] + gloss[:, None]
    picture = draw_backdrop(
        points[model.landmarks], face.colours[model.landmarks].mean(axis=0), face.hair, float(position[2]), light, rng,
        image_size,
    )
    low = np.clip(np.floor(points[:, :2].min(axis=0)), 0, image_size - 1).astype(int)
    high = np.clip(np.ceil(points[:, :2].max(axis=0)) + 1, low + 1, image_size).astype(int)
    window = np.s_[low[1]:high[1], low[0]:high[0]]
    shift = np.array([*low, 0], points.dtype)
    picture[window] = render(*_with_mouth(model, points - shift, colours), picture[window])
    return Photograph(_through_camera(picture, rng, blur), light, illumination)


def _with_mouth(
    model: MorphableModel, points: np.ndarray, colours: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, colours and front-facing triangles of the face, with a dark surface in the mouth opening."""
    x, y = np.ascontiguousarray(points[:, :2].T)
    a, b, c = np.ascontiguousarray(model.triangles.T)
    front = (x[b] - x[a]) * (y[c] - y[a]) < (y[b] - y[a]) * (x[c] - x[a])  # y points down
    rim, gap = np.unique(model.mouth_triangles, return_inverse=True)
    triangles = np.concatenate([model.triangles[front], gap.reshape(-1, 3) + len(points)])
    colours = np.concatenate([colours, colours[rim] * MOUTH_TINT])
    return np.concatenate([points, points[rim] - BEHIND_LIPS]), colours.astype(np.float32), triangles


def _through_camera(picture: np.ndarray, rng: np.random.Generator, blur: float) -> Image.Image:
    """The picture slightly or more out of focus, with sensor noise."""
    weights = np.exp(-0.5 * (np.arange(-1, 2) / rng.uniform(0.4, 0.9)) ** 2)
    kernel = np.outer(weights, weights).ravel()
    blurred = Image.fromarray(picture).filter(ImageFilter.Kernel((3, 3), kernel.tolist(), kernel.sum()))
    if blur:
        blurred = blurred.filter(ImageFilter.GaussianBlur(blur))
    noise = rng.standard_normal((*picture.shape[:2], 1), np.float32) * np.float32(rng.uniform(0.5, 4))
    noisy = np.asarray(blurred).astype(np.int16) + np.rint(noise).astype(np.int16)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _random_light(rng, normals, rotation, harshness) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Light (9,), the ``Illum_Para`` (10,) it comes from, and the gloss (V,) that the key light adds."""
    azimuth, elevation = np.radians(rng.uniform(-75, 75)), np.radians(rng.uniform(-15, 60))
    key = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    ambient, strength = rng.uniform(0.35, 0.75), rng.uniform(0.15, 0.8)
    ambient, strength = ambient * (1 - harshness), strength + ambient * harshness
    exposure = rng.uniform(0.75, 1.1) / (ambient + 0.7 * strength)
    ambient, strength = ambient * exposure, strength * exposure
    directions = _sphere(400)
    shading = ambient + strength * np.clip(directions @ key, 0, None)
    light = np.linalg.lstsq(sh_basis(directions), shading, rcond=None)[0].astype(np.float32)
    # 300W-LP's formula has the light in the axes of the unrotated mesh
    turned = rotation.T @ key
    theta, phi = np.arcsin(np.clip(turned[1], -1, 1)), np.arctan2(turned[0], turned[2])
    shine = strength * rng.uniform(0, 0.15)
    half = (key + [0, 0, 1]) / np.linalg.norm(key + [0, 0, 1])
    gloss = shine * np.clip(normals @ half.astype(np.float32), 0, None) ** SHININESS
    illumination = np.array([*[ambient] * 3, *[strength] * 3, theta, phi, shine / strength, SHININESS])
    return light, illumination, gloss


def _sphere(count: int) -> np.ndarray:
    """(count, 3) directions spread evenly (a Fibonacci spiral)."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)
