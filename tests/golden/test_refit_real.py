"""The refit on every real photo with 68 labels, and its landmark marching against real 3-D labels."""

import os
from pathlib import Path

import numpy as np
import pytest

from asmgen.matfile import read_mat
from asmgen.refit import Refitter
from asmgen.w300lp import find_samples, read_sample
from bfm.open_face import open_face_model
from bfm.pose import rotation_matrix

ROOT = Path(os.environ.get("DUALFACE_REAL_DATA", "."))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("DUALFACE_REAL_DATA" not in os.environ, reason="DUALFACE_REAL_DATA names no real files"),
]


@pytest.fixture(scope="module")
def refitter() -> Refitter:
    """The open model's."""
    return Refitter(open_face_model())


@pytest.fixture(scope="module")
def samples():
    """The 33 annotated photos, landmarks only."""
    entries = find_samples(ROOT / "aflw2000_3d") + find_samples(ROOT / "300w_lp")
    return [read_sample(entry, None) for entry in entries if entry.parameters_path or entry.landmarks_path]


def test_all_real_photos_are_fitted(refitter, samples):
    assert len(samples) == 11 + 1 + 21
    fits = [refitter.fit(sample.image, sample.landmarks, sample.landmark_kind) for sample in samples]
    boxes = [np.sqrt(np.ptp(sample.landmarks, axis=0).prod()) for sample in samples]
    relative = np.array([fit.landmark_error for fit in fits]) / boxes
    pixels = np.mean([fit.landmark_error for fit in fits])
    print(f"{len(fits)} photos: mean {pixels:.2f} px, {100 * relative.mean():.2f} % of the box")
    assert relative.mean() < 0.015 and relative.max() < 0.03
    shape = np.concatenate([np.concatenate([fit.id_coeffs, fit.exp_coeffs]) for fit in fits])
    assert np.abs(shape).max() < 6 and (np.abs(shape) > 4).mean() < 1e-3  # faces that could be
    assert all(fit.light_residual < 0.35 and np.isfinite(fit.light).all() for fit in fits)


def test_marching_along_the_jaw_agrees_with_the_real_3d_labels(refitter, samples):
    angles, naive = [], []
    for sample in samples:
        if sample.set_name == "aflw2000_3d":
            continue
        visible = read_mat(sample.entry.landmarks_path, ("pts_2d",))["pts_2d"] - 1
        truth, marched, kept = (
            refitter.landmarks.fit(labels, kind).pose.astype(float)
            for labels, kind in ((sample.landmarks, "3d"), (visible, "2d"), (visible, "3d"))
        )
        for pose, found in ((marched, angles), (kept, naive)):
            turn = rotation_matrix(truth).T @ rotation_matrix(pose)
            found.append(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    assert len(angles) == 22
    assert np.mean(angles) < 2 and np.max(angles) < 5
    assert np.mean(naive) > 20  # what the outline does to a fit that takes it for the jaw
