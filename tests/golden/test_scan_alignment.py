"""Alignment and distances against scans whose truth is known: the open model on another topology, moved and noised."""

import numpy as np
import pytest
from made_scans import HAIR, made_scan
from scipy.spatial.transform import Rotation

from bfm.open_face import open_face_model
from bfm.pose import rotation_matrix
from bfm.render import vertex_normals
from bfm.similarity import Similarity
from model.evaluation.alignment import align, initial_transform, surface_distances
from model.evaluation.scan_errors import scan_errors
from model.evaluation.scans import Scan

open3d = pytest.importorskip(
    "open3d", reason="open3d does not import (on Linux it needs libusb-1.0)", exc_type=ImportError
)

SPACING, NOISE = 2.0, 0.1
TRUTH = Similarity(1.0, rotation_matrix(np.radians([4.0, -6, 3])), np.array([10.0, -20, 30]))
TURN = Rotation.from_rotvec(np.radians(15) * np.array([2, 2, 1]) / 3).as_matrix()
SHIFT = 20 * np.array([2, -2, 1]) / 3


@pytest.fixture(scope="module")
def model():
    return open_face_model()


@pytest.fixture(scope="module")
def face(model):
    vertices = model.mean_shape.astype(float)
    return Scan(vertices, model.triangles, dict(enumerate(vertices[model.landmarks])), "prediction")


@pytest.fixture(scope="module")
def scans(model, face):
    """By noise, and whether hair and neck are there."""
    return {
        (noise, clutter): made_scan(model, face.vertices, TRUTH, SPACING, noise, clutter)
        for noise, clutter in ((0.0, False), (NOISE, False), (NOISE, True))
    }


def moved(face, motion):
    landmarks = {number: motion.apply(point) for number, point in face.landmarks.items()}
    return Scan(motion.apply(face.vertices), face.triangles, landmarks, face.name)


def degrees(a, b):
    return np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1)))


def skin_of(scan, face):
    """Which vertices of a scan are below hair and above the neck."""
    height = ((scan.vertices - TRUTH.translation) @ TRUTH.rotation)[:, 1]
    return (height < face.vertices[:, 1].max() - HAIR) & (height > face.vertices[:, 1].min() + 26)


def off_start(scale=1.1):
    """The truth, turned by 15 degrees about the origin, moved by 20 mm, and scaled."""
    return Similarity(scale, TURN @ TRUTH.rotation, TRUTH.translation + SHIFT)


@pytest.mark.parametrize("noise, clutter", [(0.0, False), (NOISE, False), (NOISE, True)])
def test_similarity_is_recovered_from_a_start_far_off(face, scans, noise, clutter):
    found = align(face, scans[noise, clutter], start=off_start())
    assert found.transform.scale == pytest.approx(1, abs=0.002)
    assert degrees(found.transform.rotation, TRUTH.rotation) < 0.2
    off = np.linalg.norm(found.transform.apply(face.vertices) - TRUTH.apply(face.vertices), axis=1)
    assert off.mean() < 0.06
    assert found.landmark_distance < 0.06 and found.fitness > 0.99
    assert clutter or found.inlier_rmse == pytest.approx(noise, abs=0.005)  # mm of the scan, whatever the start


@pytest.mark.parametrize("scale", [0.5, 1000.0])
def test_landmarks_find_the_scale_of_any_unit(face, scans, scale):
    other = moved(face, Similarity(scale, TURN, SHIFT))
    found = align(other, scans[NOISE, True])
    assert found.transform.scale * scale == pytest.approx(1, abs=0.002)
    errors = scan_errors(other, scans[NOISE, True], found)
    assert errors.distances[skin_of(errors.scan, face)].mean() == pytest.approx(NOISE * np.sqrt(2 / np.pi), abs=0.01)


def test_the_jaw_has_no_say_in_the_start(face, scans):
    scan = scans[0.0, False]
    shifted = {number: point + 30 * (number < 17) for number, point in face.landmarks.items()}
    start, other = (initial_transform(Scan(face.vertices, face.triangles, known), scan)
                    for known in (face.landmarks, shifted))
    np.testing.assert_allclose(other.apply(face.vertices), start.apply(face.vertices), atol=1e-9)
    np.testing.assert_allclose(start.apply(face.vertices), TRUTH.apply(face.vertices), atol=1e-6)


def test_without_landmarks_nose_tips_start(face, scans):
    bare = Scan(face.vertices, face.triangles)
    scan = scans[NOISE, False]
    unmarked = Scan(scan.vertices, scan.triangles)
    start = initial_transform(bare, unmarked)
    assert start.scale == 1 and np.array_equal(start.rotation, np.eye(3))
    found = align(bare, unmarked)
    assert found.landmark_distance is None
    assert found.transform.scale == pytest.approx(1, abs=0.002)
    assert degrees(found.transform.rotation, TRUTH.rotation) < 0.2


def test_rigid_alignment_keeps_the_scale_of_its_start(face, scans):
    found = align(face, scans[NOISE, True], scale=False, start=off_start(1.0))
    assert found.transform.scale == 1
    assert degrees(found.transform.rotation, TRUTH.rotation) < 0.2
    larger = align(face, scans[NOISE, True], scale=False, start=off_start(1.04))
    assert larger.transform.scale == pytest.approx(1.04, abs=1e-12)
    skin = skin_of(scans[NOISE, True], face)
    means = [scan_errors(face, scans[NOISE, True], one).distances[skin].mean() for one in (found, larger)]
    assert means[0] < 0.1 and means[1] > 0.4


def test_distance_of_a_noisy_scan_is_that_of_the_noise(face, scans):
    distances, faced = surface_distances(scans[NOISE, False].vertices, moved(face, TRUTH))
    assert faced.mean() > 0.99
    assert distances[faced].mean() == pytest.approx(NOISE * np.sqrt(2 / np.pi), rel=0.02)  # mean of |N(0, s)|
    exact, _ = surface_distances(scans[0.0, False].vertices, moved(face, TRUTH))
    assert exact.max() < 1e-3


@pytest.mark.parametrize("out", [1.0, 2.5])
def test_distance_of_a_face_moved_along_its_normals_is_how_far(face, scans, out):
    there = moved(face, TRUTH)
    further = Scan(there.vertices + out * vertex_normals(there.vertices, there.triangles), there.triangles)
    distances, faced = surface_distances(scans[0.0, False].vertices, further)
    assert np.median(distances[faced]) == pytest.approx(out, rel=0.005)
    assert np.mean(np.abs(distances[faced] - out) < 0.05 * out) > 0.8  # less in wrinkles and at corners


def test_distance_is_to_the_plane_where_the_surface_is_and_none_beside_it():
    vertices = np.array([[0, 0, 0], [10, 0, 0], [20, 0, 0], [0, 10, 0], [10, 10, 0], [20, 10, 0], [0, 20, 0],
                         [10, 20, 0], [20, 20, 0]], float)
    cells = [[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4], [3, 4, 7], [3, 7, 6], [4, 5, 8], [4, 8, 7]]
    points = np.array([[3, 4, 2], [10, 10, -5], [30, 10, 3], [20, 7, 1], [13, 19, 0.5]], float)
    distances, faced = surface_distances(points, Scan(vertices, np.array(cells)))
    np.testing.assert_allclose(distances, [2, 5, 3, 1, 0.5], atol=1e-6)  # beside it, off the plane it would have
    np.testing.assert_array_equal(faced, [True, True, False, False, True])


def test_hair_and_neck_count_in_the_crop_but_not_where_both_are(face, scans):
    scan, noise = scans[NOISE, True], NOISE * np.sqrt(2 / np.pi)
    height = face.vertices[:, 1]
    inside = (height < height.max() - HAIR) & (height > height.min() + 30)
    bare = Scan(face.vertices, face.triangles[inside[face.triangles].all(1)], face.landmarks, "without a forehead")
    errors = scan_errors(bare, scan, align(bare, scan))
    numbers = errors.numbers
    assert errors.alignment.transform.scale == pytest.approx(1, abs=0.002)
    assert numbers["mean_mm"] == pytest.approx(noise, abs=0.01)
    assert numbers["crop_mean_mm"] > 3 * noise and 50 < numbers["common_percent"] < 80
    nose = scan.landmarks[30]
    np.testing.assert_array_equal(errors.cropped, np.linalg.norm(scan.vertices - nose, axis=1) < 95)
    assert (errors.common <= errors.cropped).all()
    distances = errors.distances[errors.cropped]
    assert numbers["crop_rmse_mm"] == pytest.approx(np.sqrt(np.mean(distances**2)), abs=1e-5)
    small = scan_errors(face, scan, errors.alignment, radius=60)
    assert small.cropped.sum() < errors.cropped.sum() and small.numbers["mean_mm"] < numbers["crop_mean_mm"]


@pytest.mark.parametrize("change, message", [
    (lambda scan: Scan(scan.vertices / 1000, scan.triangles, {}, "metres"), "metres"),
    (lambda scan: Scan(scan.vertices, scan.triangles, {30: np.full(3, 1e4)}, "far"), "far has only 0 vertices"),
])
def test_what_cannot_be_aligned_says_why(face, scans, change, message):
    with pytest.raises(ValueError, match=message):
        align(Scan(face.vertices, face.triangles), change(scans[0.0, False]))


def test_the_same_alignment_twice(face, scans):
    first, second = (align(face, scans[NOISE, True]).quality() for _ in range(2))
    assert first == second
