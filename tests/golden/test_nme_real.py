"""The NME by yaw on the benchmark arrays of 3DDFA, against numbers found with a program of its own, and real photos."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asmgen.refit import LandmarkFitter
from bfm.landmarks import BFM_53215
from bfm.open_face import open_face_model
from bfm.similarity import fit_similarity
from cli.main import main
from model.evaluation.annotations import read_annotations
from model.evaluation.landmark_arrays import load_landmark_array
from model.evaluation.nme import by_yaw, landmark_nme

ROOT = Path(os.environ.get("DUALFACE_REAL_DATA", "."))
ARRAYS = ROOT / "aflw2000_3d_benchmark"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("DUALFACE_REAL_DATA" not in os.environ, reason="DUALFACE_REAL_DATA names no real files"),
]


def test_the_original_annotation_scored_against_the_new_one(tmp_path):
    """How far two annotations of the same photos are apart: what no method can be told better than."""
    result = CliRunner().invoke(main, [
        "evaluate", "aflw2000", str(ARRAYS), "--annotation", "reannotated", "--index-base", "1",
        "--predictions", str(ARRAYS / "AFLW2000-3D.pts68.npy"), "--label", "original", "-o", str(tmp_path / "out"),
    ])
    assert result.exit_code == 0, result.output
    original, mean_face = json.loads((tmp_path / "out" / "results.json").read_text())["methods"]
    means = original["nme_percent"]
    assert means["counts"] == [1312, 383, 305]
    assert means["bins"] == pytest.approx([2.790, 3.198, 4.201], abs=1e-3)
    assert means["mean_of_bins"] == pytest.approx(3.396, abs=1e-3)
    assert means["mean"] == pytest.approx(3.083, abs=1e-3)
    assert mean_face["nme_percent"]["mean_of_bins"] < means["mean_of_bins"]  # the open model's, which none has fitted
    assert (tmp_path / "out" / "curve.png").is_file() and not (tmp_path / "out" / "sheet.png").exists()


def test_the_mean_face_placed_by_the_landmarks_is_better_than_any_peer():
    """A third party reports 2.1 for the mean shape under the true pose; this one is placed by the landmarks."""
    truth = np.load(ARRAYS / "AFLW2000-3D.pts68.npy").transpose(0, 2, 1).astype(np.float64)
    parts = ROOT / "bfm_pieces_3ddfa"
    mean = np.load(parts / "u_shp.npy").ravel() + np.load(parts / "u_exp.npy").ravel()
    mean = mean.reshape(-1, 3)[list(BFM_53215)].astype(np.float64)
    placed = np.stack([fit_similarity(mean, points * [1, -1, 1]).apply(mean) * [1, -1, 1] for points in truth])
    means = by_yaw(landmark_nme(placed, truth), np.load(ARRAYS / "AFLW2000-3D.pose.npy"))
    assert means.bins == pytest.approx([2.192, 2.205, 2.492], abs=1e-3)
    assert means.mean_of_bins == pytest.approx(2.296, abs=1e-3)
    assert means.mean == pytest.approx(2.240, abs=1e-3)


def test_the_photos_have_the_landmarks_and_the_yaw_of_their_rows_in_the_arrays():
    truth = read_annotations(ROOT / "aflw2000_3d", open_face_model().face_only())
    assert not truth.failed and len(truth.faces) == 11
    assert {face.no_shape for face in truth.faces} == {"foreign coefficients"}
    landmarks = load_landmark_array(ARRAYS / "AFLW2000-3D.pts68.npy", 1, 2000)
    yaw = np.load(ARRAYS / "AFLW2000-3D.pose.npy")
    for name, row in {"image00050": 28, "image00251": 150, "image00430": 258}.items():
        (face,) = [face for face in truth.faces if face.name == name]
        np.testing.assert_allclose(face.landmarks, landmarks[row], atol=1e-3)
        assert face.yaw == pytest.approx(yaw[row], abs=1e-3)


def test_photos_with_landmark_files_alone_are_binned_by_the_fitted_yaw():
    truth = read_annotations(ROOT / "300w_lp", open_face_model().face_only())
    assert len(truth.faces) == 22 and len(truth.failed) == 3
    assert all("no annotation" in reason for reason in truth.failed)
    assert sum(face.yaw_annotated for face in truth.faces) == 1
    # 300W-LP turned the copies of a photo further and further
    copies = [face.yaw for face in truth.faces if "IBUG_image_008_1" in face.name and not face.yaw_annotated]
    assert len(copies) == 7 and (np.diff(copies) < 0).all()
    (annotated,) = [face for face in truth.faces if face.yaw_annotated]
    fitted = LandmarkFitter(open_face_model().face_only()).fit(annotated.landmarks).pose
    assert np.degrees(fitted[1]) == pytest.approx(annotated.yaw, abs=5)
    nme = landmark_nme(np.stack([face.mean_landmarks for face in truth.faces]), truth.landmarks)
    assert 2 < nme.mean() < 4 and nme.max() < 10
