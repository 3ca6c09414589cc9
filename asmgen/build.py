"""Annotated photos to ASMD shards: crop, placement, light, and both attribute spatial maps of each face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asmgen.asmd import CONVENTIONS, KIND, MAP_RANGE, QUANTUM, SCHEMA_VERSION
from asmgen.faces import PlacedFace
from asmgen.maps import AttributeMaps
from asmgen.peaks import MapPeaks
from asmgen.pipeline import BuildSummary, PhotoPass
from asmgen.shard_job import BATCH, ShardPlan
from asmgen.shards import ShardWriter
from asmgen.steps import MapSteps, MapStepsOnDevice, steps_memory
from bfm.charts import Chart
from bfm.morphable_model import MorphableModel

COMPRESSIONS = ("none", "small")
"""How maps may be stored, the default first, see `asmgen.shards.packing`."""


class AsmdMaker:
    """Makes ASMD samples of placed faces.

    Parameters
    ----------
    face : MorphableModel
        The face alone (`MorphableModel.face_only`).
    chart : Chart
        Of the maps.
    encoding : str
        One of `asmgen.asmd.ENCODINGS`.
    device : str
        What makes the maps: ``cpu``, or a device of torch.
    """

    def __init__(self, face: MorphableModel, chart: Chart, encoding: str, device: str = "cpu"):
        maps = AttributeMaps.from_model(face, chart)
        self._size, self._peaks, self._steps = chart.size, MapPeaks(maps), None
        if encoding == "dense":
            self._steps = MapSteps(face, maps) if device == "cpu" else MapStepsOnDevice(maps, device)

    @cached_property
    def _memory(self) -> np.ndarray:
        """For the maps of a batch, used again."""
        return steps_memory(BATCH, self._size)

    def fill(self, writer: ShardWriter, faces: Sequence[PlacedFace]) -> None:
        """Measure the maps of a batch and reject what goes too far; dense samples get the maps themselves."""
        peaks, outside = self._peaks(*_coefficients([face.fields for face in faces]))
        samples = []
        for face, peak, beyond in zip(faces, peaks, outside):
            if peak <= MAP_RANGE:
                samples.append(face.fields | {"map_peak": peak, "map_out_of_range": beyond})
            else:
                reason = f"map out of range: values reach {peak:.2f}, +-{MAP_RANGE} can be stored"
                writer.reject(face.fields["source"], reason)
        if samples and self._steps:
            steps = self._steps(*_coefficients(samples), self._memory[:, :len(samples)])
            for sample, identity_map, expression_map in zip(samples, *steps):
                sample |= {"identity_map": identity_map, "expression_map": expression_map}
        for sample in samples:
            writer.add(sample)


def _coefficients(samples: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """(B, K) identity and expression coefficients."""
    id_coeffs, exp_coeffs = (np.stack([sample[key] for sample in samples]) for key in ("id_coeffs", "exp_coeffs"))
    return id_coeffs, exp_coeffs


def asmd_plan(
    photos: PhotoPass, out_dir: str | Path, compression: str = COMPRESSIONS[0], device: str = "cpu"
) -> ShardPlan:
    """Return the set of ASMD shards to make of some photos.

    Parameters
    ----------
    photos : PhotoPass
        Photos, face model and options.
    out_dir : str | Path
        Folder for the shards.
    compression : str
        One of `COMPRESSIONS`, of the maps.
    device : str
        What makes the maps: ``cpu``, or ``cuda`` through torch.

    Returns
    -------
    ShardPlan
        For `PhotoPass.fill`.

    Raises
    ------
    ValueError
        If there is no such compression or device, or one is chosen for shards that hold no maps.
    """
    encoding = photos.settings["encoding"]
    stored = {"map_compression": compression, "map_device": device}
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression must be one of {COMPRESSIONS}, got {compression!r}")
    if encoding == "params":
        if (compression, device) != (COMPRESSIONS[0], "cpu"):
            raise ValueError("compression and device are for the maps of dense shards; leave them out with 'params'")
        stored = {}
    if device != "cpu":
        _check_device(device)
    return ShardPlan(
        Path(out_dir), {"kind": KIND, "schema_version": SCHEMA_VERSION, **photos.settings, **stored},
        {**photos.attributes, "quantum": QUANTUM, **CONVENTIONS},
        AsmdMaker(photos.face, photos.chart, encoding, device),
        packing=dict.fromkeys(("identity_map", "expression_map"), compression),
    )


def _check_device(device: str) -> None:
    """Raise unless torch can compute there."""
    if device != "cuda":
        raise ValueError(f"device must be 'cpu' or 'cuda', got {device!r}")
    import torch

    if not torch.cuda.is_available():
        raise ValueError("device 'cuda' needs a GPU that torch can use, and there is none; leave the device out")


def build_asmd(
    root: str | Path,
    out_dir: str | Path,
    model: MorphableModel,
    *,
    size: int = 256,
    encoding: str = "dense",
    chart: str = "default",
    compression: str = COMPRESSIONS[0],
    device: str = "cpu",
    shard_size: int = 1024,
    jobs: int = 1,
    seed: int = 0,
    count: int | None = None,
    refit: bool = False,
    strict: bool = False,
    repair: bool = False,
    progress: Callable[..., tqdm] = tqdm,
) -> BuildSummary:
    """Turn a tree of annotated photos into ASMD shards; a run that was stopped continues.

    Parameters
    ----------
    root : str | Path
        300W-LP or AFLW2000-3D tree, see `asmgen.w300lp.find_samples`.
    out_dir : str | Path
        Folder for the shards and their settings; made if it is not there.
    model : MorphableModel
        Face model, with the coefficient space of the annotations unless `refit`.
    size : int
        Side of the crop and of the maps.
    encoding : str
        ``dense`` stores the maps, ``params`` leaves them to the reader.
    chart : str
        UV chart, see `bfm.charts.make_chart`.
    compression : str
        Of the maps of dense shards: ``none`` is fastest to write and read, ``small`` takes a third of the space.
    device : str
        What makes the maps of dense shards: ``cpu``, or ``cuda`` through torch. Their last steps may differ.
    shard_size : int
        Photos a shard; a shard holds fewer samples if some are rejected.
    jobs : int
        Worker processes; the shards do not depend on it.
    seed : int
        Of the draw of `count` photos.
    count : int | None
        Photos to draw; None takes all.
    refit : bool
        Fit the model to the landmarks in place of reading the annotated parameters.
    strict : bool
        End at the first photo whose face cannot be placed, see `PhotoPass`.
    repair : bool
        Compare every byte of the shards that are there with its digest, and make those again that are damaged.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    BuildSummary
        Of all shards, also those that were there before. `PhotoPass`, `asmd_plan` and `PhotoPass.fill` say what may go
        wrong.
    """
    photos = PhotoPass(
        root, model, size=size, encoding=encoding, chart=chart, shard_size=shard_size, seed=seed, count=count,
        refit=refit, strict=strict,
    )
    return photos.fill([asmd_plan(photos, out_dir, compression, device)], jobs, progress, repair)[0]
