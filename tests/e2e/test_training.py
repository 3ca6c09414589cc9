import dataclasses
import errno
import json
import math
import os
import shutil

import h5py
import numpy as np
import pytest
import torch
from bars import Bars
from toy import toy_model
from toy_asmd import write_toy_asmd
from training_runs import PowerCut, cut_at, same_tensors, without_times

from asmgen.folder_lock import locked
from model.checkpoint import load_checkpoint, restore
from model.config import NO_AUGMENTATION, GeometryConfig
from model.data import FaceDataset, batch_indices
from model.train_geometry import GeometryTask, map_space, torch_device, train_geometry
from model.trainer import read_log, run_training

pytestmark = pytest.mark.usefixtures("without_curves")
CONFIG = GeometryConfig(
    seed=3, width=0.06, batch_size=4, parameter_steps=4, stream_steps=5, log_every=1, validate_every=4,
    checkpoint_every=3, validation_fraction=0.3, learning_rate=1e-3,
)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory):
    return write_toy_asmd(tmp_path_factory.mktemp("shards"), model, 12)


@pytest.fixture(scope="module")
def whole_run(model, shards, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train_geometry(shards, folder, CONFIG, model, device="cpu")
    return folder


def task_of(model, shards, config):
    dataset = FaceDataset(shards)
    face, maps = map_space(dataset.attributes, model, dataset.chart_uv)
    return GeometryTask(dataset, face, maps, config, torch.device("cpu"))


def test_two_phases(whole_run):
    records = [record for record in read_log(whole_run) if "validation" not in record]
    assert [record["step"] for record in records] == list(range(1, 10))
    for record in records[:4]:
        assert record.keys() == {"step", "parameters", "loss", "gradient_norm", "images_per_second"}
        assert record["loss"] == pytest.approx(0.5 * record["parameters"])
    for record in records[4:]:  # Eq. (8)
        maps = 100 * record["asm"] + 0.5 * record["symmetry"] + 0.01 * record["smoothness"]
        total = 0.5 * record["parameters"] + maps
        assert record["loss"] == pytest.approx(total, rel=1e-5)
    state = load_checkpoint(whole_run, "geometry")
    adam = state["optimisers"]["adam"]["state"]
    assert {int(entry["step"]) for entry in adam.values()} == {9, 5}  # encoder and PSN, decoders


def test_what_a_run_leaves(whole_run, model):
    assert sorted(path.name for path in whole_run.iterdir()) == [
        "README.md", "checkpoint.pt", "config.json", "curves.png", "log.jsonl"
    ]
    described = json.loads((whole_run / "config.json").read_text())
    assert GeometryConfig.from_dict(described["config"]) == CONFIG
    assert described["metadata"]["face_model_sha256"] == model.sha256
    validations = [record for record in read_log(whole_run) if "validation" in record]
    assert [record["step"] for record in validations] == [4, 8, 9]
    assert validations[0]["validation"].keys() == {
        "identity_mm", "expression_mm", "full_mm", "pose_degrees", "landmark_pixels", "albedo_stddevs"
    }


@pytest.mark.parametrize("stop", (3, 6))  # within each phase
def test_a_resumed_run_equals_one_never_stopped(model, shards, whole_run, tmp_path, stop):
    with pytest.raises(PowerCut):
        train_geometry(shards, tmp_path, CONFIG, model, device="cpu", on_log=cut_at(stop + 1))
    assert load_checkpoint(tmp_path, "geometry")["step"] == stop
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 5, "lo')  # the power went while this was written
    torch.rand(17)  # the global generator has moved on since
    bars = Bars()
    train_geometry(shards, tmp_path, CONFIG, model, device="cpu", resume=True, progress=bars)
    assert bars.counts() == [("step", stop, 9, 9)]  # over both phases
    ours, theirs = (load_checkpoint(folder, "geometry") for folder in (tmp_path, whole_run))
    assert same_tensors(ours, theirs)
    assert without_times(read_log(tmp_path)) == without_times(read_log(whole_run))


def test_other_processes_have_no_bar_and_no_log(model, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("model.trainer.is_first", lambda: False)
    config = dataclasses.replace(CONFIG, parameter_steps=1, stream_steps=0)
    train_geometry(shards, tmp_path, config, model, "cpu", on_log=pytest.fail, progress=pytest.fail)


def test_a_run_can_be_made_longer(model, shards, whole_run, tmp_path):
    train_geometry(shards, tmp_path, dataclasses.replace(CONFIG, stream_steps=2), model, device="cpu")
    train_geometry(shards, tmp_path, CONFIG, model, device="cpu", resume=True)
    ours, theirs = (load_checkpoint(folder, "geometry") for folder in (tmp_path, whole_run))
    assert same_tensors(ours["networks"], theirs["networks"])
    assert (tmp_path / "config.json").read_text() == (whole_run / "config.json").read_text()


def test_the_seed_gives_weights_order_and_augmentation(model, shards):
    tasks = [task_of(model, shards, dataclasses.replace(CONFIG, seed=seed)) for seed in (3, 3, 4)]
    tasks.append(task_of(model, shards, CONFIG))
    tasks[3].config = dataclasses.replace(CONFIG, seed=4)  # the weights of 3, the batches of 4
    raw = next(iter(tasks[0].batches(0, 1)))
    weights = [task.network.state_dict() for task in tasks]
    assert same_tensors(weights[0], weights[1]) and not same_tensors(weights[0], weights[2])
    assert not torch.equal(raw["pose"], next(iter(tasks[3].batches(0, 1)))["pose"])
    losses = [float(task.step(raw, 0)["loss"]) for task in (tasks[0], tasks[1], tasks[3])]
    assert losses[0] == losses[1] != losses[2]


def test_runs_that_cannot_go_on(model, shards, whole_run, tmp_path):
    with pytest.raises(FileExistsError, match="already holds a run; resume it, or choose another folder"):
        train_geometry(shards, whole_run, CONFIG, model, device="cpu")
    other = dataclasses.replace(CONFIG, tau=0.5)
    with pytest.raises(ValueError, match="tau is 0.5, the run was started with 0.05"):
        train_geometry(shards, whole_run, other, model, device="cpu", resume=True)
    fewer = dataclasses.replace(CONFIG, stream_steps=1)
    with pytest.raises(ValueError, match="has 9 steps done, more than the 5 wanted"):
        train_geometry(shards, whole_run, fewer, model, device="cpu", resume=True)
    more_samples = write_toy_asmd(tmp_path / "more", model, 14)
    with pytest.raises(ValueError, match="cannot be resumed with these data: samples_sha256"):
        train_geometry(more_samples, whole_run, CONFIG, model, device="cpu", resume=True)
    refitted = tmp_path / "refitted"
    shutil.copytree(shards, refitted)
    with h5py.File(next(refitted.iterdir()), "r+") as file:
        file["samples/pose"][2, 1] += np.float32(0.01)
    with pytest.raises(ValueError, match="cannot be resumed with these data: samples_sha256"):
        train_geometry(refitted, whole_run, CONFIG, model, device="cpu", resume=True)
    with pytest.raises(ValueError, match="the face model must be 'toy'"):
        train_geometry(shards, tmp_path, CONFIG, toy_model(seed=1), device="cpu")


def test_devices():
    assert torch_device("cpu") == torch.device("cpu")
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(ValueError, match=f"device must be one that works here, such as cpu, got '{name}'"):
            torch_device(name)


def test_validation_is_spread_over_the_held_out(model, shards):
    config = dataclasses.replace(CONFIG, validation_fraction=0.5)
    everything = task_of(model, shards, config).held_out
    few = task_of(model, shards, dataclasses.replace(config, validation_samples=2)).held_out
    assert len(everything) == 6 and few.tolist() == everything[[0, 3]].tolist()


def test_shards_on_another_chart_are_refused(model, shards):
    attributes, uv = FaceDataset(shards).attributes, FaceDataset(shards).chart_uv
    map_space(attributes, model, uv + np.float32(1e-6))
    with pytest.raises(ValueError, match="'cylindrical' chart must be that of the shards, it differs by 0.32 texels"):
        map_space(attributes, model, uv + np.float32(0.01))


class Spoiled(GeometryTask):
    """A task of which one step goes wrong: ``loss``, a ``part`` of the loss that has no gradient, or ``draw``."""

    spoils, at = "loss", 4

    def losses(self, batch, whole_stream):
        losses = super().losses(batch, whole_stream)
        if self.spoils == "loss" and self.now == self.at:
            losses["loss"] = losses["loss"] * torch.tensor(float("inf"))
        if self.spoils == "part" and self.now == self.at:
            losses["asm"] = torch.tensor(float("nan"))
        return losses

    def step(self, raw, step):
        self.now = step
        if self.spoils == "draw" and step == self.at:
            raise FloatingPointError("it cannot be drawn")
        return super().step(raw, step)


@pytest.mark.parametrize("spoils, said", (
    ("loss", r"step 5 is not finite \(parameters \d+.*, loss inf, asm .*, gradient_norm (nan|inf)\) on row "),
    ("part", r"step 5 is not finite \(parameters .*, asm nan, .*gradient_norm \d.*\) on row "),
    ("draw", r"step 5 is not finite \(it cannot be drawn\) on row "),
))
def test_a_step_that_is_not_finite_ends_the_run_and_can_be_done_again(model, shards, tmp_path, spoils, said):
    dataset = FaceDataset(shards)
    face, maps = map_space(dataset.attributes, model, dataset.chart_uv)
    config = dataclasses.replace(CONFIG, log_every=100, validate_every=100)

    def spoiled():
        task = Spoiled(dataset, face, maps, config, torch.device("cpu"))
        task.spoils = spoils
        return task

    with pytest.raises(FloatingPointError, match=said) as error:
        run_training(spoiled(), tmp_path, config)
    message = str(error.value)
    training, path = task_of(model, shards, config).training, dataset.builds[0].paths[0]
    for index in training[batch_indices(4, len(training), 4, config.seed)]:
        assert f"row {index} of {path} ({dataset.sources[index]})" in message
    assert "not_finite.pt holds its batch and the networks before it" in message and "\n" not in message
    assert load_checkpoint(tmp_path, "geometry")["step"] == 3  # the last good one
    with pytest.raises(PowerCut):  # what the networks were before
        train_geometry(shards, tmp_path / "good", dataclasses.replace(CONFIG, checkpoint_every=4), model, "cpu",
                       on_log=cut_at(5))
    good = load_checkpoint(tmp_path / "good", "geometry")
    bad = load_checkpoint(tmp_path / "not_finite.pt", "geometry")
    assert bad["step"] == good["step"] == 4
    if spoils != "part":  # of that nothing is known before the log is written
        parameters = dict(task_of(model, shards, config).network.named_parameters())
        for key in parameters:
            assert torch.equal(bad["networks"]["geometry"][key], good["networks"]["geometry"][key]), key
        assert same_tensors(bad["optimisers"], good["optimisers"])
    task = spoiled()
    restore(bad, task.networks, task.optimisers)
    if spoils == "draw":
        with pytest.raises(FloatingPointError, match="it cannot be drawn"):
            task.step(bad["failure"]["batch"], bad["step"])
    else:
        again = task.step(bad["failure"]["batch"], bad["step"])
        broken = [key for key, value in again.items() if not torch.isfinite(value)]
        assert broken == [key for key, value in bad["failure"]["losses"].items() if not math.isfinite(value)
                          and key != "gradient_norm"] != []


@pytest.mark.parametrize("file", ("checkpoint.pt", "log.jsonl"))
def test_a_run_goes_on_when_there_is_room_again(model, shards, whole_run, tmp_path, monkeypatch, file):
    saved, fsync = [], os.fsync

    def full(descriptor):
        """No room for the second checkpoint, or for the lines of the log before it."""
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        saved.append(name)
        if name in (file, f"{file}.partial") and saved.count(name) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("only Linux tells the names of open files")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"{file} cannot be written: No space left on device; mend that and run again"):
        train_geometry(shards, tmp_path, CONFIG, model, device="cpu")
    monkeypatch.undo()
    monkeypatch.setattr("model.trainer.draw_curves", lambda run_dir: None)
    assert load_checkpoint(tmp_path, "geometry")["step"] == 3
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["README.md", "checkpoint.pt", "config.json", "log.jsonl"]
    train_geometry(shards, tmp_path, CONFIG, model, device="cpu", resume=True)
    assert same_tensors(*(load_checkpoint(folder, "geometry") for folder in (tmp_path, whole_run)))
    assert without_times(read_log(tmp_path)) == without_times(read_log(whole_run))


def test_two_trainings_of_one_folder(model, shards, tmp_path):
    with locked(tmp_path):
        with pytest.raises(BlockingIOError, match="is being written by process .*; wait for its end, or choose"):
            train_geometry(shards, tmp_path, CONFIG, model, device="cpu")
        assert [path.name for path in tmp_path.iterdir()] == ["writer.lock"]


def test_a_run_may_be_resumed_before_it_has_a_checkpoint(model, shards, whole_run, tmp_path):
    told = []
    train_geometry(shards, tmp_path / "run", CONFIG, model, device="cpu", resume=True, on_log=told.append)
    assert told[0] == {
        "step": 0, "note": f"{tmp_path / 'run'} holds no checkpoint yet: the run starts at its first step"
    }
    ours, theirs = (load_checkpoint(folder, "geometry") for folder in (tmp_path / "run", whole_run))
    assert same_tensors(ours, theirs)
    assert without_times(read_log(tmp_path / "run")) == without_times(read_log(whole_run)) == without_times(told[1:])


def test_overfitting_three_faces(model, tmp_path):
    """The loss falls steadily and the faces come out."""
    flipped = model.id_basis[:, model.mirror] * np.float32([-1, 1, 1])
    model = dataclasses.replace(model, id_basis=(model.id_basis + flipped) / 2)  # what Eq. (6) assumes
    shards = write_toy_asmd(tmp_path / "shards", model, 3)
    config = dataclasses.replace(
        CONFIG, width=0.12, batch_size=3, parameter_steps=10, stream_steps=110, log_every=20, checkpoint_every=200,
        validate_every=200, validation_fraction=0, augmentation=NO_AUGMENTATION, learning_rate=2e-3,
        eta_r=0,  # neighbours on the toy's mesh are 9 mm apart: it is not smooth
    )
    task = task_of(model, shards, config)
    before = task.evaluate(np.arange(3))
    run_training(task, tmp_path / "run", config)
    after = task.evaluate(np.arange(3))
    # not the whole loss: that ends at the regularisation of the albedo, which does not vanish
    losses = [record["asm"] for record in read_log(tmp_path / "run") if "asm" in record]
    assert losses[1] < losses[0] / 2 and losses[2] < losses[1] / 2 and max(losses[3:]) < losses[0] / 10, losses
    assert before["identity_mm"] > 3 and before["expression_mm"] > 2  # the mean face
    assert after["identity_mm"] < 1.3 and after["expression_mm"] < 1 and after["full_mm"] < 1.6
