"""Trainings that are killed, or told to end, at lines of the trainer; see tests/e2e/test_train_kill.py.

Usage: killed_training.py FOLDER [TIMES]. A small run is killed at every line, and told to end at every line; runs of
real kinds are killed at random ones. TIMES: only these, each so often.
"""

import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import shared_training
import torch
from kill_harness import kill_at_every_line, kill_at_random, run_killed
from PIL import Image
from toy import toy_model
from toy_asmd import write_toy_asmd
from toy_ftd import write_toy_ftd
from training_runs import same_tensors, without_times

from asmgen.dataset_files import write_whole
from model import trainer
from model.checkpoint import CHECKPOINT_NAME, load_checkpoint
from model.config import RunConfig
from model.stopping import Stopped
from model.train_fusion import train_fusion
from model.train_geometry import train_geometry
from model.train_identity import train_identity
from model.train_landmarks import train_landmarks
from model.train_texture import train_texture
from model.trainer import Task, read_log, run_training

PROJECT = Path(__file__).parents[1]
FILES = [PROJECT / name for name in (
    "model/trainer.py", "model/checkpoint.py", "model/run_folder.py", "model/unlogged.py", "model/gradients.py",
    "model/stopping.py", "asmgen/dataset_files.py", "asmgen/folder_lock.py", "asmgen/writing.py",
)]
OF_TRAINER = [PROJECT / "model" / name for name in ("trainer.py", "run_folder.py")]
LINES = {"geometry": 2500, "texture": 2000, "identity": 2000, "landmarks": 2000, "fusion": 3500}
"""Of these files, about as many as a run of each real kind takes; its first checkpoint comes after a third at least."""
KILLS = {"geometry": 4, "texture": 2, "identity": 2, "landmarks": 2, "fusion": 2}


@dataclass(frozen=True)
class NoiseConfig(RunConfig):
    """Seven steps, logged, validated and saved out of step."""

    batch_size: int = 4
    log_every: int = 2
    checkpoint_every: int = 3
    validate_every: int = 5
    steps: int = 7


class Photos:
    """A dataset of ten people."""

    sources = [f"A/A_{person}" for person in range(10)]
    samples_sha256 = "ab"


class NoiseTask(Task):
    """A network that draws from the generator in each step and keeps statistics; it has all that a checkpoint holds."""

    kind, fine_tunes, note, metadata = "noise", True, "a note", {"table": torch.arange(3)}

    def __init__(self):
        super().__init__(Photos(), NoiseConfig(validation_fraction=0.2), torch.device("cpu"))
        network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout())
        self.networks, self.optimisers = {"noise": network}, {"adam": self.adam(network)}

    def batches(self, start, stop):
        for step in range(start, stop):
            yield {"x": torch.full((4, 2), float(step)) + torch.eye(4, 2)}

    def step(self, raw, step):
        loss = self.networks["noise"].train()(raw["x"]).square().mean()
        self.optimisers["adam"].zero_grad()
        loss.backward()
        self.optimisers["adam"].step()
        return {"loss": loss.detach()}

    def validate(self):
        return {"spread_mm": float(self.networks["noise"].eval()(torch.ones(1, 2)).sum().detach())}

    def pictures(self):
        values = self.networks["noise"].state_dict()["0.weight"].numpy()
        return Image.fromarray((np.abs(values) * 100).astype(np.uint8))


def picture_of_log(run_dir: Path):
    """In place of `draw_curves`, which takes longer than all the steps."""
    write_whole(run_dir / "curves.png", json.dumps(without_times(read_log(run_dir))).encode())


def train_noise(run: Path, resume: bool = True):
    """Train the network that draws."""
    task = NoiseTask()
    try:
        run_training(task, run, task.config, resume)
    except Stopped as stopped:
        assert f"{steps_saved(run)} steps of 7 are saved" in str(stopped)
        raise


def train(folder: Path, kind: str, run: Path, resume: bool = True):
    """Train a toy network of a real kind, saved after each step."""
    model, config = toy_model(), replace(getattr(shared_training, kind.upper()), checkpoint_every=1)
    if kind == "geometry":
        train_geometry(folder / "asmd", run, config, model, "cpu", resume=resume)
    elif kind == "texture":
        train_texture(folder / "ftd", run, config, model, "cpu", resume=resume)
    elif kind == "identity":
        train_identity(folder / "asmd", run, config, "cpu", resume=resume)
    elif kind == "landmarks":
        train_landmarks(folder / "asmd", run, config, "cpu", resume=resume)
    else:
        config = replace(config, lambda_identity=0.0, lambda_alignment=0.0)
        given = {name: folder / "whole" / name for name in ("geometry", "texture")}
        train_fusion(folder / "ftd", run, config, model, "cpu", resume=resume, **given)


def steps_saved(run: Path) -> int:
    """How many steps the checkpoint of a small run holds."""
    return load_checkpoint(run, "noise")["step"] if (run / CHECKPOINT_NAME).exists() else 0


def assert_same_run(ours: Path, theirs: Path, kind: str):
    """Every file of two runs is the same, but for the times in their logs."""
    files, wanted = (
        {str(path.relative_to(run)): path for path in run.rglob("*") if path.is_file()} for run in (ours, theirs)
    )
    assert files.keys() == wanted.keys(), (files.keys(), wanted.keys())
    assert same_tensors(load_checkpoint(ours, kind), load_checkpoint(theirs, kind))
    assert without_times(read_log(ours)) == without_times(read_log(theirs))
    for name in files.keys() - {"checkpoint.pt", "log.jsonl"}:
        assert files[name].read_bytes() == wanted[name].read_bytes(), name


class Ended(Exception):
    """SIGTERM came where nothing listens for it yet, or any more."""


def _end(*_):
    raise Ended


def told_at_every_line(program, begin, end) -> int:
    """As `kill_at_every_line`, with SIGTERM and in this process; return how often a run stopped for it."""
    names, tried, stopped = {str(path) for path in FILES if path.parent.name == "model"}, set(), 0
    signal.signal(signal.SIGTERM, _end)

    def in_frame(frame, event, argument):
        line = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and line not in tried:
            tried.add(line)
            sys.settrace(None)
            os.kill(os.getpid(), signal.SIGTERM)
        return in_frame

    while True:
        begin()
        before = len(tried)
        while True:
            known = len(tried)
            sys.settrace(lambda frame, event, argument: in_frame if frame.f_code.co_filename in names else None)
            with suppress(Ended):
                try:
                    program()
                except Stopped:
                    stopped += 1
            sys.settrace(None)
            if len(tried) == known:
                break
        end()
        if len(tried) == before:
            return stopped


def main(folder: Path, times: int | None = None):
    """Kill in all ways, or `times` at random; tell of each how many kills there were, how many runs came to their ends,
    and how many went on from a checkpoint."""
    torch.set_num_threads(1)
    trainer.draw_curves = picture_of_log
    write_toy_asmd(folder / "asmd", toy_model(), 12, shared_training.SIZE)
    write_toy_ftd(folder / "ftd", toy_model(), 12, shared_training.SIZE)
    run, begun, found = folder / "run", folder / "begun", {}

    def kill_all(way: str, kind: str, program, kill, start: Path | None = None):
        train_it, whole, ends, resumed = program, folder / "whole" / kind, 0, folder / f"resumed-{way}"
        if not whole.exists():
            train_it(whole, resume=False)

        def begin():
            shutil.rmtree(run, ignore_errors=True)
            if start:
                shutil.copytree(start, run)

        def end():
            nonlocal ends
            assert_same_run(run, whole, kind)
            ends += 1

        def go_on():
            if (run / CHECKPOINT_NAME).exists():
                with open(resumed, "a") as told:
                    told.write("1")
            train_it(run)

        kills = kill(go_on, begin, end)
        found[way] = {"kills": kills, "ends": ends, "resumed": len(resumed.read_text()) if resumed.exists() else 0}

    if not times:
        kill_all("lines", "noise", train_noise, lambda *run: len(kill_at_every_line(run[0], FILES, *run[1:])))
        assert run_killed(partial(train_noise, begun), FILES, lambda line: steps_saved(begun) == 6)
        kill_all("last lines", "noise", train_noise, lambda *run: len(
            kill_at_every_line(run[0], OF_TRAINER, *run[1:])
        ), begun)
        kill_all("told", "noise", train_noise, told_at_every_line)
    for kind, kills in {kind: times or kills for kind, kills in KILLS.items()}.items():
        kill_all(kind, kind, partial(train, folder, kind), lambda program, *ends: kill_at_random(
            program, FILES, *ends, kills, LINES[kind]
        ) and kills)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
