"""Reader of 300W-LP trees: layout, conversion, and a reason for each damaged file."""

import os
import shutil
import struct
from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image
from toy import toy_model

from asmgen.images import read_photo
from asmgen.rejection import SampleError
from asmgen.w300lp import (
    FaceSample, find_samples, misplacements, placement_from_pose_para, pose_para_from_placement, read_annotation,
    read_placement, read_sample,
)
from bfm.morphable_model import BFM_COEFFICIENTS
from bfm.pose import project

HEIGHT = 120
MODEL = toy_model()


def write_sample(folder, name="AFW_1_0", pts=False, **changes):
    """Write a consistent photo and annotation; `changes` replace keys (None removes one). Return the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    id_coeffs, exp_coeffs, albedo_coeffs = (rng.normal(size=count).astype(np.float32) for count in (5, 3, 4))
    pose_para = pose_para_from_placement(np.array([0.1, -0.4, 0.05]), np.array([60.0, 55.0, 0.4]), HEIGHT)
    pose, position = placement_from_pose_para(pose_para, HEIGHT)
    points = project(MODEL.shape(id_coeffs, exp_coeffs)[MODEL.landmarks], pose, position)[:, :2]
    arrays = {
        "Shape_Para": (id_coeffs.astype(np.float64) * MODEL.id_stddev)[:, None],
        "Exp_Para": (exp_coeffs.astype(np.float64) * MODEL.exp_stddev)[:, None],
        "Tex_Para": (albedo_coeffs.astype(np.float64) * MODEL.albedo_stddev)[:, None],
        "Pose_Para": pose_para, "pt2d": points.T + 1, "Face_Model": "toy", "Light_SH": np.arange(9.0),
        "Color_Para": np.ones((1, 7), np.float32), "roi": np.zeros((1, 4), np.int16),
    } | changes
    Image.new("RGB", (HEIGHT, HEIGHT), (90, 80, 70)).save(folder / f"{name}.jpg")
    scipy.io.savemat(folder / f"{name}.mat", {key: value for key, value in arrays.items() if value is not None})
    if pts:
        scipy.io.savemat(folder / f"{name}_pts.mat", {"pts_2d": points + 3, "pts_3d": points + 1})
    return id_coeffs, exp_coeffs, albedo_coeffs, pose, position, points


def read_only(root, model=MODEL):
    """Read the one sample under a root."""
    (entry,) = find_samples(root)
    return read_sample(entry, model)


def reason(root, model=MODEL):
    """The SampleError that reading the one sample under a root raises."""
    with pytest.raises(SampleError) as caught:
        read_only(root, model)
    assert "\n" not in str(caught.value)
    return caught.value


def test_coefficients_come_back_to_the_last_float32_bit(tmp_path):
    id_coeffs, exp_coeffs, albedo_coeffs, pose, position, points = write_sample(tmp_path)
    sample = read_only(tmp_path)
    for got, wanted in (
        (sample.id_coeffs, id_coeffs), (sample.exp_coeffs, exp_coeffs), (sample.albedo_coeffs, albedo_coeffs),
        (sample.pose, pose.astype(np.float32)), (sample.position, position.astype(np.float32)),
        (sample.light, np.arange(9, dtype=np.float32)), (sample.landmarks, points.astype(np.float32)),
    ):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, wanted)
    assert (sample.name, sample.landmark_kind, sample.image.shape) == ("AFW_1_0", "2d", (HEIGHT, HEIGHT, 3))


def test_placement_is_the_documented_one_and_inverts():
    pose, position = placement_from_pose_para(np.array([[0.1, 0.2, 0.3, 11, 30, -7, 2e-3]]), 450)
    np.testing.assert_array_equal(pose, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(position, [10, 420, 2], rtol=1e-15)
    back = pose_para_from_placement(pose, position, 450)
    assert back.shape == (1, 7) and back.dtype == np.float32
    np.testing.assert_allclose(back, [[0.1, 0.2, 0.3, 11, 30, 0, 2e-3]], rtol=1e-7)


def test_projection_of_the_model_meets_labels_that_count_from_one(tmp_path):
    points = write_sample(tmp_path, pts=True)[-1]
    sample = read_only(tmp_path)
    assert sample.landmark_kind == "3d"  # pts_3d before pt2d
    np.testing.assert_allclose(sample.landmarks, points, atol=1e-4)
    shape = MODEL.shape(sample.id_coeffs, sample.exp_coeffs)[MODEL.landmarks]
    np.testing.assert_allclose(project(shape, sample.pose, sample.position)[:, :2], sample.landmarks, atol=1e-4)


def test_aflw2000_uses_pt3d_68_and_not_its_21_points(tmp_path):
    points = np.random.default_rng(0).uniform(10, 100, (68, 3)).astype(np.float32)
    write_sample(tmp_path, pt2d=np.full((2, 21), -1.0), pt3d_68=points.T)
    sample = read_only(tmp_path, None)
    assert sample.landmark_kind == "3d"
    np.testing.assert_array_equal(sample.landmarks, points[:, :2] - 1)
    assert sample.id_coeffs is None and sample.pose is None


def test_tree_is_walked_in_order_with_its_landmark_folder(tmp_path):
    for folder in ("HELEN", "AFW_Flip", "AFW", "Code/Mesh", ".git"):
        write_sample(tmp_path / folder, "AFW_9_1_0")
    write_sample(tmp_path / "landmarks/AFW", "unused", pts=True)
    (tmp_path / "landmarks/AFW/unused_pts.mat").rename(tmp_path / "landmarks/AFW/AFW_9_1_0_pts.mat")
    (tmp_path / "AFW" / "notes.txt").write_text("no photo")
    entries = find_samples(tmp_path)
    assert [entry.source for entry in entries] == ["AFW/AFW_9_1_0", "AFW_Flip/AFW_9_1_0", "HELEN/AFW_9_1_0"]
    assert [(entry.set_name, entry.flipped) for entry in entries] == [("AFW", False), ("AFW", True), ("HELEN", False)]
    assert [entry.landmarks_path is not None for entry in entries] == [True, False, False]
    assert all(entry.parameters_path is not None and entry.photo == "AFW_9_1" for entry in entries)


def test_flat_folder_and_a_lone_landmark_file_elsewhere(tmp_path):
    write_sample(tmp_path / "full", "IBUG_image_008_1_0")
    write_sample(tmp_path / "points", "IBUG_image_008_1_1", pts=True)
    (tmp_path / "points/IBUG_image_008_1_1_pts.mat").rename(tmp_path / "points/IBUG_image_008_1_0_pts.mat")
    first, second = find_samples(tmp_path)
    assert first.landmarks_path == tmp_path / "points/IBUG_image_008_1_0_pts.mat"
    assert second.landmarks_path is None
    write_sample(tmp_path / "other", "IBUG_image_008_1_0", pts=True)  # with its own landmarks, which take no other's
    assert [entry.landmarks_path for entry in find_samples(tmp_path)] == [
        tmp_path / "points/IBUG_image_008_1_0_pts.mat", tmp_path / "other/IBUG_image_008_1_0_pts.mat", None,
    ]
    shutil.rmtree(tmp_path / "full")
    assert [entry.landmarks_path for entry in find_samples(tmp_path)] == [
        tmp_path / "other/IBUG_image_008_1_0_pts.mat", None,
    ]
    shutil.rmtree(tmp_path / "other")
    write_sample(tmp_path / "full", "IBUG_image_008_1_0")
    (flat,) = find_samples(tmp_path / "full")
    assert (flat.source, flat.set_name) == ("IBUG_image_008_1_0", "full")
    (tmp_path / "full").rename(tmp_path / "IBUG_Flip")  # a mirrored photo never takes unmirrored landmarks
    assert find_samples(tmp_path)[0].landmarks_path is None


@pytest.mark.parametrize("name, photo", [
    ("AFW_134212_1_3", "AFW_134212_1"), ("IBUG_image_039_11", "IBUG_image_039"), ("image00050", "image00050"),
    ("HELEN_100032540_1_0", "HELEN_100032540_1"), ("SYNTH_000012_4", "SYNTH_000012"),
])
def test_copies_of_a_photo_share_its_name(tmp_path, name, photo):
    write_sample(tmp_path, name)
    assert find_samples(tmp_path)[0].photo == photo


def test_photos_that_differ_in_suffix_keep_it(tmp_path):
    for name in ("a.jpg", "a.png", "b.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert [entry.source for entry in find_samples(tmp_path)] == ["a.jpg", "a.png", "b"]


def test_links_to_folders_are_followed_once_and_after_all_else(tmp_path):
    """Also out of the tree; a folder that lies in the tree goes by its own name, and no loop is walked."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root / "HELEN", elsewhere / "inner"):
        write_sample(folder)
    (root / "AAA").symlink_to(root / "HELEN")
    (root / "HELEN/again").symlink_to(root)
    (root / "BBB_Flip").symlink_to(elsewhere)
    (root / "CCC").symlink_to(elsewhere / "inner")
    (elsewhere / "inner/home").symlink_to(root)
    (root / ".hidden").symlink_to(elsewhere)
    entries = find_samples(root)
    assert [entry.source for entry in entries] == ["BBB_Flip/inner/AFW_1_0", "HELEN/AFW_1_0"]
    assert [entry.set_name for entry in entries] == ["inner", "HELEN"]
    assert all(read_sample(entry, MODEL).landmarks is not None for entry in entries)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    write_sample(tmp_path / "AFW")
    (tmp_path / "HELEN").mkdir()
    scan = os.scandir

    def refused(path):
        if str(path).endswith("HELEN"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match="HELEN"):
        find_samples(tmp_path)


def test_names_that_differ_in_their_suffixes_only_have_sources_of_their_own(tmp_path):
    for name in ("a.jpg", "a.png", "a.jpg.jpg", "b.jpg.jpg", "c\\n.jpg", "c\n.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert [entry.source for entry in find_samples(tmp_path)] == [
        "a.jpg", "a.jpg.jpg", "a.png", "b.jpg", "c\\n", "c\\\\n",
    ]


def test_a_root_without_photos_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        find_samples(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="holds no photo"):
        find_samples(tmp_path)


@pytest.mark.parametrize("changes, kind, words", [
    ({"Face_Model": None}, "foreign coefficients", BFM_COEFFICIENTS.replace("+", r"\+") + ".*use --refit"),
    ({"Face_Model": np.arange(3.0)}, "damaged annotation", "Face_Model must be text"),
    ({"Face_Model": "open-face-1"}, "foreign coefficients", "open-face-1.*toy.*--refit"),
    ({"Pose_Para": None}, "missing key", "lacks Pose_Para"),
    ({"Shape_Para": None}, "missing key", "lacks Shape_Para"),
    ({"Exp_Para": np.zeros((4, 1))}, "wrong shape", r"Exp_Para must hold 3 values, got shape \(4, 1\)"),
    ({"Pose_Para": np.full((1, 7), np.nan)}, "damaged annotation", "Pose_Para holds NaN"),
    ({"Shape_Para": np.full((5, 1), 1e9)}, "damaged annotation", "Shape_Para reaches .* standard deviations"),
    ({"Shape_Para": "text"}, "damaged annotation", "real numbers"),
    ({"Pose_Para": np.array([[30, 0, 0, 60, 60, 0, 4e-4]])}, "damaged annotation", "angles in radians"),
    ({"Pose_Para": np.array([[0, 0, 0, 60, 60, 0, 0]])}, "damaged annotation", "positive scale"),
    ({"Pose_Para": np.array([[0, 0, 0, 460, 60, 0, 4e-4]])}, "face outside the image", "120x120"),
    ({"pt2d": np.full((2, 68), 999.0)}, "landmarks outside the image", "68 of the 68 points of pt2d"),
    ({"pt2d": np.full((2, 68), 9.0)}, "damaged annotation", "coincide"),
    ({"pt2d": np.zeros((2, 50))}, "wrong shape", r"pt2d must have shape \(2, 68\), got \(2, 50\)"),
    ({"pt2d": np.full((2, 68), np.inf)}, "damaged annotation", "pt2d holds NaN"),
    ({"pt3d_68": np.zeros((2, 68))}, "wrong shape", r"pt3d_68 must have shape \(3, 68\)"),
    ({"Light_SH": np.zeros(4)}, "wrong shape", "Light_SH must hold 9"),
])
def test_each_damage_has_its_reason(tmp_path, changes, kind, words):
    write_sample(tmp_path, **changes)
    error = reason(tmp_path)
    assert error.kind == kind
    assert pytest.raises(SampleError, match=words).matches(error)


def test_a_photo_resized_after_annotation_is_noticed(tmp_path):
    write_sample(tmp_path)
    Image.new("RGB", (90, 90)).save(tmp_path / "AFW_1_0.jpg")
    assert reason(tmp_path).kind == "image size mismatch"


def test_missing_parts(tmp_path):
    write_sample(tmp_path, pts=True)
    (tmp_path / "AFW_1_0.mat").unlink()
    assert reason(tmp_path).kind == "no parameters" and "--refit" in str(reason(tmp_path))
    assert read_only(tmp_path, None).landmark_kind == "3d"
    (tmp_path / "AFW_1_0_pts.mat").unlink()
    assert reason(tmp_path, None).kind == "no annotation"
    write_sample(tmp_path, pt2d=None)
    assert reason(tmp_path, None).kind == "no landmarks"
    assert read_only(tmp_path).landmarks is None  # parameters alone will do


def test_albedo_needs_a_matching_basis(tmp_path):
    write_sample(tmp_path, Tex_Para=np.zeros((199, 1)))
    assert read_only(tmp_path).albedo_coeffs is None
    write_sample(tmp_path)
    bare = replace(MODEL, albedo_basis=MODEL.albedo_basis[:0], albedo_stddev=MODEL.albedo_stddev[:0])
    assert read_only(tmp_path, bare).albedo_coeffs is None


def test_damaged_files_are_rejected_wherever_the_damage_is(tmp_path):
    write_sample(tmp_path)
    path = tmp_path / "AFW_1_0.mat"
    whole = path.read_bytes()
    for length in (0, 3, 130, 400, len(whole) - 40):
        path.write_bytes(whole[:length])
        assert reason(tmp_path).kind in ("unreadable annotation", "missing key", "no annotation"), length
    rng = np.random.default_rng(0)
    for _ in range(300):  # changed bytes are either harmless or a SampleError
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_only(tmp_path)
        except SampleError:
            pass
    path.unlink()
    with h5py.File(path, "w", userblock_size=512) as file:
        file["Pose_Para"] = np.zeros((7, 1))
    with open(path, "r+b") as file:  # header of a v7.3 file
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<HH", 0x200, 0x4D49))
    error = reason(tmp_path)
    assert error.kind == "unreadable annotation" and "v7.3" in str(error)


def test_unreadable_photos(tmp_path, monkeypatch):
    write_sample(tmp_path)
    path = tmp_path / "AFW_1_0.jpg"
    whole = path.read_bytes()
    for damaged in (b"", b"not a photo", whole[:len(whole) // 2]):
        path.write_bytes(damaged)
        assert reason(tmp_path).kind == "unreadable image"
    path.write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # 14,400 pixels: a warning of pillow's
    assert reason(tmp_path).kind == "image too large"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)  # an error of pillow's
    assert reason(tmp_path).kind == "image too large"


def test_photos_are_rgb_and_upright(tmp_path):
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:4, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "grey.png", exif=exif)
    image = read_photo(tmp_path / "grey.png")
    assert (image.dtype, image.shape) == (np.uint8, (16, 8, 3))
    np.testing.assert_array_equal(image[..., 1], np.rot90(pixels, -1))


def test_the_placement_is_read_whatever_the_coefficients_are(tmp_path):
    *_, pose, position, _ = write_sample(tmp_path, Face_Model="of another model", Shape_Para=None)
    (entry,) = find_samples(tmp_path)
    found = read_placement(entry, HEIGHT)
    np.testing.assert_array_equal(found[0], pose.astype(np.float32))
    np.testing.assert_array_equal(found[1], position.astype(np.float32))
    write_sample(tmp_path, Pose_Para=None)
    assert read_placement(entry, HEIGHT) is None
    assert read_placement(replace(entry, parameters_path=None), HEIGHT) is None
    write_sample(tmp_path, Pose_Para=np.full((1, 7), -1.0))
    with pytest.raises(SampleError, match="a positive scale"):
        read_placement(entry, HEIGHT)


@pytest.mark.parametrize("key, good, bad, kind", [
    ("Shape_Para", 49.9 * MODEL.id_stddev[:, None], -50.1 * MODEL.id_stddev[:, None], "damaged annotation"),
    ("Exp_Para", -49.9 * MODEL.exp_stddev[:, None], 50.1 * MODEL.exp_stddev[:, None], "damaged annotation"),
    ("Tex_Para", np.full((4, 1), 9.9e11), np.full((4, 1), -1e12), "damaged annotation"),
    ("Pose_Para", np.array([[-6.28, 6.28, 6.28, 60, 60, 0, 4e-4]]), np.array([[0, -6.29, 0, 60, 60, 0, 4e-4]]),
     "damaged annotation"),
])
def test_numbers_are_sensible_up_to_their_limits(tmp_path, key, good, bad, kind):
    write_sample(tmp_path, **{key: good})
    (entry,), photo = find_samples(tmp_path), np.zeros((HEIGHT, HEIGHT, 3), np.uint8)
    assert read_annotation(entry, photo, MODEL).pose.dtype == np.float32
    write_sample(tmp_path, **{key: bad})
    with pytest.raises(SampleError) as caught:
        read_annotation(entry, photo, MODEL)
    assert caught.value.kind == kind and key in caught.value.detail


@pytest.mark.parametrize("place, is_inside", [
    ((-0.5, 30), True), ((-0.51, 30), False), ((99.49, 30), True), ((99.5, 30), False),
    ((50, -0.5), True), ((50, -0.51), False), ((50, 59.49), True), ((50, 59.5), False),
])
def test_half_of_the_landmarks_lie_in_the_photo(tmp_path, place, is_inside):
    """In a pixel of it; 34 of the 68 are enough."""
    points = np.random.default_rng(0).uniform(10, 50, (68, 2))
    points[:34] = -900
    write_sample(tmp_path, pt2d=points.T + 1)
    (entry,), photo = find_samples(tmp_path), np.zeros((60, 100, 3), np.uint8)
    np.testing.assert_allclose(read_annotation(entry, photo, None).landmarks, points, rtol=1e-6)
    points[40] = place
    write_sample(tmp_path, pt2d=points.T + 1)
    if is_inside:
        assert read_annotation(entry, photo, None).landmark_kind == "2d"
    else:
        with pytest.raises(SampleError, match="outside the image: 35 of the 68 points of pt2d lie outside the 100x60"):
            read_annotation(entry, photo, None)


def test_landmarks_span_a_pixel_along_both_axes(tmp_path):
    for span, is_good in ((1.0, True), (0.99, False)):
        for axis in (0, 1):
            points = np.random.default_rng(0).uniform(10, 50, (68, 2))
            points[:, axis] = np.linspace(20, 20 + span, 68)
            write_sample(tmp_path, pt2d=points.T + 1)
            if is_good:
                assert read_only(tmp_path, None).landmarks.dtype == np.float32
            else:
                assert "coincide" in str(reason(tmp_path, None))


@pytest.mark.parametrize("shift, kind", [
    ((0, 0), None), ((-50, 0), None), ((-50.1, 0), "face outside the image"), ((49.9, 0), None),
    ((50, 0), "face outside the image"), ((0, -50), None), ((0, -50.1), "face outside the image"), ((0, 29.9), None),
    ((0, 30), "face outside the image"),
])
def test_the_middle_of_a_face_lies_in_its_photo(shift, kind):
    """That of its landmarks, 50 and 50 in a photo of 100 x 80; labels move with it."""
    landmarks = np.stack([np.linspace(20, 80, 68), np.linspace(80, 20, 68)], 1) + shift
    sample = FaceSample(None, np.zeros((80, 100, 3), np.uint8), landmarks.astype(np.float32), "3d")
    found = misplacements([sample], landmarks[None])
    assert {row: reason[0] for row, reason in found.items()} == ({0: kind} if kind else {})


@pytest.mark.parametrize("far, kind", [(0.199, None), (0.201, "image size mismatch")])
@pytest.mark.parametrize("height", [60, 15])
def test_labels_lie_within_a_fifth_of_the_box(far, kind, height):
    """Of the root of width times height."""
    projected = np.stack([np.linspace(20, 80, 68), np.linspace(20, 20 + height, 68)], 1)
    labels = projected + far * np.sqrt(60 * height) * np.array([0.6, 0.8])
    sample = FaceSample(None, np.zeros((100, 100, 3), np.uint8), labels.astype(np.float32), "3d")
    found = misplacements([sample], projected[None])
    assert {row: reason[0] for row, reason in found.items()} == ({0: kind} if kind else {})
    if kind:
        assert f"are {far * np.sqrt(60 * height):.0f} px apart in the 100x100 photo" in found[0][1]


def test_a_face_of_less_than_a_pixel_is_none():
    points = np.stack([np.linspace(50, 50.99, 68), np.linspace(50, 51, 68)], 1)
    sample = FaceSample(None, np.zeros((100, 100, 3), np.uint8), None, None)
    assert misplacements([sample], points[None])[0][0] == "face outside the image"
    assert misplacements([sample], 1.02 * points[None]) == {}


@pytest.mark.parametrize("moved, kind", [(25, None), (26, "image size mismatch")])
def test_labels_of_the_jaw_play_no_part_in_a_mismatch(moved, kind):
    """Half of the 51 inner landmarks tell; of three samples the one without labels has none to be away from."""
    projected = np.stack([np.linspace(20, 80, 68), np.linspace(80, 20, 68)], 1)
    labels = projected.astype(np.float32)
    labels[:17 + moved] += 15
    given = (projected, labels, None)
    samples = [FaceSample(None, np.zeros((100, 100, 3), np.uint8), landmarks, "2d") for landmarks in given]
    reasons = misplacements(samples, np.stack([projected] * 3))
    assert {row: reason[0] for row, reason in reasons.items()} == ({1: kind} if kind else {})
