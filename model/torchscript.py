"""TorchScript archives: their tensors, without `torch.jit.load`, which runs any ``__setstate__`` that it finds there.

An archive is a zip file that holds, below one folder, ``data.pkl`` (the tree of modules, pickled) and
``data/<key>`` (the bytes of each tensor), beside the code, which is not looked at.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from model.untrusted import UNREADABLE, check_archive, check_tensors

_DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
_MOST_ATTRIBUTES = 100_000
"""Of all modules; FAN has 8,000. Modules that hold each other would have no end of them."""


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a whole zip archive with TorchScript's table of constants in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except UNREADABLE:
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
    check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            folder = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
            with archive.open(f"{folder}/data.pkl") as file:
                tensors = dict(_tensors(_Unpickler(file, archive, f"{folder}/data").load()))
    except UNREADABLE as error:
        reason = str(error).split("\n")[0][:120]
        raise ValueError(
            f"{path} must be a TorchScript archive of tensors, but it cannot be read as one ({reason}); "
            "it may be damaged, or of another program"
        ) from error
    check_tensors(tensors, path)
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


class _Module:
    """Stands for a module of any class; its attributes are the state."""


class _Unpickler(pickle._Unpickler):
    """Makes modules, tensors and plain containers, and refuses everything else.

    It is Python's own unpickler and not the one in C: that makes room for as many objects as a file says it has.
    """

    def __init__(self, file, archive: zipfile.ZipFile, folder: str):
        super().__init__(file)
        self.archive, self.folder, self.storages = archive, folder, {}
        # made anew for each file: a pickle can set attributes of the classes and functions that it is given
        self.known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
            **{("torch", name): dtype for name, dtype in _DTYPES.items()},
            **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "bool", "double", "tensor")},
        }
        self.module = type("_Module", (_Module,), {})

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] == "__torch__":
            return self.module
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a network's weights")
        return self.known[module, name]

    def persistent_load(self, description: tuple) -> torch.Tensor:
        _, dtype, key, _, count = description
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.folder}/{key}"))
            self.storages[key] = (
                torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]


class _Rebuild:
    """Makes tensors."""

    __slots__ = ()

    def __call__(self, storage: torch.Tensor, offset: int, shape: tuple, stride: tuple, *_) -> torch.Tensor:
        """Return the part of a storage that is this tensor, a view; beyond its end is an error."""
        return storage.as_strided(shape, stride, offset)


def _tensors(module: _Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names and tensors of a module and those within it."""
    waiting, count = [("", module)], 0
    while waiting:
        prefix, value = waiting.pop()
        count += 1
        if count > _MOST_ATTRIBUTES:
            raise ValueError("its modules hold each other")
        if isinstance(value, torch.Tensor):
            yield prefix.removesuffix("."), value
        elif isinstance(value, _Module):
            waiting.extend((f"{prefix}{name}.", part) for name, part in reversed(vars(value).items()))
