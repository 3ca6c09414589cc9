"""The reader's conventions, on real annotations and the part of the real basis that is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from asmgen.rejection import SampleError
from asmgen.w300lp import find_samples, read_sample
from bfm.morphable_model import BFM_COEFFICIENTS, MorphableModel
from bfm.pose import project

ROOT = Path(os.environ.get("DUALFACE_REAL_DATA", "."))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("DUALFACE_REAL_DATA" not in os.environ, reason="DUALFACE_REAL_DATA names no real files"),
]


@pytest.fixture(scope="module")
def partial_bfm() -> MorphableModel:
    """The BFM at its 68 landmarks: the first 40 identity and 10 expression modes, zeros for the rest."""
    pieces = ROOT / "bfm_pieces_3ddfa"
    mean = (np.load(pieces / "u_shp.npy").ravel() + np.load(pieces / "u_exp.npy").ravel())[
        np.load(pieces / "keypoints_sim.npy").ravel()
    ]
    id_stddev, exp_stddev = np.full(199, 1e5, np.float32), np.full(29, 1.0, np.float32)

    def basis(name: str, stddev: np.ndarray) -> np.ndarray:
        known = np.loadtxt(pieces / name).T.reshape(-1, 68, 3)
        padded = np.zeros((len(stddev), 68, 3), np.float32)
        padded[:len(known)] = known * stddev[:len(known), None, None] / 1000
        return padded

    return MorphableModel(
        mean_shape=mean.reshape(68, 3).astype(np.float32) / 1000,
        id_basis=basis("w_shp_base.txt", id_stddev), exp_basis=basis("w_exp_base.txt", exp_stddev),
        mean_albedo=np.full((68, 3), 0.5, np.float32), albedo_basis=np.zeros((199, 68, 3), np.float32),
        id_stddev=id_stddev, exp_stddev=exp_stddev, albedo_stddev=np.full(199, 2e3, np.float32),
        triangles=np.zeros((0, 3), np.int32), mouth_triangles=np.zeros((0, 3), np.int32),
        landmarks=np.arange(68, dtype=np.int32), mirror=np.arange(68, dtype=np.int32), regions=np.ones(68, np.uint8),
        name="BFM landmarks", layout="bfm-68", coefficients=BFM_COEFFICIENTS, licence="not redistributable",
    )


def landmark_errors(samples, model):
    """(N, 68) px between the projected model and the labels."""
    return np.array([
        np.linalg.norm(
            project(model.shape(s.id_coeffs, s.exp_coeffs), s.pose, s.position)[:, :2] - s.landmarks, axis=1
        ) for s in samples
    ])


def test_aflw2000_parameters_land_on_its_landmarks(partial_bfm):
    samples = [read_sample(entry, partial_bfm) for entry in find_samples(ROOT / "aflw2000_3d")]
    assert len(samples) == 11
    assert {(s.landmark_kind, s.image.shape, len(s.albedo_coeffs)) for s in samples} == {("3d", (450, 450, 3), 199)}
    assert landmark_errors(samples, partial_bfm).mean() < 1.3
    for axis in (0, 1):  # counted from 0 on both sides: no common shift
        shifts = [
            (project(partial_bfm.shape(s.id_coeffs, s.exp_coeffs), s.pose, s.position)[:, axis]
             - s.landmarks[:, axis]).mean() for s in samples
        ]
        assert abs(np.mean(shifts)) < 0.15


def test_300w_lp_parameters_land_on_pts_3d(partial_bfm):
    entries = {entry.source: entry for entry in find_samples(ROOT / "300w_lp")}
    entry = entries["with_params/IBUG_image_008_1_0"]
    assert entry.landmarks_path == ROOT / "300w_lp/ibug_landmarks/IBUG_image_008_1_0_pts.mat"
    sample = read_sample(entry, partial_bfm)
    assert sample.landmark_kind == "3d"
    assert landmark_errors([sample], partial_bfm).mean() < 0.5


def test_partial_tree_sorts_into_usable_and_rejected():
    entries = find_samples(ROOT / "300w_lp")
    kinds = []
    for entry in entries:
        try:
            kinds.append(read_sample(entry, None).landmark_kind)
        except SampleError as error:
            kinds.append(error.kind)
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"3d": 22, "no annotation": 3}
    assert [entry.source for entry in entries] == sorted(entry.source for entry in entries)
