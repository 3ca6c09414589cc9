"""Fig. 12: which faces are drawn, what is written under them, and where they lie in the picture."""

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from toy import toy_model
from toy_asmd import write_toy_asmd

from bfm.model_file import save_model
from bfm.morphable_model import REGIONS
from bfm.render import clay_colours
from cli.main import main
from model.config import GeometryConfig
from model.data import FaceDataset, split_identities
from model.dual_stream import load_dual_stream
from model.figures.geometry import Shapes, _pictures, describe, expression_sizes, geometry_figure
from model.picture_sheet import TILE, picture_sheet
from model.train_geometry import map_space, train_geometry

SHAPES = {"dual": {}, "single": {"eta_s": 0.0}, "linear": {}}


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory):
    return write_toy_asmd(tmp_path_factory.mktemp("shards"), model, 12)


@pytest.fixture(scope="module")
def runs(model, shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        for shape, fields in SHAPES.items():
            config = GeometryConfig(
                width=0.06, batch_size=4, parameter_steps=1, stream_steps=1, validation_fraction=0.5, shape=shape,
                **fields,
            )
            train_geometry(shards, folder / shape, config, model, device="cpu")
    return folder


@pytest.fixture
def drawn(monkeypatch) -> dict:
    """What the last figure put into its sheet."""
    seen = {}

    def look(headings, rows):
        seen.update(headings=list(headings), rows=rows)
        return picture_sheet(headings, rows)

    monkeypatch.setattr("model.figures.geometry.picture_sheet", look)
    return seen


def array(picture):
    return np.asarray(picture).astype(int)


def is_clay(picture):
    """Where a picture has the hue of clay: its channels stay in their proportions."""
    colour = clay_colours(np.array([[0, 0, 1.0]]))[0]
    return np.ptp(picture / colour, axis=2) < 3


def true_faces(model, shards, index):
    """Neutral face and full face of a sample, from its coefficients; not through the maps."""
    sample = FaceDataset(shards)[index]
    id_coeffs, exp_coeffs = sample["id_coeffs"].numpy(), sample["exp_coeffs"].numpy()
    return model.shape(id_coeffs), model.shape(id_coeffs, exp_coeffs)


def test_errors_are_those_of_the_shapes(model, shards, runs, drawn):
    sheet = geometry_figure(shards, [runs / "dual", runs / "linear"], [5, 2], model, "cpu", labels=["two", "line"])
    assert drawn["headings"] == ["photo", *(part for name in ("truth", "two", "line")
                                            for part in (name, "front", "mouth"))]
    assert sheet.width == 6 + 10 * (TILE + 6)
    mouth = model.regions == REGIONS.index("mouth")
    for column, run in ((4, "dual"), (7, "linear")):
        faces = load_dual_stream(runs / run, model=model, device="cpu")
        for index, row in zip((5, 2), drawn["rows"]):
            predicted = faces.network.geometry(FaceDataset(shards)[index]["image"][None] / 255)
            found = faces.maps.vertices((predicted.identity_map + predicted.expression_map)[0].numpy())
            neutral, full = true_faces(model, shards, index)
            distance = np.linalg.norm(found - full, axis=1)
            for cell, word, wanted in (
                (row[column], "face", distance.mean()), (row[column + 2], "mouth", distance[mouth].mean())
            ):
                (line,) = cell.lines
                assert line.startswith(f"{word} ") and line.endswith(" mm")
                assert float(line.split()[1]) == pytest.approx(wanted, abs=0.2)  # the chart's round trip at 32 texels
            name, size = row[0].lines
            assert name == f"{index}: TOY/TOY_{index // 2}_{index % 2}"
            wanted = np.linalg.norm(full - neutral, axis=1).mean()
            assert float(size.split()[1]) == pytest.approx(wanted, abs=0.1)


def test_the_truth_lies_over_its_photo(model, shards, runs, drawn):
    geometry_figure(shards, [runs / "single"], [3], model, "cpu")
    assert drawn["headings"][4] == "one map"
    photo, over, front, close = (array(cell.picture) for cell in drawn["rows"][0][:4])
    crop = FaceDataset(shards)[3]["image"].permute(1, 2, 0).numpy()
    face = np.abs(crop.astype(int) - crop[0, 0]).max(-1) > 24  # the toy's background has one colour
    face = array(Image.fromarray(face).resize((TILE, TILE), Image.Resampling.NEAREST)) > 0
    clay = is_clay(over)
    assert clay[face].mean() > 0.9 and clay[~face].mean() < 0.1
    assert np.abs(over - photo)[~clay].max() < 90 and np.abs(over - photo)[~clay].mean() < 8  # two ways to enlarge
    # from the front: symmetric in outline about, and whole
    shown = np.abs(front - front[0, 0]).max(-1) > 12
    rows, columns = np.nonzero(shown)
    assert 0.7 * TILE < np.ptp(rows) < TILE - 2
    assert columns.min() + columns.max() == pytest.approx(TILE, abs=0.1 * TILE)
    # the close-up is a part of the picture over the photo, larger
    assert 0.5 < is_clay(close).mean() <= 1


def test_the_frontal_picture_is_centred_wherever_the_model_has_its_origin(model, runs):
    renderer = load_dual_stream(runs / "dual", model=model, device="cpu").renderer
    placed, photo = np.array([[16, 16, 0.1]]), Image.new("RGB", (32, 32))
    fronts = []
    for shift in ([0, 0, 0], [20, -30, 5]):
        shape = model.mean_shape + np.float32(shift)
        shapes = Shapes(shape[None], np.zeros((1, 3)), placed, renderer)
        fronts.append(array(_pictures(shapes, 0, photo, (8, 8, 8), shape)[1]))
    assert (np.abs(fronts[0] - fronts[1]).max(-1) > 2).mean() < 0.001


def test_the_largest_expressions_held_out_one_a_photo(model, shards, runs, drawn):
    geometry_figure(shards, [runs / "dual"], None, model, "cpu")
    dataset = FaceDataset(shards)
    held_out = split_identities(dataset.sources, 0.5, 0)[1]
    moved = {}
    for index in held_out:
        neutral, full = true_faces(model, shards, index)
        moved[int(index)] = np.linalg.norm(full - neutral, axis=1).mean()
    names = [row[0].lines[0] for row in drawn["rows"]]
    chosen = [int(name.split(":")[0]) for name in names]
    assert len(chosen) == 3 == len({index // 2 for index in chosen})  # of six, two a photo
    assert [index // 2 for index in sorted(moved, key=moved.get, reverse=True)][0] == chosen[0] // 2
    for index in chosen:  # the larger of its copies: those of the toy differ
        assert moved[index] == max(moved[other] for other in moved if other // 2 == index // 2)


def test_sizes_are_the_same_in_both_encodings(model, shards, tmp_path):
    sizes = []
    for folder in (shards, write_toy_asmd(tmp_path / "dense", model, 3, encoding="dense")):
        dataset = FaceDataset(folder)
        _, maps = map_space(dataset.attributes, model, dataset.chart_uv)
        sizes.append(expression_sizes(dataset, maps, range(3)))
    assert list(sizes[0]) == [0, 1, 2] and list(sizes[1].values()) == pytest.approx(list(sizes[0].values()), abs=0.05)


@pytest.mark.parametrize("fields, words", [
    ({}, "identity and expression map"),
    ({"shape": "single", "eta_s": 0.0}, "one map"),
    ({"shape": "linear", "eta_r": 0.0}, "linear coefficients, no smoothness loss"),
    ({"weighted": False, "eta_s": 0.0}, "identity and expression map, no W, no symmetry loss"),
])
def test_runs_are_described_by_what_they_lack(fields, words):
    assert describe(dataclasses.replace(GeometryConfig(), **fields)) == words


def test_the_command_draws_it(model, shards, runs, tmp_path):
    save_model(model, tmp_path / "toy.h5")
    arguments = ["figure", "geometry", shards, "-o", tmp_path / "a.png", "--face-model", tmp_path / "toy.h5",
                 "--sample", 1, "--checkpoint", runs / "dual", "--checkpoint", runs / "single", "--device", "cpu"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    wanted = geometry_figure(shards, [runs / "dual", runs / "single"], [1], model, "cpu")
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(array(picture), array(wanted))


def test_mistakes(model, shards, runs, tmp_path):
    with pytest.raises(ValueError, match="samples must be among the 12 there are, got 12"):
        geometry_figure(shards, [runs / "dual"], [12], model, "cpu")
    with pytest.raises(ValueError, match="labels must be one for each of the 1 checkpoints, got 2"):
        geometry_figure(shards, [runs / "dual"], [0], model, "cpu", labels=["a", "b"])
    larger = write_toy_asmd(tmp_path / "larger", model, 1, size=64)
    with pytest.raises(ValueError, match="must have been trained on crops of 64 pixels, as those to draw, got 32"):
        geometry_figure(larger, [runs / "dual"], [0], model, "cpu")
