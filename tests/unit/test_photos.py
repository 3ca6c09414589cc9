import os

import numpy as np
import pytest

from asmgen.crop import face_square, square_transform
from asmgen.rejection import SampleError
from bfm.pose import transform_placement
from model.photos import Photo, PhotoLocator, find_photos, whole_square

LANDMARKS = np.random.default_rng(0).uniform(50, 150, (68, 2))
IMAGE = np.zeros((180, 200, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "deep/b.jpeg", "deep/c.bmp", "notes.txt", ".hidden/d.png", "out/b_albedo.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    return tmp_path / "in"


def backwards(folder, walk=os.walk, **options):
    for place, folders, files in walk(folder, **options):
        folders.sort(reverse=True)
        files.sort(reverse=True)
        yield place, folders, files


def test_folders_are_searched_and_named_alike_below_the_output(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "walk", backwards)  # in whatever order a file system lists them
    found = find_photos([folder / "deep" / "c.bmp", folder], folder / "out")
    assert found == [
        Photo(folder / name, stem) for name, stem in (
            ("deep/c.bmp", "c"), ("a.JPG", "a"), ("b.png", "b"), ("deep/b.jpeg", "deep/b"), ("deep/c.bmp", "deep/c"),
        )
    ]
    with pytest.raises(ValueError, match="both the folder of the photos and the output"):
        find_photos([folder], folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no photo"):
        find_photos([tmp_path / "empty"], tmp_path)


def test_no_photo_overwrites_what_another_wrote(folder, tmp_path):
    paths = [folder / "b.png", folder / "deep" / "b.jpeg"]
    with pytest.raises(ValueError, match=r"b\.png and .*b\.jpeg would both write b\.\*"):
        find_photos(paths, tmp_path / "out")
    # a photo that is called as a variant of another's mesh
    (folder / "b_lit.png").write_bytes(b"")
    paths = [folder / "b.png", folder / "b_lit.png"]
    assert len(find_photos(paths, tmp_path / "out")) == 2
    for order in (paths, paths[::-1]):
        with pytest.raises(ValueError, match=r"would both write b_lit\.\*"):
            find_photos(order, tmp_path / "out", ("", "_lit"))


def test_what_is_given_for_a_photo_places_it(tmp_path):
    photos = [Photo(tmp_path / f"{name}.png", name) for name in "ab"]
    np.save(tmp_path / "one.npy", LANDMARKS)
    np.save(tmp_path / "two.npy", LANDMARKS + 7)
    locator = PhotoLocator(photos, landmarks=[tmp_path / "one.npy", tmp_path / "two.npy"])
    for photo, shift in zip(photos, (0, 7)):
        placement = locator.place(photo.path, IMAGE)
        assert placement.square == face_square(LANDMARKS + shift) and placement.placed_by == "landmarks"
        np.testing.assert_array_equal(placement.landmarks, LANDMARKS + shift)
    (left, top), (right, bottom) = LANDMARKS.min(0), LANDMARKS.max(0)
    boxes = [(left, top, right, bottom), (10, 0, 5, 5)]
    locator = PhotoLocator(photos, boxes=boxes)
    placement = locator.place(photos[0].path, IMAGE)
    assert placement.square == pytest.approx(face_square(LANDMARKS)) and placement.landmarks is None
    with pytest.raises(ValueError, match="left < right"):
        locator.place(photos[1].path, IMAGE)


def test_a_list_or_a_folder_of_landmarks_is_for_all_photos(tmp_path):
    photos = [Photo(tmp_path / f"{name}.png", name) for name in "ab"]
    for photo in photos:
        photo.path.write_bytes(b"")
    for name, shift in (("a", 0), ("b", 7)):
        (tmp_path / "marks").mkdir(exist_ok=True)
        np.save(tmp_path / "marks" / f"{name}.npy", LANDMARKS + shift)
    rows = [f"{name}.png " + " ".join(map(str, (LANDMARKS + shift).ravel())) for name, shift in (("a", 0), ("b", 7))]
    (tmp_path / "list.txt").write_text("\n".join(rows) + "\n")
    for given in (tmp_path / "marks", tmp_path / "list.txt"):
        for some in (photos, photos[1:]):  # of one photo too a list is a list
            locator = PhotoLocator(some, landmarks=[given])
            for photo, shift in zip(photos, (0, 7)):
                assert locator.place(photo.path, IMAGE).square == pytest.approx(face_square(LANDMARKS + shift))


def test_without_a_place_there_is_no_face(tmp_path, monkeypatch):
    monkeypatch.setattr("asmgen.locate.detector_installed", lambda: False)
    photo = Photo(tmp_path / "a.png", "a")
    with pytest.raises(SampleError, match="no face placed"):
        PhotoLocator([photo]).place(photo.path, IMAGE)
    np.save(tmp_path / "a.npy", LANDMARKS)
    assert PhotoLocator([photo]).place(photo.path, IMAGE).square == face_square(LANDMARKS)
    # where the whole photo is asked for, that is what is taken
    placement = PhotoLocator([photo], whole=True).place(photo.path, IMAGE)
    assert placement.square == (0, -10, 200) and placement.placed_by == "whole photo"


def test_what_is_given_must_fit(tmp_path):
    photo = Photo(tmp_path / "a.png", "a")
    np.save(tmp_path / "marks.npy", LANDMARKS)
    with pytest.raises(ValueError, match="boxes must have one entry a photo, got 2 for 1 photos"):
        PhotoLocator([photo], boxes=[(0, 0, 1, 1)] * 2)
    with pytest.raises(ValueError, match="landmarks must have one entry a photo, got 1 for 2 photos"):
        PhotoLocator([photo, photo], landmarks=[tmp_path / "marks.npy"])
    for both in ({"boxes": [(0, 0, 1, 1)], "landmarks": [photo.path]}, {"boxes": [(0, 0, 1, 1)], "whole": True}):
        with pytest.raises(ValueError, match="one of the three"):
            PhotoLocator([photo], **both)


def test_the_whole_photo_lies_in_the_middle():
    assert whole_square(np.zeros((60, 100, 3), np.uint8)) == (0, -20, 100)
    assert whole_square(np.zeros((100, 60, 3), np.uint8)) == (-20, 0, 100)
    _, position = transform_placement(np.zeros(3), np.array([49.5, 29.5, 1]), square_transform((0, -20, 100), 50))
    np.testing.assert_allclose(position, [24.5, 24.5, 0.5])
