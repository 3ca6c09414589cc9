"""Annotated photos to ASMD shards: crop, placement, light, and both attribute spatial maps of each face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asmgen.asmd import CONVENTIONS, KIND, MAP_RANGE, QUANTUM, SCHEMA_VERSION, quantize_maps
from asmgen.faces import PlacedFace
from asmgen.maps import AttributeMaps
from asmgen.pipeline import BuildSummary, PhotoPass
from asmgen.shard_job import ShardPlan
from asmgen.shards import ShardWriter
from bfm.morphable_model import MorphableModel


class AsmdMaker:
    """Makes ASMD samples of placed faces.

    Parameters
    ----------
    maps : AttributeMaps
        The map space of the face model.
    encoding : str
        One of `asmgen.asmd.ENCODINGS`.
    """

    def __init__(self, maps: AttributeMaps, encoding: str):
        self._maps, self._encoding = maps, encoding

    def fill(self, writer: ShardWriter, faces: Sequence[PlacedFace]) -> None:
        """Make the maps of a batch; what they tell goes into every sample, themselves only into dense ones."""
        identity_maps = self._maps.identity_map(np.stack([face.fields["id_coeffs"] for face in faces]))
        expression_maps = self._maps.expression_map(np.stack([face.fields["exp_coeffs"] for face in faces]))
        for face, identity_map, expression_map in zip(faces, identity_maps, expression_maps):
            magnitude = np.abs([identity_map, expression_map])
            peak = magnitude.max()
            if not peak <= MAP_RANGE:
                reason = f"map out of range: values reach {peak:.2f}, +-{MAP_RANGE} can be stored"
                writer.reject(face.fields["source"], reason)
                continue
            sample = {**face.fields, "map_peak": peak, "map_out_of_range": np.int32(np.count_nonzero(magnitude > 1))}
            if self._encoding == "dense":
                sample |= {
                    "identity_map": quantize_maps(identity_map), "expression_map": quantize_maps(expression_map)
                }
            writer.add(sample)


def asmd_plan(photos: PhotoPass, out_dir: str | Path) -> ShardPlan:
    """Return the set of ASMD shards to make of some photos.

    Parameters
    ----------
    photos : PhotoPass
        Photos, face model and options.
    out_dir : str | Path
        Folder for the shards.

    Returns
    -------
    ShardPlan
        For `PhotoPass.fill`.
    """
    return ShardPlan(
        Path(out_dir), {"kind": KIND, "schema_version": SCHEMA_VERSION, **photos.settings},
        {**photos.attributes, "quantum": QUANTUM, **CONVENTIONS},
        AsmdMaker(AttributeMaps.from_model(photos.face, photos.chart), photos.settings["encoding"]),
    )


def build_asmd(
    root: str | Path,
    out_dir: str | Path,
    model: MorphableModel,
    *,
    size: int = 256,
    encoding: str = "dense",
    chart: str = "default",
    shard_size: int = 1024,
    jobs: int = 1,
    seed: int = 0,
    count: int | None = None,
    refit: bool = False,
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
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    BuildSummary
        Of all shards, also those that were there before. `PhotoPass` and `PhotoPass.fill` say what may go wrong.
    """
    photos = PhotoPass(
        root, model, size=size, encoding=encoding, chart=chart, shard_size=shard_size, seed=seed, count=count,
        refit=refit,
    )
    return photos.fill([asmd_plan(photos, out_dir)], jobs, progress)[0]
