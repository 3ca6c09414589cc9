"""Faces cut out in batches, wherever their places come from."""

import numpy as np
import pytest
from PIL import Image

from asmgen import face_crops
from asmgen.crop import crop_image, face_square, square_transform
from asmgen.face_crops import FaceCropper
from asmgen.images import decode_image, encode_image, read_photo
from asmgen.locate import FaceLocator, Placement
from asmgen.rejection import SampleError
from asmgen.w300lp import SampleEntry, find_samples

SIZE = 24
BOXES = {"a": (10, 12, 40, 50), "b": (30, 20, 60, 45), "d": (5, 5, 35, 30), "e": (8, 8, 30, 40)}
BROKEN, UNLISTED = 1, 2  # photos b and c


@pytest.fixture
def cropper(tmp_path) -> tuple[FaceCropper, list[SampleEntry]]:
    """Five photos of 70 x 60 pixels; one is damaged, of one no box is known."""
    for name in "abcde":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (60, 70, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no photo")
    rows = [f"{name}.png {' '.join(map(str, box))}" for name, box in BOXES.items()]
    (tmp_path / "boxes.txt").write_text("\n".join(rows) + "\n")
    return FaceCropper(FaceLocator(None, tmp_path / "boxes.txt", detect=False), SIZE), find_samples(tmp_path)


def test_a_batch_holds_its_faces_and_errors_in_order(cropper):
    placer, entries = cropper
    placed = placer.place_batch(entries)
    assert [isinstance(face, SampleError) for face in placed] == [False, True, True, False, False]
    assert placed[BROKEN].kind == "unreadable image" and placed[BROKEN].preview == b""
    assert placed[UNLISTED].kind == "no face placed"
    preview = decode_image(placed[UNLISTED].preview)
    assert preview.shape == (128, 128, 3)
    assert preview[[0, -1]].mean() > 245 and preview[20:-20].mean() < 150  # all of the wide photo, between white
    for index in (0, 3, 4):
        face, box = placed[index], np.reshape(BOXES[entries[index].source], (2, 2)).astype(float)
        np.testing.assert_array_equal(face.photo, read_photo(entries[index].image_path))
        assert face.fields.keys() == {"source", "image", "placed_by", "crop_transform", "five_points"}
        assert (face.fields["source"], face.fields["placed_by"]) == (entries[index].source, "box")
        assert face.fields["image"] == encode_image(crop_image(face.photo, face_square(box), SIZE))
        wanted = square_transform(face_square(box), SIZE).astype(np.float32)
        np.testing.assert_array_equal(face.fields["crop_transform"], wanted)
        assert face.fields["five_points"].shape == (5, 2) and np.isnan(face.fields["five_points"]).all()
        assert face.fields["five_points"].dtype == face.fields["crop_transform"].dtype == np.float32


@pytest.mark.parametrize("pixels, count", [(0, 1), (70 * 60 - 1, 1), (70 * 60, 4), (2 * 70 * 60, 5)])
def test_a_batch_ends_where_memory_does(cropper, monkeypatch, pixels, count):
    """Photos without a face are not held."""
    monkeypatch.setattr(face_crops, "BATCH_PIXELS", pixels)
    placer, entries = cropper
    assert len(placer.place_batch(entries)) == count


@pytest.mark.parametrize("middle, is_inside", [
    ((0, 30), True), ((70, 30), True), ((35, 0), True), ((35, 60), True),
    ((-1, 30), False), ((71, 30), False), ((35, -1), False), ((35, 61), False),
])
def test_the_middle_of_a_face_lies_in_its_photo(tmp_path, middle, is_inside):
    locator = FaceLocator(detect=False)
    locator.place = lambda path, photo: Placement((middle[0] - 10, middle[1] - 10, 20), "box")
    Image.new("RGB", (70, 60)).save(tmp_path / "a.png")
    (face,) = FaceCropper(locator, SIZE).place_batch(find_samples(tmp_path))
    if is_inside:
        assert face.fields["placed_by"] == "box"
    else:
        assert face.kind == "face outside the image" and decode_image(face.preview).shape == (128, 128, 3)
        assert f"a.png has 70x60 pixels, and its face is said to be at {middle};" in face.detail
