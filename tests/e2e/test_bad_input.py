"""What reads photos meets broken, odd and good ones in one folder: each gets what it should, and none harms others."""

import re
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from bad_photos import BROKEN, RIGHT, source, write_odd
from click.testing import CliRunner
from toy_tree import MODEL, hashes, write_tree
from tqdm import tqdm

from asmgen.build import build_asmd
from asmgen.crop import crop_image
from asmgen.face_crops import build_faces
from asmgen.images import decode_image, read_photo
from asmgen.rejection import SampleError
from asmgen.shards import ShardSet, verify_shards
from asmgen.w300lp import find_samples
from bfm.model_file import save_model
from cli.main import main
from model.evaluation.annotations import NO_SHAPE, read_annotations
from model.photos import PhotoLocator, find_photos
from model.reconstruct import Outcome, Reconstructor
from texgen.build import build_ftd
from texgen.thresholds import Selection

ALL = Selection(**dict.fromkeys(asdict(Selection())))
GOOD = {"AFW/AFW_0_0", "AFW/AFW_1_0", "AFW/AFW_2_0"}
options = {"model": MODEL, "size": 64, "progress": partial(tqdm, disable=True)}


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> tuple[Path, Path]:
    """Good and odd photos, without and with broken ones among them."""
    roots = [tmp_path_factory.mktemp(name) / "tree" for name in ("right", "mixed")]
    for root, cases in zip(roots, (RIGHT, RIGHT | BROKEN)):
        write_tree(root, {"AFW": 3})
        write_odd(root, cases)
        (root / "ODD/folder.jpg/empty").mkdir(parents=True)
        (root / "ODD/._plain.jpg").write_bytes(b"of a Mac")
        (root / "back").symlink_to(root)
    return tuple(roots)


def check_reasons(found: dict[str, str], wanted: dict[str, str]) -> None:
    """Each reason is the one wanted, in one line."""
    assert found.keys() == {source(name) for name in wanted}
    for name, reason in wanted.items():
        text = found[source(name)]
        assert re.match(reason, text), (text, reason)
        assert text.isprintable() and "/" not in text, text


@pytest.fixture(scope="module")
def built(trees, tmp_path_factory) -> list[tuple[ShardSet, ShardSet]]:
    """FTD and ASMD shards of both trees, each in one pass of one process."""
    sets = []
    for root in trees:
        folder = tmp_path_factory.mktemp("built")
        build_ftd(root, folder / "ftd", selection=ALL, asmd_dir=folder / "asmd", **options)
        sets.append((ShardSet(folder / "ftd"), ShardSet(folder / "asmd")))
    return sets


@pytest.mark.parametrize("kind", [0, 1], ids=["ftd", "asmd"])
def test_a_build_records_each_broken_photo_and_makes_the_same_samples_of_the_rest(built, kind):
    right, mixed = (sets[kind] for sets in built)
    assert set(right.column("source")) == GOOD | set(map(source, RIGHT)) and right.rejected == []
    check_reasons(dict(mixed.rejected), {name: case.reason for name, case in BROKEN.items()})
    assert len(mixed) == len(right) and verify_shards(mixed.paths[0].parent).problems == []
    for sample, alone in zip(mixed, right):
        assert sample.keys() == alone.keys()
        for key, value in sample.items():
            np.testing.assert_array_equal(value, alone[key], err_msg=f"{alone['source']} {key}")


@pytest.mark.parametrize("name", RIGHT)
def test_odd_photos_have_the_pixels_that_they_show(trees, built, name):
    case, shards = RIGHT[name], built[0][1]
    (entry,) = (entry for entry in find_samples(trees[0]) if entry.source == source(name))
    image = read_photo(entry.image_path)
    assert image.shape == case.pixels.shape and image.dtype == np.uint8
    assert np.abs(image - case.pixels.astype(int)).mean() <= case.loss
    sample = shards[shards.column("source").index(source(name))]
    transform = sample["crop_transform"]
    square = [*(0.5 - (transform[:, 2] + 0.5) / transform[0, 0]), 64 / transform[0, 0]]
    crop = crop_image(case.pixels, tuple(round(float(edge)) for edge in square), 64)
    assert np.abs(decode_image(sample["image"]) - crop.astype(int)).mean() <= case.loss + 1


def test_a_refit_needs_landmarks_only(trees, tmp_path):
    build_asmd(trees[1], tmp_path, refit=True, encoding="params", **options)
    shards = ShardSet(tmp_path)
    check_reasons(
        dict(shards.rejected), {name: case.of_landmarks for name, case in BROKEN.items() if case.of_landmarks}
    )
    usable = {source(name) for name, case in BROKEN.items() if case.of_landmarks is None}
    assert set(shards.column("source")) == GOOD | set(map(source, RIGHT)) | usable


def test_image_only_shards_need_photos_and_landmarks_beside_them(trees, tmp_path):
    build_faces(trees[1], tmp_path, detect=False, size=64, progress=options["progress"])
    shards = ShardSet(tmp_path)
    rejected = dict(shards.rejected)
    assert set(map(source, RIGHT)) <= set(shards.column("source"))
    assert set(shards.column("source")) | rejected.keys() == GOOD | set(map(source, RIGHT | BROKEN))
    assert all(reason.isprintable() and "/" not in reason for reason in rejected.values())
    for name, case in BROKEN.items():
        if case.reason.startswith(("unreadable image", "image too large")):
            assert re.match(case.reason, rejected[source(name)])
        elif name.startswith("labels") or name in ("mat_cut", "mat_bomb", "mat_sparse"):
            assert rejected[source(name)].split(":")[0] in ("damaged annotation", "face outside the image")


def test_an_evaluation_names_what_it_cannot_measure(trees):
    annotations = read_annotations(trees[1], MODEL.face_only())
    by_landmarks = {name for name, case in BROKEN.items() if case.reason.split(":")[0] in NO_SHAPE}
    measured = {face.name for face in annotations.faces}
    assert measured == GOOD | set(map(source, RIGHT)) | set(map(source, by_landmarks))
    wanted = {name: case.reason for name, case in BROKEN.items() if name not in by_landmarks}
    wanted["gigantic"] = "no landmarks: gigantic is annotated without 68 landmarks"
    check_reasons(dict(failed.split(": ", 1) for failed in annotations.failed), wanted)


def test_a_reconstruction_reads_what_are_photos(trees, tmp_path):
    photos = find_photos([trees[1] / "ODD"], tmp_path)
    assert {f"ODD/{photo.name}" for photo in photos} == set(map(source, RIGHT | BROKEN))
    reader = SimpleNamespace(faces=SimpleNamespace(metadata={"size": 64}))
    locator, failed = PhotoLocator(photos, whole=True), {}
    for photo in photos:
        try:
            assert Reconstructor.crop(reader, photo.path, locator).image.shape == (64, 64, 3)
        except SampleError as error:
            failed[f"ODD/{photo.name}"] = str(error)
        assert str(Outcome(photo.path, (photo.path,))).isprintable()
    check_reasons(failed, {
        name: case.reason for name, case in BROKEN.items()
        if case.reason.startswith(("unreadable image", "image too large"))
    })


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux alone")
def test_a_process_reads_them_all_in_little_memory_and_time(trees, tmp_path):
    """And beside them a photo as large as may be."""
    cv2.imwrite(str(tmp_path / "large.jpg"), np.zeros((9400, 9400), np.uint8))
    script = """
import resource, sys
from pathlib import Path
from asmgen.images import read_photo
from asmgen.rejection import SampleError
from asmgen.w300lp import find_samples, read_sample
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1_500_000_000,) * 2)
print(*read_photo(Path(sys.argv[2], "large.jpg")).shape)
failed = 0
for entry in find_samples(Path(sys.argv[1])):
    try:
        read_sample(entry, None)
    except SampleError:
        failed += 1
print(failed)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, trees[1], tmp_path], capture_output=True, text=True, timeout=60,
        cwd=Path(__file__).parents[2],
    )
    failed = sum(case.of_landmarks is not None for case in BROKEN.values())
    assert (done.stdout, done.stderr) == (f"9400 9400 3\n{failed}\n", "")


@pytest.mark.parametrize("command", ["asmd", "ftd"])
def test_a_strict_build_stops_at_the_first_and_goes_on_without(tmp_path, command):
    """Shards that are finished are kept; what a threshold leaves out is no bad input; the bytes are as ever."""
    write_tree(tmp_path / "photos", {"AFW": 5})
    save_model(MODEL, tmp_path / "model.h5")
    given = [
        "build", command, str(tmp_path / "photos"), "--face-model", str(tmp_path / "model.h5"), "--size", "64",
        "--shard-size", "2", *(["--max-yaw", "1"] if command == "ftd" else []),
    ]
    stopped = CliRunner().invoke(main, [*given, str(tmp_path / "out"), "--strict"])
    assert stopped.exit_code == 1
    assert re.search(
        r"^Error: AFW/AFW_3_0: unreadable image: AFW_3_0.jpg cannot be decoded \(.+\); replace or remove it; or build "
        r"without --strict, which leaves it out$", stopped.output, re.MULTILINE
    )
    (kept,) = (tmp_path / "out").glob("*.h5")
    before = kept.read_bytes()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {kept.name, "build.json"}
    for folder in ("out", "other"):
        assert CliRunner().invoke(main, [*given, str(tmp_path / folder)]).exit_code == 0
    assert kept.read_bytes() == before
    assert hashes(tmp_path / "out") == hashes(tmp_path / "other")
    (tmp_path / "photos/AFW/AFW_3_0.jpg").unlink()
    passed = CliRunner().invoke(main, [*given, str(tmp_path / "strict"), "--strict"])
    assert passed.exit_code == 0 and ("turned too far" in passed.output) == (command == "ftd")
