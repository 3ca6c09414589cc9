"""Runs of the geometry stream that the paper compares with: one map, coefficients, losses left out."""

import dataclasses

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from toy import toy_model
from toy_asmd import write_toy_asmd

from cli.main import main
from model.config import NO_AUGMENTATION, GeometryConfig
from model.data import FaceDataset
from model.dual_stream import load_dual_stream
from model.face_files import FaceWriter
from model.geometry import Geometry
from model.losses import identity_weights
from model.train_geometry import GeometryTask, load_geometry_stream, map_space, train_geometry
from model.trainer import read_log, run_training

pytestmark = pytest.mark.usefixtures("without_curves")
CONFIG = GeometryConfig(
    seed=1, width=0.06, batch_size=4, parameter_steps=1, stream_steps=2, log_every=1, validate_every=9,
    checkpoint_every=9, validation_fraction=0.3, learning_rate=1e-3,
)
SHAPES = {"dual": {}, "single": {"eta_s": 0.0}, "linear": {}}


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory):
    return write_toy_asmd(tmp_path_factory.mktemp("shards"), model, 8)


@pytest.fixture(scope="module")
def runs(model, shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        for shape, fields in SHAPES.items():
            config = dataclasses.replace(CONFIG, shape=shape, **fields)
            train_geometry(shards, folder / shape, config, model, device="cpu")
    return folder


def task_of(model, shards, config):
    dataset = FaceDataset(shards)
    face, maps = map_space(dataset.attributes, model, dataset.chart_uv)
    return GeometryTask(dataset, face, maps, config, torch.device("cpu"))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_says_its_shape_and_is_loaded_by_itself(model, runs, shape):
    trained = load_dual_stream(runs / shape, model=model, device="cpu")
    assert trained.metadata["shape"] == shape
    image = torch.rand(2, 3, 32, 32)
    ours, theirs = load_geometry_stream(runs / shape).network(image), trained.network(image)
    assert torch.equal(ours.identity_map, theirs.identity_map)
    assert torch.equal(ours.expression_map, theirs.expression_map)
    assert bool(ours.expression_map.any()) == (shape != "single")
    mean, inside = torch.tensor(trained.maps.mean_map), torch.tensor(trained.maps.chart.mask)
    assert (ours.identity_map - mean)[..., inside].abs().mean() < 0.2  # a face


def test_a_single_map_has_no_neutral_face_to_write(model, runs):
    faces = {shape: load_dual_stream(runs / shape, model=model, device="cpu") for shape in SHAPES}
    for shape in ("dual", "linear"):
        FaceWriter(faces[shape], neutral=True)
    FaceWriter(faces["single"])
    with pytest.raises(ValueError, match="so it has no neutral face and no expression to swap"):
        FaceWriter(faces["single"], neutral=True)


def test_only_a_single_map_has_no_identity_and_expression_error(runs):
    measured = {shape: read_log(runs / shape)[-1]["validation"].keys() for shape in SHAPES}
    assert measured["dual"] == measured["linear"] == measured["single"] | {"identity_mm", "expression_mm"}
    logged = {shape: read_log(runs / shape)[1].keys() for shape in SHAPES}
    assert logged["dual"] == logged["linear"] == logged["single"] | {"symmetry"}


def test_a_single_map_is_trained_on_the_whole_face(model, shards):
    task = task_of(model, shards, dataclasses.replace(CONFIG, shape="single", eta_s=0))
    raw = next(iter(task.batches(0, 1)))
    maps = task.maps
    whole = maps.identity_map(raw["id_coeffs"]) + maps.expression_map(raw["exp_coeffs"])
    batch = task.batch(raw)
    torch.testing.assert_close(batch.identity_map, whole)
    with torch.no_grad():
        losses = task.losses(batch, whole_stream=True)
        predicted = task.network(batch.image).identity_map  # the statistics of the batch again
    wanted = ((predicted - whole).square().sum(1) * task.weights).mean()
    torch.testing.assert_close(losses["asm"], wanted)


def test_variants_start_from_the_same_encoder(model, shards):
    streams = [task_of(model, shards, dataclasses.replace(CONFIG, shape=s, **f)).network for s, f in SHAPES.items()]
    for stream in streams[1:]:
        for part in ("encoder", "psn"):
            ours, theirs = (getattr(network, part).state_dict() for network in (streams[0], stream))
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_losses_of_weight_0_are_not_made(model, shards, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr("model.train_geometry.symmetry_loss", never)
    monkeypatch.setattr("model.train_geometry.smoothness_loss", never)
    task = task_of(model, shards, dataclasses.replace(CONFIG, eta_s=0, eta_r=0))
    losses = task.step(next(iter(task.batches(1, 2))), 1)
    assert losses.keys() == {"parameters", "asm", "loss"}
    torch.testing.assert_close(losses["loss"], 0.5 * losses["parameters"] + 100 * losses["asm"])


@pytest.mark.parametrize("shape, most", [("single", 1.6), ("linear", 0.9)])
def test_overfitting_three_faces(model, tmp_path, shape, most):
    shards = write_toy_asmd(tmp_path / "shards", model, 3)
    config = dataclasses.replace(
        CONFIG, width=0.12, batch_size=3, parameter_steps=5, stream_steps=75, log_every=80, validation_fraction=0,
        validate_every=200, checkpoint_every=200, augmentation=NO_AUGMENTATION, learning_rate=2e-3, eta_s=0, eta_r=0,
        shape=shape,
    )
    task = task_of(model, shards, config)
    before = task.evaluate(np.arange(3))["full_mm"]
    run_training(task, tmp_path / "run", config)
    after = task.evaluate(np.arange(3))["full_mm"]
    assert before > 6 and after < most


def run_cli(*arguments):
    return CliRunner().invoke(main, ["train", "geometry", *map(str, arguments)])


@pytest.mark.parametrize("options, fields", [
    ((), {}),
    (("--shape", "single", "--decoder-width", "1.5"), {"shape": "single", "eta_s": 0.0, "decoder_width": 1.5}),
    (("--shape", "single", "--no-symmetry"), {"shape": "single", "eta_s": 0.0}),
    (("--shape", "linear", "--no-smoothness"), {"shape": "linear", "eta_r": 0.0}),
    (("--no-weighted", "--no-symmetry"), {"weighted": False, "eta_s": 0.0}),
    (("--expression-weighted",), {"expression_weighted": True}),
    (("--symmetry",), {}),
])
def test_options_are_fields_of_the_config(monkeypatch, shards, tmp_path, options, fields):
    seen = []
    monkeypatch.setattr("model.train_geometry.train_geometry", lambda *args, **_: seen.append(args[2]) or tmp_path)
    result = run_cli(shards, "-o", tmp_path / "run", *options)
    assert result.exit_code == 0, result.output
    assert seen == [dataclasses.replace(GeometryConfig(), **fields)]


def test_a_single_map_has_no_symmetry_loss(shards, tmp_path):
    result = run_cli(shards, "-o", tmp_path / "run", "--shape", "single", "--symmetry")
    assert result.exit_code == 1
    assert result.output == (
        "Error: eta_s must be 0 with shape 'single', got 0.5: its map holds the expression too, and faces with an "
        "expression are not symmetric; turn the symmetry loss off\n"
    )
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="shape must be one of dual, single, linear, got 'triple'"):
        GeometryConfig(shape="triple")
    with pytest.raises(ValueError, match="decoder_width must be 1 with shape 'linear', got 2: it has no decoder"):
        GeometryConfig(shape="linear", decoder_width=2)


def test_weights_on_the_expression_map_as_on_a_single_one(model, shards):
    """A perfect identity leaves the same loss of maps to both: the expression's, weighted by W."""
    raw, found = None, []
    for changes in ({"expression_weighted": True}, {"shape": "single", "eta_s": 0}, {}):
        task = task_of(model, shards, dataclasses.replace(CONFIG, **changes))
        raw = raw or next(iter(task.batches(0, 1)))
        batch = task.batch(raw)
        true = task.preparer(raw).identity_map
        task.network.forward = lambda image, true=true, parameters=batch.parameters: Geometry(
            true, torch.zeros_like(true), parameters
        )
        found.append(float(task.losses(batch, whole_stream=True)["asm"]))
    assert found[0] == pytest.approx(found[1]) and found[0] > 2 * found[2] > 0


def test_no_weights_of_the_regions(model, shards):
    """Table III: W's mean all over the face."""
    weighted, equal = (
        task_of(model, shards, dataclasses.replace(CONFIG, weighted=weighted)) for weighted in (True, False)
    )
    face, maps = map_space(weighted.dataset.attributes, model, weighted.dataset.chart_uv)
    assert np.array_equal(weighted.weights, identity_weights(face, maps))
    assert len(equal.weights[equal.mask].unique()) == 1 and not equal.weights[~equal.mask].any()
    torch.testing.assert_close(equal.weights.mean(), weighted.weights.mean())
