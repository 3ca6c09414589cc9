"""One pass over photos that fills one or more sets of shards, and continues where it was stopped.

A shard is a slice of the sorted input, made by one worker process with one thread of arithmetic, so its bytes do
not depend on how many workers there are, on which shards were there before, nor on the sets beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asmgen.asmd import ENCODINGS, face_box
from asmgen.build_folder import SCRATCH, claimed
from asmgen.clusters import WorkersLost
from asmgen.dataset_card import write_dataset_card
from asmgen.faces import FacePlacer
from asmgen.maps import map_normalization
from asmgen.shard_job import Job, Placer, ShardPlan, StrictPlacer, fill_slice
from asmgen.shards import ShardSet, shard_matches, shard_path
from asmgen.w300lp import SampleEntry, find_samples
from asmgen.workers import run_tasks, share
from asmgen.writing import writing
from bfm.charts import make_chart
from bfm.morphable_model import MorphableModel
from bfm.sampling import bilinear_taps


@dataclass(frozen=True)
class BuildSummary:
    """What a finished set holds.

    Attributes
    ----------
    kind : str
        Kind of shard.
    samples : int
        Faces in the shards.
    rejected : dict[str, int]
        Photos left out, by kind of reason, most frequent first.
    out_of_range : int
        Samples with map values outside [-1, 1], which a network ending in tanh cannot reach.
    landmark_error : float
        Mean distance of projected and labelled landmarks in crop pixels; NaN without labels.
    landmark_percent : float
        The same in per cent of the face box, sqrt(w h) of the landmarks.
    scores : dict[str, float]
        Means of the scores that the kind has.
    written : int
        Samples of this run; the rest was there.
    photos : int
        Photos that this run read.
    replaced : tuple[str, ...]
        Names of shards that were there, damaged or not of this build, and were made again.
    seconds : float
        Time of this run.
    beside : tuple[BuildSummary, ...]
        Other sets filled in the same pass.
    """

    kind: str
    samples: int
    rejected: dict[str, int]
    out_of_range: int
    landmark_error: float
    landmark_percent: float
    scores: dict[str, float]
    written: int
    photos: int
    replaced: tuple[str, ...]
    seconds: float
    beside: tuple[BuildSummary, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"built {self.samples} {self.kind.upper()} samples, rejected {sum(self.rejected.values())}"]
        lines += [f"  {count} {kind}" for kind, count in self.rejected.items()]
        if self.out_of_range:
            lines.append(f"{self.out_of_range} samples have map values outside [-1, 1]")
        if self.scores:
            lines.append("mean " + ", ".join(f"{name} {mean:.3g}" for name, mean in self.scores.items()))
        if np.isfinite(self.landmark_error):
            lines.append(
                f"landmarks {self.landmark_error:.2f} px from their labels in the crop, "
                f"{self.landmark_percent:.2f} % of the face box"
            )
        if self.replaced:
            lines.append(f"made again, as they were damaged: {', '.join(self.replaced)}")
        lines.append(
            f"{self.written} samples in {self.seconds:.1f} s, {self.photos / max(self.seconds, 1e-9):.1f} images/s"
        )
        return "\n".join([*lines, *map(str, self.beside)])


class PhotoPass:
    """The photos and the face model of a build, and what all sets made of them share.

    Parameters
    ----------
    root : str | Path
        300W-LP or AFLW2000-3D tree, see `asmgen.w300lp.find_samples`.
    model : MorphableModel
        Face model, with the coefficient space of the annotations unless `refit`.
    size : int
        Side of the crop and of the maps.
    encoding : str
        ``dense`` stores maps, ``params`` leaves those of the face model to the reader.
    chart : str
        UV chart, see `bfm.charts.make_chart`.
    shard_size : int
        Photos a shard; a shard holds fewer samples if some are rejected.
    seed : int
        Of the draw of `count` photos.
    count : int | None
        Photos to draw; None takes all.
    refit : bool
        Fit the model to the landmarks in place of reading the annotated parameters.
    strict : bool
        End at the first photo whose face cannot be placed (ValueError), in place of leaving it out; what is finished
        is kept. No part of the settings.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Attributes
    ----------
    entries : list[SampleEntry]
        The photos.
    face : MorphableModel
        The model's face alone.
    chart : Chart
        Its chart.
    settings, attributes, constants : dict
        Of all shards; see `ShardPlan`.
    """

    def __init__(
        self, root: str | Path, model: MorphableModel, *, size: int, encoding: str, chart: str, shard_size: int,
        seed: int, count: int | None, refit: bool, strict: bool = False,
    ):
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding must be one of {ENCODINGS}, got {encoding!r}")
        self.entries = select(find_samples(Path(root).absolute()), count, seed)  # workers may be elsewhere
        self._strict = strict
        self.face = face = model.face_only()
        self.chart = make_chart(face, chart, size)
        self.settings = {
            "encoding": encoding, "size": size, "chart": self.chart.name, "face_model": model.name,
            "face_model_sha256": model.sha256, "refit": refit, "shard_size": shard_size,
            **photo_settings(self.entries),
        }
        centre, scale = map_normalization(face)
        self.attributes = {
            "face_model_layout": face.layout, "coefficients": model.coefficients, "licence": model.licence,
            "centre": centre, "scale": scale,
        }
        texels, weights = bilinear_taps(self.chart.vertex_pixels, size, size)
        self.constants = {
            "uv": self.chart.uv, "mask": self.chart.mask, "vertex_texels": texels.astype(np.int32),
            "vertex_weights": weights, "triangles": face.triangles, "mouth_triangles": face.mouth_triangles,
            "landmarks": face.landmarks, "mirror": face.mirror, "regions": face.regions,
        }

    def fill(
        self, plans: Sequence[ShardPlan], jobs: int, progress: Callable[..., tqdm] = tqdm, repair: bool = False
    ) -> list[BuildSummary]:
        """Write the shards that are missing; each photo is read, fitted and cropped once for all sets.

        Parameters
        ----------
        plans : Sequence[ShardPlan]
            The sets.
        jobs : int
            Worker processes; the shards do not depend on it.
        progress : Callable[..., tqdm]
            Makes the progress bar; called as tqdm is.
        repair : bool
            Compare every byte of the shards that are there with its digest, and make those again that are damaged.

        Returns
        -------
        list[BuildSummary]
            Of each set, also of the shards that were there before. `fill_shards` says what may go wrong.
        """
        placer = partial(FacePlacer, self.face, self.settings["size"], self.settings["refit"])
        placer = partial(StrictPlacer, placer) if self._strict else placer
        return fill_shards(
            self.entries, self.settings["shard_size"], placer, plans, self.constants, jobs, progress, repair
        )


def fill_shards(
    entries: Sequence[SampleEntry], shard_size: int, placer: Callable[[], Placer], plans: Sequence[ShardPlan],
    constants: dict, jobs: int, progress: Callable[..., tqdm] = tqdm, repair: bool = False,
) -> list[BuildSummary]:
    """Write the shards that are missing or cannot be opened; each photo is read and its face placed once for all sets.

    Parameters
    ----------
    entries : Sequence[SampleEntry]
        The photos.
    shard_size : int
        Photos a shard.
    placer : Callable[[], Placer]
        Makes what places faces, in each worker process.
    plans : Sequence[ShardPlan]
        The sets.
    constants : dict
        Name to array: what all samples share.
    jobs : int
        Worker processes; the shards do not depend on it.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.
    repair : bool
        Compare every byte of the shards that are there with its digest, and make those again that are damaged; settings
        that are damaged or missing beside a shard of this build are written again.

    Returns
    -------
    list[BuildSummary]
        Of each set, also of the shards that were there before.

    Raises
    ------
    ValueError
        If `jobs` or `shard_size` is below 1. `asmgen.build_folder.claimed` says what may be wrong with folders; OSError
        if something cannot be written; WorkersLost if a worker process of this machine dies, or if a slice of the
        photos ends every worker of a cluster that takes it, after the others are done. What is finished is kept.
    """
    started = time.perf_counter()
    for name, number in (("shard_size", shard_size), ("jobs", jobs)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    slices = [entries[start:start + shard_size] for start in range(0, len(entries), shard_size)]
    with claimed(plans, repair):
        tasks, replaced = [], []
        for index, part in enumerate(slices):
            paths = [shard_path(plan.out_dir.absolute(), index, len(slices)) for plan in plans]
            missing = [
                None if shard_matches(path, plan.settings | plan.attributes, every_byte=repair) else path
                for plan, path in zip(plans, paths)
            ]
            if any(missing):
                tasks.append((part, missing))
                replaced.append([path and path.exists() for path in missing])
        photos = sum(len(part) for part, _ in tasks)
        with progress(
            total=len(entries), initial=len(entries) - photos, unit="photo", desc=plans[0].out_dir.name
        ) as bar:
            if tasks:
                _fill(Job(placer, constants, plans), tasks, jobs, bar)
        seconds = time.perf_counter() - started
        summaries = [
            _summarize(
                plan, [paths[number] for _, paths in tasks if paths[number]],
                [paths[number].name for (_, paths), were in zip(tasks, replaced) if were[number]], photos, seconds,
            )
            for number, plan in enumerate(plans)
        ]
        for plan, summary in zip(plans, summaries):
            # frozen, and so not of its protocol
            write_dataset_card(plan.out_dir, plan.settings, plan.attributes, summary)  # type: ignore[arg-type]
    return summaries


def _fill(job: Job, tasks: list[tuple[Sequence[SampleEntry], list[Path | None]]], jobs: int, bar: tqdm) -> None:
    """Give slices of the photos, and where their shards go, to workers."""
    folder, before, photos = job.plans[0].out_dir.absolute(), bar.n, sum(len(part) for part, _ in tasks)
    with writing(folder):
        scratch = tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder, ignore_cleanup_errors=True)
    with scratch:
        shared_job, ticks = share(job, Path(scratch.name, "job")), Path(scratch.name, "ticks")
        with writing(ticks):
            ticks.touch()
        try:
            run_tasks(
                fill_slice, [(shared_job, ticks, *task) for task in tasks], jobs,
                # a slice that is done again, after its worker died, ticks again
                watch=lambda: bar.update(before + min(photos, ticks.stat().st_size) - bar.n),
            )
        except WorkersLost as error:
            if not error.tasks:
                raise
            parts = [tasks[number][0] for number in error.tasks]
            named = ", ".join(f"{part[0].source} to {part[-1].source}" for part in parts)
            raise WorkersLost(f"the photos {named}: {error}; the other shards are written") from error


def select(entries: list[SampleEntry], count: int | None, seed: int) -> list[SampleEntry]:
    """Return `count` of the entries, drawn by the seed, in their order; all if it is None."""
    if count is None:
        return entries
    if not 1 <= count <= len(entries):
        raise ValueError(f"count must be at most the {len(entries)} photos found, got {count}")
    drawn = np.random.default_rng(seed).choice(len(entries), count, replace=False)
    return [entries[index] for index in np.sort(drawn)]


def photo_settings(entries: Sequence[SampleEntry]) -> dict:
    """Return the settings that tell these photos: their number, and a digest of the names and sizes of all files."""
    digest = sha256()
    for entry in entries:
        paths = (entry.image_path, entry.parameters_path, entry.landmarks_path)
        digest.update(repr((entry.source, [path and _file_size(path) for path in paths])).encode())
    return {"photos": len(entries), "photos_sha256": digest.hexdigest()}


def _file_size(path: Path) -> int:
    """Bytes of a file; -1 of a link that leads nowhere, of which its reader says why."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _summarize(
    plan: ShardPlan, written: list[Path], replaced: list[str], photos: int, seconds: float
) -> BuildSummary:
    """Read the numbers of the summary back from the shards."""
    shards = ShardSet(plan.out_dir)
    new = shards if len(written) == len(shards.paths) else ShardSet(written) if written else ()  # heads take time
    error = percent = np.nan
    out_of_range, scores = 0, {}
    if len(shards):
        if "landmark_error" in shards.fields:
            errors = shards.column("landmark_error")
            error, percent = _mean(errors), _mean(100 * (errors / face_box(shards.column("landmarks"))))
        if "map_out_of_range" in shards.fields:
            out_of_range = np.count_nonzero(shards.column("map_out_of_range"))
        scores = {name: _mean(shards.column(name)) for name in plan.scores}
    return BuildSummary(
        kind=plan.settings["kind"], samples=len(shards), rejected=count_reasons(shards.rejected),
        out_of_range=int(out_of_range), landmark_error=error, landmark_percent=percent, scores=scores,
        written=len(new), photos=photos, replaced=tuple(replaced), seconds=seconds,
    )


def _mean(values: np.ndarray) -> float:
    """Mean of what is known; NaN if nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def count_reasons(rejected: list[tuple[str, str]]) -> dict[str, int]:
    """Count rejections by the kind of their reason, the part before the colon; most frequent first."""
    return dict(Counter(reason.split(":")[0] for _, reason in rejected).most_common())
