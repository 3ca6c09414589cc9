from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from toy import toy_model
from toy_ftd import write_toy_ftd

from asmgen.images import decode_image
from bfm.charts import make_chart
from cli.main import main
from model.checkpoint import save_checkpoint
from model.config import GeometryConfig, TextureConfig
from model.data import TEXTURE, FaceDataset, face_in_chart, split_identities
from model.figures import regions, samples, texture
from model.geometry import GeometryStream
from model.picture_sheet import close_up, picture_sheet, tile_of
from model.train_geometry import load_geometry_stream
from model.train_texture import TextureTask, albedo_predictor, load_texture_stream
from texgen.ftd import FtdReader

CONFIG = {
    "batch_size": 2, "width": 0.05, "steps": 2, "landmark_branch": False, "omega_c": 0.0, "validation_fraction": 0.5,
}
RUNS = {
    "regions": {"regions": 5}, "adain": {"stylisation": "adain"}, "flat": {"regions": 5, "skips": False},
    "predicted": {"regions": 5, "predicted_albedo": True},
    "predicted_adain": {"stylisation": "adain", "predicted_albedo": True},
}


@pytest.fixture(scope="module")
def face_model():
    return toy_model()


@pytest.fixture(scope="module")
def shards(face_model, tmp_path_factory):
    return write_toy_ftd(tmp_path_factory.mktemp("shards"), face_model, 8)


def write_geometry(folder: Path, face_model, seed: int) -> Path:
    torch.manual_seed(seed)
    stream = GeometryStream(4, 32, 0.1, batch_norm=True)
    metadata = {"albedo_modes": 4, "size": 32, "face_model_sha256": face_model.sha256}
    save_checkpoint(folder, "geometry", 1, GeometryConfig(width=0.1).to_dict(), metadata, {"geometry": stream}, {})
    return folder


@pytest.fixture(scope="module")
def geometry(face_model, tmp_path_factory) -> Path:
    return write_geometry(tmp_path_factory.mktemp("geometry"), face_model, 0)


@pytest.fixture(scope="module")
def runs(shards, face_model, geometry, tmp_path_factory) -> dict[str, Path]:
    dataset, folder = FaceDataset(shards, TEXTURE), tmp_path_factory.mktemp("runs")
    face, chart = face_in_chart(dataset.attributes, face_model, dataset.chart_uv)
    for name, options in RUNS.items():
        config = TextureConfig(**CONFIG, **options)
        stream = albedo_predictor(geometry, dataset.attributes) if config.predicted_albedo else None
        task = TextureTask(
            dataset, face, chart, config, torch.device("cpu"), phi=None, landmarks=None, geometry=stream
        )
        for step, raw in enumerate(task.batches(0, config.steps)):
            task.step(raw, step)
        task.generator.output[1].bias.data.uniform_(-1, 1)  # far from the linear albedo, and from each other
        (folder / name).mkdir()
        save_checkpoint(
            folder / name, task.kind, config.steps, config.to_dict(), task.metadata, task.networks, task.optimisers
        )
    return {name: folder / name for name in RUNS}


@pytest.fixture
def drawn(monkeypatch) -> dict:
    """What the last figure put into its sheet."""
    seen = {}

    def look(headings, rows):
        seen.update(headings=list(headings), rows=rows)
        return picture_sheet(headings, rows)

    for module in (regions, texture):
        monkeypatch.setattr(module, "picture_sheet", look)
    return seen


def tensors(shards, face_model, index):
    """I_o, I_u, (1, 3, S, S), I_a and visibility of a sample, by the reader in numpy."""
    reader = FtdReader(shards, face_model)
    sample = reader.shards[index]
    image, linear = decode_image(sample["image"]) / np.float32(255), reader.linear_albedo(sample)
    image, linear = (torch.tensor(values.transpose(2, 0, 1))[None] for values in (image, linear))
    return image, linear, reader.albedo(sample), reader.mask(sample)


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def tile(values: torch.Tensor) -> np.ndarray:
    """A (3, S, S) map as the figures draw it."""
    pixels = np.rint(values.numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
    return array(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC))


def test_comparison_draws_each_map_over_its_error(shards, face_model, runs, drawn):
    chosen = (6, 1)
    sheet = texture.comparison_figure(shards, [runs["adain"], runs["regions"]], chosen, face_model, "cpu")
    assert drawn["headings"] == [
        "photo", "3DMM", "AdaIN, no contextual loss", "n=5, no landmarks, no contextual loss", "albedo in the photo"
    ]
    assert sheet.width == 6 + 5 * (224 + 6) and sheet.height == 6 + 2 * 17 + 2 * (224 + 17 + 6)
    for index, row in zip(chosen, drawn["rows"]):
        image, linear, albedo, visible = tensors(shards, face_model, index)
        streams = [load_texture_stream(runs[name]) for name in ("adain", "regions")]
        maps = [linear[0], *(stream.stylise(linear, image).albedo_map[0] for stream in streams)]
        assert row[0].lines == (f"{index}: TOY/TOY_{index // 2}_{index % 2}",)
        assert np.array_equal(array(row[0].picture), tile(image[0]))
        for cell, values in zip(row[1:4], maps):
            assert np.abs(array(cell.picture) - tile(values)).max() <= 1
            error = np.abs(values.numpy().transpose(1, 2, 0) - albedo)[visible].mean()
            assert cell.lines == (f"error {error:.4f}",)
        assert np.abs(array(row[4].picture) - tile(torch.tensor(albedo).permute(2, 0, 1))).max() <= 1
        inside = FtdReader(shards, face_model).shards.constants["mask"]
        assert row[4].lines == (f"{100 * visible.sum() / inside.sum():.0f} % seen in the photo",)


def test_runs_are_drawn_on_the_linear_albedo_they_were_trained_on(shards, face_model, runs, geometry, drawn):
    paths = [runs["predicted_adain"], runs["predicted"] / "checkpoint.pt"]
    texture.comparison_figure(shards, paths, [6, 1], face_model, "cpu", geometry)
    assert drawn["headings"][1:3] == ["3DMM, predicted", "AdaIN, no contextual loss"]
    network = load_geometry_stream(geometry).network
    face, chart = face_in_chart(load_texture_stream(paths[0]).metadata, face_model, make_chart(
        face_model.face_only(), "cylindrical", 32
    ).uv)
    for index, row in zip((6, 1), drawn["rows"]):
        image, annotated, albedo, visible = tensors(shards, face_model, index)
        coeffs = network.predict_parameters(image).albedo.numpy()
        linear = torch.tensor(np.clip(chart.unwrap(face.albedo(coeffs)), 0, 1), dtype=torch.float32)
        assert (linear - annotated).abs().max() > 0.01
        maps = [linear[0], *(load_texture_stream(path).stylise(linear, image).albedo_map[0] for path in paths)]
        for cell, values in zip(row[1:4], maps):
            error = np.abs(values.numpy().transpose(1, 2, 0) - albedo)[visible].mean()
            assert np.abs(array(cell.picture) - tile(values)).max() <= 1
            assert float(cell.lines[0].removeprefix("error ")) == pytest.approx(error, abs=6e-5)
    regions.regions_figure(shards, paths[1], [1], [0], face_model, "cpu", geometry)
    stream = load_texture_stream(paths[1])
    made = stream.stylise(linear, image)
    inside = torch.nn.functional.avg_pool2d(stream.mask.reshape(1, 1, 32, 32).float(), 8) > 0.5
    activation = regions._activations((made.content * inside)[0], made.regions[0])[0]
    heated = regions._heated(Image.fromarray(tile(linear[0]).astype(np.uint8)), activation)
    expected = array(regions._circled(heated, {0: regions._peak(activation)}))
    assert np.abs(array(drawn["rows"][1][1].picture) - expected).max() <= 2
    regions.statistics_figure(shards, paths[1], [1], [0], face_model, "cpu", geometry)
    style = made.style[0].flatten(1)
    assert drawn["rows"][0][0].lines[1].startswith(f"mean {style.mean():.3f}, ")


def test_the_origin_of_the_linear_albedo_must_be_that_of_the_runs(shards, face_model, runs, geometry, tmp_path):
    other, both = write_geometry(tmp_path, face_model, 1), [runs["adain"], runs["predicted_adain"]]
    for paths, given, message in (
        (both[1:], None, r"was trained on predicted linear albedo; give the .* predicted it \(--geometry RUN\)$"),
        (both[1:], other, r"must be the geometry run that .*adain was trained with \(weights \w{12}.*\), got \w{12}"),
        (both[:1], geometry, r"adain was trained on the annotated linear albedo; leave out --geometry$"),
        (both, geometry, r"the same linear albedo, got that of geometry weights \w{12}\.\.\. and the annotated one; "),
        (both, None, r"predicted_adain and .*adain must have been trained on the same linear albedo"),
    ):
        with pytest.raises(ValueError, match=message):
            texture.comparison_figure(shards, paths, [0], face_model, "cpu", given)
    for draw in (regions.regions_figure, regions.statistics_figure):
        with pytest.raises(ValueError, match="was trained on predicted linear albedo"):
            draw(shards, runs["predicted"], [0], None, face_model, "cpu")


def test_close_ups_follow_in_rows_of_their_own(shards, face_model, runs, drawn):
    checkpoints = [runs["flat"] / "checkpoint.pt", runs["regions"]]
    texture.comparison_figure(shards, checkpoints, [2], face_model, "cpu", labels=["a", "b"], close_ups=True)
    assert drawn["headings"] == ["photo", "3DMM", "a", "b", "albedo in the photo"]
    above, below = drawn["rows"]
    assert [cell.picture.size for cell in below] == [(224, 224)] * 5 and not any(cell.lines for cell in below)
    scene = texture.stylise_samples(shards, checkpoints, [2], face_model, "cpu")
    image, linear, albedo, _ = tensors(shards, face_model, 2)
    nose_and_mouth = [*range(27, 36), *range(48, 68)]
    in_photo, in_chart = scene.landmarks[0][0, nose_and_mouth], scene.landmarks[1][nose_and_mouth]
    for place, values, points in (
        (0, image[0], in_photo), (1, linear[0], in_chart), (2, scene.stylised[0].albedo_map[0], in_chart),
        (4, torch.tensor(albedo).permute(2, 0, 1), in_chart),
    ):
        assert np.abs(array(below[place].picture) - array(close_up(values, points))).max() <= 2
    sample = FtdReader(shards, face_model).shards[2]
    assert np.allclose(in_photo, sample["landmarks"][nose_and_mouth])
    constants = FtdReader(shards, face_model).shards.constants
    rounded = constants["vertex_texels"][constants["landmarks"][nose_and_mouth], 0]
    rounded = np.stack([rounded % 32, rounded // 32], 1)
    assert (np.abs(in_chart - rounded) <= 1).all()


def test_a_close_up_is_the_square_about_the_points():
    values = torch.zeros(3, 32, 32)
    values[:, 8:16, 12:20] = 1
    enlarged = array(close_up(values, np.array([[12, 8], [19, 10], [15, 15]]) + 0.0))
    bright = np.argwhere(enlarged[..., 0] > 127)
    side = 224 * 8 / (7 * 1.2)  # a square of 8 pixels, in one of 1.2 times the 7 between the outermost points
    assert np.allclose(np.ptp(bright, 0) + 1, side, atol=3) and np.allclose(bright.mean(0), 111.5, atol=1.5)


def test_regions_are_activations_and_circles_where_they_peak(shards, face_model, runs, drawn):
    regions.regions_figure(shards, runs["regions"], [3], [4, 0], face_model, "cpu")
    assert drawn["headings"] == ["correspondence", "region 4", "region 0"]
    image, linear, _, _ = tensors(shards, face_model, 3)
    stream = load_texture_stream(runs["regions"])
    made = stream.stylise(linear, image)
    inside = torch.nn.functional.avg_pool2d(stream.mask.reshape(1, 1, 32, 32).float(), 8) > 0.5
    on_face = regions._in_hull(FtdReader(shards, face_model).shards[3]["landmarks"], 32, (4, 4))
    for row, features, picture, allowed in ((0, made.style, image, on_face), (1, made.content * inside, linear, 1)):
        cells = drawn["rows"][row]
        tiled = Image.fromarray(tile(picture[0]).astype(np.uint8))
        masked = features[0, None] * made.regions[0, [4, 0], None]  # Eq. (13)
        activations = masked.square().mean(1).sqrt().numpy()
        peaks = [regions._peak(activation * allowed) for activation in activations]
        for place, (cell, activation, peak) in enumerate(zip(cells[1:], activations, peaks)):
            expected = regions._circled(regions._heated(tiled, activation), {place: peak})
            assert np.abs(array(cell.picture) - array(expected)).max() <= 2
        assert np.abs(array(cells[0].picture) - array(regions._circled(tiled, dict(enumerate(peaks))))).max() <= 1
    assert drawn["rows"][0][0].lines == ("3: TOY/TOY_1_1",) and drawn["rows"][1][0].lines == ("linear albedo",)


def test_photo_is_marked_on_the_face_alone(shards, face_model, runs, drawn, monkeypatch):
    scene = texture.stylise_samples(shards, [runs["regions"]], [3], face_model, "cpu")
    background = scene.stylised[0].style.clone()
    background[..., 0, 0] = 1e3  # of the photo, a corner; the next is where the face is
    background[..., 2, 1] = 1e2
    made = [scene.stylised[0]._replace(style=background)]
    landmarks = np.array([[10, 14], [22, 14], [16, 26]] + [[16, 18]] * 65, np.float32)[None]
    scene = scene._replace(stylised=made, landmarks=(landmarks, scene.landmarks[1]))
    monkeypatch.setattr(regions, "stylise_samples", lambda *arguments: scene)
    regions.regions_figure(shards, runs["regions"], [3], [2], face_model, "cpu")
    for cell in drawn["rows"][0]:
        marked = np.argwhere((array(cell.picture) == regions._COLOURS[0]).all(-1))
        assert np.allclose(marked.mean(0), (2.5 * 56, 1.5 * 56), atol=1)
    heat = array(drawn["rows"][0][1].picture) - array(tile_of(scene.batch.image[0])) / 2
    assert heat[28, 28, 0] > heat[28, 28, 2] + 20  # the heat is drawn beyond the face, too


def test_the_face_is_the_convex_hull_grown_by_half_a_cell():
    points = np.array([[20.0, 12.0], [44.0, 20.0], [24.0, 50.0], [30.0, 30.0]])
    chosen = regions._in_hull(points, 64, (16, 16))
    corners, expected = points[:3], np.zeros((16, 16), bool)
    for row, column in np.ndindex(16, 16):
        middle = 4 * np.array([column, row]) + 1.5
        ends = np.roll(corners, -1, 0)
        inward = [np.linalg.det([b - a, middle - a]) / np.linalg.norm(b - a) for a, b in zip(corners, ends)]
        expected[row, column] = min(inward) >= -2
    assert np.array_equal(chosen, expected) and 20 < chosen.sum() < 120


def test_marks_lie_where_the_activation_is_largest():
    activations = np.full((2, 4, 4), 0.1)
    activations[0, 1, 2], activations[1, 3, 0] = 0.5, 0.2
    grey = Image.new("RGB", (224, 224), (90, 90, 90))
    circled = array(regions._circled(grey, {place: regions._peak(part) for place, part in enumerate(activations)}))
    assert np.array_equal(array(grey), np.full((224, 224, 3), 90))  # the input is left alone
    for place, (row, column) in enumerate(((1, 2), (3, 0))):
        marked = np.argwhere((circled == regions._COLOURS[place]).all(-1))
        assert np.allclose(marked.mean(0), (row * 56 + 28, column * 56 + 28), atol=0.6)
    heated = array(regions._heated(grey, activations[0]))
    assert (heated - 90)[84, 140, 0] > 10 > (heated - 90)[84, 140, 2]  # red at the peak
    assert np.abs(array(regions._heated(grey, 7 * activations[0])) - heated).max() <= 1  # relative to the largest
    assert np.abs(array(regions._heated(grey, np.zeros((4, 4))))[..., 0] - 69).max() <= 1  # none is the darkest colour


def test_statistics_are_those_of_the_photos_features(shards, face_model, runs, drawn):
    regions.statistics_figure(shards, runs["regions"], [3, 0], [2, 1], face_model, "cpu")
    assert drawn["headings"][1:] == ["region 2", "region 1"]
    for index, row in zip((3, 0), drawn["rows"]):
        image, linear, _, _ = tensors(shards, face_model, index)
        made = load_texture_stream(runs["regions"]).stylise(linear, image)
        features = made.style[0].double().numpy()
        weights = [np.ones((4, 4)), *made.regions[0, [2, 1]].double().numpy()]
        assert row[0].lines[0].startswith(f"{index}: ") and len(row[0].lines) == 2
        for cell, weight in zip(row, weights):
            weight = weight / weight.sum()
            mean = (features * weight).sum((1, 2))
            deviation = np.sqrt((np.square(features - mean[:, None, None]) * weight).sum((1, 2)) + 1e-5)
            numbers = [float(word.strip(",")) for word in cell.lines[-1].split()[1::2]]
            assert numbers == pytest.approx([mean.mean(), deviation.mean()], abs=6e-4)
            assert cell.picture.height == 224 + 6 + 100


def test_dots_of_the_channels():
    values = np.array([[0.0, 0.0], [10.0, 2.0]])
    behind = np.array([[5.0, 1.0]])
    panel = array(regions._dots(values, behind, np.stack([values, values])))
    grey = np.argwhere((panel == 190).all(-1))
    assert np.allclose(grey.mean(0), (49, 111.5), atol=1)  # the middle of both axes
    blue = np.argwhere((panel == regions._COLOURS[0]).all(-1))
    low_left, high_right = blue[blue[:, 1] < 112].mean(0), blue[blue[:, 1] > 112].mean(0)
    assert low_left[0] > 90 and high_right[0] < 10  # deviation is up


def test_samples_are_held_out_ones_where_the_run_held_any(shards, face_model, runs, tmp_path):
    def chosen(places):
        names = texture.stylise_samples(places, [runs["regions"]], None, face_model, "cpu").names
        return [int(name.split(":")[0]) for name in names]

    sources = FtdReader(shards, face_model).shards.column("source")
    assert chosen(shards) == split_identities(sources, 0.5, 0)[1].tolist()
    other = write_toy_ftd(tmp_path / "other", face_model, 14)  # not what it was trained on: any
    assert chosen(other) == [0, 4, 9, 13]


@pytest.mark.parametrize("options, words", [
    ({}, "n=16"), ({"regions": 8, "skips": False}, "n=8, no skips"), ({"landmark_branch": False}, "n=16, no landmarks"),
    ({"stylisation": "adain", "landmark_branch": False}, "AdaIN"), ({"stylisation": "transform"}, "no regions"),
    ({"omega_a": 0.0, "omega_r": 0.0}, "n=16, no reconstruction loss, no adversarial loss"),
])
def test_runs_are_described_by_their_options(options, words):
    assert texture.describe(TextureConfig(**options)) == words


def test_runs_alike_are_told_apart_by_their_folder(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "checkpoint.pt").touch()
    paths = [tmp_path / "one", tmp_path / "two" / "checkpoint.pt", tmp_path]
    assert samples.distinct(["n=8", "n=8", "AdaIN"], paths) == ["n=8 (one)", "n=8 (two)", "AdaIN"]


def test_what_cannot_be_drawn(shards, face_model, runs, tmp_path):
    larger = write_toy_ftd(tmp_path / "larger", face_model, 2, size=64)
    with pytest.raises(ValueError, match="was trained on shards whose size is 32, here it is 64; "):
        texture.comparison_figure(larger, [runs["adain"]], [0], face_model, "cpu")
    with pytest.raises(ValueError, match="samples must be among the 8 there are, got 8"):
        texture.comparison_figure(shards, [runs["adain"]], [0, 8], face_model, "cpu")
    with pytest.raises(ValueError, match="labels must be one for each of the 1 checkpoints, got 2"):
        texture.comparison_figure(shards, [runs["adain"]], [0], face_model, "cpu", labels=["a", "b"])
    for draw in (regions.regions_figure, regions.statistics_figure):
        with pytest.raises(ValueError, match=r"trained with regions \(--stylisation srsm\), got 'adain'"):
            draw(shards, runs["adain"], [0], None, face_model, "cpu")
        with pytest.raises(ValueError, match="regions must be among the 5 there are, from 0, got 5"):
            draw(shards, runs["regions"], [0], [5], face_model, "cpu")


def test_commands_write_what_the_functions_draw(shards, face_model, runs, geometry, tmp_path, monkeypatch):
    monkeypatch.setattr("bfm.model_file.load_model", lambda name: face_model)
    one, two = ["--checkpoint", str(runs["regions"])], ["--checkpoint", str(runs["flat"])]
    paths = [runs["flat"], runs["regions"]]
    wanted = {
        ("regions", *one): regions.regions_figure([shards], runs["regions"], [1], None, face_model),
        ("statistics", *one, "--region", "3"):
            regions.statistics_figure([shards], runs["regions"], [1], [3], face_model),
        ("stylisation", *two, *one): texture.comparison_figure([shards], paths, [1], face_model),
        ("skips", *two, *one, "--label", "x", "--label", "y"):
            texture.comparison_figure([shards], paths, [1], face_model, labels=["x", "y"], close_ups=True),
    }
    for words, picture in wanted.items():
        arguments = ["figure", words[0], str(shards), *words[1:], "--sample", "1", "-o", str(tmp_path / "out.png")]
        result = CliRunner().invoke(main, arguments)
        assert result.output == f"wrote {tmp_path / 'out.png'}\n" and result.exit_code == 0
        with Image.open(tmp_path / "out.png") as written:
            assert np.array_equal(written, picture)
    for word in ("stylisation", "skips", "regions", "statistics"):
        arguments = ["figure", word, str(shards), "--checkpoint", str(runs["predicted"]), "--sample", "1"]
        result = CliRunner().invoke(main, [*arguments, "--geometry", str(geometry), "-o", str(tmp_path / "p.png")])
        assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, [
        "figure", "regions", str(shards), "--checkpoint", str(runs["adain"]), "-o", str(tmp_path / "none.png")
    ])
    assert result.exit_code == 1 and result.output.startswith("Error: ") and result.output.count("\n") == 1
    assert not (tmp_path / "none.png").exists()
