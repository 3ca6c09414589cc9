"""Render the expression stress set: people who make one movement further and further, in the layout of 300W-LP.

    <out>/mouth_open/mouth_open_000003_050.jpg, .mat             person 3, half open
    <out>/landmarks/mouth_open/mouth_open_000003_050_pts.mat

The units are those of `bfm.open_face.acts.STRESS_UNITS`, and ``combined``: both acts of one of `HELD_OUT_PAIRS`, which
`synth 300wlp --expressions acts` never makes together. 125 % is further than any act of the training faces goes, and 0
the neutral face. A person keeps identity and albedo; each photo has its own pose, about frontal, light and background.
People differ from those of `asmgen.synth` whatever the seeds: the random numbers here begin with a word of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asmgen.dataset_files import check_numbers, new_dataset, run_on_model
from asmgen.synth import random_poses, write_photo
from asmgen.synthetic_faces import random_face
from bfm.open_face import open_face_model
from bfm.open_face.acts import ACTS, COMBINED, HELD_OUT_PAIRS, STRESS_UNITS, act_coefficients

UNITS = (*STRESS_UNITS, COMBINED)
STRENGTHS = (0, 25, 50, 75, 100, 125)
"""Percent of the full movement."""
_CHANCE = tuple(b"stress")


def synthesize_expressions(
    out_dir: Path, people: int, seed: int = 0, jobs: int = 1, image_size: int = 450,
    progress: Callable[..., tqdm] = tqdm,
) -> list[Path]:
    """Write a photo of each person, unit and strength, with its annotation (`asmgen.synth.write_photo`).

    Parameters
    ----------
    out_dir : Path
        Folder to make; if it exists, empty or what a stopped run with the same options left.
    people : int
        Number of people, of ``len(UNITS) * len(STRENGTHS)`` photos each, on the open face model.
    seed : int
        The same seed gives the same bytes, whatever `jobs`; fewer people are the first of more.
    jobs : int
        Processes.
    image_size : int
        Side of a photo, pixels.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    list[Path]
        The photos, by person, unit and strength. FileExistsError is raised if `out_dir` holds anything else,
        ValueError if a number is out of range.
    """
    check_numbers(people=(people, 1), seed=(seed, 0), jobs=(jobs, 1), image_size=(image_size, 64))
    tasks = [(person, unit, seed, image_size) for person in range(people) for unit in UNITS]
    with new_dataset(out_dir, "expressions", people, seed, image_size) as out_dir:
        written = run_on_model(
            _write_unit, out_dir, open_face_model(), tasks, jobs, progress, "photo", [len(STRENGTHS)] * len(tasks)
        )
    return [path for paths in written for path in paths]


def _write_unit(out_dir, model, person, unit, seed, image_size) -> list[Path]:
    """Render and write the photos of one person who makes one movement."""
    rng = np.random.default_rng([*_CHANCE, seed, person])
    face = random_face(model, rng)
    pair = HELD_OUT_PAIRS[rng.integers(len(HELD_OUT_PAIRS))]
    acts = [ACTS[name] for name in pair] if unit == COMBINED else [STRESS_UNITS[unit]]
    full = np.sum([act_coefficients(**movements) for movements in acts], axis=0)
    paths = []
    for strength in STRENGTHS:
        rng = np.random.default_rng([*_CHANCE, seed, person, UNITS.index(unit), strength])
        shown = face.with_expression(model, strength / 100 * full)
        pose_para = random_poses(model, shown, rng, image_size, 1)[0]
        name = f"{unit}_{person:06d}_{strength:03d}"
        paths.append(write_photo(out_dir, unit, name, model, shown, pose_para, rng, image_size))
    return paths
