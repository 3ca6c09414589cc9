"""How fast shards become the raw batches of a training step: samples a second by worker processes, and what one costs.

A sample's floor is reading it and decoding its JPEG. The baseline is the common way: a sample at a time, its image
turned to channels first, and the samples of a batch copied together. The first seconds of workers, which start with
nothing, do not count. Files lie in the page cache. Without --shards faces are made, with crops of noise that take
about twice the bytes of photos.

    python benchmarks/bm_loader.py --workers 0 --workers 4 -o loader.json
"""

import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from bm_storage import made_samples
from provenance import provenance
from timing import interleaved

from asmgen.asmd import KIND, QUANTUM, SCHEMA_VERSION
from asmgen.images import decode_image
from asmgen.maps import AttributeMaps
from asmgen.shards import ShardWriter, shard_path
from asmgen.steps import MapSteps
from bfm.charts import make_chart
from bfm.open_face import open_face_model
from model.data import MAP_FIELDS, FaceDataset
from model.loader import training_loader
from model.train_geometry import default_device

LAYOUTS = {"params": ("params", "none"), "dense": ("dense", "none"), "dense, small": ("dense", "small")}
"""Encoding, and packing of the maps."""

BATCHES = 8
"""Of each turn."""


def write_faces(folder: Path, count: int) -> dict[str, Path]:
    """Write random faces of the open model as ASMD shards; return the folder of each layout."""
    model = open_face_model()
    face = model.face_only()
    maps = AttributeMaps.from_model(face, make_chart(face))
    samples = made_samples(maps, count)
    steps = MapSteps(face, maps)(*(np.stack([sample[key] for sample in samples]) for key in MAP_FIELDS["params"]))
    for layout, (encoding, packing) in LAYOUTS.items():
        attributes = {
            "kind": KIND, "schema_version": SCHEMA_VERSION, "encoding": encoding, "size": maps.chart.size,
            "chart": maps.chart.name, "face_model": model.name, "face_model_sha256": model.sha256,
            "centre": maps.centre, "scale": maps.scale, "quantum": QUANTUM,
        }
        place, packings = shard_path(folder / layout, 0, 1), dict.fromkeys(MAP_FIELDS["dense"], packing)
        place.parent.mkdir()
        with ShardWriter(place, attributes, {"uv": maps.chart.uv}, packings) as writer:
            for sample, *made in zip(samples, *steps):
                writer.add(sample | dict(zip(MAP_FIELDS["dense"], made)) if encoding == "dense" else sample)
    return {layout: folder / layout for layout in LAYOUTS}


def sample_by_sample(dataset: FaceDataset, indices: list[int]) -> dict[str, torch.Tensor]:
    """Return a batch as the common practice makes it."""
    samples = [dataset.builds[0][index] for index in indices]
    return torch.utils.data.default_collate([
        {key: torch.tensor(decode_image(value).transpose(2, 0, 1) if isinstance(value, bytes) else value)
         for key, value in sample.items()} for sample in samples
    ])


def costs(dataset: FaceDataset, batch_size: int, rounds: int) -> dict[str, float]:
    """Return milliseconds of processor time a sample takes in this process, by what is done."""
    rng = np.random.default_rng(0)
    batches = [rng.integers(len(dataset), size=batch_size).tolist() for _ in range(4)]

    def of_all(function) -> None:
        for indices in batches:
            function(indices)

    def floor(indices: list[int]) -> None:
        for index in indices:
            decode_image(dataset.builds[0][index]["image"])

    functions = {"floor": floor, "sample by sample": partial(sample_by_sample, dataset), "ours": dataset.batch}
    timings = interleaved({name: partial(of_all, function) for name, function in functions.items()}, rounds)
    each = 1e3 / (len(batches) * batch_size)
    return {name: timing.process_seconds * each for name, timing in timings.items()}


def rates(
    dataset: FaceDataset, batch_size: int, workers: tuple[int, ...], rounds: int, device: torch.device
) -> dict[int, float]:
    """Return samples a second that arrive on a device, the median of turns in which no other loader is asked."""
    found = {}
    for count in workers:
        ahead = 2 * count + 2  # batches that may lie ready
        batches = training_loader(
            dataset, np.arange(len(dataset)), batch_size, 0, 0, ahead + rounds * BATCHES, count, device
        )
        for _ in range(ahead):
            next(batches)
        turns = []
        for _ in range(rounds):
            clock = time.perf_counter()
            for _ in range(BATCHES):
                next(batches)
            if device.type == "cuda":
                torch.cuda.synchronize()
            turns.append(batch_size * BATCHES / (time.perf_counter() - clock))
        found[count] = statistics.median(turns)
    return found


def measured(
    places: dict[str, Path], batch_size: int, workers: tuple[int, ...], rounds: int, device: torch.device
) -> list[dict]:
    """Measure each layout."""
    torch.set_num_threads(1)  # as workers have
    results = []
    for layout, place in places.items():
        dataset = FaceDataset(place)
        results.append({
            "layout": layout,
            "milliseconds": {name: round(cost, 3) for name, cost in costs(dataset, batch_size, rounds).items()},
            "samples_per_second": {
                str(count): round(rate) for count, rate in rates(dataset, batch_size, workers, rounds, device).items()
            },
        })
        click.echo(json.dumps(results[-1]))
    return results


def measure(quick: bool) -> list[dict]:
    """Return rows for the table of all benchmarks."""
    workers = (0, 2) if quick else (0, 2, 8)
    with tempfile.TemporaryDirectory() as folder:
        places = write_faces(Path(folder), 64 if quick else 256)
        results = measured(places, 32, workers, 3 if quick else 7, torch.device(default_device()))
    rows = []
    for result in results:
        layout, spent, made = result["layout"], result["milliseconds"], result["samples_per_second"]
        rows.append({
            "operation": f"raw batch of 32, {layout}", "baseline": f"sample by sample {spent['sample by sample']} ms",
            "ours": f"{spent['ours']} ms a sample, floor {spent['floor']}",
            "ratio": round(spent["sample by sample"] / spent["ours"], 2),
        })
        rows += [{
            "operation": f"loading, {layout}, {count} workers of {os.cpu_count()} cores",
            "baseline": f"no workers {made['0']}/s", "ours": f"{made[str(count)]} samples/s",
            "ratio": round(made[str(count)] / made["0"], 2),
        } for count in workers[1:]]
    return rows


@click.command()
@click.option("--shards", type=click.Path(exists=True, path_type=Path), help="ASMD shards.  [default: made]")
@click.option("--count", type=int, default=256, show_default=True, help="Faces that are made, 2 MB each.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--workers", type=int, multiple=True, default=(0, 1, 2, 4, 8), show_default=True, help="May be repeated.")
@click.option("--rounds", type=int, default=7, show_default=True, help="Turns of each measurement.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(shards, count, batch_size, workers, rounds, device, output):
    """Time the loading of raw batches."""
    device = torch.device(device or default_device())
    with tempfile.TemporaryDirectory() as folder:
        places = {shards.name: shards} if shards else write_faces(Path(folder), count)
        results = measured(places, batch_size, workers, rounds, device)
    report = {
        "benchmark": "loader", **provenance(device), "cores": os.cpu_count(), "batch_size": batch_size,
        "rounds": rounds, "results": results,
    }
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
