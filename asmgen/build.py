"""Annotated photos to ASMD shards: crop, placement, light, and both attribute spatial maps of each face.

A shard is a slice of the sorted input, made by one worker process with one thread of arithmetic, so its bytes do
not depend on how many workers there are, nor on which shards were there before.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asmgen.asmd import (
    CONVENTIONS, ENCODINGS, KIND, MAP_RANGE, QUANTUM, SCHEMA_VERSION, encode_image, face_box, quantize_maps,
)
from asmgen.crop import crop_image, face_square, square_transform
from asmgen.maps import AttributeMaps
from asmgen.photometry import Photometry
from asmgen.refit import JAW, FaceFit, Refitter
from asmgen.shards import ShardSet, shard_matches, shard_path, write_shard
from asmgen.w300lp import FaceSample, SampleEntry, SampleError, find_samples, read_sample
from asmgen.workers import run_tasks, share, shared
from bfm.charts import make_chart
from bfm.morphable_model import MorphableModel
from bfm.pose import project, transform_placement, transform_points

BATCH = 32
"""Samples whose maps are made by one matrix product."""

SETTINGS_FILE = "build.json"
"""Beside the shards: what they are built with, so that a rerun can tell whether it continues the same build."""

_SCRATCH = "scratch-"


@dataclass(frozen=True)
class BuildSummary:
    """What a finished build holds.

    Attributes
    ----------
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
    written : int
        Samples of this run; the rest was there.
    seconds : float
        Time of this run.
    """

    samples: int
    rejected: dict[str, int]
    out_of_range: int
    landmark_error: float
    landmark_percent: float
    written: int
    seconds: float

    def __str__(self) -> str:
        lines = [f"built {self.samples} samples, rejected {sum(self.rejected.values())}"]
        lines += [f"  {count} {kind}" for kind, count in self.rejected.items()]
        if self.out_of_range:
            lines.append(f"{self.out_of_range} samples have map values outside [-1, 1]")
        if np.isfinite(self.landmark_error):
            lines.append(
                f"landmarks {self.landmark_error:.2f} px from their labels in the crop, "
                f"{self.landmark_percent:.2f} % of the face box"
            )
        lines.append(
            f"{self.written} samples in {self.seconds:.1f} s, {self.written / max(self.seconds, 1e-9):.1f} images/s"
        )
        return "\n".join(lines)


class SampleBuilder:
    """Makes ASMD samples of annotated photos; made once a process.

    Parameters
    ----------
    model : MorphableModel
        The face alone (`MorphableModel.face_only`).
    maps : AttributeMaps
        Its map space.
    size : int
        Side of the crop, pixels.
    encoding : str
        One of `asmgen.asmd.ENCODINGS`.
    refit : bool
        Fit the model to the landmarks in place of reading the annotated parameters.
    """

    def __init__(self, model: MorphableModel, maps: AttributeMaps, size: int, encoding: str, refit: bool):
        self._model, self._maps, self._size, self._encoding = model, maps, size, encoding
        self._refitter = Refitter(model) if refit else None
        self._photometry = self._refitter.photometry if refit else Photometry(model)

    def build(
        self, entries: list[SampleEntry], rejected: list[tuple[str, str]], tick: Callable[[], None]
    ) -> Iterator[dict]:
        """Yield the samples of some photos in their order.

        Parameters
        ----------
        entries : list[SampleEntry]
            From `asmgen.w300lp.find_samples`.
        rejected : list[tuple[str, str]]
            Filled with (source, reason) of the photos that give none.
        tick : Callable[[], None]
            Called once a photo.

        Yields
        ------
        dict
            Fields of docs/shards.md.
        """
        for start in range(0, len(entries), BATCH):
            batch = []
            for entry in entries[start:start + BATCH]:
                try:
                    batch.append(self._sample(entry))
                except SampleError as error:
                    rejected.append((entry.source, str(error)))
                tick()
            if batch:
                yield from self._add_maps(batch, rejected)

    def _sample(self, entry: SampleEntry) -> dict:
        """Everything but the maps; SampleError if the photo gives no sample."""
        if self._refitter:
            photo = read_sample(entry, None)
            with _rejecting("no fit"):
                face = self._refitter.fit(photo.image, photo.landmarks, photo.landmark_kind)
        else:
            photo = face = read_sample(entry, self._model)
        albedo_coeffs, light, light_residual = self._appearance(photo, face)
        at = self._model.landmarks
        shape = (
            self._model.mean_shape[at] + np.tensordot(face.id_coeffs, self._model.id_basis[:, at], 1)
            + np.tensordot(face.exp_coeffs, self._model.exp_basis[:, at], 1)
        )
        landmarks = project(shape, face.pose, face.position)[:, :2].astype(np.float64)
        with _rejecting("no crop"):
            square = face_square(landmarks)
            crop = crop_image(photo.image, square, self._size)
        transform = square_transform(square, self._size)
        pose, position = transform_placement(
            face.pose.astype(np.float64), face.position.astype(np.float64), transform
        )
        landmarks = transform_points(landmarks, transform)
        error = np.nan
        if photo.landmarks is not None:
            distances = np.linalg.norm(landmarks - transform_points(photo.landmarks, transform), axis=1)
            error = distances[JAW if photo.landmark_kind == "2d" else 0:].mean()
        numbers = {
            "id_coeffs": face.id_coeffs, "exp_coeffs": face.exp_coeffs, "albedo_coeffs": albedo_coeffs,
            "light": light, "light_residual": light_residual, "pose": pose, "position": position,
            "landmarks": landmarks, "landmark_error": error, "crop_transform": transform,
        }
        return {
            "source": entry.source, "image": encode_image(crop),
            **{key: np.asarray(value, np.float32) for key, value in numbers.items()},
        }

    def _appearance(self, photo: FaceSample, face: FaceSample | FaceFit) -> tuple[np.ndarray, np.ndarray, float]:
        """Albedo coefficients, light, and the light's residual: annotated where they are, else fitted."""
        if self._refitter:
            return face.albedo_coeffs, face.light, face.light_residual
        placed = np.asarray(photo.image), face.id_coeffs, face.exp_coeffs, face.pose, face.position
        with _rejecting("no light"):
            if face.albedo_coeffs is None:
                return self._photometry.fit_albedo_and_light(*placed)
            light, residual = self._photometry.fit_light(*placed[:3], face.albedo_coeffs, *placed[3:])
        return face.albedo_coeffs, light if photo.light is None else photo.light, residual

    def _add_maps(self, batch: list[dict], rejected: list[tuple[str, str]]) -> Iterator[dict]:
        """Make the maps of a batch; what they tell goes into every sample, themselves only into dense ones."""
        identity_maps = self._maps.identity_map(np.stack([sample["id_coeffs"] for sample in batch]))
        expression_maps = self._maps.expression_map(np.stack([sample["exp_coeffs"] for sample in batch]))
        for sample, identity_map, expression_map in zip(batch, identity_maps, expression_maps):
            magnitude = np.abs([identity_map, expression_map])
            peak = magnitude.max()
            if not peak <= MAP_RANGE:
                rejected.append((
                    sample["source"], f"map out of range: values reach {peak:.2f}, +-{MAP_RANGE} can be stored"
                ))
                continue
            sample |= {"map_peak": peak, "map_out_of_range": np.int32(np.count_nonzero(magnitude > 1))}
            if self._encoding == "dense":
                sample |= {
                    "identity_map": quantize_maps(identity_map), "expression_map": quantize_maps(expression_map)
                }
            yield sample


@contextmanager
def _rejecting(kind: str) -> Iterator[None]:
    """Turn what a step says about its input into a rejected sample."""
    try:
        yield
    except SampleError:
        raise
    except ValueError as error:
        raise SampleError(kind, str(error)) from error


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
        Folder for the shards and `SETTINGS_FILE`; made if it is not there.
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
        Of all shards, also those that were there before.

    Raises
    ------
    ValueError
        If an option is out of its range, or `out_dir` holds a build with other settings; nothing is changed then.
        FileExistsError if it holds shards of unknown settings; RuntimeError if a worker process dies.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {ENCODINGS}, got {encoding!r}")
    if shard_size < 1 or jobs < 1:
        raise ValueError(f"shard_size and jobs must be at least 1, got {shard_size} and {jobs}")
    started = time.perf_counter()
    out_dir = Path(out_dir)
    entries = select(find_samples(Path(root)), count, seed)
    face = model.face_only()
    maps = AttributeMaps.from_model(face, make_chart(face, chart, size))
    settings = {
        "kind": KIND, "schema_version": SCHEMA_VERSION, "encoding": encoding, "size": size, "chart": maps.chart.name,
        "face_model": model.name, "face_model_sha256": model.sha256, "refit": refit, "shard_size": shard_size,
        "photos": len(entries), "photos_sha256": _digest(entries),
    }
    _claim(out_dir, settings)
    attributes = settings | {
        "face_model_layout": face.layout, "coefficients": model.coefficients, "licence": model.licence,
        "centre": maps.centre, "scale": maps.scale, "quantum": QUANTUM, **CONVENTIONS,
    }
    constants = {
        "uv": maps.chart.uv, "mask": maps.chart.mask, "vertex_texels": maps.vertex_texels.astype(np.int32),
        "vertex_weights": maps.vertex_weights, "triangles": face.triangles, "mouth_triangles": face.mouth_triangles,
        "landmarks": face.landmarks, "mirror": face.mirror, "regions": face.regions,
    }
    slices = [entries[start:start + shard_size] for start in range(0, len(entries), shard_size)]
    paths = [shard_path(out_dir, index, len(slices)) for index in range(len(slices))]
    todo = [index for index, path in enumerate(paths) if not shard_matches(path, attributes)]
    kept = len(entries) - sum(len(slices[index]) for index in todo)
    for left in out_dir.glob(f"{_SCRATCH}*"):  # of a run that was killed
        shutil.rmtree(left)
    with (
        tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=out_dir) as scratch,
        progress(total=len(entries), initial=kept, unit="photo", desc=out_dir.name) as bar,
    ):
        if todo:
            job = share(_Job(face, maps, size, encoding, refit, attributes, constants), Path(scratch, "job"))
            ticks = Path(scratch, "ticks")
            ticks.touch()
            run_tasks(
                _build_shard, [(job, ticks, paths[index], slices[index]) for index in todo], jobs,
                watch=lambda: bar.update(kept + ticks.stat().st_size - bar.n),
            )
    return _summarize(out_dir, [paths[index] for index in todo], time.perf_counter() - started)


def select(entries: list[SampleEntry], count: int | None, seed: int) -> list[SampleEntry]:
    """Return `count` of the entries, drawn by the seed, in their order; all if it is None."""
    if count is None:
        return entries
    if not 1 <= count <= len(entries):
        raise ValueError(f"count must be at most the {len(entries)} photos found, got {count}")
    drawn = np.random.default_rng(seed).choice(len(entries), count, replace=False)
    return [entries[index] for index in np.sort(drawn)]


def _digest(entries: list[SampleEntry]) -> str:
    """Hex digest of the names and sizes of all input files."""
    digest = sha256()
    for entry in entries:
        paths = (entry.image_path, entry.parameters_path, entry.landmarks_path)
        digest.update(repr((entry.source, [path and path.stat().st_size for path in paths])).encode())
    return digest.hexdigest()


def _claim(out_dir: Path, settings: dict) -> None:
    """Write the settings, or check that those there are the same."""
    path = out_dir / SETTINGS_FILE
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} must be a JSON file of settings ({error}); build into an empty folder") from error
        for key in sorted(settings.keys() | found.keys()):
            if settings.get(key) != found.get(key):
                raise ValueError(
                    f"{out_dir} holds a build with {key} {found.get(key)!r}, and this one has {settings.get(key)!r}; "
                    "use the same settings to continue it, or build into an empty folder"
                )
        return
    out_dir.mkdir(parents=True, exist_ok=True)
    if any(out_dir.glob("*.h5")):
        raise FileExistsError(f"{out_dir} holds shards but no {SETTINGS_FILE}; build into an empty folder")
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(settings, indent=2) + "\n")
    os.replace(partial, path)


@dataclass(frozen=True, eq=False)
class _Job:
    """What every worker needs."""

    model: MorphableModel
    maps: AttributeMaps
    size: int
    encoding: str
    refit: bool
    attributes: dict
    constants: dict


@lru_cache(maxsize=1)
def _builder(job: str) -> SampleBuilder:
    """Set a worker process up; once, not once a shard."""
    given = shared(job)
    return SampleBuilder(given.model, given.maps, given.size, given.encoding, given.refit)


def _build_shard(job: str, ticks_path: Path, path: Path, entries: list[SampleEntry]) -> None:
    """Make one shard in a worker process; each photo adds a byte to the file that the progress bar follows."""
    rejected = []
    with open(ticks_path, "ab", buffering=0) as ticks:
        samples = _builder(job).build(entries, rejected, lambda: ticks.write(b"."))
        write_shard(path, samples, shared(job).attributes, shared(job).constants, rejected)


def _summarize(out_dir: Path, written: list[Path], seconds: float) -> BuildSummary:
    """Read the numbers of the summary back from the shards."""
    shards = ShardSet(out_dir)
    error = percent = np.nan
    out_of_range = 0
    if len(shards):
        errors = shards.column("landmark_error")
        known = np.isfinite(errors)
        if known.any():
            error = errors[known].mean()
            percent = 100 * (errors / face_box(shards.column("landmarks")))[known].mean()
        out_of_range = np.count_nonzero(shards.column("map_out_of_range"))
    return BuildSummary(
        samples=len(shards), rejected=count_reasons(shards.rejected), out_of_range=int(out_of_range),
        landmark_error=float(error), landmark_percent=float(percent),
        written=len(ShardSet(written)) if written else 0, seconds=seconds,
    )


def count_reasons(rejected: list[tuple[str, str]]) -> dict[str, int]:
    """Count rejections by the kind of their reason, the part before the colon; most frequent first."""
    return dict(Counter(reason.split(":")[0] for _, reason in rejected).most_common())
