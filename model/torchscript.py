"""TorchScript archives: their tensors, without `torch.jit.load`, which runs any ``__setstate__`` that it finds there.

An archive is a zip file that holds, below one folder, ``data.pkl`` (the tree of modules, pickled) and
``data/<key>`` (the bytes of each tensor), beside the code, which is not looked at.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from pathlib import Path

import torch

_DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a whole zip archive with TorchScript's table of constants in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def load_torchscript_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the parameters and buffers of a TorchScript module, onto the CPU, running nothing in the file.

    Parameters
    ----------
    path : Path
        The archive.

    Returns
    -------
    dict[str, torch.Tensor]
        By dotted name, as in the module's state dict.

    Raises
    ------
    ValueError
        If the archive is damaged or holds more than modules, tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            folder = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
            with archive.open(f"{folder}/data.pkl") as file:
                return dict(_tensors(_Unpickler(file, archive, f"{folder}/data").load()))
    except (zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError, IndexError, TypeError, EOFError,
            AttributeError, RuntimeError, OverflowError, MemoryError, NotImplementedError) as error:
        reason = str(error).split("\n")[0][:120]
        raise ValueError(
            f"{path} must be a TorchScript archive of tensors, but it cannot be read as one ({reason}); "
            "it may be damaged, or of another program"
        ) from error


class _Module:
    """Stands for a module of any class; its attributes are the state."""


class _Unpickler(pickle.Unpickler):
    """Makes `_Module`, tensors and plain containers, and refuses everything else."""

    def __init__(self, file, archive: zipfile.ZipFile, folder: str):
        super().__init__(file)
        self.archive, self.folder, self.storages = archive, folder, {}

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "bool", "double", "tensor")},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a network's weights")
        return known[module, name]

    def persistent_load(self, description: tuple) -> torch.Tensor:
        _, dtype, key, _, count = description
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.folder}/{key}"))
            self.storages[key] = (
                torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]


def _tensor(storage: torch.Tensor, offset: int, shape: tuple, stride: tuple, *_) -> torch.Tensor:
    """Return the part of a storage that is this tensor; beyond its end is an error."""
    return storage.as_strided(shape, stride, offset).clone(memory_format=torch.contiguous_format)


def _tensors(module: _Module, prefix: str = ""):
    """Yield the names and tensors of a module and those within it."""
    for name, value in vars(module).items() if isinstance(module, _Module) else ():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        else:
            yield from _tensors(value, f"{prefix}{name}.")
