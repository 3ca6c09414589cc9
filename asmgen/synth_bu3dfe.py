"""Render a dataset in the layout of BU-3DFE: scans and pictures of people who make seven expressions.

    <out>/F0001/F0001_AN01WH_F3D.wrl, _F3D.bnd, _F3D.bmp     scan, 83 landmarks, texture
    <out>/F0001/F0001_AN01WH_F2D.bmp, _F2D.pts               picture of the scan from its front, 68 landmarks
    <out>/truth/F0001_neutral.npy, F0001_AN01WH_full.npy     (V, 3) mm, in the axes of the face model
    <out>/truth/F0001_AN01WH_motion.npy, _on_face.npy        see `asmgen.synthetic_scans`

The landmarks of the pictures and the truth are what the real dataset does not have. Sex alternates in the names and
means nothing, nor does WH.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from asmgen.dataset_files import bmp_bytes, check_numbers, new_dataset, npy_bytes, pts_bytes, run_on_model, write_whole
from asmgen.scan_files import bnd_bytes, wrl_bytes
from asmgen.synthetic_faces import random_face
from asmgen.synthetic_photos import centred_position, landmarks_in_photo, photograph
from asmgen.synthetic_scans import MIN_SPACING, TRUTH, random_motion, scan_face, write_truth
from bfm.open_face import open_face_model
from bfm.open_face.acts import ACTS, act_coefficients
from bfm.pose import pose_from_rotation

EXPRESSIONS = {"AN": "anger", "DI": "disgust", "FE": "fear", "HA": "laugh", "SA": "sadness", "SU": "surprise"}
"""BU-3DFE's codes and the acts that stand for them: level k shows 25 k percent of one. NE, level 00, is neutral."""
LEVELS = (1, 2, 3, 4)
PICTURE_WIDTH = 300.0  # mm across a picture
_CHANCE = tuple(b"bu3dfe")


def synthesize_bu3dfe(
    out_dir: Path, people: int, levels: Sequence[int] = LEVELS, noise: float = 0.1, spacing: float = 1.6,
    seed: int = 0, jobs: int = 1, image_size: int = 512, progress: Callable[..., tqdm] = tqdm,
) -> list[str]:
    """Write scans and pictures of random people, on the open face model, as BU-3DFE has them.

    Parameters
    ----------
    out_dir : Path
        Folder to make; if it exists, empty or what a stopped run with the same options left.
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
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    list[str]
        Names of the people. FileExistsError is raised if `out_dir` holds anything else.

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
    tasks = [(person, code, noise, spacing, seed, image_size) for person in range(people) for code in codes]
    with new_dataset(out_dir, "bu3dfe", people, codes, noise, spacing, seed, image_size) as out_dir:
        run_on_model(_write_expression, out_dir, open_face_model(), tasks, jobs, progress, "scan")
    return [_person_name(person) for person in range(people)]


def _write_expression(out_dir, model, person, code, noise, spacing, seed, image_size) -> None:
    """Write one scan of a person, and its picture."""
    name = _person_name(person)
    face = random_face(model, np.random.default_rng([*_CHANCE, seed, person]))
    neutral = face.with_expression(model, np.zeros(len(face.exp_coeffs)))
    if code == "NE00":
        face = neutral
        write_whole(out_dir / TRUTH / f"{name}_neutral.npy", npy_bytes(neutral.vertices))
    else:
        full = act_coefficients(**ACTS[EXPRESSIONS[code[:2]]])
        face = neutral.with_expression(model, int(code[2:]) / len(LEVELS) * full)
    rng = np.random.default_rng([*_CHANCE, seed, person, *code.encode()])
    scan = scan_face(model, face, random_motion(rng, 3, 10), rng, noise, spacing)
    pose = pose_from_rotation(scan.motion[:3, :3])  # the picture shows the scan from its front
    position = centred_position(model, face, pose, image_size / PICTURE_WIDTH, image_size, np.zeros(2))
    picture = photograph(model, face, pose, position, rng, image_size).picture
    points = landmarks_in_photo(model, face, pose, position)
    stem = out_dir / name / f"{name}_{code}WH"
    write = {
        "_F2D.pts": pts_bytes(points), "_F2D.bmp": bmp_bytes(picture),
        "_F3D.bmp": bmp_bytes(Image.fromarray(scan.texture)), "_F3D.bnd": bnd_bytes(scan.landmarks, scan.vertices),
        "_F3D.wrl": wrl_bytes(scan.vertices, scan.triangles, scan.uv, f"{stem.name}_F3D.bmp"),
    }
    for ending, data in write.items():
        write_whole(stem.with_name(stem.name + ending), data)
    write_whole(out_dir / TRUTH / f"{stem.name}_full.npy", npy_bytes(face.vertices))
    write_truth(out_dir, stem.name, scan)


def _person_name(person: int) -> str:
    """F0001, M0001, F0002, ..."""
    return f"{'FM'[person % 2]}{person // 2 + 1:04d}"
