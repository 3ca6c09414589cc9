import numpy as np
import pytest
from toy import toy_model

from bfm.pose import project
from model.evaluation.landmark_arrays import is_benchmark_folder, load_landmark_array, read_benchmark_arrays
from model.evaluation.nme import landmark_nme

POINTS = np.random.default_rng(0).uniform(0, 99, (4, 68, 2))


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("points_last", [False, True])
@pytest.mark.parametrize("index_base", [0, 1])
def test_both_layouts_and_both_bases(tmp_path, depth, points_last, index_base):
    array = POINTS + index_base
    if depth:
        array = np.concatenate([array, np.full((4, 68, 1), np.pi)], 2)
    np.save(tmp_path / "a.npy", array.transpose(0, 2, 1) if points_last else array)
    found = load_landmark_array(tmp_path / "a.npy", index_base, 4)
    assert found.shape == (4, 68, 2) and found.dtype == np.float64
    np.testing.assert_allclose(found, POINTS, atol=1e-12)


@pytest.mark.parametrize("array, message", [
    (np.zeros((4, 68, 4)), r"\(N, 68, 2 or 3\) or \(N, 2 or 3, 68\), got shape \(4, 68, 4\)"),
    (np.zeros((68, 2)), r"got shape \(68, 2\)"),
    (np.zeros((4, 21, 2)), r"got shape \(4, 21, 2\)"),
    (np.zeros((3, 68, 2)), "a row for each of the 4 photos, sorted by name, got 3"),
    (np.where(np.arange(4)[:, None, None] == 2, np.nan, POINTS), "NaN or infinity in row 2"),
    (np.array(["a"]), "one array of real numbers"),
    (np.array([{}], object), "must be a whole .npy file without objects, and is none; get"),
    (None, "must be a whole .npy file without objects, and is none; get"),
])
def test_what_is_no_array_of_landmarks(tmp_path, array, message):
    path = tmp_path / "a.npy"
    path.write_bytes(b"") if array is None else np.save(path, array)
    with pytest.raises(ValueError, match=message):
        load_landmark_array(path, 0, 4)


def test_a_folder_of_the_benchmark(tmp_path):
    model = toy_model()
    mean = model.mean_shape[model.landmarks].astype(np.float64)
    seen = project(mean, np.array([0.1, -0.7, 0.2]), np.array([80.0, 90, 0.5]))
    landmarks = np.stack([seen, seen + np.random.default_rng(0).normal(0, 3, seen.shape)])
    assert not is_benchmark_folder(tmp_path)
    np.save(tmp_path / "AFLW2000-3D.pts68.npy", (landmarks + 1).transpose(0, 2, 1).astype(np.float32))
    with pytest.raises(FileNotFoundError, match="AFLW2000-3D.pose.npy does not exist"):
        read_benchmark_arrays(tmp_path, "original", model)
    np.save(tmp_path / "AFLW2000-3D.pose.npy", np.array([-40.1, 3], np.float32))
    assert is_benchmark_folder(tmp_path)
    truth = read_benchmark_arrays(tmp_path, "original", model)
    np.testing.assert_allclose(truth.landmarks, landmarks[..., :2], atol=1e-4)
    np.testing.assert_allclose(truth.yaw, [-40.1, 3], atol=1e-5)
    assert truth.rows == [0, 1] and [face.name for face in truth.faces] == ["row 0", "row 1"]
    # the mean face itself is met, and of the other no turn, shift or size of it would come nearer
    nearest = np.stack([face.mean_landmarks for face in truth.faces])
    assert landmark_nme(nearest, truth.landmarks)[0] < 1e-3
    fits = [
        project(mean, np.array([0.1, -0.7, 0.2]) + turn, np.array([80.0, 90, 0.5]) + move)[:, :2]
        for turn, move in zip(*np.random.default_rng(1).normal(0, 0.03, (2, 300, 3)))
    ]
    left = ((nearest[1] - truth.landmarks[1]) ** 2).sum()
    assert all(left < ((fit - truth.landmarks[1]) ** 2).sum() for fit in fits)
    np.save(tmp_path / "AFLW2000-3D.pose.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"AFLW2000-3D.pose.npy must have shape \(2,\), got \(3,\)"):
        read_benchmark_arrays(tmp_path, "original", model)
