"""Training in several processes that torchrun started, each with a part of every batch.

A step of N processes is the step of one: each takes its part of the step's batch (`own_part`), batch normalisation
is over all parts (`GlobalBatchNorm`), and gradients are averaged before each optimiser's step (`synchronise_`). So
losses and checkpoints do not depend on N, but for rounding, and a run may be resumed by another number of processes.

Gradients are averaged after the backward pass, all of an optimiser's in one message, and not while it runs, as
`DistributedDataParallel` does: that wraps one network with one forward, and must be told of parameters that a phase
leaves out, of generators that are differentiated twice, and of networks that hold still for a while. Here whatever has
a gradient when its optimiser steps is averaged. The price is the time of one message a step, of 4 bytes a parameter.

One process is the same as none: every function then gives back what it was given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

TIMEOUT = timedelta(hours=1)
"""After which a process that waits for another gives up: longer than the first one alone validates."""

Batch = TypeVar("Batch")


@contextmanager
def training_processes(device: str | None = None) -> Iterator[None]:
    """Join the processes that torchrun started, if it did; on GPUs, ``cuda`` is then this process's own.

    Parameters
    ----------
    device : str | None
        Where to train, as `torch_device` takes it; None is the GPU if there is one.

    Yields
    ------
    None
        While the processes are joined. An error is raised without waiting for the others, which torchrun then ends.

    Raises
    ------
    ValueError
        If this machine has fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    on_gpu = trains_on_gpu(device)
    if on_gpu:
        place, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= count or device not in (None, "cuda"):
            raise ValueError(
                f"each process of torchrun trains on a GPU of its own, of which this machine has {count}, got process "
                f"{place} and device {device}; start at most {count}, and leave --device out, or give --device cpu"
            )
        torch.cuda.set_device(place)
    # gloo beside nccl, for what the processes agree on without waiting for their GPUs (`highest`)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    yield
    dist.destroy_process_group()


def trains_on_gpu(device: str | None) -> bool:
    """Return whether a device of this name, None for the GPU if there is one, is a GPU."""
    return torch.cuda.is_available() and not (device or "").startswith("cpu")


def process_count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this process is the one that logs, validates and saves."""
    return not dist.is_initialized() or dist.get_rank() == 0


def own_part(batch: Batch) -> Batch:
    """Return of a tensor, array or list over the samples of a step those that are this process's.

    Parameters
    ----------
    batch : Batch
        (B, ...), the same in all processes; B is a multiple of their number.

    Returns
    -------
    Batch
        (B / N, ...), a view of a tensor or array.
    """
    if not dist.is_initialized():
        return batch
    samples: Any = batch
    count = len(samples) // dist.get_world_size()
    return samples[dist.get_rank() * count:(dist.get_rank() + 1) * count]


def average(tensor: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over the processes, with a gradient.

    With losses that are means over each process's samples, and gradients that are averaged in the end, the gradient
    of this mean is again the mean of the processes' gradients.
    """
    return _average(tensor) if dist.is_initialized() else tensor


@torch.library.custom_op("dualface::average", mutates_args=(), schema="(Tensor tensor) -> Tensor")
def _average(tensor: torch.Tensor) -> torch.Tensor:
    """Exchange one message; opaque to torch.compile, which in PyTorch 2.11 loses some of those that it looks into."""
    mean = tensor.contiguous() / dist.get_world_size()
    dist.all_reduce(mean)
    return mean


_average.register_fake(lambda tensor: torch.empty_like(tensor, memory_format=torch.contiguous_format))
_average.register_autograd(lambda _, gradient: _average(gradient))


def highest(value: int) -> int:
    """Return the highest of the processes' values, once all have come here; no GPU is waited for."""
    if not dist.is_initialized():
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def roll_samples(batch: torch.Tensor) -> torch.Tensor:
    """Return (B, ...) samples, each in the place of the next one, the last in that of the first, over all processes."""
    if not dist.is_initialized():
        return batch.roll(1, 0)
    last = batch[-1].contiguous()
    lasts = [torch.empty_like(last) for _ in range(dist.get_world_size())]
    dist.all_gather(lasts, last)
    return torch.cat([lasts[dist.get_rank() - 1][None], batch[:-1]])


def check_batch_size(batch_size: int):
    """Raise ValueError if the samples of a step cannot be shared out evenly."""
    count = process_count()
    if batch_size % count:
        raise ValueError(
            f"the batch size must be a multiple of the {count} processes that share each batch, got {batch_size}"
        )


def synchronise_(networks: Iterable[nn.Module], optimisers: Iterable[torch.optim.Optimizer]):
    """Make networks start alike in all processes, normalise over whole batches, and be changed alike.

    Parameters
    ----------
    networks : Iterable[nn.Module]
        Of a task, trained or not; they take the weights of the first process.
    optimisers : Iterable[torch.optim.Optimizer]
        Theirs; from now on each averages the gradients over the processes before it steps.
    """
    if dist.is_initialized():
        for network in networks:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, 0)
            _normalise_globally_(network)
        for optimiser in optimisers:
            optimiser.register_step_pre_hook(_average_gradients_)


def _average_gradients_(optimiser: torch.optim.Optimizer, *_):
    """Replace the gradients that an optimiser is about to use by their mean over the processes."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joined = average(torch.cat([gradient.flatten() for gradient in gradients]))
    means = joined.split([gradient.numel() for gradient in gradients])
    for mean, gradient in zip(means, gradients):
        gradient.copy_(mean.view(gradient.shape))


def _normalise_globally_(module: nn.Module):
    """Replace each batch normalisation in a module by one over all processes, of the same tensors and names."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            norm = GlobalBatchNorm(child.num_features, child.eps, child.momentum).train(child.training)
            norm._parameters, norm._buffers = child._parameters, child._buffers
            setattr(module, name, norm)
        else:
            _normalise_globally_(child)


class GlobalBatchNorm(nn.SyncBatchNorm):
    """Batch normalisation by the mean and variance over the samples of all processes.

    PyTorch's own on a GPU, but where it is compiled, which PyTorch's cannot be, and on a CPU, for which it has none:
    there it is written out, for the compiler to fuse, and exchanges one message forward and one backward.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, C, ...) features, normalised; the running statistics follow in training."""
        if not self.training or features.is_cuda and not torch.compiler.is_compiling():
            return super().forward(features)
        over, shape = [0, *range(2, features.ndim)], (1, -1, *[1] * (features.ndim - 2))
        count = features.numel() // features.shape[1] * process_count()
        exact = features.to(self.weight.dtype)
        variance, mean = torch.var_mean(exact, over, correction=0)
        mean, square = average(torch.cat([mean, variance + mean.square()])).chunk(2)
        variance = square - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        gain = self.weight * torch.rsqrt(variance + self.eps)
        return (exact * gain.view(shape) + (self.bias - mean * gain).view(shape)).to(features.dtype)
