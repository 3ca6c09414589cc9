"""Render a dataset in 300W-LP's own layout from a face model, with exact ground truth.

    <out>/SYNTH/SYNTH_000007_2.jpg, .mat        photo 7, copy 2
    <out>/landmarks/SYNTH/SYNTH_000007_2_pts.mat

As in 300W-LP, the copies of a photo share identity, albedo and expression and turn from the first copy's pose to a
profile; unlike there, each copy has its own light and background. Photo p draws from ``default_rng([seed, p])``
and its copy k from ``default_rng([seed, p, k])``, so a picture depends on nothing else.

Dimension key: V vertices, F triangles, K modes of a basis, H = W pixels of a photo.
"""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import map_coordinates

from asmgen.w300lp import LANDMARK_FOLDER, placement_from_pose_para, pose_para_from_placement
from asmgen.workers import run_tasks, share, shared
from bfm.light import sh_basis
from bfm.morphable_model import MorphableModel
from bfm.pose import project, rotation_matrix
from bfm.render import render, vertex_normals

SET_NAME = "SYNTH"
JPEG_QUALITY = 95
SHININESS = 20.0
MOUTH_TINT = np.array([0.30, 0.14, 0.14])
BEHIND_LIPS = np.array([0, 0, 2.0], np.float32)
_PHOTOS_A_TASK = 4
_BACKGROUND_REDUCTION = 3
_MAT_HEADER = b"MATLAB 5.0 MAT-file, a dualface synthetic sample".ljust(116)


@dataclass(frozen=True, eq=False)
class _Face:
    """What the copies of a photo share: coefficients, and the mesh and colours they make."""

    id_coeffs: np.ndarray
    exp_coeffs: np.ndarray
    albedo_coeffs: np.ndarray
    vertices: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    hair: np.ndarray


def synthesize_300wlp(
    out_dir: Path, model: MorphableModel, count: int, seed: int = 0, jobs: int = 1, image_size: int = 450,
    copies: int = 4,
) -> list[Path]:
    """Write `count` photos of random faces with their annotation.

    Besides 300W-LP's keys, whose coefficients are raw (times the model's stddev), each `.mat` holds
    ``Face_Model`` (the coefficient space) and ``Light_SH`` (1, 9), the light of `bfm.light` in camera axes that
    shaded the albedo. ``Color_Para`` is neutral, ``Illum_Para`` the ambient and key light that ``Light_SH``
    was made of, ``roi`` the whole photo. Skin detail, gloss, blur and noise are in no parameter.

    Parameters
    ----------
    out_dir : Path
        Folder to make; must be empty if it exists.
    model : MorphableModel
        With a texture basis.
    count : int
        Number of photos.
    seed : int
        The same seed gives the same bytes, whatever `jobs`.
    jobs : int
        Processes.
    image_size : int
        Side of a photo, pixels.
    copies : int
        Poses of each face; 1 gives every photo a face of its own, about upright and frontal.

    Returns
    -------
    list[Path]
        The photos, sorted.

    Raises
    ------
    FileExistsError
        If `out_dir` holds anything.
    ValueError
        If a number is out of range or the model has no texture.
    """
    for name, value, least in (("count", count, 1), ("jobs", jobs, 1), ("copies", copies, 1), ("seed", seed, 0),
                               ("image_size", image_size, 64)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not model.has_albedo:
        raise ValueError(f"the face model '{model.name}' has no texture; convert it with one, or use the open model")
    out_dir = Path(out_dir)
    if out_dir.exists() and any(out_dir.iterdir()):
        raise FileExistsError(f"{out_dir} already holds files; choose an empty folder")
    for folder in (out_dir / SET_NAME, out_dir / LANDMARK_FOLDER / SET_NAME):
        folder.mkdir(parents=True)
    photos = -(-count // copies)
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=out_dir) as scratch:
        shared_model = share(model, Path(scratch, "model"))
        written = run_tasks(_write_photos, [
            (out_dir, shared_model, range(first, min(first + _PHOTOS_A_TASK, photos)), count, seed, image_size, copies)
            for first in range(0, photos, _PHOTOS_A_TASK)
        ], jobs)
    return [path for paths in written for path in paths]


def _write_photos(out_dir, shared_model, photos, count, seed, image_size, copies) -> list[Path]:
    """Render and write the copies of some photos."""
    model, paths = shared(shared_model), []
    for photo in photos:
        rng = np.random.default_rng([seed, photo])
        face = _random_face(model, rng)
        pose_paras = _random_poses(model, face, rng, image_size, copies)
        for copy in range(min(copies, count - photo * copies)):
            name = f"{SET_NAME}_{photo:06d}_{copy}"
            rng = np.random.default_rng([seed, photo, copy])
            picture, parameters, points = _render_copy(model, face, pose_paras[copy], rng, image_size)
            jpeg = io.BytesIO()
            picture.save(jpeg, "JPEG", quality=JPEG_QUALITY)
            path = out_dir / SET_NAME / f"{name}.jpg"
            _write(out_dir / LANDMARK_FOLDER / SET_NAME / f"{name}_pts.mat", _mat_bytes(points))
            _write(path.with_suffix(".mat"), _mat_bytes(parameters))
            _write(path, jpeg.getvalue())
            paths.append(path)
    return paths


def _random_face(model: MorphableModel, rng: np.random.Generator) -> _Face:
    """A random person making a random face."""
    id_coeffs, exp_coeffs, albedo_coeffs = (
        rng.standard_normal(len(basis), np.float32) for basis in (model.id_basis, model.exp_basis, model.albedo_basis)
    )
    exp_coeffs *= np.float32(rng.uniform(0.2, 1.2))
    colours = np.clip(model.albedo(albedo_coeffs), 0.02, 0.98) * _skin_detail(model.mean_shape, rng)[:, None]
    hair = rng.uniform(0.03, 0.4) * np.cumprod([1.0, rng.uniform(0.7, 1.0), rng.uniform(0.5, 0.95)])
    vertices = model.shape(id_coeffs, exp_coeffs)
    normals = vertex_normals(vertices, model.triangles)
    return _Face(id_coeffs, exp_coeffs, albedo_coeffs, vertices, normals, colours, hair)


def _skin_detail(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(V,) factor on the albedo that no linear mode has: pores, blotches, wrinkles, moles; `places` in mm."""
    strength = rng.uniform(0.4, 1.0)
    factor = np.ones(len(places), np.float32)
    for cell, amount in (((2.0, 2.0, 2.0), 0.04), ((8.0, 8.0, 8.0), 0.03), ((25.0, 3.0, 25.0), 0.02)):
        factor += np.float32(amount * strength) * _lattice_noise(places / np.array(cell, np.float32), rng)
    for mole in places[rng.integers(len(places), size=rng.poisson(4))]:
        radius = rng.uniform(0.8, 2.5)
        factor *= 1 - rng.uniform(0.2, 0.6) * np.exp(-((places - mole) ** 2).sum(axis=1) / radius**2)
    return factor


def _lattice_noise(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(V,) smooth noise of unit lattice, about N(0, 1/2), at (V, 3) places."""
    low = np.floor(places.min(axis=0))
    lattice = rng.standard_normal((np.ceil(places.max(axis=0) - low) + 2).astype(int), np.float32)
    return map_coordinates(lattice, (places - low).T, order=1)


def _random_poses(
    model: MorphableModel, face: _Face, rng: np.random.Generator, image_size: int, copies: int
) -> np.ndarray:
    """(copies, 7) ``Pose_Para``: the first about frontal, the last near a profile, yaw in even steps between."""
    pitch, yaw, roll = np.radians(rng.normal((0, 0, 0), (12, 22, 10)))
    yaw = np.clip(yaw, -1.2, 1.2)
    profile = np.copysign(np.radians(rng.uniform(70, 90)), yaw)
    landmarks = face.vertices[model.landmarks]
    rows = []
    for part in np.linspace(0, 1, copies) if copies > 1 else (0.0,):
        pose = np.array([pitch, yaw + part * (profile - yaw), roll]) + np.radians(rng.normal(0, 2, 3))
        pose[1] = np.clip(pose[1], -np.pi / 2, np.pi / 2)
        scale = image_size / 450 * rng.uniform(1.1, 1.55)
        placed = project(landmarks, pose, np.array([0, 0, scale]))[:, :2]
        middle = (placed.min(axis=0) + placed.max(axis=0)) / 2
        x, y = (image_size - 1) / 2 + rng.normal(0, 0.02 * image_size, 2) - middle
        rows.append(pose_para_from_placement(pose, np.array([x, y, scale]), image_size)[0])
    return np.array(rows)


def _render_copy(model, face, pose_para, rng, image_size) -> tuple[Image.Image, dict, dict]:
    """Photo, parameters and landmarks of one pose."""
    pose, position = placement_from_pose_para(pose_para, image_size)  # of the rounded numbers that are stored
    points = project(face.vertices, pose.astype(np.float32), position.astype(np.float32))
    rotation = rotation_matrix(pose)
    normals = face.normals @ rotation.T.astype(np.float32)
    light, illumination, gloss = _random_light(rng, normals, rotation)
    colours = face.colours * (sh_basis(normals) @ light)[:, None] + gloss[:, None]
    backdrop = _backdrop(model, face, points, float(position[2]), light, rng, image_size)
    low = np.clip(np.floor(points[:, :2].min(axis=0)), 0, image_size - 1).astype(int)
    high = np.clip(np.ceil(points[:, :2].max(axis=0)) + 1, low + 1, image_size).astype(int)
    window = np.s_[low[1]:high[1], low[0]:high[0]]
    shift = np.array([*low, 0], points.dtype)
    backdrop[window] = render(*_with_mouth(model, points - shift, colours), backdrop[window])
    picture = _through_camera(backdrop, rng)

    landmarks = project(face.vertices[model.landmarks].astype(np.float64), pose, position)[:, :2] + 1
    raw = {
        key: (coeffs.astype(np.float64) * stddev)[:, None] for key, coeffs, stddev in (
            ("Shape_Para", face.id_coeffs, model.id_stddev), ("Exp_Para", face.exp_coeffs, model.exp_stddev),
            ("Tex_Para", face.albedo_coeffs, model.albedo_stddev),
        )
    }
    parameters = raw | {
        "Pose_Para": pose_para[None], "Color_Para": np.array([[1, 1, 1, 0, 0, 0, 1]], np.float32),
        "Illum_Para": illumination[None], "roi": np.array([[1, 1, image_size, image_size]], np.int16),
        "pt2d": landmarks.T, "Face_Model": model.coefficients, "Light_SH": light[None].astype(np.float64),
    }
    points_2d = landmarks.astype(np.float32)
    return picture, parameters, {"pts_2d": points_2d, "pts_3d": points_2d}


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


def _through_camera(picture: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """The picture slightly out of focus, with sensor noise."""
    weights = np.exp(-0.5 * (np.arange(-1, 2) / rng.uniform(0.4, 0.9)) ** 2)
    kernel = np.outer(weights, weights).ravel()
    blurred = Image.fromarray(picture).filter(ImageFilter.Kernel((3, 3), kernel.tolist(), kernel.sum()))
    noise = rng.standard_normal((*picture.shape[:2], 1), np.float32) * np.float32(rng.uniform(0.5, 4))
    noisy = np.asarray(blurred).astype(np.int16) + np.rint(noise).astype(np.int16)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _random_light(rng, normals, rotation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Light (9,), the ``Illum_Para`` (10,) it comes from, and the gloss (V,) that the key light adds."""
    azimuth, elevation = np.radians(rng.uniform(-75, 75)), np.radians(rng.uniform(-15, 60))
    key = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    ambient, strength = rng.uniform(0.35, 0.75), rng.uniform(0.15, 0.8)
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


def _backdrop(model, face, points, scale, light, rng, image_size) -> np.ndarray:
    """(H, W, 3) uint8: shapes and noise out of focus, and before them hair, neck and shoulders."""
    size = image_size // _BACKGROUND_REDUCTION + 1
    ramp = np.linspace(0, 1, size)
    a, b, c = _muted(rng), _muted(rng), _muted(rng)
    picture = a + (b - a) * ramp[:, None, None] * 0.6 + (c - a) * ramp[None, :, None] * 0.4
    for cells in (5, 17):
        coarse = (rng.normal(0, 16, (cells, cells, 1)) + rng.normal(0, 5, (cells, cells, 3))).clip(-90, 90) + 128
        grown = Image.fromarray(coarse.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        picture += np.asarray(grown, np.float32) - 128
    picture = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(2, 9)):
        x, y, width, height = rng.uniform((-0.2, -0.2, 0.05, 0.05), (1, 1, 0.6, 0.6)) * size
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape((x, y, x + width, y + height), fill=_rgb(_muted(rng)))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4)))

    # a head behind the mask of the face: an ellipsoid about its bounds, seen from the front
    draw = ImageDraw.Draw(picture)
    unit = scale / _BACKGROUND_REDUCTION
    jaw = points[model.landmarks[:17]] / _BACKGROUND_REDUCTION
    back = jaw[[0, 16]].mean(axis=0)[:2]
    chin = jaw[8, :2]
    brows = points[model.landmarks[17:27]].mean(axis=0)[:2] / _BACKGROUND_REDUCTION
    up = brows - chin
    up = up / max(np.linalg.norm(up), 1e-6)
    exposure = float(np.clip(sh_basis(np.array([[0.0, 0.0, 1.0]]))[0] @ light, 0.1, 1.2))
    skin = face.colours[model.landmarks].mean(axis=0) * exposure * 0.75
    shirt = _muted(rng)
    neck = back - up * 70 * unit
    foot = np.array([neck[0], size + 60 * unit])
    _disc(draw, foot - [0, 30 * unit], (190 * unit, 100 * unit), shirt)
    draw.line([*back, *neck, *(foot - [0, 100 * unit])], fill=_rgb(255 * skin), width=int(95 * unit), joint="curve")
    _disc(draw, back + up * 30 * unit, (rng.uniform(88, 110) * unit, rng.uniform(100, 125) * unit),
          255 * face.hair * exposure)
    head = picture.filter(ImageFilter.GaussianBlur(1.5))
    return np.array(head.resize((image_size, image_size), Image.Resampling.BICUBIC))


def _muted(rng: np.random.Generator) -> np.ndarray:
    """A colour 0..255, seldom a vivid one."""
    return rng.uniform(15, 235) + rng.normal(0, 28, 3)


def _disc(draw: ImageDraw.ImageDraw, centre: np.ndarray, radii: tuple[float, float], colour: np.ndarray) -> None:
    """Fill an upright ellipse."""
    x, y = centre
    draw.ellipse((x - radii[0], y - radii[1], x + radii[0], y + radii[1]), fill=_rgb(colour))


def _rgb(colour: np.ndarray) -> tuple[int, ...]:
    """Colour 0..255 as pillow wants it."""
    return tuple(np.clip(colour, 0, 255).astype(int).tolist())


def _mat_bytes(arrays: dict) -> bytes:
    """A `.mat` file without the date that scipy writes into the header."""
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return _MAT_HEADER + file.getvalue()[len(_MAT_HEADER):]


def _write(path: Path, data: bytes) -> None:
    """Write a file that exists only when whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
