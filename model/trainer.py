"""The training loop that every stage of the network shares: batches, steps, log, validation, checkpoints.

A stage is a `Task`; its `step` may use any number of networks and optimisers. Under torchrun each process is given its
part of every batch, and the first one alone validates and writes. A run's folder holds ``config.json``,
``log.jsonl``, ``curves.png``, ``checkpoint.pt``, the card ``README.md`` and, from a task that draws them, ``samples``.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from asmgen.folder_lock import locked
from model.checkpoint import CHECKPOINT_NAME, FAILURE_NAME, load_checkpoint, restore, save_checkpoint
from model.config import RunConfig
from model.data import FaceDataset, batch_indices, split_identities, validation_batches
from model.distributed import check_batch_size, is_first, synchronise_
from model.gradients import GradientWatch
from model.loader import training_loader
from model.model_card import write_model_card
from model.run_folder import LOG_NAME, RunLog, describe_run, draw_curves, read_log, save_sheet
from model.stopping import Stopped, StopSignals
from model.unlogged import NotFinite, Unlogged

DRAW_SECONDS = 60.0
"""The curves are drawn with a checkpoint, but not more often than this, and at the end."""

NAMED = 4
"""Samples of a batch that are named in a message."""


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
    config: Any  # each stage knows its own kind

    def __init__(self, dataset: FaceDataset, config: RunConfig, device: torch.device, workers: int = 0):
        self.dataset, self.config, self.device, self.workers = dataset, config, device, workers
        self.training, self.held_out = split_identities(
            dataset.sources, config.validation_fraction, config.seed, config.validation_samples
        )
        self.on_gpu = device.type == "cuda"
        torch.backends.cudnn.benchmark = self.on_gpu  # batches are alike, so trying cuDNN's ways once pays
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
    task: Task, run_dir: Path, config: RunConfig, resume: bool = False, on_log: Callable[[dict], None] | None = None,
    progress: Callable[..., tqdm] | None = None,
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
        Go on from the checkpoint in `run_dir`, or start where there is none yet. On a CPU the result is bit for bit
        that of a run that was never stopped, wherever it was stopped or killed.
    on_log : Callable[[dict], None] | None
        Given each record as it is added to the log, in the first process.
    progress : Callable[..., tqdm] | None
        Makes the progress bar, of all steps, in the first process; called as tqdm is. None is no bar.

    Returns
    -------
    Path
        The last checkpoint. Raised from within: FileExistsError if `run_dir` holds a run and `resume` is not set,
        BlockingIOError if another process trains there, ValueError if the run to resume had another config or other
        data, a sample is damaged, or several processes cannot share a batch, `Stopped` if the process was told to end,
        ChildProcessError if a worker was killed, OSError if a file cannot be written.

    Raises
    ------
    FloatingPointError
        If a step is not finite (`save_failure`), or leads nowhere (`Task.check`).
    """
    run_dir = Path(run_dir)
    check_batch_size(config.batch_size)
    if is_first():
        run_dir.mkdir(parents=True, exist_ok=True)
    with locked(run_dir) if is_first() else nullcontext():
        try:
            _train(
                task, run_dir, config, resume, on_log if on_log and is_first() else lambda record: None,
                progress if progress and is_first() else partial(tqdm, disable=True),
            )
        except NotFinite as failure:
            raise FloatingPointError(save_failure(task, run_dir, failure)) from failure
    return run_dir / CHECKPOINT_NAME


def _train(
    task: Task, run_dir: Path, config: RunConfig, resume: bool, on_log: Callable[[dict], None],
    progress: Callable[..., tqdm],
):
    """`run_training`, once the folder is this run's own."""
    start, steps, validated = _resume(task, run_dir, config, on_log) if resume else _start(task, run_dir, config)
    synchronise_(task.networks.values(), task.optimisers.values())
    unlogged, saved = Unlogged(start - len(steps), steps), start
    drawn = time.perf_counter()
    with RunLog(run_dir / LOG_NAME if is_first() else Path(os.devnull)) as log, \
            GradientWatch(task.optimisers) as gradients, StopSignals() as stop, \
            progress(total=config.steps, initial=start, unit="step", desc=run_dir.name) as bar:

        def record(entry: dict):
            log.add(entry)
            on_log(entry)

        def save(done: int):
            nonlocal saved
            steps = unlogged.steps()
            if is_first():
                log.synchronise()
                save_checkpoint(
                    run_dir, task.kind, done, config.to_dict(), task.metadata, task.networks, task.optimisers,
                    unlogged=steps,
                )
                describe(done)
            saved = done

        def describe(done: int):
            write_model_card(run_dir, task.kind, done, config.steps, config.to_dict(), task.metadata)

        def end_if_told(done: int):
            if not stop.agreed():
                return
            if saved < done:
                save(done)
            stop.agreed()  # all wait for the first one to have saved: torchrun ends the others when one has ended
            raise Stopped(done, config.steps, stop.number)

        def validate(done: int):
            measured = stop.unless_told(lambda: (task.validate(), task.pictures())) if is_first() else None
            if measured:
                metrics, sheet = measured
                save_sheet(sheet, run_dir, done)  # first: a step that is in the log as validated is not drawn again
                if metrics:
                    record({"step": done, "validation": metrics})
            end_if_told(done)

        def is_measured(done: int) -> bool:
            return done == config.steps or (done % config.validate_every == 0 if done else task.fine_tunes)

        if task.note and start == 0:
            record({"step": 0, "note": task.note})
        if is_measured(start) and not validated:
            validate(start)
        timed, clock = start, time.perf_counter()
        for step, raw in enumerate(task.batches(start, config.steps), start):
            try:
                unlogged.add(task.step(raw, step) | gradients.taken_norms())
            except FloatingPointError as error:
                raise NotFinite(step, {}, str(error)) from error
            done = step + 1
            bar.update()
            saving = done == config.steps or done % config.checkpoint_every == 0
            if saving or done % config.log_every == 0 or gradients.broken:
                losses = unlogged.means()
                rate = (done - timed) * config.batch_size / (time.perf_counter() - clock)
                record({"step": done, **losses, "images_per_second": round(rate, 2)})
                task.check(losses)
                unlogged, timed, clock = Unlogged(done), done, time.perf_counter()
            paused = time.perf_counter()
            if saving:
                save(done)
            end_if_told(done)
            if is_measured(done):
                validate(done)
            if saving and is_first() and time.perf_counter() - drawn > DRAW_SECONDS:
                draw_curves(run_dir)
                drawn = time.perf_counter()
            clock += time.perf_counter() - paused  # the rate is that of training alone
    if is_first():
        describe(config.steps)
        draw_curves(run_dir)


def check_new(run_dir: Path):
    """Raise FileExistsError if a folder holds a run, which a new one must not replace."""
    if (run_dir / CHECKPOINT_NAME).exists():
        raise FileExistsError(f"{run_dir} already holds a run; resume it, or choose another folder")


def _start(task: Task, run_dir: Path, config: RunConfig) -> tuple[int, list[dict], bool]:
    """Say in the folder of a new run what is run; return what `_resume` does of a run of no steps."""
    check_new(run_dir)
    if is_first():
        _describe(task, run_dir, config, [])
    return 0, [], False


def _resume(
    task: Task, run_dir: Path, config: RunConfig, on_log: Callable[[dict], None]
) -> tuple[int, list[dict], bool]:
    """Put a task back to where its checkpoint was and drop what was logged after.

    Returns the steps done, the losses of the last of them that are not in the log, and whether the log holds the
    validation after the last.
    """
    if not (run_dir / CHECKPOINT_NAME).exists():
        on_log({"step": 0, "note": f"{run_dir} holds no checkpoint yet: the run starts at its first step"})
        return _start(task, run_dir, config)
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
    records = [entry for entry in read_log(run_dir) if entry["step"] <= step]
    if is_first():  # the config may be longer now
        _describe(task, run_dir, config, records)
    validated = any(entry["step"] == step and "validation" in entry for entry in records)
    return step, state.get("unlogged", []), validated  # checkpoints of before have none


def _describe(task: Task, run_dir: Path, config: RunConfig, records: Sequence[dict]):
    """Write what is run, and the records of it that there are."""
    described = {"kind": task.kind, "config": config.to_dict(), "metadata": _plain(task.metadata)}
    describe_run(run_dir, described, records)


def _plain(metadata: dict) -> dict:
    return {key: value for key, value in metadata.items() if not isinstance(value, torch.Tensor)}


def save_failure(task: Task, run_dir: Path, failure: NotFinite) -> str:
    """Save what a step that is not finite began with, and say in one sentence what happened.

    Parameters
    ----------
    task : Task
        Its weights are those before the step.
    run_dir : Path
        Folder of the run; `FAILURE_NAME` in it then holds, beside all of a checkpoint, ``failure``: the ``losses`` of
        the step, the names of its ``samples``, and their raw ``batch``, which `Task.step` takes again.
    failure : NotFinite
        Which step, and its losses.

    Returns
    -------
    str
        The message.
    """
    config, step = task.config, failure.step
    indices = task.training[batch_indices(step, len(task.training), config.batch_size, config.seed)]
    names = [task.dataset.name_of(index) for index in indices]
    kept = f"{run_dir / FAILURE_NAME} holds its batch and the networks before it"
    if is_first():
        batch = {key: value.clone() for key, value in task.dataset.batch(indices).items()}  # views of one block
        failed = {"losses": failure.losses, "samples": names, "batch": batch}
        networks = task.networks, task.optimisers
        try:
            save_checkpoint(run_dir, task.kind, step, config.to_dict(), task.metadata, *networks, failure=failed)
        except OSError as error:
            kept = str(error)
    losses = ", ".join(f"{key} {value:.4g}" for key, value in failure.losses.items())
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (
        f"step {step + 1} is not finite ({failure.reason or losses}) on {', '.join(names[:NAMED])}{rest}; {kept}, "
        f"{CHECKPOINT_NAME}, if there is one, is of an earlier step; look for damaged samples with `dualface verify`, "
        "or start again with a lower learning rate"
    )
