"""Making a dataset: its files are whole or absent, and the same bytes for the same contents and any workers."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from tqdm import tqdm

from asmgen.folder_lock import LOCK_FILE, locked
from asmgen.w300lp import UNFINISHED
from asmgen.workers import run_tasks, share, shared
from asmgen.writing import writing
from bfm.morphable_model import MorphableModel

JPEG_QUALITY = 95
_SCRATCH = ".scratch-"
_MAT_HEADER = b"MATLAB 5.0 MAT-file, a dualface annotation".ljust(116)


def check_numbers(**wanted: tuple[float, float]) -> None:
    """Raise ValueError if one of some numbers, given as ``name=(value, least)``, is less."""
    for name, (value, least) in wanted.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


@contextmanager
def new_dataset(path: Path, *settings: object) -> Iterator[Path]:
    """Hold a folder while a dataset is made in it. One that was stopped is made once more, in its place.

    Parameters
    ----------
    path : Path
        Empty, or what a stopped run with the same settings left; made if it is not there.
    *settings : object
        Numbers and texts that decide the files.

    Yields
    ------
    Path
        The folder; until the end it holds a file that says that it is not finished (`asmgen.w300lp.UNFINISHED`).

    Raises
    ------
    FileExistsError
        If it holds anything else. BlockingIOError if another process makes a dataset there.
    """
    path, told = Path(path), repr(settings)
    unfinished = path / UNFINISHED
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        found = {file.name for file in path.iterdir()} - {LOCK_FILE, f"{UNFINISHED}.partial"}
        if found and not (unfinished.exists() and unfinished.read_text() == told):
            raise FileExistsError(f"{path} already holds files; choose an empty folder")
        for left in path.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)
        write_whole(unfinished, told.encode())
        yield path
        unfinished.unlink()


def run_on_model(
    write: Callable, out_dir: Path, model: MorphableModel, tasks: Sequence[tuple], jobs: int,
    progress: Callable[..., tqdm], unit: str, sizes: Sequence[int] | None = None,
) -> list:
    """Call a function for each task in worker processes, which share one copy of a face model.

    Parameters
    ----------
    write : Callable
        Of a module; called as ``write(out_dir, model, *task)``.
    out_dir : Path
        Folder of the dataset; also of the copy, while this runs.
    model : MorphableModel
        Any.
    tasks : Sequence[tuple]
        Small arguments.
    jobs : int
        Workers at most.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.
    unit : str
        What the bar counts.
    sizes : Sequence[int] | None
        How many of these each task makes; None is one each.

    Returns
    -------
    list
        What the calls returned, in the order of the tasks.
    """
    sizes = [1] * len(tasks) if sizes is None else sizes
    out_dir = out_dir.absolute()  # workers of an earlier call may be in another folder
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=out_dir) as scratch, \
            progress(total=sum(sizes), unit=unit, desc=out_dir.name) as bar:
        shared_model, ticks = share(model, Path(scratch, "model")), Path(scratch, "ticks")
        with writing(ticks):
            ticks.touch()
        return run_tasks(
            _run_on_shared,
            [(write, out_dir, shared_model, ticks, size, *task) for size, task in zip(sizes, tasks, strict=True)], jobs,
            watch=lambda: bar.update(ticks.stat().st_size - bar.n),
        )


def _run_on_shared(write: Callable, out_dir: Path, shared_model: str, ticks: Path, size: int, *task) -> object:
    """One task of `run_on_model`; it adds its bytes to the file that the progress bar follows."""
    result = write(out_dir, shared(shared_model), *task)
    with writing(ticks), open(ticks, "ab", buffering=0) as file:
        file.write(b"." * size)
    return result


def jpeg_bytes(picture: Image.Image) -> bytes:
    """A picture as a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that exists only when whole, and its folder."""
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)


def mat_bytes(arrays: dict) -> bytes:
    """A `.mat` file without the date that scipy writes into the header."""
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return _MAT_HEADER + file.getvalue()[len(_MAT_HEADER):]


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def bmp_bytes(picture: Image.Image) -> bytes:
    """A picture as a BMP file."""
    file = io.BytesIO()
    picture.save(file, "BMP")
    return file.getvalue()


def pts_bytes(points: np.ndarray) -> bytes:
    """300-W's file of (68, 2) landmarks, pixels from 0; it counts from 1."""
    lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in (points + 1).tolist())
    return f"version: 1\nn_points: {len(points)}\n{{\n{lines}}}\n".encode()
