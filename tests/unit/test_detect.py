"""Finding the face in a photo, and the square from what was found."""

import pickle

import numpy as np
import pytest

from asmgen import detect
from asmgen.crop import face_square
from asmgen.detect import LONGEST, FaceDetector, detected_square, detector_installed, detector_name
from asmgen.five_points import five_points
from bfm.light import sh_basis
from bfm.open_face import open_face_model
from bfm.pose import project
from bfm.render import camera_vertices, render, vertex_normals

installed = pytest.mark.skipif(not detector_installed(), reason="the extra 'detect' is not installed")
LIGHT = np.array([2.8, 0.15, 0.4, 0.3, 0, 0, 0, 0, 0])


def portrait(side: int, *places: tuple[float, float, float]) -> tuple[np.ndarray, list[np.ndarray]]:
    """A photo of the mean face at some places (x, y, pixels a mm), and the landmarks of each."""
    model = open_face_model().face_only()
    picture, landmarks = np.full((side, side, 3), (120, 130, 150), np.uint8), []
    for place in places:
        points = project(model.mean_shape.astype(np.float64), np.array([0.05, 0.2, 0.0]), np.array(place))
        shading = sh_basis(vertex_normals(camera_vertices(points), model.triangles)) @ LIGHT
        picture = render(points, model.mean_albedo * shading[:, None], model.triangles, picture, 2)
        landmarks.append(points[model.landmarks, :2])
    return picture, landmarks


def test_the_square_of_a_box():
    """A box of 3 by 4: its diagonal, 5, over the same centre, a little below."""
    left, top, side = detected_square(np.array([10.0, 20.0, 3000.0, 4000.0]))
    assert side == detect.SIDE * 5000
    assert (left + side / 2, top + side / 2) == pytest.approx((1510, 2020 + detect.DROP * side), abs=0.5)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(detect, "detector_installed", lambda: False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'dualface\[detect\]'"):
        FaceDetector()


@installed
@pytest.mark.parametrize("side", [LONGEST // 2, 3 * LONGEST])
def test_a_face_is_found_in_photos_of_any_size(side):
    """Points and square are near those of the landmarks; from a pickled detector they are the same."""
    photo, (landmarks,) = portrait(side, (0.45 * side, 0.5 * side, 0.0025 * side))
    detector = FaceDetector()
    face = detector(photo)
    square, wanted = np.array(detected_square(face.box)), np.array(face_square(landmarks))
    assert 0.6 < face.score <= 1
    missed = np.linalg.norm(face.points - five_points(landmarks), axis=1) / wanted[2]
    assert missed.mean() < 0.025 and missed.max() < 0.05
    assert abs(np.log(square[2] / wanted[2])) < 0.1
    assert np.linalg.norm((square - wanted)[:2] + (square - wanted)[2] / 2) < 0.05 * wanted[2]
    again = pickle.loads(pickle.dumps(detector))(photo)
    np.testing.assert_array_equal(again.box, face.box)


@installed
def test_of_several_faces_the_largest_is_taken_and_of_none_none():
    detector = FaceDetector()
    photo, (_, large) = portrait(400, (90, 300, 0.5), (270, 150, 0.9))
    np.testing.assert_allclose(detector(photo).points, five_points(large), atol=15)
    assert detector(np.full((200, 300, 3), (120, 130, 150), np.uint8)) is None


@installed
def test_what_is_found_does_not_depend_on_the_photos_before():
    """In narrow photos OpenCV finds what is left in its memory."""
    detector, (photo, _) = FaceDetector(), portrait(200, (100, 110, 0.9))
    face = detector(photo)
    for side in (1, 5, 24, 32, 33, 100):
        for size in ((side, 20), (24, side), (side, 100)):
            assert detector(np.full((*size[::-1], 3), (130, 100, 90), np.uint8)) is None
        np.testing.assert_array_equal(detector(photo).box, face.box)


@installed
def test_its_name_tells_network_and_version():
    import cv2

    assert "yunet" in detector_name() and detector_name().endswith(f"opencv {cv2.__version__}")
