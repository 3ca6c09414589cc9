"""A face model in one compact file.

HDF5, one dataset an array field of `MorphableModel` and one attribute a text; float32 is kept exactly. A basis is
stored a mode a chunk. The same model gives the same bytes.
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bfm.morphable_model import MorphableModel

KIND = "dualface face model"
SCHEMA_VERSION = 1

_TEXTS = ("name", "layout", "coefficients", "licence")
_ARRAYS = tuple(field.name for field in fields(MorphableModel) if field.name not in _TEXTS)


def save_model(model: MorphableModel, path: Path) -> None:
    """Write a model; the file appears under its name only when it is whole.

    Parameters
    ----------
    model : MorphableModel
        Numpy arrays.
    path : Path
        Where to; a file of that name is replaced.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w", libver=("v108", "v108")) as file:
            file.attrs.update(kind=KIND, schema_version=SCHEMA_VERSION, sha256=model.sha256)
            file.attrs.update({key: getattr(model, key) for key in _TEXTS})
            for key in _ARRAYS:
                values = getattr(model, key)
                if values is not None:
                    # indices shrink to a third, smooth bases to two thirds; gzip's own checksum finds bit rot
                    filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
                    chunks = (1, *values.shape[1:]) if values.ndim == 3 else values.shape
                    file.create_dataset(
                        key, data=values, track_times=False, **({**filters, "chunks": chunks} if values.size else {})
                    )
        with open(partial, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_model(source: Path | str) -> MorphableModel:
    """Read a model that `save_model` wrote, or the open model.

    Parameters
    ----------
    source : Path | str
        A file, or "open" for the open face model that comes with the program.

    Returns
    -------
    MorphableModel
        Numpy arrays.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a face model of this program, or is damaged.
    """
    if str(source) == "open":
        from bfm.open_face import open_face_model

        return open_face_model()
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no face model file {path}; give a converted model, or 'open'")
    convert = "make one with `dualface face-model convert`"
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} must be a face model of this program (HDF5), and is not HDF5; {convert}")
    try:
        with h5py.File(path, "r") as file:
            kind, version = file.attrs.get("kind"), file.attrs.get("schema_version")
            if kind != KIND:
                raise ValueError(
                    f"{path} must be a face model of this program, and is "
                    f"{f'a {kind!r}' if kind else 'an HDF5 file of another kind'}; {convert}"
                )
            if version != SCHEMA_VERSION:
                raise ValueError(
                    f"{path} must have schema version {SCHEMA_VERSION}, got {version}; convert the model again"
                )
            missing = [key for key in _ARRAYS if key not in file and key != "uv"]
            if missing:
                raise ValueError(f"{path} must hold the array {missing[0]}, and does not; convert the model again")
            fields: dict[str, Any] = {key: np.asarray(file[key]) for key in _ARRAYS if key in file}
            return MorphableModel(**fields | {key: str(file.attrs[key]) for key in _TEXTS})
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); convert the model again") from error
