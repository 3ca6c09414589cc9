"""Photos of toy faces whose expressions grow, in the layout of `dualface synth expressions`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from toy import toy_model

from asmgen.synth import random_poses, write_photo
from asmgen.synthetic_faces import random_face

PLAIN = toy_model()
BELOW = 1 / (1 + np.exp((PLAIN.mean_shape[:, 1:] + 20) / 8))[:, :1]  # expressions move the lower face
MODEL = replace(PLAIN, exp_basis=(PLAIN.exp_basis * BELOW).astype(np.float32))
UNITS, PEOPLE, STRENGTHS = ("smile", "eyes_closed"), (3, 8), (0, 50, 100)
FULL = {"smile": np.array([6.0, -3.0, 1.5], np.float32), "eyes_closed": np.array([0.0, 1.0, -0.6], np.float32)}


def write_stress(root: Path) -> Path:
    """Write photos of `PEOPLE` and return the folder."""
    for person in PEOPLE:
        face = random_face(MODEL, np.random.default_rng(person))
        for unit in UNITS:
            for strength in STRENGTHS:
                rng = np.random.default_rng([person, UNITS.index(unit), strength])
                shown = face.with_expression(MODEL, strength / 100 * FULL[unit])
                pose_para = random_poses(MODEL, shown, rng, 64, 1)[0]
                write_photo(root, unit, f"{unit}_{person:06d}_{strength:03d}", MODEL, shown, pose_para, rng, 64)
    return root
