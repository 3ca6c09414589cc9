"""Render the datasets that reconstructions are measured on, scans with photos, in their own layouts.

MICC Florence, neutral scans and videos of people who talk, and BU-3DFE, scans and pictures of seven expressions::

    <out>/subject_01/Model/frontal1/obj/<digits>.obj, .mtl, .bmp, .ljson and frontal2; subject_30 has no second
    <out>/subject_01/Video/PTZ-Outdoor/0000.jpg, .pts                    or PTZ-Outdoor.mjpg, <out>/landmarks.txt

    <out>/F0001/F0001_AN01WH_F3D.wrl, _F3D.bnd, _F3D.bmp (texture), _F2D.bmp (picture), _F2D.pts

Landmarks lie beside the files, which those of the videos and pictures in reality do not. What no real dataset has is
the truth, in ``<out>/truth``: ``<person>_neutral.npy`` (V, 3), mm, canonical, for BU-3DFE ``<scan>_full.npy`` with the
expression; ``<scan>_motion.npy`` (4, 4) from the face model's axes to the scan's, and ``<scan>_on_face.npy``, the
vertices of the scan that are of the face. In BU-3DFE's names sex alternates and means nothing, nor does WH.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from asmgen.dataset_files import check_numbers, jpeg_bytes, new_folder, write_whole
from asmgen.scan_files import bnd_bytes, ljson_bytes, mtl_bytes, obj_bytes, wrl_bytes
from asmgen.synthetic_faces import centred_position, photograph, random_face
from asmgen.synthetic_scans import SyntheticScan, random_motion, scan_face
from asmgen.workers import run_tasks, share, shared
from bfm.open_face import open_face_model
from bfm.open_face.acts import ACTS, act_coefficients
from bfm.pose import pose_from_rotation, project

TRUTH = "truth"
LANDMARK_LIST = "landmarks.txt"
WITHOUT_SECOND_SCAN = 30
"""The subject of MICC that has one frontal scan."""


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
        Of the light, see `asmgen.synthetic_faces.photograph`.
    """

    scale: float
    turn: float
    blur: float
    harshness: float


VIDEOS = {
    "Indoor-Cooperative": Video(0.85, 8, 0, 0), "PTZ-Indoor": Video(0.6, 18, 0.8, 0.2),
    "PTZ-Outdoor": Video(0.5, 27, 1.0, 0.5),
}
EXPRESSIONS = {"AN": "anger", "DI": "disgust", "FE": "fear", "HA": "laugh", "SA": "sadness", "SU": "surprise"}
"""BU-3DFE's codes and the acts that stand for them: level k shows 25 k percent of one. NE, level 00, is neutral."""
LEVELS = (1, 2, 3, 4)
MIN_SPACING = 0.2  # mm; a scan has a million vertices then
PICTURE_WIDTH = 300.0  # mm across a picture of BU-3DFE
_MICC, _BU3DFE = tuple(b"micc"), tuple(b"bu3dfe")
_SCANS, _VIDEOS = 0, 1


def synthesize_micc(
    out_dir: Path, subjects: int, frames: int = 8, noise: float = 0.1, spacing: float = 0.8, seed: int = 0,
    jobs: int = 1, image_size: int = 400, mjpg: bool = False,
) -> list[str]:
    """Write scans and videos of random subjects, on the open face model, as MICC Florence has them.

    Parameters
    ----------
    out_dir : Path
        Folder to make; must be empty if it exists.
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

    Returns
    -------
    list[str]
        Names of the subjects. FileExistsError is raised if `out_dir` holds anything, ValueError if a number is out of
        range.
    """
    check_numbers(
        subjects=(subjects, 1), frames=(frames, 1), noise=(noise, 0), spacing=(spacing, MIN_SPACING), seed=(seed, 0),
        jobs=(jobs, 1), image_size=(image_size, 64),
    )
    names = [f"subject_{number:02d}" for number in range(1, subjects + 1)]
    parts = (None, *VIDEOS)
    settings = frames, noise, spacing, seed, image_size, mjpg
    lists = _in_workers(
        _write_subject, new_folder(out_dir), [(number, part, *settings) for number in range(1, subjects + 1)
                                              for part in parts], jobs
    )
    if mjpg:
        write_whole(Path(out_dir, LANDMARK_LIST), "".join(lists).encode())
    return names


def synthesize_bu3dfe(
    out_dir: Path, people: int, levels: Sequence[int] = LEVELS, noise: float = 0.1, spacing: float = 1.6,
    seed: int = 0, jobs: int = 1, image_size: int = 512,
) -> list[str]:
    """Write scans and pictures of random people, on the open face model, as BU-3DFE has them.

    Parameters
    ----------
    out_dir : Path
        Folder to make; must be empty if it exists.
    people : int
        Number of people.
    levels : Sequence[int]
        Of each expression, 1 to 4.
    noise : float
        Of the scans, standard deviation along the normal, mm.
    spacing : float
        Between samples of a scan, mm.
    seed : int
        The same seed gives the same bytes, whatever `jobs`; fewer people or levels are part of more.
    jobs : int
        Processes.
    image_size : int
        Side of a picture, pixels.

    Returns
    -------
    list[str]
        Names of the people. FileExistsError is raised if `out_dir` holds anything.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    check_numbers(
        people=(people, 1), noise=(noise, 0), spacing=(spacing, MIN_SPACING), seed=(seed, 0), jobs=(jobs, 1),
        image_size=(image_size, 64),
    )
    if not set(levels) <= set(LEVELS):
        raise ValueError(f"levels must be of {', '.join(map(str, LEVELS))}, got {', '.join(map(str, levels))}")
    codes = ["NE00", *(f"{code}{level:02d}" for code in EXPRESSIONS for level in sorted(set(levels)))]
    _in_workers(
        _write_expression, new_folder(out_dir),
        [(person, code, noise, spacing, seed, image_size) for person in range(people) for code in codes], jobs,
    )
    return [_person_name(person) for person in range(people)]


def _in_workers(write, out_dir: Path, tasks: list[tuple], jobs: int) -> list:
    """Call ``write(out_dir, shared model, *task)`` for each task."""
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=out_dir) as scratch:
        shared_model = share(open_face_model(), Path(scratch, "model"))
        return run_tasks(write, [(out_dir, shared_model, *task) for task in tasks], jobs)


def _write_subject(out_dir, shared_model, number, video, frames, noise, spacing, seed, image_size, mjpg) -> str:
    """Write the scans of a subject, or one video; return the rows of the landmark list."""
    model = shared(shared_model)
    face = random_face(model, np.random.default_rng([*_MICC, seed, number]))
    face = face.with_expression(model, np.zeros(len(face.exp_coeffs)))
    name = f"subject_{number:02d}"
    if video:
        rng = np.random.default_rng([*_MICC, seed, number, _VIDEOS, list(VIDEOS).index(video)])
        return _write_video(out_dir, f"{name}/Video/{video}", model, face, VIDEOS[video], rng, frames, image_size, mjpg)
    _write_array(out_dir / TRUTH / f"{name}_neutral.npy", face.vertices)
    for scan_number in (1,) if number == WITHOUT_SECOND_SCAN else (1, 2):
        rng = np.random.default_rng([*_MICC, seed, number, _SCANS, scan_number])
        scan = scan_face(model, face, random_motion(rng, 4, 20), rng, noise, spacing)
        stem = out_dir / name / "Model" / f"frontal{scan_number}" / "obj" / f"1209{number:04d}{scan_number:02d}"
        write_whole(stem.with_suffix(".mtl"), mtl_bytes(f"{stem.name}.bmp"))
        write_whole(stem.with_suffix(".bmp"), _bmp_bytes(Image.fromarray(scan.texture)))
        write_whole(stem.with_suffix(".ljson"), ljson_bytes(scan.landmarks))
        write_whole(stem.with_suffix(".obj"), obj_bytes(scan.vertices, scan.triangles, scan.uv, f"{stem.name}.mtl"))
        _write_truth(out_dir, f"{name}_frontal{scan_number}", scan)
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
        photo = photograph(  # one scene: the light and the background are those of the first frame
            model, shown, pose, position, np.random.default_rng(scene), image_size, video.harshness,
            video.blur * image_size / 400,
        )
        points = project(shown.vertices[model.landmarks].astype(np.float64), pose, position)[:, :2]
        jpegs.append(jpeg_bytes(photo.picture))
        if mjpg:
            rows.append(f"{name}/{frame:04d}.jpg " + " ".join(f"{x:.3f}" for x in points.ravel().tolist()) + "\n")
        else:
            write_whole(out_dir / name / f"{frame:04d}.pts", _pts_bytes(points))
            write_whole(out_dir / name / f"{frame:04d}.jpg", jpegs[-1])
    if mjpg:
        write_whole(out_dir / f"{name}.mjpg", b"".join(jpegs))
    return "".join(rows)


def _write_expression(out_dir, shared_model, person, code, noise, spacing, seed, image_size) -> None:
    """Write one scan of a person, and its picture."""
    model, name = shared(shared_model), _person_name(person)
    face = random_face(model, np.random.default_rng([*_BU3DFE, seed, person]))
    neutral = face.with_expression(model, np.zeros(len(face.exp_coeffs)))
    if code == "NE00":
        face = neutral
        _write_array(out_dir / TRUTH / f"{name}_neutral.npy", neutral.vertices)
    else:
        full = act_coefficients(**ACTS[EXPRESSIONS[code[:2]]])
        face = neutral.with_expression(model, int(code[2:]) / len(LEVELS) * full)
    rng = np.random.default_rng([*_BU3DFE, seed, person, *code.encode()])
    scan = scan_face(model, face, random_motion(rng, 3, 10), rng, noise, spacing)
    pose = pose_from_rotation(scan.motion[:3, :3])  # the picture shows the scan from its front
    position = centred_position(model, face, pose, image_size / PICTURE_WIDTH, image_size, np.zeros(2))
    picture = photograph(model, face, pose, position, rng, image_size).picture
    points = project(face.vertices[model.landmarks].astype(np.float64), pose, position)[:, :2]
    stem = out_dir / name / f"{name}_{code}WH"
    write = {
        "_F2D.pts": _pts_bytes(points), "_F2D.bmp": _bmp_bytes(picture),
        "_F3D.bmp": _bmp_bytes(Image.fromarray(scan.texture)), "_F3D.bnd": bnd_bytes(scan.landmarks, scan.vertices),
        "_F3D.wrl": wrl_bytes(scan.vertices, scan.triangles, scan.uv, f"{stem.name}_F3D.bmp"),
    }
    for ending, data in write.items():
        write_whole(stem.with_name(stem.name + ending), data)
    _write_array(out_dir / TRUTH / f"{stem.name}_full.npy", face.vertices)
    _write_truth(out_dir, stem.name, scan)


def _person_name(person: int) -> str:
    """F0001, M0001, F0002, ..."""
    return f"{'FM'[person % 2]}{person // 2 + 1:04d}"


def _write_truth(out_dir: Path, name: str, scan: SyntheticScan) -> None:
    """Write what is true of one scan."""
    _write_array(out_dir / TRUTH / f"{name}_motion.npy", scan.motion)
    _write_array(out_dir / TRUTH / f"{name}_on_face.npy", scan.on_face)


def _write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array)
    write_whole(path, file.getvalue())


def _bmp_bytes(picture: Image.Image) -> bytes:
    """A picture as a BMP file."""
    file = io.BytesIO()
    picture.save(file, "BMP")
    return file.getvalue()


def _pts_bytes(points: np.ndarray) -> bytes:
    """300-W's file of (68, 2) landmarks, pixels from 0; it counts from 1."""
    lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in (points + 1).tolist())
    return f"version: 1\nn_points: {len(points)}\n{{\n{lines}}}\n".encode()
