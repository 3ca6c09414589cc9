"""Render a dataset in 300W-LP's own layout from a face model, with exact ground truth.

    <out>/SYNTH/SYNTH_000007_2.jpg, .mat        photo 7, copy 2
    <out>/landmarks/SYNTH/SYNTH_000007_2_pts.mat

As in 300W-LP, the copies of a photo share identity, albedo and expression and turn from the first copy's pose to a
profile; unlike there, each copy has its own light and background. Photo p draws from ``default_rng([seed, p])``
and its copy k from ``default_rng([seed, p, k])``, so a picture depends on nothing else.

Dimension key: K modes of a basis, H = W pixels of a photo.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asmgen.dataset_files import check_numbers, jpeg_bytes, mat_bytes, new_dataset, run_on_model, write_whole
from asmgen.synthetic_faces import SyntheticFace, check_face_model, random_face
from asmgen.synthetic_photos import Photograph, centred_position, landmarks_in_photo, photograph
from asmgen.w300lp import LANDMARK_FOLDER, placement_from_pose_para, pose_para_from_placement
from bfm.morphable_model import MorphableModel

SET_NAME = "SYNTH"
_PHOTOS_A_TASK = 4


def synthesize_300wlp(
    out_dir: Path, model: MorphableModel, count: int, seed: int = 0, jobs: int = 1, image_size: int = 450,
    copies: int = 4, expressions: str = "normal", progress: Callable[..., tqdm] = tqdm,
) -> list[Path]:
    """Write `count` photos of random faces with their annotation.

    Parameters
    ----------
    out_dir : Path
        Folder to make; if it exists, empty or what a stopped run with the same options left.
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
    expressions : str
        How they are drawn, see `asmgen.synthetic_faces.random_face`.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    list[Path]
        The photos, sorted. FileExistsError is raised if `out_dir` holds anything else, ValueError if a number is out of
        range, or the model has no texture or not the expressions.
    """
    check_numbers(count=(count, 1), jobs=(jobs, 1), copies=(copies, 1), seed=(seed, 0), image_size=(image_size, 64))
    check_face_model(model, expressions)
    photos, settings = -(-count // copies), (count, seed, image_size, copies, expressions)
    parts = [range(first, min(first + _PHOTOS_A_TASK, photos)) for first in range(0, photos, _PHOTOS_A_TASK)]
    sizes = [min(part.stop * copies, count) - part.start * copies for part in parts]
    with new_dataset(out_dir, "300wlp", model.sha256, *settings) as out_dir:
        written = run_on_model(
            _write_photos, out_dir, model, [(part, *settings) for part in parts], jobs, progress, "photo", sizes
        )
    return [path for paths in written for path in paths]


def _write_photos(out_dir, model, photos, count, seed, image_size, copies, expressions) -> list[Path]:
    """Render and write the copies of some photos."""
    paths = []
    for photo in photos:
        rng = np.random.default_rng([seed, photo])
        face = random_face(model, rng, expressions)
        pose_paras = random_poses(model, face, rng, image_size, copies)
        for copy in range(min(copies, count - photo * copies)):
            name = f"{SET_NAME}_{photo:06d}_{copy}"
            rng = np.random.default_rng([seed, photo, copy])
            paths.append(write_photo(out_dir, SET_NAME, name, model, face, pose_paras[copy], rng, image_size))
    return paths


def random_poses(
    model: MorphableModel, face: SyntheticFace, rng: np.random.Generator, image_size: int, copies: int
) -> np.ndarray:
    """Return (copies, 7) ``Pose_Para``: the first about frontal, the last near a profile, yaw in even steps between."""
    pitch, yaw, roll = np.radians(rng.normal((0, 0, 0), (12, 22, 10)))
    yaw = np.clip(yaw, -1.2, 1.2)
    profile = np.copysign(np.radians(rng.uniform(70, 90)), yaw)
    rows = []
    for part in np.linspace(0, 1, copies) if copies > 1 else (0.0,):
        pose = np.array([pitch, yaw + part * (profile - yaw), roll]) + np.radians(rng.normal(0, 2, 3))
        pose[1] = np.clip(pose[1], -np.pi / 2, np.pi / 2)
        scale = image_size / 450 * rng.uniform(1.1, 1.55)
        position = centred_position(model, face, pose, scale, image_size, rng.normal(0, 0.02 * image_size, 2))
        rows.append(pose_para_from_placement(pose, position, image_size)[0])
    return np.array(rows)


def write_photo(
    out_dir: Path, set_name: str, name: str, model: MorphableModel, face: SyntheticFace, pose_para: np.ndarray,
    rng: np.random.Generator, image_size: int,
) -> Path:
    """Photograph a face, and write the photo with its annotation.

    Besides 300W-LP's keys, whose coefficients are raw (times the model's stddev), the `.mat` holds
    ``Face_Model`` (the coefficient space) and ``Light_SH`` (1, 9), the light of `bfm.light` in camera axes that
    shaded the albedo. ``Color_Para`` is neutral, ``Illum_Para`` the ambient and key light that ``Light_SH``
    was made of, ``roi`` the whole photo.

    Parameters
    ----------
    out_dir : Path
        Root of the dataset.
    set_name : str
        Folder of the photo.
    name : str
        Of the photo, without suffix.
    model : MorphableModel
        The face's.
    face : SyntheticFace
        Who is photographed.
    pose_para : np.ndarray
        (7,) float32 ``Pose_Para``; the photo shows exactly what these numbers say.
    rng : np.random.Generator
        Source of chance for the photo.
    image_size : int
        Side of the photo, pixels.

    Returns
    -------
    Path
        The photo.
    """
    pose, position = placement_from_pose_para(pose_para, image_size)  # of the rounded numbers that are stored
    photo = photograph(model, face, pose, position, rng, image_size)
    landmarks = landmarks_in_photo(model, face, pose, position) + 1
    points = landmarks.astype(np.float32)
    path = out_dir / set_name / f"{name}.jpg"
    write_whole(
        out_dir / LANDMARK_FOLDER / set_name / f"{name}_pts.mat", mat_bytes({"pts_2d": points, "pts_3d": points})
    )
    write_whole(path.with_suffix(".mat"), mat_bytes(_annotation(model, face, pose_para, photo, landmarks)))
    write_whole(path, jpeg_bytes(photo.picture))
    return path


def _annotation(
    model: MorphableModel, face: SyntheticFace, pose_para: np.ndarray, photo: Photograph, landmarks: np.ndarray
) -> dict:
    """The arrays of a photo's `.mat`; `landmarks` (68, 2) in pixels from 1."""
    raw = {
        key: (coeffs.astype(np.float64) * stddev)[:, None] for key, coeffs, stddev in (
            ("Shape_Para", face.id_coeffs, model.id_stddev), ("Exp_Para", face.exp_coeffs, model.exp_stddev),
            ("Tex_Para", face.albedo_coeffs, model.albedo_stddev),
        )
    }
    size = photo.picture.height
    return raw | {
        "Pose_Para": pose_para[None], "Color_Para": np.array([[1, 1, 1, 0, 0, 0, 1]], np.float32),
        "Illum_Para": photo.illumination[None], "roi": np.array([[1, 1, size, size]], np.int16),
        "pt2d": landmarks.T, "Face_Model": model.coefficients, "Light_SH": photo.light[None].astype(np.float64),
    }
