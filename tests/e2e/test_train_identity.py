"""Toy shards -> training of the identity network -> checkpoint -> who is who."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from toy import toy_model
from toy_asmd import write_toy_asmd
from toy_ftd import write_toy_ftd
from training_runs import PowerCut, cut_at, same_tensors, without_times

from cli.config_file import tomllib
from cli.main import main
from cli.train import run_settings
from model.checkpoint import load_checkpoint
from model.config import NO_AUGMENTATION, IdentityConfig
from model.data import LANDMARKS, FaceDataset
from model.identity import face_crop, load_identity_network
from model.train_identity import IdentityTask, train_identity, verification
from model.trainer import read_log, run_training

pytestmark = pytest.mark.usefixtures("without_curves")
CPU = torch.device("cpu")
CONFIG = IdentityConfig(
    seed=3, batch_size=4, log_every=1, validate_every=4, checkpoint_every=3, width=1 / 32, steps=8,
    validation_fraction=0.4,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_toy_asmd(tmp_path_factory.mktemp("shards"), toy_model(), 10, size=64)


@pytest.fixture(scope="module")
def whole_run(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train_identity(shards, folder, CONFIG, device="cpu")
    return folder


def photo(source: str) -> str:
    return source.rpartition("_")[0]


def test_what_a_run_leaves(whole_run, shards):
    described = json.loads((whole_run / "config.json").read_text())
    assert described["kind"] == "identity" and IdentityConfig.from_dict(described["config"]) == CONFIG
    assert described["metadata"] == {
        "size": 64, "people": 3, "samples_sha256": FaceDataset(shards, LANDMARKS).samples_sha256,
    }
    records = read_log(whole_run)
    assert [record["step"] for record in records if "loss" in record] == list(range(1, 9))
    validations = [record for record in records if "validation" in record]
    assert [record["step"] for record in validations] == [4, 8]
    assert all(record["validation"].keys() == {"verification_auc", "equal_error_percent"} for record in validations)
    assert (whole_run / "curves.png").is_file()


def test_validation_is_of_the_network_as_it_is_loaded(whole_run, shards):
    """On the crops of people held out, as they are."""
    dataset = FaceDataset(shards, LANDMARKS)
    held_out = IdentityTask(dataset, CONFIG, CPU).held_out
    image, landmarks = (torch.stack([dataset[index][key] for index in held_out]) for key in ("image", "landmarks"))
    people = np.unique([photo(dataset.sources[index]) for index in held_out], return_inverse=True)[1]
    found = verification(load_identity_network(whole_run)(face_crop(image / 255, landmarks)), people)
    logged = [record["validation"] for record in read_log(whole_run) if "validation" in record][-1]
    assert logged == pytest.approx(found, abs=1e-6)


def test_a_resumed_run_equals_one_never_stopped(shards, whole_run, tmp_path):
    with pytest.raises(PowerCut):
        train_identity(shards, tmp_path, CONFIG, device="cpu", on_log=cut_at(5))
    assert load_checkpoint(tmp_path, "identity")["step"] == 3
    torch.rand(17)  # the global generator has moved on since
    train_identity(shards, tmp_path, CONFIG, device="cpu", resume=True)
    assert same_tensors(load_checkpoint(tmp_path, "identity"), load_checkpoint(whole_run, "identity"))
    assert without_times(read_log(tmp_path)) == without_times(read_log(whole_run))


def test_a_run_that_cannot_go_on(shards, whole_run):
    with pytest.raises(ValueError, match="depth is 34, the run was started with 18"):
        train_identity(shards, whole_run, dataclasses.replace(CONFIG, depth=34), device="cpu", resume=True)
    with pytest.raises(ValueError, match="depth must be 18, 34, 50 or 100, got 20"):
        dataclasses.replace(CONFIG, depth=20)


def test_each_face_is_compared_with_its_own_person(shards, monkeypatch):
    """Over two epochs, whose batches are each of other samples."""
    task, asked = IdentityTask(FaceDataset(shards, LANDMARKS), CONFIG, CPU), []

    def loss(features, centres, people, margin, scale):
        asked.append((people.tolist(), len(centres), margin, scale))
        return features.sum() + centres.sum()

    monkeypatch.setattr("model.train_identity.arcface_loss", loss)
    images = {task.dataset[index]["image"].numpy().tobytes(): task.dataset.sources[index] for index in task.training}
    assert len(images) == 6
    who = {}
    for step, raw in enumerate(task.batches(0, 3)):
        task.step(raw, step)
        people, count, margin, scale = asked[-1]
        assert (count, margin, scale) == (3, 0.5, 64.0)
        for image, person in zip(raw["image"], people, strict=True):
            who.setdefault(person, set()).add(photo(images[image.numpy().tobytes()]))
    assert who.keys() == {0, 1, 2} and all(len(photos) == 1 for photos in who.values())
    assert len(set.union(*who.values())) == 3


def test_held_out_people_are_whole(shards):
    """So that there are pairs of one person; whatever number of samples is wanted."""
    task = IdentityTask(FaceDataset(shards, LANDMARKS), dataclasses.replace(CONFIG, validation_samples=2), CPU)
    names = [photo(task.dataset.sources[index]) for index in task.held_out]
    assert len(names) == 2 and len(set(names)) == 1 and task.held_out_people.tolist() == [0, 0]
    every = IdentityTask(task.dataset, CONFIG, CPU)
    assert len(every.held_out) == 4 and sorted([*every.training, *every.held_out]) == list(range(10))
    assert not {photo(task.dataset.sources[index]) for index in every.training} & set(names)
    none = IdentityTask(task.dataset, dataclasses.replace(CONFIG, validation_fraction=0.0), CPU)
    assert none.validate() == {} and len(none.training) == 10


def test_each_step_changes_its_crops_anew(shards):
    dataset = FaceDataset(shards, LANDMARKS)
    plain = dataclasses.replace(CONFIG, augmentation=NO_AUGMENTATION)
    raw = next(iter(IdentityTask(dataset, CONFIG, CPU).batches(0, 1)))
    assert raw.keys() == {"image", "landmarks"}  # nothing is read in vain

    def features(config, step, monkeypatch):
        seen = []
        task = IdentityTask(dataset, config, CPU)
        with monkeypatch.context() as patch:
            patch.setattr(task.network, "forward", lambda crops: seen.append(crops) or crops.new_zeros(
                len(crops), 512, requires_grad=True))
            task.step(raw, step)
        return seen[0]

    with pytest.MonkeyPatch.context() as monkeypatch:
        assert torch.equal(features(CONFIG, 0, monkeypatch), features(CONFIG, 0, monkeypatch))
        assert not torch.equal(features(CONFIG, 0, monkeypatch), features(CONFIG, 1, monkeypatch))
        assert torch.equal(features(plain, 0, monkeypatch), features(plain, 1, monkeypatch))


def test_the_same_names_in_two_builds(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "again")
    with pytest.raises(ValueError, match="nothing says whether TOY/TOY_0_0 is the same person in each; give one of"):
        train_identity([shards, tmp_path / "again"], tmp_path / "run", CONFIG, device="cpu")
    assert not (tmp_path / "run").exists()


def test_texture_shards_will_do(tmp_path):
    shards = write_toy_ftd(tmp_path / "shards", toy_model(), 6)
    train_identity(shards, tmp_path / "run", dataclasses.replace(CONFIG, steps=1, validation_fraction=0), device="cpu")
    assert load_identity_network(tmp_path / "run").width == CONFIG.width


def test_overfitting_two_people(tmp_path):
    """Each face is nearest to its own person's centre, by the network as it is loaded."""
    shards = write_toy_asmd(tmp_path / "shards", toy_model(), 4, size=64)
    config = dataclasses.replace(
        CONFIG, batch_size=4, width=1 / 16, steps=45, log_every=15, checkpoint_every=200, validate_every=200,
        validation_fraction=0, augmentation=NO_AUGMENTATION, learning_rate=2e-3,
    )
    task = IdentityTask(FaceDataset(shards, LANDMARKS), config, CPU)
    run_training(task, tmp_path / "run", config)
    losses = [record["loss"] for record in read_log(tmp_path / "run")]
    assert (np.diff(losses) < 0).all() and losses[-1] < 0.1 * losses[0], losses
    samples = [task.dataset[index] for index in range(4)]
    image, landmarks = (torch.stack([sample[key] for sample in samples]) for key in ("image", "landmarks"))
    features = load_identity_network(tmp_path / "run")(face_crop(image / 255, landmarks))
    cosines = F.normalize(features) @ F.normalize(load_checkpoint(tmp_path / "run", "identity")["networks"]["centres"][
        "weight"]).T
    assert cosines.argmax(1).tolist() == [0, 0, 1, 1]


def test_the_command(shards, whole_run, tmp_path):
    command = [
        "train", "identity", str(shards), "-o", str(tmp_path / "run"), "--steps", "8", "--width", "0.03125",
        "--batch-size", "4", "--seed", "3", "--validation-fraction", "0.4", "--validate-every", "4", "--log-every", "1",
        "--device", "cpu",
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    asked = tomllib.loads((tmp_path / "run" / "command.toml").read_text())["train"]["identity"]
    assert (asked["output"], asked["seed"], asked["steps"]) == (".", 3, 8) and "resume" not in asked
    assert "step 8  validation  verification_auc" in result.output
    assert result.output.endswith(f"wrote {tmp_path / 'run' / 'checkpoint.pt'}\n")
    ours, theirs = (load_checkpoint(folder, "identity") for folder in (tmp_path / "run", whole_run))
    assert same_tensors(ours["networks"], theirs["networks"])
    assert ours["config"] == {**theirs["config"], "checkpoint_every": 4}
    assert "augmentation" not in run_settings(augment=True, validate_every=1)  # the default is the config's own
    assert run_settings(augment=False, validate_every=1)["augmentation"] == NO_AUGMENTATION
    resumed = ["train", "identity", "--config", str(tmp_path / "run" / "command.toml"), "--resume", "--json"]
    result = CliRunner().invoke(main, resumed)
    assert json.loads(result.stdout) == {"checkpoint": str(tmp_path / "run" / "checkpoint.pt")}
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1 and "already holds a run; resume it" in again.output
