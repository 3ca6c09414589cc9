"""Checkpoints: one file that holds everything a run needs to go on, and a network needs to be used.

Plain containers and tensors only, so that `torch.load(weights_only=True)` reads it and nothing in it can run; a digest
at the end (`bfm.seal`).
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from asmgen.writing import sync, writing
from bfm.seal import broken_seal, has_seal, seal
from model.untrusted import UNREADABLE, check_archive, check_tensors

FORMAT = "dualface checkpoint"
VERSION = 1
CHECKPOINT_NAME = "checkpoint.pt"
FAILURE_NAME = "not_finite.pt"
_PARTS = {"step": int, **dict.fromkeys(("config", "metadata", "networks", "optimisers", "rng"), dict)}


def save_checkpoint(
    run_dir: Path, kind: str, step: int, config: dict, metadata: dict,
    networks: dict[str, nn.Module], optimisers: dict[str, torch.optim.Optimizer], *,
    unlogged: Sequence[dict[str, float]] = (), failure: dict | None = None,
) -> Path:
    """Write the checkpoint of a run, replacing the last one only once it is whole.

    Parameters
    ----------
    run_dir : Path
        Folder of the run; it exists.
    kind : str
        What is trained, such as ``geometry``.
    step : int
        Steps done.
    config : dict
        Of the run, plain values.
    metadata : dict
        What using the networks takes, plain values and tensors.
    networks : dict[str, nn.Module]
        By name.
    optimisers : dict[str, torch.optim.Optimizer]
        By name.
    unlogged : Sequence[dict[str, float]]
        Losses of the last steps, which are no part of the log yet.
    failure : dict | None
        What went wrong in the step that follows, plain values and tensors; the file is then `FAILURE_NAME`, and the
        run's own stays.

    Returns
    -------
    Path
        The file. A full disk is the OSError of `writing`.
    """
    path = Path(run_dir) / (FAILURE_NAME if failure else CHECKPOINT_NAME)
    partial = path.with_name(path.name + ".partial")
    state = {
        "format": FORMAT, "version": VERSION, "kind": kind, "step": step,
        "config": config, "metadata": metadata,
        "networks": {key: network.state_dict() for key, network in networks.items()},
        "optimisers": {key: optimiser.state_dict() for key, optimiser in optimisers.items()},
        "rng": {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        },
        "unlogged": list(unlogged), **({"failure": failure} if failure else {}),
    }
    with writing(path):
        with _whole(partial) as file:
            torch.save(state, file)
            file.flush()
            seal(partial)
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync(path.parent)
    return path


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written, which goes where that fails; PyTorch hides the system's error behind its own."""
    try:
        with open(path, "wb") as file:
            yield file
    except (OSError, RuntimeError) as error:
        path.unlink(missing_ok=True)
        raise error.__context__ if isinstance(error.__context__, OSError) else error


def load_checkpoint(path: Path, *kinds: str) -> dict:
    """Read a checkpoint, onto the CPU.

    Parameters
    ----------
    path : Path
        The file, or the folder of its run.
    *kinds : str
        What it must hold one of, such as ``geometry``.

    Returns
    -------
    dict
        What `save_checkpoint` was given; networks and optimisers as state dicts. A file that is damaged, or no
        checkpoint of these kinds, is a ValueError of `load_tensors` or `checked_state`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    path = Path(path)
    path = path / CHECKPOINT_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the folder of a training run, or its {CHECKPOINT_NAME}")
    return checked_state(load_tensors(path), path, *kinds)


def checked_state(state: object, path: Path, *kinds: str) -> dict:
    """Return what was read from a file, after checking that it is a checkpoint.

    Parameters
    ----------
    state : object
        From `load_tensors`.
    path : Path
        The file, for the message.
    *kinds : str
        What it must hold one of.

    Returns
    -------
    dict
        The state.

    Raises
    ------
    ValueError
        If it is no checkpoint of these kinds.
    """
    state = state if isinstance(state, dict) else {}
    form, version, found = (state.get(key) for key in ("format", "version", "kind"))
    is_ours = form == FORMAT and isinstance(version, int) and isinstance(found, str)
    if not is_ours or version != VERSION or found not in kinds:
        got = f"version {version}, of kind '{found[:40]}'" if is_ours else "another file"
        wanted, runs = (" or ".join(text.format(kind) for kind in kinds) for text in ("'{}'", "`dualface train {}`"))
        raise ValueError(
            f"{path} must be a {FORMAT}, version {VERSION}, of kind {wanted}, got {got}; give a run of {runs}"
        )
    for key, kind in _PARTS.items():
        if not isinstance(state.get(key), kind):
            raise ValueError(
                f"{path} must have {key} as {kind.__name__}, got {type(state.get(key)).__name__}; it is damaged"
            )
    return state


def load_tensors(path: Path) -> object:
    """Read a file of tensors written by `torch.save`, onto the CPU, running none of what may be in it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    object
        Containers of tensors.

    Raises
    ------
    ValueError
        If the file is damaged or holds more than tensors and plain values, or more of them than it has room for.
    """
    problem = broken_seal(path) if has_seal(path) else None  # PyTorch passes over it, and over checksums of its own
    if problem:
        raise ValueError(f"{path} is damaged ({problem}); take a copy of it, or train again")
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how it was pickled
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0].split(". ")[0][:120]
        raise ValueError(
            f"{path} must be a PyTorch file of tensors (.pt, .pth), but it cannot be read as one ({reason}); "
            "it may be damaged, or of another program"
        ) from error
    check_tensors(state, path)
    return state


def load_networks(state: dict, make: Callable[[], dict[str, nn.Module]]) -> dict[str, nn.Module]:
    """Build the networks of a loaded checkpoint and put its weights into them.

    They are built without memory first, so that a config that asks for more than there are weights for is refused
    before it gets any.

    Parameters
    ----------
    state : dict
        From `load_checkpoint`.
    make : Callable[[], dict[str, nn.Module]]
        Builds them as the config and the metadata in `state` say, by name.

    Returns
    -------
    dict[str, nn.Module]
        On the CPU. Those that do not fit are the ValueError of `load_weights`.

    Raises
    ------
    ValueError
        If the config is none that networks can be built by.
    """
    try:
        with torch.device("meta"):
            shapes = make()
    except (KeyError, TypeError, RuntimeError, OverflowError, AttributeError) as error:
        raise ValueError(
            f"the checkpoint's config must be one that networks can be built by ({str(error)[:120]}); it is damaged, "
            "or of another version of the program"
        ) from error
    load_weights(state, shapes, assign=True)
    networks = make()
    load_weights(state, networks)
    return networks


def load_weights(state: dict, networks: dict[str, nn.Module], assign: bool = False):
    """Put the weights of a loaded checkpoint into networks that were built as its config says.

    Parameters
    ----------
    state : dict
        From `load_checkpoint`.
    networks : dict[str, nn.Module]
        By name; changed in place.
    assign : bool
        Let networks without memory have the tensors of the checkpoint in place of copies.

    Raises
    ------
    ValueError
        If a network is missing, or its tensors do not fit.
    """
    for key, network in networks.items():
        try:
            weights = state["networks"][key]
            # a plain copy: PyTorch notes in what comes with the weights that they are to be assigned, for ever
            network.load_state_dict(dict(weights) if assign else weights, assign=assign)
        except (KeyError, RuntimeError, TypeError, AttributeError, ValueError) as error:
            reason = str(error).strip().split("\n")[-1].strip()[:160]
            raise ValueError(
                f"the checkpoint's network '{key}' must fit the checkpoint's own config, but does not ({reason}); it "
                "is damaged, or of another version of the program"
            ) from error


def load_published_network(make: Callable[[], nn.Module], state: dict, path: Path, name: str) -> nn.Module:
    """Build the network that a published file is of and put its weights into it; each must fit, and none be left over.

    Parameters
    ----------
    make : Callable[[], nn.Module]
        Builds it; first without memory, as in `load_networks`.
    state : dict
        From `published_state`.
    path : Path
        The file, for the message.
    name : str
        What it looks like, for the message.

    Returns
    -------
    nn.Module
        On the CPU, in evaluation mode, without gradients of its own.

    Raises
    ------
    ValueError
        If a tensor is missing, of another shape, or unknown.
    """
    with torch.device("meta"):
        wanted = make().state_dict()
    unused = {key for key in wanted if key.endswith(".num_batches_tracked")}  # in training too; older files have none
    for key in [*wanted, *state]:
        shapes = [
            tuple(tensors[key].shape) if isinstance(tensors.get(key), torch.Tensor) else "none"
            for tensors in (wanted, state)
        ]
        if shapes[0] != shapes[1] and key not in unused:
            raise ValueError(
                f"{path} looks like {name}, but its {key} must have shape {shapes[0]}, got {shapes[1]}; it is another "
                "network, or cut short"
            )
    network = make()
    network.load_state_dict({**network.state_dict(), **{key: state[key] for key in state if key not in unused}})
    return network.eval().requires_grad_(False)


def published_state(state: object, wrappers: tuple[str, ...] = ("state_dict",)) -> dict:
    """Return the state dict in what a published file holds: out of its `wrappers`, and without ``module.``; or {}."""
    state = state if isinstance(state, dict) else {}
    state = next((state[wrapper] for wrapper in wrappers if isinstance(state.get(wrapper), dict)), state)
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def restore(state: dict, networks: dict[str, nn.Module], optimisers: dict[str, torch.optim.Optimizer]) -> int:
    """Put everything in a loaded checkpoint back in its place and return the steps done."""
    load_weights(state, networks)
    for key, optimiser in optimisers.items():
        optimiser.load_state_dict(state["optimisers"][key])
    torch.set_rng_state(state["rng"]["cpu"])
    if torch.cuda.is_available() and len(state["rng"]["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["rng"]["cuda"])
    return state["step"]


def weights_sha256(network: nn.Module) -> str:
    """Return the hash of everything a network holds, by name: another one where a weight differs."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
