"""Render a dataset in the layout of MICC Florence: neutral scans, and videos of the same people, who talk.

    <out>/subject_01/Model/frontal1/obj/<digits>.obj, .mtl, .bmp, .ljson      and frontal2; subject_30 has no second
    <out>/subject_01/Video/PTZ-Outdoor/0000.jpg, .pts                         or PTZ-Outdoor.mjpg, and landmarks.txt
    <out>/truth/subject_01_neutral.npy                                        (V, 3) mm, in the axes of the face model
    <out>/truth/subject_01_frontal1_motion.npy, _on_face.npy                  see `asmgen.synthetic_scans`

The landmarks of the frames and the truth are what the real dataset does not have. The scans are in mm, their landmarks
(68, menpo's file) too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from asmgen.dataset_files import (
    bmp_bytes, check_numbers, jpeg_bytes, new_dataset, npy_bytes, pts_bytes, run_on_model, write_whole,
)
from asmgen.scan_files import ljson_bytes, mtl_bytes, obj_bytes
from asmgen.synthetic_faces import random_face
from asmgen.synthetic_photos import centred_position, landmarks_in_photo, photograph
from asmgen.synthetic_scans import MIN_SPACING, TRUTH, random_motion, scan_face, write_truth
from bfm.open_face import open_face_model
from bfm.open_face.acts import ACTS, act_coefficients

LANDMARK_LIST = "landmarks.txt"
WITHOUT_SECOND_SCAN = 30
"""The subject of MICC Florence that has one frontal scan."""
_SCANS = "Model"
_CHANCE = tuple(b"micc")


class Video(NamedTuple):
    """How a video of MICC is taken.

    Attributes
    ----------
    scale : float
        Of the face: at 1 the frame is 240 mm wide there, at 0.5 480 mm.
    turn : float
        Standard deviation of pitch and yaw at its ends, degrees.
    blur : float
        Standard deviation, pixels of a frame of 400.
    harshness : float
        Of the light, see `asmgen.synthetic_photos.photograph`.
    """

    scale: float
    turn: float
    blur: float
    harshness: float


VIDEOS = {
    "Indoor-Cooperative": Video(0.85, 8, 0, 0), "PTZ-Indoor": Video(0.6, 18, 0.8, 0.2),
    "PTZ-Outdoor": Video(0.5, 27, 1.0, 0.5),
}


def synthesize_micc(
    out_dir: Path, subjects: int, frames: int = 8, noise: float = 0.1, spacing: float = 0.8, seed: int = 0,
    jobs: int = 1, image_size: int = 400, mjpg: bool = False, progress: Callable[..., tqdm] = tqdm,
) -> list[str]:
    """Write scans and videos of random subjects, on the open face model, as MICC Florence has them.

    Parameters
    ----------
    out_dir : Path
        Folder to make; if it exists, empty or what a stopped run with the same options left.
    subjects : int
        Number of subjects.
    frames : int
        Of each of the three videos: the head turns evenly from one pose to another, the mouth talks.
    noise : float
        Of the scans, standard deviation along the normal, mm.
    spacing : float
        Between samples of a scan, mm.
    seed : int
        The same seed gives the same bytes, whatever `jobs`; fewer subjects are the first of more.
    jobs : int
        Processes.
    image_size : int
        Side of a frame, pixels.
    mjpg : bool
        Videos are files of JPEGs one after another, and the landmarks a list in which frame 12 of
        ``Video/PTZ-Indoor.mjpg`` is called ``Video/PTZ-Indoor/0012.jpg``; else folders of frames.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    list[str]
        Names of the subjects. FileExistsError is raised if `out_dir` holds anything else, ValueError if a number is
        out of range.
    """
    check_numbers(
        subjects=(subjects, 1), frames=(frames, 1), noise=(noise, 0), spacing=(spacing, MIN_SPACING), seed=(seed, 0),
        jobs=(jobs, 1), image_size=(image_size, 64),
    )
    names = [f"subject_{number:02d}" for number in range(1, subjects + 1)]
    parts = (_SCANS, *VIDEOS)
    settings = frames, noise, spacing, seed, image_size, mjpg
    tasks = [(number, part, *settings) for number in range(1, subjects + 1) for part in parts]
    with new_dataset(out_dir, "micc", subjects, *settings) as out_dir:
        lists = run_on_model(_write_part, out_dir, open_face_model(), tasks, jobs, progress, "part")
        if mjpg:
            write_whole(out_dir / LANDMARK_LIST, "".join(lists).encode())
    return names


def _write_part(out_dir, model, number, part, frames, noise, spacing, seed, image_size, mjpg) -> str:
    """Write the scans of a subject, or one video; return the rows of the landmark list."""
    face = random_face(model, np.random.default_rng([*_CHANCE, seed, number]))
    face = face.with_expression(model, np.zeros(len(face.exp_coeffs)))
    name = f"subject_{number:02d}"
    if part in VIDEOS:
        rng = np.random.default_rng([*_CHANCE, seed, number, *part.encode()])
        return _write_video(out_dir, f"{name}/Video/{part}", model, face, VIDEOS[part], rng, frames, image_size, mjpg)
    write_whole(out_dir / TRUTH / f"{name}_neutral.npy", npy_bytes(face.vertices))
    for scan_number in (1,) if number == WITHOUT_SECOND_SCAN else (1, 2):
        rng = np.random.default_rng([*_CHANCE, seed, number, *part.encode(), scan_number])
        scan = scan_face(model, face, random_motion(rng, 4, 20), rng, noise, spacing)
        stem = out_dir / name / "Model" / f"frontal{scan_number}" / "obj" / f"1209{number:04d}{scan_number:02d}"
        write_whole(stem.with_suffix(".mtl"), mtl_bytes(f"{stem.name}.bmp"))
        write_whole(stem.with_suffix(".bmp"), bmp_bytes(Image.fromarray(scan.texture)))
        write_whole(stem.with_suffix(".ljson"), ljson_bytes(scan.landmarks))
        write_whole(stem.with_suffix(".obj"), obj_bytes(scan.vertices, scan.triangles, scan.uv, f"{stem.name}.mtl"))
        write_truth(out_dir, f"{name}_frontal{scan_number}", scan)
    return ""


def _write_video(out_dir, name, model, face, video, rng, frames, image_size, mjpg) -> str:
    """Write one video; return the rows of the landmark list."""
    ends = np.radians(rng.normal(0, (video.turn / 2, video.turn, 5), (2, 3)))
    scale = image_size / 240 * video.scale * rng.uniform(0.9, 1.1)
    scene, talk = rng.integers(2**32), act_coefficients(**ACTS["talk"])
    jpegs, rows = [], []
    for frame, part in enumerate(np.linspace(0, 1, frames)):
        shown = face.with_expression(model, rng.uniform(0, 1.2) * talk)
        pose = ends[0] + part * (ends[1] - ends[0])
        position = centred_position(model, shown, pose, scale, image_size, rng.normal(0, 0.02 * image_size, 2))
        photo = photograph(  # one scene: light, background and noise are those of the first frame
            model, shown, pose, position, np.random.default_rng(scene), image_size, video.harshness,
            video.blur * image_size / 400,
        )
        points = landmarks_in_photo(model, shown, pose, position)
        jpegs.append(jpeg_bytes(photo.picture))
        if mjpg:
            rows.append(f"{name}/{frame:04d}.jpg " + " ".join(f"{x:.3f}" for x in points.ravel().tolist()) + "\n")
        else:
            write_whole(out_dir / name / f"{frame:04d}.pts", pts_bytes(points))
            write_whole(out_dir / name / f"{frame:04d}.jpg", jpegs[-1])
    if mjpg:
        write_whole(out_dir / f"{name}.mjpg", b"".join(jpegs))
    return "".join(rows)
