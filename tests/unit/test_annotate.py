"""Landmarks for own photos: found in crops, put back into the photos, read again as training data."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from toy import toy_model
from toy_asmd import write_toy_asmd

from asmgen.annotations import KINDS, write_annotated
from asmgen.crop import crop_image, face_square, square_transform
from asmgen.locate import FaceLocator
from asmgen.w300lp import find_samples, read_sample
from bfm.pose import transform_points
from cli.main import main
from model.annotate import FAN_SIZE, LandmarkFinder, annotate, landmark_crop_size
from model.config import LandmarkConfig
from model.landmarks import LandmarkNetwork, landmark_heatmaps, landmarks_from_heatmaps
from model.photos import find_photos
from model.train_landmarks import train_landmarks

SIDE, SIZE = 256, 64
ANGLES = np.linspace(0, 2 * np.pi, 68, endpoint=False)
LANDMARKS = np.array([130.0, 110.0]) + 45 * np.stack([np.cos(ANGLES), 1.2 * np.sin(ANGLES)], 1)


class AllKnowing(torch.nn.Module):
    """Reads where a crop lies in the photo from its colours, red x and green y, and marks `LANDMARKS` there."""

    def __init__(self, height=1.0):
        super().__init__()
        self.height, self.sides = torch.nn.Parameter(torch.tensor(height)), []

    def forward(self, image):
        size = image.shape[-1]
        inner = slice(size // 4, -(size // 4))
        rows, columns = np.meshgrid(*[np.arange(size)[inner]] * 2, indexing="ij")
        seen = 255 * image[0, :2, inner, inner].permute(1, 2, 0).reshape(-1, 2).numpy()
        known = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)], 1)
        to_photo = np.linalg.lstsq(known, seen, rcond=None)[0].T  # (2, 3)
        self.sides.append(to_photo[0, 0] * size)
        points = transform_points(LANDMARKS, np.linalg.inv(np.vstack([to_photo, [0, 0, 1]]))[:2])
        return [torch.zeros(1, 68, size // 4, size // 4),
                self.height * landmark_heatmaps(torch.tensor(points)[None].float(), size)]


@pytest.fixture
def photo(tmp_path):
    """A photo that tells its own coordinates, in a folder with a list of boxes."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    (tmp_path / "photos" / "me").mkdir(parents=True)
    path = tmp_path / "photos" / "me" / "a.b.png"
    Image.fromarray(np.stack([x, y, np.zeros_like(x)], -1)).save(path)
    left, top, right, bottom = np.array([-6, 4, 10, 8]) + [*LANDMARKS.min(axis=0), *LANDMARKS.max(axis=0)]
    (tmp_path / "boxes.txt").write_text(f"me/a.b.png {left} {top} {right} {bottom}\n")
    return path


@torch.no_grad()
def found(photo, network, **options):
    locator = FaceLocator(boxes=photo.parents[2] / "boxes.txt", detect=False)
    return LandmarkFinder(network, SIZE, locator, **options)(photo, np.asarray(Image.open(photo)))


def test_landmarks_are_put_back_into_the_photo(photo):
    """The second crop is that of the landmarks; a heatmap cell is 11 pixels of this photo."""
    network = AllKnowing()
    points = found(photo, network)
    assert np.abs(points - LANDMARKS).max() < 0.5
    assert network.sides[1] == pytest.approx(face_square(LANDMARKS)[2], abs=2)
    assert abs(network.sides[0] - network.sides[1]) > 4


def test_a_network_that_sees_no_face_is_not_believed(photo):
    with pytest.raises(ValueError, match=r"sees no face in a.b.png \(its heatmaps reach 0.0\d, 0.1 is wanted\)"):
        found(photo, AllKnowing(0.09))
    assert found(photo, AllKnowing(0.09), min_peak=0.05).shape == (68, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_as_training_data(photo, tmp_path, kind):
    photos = find_photos([tmp_path / "photos"], tmp_path / "out")
    (outcome,) = annotate(photos, lambda path, image: LANDMARKS, tmp_path / "out", kind)
    assert not outcome.error and all(path.is_file() for path in outcome.files)
    (entry,) = find_samples(tmp_path / "out")
    assert entry.source == "me/a.b" and entry.image_path.read_bytes() == photo.read_bytes()
    sample = read_sample(entry, None)
    assert sample.landmark_kind == kind
    np.testing.assert_allclose(sample.landmarks, LANDMARKS, atol=1e-4)


def test_the_same_bytes_again(photo, tmp_path):
    first, second = (write_annotated(photo, LANDMARKS, "3d", tmp_path / name / "a") for name in "xy")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("landmarks, kind, message", [
    (LANDMARKS[:67], "3d", r"68 finite points \(68, 2\), got shape \(67, 2\)"),
    (np.full((68, 2), np.nan), "3d", "68 finite points"), (LANDMARKS, "4d", "kind must be one of 3d, 2d, got '4d'"),
])
def test_what_is_no_annotation_is_not_written(photo, tmp_path, landmarks, kind, message):
    with pytest.raises(ValueError, match=message):
        write_annotated(photo, landmarks, kind, tmp_path / "out" / "a")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("landmarks")
    config = LandmarkConfig(width=0.06, stacks=1, steps=1, batch_size=2, validation_fraction=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        shards = write_toy_asmd(folder / "shards", toy_model(), 2, SIZE)
        train_landmarks(shards, folder / "run", config, "cpu")
    return folder / "run"


def test_the_crop_is_that_of_the_training(run, tmp_path):
    assert landmark_crop_size(run) == landmark_crop_size(run / "checkpoint.pt") == SIZE
    torch.save(LandmarkNetwork(1, 0.06).state_dict(), tmp_path / "fan.pth")
    assert landmark_crop_size(tmp_path / "fan.pth") == FAN_SIZE


def test_the_command_reports_and_goes_on(run, photo, tmp_path):
    """A network of one training step is believed only because --min-peak says so."""
    (tmp_path / "photos" / "none.jpg").write_bytes(b"no photo")
    arguments = ["annotate", str(tmp_path / "photos"), str(tmp_path / "out"), "--network", str(run), "--boxes",
                 str(tmp_path / "boxes.txt"), "--device", "cpu"]
    result = CliRunner().invoke(main, [*arguments, "--min-peak", "1"])
    assert result.exit_code == 1 and "the network sees no face in a.b.png" in result.output
    assert "2 of 2 photos failed" in result.output and not (tmp_path / "out").exists()
    result = CliRunner().invoke(main, [*arguments, "--min-peak", "0"])
    assert result.exit_code == 1 and "1 of 2 photos failed" in result.output and "none.jpg" in result.output
    assert {path.name for path in (tmp_path / "out" / "me").iterdir()} == {"a.b.png", "a.b_pts.mat"}
    again = tmp_path / "again"
    result = CliRunner().invoke(
        main, ["annotate", str(again), "--config", str(tmp_path / "out" / "command.toml"), "--json", "-q"]
    )
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and told["failed"] == 1 and result.stderr.endswith("1 of 2 photos failed\n")
    assert told["photos"][0] == {
        "photo": str(photo), "files": [str(again / "me" / name) for name in ("a.b_pts.mat", "a.b.png")], "error": "",
    }
    assert "unreadable image" in told["photos"][1]["error"] and told["photos"][1]["files"] == []
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")} for root in (tmp_path / "out", again)
    )
    assert first == second and len(first) == 3


@pytest.mark.parametrize("options", ([], ["--network", "{run}", "--position-maps", "{file}"]))
def test_one_source_of_landmarks_is_wanted(run, photo, tmp_path, options):
    places = {"run": run, "file": photo}
    result = CliRunner().invoke(
        main, ["annotate", str(photo), str(tmp_path / "out"), *(option.format(**places) for option in options)]
    )
    assert result.exit_code == 2 and "give --network or --position-maps: one of the two" in result.output


def test_a_photo_without_position_map_is_reported(photo, tmp_path):
    texels = tmp_path / "uv_kpt_ind.txt"
    texels.write_text(f"{'1 ' * 68}\n" * 2)
    result = CliRunner().invoke(
        main, ["annotate", str(photo), str(tmp_path / "out"), "--position-maps", str(texels)]
    )
    assert result.exit_code == 1
    assert "a.b.png has no position map; put a.b_uv_posmap.npy or a.b.npy beside it" in result.output


def test_crops_are_cut_as_those_of_the_training():
    """What the stand-in reads from the colours is the transform that shards store."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    square = face_square(LANDMARKS)
    crop = crop_image(np.stack([x, y, x], -1), square, SIZE).transpose(2, 0, 1)[None] / 255
    heatmaps = AllKnowing()(torch.tensor(crop).float())[-1]
    points = landmarks_from_heatmaps(heatmaps.detach())[0].numpy()
    np.testing.assert_allclose(points, transform_points(LANDMARKS, square_transform(square, SIZE)), atol=0.2)
