"""The training loop that every stage of the network shares: batches, steps, log, validation, checkpoints.

A stage is a `Task`; its `step` may use any number of networks and optimisers. Under torchrun each process is given its
part of every batch, and the first one alone validates and writes. A run's folder holds ``config.json``,
``log.jsonl``, ``curves.png``, ``checkpoint.pt`` and, from a task that draws them, ``samples``.
"""

from __future__ import annotations

import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from model.checkpoint import CHECKPOINT_NAME, load_checkpoint, restore, save_checkpoint
from model.config import RunConfig
from model.data import FaceDataset, split_identities, training_loader, validation_batches
from model.distributed import average, check_batch_size, is_first, synchronise_

LOG_NAME = "log.jsonl"

DRAW_SECONDS = 60.0
"""The curves are drawn with a checkpoint, but not more often than this, and at the end."""


class Task(ABC):
    """What is trained: a stage adds its networks, its losses and what it measures.

    Parameters
    ----------
    dataset : FaceDataset
        Samples, of which some identities are held out.
    config : RunConfig
        Everything that changes the result.
    device : torch.device
        Where to train.
    workers : int
        Processes that decode images.

    Attributes
    ----------
    kind : str
        Name of the stage, such as ``geometry``.
    note : str
        What a reader of the log must know first; empty for nothing.
    networks : dict[str, nn.Module]
        Saved in checkpoints, on their device.
    optimisers : dict[str, torch.optim.Optimizer]
        Saved in checkpoints.
    metadata : dict
        What using the networks takes, plain values and tensors; must be the same when a run is resumed.
    fine_tunes : bool
        Whether the networks start trained, so that there is a validation before the first step.
    training, held_out : np.ndarray
        Indices of the samples to train on, and of those to validate on.
    memory_format : torch.memory_format
        For networks and images.
    """

    kind: str
    note = ""
    fine_tunes = False
    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]
    metadata: dict

    def __init__(self, dataset: FaceDataset, config: RunConfig, device: torch.device, workers: int = 0):
        self.dataset, self.config, self.device, self.workers = dataset, config, device, workers
        self.training, self.held_out = split_identities(
            dataset.sources, config.validation_fraction, config.seed, config.validation_samples
        )
        self.on_gpu = device.type == "cuda"
        use_channels_last = config.channels_last and self.on_gpu
        self.memory_format = torch.channels_last if use_channels_last else torch.contiguous_format
        torch.manual_seed(config.seed)  # for the initial weights

    def adam(self, network: nn.Module, **settings) -> torch.optim.Adam:
        """Return Adam for a network on the device, at the config's learning rate."""
        return torch.optim.Adam(network.parameters(), self.config.learning_rate, fused=self.on_gpu, **settings)

    def compiled(self, function: Callable) -> Callable:
        """Return a function or network as torch.compile makes it, on a GPU, if the config wants it; else as it is."""
        return torch.compile(function, dynamic=False) if self.config.compiled and self.on_gpu else function

    def autocast(self) -> torch.autocast:
        """Return the context in which convolutions are bfloat16, on a GPU, if the config wants it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.mixed_precision and self.on_gpu)

    def batches(self, start: int, stop: int) -> Iterable[dict[str, torch.Tensor]]:
        """Return this process's part of the raw batches of steps `start` to `stop`, which depend on the seed alone."""
        config = self.config
        return training_loader(
            self.dataset, self.training, config.batch_size, config.seed, start, stop, self.workers, self.device
        )

    @abstractmethod
    def step(self, raw: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Update the networks once and return the losses, detached scalars; the total is ``loss``."""

    def check(self, losses: dict[str, float]):
        """Raise FloatingPointError if the mean losses of a log line say that going on leads nowhere."""

    def errors(self, raw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return (B,) measures of a raw batch, not augmented, in full precision; names end in their unit."""
        raise NotImplementedError(f"{type(self).__name__} must have errors, or validate in another way")

    def validate(self) -> dict[str, float]:
        """Return the mean errors on the held-out identities, or what else is measured there; empty without them."""
        return self.evaluate(self.held_out)

    @torch.no_grad()
    def evaluate(self, indices: Sequence[int]) -> dict[str, float]:
        """Return the mean errors on the samples `indices`; empty for none."""
        errors = [self.errors(raw) for raw in validation_batches(self.dataset, indices, self.config.batch_size)]
        return {key: float(torch.cat([error[key] for error in errors]).mean()) for key in (errors[0] if errors else ())}

    def pictures(self) -> Image.Image | None:
        """Return a sheet of what the networks make of some samples, drawn with each validation; None for none."""
        return None


def run_training(
    task: Task, run_dir: Path, config: RunConfig, resume: bool = False, on_log: Callable[[dict], None] | None = None
) -> Path:
    """Train until the steps of the config are done.

    Parameters
    ----------
    task : Task
        What to train.
    run_dir : Path
        Folder of the run; made if need be.
    config : RunConfig
        Everything that changes the result.
    resume : bool
        Go on from the checkpoint in `run_dir`. On a CPU the result is bit for bit that of a run that was
        never stopped.
    on_log : Callable[[dict], None] | None
        Given each record as it is added to the log, in the first process.

    Returns
    -------
    Path
        The last checkpoint. Raised from within: FileExistsError if `run_dir` holds a run and `resume` is not set,
        FileNotFoundError if there is nothing to resume, ValueError if the run to resume had another config or other
        data, FloatingPointError if a loss is not finite.
    """
    run_dir = Path(run_dir)
    check_batch_size(config.batch_size)
    start = _resume(task, run_dir, config) if resume else _start(task, run_dir, config)
    synchronise_(task.networks.values(), task.optimisers.values())
    checkpoint, totals, since = run_dir / CHECKPOINT_NAME, {}, start
    clock = drawn = time.perf_counter()
    with open(run_dir / LOG_NAME if is_first() else os.devnull, "a", buffering=1, encoding="utf-8") as log:

        def record(entry: dict):
            log.write(json.dumps(entry) + "\n")
            if on_log and is_first():
                on_log(entry)

        def validate(done: int):
            if not is_first():
                return
            metrics = task.validate()
            if metrics:
                record({"step": done, "validation": metrics})
            save_sheet(task.pictures(), run_dir, done)

        if task.note and start == 0:
            record({"step": 0, "note": task.note})
        if task.fine_tunes and start == 0:
            validate(0)
            clock = time.perf_counter()
        for step, raw in enumerate(task.batches(start, config.steps), start):
            for key, value in task.step(raw, step).items():
                totals[key] = totals.get(key, 0) + value
            done = step + 1
            last = done == config.steps
            saving = last or done % config.checkpoint_every == 0
            if saving or done % config.log_every == 0:
                losses = _mean(totals, done - since, run_dir, since, done)
                seconds = time.perf_counter() - clock
                rate = (done - since) * config.batch_size / seconds
                record({"step": done, **losses, "images_per_second": round(rate, 2)})
                task.check(losses)
                totals, since, clock = {}, done, time.perf_counter()
            paused = time.perf_counter()
            if last or done % config.validate_every == 0:
                validate(done)
            if saving and is_first():
                save_checkpoint(
                    run_dir, task.kind, done, config.to_dict(), task.metadata, task.networks, task.optimisers
                )
                if last or time.perf_counter() - drawn > DRAW_SECONDS:
                    draw_curves(run_dir)
                    drawn = time.perf_counter()
            clock += time.perf_counter() - paused  # the rate is that of training alone
    return checkpoint


def _start(task: Task, run_dir: Path, config: RunConfig) -> int:
    """Make the folder of a new run and say in it what is run."""
    if (run_dir / CHECKPOINT_NAME).exists():
        raise FileExistsError(f"{run_dir} already holds a run; resume it, or choose another folder")
    if is_first():
        run_dir.mkdir(parents=True, exist_ok=True)
        _describe(task, run_dir, config, [])
    return 0


def _describe(task: Task, run_dir: Path, config: RunConfig, records: Sequence[dict]):
    """Write what is run, and the records of it that there are."""
    described = {"kind": task.kind, "config": config.to_dict(), "metadata": _plain(task.metadata)}
    (run_dir / "config.json").write_text(json_text(described), encoding="utf-8")
    (run_dir / LOG_NAME).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _resume(task: Task, run_dir: Path, config: RunConfig) -> int:
    """Put a task back to where its checkpoint was, drop what was logged after, and return the steps done."""
    state = load_checkpoint(run_dir, task.kind)
    difference = config.difference(state["config"])
    if difference:
        raise ValueError(f"{run_dir} cannot be resumed with this config: {difference}")
    for key, value in _plain(task.metadata).items():
        if state["metadata"].get(key) != value:
            raise ValueError(
                f"{run_dir} cannot be resumed with these data: {key} is {value}, "
                f"the run was started with {state['metadata'].get(key)}"
            )
    if state["step"] > config.steps:
        raise ValueError(f"{run_dir} has {state['step']} steps done, more than the {config.steps} wanted")
    step = restore(state, task.networks, task.optimisers)
    if is_first():  # the config may be longer now
        _describe(task, run_dir, config, [entry for entry in read_log(run_dir) if entry["step"] <= step])
    return step


def save_sheet(sheet: Image.Image | None, run_dir: Path, done: int):
    """Save a task's pictures, if there are any, in its run's folder, named by the steps done."""
    if sheet is not None:
        folder = run_dir / "samples"
        folder.mkdir(exist_ok=True)
        sheet.save(folder / f"step-{done:06d}.png")


def _plain(metadata: dict) -> dict:
    return {key: value for key, value in metadata.items() if not isinstance(value, torch.Tensor)}


def _mean(totals: dict, count: int, run_dir: Path, since: int, done: int) -> dict[str, float]:
    """The mean losses since the last log line, over all processes; a loss that is not finite ends the run."""
    means = average(torch.stack(list(totals.values()))).tolist()  # the one wait for the device
    losses = {key: mean / count for key, mean in zip(totals, means)}
    for key, value in losses.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{key} is {value} between steps {since} and {done}; lower the learning rate, or look for damaged "
                f"samples with `dualface verify`; the checkpoint in {run_dir}, if there is one, is from before that"
            )
    return losses


def json_text(described: dict) -> str:
    """Return JSON that every reader takes: infinity, for which JSON has no number, is null (`RunConfig.from_dict`)."""
    def strict(value: object) -> object:
        if isinstance(value, dict):
            return {key: strict(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [strict(part) for part in value]
        return None if value == math.inf else value

    return json.dumps(strict(described), indent=2, allow_nan=False) + "\n"


def read_log(run_dir: Path) -> list[dict]:
    """Return the records of a run: losses (``step`` and their names), ``validation`` and ``note``, each with a step."""
    lines = (Path(run_dir) / LOG_NAME).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # a power cut may leave the last line half written


def draw_curves(run_dir: Path) -> Path:
    """Draw the losses and the validation metrics of a run over its steps.

    Parameters
    ----------
    run_dir : Path
        Folder of a run.

    Returns
    -------
    Path
        ``curves.png`` in it.
    """
    from matplotlib.figure import Figure  # a figure without pyplot needs no display and changes no global

    records = [record for record in read_log(run_dir) if "note" not in record]
    train = [record for record in records if "validation" not in record]
    panels = {"losses": [{k: v for k, v in record.items() if "_" not in k} for record in train]}  # they have no unit
    measured = [{**record, **record.get("validation", {})} for record in records]
    for unit in sorted({key.rpartition("_")[2] for record in measured for key in record if "_" in key} - {"second"}):
        panels[unit] = [{k: v for k, v in r.items() if k == "step" or k.endswith(f"_{unit}")} for r in measured]
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for axes, (title, entries) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for key in dict.fromkeys(key for entry in entries for key in entry if key != "step"):
            points = [(entry["step"], entry[key]) for entry in entries if key in entry]
            axes.plot(*zip(*points), label=key.removesuffix(f"_{title}"), marker="." if len(points) < 30 else None)
        if title == "losses":
            axes.set_yscale("log")
        else:
            axes.update_datalim([(axes.lines[0].get_xdata()[0], 0)])  # so that constant curves keep off the frame
            axes.autoscale_view()
            axes.set_ylim(bottom=0)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    path = Path(run_dir) / "curves.png"
    figure.savefig(path, dpi=100)
    return path
