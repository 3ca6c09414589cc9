"""Files of weights that others made: how much memory they may ask for."""

from __future__ import annotations

import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch

UNREADABLE = (
    OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError, TypeError, AssertionError,
    AttributeError, OverflowError, MemoryError, struct.error, zlib.error, tarfile.TarError, zipfile.BadZipFile,
    StopIteration,
)
"""What PyTorch, zipfile and pickle raise for files that are none of theirs, or damaged."""

TIMES = 4
"""How many times as large as a file that which is in it may be: layers may share weights, TorchScript packs code."""

LEAST_READ, LEAST_BUILT = 2**26, 2**30
"""Bytes that are none too many, however small the file: to be read, and for networks to be built of them."""


def check_archive(path: Path):
    """Check that a file, if it is a zip archive, is about as large as what is in it.

    Parameters
    ----------
    path : Path
        Of `torch.save` or TorchScript, which do not compress tensors.

    Raises
    ------
    ValueError
        If what is in it is much larger, and so takes more memory than it looks.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = sum(entry.file_size for entry in archive.infolist())
    except UNREADABLE:
        held = 0  # what reads it says what it makes of it
    size = path.stat().st_size
    if held > TIMES * size + LEAST_READ:
        raise ValueError(
            f"{path} must hold tensors uncompressed, as PyTorch writes them, but has {held} bytes in a file of {size}; "
            "get it from a source that can be trusted"
        )


def check_tensors(state: object, path: Path):
    """Check that the tensors of a file are not much larger than it: one number may be repeated without end.

    Parameters
    ----------
    state : object
        Containers of tensors.
    path : Path
        The file they were read from.

    Raises
    ------
    ValueError
        If copies of them would be.
    """
    size, most = 0, TIMES * path.stat().st_size + LEAST_BUILT
    for tensor in _tensors(state):
        size += tensor.numel() * tensor.element_size()
        if size > most:
            raise ValueError(
                f"{path} must hold the numbers of its tensors, but one of shape {tuple(tensor.shape)} has more than "
                "there are; get it from a source that can be trusted"
            )


def _tensors(state: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested containers; a container that is there many times is looked into once."""
    seen, waiting = set(), [state]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
