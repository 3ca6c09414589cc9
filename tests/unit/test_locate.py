"""What places the face of a photo, in which order, and what is said where nothing does."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from asmgen import locate
from asmgen.crop import face_square
from asmgen.detect import DetectedFace, detected_square
from asmgen.five_points import five_point_square, five_points, landmarks_from_five
from asmgen.landmark_files import ENDINGS, read_list
from asmgen.locate import FaceLocator, box_square
from asmgen.rejection import SampleError
from bfm.open_face import open_face_model
from bfm.pose import project

MODEL = open_face_model()
PHOTO = np.zeros((218, 178, 3), np.uint8)
NAMES = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
BOX = (40.0, 70.0, 120.0, 150.0)


@pytest.fixture(autouse=True)
def no_detector(monkeypatch):
    """Whether the extra is installed makes no difference here."""
    monkeypatch.setattr(locate, "detector_installed", lambda: False)


@pytest.fixture
def use_detector(monkeypatch):
    monkeypatch.setattr(locate, "detector_installed", lambda: True)
    monkeypatch.setattr(locate, "FaceDetector", FakeDetector)
    monkeypatch.setattr(locate, "detector_name", lambda: "fake 1")


class FakeDetector:
    """Finds a face in every photo that is not square."""

    face = DetectedFace(np.array([30.0, 40.0, 60.0, 80.0]), np.arange(10.0).reshape(5, 2), 0.9)

    def __call__(self, photo: np.ndarray) -> DetectedFace | None:
        return None if photo.shape[0] == photo.shape[1] else self.face


def landmarks(shift: float = 0.0) -> np.ndarray:
    """68 landmarks of the mean face, on whole pixels as lists hold them."""
    shape = MODEL.mean_shape[MODEL.landmarks].astype(np.float64)
    return project(shape, np.array([0.1, 0.3, 0.0]), np.array([85 + shift, 120, 0.5]))[:, :2].round()


def celeba(path: Path, count: int) -> Path:
    rows = [f"{number:06d}.jpg  {' '.join(f'{value:.0f}' for value in five_points(landmarks(number)).ravel())}"
            for number in range(1, count + 1)]
    path.write_text("\n".join([f"{count}", NAMES, *rows]) + "\n")
    return path


def test_celebas_list_and_its_csv_copy(tmp_path):
    text = celeba(tmp_path / "list.txt", 3)
    csv = tmp_path / "list.csv"
    csv.write_text("image_id," + NAMES.replace(" ", ",") + "\n" + "".join(
        ",".join(line.split()) + "\n" for line in text.read_text().splitlines()[2:]
    ))
    for path in (text, csv):
        names, numbers = read_list(path, (10, 136))
        assert names == ["000001.jpg", "000002.jpg", "000003.jpg"]
        assert numbers.dtype == np.float32
        np.testing.assert_array_equal(numbers[1].reshape(5, 2), five_points(landmarks(2)).round())
        for photo in ("img_align_celeba/000002.jpg", "000002.png"):
            placement = FaceLocator(path).place(tmp_path / photo, PHOTO)
            points = five_points(landmarks(2)).round()
            assert placement.placed_by == "five points" and placement.landmarks is None
            np.testing.assert_array_equal(placement.five, points)
            assert placement.square == five_point_square(points)
            np.testing.assert_allclose(placement.square, face_square(landmarks(2)), atol=3)
            assert FaceLocator(path).points(tmp_path / photo, PHOTO) is None


def test_lists_that_are_none(tmp_path):
    path = tmp_path / "list.txt"
    for text, message in (
        ("", "and holds none"), ("3\na b c\n", "and holds none"), ("a.jpg 1 2 3\n", "every row, got 'a.jpg 1 2 3'"),
        ("a.jpg 1 2 3 4\nb.jpg 1 2 3\n", "every row, got 'b.jpg 1 2 3'"),
        ("a.jpg 1 2 3 4\nb.jpg 1 2 3 x\n", "must hold numbers after the names"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_list(path, (4,))
    path.write_text("a.jpg 1 2 3 4\na.png 1 2 3 4\n")
    with pytest.raises(ValueError, match="one row a photo, got 2 for 1 photos"):
        FaceLocator(boxes=path)
    with pytest.raises(ValueError, match="a name and 10 or 136 numbers"):
        FaceLocator(path)
    with pytest.raises(FileNotFoundError, match="none.csv does not exist"):
        FaceLocator(tmp_path / "none.csv")


def test_a_list_of_68_points_and_names_with_folders(tmp_path):
    """The longest name that fits wins; names with spaces go with commas."""
    rows = {"a/x y.jpg": landmarks(1), "b/x y.jpg": landmarks(2), "x y.jpg": landmarks(3), "c.d.jpg": landmarks(4)}
    path = tmp_path / "list.csv"
    path.write_text("".join(f"{name},{','.join(map(str, points.ravel()))}\n" for name, points in rows.items()))
    locator = FaceLocator(path)
    for photo, wanted in (("a/x y.jpg", 1), ("q/b/x y.jpg", 2), ("q/x y.jpg", 3), ("x y.png", 3), ("a/c.d.jpg", 4)):
        placement = locator.place(tmp_path / photo, PHOTO)
        np.testing.assert_array_equal(placement.landmarks, landmarks(wanted), err_msg=photo)
        np.testing.assert_array_equal(locator.points(tmp_path / photo, PHOTO), landmarks(wanted))
        assert placement.placed_by == "landmarks" and placement.square == face_square(landmarks(wanted))
        np.testing.assert_array_equal(placement.five, five_points(landmarks(wanted)))
    with pytest.raises(SampleError, match="nothing tells where the face in c.jpg is"):
        locator.place(tmp_path / "c.jpg", PHOTO)


def test_boxes(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("image,left,top,right,bottom\na.jpg,40,70,120,150\nb.jpg,40,70,20,150\n")
    locator = FaceLocator(boxes=path)
    placement = locator.place(Path("a.jpg"), PHOTO)
    assert placement == (box_square(BOX), "box", None, None)
    assert locator.square(Path("a.jpg"), PHOTO) == placement.square
    assert locator.points(Path("a.jpg"), PHOTO) is None
    with pytest.raises(SampleError, match="damaged annotation: b.jpg: a box must be left, top, right, bottom"):
        locator.place(Path("b.jpg"), PHOTO)


def test_the_square_of_a_box_is_that_of_landmarks_which_fill_it():
    assert box_square((*landmarks().min(axis=0), *landmarks().max(axis=0))) == face_square(landmarks())


def test_links_to_nowhere_in_a_folder_of_landmarks_are_no_landmarks(tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given/x.pts").symlink_to("absent.pts")
    assert FaceLocator(tmp_path / "given", detect=False).points(tmp_path / "x.jpg", PHOTO) is None


def test_files_beside_the_photo_and_in_a_folder(tmp_path):
    folder = tmp_path / "marks"
    (folder / "AFW").mkdir(parents=True)
    np.save(folder / "AFW/x.npy", landmarks(1))
    np.save(folder / "x.npy", landmarks(2))
    (tmp_path / "AFW").mkdir()
    photo = tmp_path / "AFW/x.jpg"
    for ending in reversed(ENDINGS):  # from the last to the first; text, as .npy and .mat are tested with their reader
        if ending in (".txt", ".pts"):
            points = landmarks(len(ending))
            lines = "\n".join(f"{x} {y}" for x, y in points + (ending == ".pts"))
            photo.with_name("x" + ending).write_text(f"{{\n{lines}\n}}" if ending == ".pts" else lines)
            np.testing.assert_array_equal(FaceLocator().points(photo, PHOTO), points)
    assert FaceLocator().beside(photo) == photo.with_name("x.pts")
    given = FaceLocator(folder)
    np.testing.assert_array_equal(given.points(photo, PHOTO), landmarks(1))
    np.testing.assert_array_equal(given.points(tmp_path / "HELEN/x.jpg", PHOTO), landmarks(2))
    assert given.beside(photo) is None and given.place(photo, PHOTO).placed_by == "landmarks"
    np.save(folder / "AFW/x.npy", landmarks(3))
    np.savetxt(folder / "AFW/x.txt", landmarks(4))  # an ending that comes later
    np.testing.assert_array_equal(FaceLocator(folder).points(photo, PHOTO), landmarks(3))
    photo.with_name("x_pts.mat").write_bytes(b"damaged")
    with pytest.raises(SampleError, match="damaged annotation: .*x_pts.mat must hold 68 landmarks"):
        FaceLocator().place(photo, PHOTO)


def test_what_comes_first(tmp_path, use_detector):
    """List of landmarks, boxes, a file beside, detector."""
    sources = {}
    for name in ("a", "b", "c", "d"):
        photo = tmp_path / f"{name}.jpg"
        if name != "d":
            np.save(photo.with_suffix(".npy"), landmarks())
        sources[name] = photo
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("a.jpg 40 70 120 150\nb.jpg 40 70 120 150\n")
    points = tmp_path / "points.txt"
    points.write_text("a.jpg " + " ".join(map(str, five_points(landmarks()).ravel())) + "\n")
    locator = FaceLocator(points, boxes)
    placed = {name: locator.place(photo, PHOTO).placed_by for name, photo in sources.items()}
    assert placed == {"a": "five points", "b": "box", "c": "landmarks", "d": "detector"}


def test_the_detector_places_what_nothing_else_does(tmp_path, use_detector):
    locator = pickle.loads(pickle.dumps(FaceLocator()))
    placement = locator.place(tmp_path / "a.jpg", PHOTO)
    assert placement.square == detected_square(FakeDetector.face.box) and placement.landmarks is None
    np.testing.assert_array_equal(placement.five, FakeDetector.face.points)
    assert locator.points(tmp_path / "a.jpg", PHOTO) is None
    with pytest.raises(SampleError, match="no face placed: the detector finds no face in a.jpg; give its landmarks"):
        locator.place(tmp_path / "a.jpg", np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(SampleError, match="give its landmarks or a box$"):
        FaceLocator(detect=False).place(tmp_path / "a.jpg", PHOTO)


def test_without_the_detector_it_is_named(tmp_path):
    with pytest.raises(SampleError, match=r"a box, or install the detector: pip install 'dualface\[detect\]'$"):
        FaceLocator().place(tmp_path / "a.jpg", PHOTO)


def test_points_that_are_no_face_are_damaged(tmp_path):
    path = tmp_path / "list.txt"
    swapped = five_points(landmarks())[[1, 0, 2, 4, 3]]
    path.write_text("a.jpg " + " ".join(map(str, swapped.ravel())) + "\nb.jpg" + 10 * " nan" + "\n")
    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(SampleError, match=f"damaged annotation: {name}: "):
            FaceLocator(path).place(Path(name), PHOTO)
    with pytest.raises(ValueError, match="the nose and two corners"):
        landmarks_from_five(swapped)


def test_settings_tell_what_places_faces(tmp_path, use_detector):
    first, second = celeba(tmp_path / "a.txt", 2), celeba(tmp_path / "b.txt", 3)
    (tmp_path / "marks").mkdir()
    np.save(tmp_path / "marks/x.npy", landmarks())
    folder = FaceLocator(tmp_path / "marks").settings
    np.save(tmp_path / "marks/y.npy", landmarks())
    found = [FaceLocator(path, detect=False).settings for path in (None, first, second, tmp_path / "marks")] + [folder]
    assert len({tuple(settings.values()) for settings in found}) == 5
    assert found[0] == {"landmarks_sha256": "none", "boxes_sha256": "none", "detector": "none"}
    assert FaceLocator().settings["detector"] == "fake 1"
