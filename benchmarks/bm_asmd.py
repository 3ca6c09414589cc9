"""Images a second of dataset generation on one core, beside the common way: `baseline_pipeline`.

Both read the same photos with their annotation and write crops and maps, with one thread. Ours is the work of one
worker process of ``dualface build asmd``, from the files to a finished shard, in which every photo stands several times
so that it is as large as by default; models are loaded and compiled before, and what the last turn wrote is removed.
They take turns. ``--scaling`` runs two such processes at once, and compares with one alone.

    python benchmarks/bm_asmd.py -o asmd.json
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import click
import numpy as np
import simplejpeg
import torch
from baseline_pipeline import BaselinePipeline
from provenance import provenance
from timing import interleaved

from asmgen.asmd import ENCODINGS
from asmgen.build import asmd_plan
from asmgen.crop import crop_image, face_square
from asmgen.faces import FacePlacer
from asmgen.images import encode_image, read_photo
from asmgen.maps import AttributeMaps
from asmgen.photometry import Photometry
from asmgen.pipeline import PhotoPass
from asmgen.shard_job import BATCH, Job, fill_slice
from asmgen.shards import shard_path
from asmgen.steps import MapSteps, steps_memory
from asmgen.synth import synthesize_300wlp
from asmgen.w300lp import find_samples, read_sample
from asmgen.workers import run_tasks, share
from bfm.charts import make_chart
from bfm.open_face import open_face_model
from model.run_folder import json_text

SIZE = 256
QUALITY = 82  # of photos, for the 21 kB that those of 300W-LP and AFLW2000-3D have; synthetic ones have 55
BASELINE_PHOTOS = 16


def make_photos(folder: Path, count: int) -> None:
    """Make annotated photos, as large in the file as real ones are."""
    synthesize_300wlp(folder, open_face_model(), count)
    for entry in find_samples(folder):
        pixels = read_photo(entry.image_path)
        entry.image_path.write_bytes(simplejpeg.encode_jpeg(pixels, QUALITY, colorspace="RGB", colorsubsampling="420"))


class OneWorker:
    """What a worker process of a build does: a shard of some photos, each taken several times."""

    def __init__(self, photos: Path, folder: Path, times: int, refit: bool = False):
        model = open_face_model()
        passes = [
            PhotoPass(photos, model, size=SIZE, encoding=encoding, chart="default", shard_size=1024, seed=0,
                      count=None, refit=refit)
            for encoding in ENCODINGS
        ]
        self.entries, self._folder = passes[0].entries * times, folder
        plans = [asmd_plan(one, folder / encoding) for one, encoding in zip(passes, ENCODINGS)]
        self.clear()
        placer = partial(FacePlacer, passes[0].face, SIZE, refit)
        self._job = share(Job(placer, passes[0].constants, plans), folder / "job")

    def clear(self) -> None:
        """Remove what was made: a build writes where there is nothing, and to free an old shard takes time."""
        for encoding in ENCODINGS:
            shutil.rmtree(self._folder / encoding, ignore_errors=True)
            (self._folder / encoding).mkdir()

    def __call__(self, encoding: str) -> None:
        """Make a shard."""
        paths = [shard_path(self._folder / one, 0, 1) if one == encoding else None for one in ENCODINGS]
        fill_slice(self._job, self._folder / "ticks", self.entries, paths)


def measure(quick: bool) -> list[dict]:
    """Return one row an encoding, baseline against ours."""
    return run_tasks(_measured, [(quick,)], 1)[0]  # workers have one thread


def _measured(quick: bool) -> list[dict]:
    photos, times, rounds = (BATCH, 8, 3) if quick else (4 * BATCH, 2, 9)  # shards of 1,024, as by default
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = open_face_model()
        make_photos(folder / "photos", photos)
        baseline = BaselinePipeline(model.face_only(), SIZE, folder)
        worker = OneWorker(folder / "photos", folder, times)
        count = len(worker.entries)

        def common():
            for entry in worker.entries[:BASELINE_PHOTOS]:
                baseline(entry.image_path, folder / "baseline" / entry.name)

        def clear():
            worker.clear()
            shutil.rmtree(folder / "baseline", ignore_errors=True)
            (folder / "baseline").mkdir()

        timings = interleaved(
            {"baseline": common, **{encoding: partial(worker, encoding) for encoding in ENCODINGS}}, rounds,
            before=clear,
        )
    usual = timings["baseline"]
    return [{
        "operation": f"build asmd, {encoding}", "baseline": f"{BASELINE_PHOTOS / usual.seconds:.0f} img/s a core",
        "ours": f"{count / ours.seconds:.0f} img/s a core",
        "ratio": count / ours.seconds * usual.seconds / BASELINE_PHOTOS,
        "processor_time_ratio": count / ours.process_seconds * usual.process_seconds / BASELINE_PHOTOS,
        "photos": count, "baseline_triangles": len(baseline.triangles), "baseline_vertices": len(baseline.mean),
        "milliseconds_10_to_90_percent": [round(1e3 * part / count, 2) for part in (ours.low, ours.high)],
    } for encoding, ours in timings.items() if encoding in ENCODINGS]


def stages(photos: Path) -> dict[str, float]:
    """Return the milliseconds a photo of what a worker does, each stage by itself."""
    model = open_face_model().face_only()
    entries = find_samples(photos)[:BATCH]
    samples = [read_sample(entry, model) for entry in entries]
    squares = [face_square(sample.landmarks) for sample in samples]
    crops = [crop_image(sample.image, square, SIZE) for sample, square in zip(samples, squares)]
    photometry, placer = Photometry(model), FacePlacer(model, SIZE, False)
    known = [np.stack([getattr(sample, key) for sample in samples])
             for key in ("id_coeffs", "exp_coeffs", "pose", "position", "albedo_coeffs")]
    images = [sample.image for sample in samples]
    look = photometry.look(images, *known[:4])
    maps = AttributeMaps.from_model(model, make_chart(model, size=SIZE))
    make_steps, memory = MapSteps(model, maps), steps_memory(len(entries), SIZE)  # used again, as a worker does
    timings = interleaved({
        "read and decode": lambda: [read_photo(entry.image_path) for entry in entries],
        "crop": lambda: [crop_image(image, square, SIZE) for image, square in zip(images, squares)],
        "encode": lambda: [encode_image(crop) for crop in crops],
        "surface samples": lambda: photometry.look(images, *known[:4]),
        "light": lambda: photometry.light(look, known[4]),
        "maps as steps, of dense shards": lambda: make_steps(*known[:2], memory),
        "placing: all but the maps, and the annotation": lambda: placer.place_batch(entries),
    }, 9)
    return {name: 1e3 * timing.seconds / len(entries) for name, timing in timings.items()}


def scaling(photos: Path, encoding: str, seconds: float = 6.0) -> float:
    """Return the photos a second of two worker processes together over those of one alone."""
    rates = {}
    for processes in (1, 2, 1, 2):
        with tempfile.TemporaryDirectory() as ready:
            tasks = [(photos, encoding, seconds, Path(ready), processes)] * processes
            rates.setdefault(processes, []).append(sum(run_tasks(_rate, tasks, processes)))
    return statistics.median(rates[2]) / statistics.median(rates[1])


def _rate(photos: Path, encoding: str, seconds: float, ready: Path, processes: int) -> float:
    """Photos a second in this process, from when all are ready, until the time is over."""
    with tempfile.TemporaryDirectory() as folder:
        worker = OneWorker(photos, Path(folder), 4)
        worker(encoding)
        tempfile.mkstemp(dir=ready)
        while len(list(ready.iterdir())) < processes:
            time.sleep(0.01)
        begun, done = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            worker(encoding)
            done += len(worker.entries)
        return done / (time.perf_counter() - begun)


@click.command()
@click.option("--quick", is_flag=True, help="Fewer photos and rounds.")
@click.option("--scaling", "two", is_flag=True, help="Also two processes against one.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(quick: bool, two: bool, output: Path | None):
    """Compare with the common way, and time the stages."""
    rows = measure(quick)
    for row in rows:
        click.echo(f"{row['operation']:<24}{row['baseline']:>20}{row['ours']:>20}{row['ratio']:>8.1f} times "
                   f"({row['processor_time_ratio']:.1f} by processor time)")
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder, "photos"), BATCH)
        parts = run_tasks(stages, [(Path(folder, "photos"),)], 1)[0]
        together = {one: scaling(Path(folder, "photos"), one) for one in ENCODINGS} if two else {}
    for name, milliseconds in parts.items():
        click.echo(f"{name:<44}{milliseconds:>8.3f} ms a photo")
    for encoding, ratio in together.items():
        click.echo(f"two processes, {encoding:<29}{ratio:>8.2f} times one")
    if output:
        report = {"benchmark": "asmd", **provenance(torch.device("cpu")), "results": rows, "stages_ms": parts,
                  "two_processes": together}
        output.write_text(json_text(report), encoding="utf-8")


if __name__ == "__main__":
    main()
