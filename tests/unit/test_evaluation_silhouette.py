import dataclasses
import json

import numpy as np
import pytest
import torch
from bad_photos import sized
from click.testing import CliRunner
from PIL import Image
from toy import toy_model
from toy_asmd import draw_face, write_toy_asmd

from bfm.model_file import save_model
from bfm.pose import project
from cli.main import main
from model.config import GeometryConfig
from model.evaluation.face_masks import PARSED, PARTS, FaceMask, MaskFolder, parsed_mask
from model.evaluation.predict import PredictedFace
from model.evaluation.silhouette import agreement, agreement_picture, below_brows, silhouette
from model.parsing import CLASSES
from model.photos import Photo
from model.train_geometry import train_geometry

SIZE = 64
IDENTITY = np.eye(2, 3)


def test_agreement_by_hand():
    covered, face = np.zeros((2, 4, 4), bool)
    covered[:2, :3], face[1:, 1:] = True, True  # 6 and 9 pixels, 2 of both
    assert agreement(covered, face) == {
        "iou": 2 / 13, "outside_percent": pytest.approx(400 / 9), "missed_percent": pytest.approx(700 / 9),
    }
    assert agreement(face, face) == {"iou": 1, "outside_percent": 0, "missed_percent": 0}
    assert agreement(face[:, :2], ~face[:, :2])["iou"] == 0


def test_the_papers_colours():
    """Yellow where both are, red where the geometry is alone, green where the face is alone; half of it the photo."""
    photo = np.full((1, 4, 3), (100, 60, 20), np.uint8)
    covered, face = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    assert agreement_picture(photo, covered, face)[0].tolist() == [
        [178, 158, 10], [178, 30, 10], [50, 158, 10], [100, 60, 20]
    ]
    assert (photo == (100, 60, 20)).all()


@pytest.mark.parametrize("turn, expected", [
    (0, lambda x, y: y > 20), (90, lambda x, y: x < 20), (180, lambda x, y: y < 20), (-90, lambda x, y: x > 20),
])
def test_below_the_brows_is_where_the_chin_is(turn, expected):
    landmarks = np.zeros((68, 2))
    landmarks[17:27] = np.column_stack([np.linspace(-9, 9, 10), [1, -1, -1, 1, 0, 0, 1, -1, -1, 1]])
    landmarks[8] = 0, 15
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    landmarks = landmarks @ np.array([[cosine, sine], [-sine, cosine]]) + [20, 20]
    rows, columns = np.indices((40, 50))
    off_the_line = np.abs(rows - 20 if turn % 180 == 0 else columns - 20) > 0
    below = below_brows(landmarks, 40, 50)
    assert (below == expected(columns, rows))[off_the_line].all()


@pytest.fixture(scope="module")
def model():
    return toy_model().face_only()


def face_of(model, seed, shift=(0, 0), factor=1):
    """A face as it truly is in its photo."""
    drawn = draw_face(model, SIZE, seed)
    neutral = model.shape(drawn["id_coeffs"], 0 * drawn["exp_coeffs"]).astype(np.float64)
    shape = model.shape(drawn["id_coeffs"], drawn["exp_coeffs"]).astype(np.float64)
    position = drawn["position"].astype(np.float64) * factor + [*np.add(shift, (factor - 1) / 2), 0]
    return PredictedFace(neutral, shape - neutral, drawn["pose"].astype(np.float64), position, np.inf, True)


def covered_by(model, face, height, width):
    """(H, W) bool from the definition: pixel centres inside any triangle, the mouth's included."""
    points = project(face.shape, face.pose, face.position)[:, :2]
    found, places = np.zeros((height, width), bool), np.indices((height, width))
    for corners in points[np.concatenate([model.triangles, model.mouth_triangles])]:
        (ax, ay), (bx, by), (cx, cy) = corners
        (left, top), (right, bottom) = np.maximum(corners.min(0), 0).astype(int), corners.max(0).astype(int) + 1
        box = np.s_[top:max(0, bottom), left:max(0, right)]
        rows, columns = places[0][box], places[1][box]
        sides = np.stack([
            (qx - px) * (rows - py) - (qy - py) * (columns - px)
            for (px, py), (qx, qy) in (((ax, ay), (bx, by)), ((bx, by), (cx, cy)), ((cx, cy), (ax, ay)))
        ])
        found[box] |= (sides >= 0).all(0) | (sides <= 0).all(0)
    return found


@pytest.mark.parametrize("seed", [0, 3])
def test_the_true_face_agrees_with_its_mask(model, seed):
    face, photo = face_of(model, seed), np.full((SIZE, SIZE, 3), 128, np.uint8)
    inside = covered_by(model, face, SIZE, SIZE)
    found = silhouette(face, model, photo, FaceMask(inside, IDENTITY))
    assert found.covered.sum() == inside.sum() > 500  # none of it is cut off
    assert found.errors() == {
        "iou": 1, "outside_percent": 0, "missed_percent": 0,
        "iou_below_brows": 1, "outside_percent_below_brows": 0, "missed_percent_below_brows": 0,
    }
    mouth = model.mouth_triangles.astype(int)
    centre = found.points[mouth].mean((0, 1))[:2].round().astype(int)
    assert found.covered[centre[1], centre[0]]


@pytest.mark.parametrize("shift", [(3, 0), (0, -5), (-4, 2)])
def test_a_shifted_face_agrees_as_its_shifted_mask_does(model, shift):
    large = 3 * SIZE  # so that nothing of it leaves the photo
    face, moved = (face_of(model, 1, np.add(part, SIZE)) for part in ((0, 0), shift))
    inside = covered_by(model, face, large, large)
    there = np.roll(inside, shift[::-1], (0, 1))
    found = silhouette(moved, model, np.zeros((large, large, 3), np.uint8), FaceMask(inside, IDENTITY)).errors()
    assert found["iou"] == (inside & there).sum() / (inside | there).sum() < 0.95
    assert found["outside_percent"] == pytest.approx(100 * (there & ~inside).sum() / inside.sum())
    assert found["missed_percent"] == pytest.approx(100 * (inside & ~there).sum() / inside.sum())
    below = below_brows(moved.project(moved.shape[model.landmarks])[:, :2], large, large)
    assert found["iou_below_brows"] == (inside & there & below).sum() / ((inside | there) & below).sum()


def test_the_line_is_that_of_given_landmarks_or_else_of_the_predicted(model):
    face, photo = face_of(model, 0), np.zeros((SIZE, SIZE, 3), np.uint8)
    mask = FaceMask(covered_by(model, face, SIZE, SIZE), IDENTITY)
    landmarks = project(face.shape, face.pose, face.position)[model.landmarks, :2]
    given, predicted = (silhouette(face, model, photo, mask, points) for points in (landmarks + [0, 9], None))
    assert np.array_equal(predicted.below, silhouette(face, model, photo, mask, landmarks).below)
    assert given.below.sum() < predicted.below.sum()


def test_masks_and_photos_of_other_resolutions(model):
    """A photo of 700 pixels is compared in a picture of 512; a mask may have half the photo's pixels, or twice."""
    factor = 700 / SIZE
    face, photo = face_of(model, 0, factor=factor), np.zeros((700, 700, 3), np.uint8)
    for scale in (0.5, 1, 2):
        size, offset = round(700 * scale), (scale - 1) / 2
        smaller = dataclasses.replace(face, position=face.position * scale + [offset, offset, 0])
        mask = FaceMask(covered_by(model, smaller, size, size), np.array([[scale, 0, offset], [0, scale, offset]]))
        found = silhouette(face, model, photo, mask)
        assert max(found.picture.shape) == 512 and found.errors()["iou"] > 0.995


def test_what_the_mask_marks_far_from_the_geometry_is_seen(model):
    face, photo = face_of(model, 0), np.zeros((90, 400, 3), np.uint8)
    inside = np.zeros((90, 400), bool)
    inside[80:, 390:] = True
    assert silhouette(face, model, photo, FaceMask(inside, IDENTITY)).errors()["missed_percent"] == 100


def test_geometry_far_from_the_mask_is_seen(model):
    face = face_of(model, 0, (200, 100))
    inside, covered = np.zeros((300, 400), bool), covered_by(model, face, 300, 400)
    inside[4, 4] = True
    found = silhouette(face, model, np.zeros((300, 400, 3), np.uint8), FaceMask(inside, IDENTITY))
    assert found.errors()["outside_percent"] == 100 * covered.sum()


def test_masks_are_sampled_at_the_nearest_pixel():
    inside = np.zeros((3, 4), bool)
    inside[1, 2] = True
    mask = FaceMask(inside, np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]]))  # the photo has twice the pixels
    low, high = mask.box()
    assert low.tolist() == high.tolist() == [4.5, 2.5]
    expected = np.zeros((6, 8), bool)
    expected[2:4, 4:6] = True
    assert np.array_equal(mask.sample(IDENTITY, 6, 8), expected)
    shifted = np.array([[1, 0, 3], [0, 1, 1]])  # the picture begins left of and above the photo
    beyond = np.zeros((9, 12), bool)
    beyond[3:5, 7:9] = True
    assert np.array_equal(mask.sample(shifted, 9, 12), beyond)
    everything = FaceMask(np.ones((2, 2), bool), IDENTITY)
    assert everything.sample(shifted, 5, 6).sum() == 4  # nothing beyond its border


def write_mask(path, rows, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array(rows, np.uint8)
    if mode == "RGBA":
        pixels = np.stack([pixels, 0 * pixels, 0 * pixels, 0 * pixels + 255], -1)
    image = Image.fromarray(pixels, None if mode == "RGBA" else "L")
    if mode == "P":
        image = image.convert("P")
        image.putpalette([0, 0, 0] * 256)
        image.putdata([int(value) for row in rows for value in row])
    image.save(path)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_a_mask_is_what_is_not_zero(tmp_path, mode):
    write_mask(tmp_path / "a" / "b.png", [[0, 1, 255], [0, 0, 7]], mode)
    mask = MaskFolder(tmp_path).mask(Photo(None, "a/b"), (3, 2))
    assert mask.inside.tolist() == [[False, True, True], [False, False, True]]
    assert np.array_equal(mask.transform, IDENTITY)


def test_celebamask_hq_is_joined_from_its_parts(tmp_path):
    """Zero-padded numbers, folders of 2,000, half the photos' resolution; hair and ears are no face."""
    for place, part in enumerate((*PARTS, "hair", "l_ear", "neck")):
        pixels = np.zeros((4, 4))
        pixels.flat[place] = 255
        write_mask(tmp_path / "1" / f"02001_{part}.png", pixels)
    write_mask(tmp_path / "1" / "02002_skin.png", np.ones((4, 4)))
    mask = MaskFolder(tmp_path).mask(Photo(None, "2001"), (8, 8))
    assert mask.inside.ravel().nonzero()[0].tolist() == list(range(len(PARTS)))
    assert np.allclose(mask.transform, [[0.5, 0, -0.25], [0, 0.5, -0.25]])
    assert len(PARTS) == len(PARSED) and set(PARSED) <= set(CLASSES)
    with pytest.raises(ValueError, match="has no mask 2003.png or 2003_skin.png"):
        MaskFolder(tmp_path).mask(Photo(None, "2003"), (8, 8))


def test_what_is_no_mask(tmp_path):
    with pytest.raises(ValueError, match=r"must hold masks \(.png\)"):
        MaskFolder(tmp_path)
    write_mask(tmp_path / "wide.png", np.ones((4, 8)))
    write_mask(tmp_path / "empty.png", np.zeros((4, 4)))
    (tmp_path / "cut.png").write_bytes((tmp_path / "wide.png").read_bytes()[:40])
    (tmp_path / "bomb.png").write_bytes(sized((tmp_path / "wide.png").read_bytes(), b"IHDR", 4, ">II", 30_000))
    write_mask(tmp_path / "two_skin.png", np.ones((4, 4)))
    write_mask(tmp_path / "two_nose.png", np.ones((5, 5)))
    masks = MaskFolder(tmp_path)
    for name, reason in {
        "wide": "must have the shape of its photo, 400x400, got 8x4", "empty": "marks no face",
        "cut": "cannot be read", "bomb": "cannot be read", "two": "must be as large as",
    }.items():
        with pytest.raises(ValueError, match=reason):
            masks.mask(Photo(None, name), (400, 400))


def test_a_parsed_mask_lies_where_the_face_is_in_the_photo():
    class Bright(torch.nn.Module):
        mean = torch.zeros(1)

        def face_mask(self, image, classes):
            assert classes == PARSED and image.shape == (1, 3, 512, 512)
            return image[:, :1] > 0.5

    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[30:70, 50:80] = 255
    mask = parsed_mask(Bright(), pixels, (20, 10, 80))
    assert np.array_equal(mask.sample(IDENTITY, 100, 120), pixels[..., 0] > 0)
    with pytest.raises(ValueError, match="finds no face"):
        parsed_mask(Bright(), np.zeros((50, 50, 3), np.uint8), (0, 0, 50))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("trained"), GeometryConfig(
        width=0.06, batch_size=4, parameter_steps=1, stream_steps=2, validation_fraction=0, learning_rate=2e-3
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        train_geometry(write_toy_asmd(folder / "shards", toy_model(), 4), folder / "run", config, toy_model(), "cpu")
    save_model(toy_model(), folder / "toy.h5")
    return folder


def test_from_the_command_line(model, run, tmp_path):
    photos, masks, out = tmp_path / "photos", tmp_path / "photos" / "masks", tmp_path / "out"
    for index, name in enumerate(("a/one", "two", "three")):
        path = photos / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_face(model, SIZE, index)["image"]).save(path)
        write_mask(masks / f"{name}.png", covered_by(model, face_of(model, index), SIZE, SIZE))
    (masks / "three.png").unlink()
    chosen = ["--checkpoint", run / "run", "--face-model", run / "toy.h5", "--device", "cpu", "--whole", "-o", out]
    result = CliRunner().invoke(main, ["evaluate", "silhouette", *map(str, [photos, masks, *chosen])])
    assert result.exit_code == 1 and "three: " in result.output and "has no mask three.png" in result.output
    table, results = (out / "table.md").read_text(), json.loads((out / "results.json").read_text())
    assert table.strip() in result.output and "mean of 2" in table and "2 photos, 1 failed" in table
    assert list(results["photos"]) == ["a/one", "two"] and list(results["failed"]) == ["three"]
    ious = [photo["errors"]["iou"] for photo in results["photos"].values()]
    assert all(0 < iou < 1 for iou in ious)
    assert results["means"]["iou"] == {"mean": pytest.approx(np.mean(ious)), "photos": 2}
    assert f"| a/one | {ious[0]:.3f} " in " ".join(table.split()) and (out / "sheet.png").is_file()
    both = CliRunner().invoke(main, ["evaluate", "silhouette", *map(str, [photos, *chosen])])
    assert both.exit_code == 2 and "give MASKS or --parsing" in both.output
    same = CliRunner().invoke(main, ["evaluate", "silhouette", *map(str, [photos, photos, *chosen])])
    assert same.exit_code == 2 and "MASKS must be another folder than PHOTOS" in same.output


def test_masks_are_no_photos_however_their_folder_is_named(model, run, tmp_path, monkeypatch):
    Image.fromarray(draw_face(model, SIZE, 0)["image"]).save(tmp_path / "one.jpg")
    write_mask(tmp_path / "masks" / "one.png", covered_by(model, face_of(model, 0), SIZE, SIZE))
    chosen = ["--checkpoint", run / "run", "--face-model", run / "toy.h5", "--device", "cpu", "--whole"]
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        main, ["evaluate", "silhouette", *map(str, [".", tmp_path / "masks", *chosen, "-o", tmp_path / "out"])]
    )
    assert result.exit_code == 0 and "1 photos, 0 failed" in result.output
    (tmp_path / "photos").mkdir()
    (tmp_path / "one.jpg").rename("photos/one.jpg")
    (tmp_path / "masks/one.png").rename("one.png")  # photos in a folder below that of the masks
    result = CliRunner().invoke(
        main, ["evaluate", "silhouette", *map(str, ["photos", ".", *chosen, "-o", tmp_path / "out"])]
    )
    assert result.exit_code == 0 and "1 photos, 0 failed" in result.output
