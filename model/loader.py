"""Batches of samples, decoded ahead by worker processes; what goes wrong in one of these is told in one sentence."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from model.data import IMAGE_FIELDS, FaceDataset, batch_indices
from model.distributed import own_part
from model.packed_batch import PackedBatch


def training_loader(
    dataset: FaceDataset, indices: np.ndarray, batch_size: int, seed: int, start: int, stop: int, workers: int = 0,
    device: torch.device = torch.device("cpu"),
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the collated batches of steps `start` to `stop`, in order; of each this process's part.

    Parameters
    ----------
    dataset : FaceDataset
        Samples.
    indices : np.ndarray
        (N,) which samples to train on.
    batch_size : int
        Samples a step, of all processes.
    seed : int
        Of the run.
    start : int
        First step.
    stop : int
        The step after the last.
    workers : int
        Processes that decode; 0 decodes in this one. The batches are the same.
    device : torch.device
        Where they are wanted; they are copied to a GPU while it computes what was asked of it before.

    Yields
    ------
    dict[str, torch.Tensor]
        As of `FaceDataset.batch`.

    Raises
    ------
    ValueError
        If a sample is damaged; it is named.
    ChildProcessError
        If a worker is killed; the sample it was at is named.
    RuntimeError
        If PyTorch's loader fails otherwise.
    """
    on_gpu = device.type == "cuda"
    stream = torch.cuda.Stream(device) if on_gpu else None
    progress = torch.full((workers, 2), -1).share_memory_()
    loader = DataLoader(
        _Decoder(dataset, progress), batch_sampler=_StepBatches(indices, batch_size, seed, start, stop),
        num_workers=workers, pin_memory=on_gpu, collate_fn=_as_it_is,
        # its own generator: the loader must not draw from the global one, whose state a checkpoint restores
        generator=torch.Generator(),
        # never fork: this process may hold threads and open files
        multiprocessing_context="spawn" if workers else None, worker_init_fn=_begin,
    )
    batches, processes = _started(loader)
    while True:
        try:
            packed = next(batches, None)
        except RuntimeError as error:
            for process in filter(lambda process: process.exitcode, processes):
                raise ChildProcessError(_loss(dataset, progress, process)) from error
            raise
        if packed is None:
            return
        if isinstance(packed, _Damaged):
            raise ValueError(packed.reason)
        yield packed.on(device, stream).fields()


class _StepBatches:
    """Batch sampler of a `DataLoader`: the indices of steps `start` to `stop`, this process's part of each."""

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int, start: int, stop: int):
        self.indices, self.batch_size, self.seed, self.steps = indices, batch_size, seed, range(start, stop)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            places = batch_indices(step, len(self.indices), self.batch_size, self.seed)
            yield self.indices[own_part(places)].tolist()


@dataclass(frozen=True)
class _Damaged:
    """What a worker gives in place of a batch with a sample that cannot be read; an error would come as a traceback."""

    reason: str


class _Decoder(Dataset):
    """The samples of a dataset; a worker leaves in its row of (workers, 2) `progress` its process and its sample."""

    def __init__(self, dataset: FaceDataset, progress: torch.Tensor):
        self.dataset, self.progress = dataset, progress

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> PackedBatch | _Damaged:  # as a `DataLoader` asks for a batch
        worker = get_worker_info()
        mine = np.zeros(2) if worker is None else self.progress[worker.id].numpy()
        mine[0], samples = os.getpid(), []
        try:
            for index in indices:
                mine[1] = index
                samples.append(self.dataset.sample(index))
        except ValueError as error:
            return _Damaged(str(error))
        mine[1] = -1
        return PackedBatch.of(samples, IMAGE_FIELDS)


def _as_it_is(batch: PackedBatch) -> PackedBatch:
    return batch


def _begin(worker: int):
    """Let this worker end without taking the interpreter down, and only when the trainer does.

    Taking it down would abort it, loudly, where a thread is still sending a batch: as when the trainer stops before
    the last one. What asks a trainer to stop is often sent to all its processes; it still needs the batch made here.
    """
    atexit.register(os._exit, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _started(loader: DataLoader) -> tuple[Iterator[PackedBatch | _Damaged], list[BaseProcess]]:
    """Return the batches of a loader, and its processes.

    PyTorch would raise the loss of one wherever the trainer is then; without its handler it does where a batch is
    waited for, within 5 seconds.
    """
    others = set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    batches = iter(loader)
    if handler is not None and signal.getsignal(signal.SIGCHLD) is not handler:
        signal.signal(signal.SIGCHLD, handler)
    return batches, [process for process in multiprocessing.active_children() if process not in others]


def _loss(dataset: FaceDataset, progress: torch.Tensor, process: BaseProcess) -> str:
    """Say which process was lost, how, and at which sample."""
    at = dict(progress.tolist()).get(process.pid, -1)
    how = f"was killed by signal {-process.exitcode}" if process.exitcode < 0 else f"ended with {process.exitcode}"
    where = "between two batches" if at < 0 else f"at {dataset.name_of(at)}"
    return (
        f"a process that decodes photos {how} {where}; "
        "if memory ran out, take fewer (--workers); then go on with --resume"
    )
