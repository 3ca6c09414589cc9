"""Photos without annotation to shards of crops, and back."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from toy import toy_model
from toy_asmd import write_toy_asmd
from toy_tree import hashes
from tqdm import tqdm

from asmgen import locate
from asmgen.crop import crop_image, square_transform
from asmgen.five_points import five_point_square, five_points
from asmgen.face_crops import CELEBA_LISTS, KIND, SCHEMA_VERSION, build_faces
from asmgen.images import decode_image, encode_image
from asmgen.inspect_face_crops import faces_sheet, faces_statistics
from asmgen.shards import ShardSet, verify_shards
from asmgen.sheets import GAP, THUMBNAIL, rejected_sheet
from bfm.open_face import open_face_model
from bfm.pose import project, transform_points
from cli.main import main
from model.data import FaceDataset, Wanted, split_identities

COUNT, SIZE = 7, 64
UNREADABLE, UNLISTED, ELSEWHERE = "000003", "000005", "000006"
WANTED = Wanted((KIND, "asmd"), ("image",))


@pytest.fixture(autouse=True)
def no_detector(monkeypatch):
    monkeypatch.setattr(locate, "detector_installed", lambda: False)


def points_of(number: int) -> np.ndarray:
    """Five points of a photo, on whole pixels."""
    model, rng = open_face_model(), np.random.default_rng(number)
    shape = model.mean_shape[model.landmarks].astype(np.float64)
    pose, place = rng.uniform(-0.4, 0.4, 3), np.array([89, 120, rng.uniform(0.45, 0.6)])
    return five_points(project(shape, pose, place)[:, :2]).round()


@pytest.fixture(scope="module")
def celeba(tmp_path_factory) -> Path:
    """CelebA in small: one photo cannot be read, one is not in the list, one has the points of a larger copy."""
    root = tmp_path_factory.mktemp("celeba")
    (root / "img_align_celeba").mkdir()
    rows = []
    for number in range(1, COUNT + 1):
        name, rng = f"{number:06d}", np.random.default_rng(number)
        smooth = Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).resize((178, 218))
        smooth.save(root / f"img_align_celeba/{name}.jpg", quality=95)
        points = points_of(number) * (4 if name == ELSEWHERE else 1)
        if name != UNLISTED:
            rows.append(f"{name}.jpg " + " ".join(f"{value:.0f}" for value in points.ravel()))
    (root / f"img_align_celeba/{UNREADABLE}.jpg").write_bytes(b"no photo")
    (root / CELEBA_LISTS[0]).write_text("\n".join([str(len(rows)), "lefteye_x lefteye_y", *rows]) + "\n")
    return root


build = partial(build_faces, size=SIZE, shard_size=3, progress=partial(tqdm, disable=True))


@pytest.fixture(scope="module")
def built(celeba, tmp_path_factory):
    """A build in three shards, and its summary."""
    out_dir = tmp_path_factory.mktemp("faces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate, "detector_installed", lambda: False)
        return out_dir, build(celeba, out_dir)


def test_samples_are_the_crops_of_the_listed_points(celeba, built):
    shards = ShardSet(built[0])
    good = [number for number in range(1, COUNT + 1) if f"{number:06d}" not in (UNREADABLE, UNLISTED, ELSEWHERE)]
    assert shards.column("source") == [f"img_align_celeba/{number:06d}" for number in good]
    for sample, number in zip(shards, good):
        square = five_point_square(points_of(number))
        transform = square_transform(square, SIZE)
        np.testing.assert_allclose(sample["crop_transform"], transform, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(sample["five_points"], transform_points(points_of(number), transform), atol=1e-5)
        assert sample["five_points"].dtype == sample["crop_transform"].dtype == np.float32
        assert sample["placed_by"] == "five points"
        with Image.open(celeba / f"{sample['source']}.jpg") as photo:
            crop = crop_image(np.asarray(photo.convert("RGB")), square, SIZE)
        assert sample["image"] == encode_image(crop)
    assert shards.fields == ("crop_transform", "five_points", "image", "placed_by", "source")
    assert shards.attributes["kind"] == KIND and shards.attributes["schema_version"] == SCHEMA_VERSION
    assert shards.attributes["size"] == SIZE and shards.attributes["detector"] == "none"


def test_what_is_left_out_and_why(built):
    out_dir, summary = built
    shards = ShardSet(out_dir)
    reasons = {Path(source).name: reason for source, reason in shards.rejected}
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        UNREADABLE: "unreadable image", UNLISTED: "no face placed", ELSEWHERE: "face outside the image",
    }
    assert "178x218" in reasons[ELSEWHERE] and "another copy" in reasons[ELSEWHERE]
    assert (summary.samples, summary.written, sum(summary.rejected.values())) == (4, 4, 3)
    assert str(summary).startswith("built 4 FACES samples, rejected 3\n")
    assert verify_shards(out_dir).problems == []
    previews = dict(zip(reasons, shards.rejected_previews))
    assert previews[UNREADABLE] == b"" and decode_image(previews[UNLISTED]).shape == (THUMBNAIL, THUMBNAIL, 3)
    assert rejected_sheet(out_dir).width == 3 * (THUMBNAIL + 2 * GAP)


def test_a_rerun_mends_and_gives_the_same_bytes(celeba, built, tmp_path):
    build(celeba, tmp_path, jobs=2)
    wanted = hashes(built[0])
    assert hashes(tmp_path) == wanted and len(wanted) == 5
    first, second, third = sorted(tmp_path.glob("*.h5"))
    first.unlink()
    third.write_bytes(third.read_bytes()[:3000])
    kept, bars = second.stat().st_mtime_ns, []

    def progress(**options) -> tqdm:
        bars.append((options["initial"], options["total"]))
        return tqdm(disable=True, **options)

    build(celeba, tmp_path, progress=progress)
    assert hashes(tmp_path) == wanted and second.stat().st_mtime_ns == kept and bars == [(3, COUNT)]
    assert build(celeba, tmp_path).written == 0


def test_other_places_are_another_build(celeba, built, tmp_path):
    """A list that changes, or a detector that is there now, does not continue what was begun."""
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("".join(f"{number:06d}.jpg,60,80,120,160\n" for number in range(1, COUNT + 1)))
    with pytest.raises(ValueError, match="holds a build with boxes_sha256 'none', and this one has"):
        build(celeba, built[0], boxes=boxes)
    with pytest.raises(ValueError, match="holds a build with photos 7, and this one has 2"):
        build(celeba, built[0], count=2)
    for options, message in (({"shard_size": 0}, "shard_size must be at least 1"), ({"jobs": 0}, "jobs must be at")):
        with pytest.raises(ValueError, match=message):
            build(celeba, tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()
    summary = build(celeba, tmp_path / "boxes", boxes=boxes)
    shards = ShardSet(tmp_path / "boxes")
    assert summary.samples == 6 and set(shards.column("placed_by")) == {"box"}
    assert np.isnan(shards.column("five_points")).all()


def test_a_folder_of_landmarks_in_the_root_is_found(tmp_path):
    """300W-LP's own layout: no option is needed."""
    model = open_face_model()
    landmarks = project(model.mean_shape[model.landmarks], np.zeros(3), np.array([60, 60, 0.4]))[:, :2]
    for folder in ("photos/AFW", "photos/landmarks/AFW"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (120, 120)).save(tmp_path / "photos/AFW/x.jpg")
    np.save(tmp_path / "photos/landmarks/AFW/x_pts.npy", landmarks)
    assert build(tmp_path / "photos", tmp_path / "a").rejected == {"no face placed": 1}
    np.save(tmp_path / "photos/landmarks/AFW/x.npy", landmarks)
    build(tmp_path / "photos", tmp_path / "b")
    (sample,) = ShardSet(tmp_path / "b")
    wanted = transform_points(five_points(landmarks).astype(np.float64), sample["crop_transform"].astype(np.float64))
    assert sample["placed_by"] == "landmarks"
    np.testing.assert_allclose(sample["five_points"], wanted, atol=1e-4)


def test_the_command_line(celeba, built, tmp_path):
    run = partial(CliRunner().invoke, main)
    result = run(["build", "faces", str(celeba), str(tmp_path / "out"), "--size", str(SIZE), "--shard-size", "3"])
    assert result.exit_code == 0 and "built 4 FACES samples, rejected 3" in result.output
    made = hashes(tmp_path / "out")
    assert made.pop("command.toml") and made == hashes(built[0])
    result = run(["inspect", str(built[0]), "--sample", "1", "-o", str(tmp_path / "sheet.png")])
    assert result.exit_code == 0 and "  five points  " in result.output and "rejected   " in result.output
    drawn = np.asarray(Image.open(tmp_path / "sheet.png"))
    np.testing.assert_array_equal(drawn, np.asarray(faces_sheet(built[0], [1])))
    assert run(["inspect", str(built[0]), "--rejected", "-o", str(tmp_path / "left.png")]).exit_code == 0
    assert run(["verify", str(built[0])]).exit_code == 0
    result = run(["inspect", str(built[0]), "-o", str(tmp_path / "x.png"), "--face-model", "open"])
    assert result.exit_code == 1 and "leave --face-model out" in result.output


def test_sheet_and_table(built):
    """The sheet shows the crops in order, with a dot at each point."""
    sheet = np.asarray(faces_sheet(built[0]), int)
    assert sheet.shape[1] == 4 * (THUMBNAIL + 2 * GAP)
    for place, sample in enumerate(ShardSet(built[0])):
        crop = Image.fromarray(decode_image(sample["image"])).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
        drawn = sheet[GAP:GAP + THUMBNAIL, GAP + place * (THUMBNAIL + 2 * GAP):][:, :THUMBNAIL]
        rows, columns = np.nonzero(np.abs(drawn - np.asarray(crop, int)).max(axis=-1))
        zoom = THUMBNAIL / SIZE
        dots = (sample["five_points"] + 0.5) * zoom - 0.5
        distance = np.linalg.norm(np.stack([columns, rows], -1)[:, None] - dots, axis=-1)
        assert distance.min(axis=1).max() < 3 and distance.min(axis=0).max() < 1
    table = faces_statistics(built[0])
    square = SIZE / ShardSet(built[0]).column("crop_transform")[:, 0, 0]
    assert re.search(rf"^square, px of the photo +{square.mean():.3f} ", table, re.MULTILINE) and "nan" not in table
    for index in (4, -5):
        with pytest.raises(ValueError, match=f"among the 4 there are, got {index}"):
            faces_sheet(built[0], [index])


def test_nothing_could_be_placed(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (50, 50)).save(tmp_path / "photos/a.jpg")
    assert build(tmp_path / "photos", tmp_path / "out").rejected == {"no face placed": 1}
    assert "no face placed" in faces_statistics(tmp_path / "out")
    with pytest.raises(ValueError, match="no sample to draw"):
        faces_sheet(tmp_path / "out")


def test_training_reads_them_alone_and_beside_labelled_ones(celeba, built, tmp_path):
    alone = FaceDataset(built[0], WANTED)
    assert len(alone) == 4 and alone.sources == ShardSet(built[0]).column("source")
    assert alone[2].keys() == {"image"}
    wanted = decode_image(ShardSet(built[0])[2]["image"]).transpose(2, 0, 1)
    assert torch.equal(alone[2]["image"], torch.tensor(wanted))
    labelled = write_toy_asmd(tmp_path / "asmd", toy_model(), 3, SIZE, "dense")
    both, swapped = FaceDataset([built[0], labelled], WANTED), FaceDataset([labelled, built[0]], WANTED)
    assert len(both) == 7 and torch.equal(both[2]["image"], swapped[5]["image"])
    digests = {dataset.samples_sha256 for dataset in (alone, both, swapped, FaceDataset(labelled, WANTED))}
    assert len(digests) == 4
    training, held = split_identities(both.sources, 0.3, 0)
    assert len(held) and len(training) + len(held) == 7
    with pytest.raises(ValueError, match="must hold shards of kind 'asmd', version 1, got 'faces'"):
        FaceDataset(built[0])


def test_the_digest_knows_where_crops_are(celeba, built, tmp_path):
    """The same photos, placed by other points."""
    (tmp_path / "list.txt").write_text("".join(
        f"{number:06d}.jpg " + " ".join(map(str, points_of(number).ravel() + 1)) + "\n" for number in (1, 2, 4, 7)
    ))
    build(celeba, tmp_path / "out", landmarks=tmp_path / "list.txt")
    one, other = FaceDataset(built[0], WANTED), FaceDataset(tmp_path / "out", WANTED)
    assert one.sources == other.sources and one.samples_sha256 != other.samples_sha256
