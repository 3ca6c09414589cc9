"""Shards for other programs: WebDataset's tar files, and PRNet's folders of position maps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from asmgen import asmd
from asmgen.asmd import AsmdReader, open_asmd, quantize_maps
from asmgen.dataset_files import new_dataset, npy_bytes, write_whole
from asmgen.inspect import given_model
from asmgen.position_maps import CROP, LANDMARK_TEXELS, MAP, landmark_texels, position_map
from asmgen.shards import ShardSet
from asmgen.tar_files import json_bytes, sample_files, write_tars
from bfm.morphable_model import MorphableModel
from texgen.ftd import FtdReader, quantize_albedo

DESCRIPTION, CONSTANTS, LICENCE = "dataset.json", "constants.npz", "licence"

_ALONE = ("kind", "schema_version", "quantum", "centre", "scale", LICENCE)
"""Attributes that each sample of a tar is given, as its reader may see nothing else."""


def dense_samples(shards: ShardSet, face_model: str | MorphableModel | None = None) -> Iterator[dict]:
    """Yield the samples of shards of any kind, with their maps.

    Parameters
    ----------
    shards : ShardSet
        ASMD, FTD or crops; dense or not.
    face_model : str | MorphableModel | None
        The face model that the shards name, or its file; None is the open model. Only shards of encoding ``params``
        need it, which hold no maps.

    Yields
    ------
    dict
        As dense shards hold it: maps in steps of 16 or 8 bits. ValueError if the model is another one.
    """
    kind = shards.attributes["kind"]
    if not _lacks_maps(shards):
        yield from (shards[index] for index in range(len(shards)))
        return
    reader: Any = (AsmdReader if kind == asmd.KIND else FtdReader)(shards.paths, given_model(face_model))
    for index in range(len(shards)):
        sample = shards[index]
        if kind == asmd.KIND:
            maps = (quantize_maps(values) for values in reader.maps(sample))
            yield sample | dict(zip(("identity_map", "expression_map"), maps))
        else:
            yield sample | {"linear_albedo_map": quantize_albedo(reader.linear_albedo(sample))}


def export_webdataset(
    source: str | Path | Sequence, out_dir: str | Path, face_model: str | MorphableModel | None = None,
    tar_size: int = 1000, progress: Callable[..., tqdm] = tqdm,
) -> list[Path]:
    """Write shards as tar files that WebDataset streams; docs/interchange.md is the format.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards, one shard, or a list of them, of any kind.
    out_dir : str | Path
        Empty folder, or that of a stopped export; made if need be.
    face_model : str | MorphableModel | None
        As `dense_samples` takes it.
    tar_size : int
        Samples a file.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    list[Path]
        The tar files. Errors are those of `ShardSet`, `dense_samples`, `write_tars` and `new_dataset`.
    """
    shards = ShardSet(source)
    attributes = shards.attributes
    alone = {key: attributes[key] for key in _ALONE if key in attributes}
    with new_dataset(Path(out_dir), "webdataset", _digest(shards), tar_size) as out_dir:
        with progress(total=len(shards), unit="face", desc=out_dir.name) as bar:
            samples = (sample_files(sample, alone) for sample in dense_samples(shards, face_model))
            paths = write_tars(samples, len(shards), out_dir, tar_size, bar.update)
        _describe(shards, out_dir, "webdataset", {"tars": [path.name for path in paths]})
    return paths


def export_position_maps(
    source: str | Path | Sequence, out_dir: str | Path, face_model: str | MorphableModel | None = None,
    progress: Callable[..., tqdm] = tqdm,
) -> int:
    """Write ASMD shards as PRNet's training folders, one a sample: its crop and its position map.

    The maps are in the chart of the shards, which is PRNet's own only where the face model came with it
    (``BFM_UV.mat``) and the shards were built with ``--chart file``.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards, one shard, or a list of them.
    out_dir : str | Path
        Empty folder, or that of a stopped export; made if need be.
    face_model : str | MorphableModel | None
        As `dense_samples` takes it.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    int
        Samples written. Errors are those of `AsmdReader` and `new_dataset`.
    """
    shards = open_asmd(source)
    reader = AsmdReader(source, given_model(face_model) if _lacks_maps(shards) else None)
    attributes, constants = shards.attributes, shards.constants
    centre = np.asarray(attributes["centre"], np.float32)[:, None, None]
    with new_dataset(Path(out_dir), "prnet", _digest(shards)) as out_dir:
        texels = landmark_texels(constants["uv"], constants["landmarks"], attributes["size"])
        write_whole(out_dir / LANDMARK_TEXELS, "".join(f"{' '.join(map(str, row))}\n" for row in texels).encode())
        with progress(total=len(shards), unit="face", desc=out_dir.name) as bar:
            for index in range(len(shards)):
                sample = shards[index]
                vertices = sum(reader.maps(sample)) * np.float32(attributes["scale"]) + centre
                placed = position_map(vertices, constants["mask"], sample["pose"], sample["position"])
                name = sample["source"].rpartition("/")[2]
                folder = out_dir.joinpath(*_parts(sample["source"]))
                write_whole(folder / f"{name}{MAP}", npy_bytes(placed))
                write_whole(folder / f"{name}{CROP}", sample["image"])
                bar.update()
        _describe(shards, out_dir, "prnet", {})
    return len(shards)


def _lacks_maps(shards: ShardSet) -> bool:
    """Whether the maps have to be made of the coefficients."""
    return shards.attributes.get("encoding") == "params"


def _describe(shards: ShardSet, out_dir: Path, form: str, more: dict) -> None:
    """Write what the files are, and the arrays that all samples share."""
    file = io.BytesIO()
    constants: dict[str, Any] = shards.constants
    np.savez_compressed(file, **constants)
    write_whole(out_dir / CONSTANTS, file.getvalue())
    described = {"format": form, "samples": len(shards), "attributes": dict(shards.attributes), **more}
    write_whole(out_dir / DESCRIPTION, json_bytes(described))


def _parts(source: str) -> list[str]:
    """The folders of a sample, and its name; ValueError for one that leads out of the output."""
    parts = source.split("/")
    if any(part in ("", ".", "..") or ":" in part for part in parts):
        raise ValueError(f"a source must be a path below a folder, got {source!r}; get the shards from whom you trust")
    return parts


def _digest(shards: ShardSet) -> str:
    """What tells these shards from others: their attributes, names and sizes."""
    files = [(path.name, path.stat().st_size) for path in shards.paths]
    return sha256(json_bytes({"attributes": dict(shards.attributes), "files": files})).hexdigest()
