"""Toy shards -> training of the landmark network -> checkpoint -> landmarks."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from toy import toy_model
from toy_asmd import write_toy_asmd
from training_runs import PowerCut, cut_at, same_tensors, without_times

from cli.main import main
from model.checkpoint import load_checkpoint
from model.config import NO_AUGMENTATION, LandmarkConfig
from model.data import LANDMARKS, FaceDataset
from model.landmarks import landmarks_from_heatmaps, load_landmark_network
from model.train_landmarks import LandmarkTask, train_landmarks
from model.trainer import read_log, run_training

pytestmark = pytest.mark.usefixtures("without_curves")
CONFIG = LandmarkConfig(
    seed=3, batch_size=2, log_every=1, validate_every=4, checkpoint_every=3, width=1 / 16, steps=8, stacks=2,
    validation_fraction=0.25,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_toy_asmd(tmp_path_factory.mktemp("shards"), toy_model(), 8, size=64)


@pytest.fixture(scope="module")
def whole_run(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train_landmarks(shards, folder, CONFIG, device="cpu")
    return folder


def test_what_a_run_leaves(whole_run, shards):
    described = json.loads((whole_run / "config.json").read_text())
    assert described["kind"] == "landmarks" and LandmarkConfig.from_dict(described["config"]) == CONFIG
    assert described["metadata"] == {
        "face_model": "toy", "face_model_sha256": toy_model().sha256, "licence": "made in the test", "size": 64,
        "samples_sha256": FaceDataset(shards, LANDMARKS).samples_sha256,
    }
    records = read_log(whole_run)
    assert [record["step"] for record in records if "loss" in record] == list(range(1, 9))
    validations = [record for record in records if "validation" in record]
    assert [record["step"] for record in validations] == [4, 8]
    assert all(record["validation"].keys() == {"landmark_pixels", "landmark_percent"} for record in validations)


def test_validation_is_of_the_network_as_it_is_loaded(whole_run, shards):
    """On the held-out crops as they are, from the last stack."""
    dataset = FaceDataset(shards, LANDMARKS)
    held_out = LandmarkTask(dataset, CONFIG, torch.device("cpu")).held_out
    image, truth = (torch.stack([dataset[index][key] for index in held_out]) for key in ("image", "landmarks"))
    found = landmarks_from_heatmaps(load_landmark_network(whole_run)(image / 255)[-1])
    pixels = (found - truth).norm(dim=-1).mean()
    logged = [record["validation"] for record in read_log(whole_run) if "validation" in record][-1]
    assert logged["landmark_pixels"] == pytest.approx(float(pixels), rel=1e-4)


def test_a_resumed_run_equals_one_never_stopped(shards, whole_run, tmp_path):
    with pytest.raises(PowerCut):
        train_landmarks(shards, tmp_path, CONFIG, device="cpu", on_log=cut_at(5))
    assert load_checkpoint(tmp_path, "landmarks")["step"] == 3
    torch.rand(17)  # the global generator has moved on since
    train_landmarks(shards, tmp_path, CONFIG, device="cpu", resume=True)
    assert same_tensors(load_checkpoint(tmp_path, "landmarks"), load_checkpoint(whole_run, "landmarks"))
    assert without_times(read_log(tmp_path)) == without_times(read_log(whole_run))


def test_a_run_that_cannot_go_on(shards, whole_run):
    with pytest.raises(ValueError, match="stacks is 3, the run was started with 2"):
        train_landmarks(shards, whole_run, dataclasses.replace(CONFIG, stacks=3), device="cpu", resume=True)


def test_each_step_changes_its_crops_anew(shards):
    dataset = FaceDataset(shards, LANDMARKS)
    plain = dataclasses.replace(CONFIG, augmentation=NO_AUGMENTATION)

    def first_loss(config, step):
        task = LandmarkTask(dataset, config, torch.device("cpu"))
        return float(task.step(raw, step)["loss"])

    raw = next(iter(LandmarkTask(dataset, CONFIG, torch.device("cpu")).batches(0, 1)))
    assert raw.keys() == {"image", "landmarks"}  # nothing is read in vain
    assert first_loss(CONFIG, 0) == first_loss(CONFIG, 0) != first_loss(CONFIG, 1)
    assert first_loss(plain, 0) == first_loss(plain, 1)


def test_identities_are_held_out(shards):
    task = LandmarkTask(FaceDataset(shards, LANDMARKS), CONFIG, torch.device("cpu"))
    held, trained = (
        {task.dataset.sources[index].rpartition("_")[0] for index in indices}
        for indices in (task.held_out, task.training)
    )
    assert len(held) == 1 and len(trained) == 3 and held.isdisjoint(trained)


def test_crops_of_another_size(tmp_path):
    shards = write_toy_asmd(tmp_path / "shards", toy_model(), 2, size=32)
    with pytest.raises(ValueError, match="crops whose side is a multiple of 64 pixels, got 32; build them with"):
        train_landmarks(shards, tmp_path / "run", CONFIG, device="cpu")
    assert not (tmp_path / "run").exists()


def test_overfitting_three_faces(tmp_path):
    """Their landmarks are found, by the network as it is loaded, to a pixel and a half of 64."""
    shards = write_toy_asmd(tmp_path / "shards", toy_model(), 3, size=64)
    config = dataclasses.replace(
        CONFIG, batch_size=3, stacks=1, width=1 / 8, steps=60, learning_rate=5e-3, log_every=15, checkpoint_every=200,
        validate_every=200, validation_fraction=0, augmentation=NO_AUGMENTATION,
    )
    dataset = FaceDataset(shards, LANDMARKS)
    run_training(LandmarkTask(dataset, config, torch.device("cpu")), tmp_path / "run", config)
    losses = [record["loss"] for record in read_log(tmp_path / "run")]
    assert (np.diff(losses) < 0).all() and losses[-1] < 0.25, losses  # 1 is empty heatmaps
    samples = [dataset[index] for index in range(3)]
    image, truth = (torch.stack([sample[key] for sample in samples]) for key in ("image", "landmarks"))
    network = load_landmark_network(tmp_path / "run")
    found = landmarks_from_heatmaps(network(image.float() / 255)[-1])
    assert (found - truth).norm(dim=-1).mean() < 1.5


def test_the_command(shards, whole_run, tmp_path):
    command = [
        "train", "landmarks", str(shards), "-o", str(tmp_path / "run"), "--steps", "8", "--stacks", "2", "--width",
        "0.0625", "--batch-size", "2", "--seed", "3", "--validation-fraction", "0.25", "--validate-every", "4",
        "--log-every", "1", "--device", "cpu",
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "step 8  validation  landmark_pixels" in result.output
    assert result.output.endswith(f"wrote {tmp_path / 'run' / 'checkpoint.pt'}\n")
    ours, theirs = (load_checkpoint(folder, "landmarks") for folder in (tmp_path / "run", whole_run))
    assert same_tensors(ours["networks"], theirs["networks"])
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1 and "already holds a run; resume it" in again.output
