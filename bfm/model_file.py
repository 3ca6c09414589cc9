"""A face model in one compact file.

HDF5, one dataset an array field of `MorphableModel` and one attribute a text; float32 is kept exactly. A basis is
stored a mode a chunk. The same model gives the same bytes. A digest follows at the end (`bfm.seal`): HDF5, which can
hang on a damaged file, is not given one. Files of older versions have none.
"""

from __future__ import annotations

import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bfm.hdf5_file import DAMAGE, attributes_of, member, set_attribute
from bfm.morphable_model import MorphableModel
from bfm.seal import broken_seal, has_seal, seal

KIND = "dualface face model"
SCHEMA_VERSION = 1

_TEXTS = ("name", "layout", "coefficients", "licence")
_ARRAYS = tuple(field.name for field in fields(MorphableModel) if field.name not in _TEXTS)
_LIBVER = ("v110", "v110")  # fixed, for equal bytes; has checksums on metadata; every HDF5 since 2016 reads it
_DTYPES = (np.float32, np.int32, np.uint8)
_MOST_DEFLATED = 1032  # bytes that one can stand for


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
        with h5py.File(partial, "w", libver=_LIBVER) as file:
            texts = {key: getattr(model, key) for key in _TEXTS}
            for key, text in {"kind": KIND, "schema_version": SCHEMA_VERSION, "sha256": model.sha256, **texts}.items():
                set_attribute(file, key, text)
            for key in _ARRAYS:
                values = getattr(model, key)
                if values is not None:
                    # indices shrink to a third, smooth bases to two thirds; gzip's own checksum finds bit rot
                    filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
                    chunks = (1, *values.shape[1:]) if values.ndim == 3 else values.shape
                    file.create_dataset(
                        key, data=values, track_times=False, **({**filters, "chunks": chunks} if values.size else {})
                    )
        seal(partial)
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
    problem = broken_seal(path) if has_seal(path) else None
    if problem:
        raise ValueError(_damage(path, problem))
    try:
        with h5py.File(path, "r") as file:
            attributes = attributes_of(file)
            kind, version = attributes.get("kind"), attributes.get("schema_version")
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
            fields: dict[str, Any] = {key: _array(file, key) for key in _ARRAYS if key in file}
            return MorphableModel(**fields | {key: str(attributes[key]) for key in _TEXTS})
    except DAMAGE as error:
        raise ValueError(_damage(path, error)) from error


def _damage(path: Path, problem: Exception | str) -> str:
    """The sentence for a damaged file."""
    return f"{path} is damaged or cut short ({problem}); convert the model again"


def _array(file: h5py.File, key: str) -> np.ndarray:
    """An array that is whole in the file, looked at before memory is taken; OSError if it is not."""
    array = member(file, key)
    if not isinstance(array, h5py.Dataset) or array.dtype not in _DTYPES:
        raise OSError(f"{key} is no array of numbers as in a face model")
    stored = array.id.get_storage_size()
    if array.chunks:
        parts = math.prod(-(-length // step) for length, step in zip(array.shape, array.chunks))
        if array.id.get_num_chunks() != parts:
            raise OSError(f"{key} is stored with {array.id.get_num_chunks()} chunks instead of {parts}")
    if array.external or array.is_virtual or array.nbytes > _MOST_DEFLATED * stored:
        raise OSError(f"{key} has {array.nbytes} bytes, of which the file holds {stored}")
    return np.asarray(array)
