"""What ASMD samples take on the disk, and how fast they are written and read at random.

First the layouts one can choose, and float32 .npy files, two maps and a JPEG a face, as the common practice has them:
GB for the paper's 60,000 faces, milliseconds to write one, and faces a second that processes read at random, as the
workers of a trainer do, crops decoded or not. Then, with --filters, what HDF5 filters make of the maps alone, each
with fletcher32: those of hdf5plugin need that package at the reader. Files lie in the page cache. Maps are those of
random faces of the open model; crops are blurred noise of the usual size.

    python benchmarks/bm_storage.py --filters -o storage.json
"""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from provenance import provenance
from scipy.ndimage import gaussian_filter
from timing import interleaved

from asmgen.asmd import QUANTUM
from asmgen.images import decode_image, encode_image
from asmgen.maps import AttributeMaps
from asmgen.shards import ShardSet, ShardWriter
from asmgen.shards.packing import undo_differences
from asmgen.steps import MapSteps
from bfm.charts import make_chart
from bfm.open_face import open_face_model

FACES = 60_000
LAYOUTS = {  # encoding and compression; the first is the baseline
    ".npy": None, "params": ("params", "none"), "dense, none": ("dense", "none"), "dense, small": ("dense", "small"),
}


class NpyFiles:
    """Faces as two float32 .npy files and a JPEG each; stands in for a `ShardSet`."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, len(list(folder.glob("*.jpg")))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        maps = {key: np.load(self.folder / f"{index}_{key}.npy") for key in ("identity_map", "expression_map")}
        return {"image": (self.folder / f"{index}.jpg").read_bytes(), **maps}


def made_samples(maps: AttributeMaps, count: int) -> list[dict]:
    """Return random faces as `params` samples, about as large as real ones."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (8, maps.chart.size, maps.chart.size, 3))
    crops = [encode_image(np.clip(128 + 500 * gaussian_filter(one, (4, 4, 0)) + 0.5 * one, 0, 255).astype(np.uint8))
             for one in noise]
    numbers = {
        "id_coeffs": len(maps.id_basis_map), "exp_coeffs": len(maps.exp_basis_map), "albedo_coeffs": 100, "pose": 3,
        "position": 3, "light": 9,
    }
    return [
        {key: 0.7 * rng.standard_normal(size, np.float32) for key, size in numbers.items()}
        | {"landmarks": rng.random((68, 2), np.float32), "crop_transform": rng.random((2, 3), np.float32),
           "landmark_error": np.float32(1), "light_residual": np.float32(0.1), "map_peak": np.float32(1),
           "map_out_of_range": np.int32(0), "source": f"MADE/MADE_{index}_0", "image": crops[index % len(crops)]}
        for index in range(count)
    ]


def write(layout: str, samples: list[dict], folder: Path) -> None:
    """Write samples that are at hand, with their maps as steps."""
    if LAYOUTS[layout] is None:
        for index, sample in enumerate(samples):
            (folder / f"{index}.jpg").write_bytes(sample["image"])
            for key in ("identity_map", "expression_map"):
                np.save(folder / f"{index}_{key}.npy", sample[key] * np.float32(QUANTUM))
        return
    encoding, compression = LAYOUTS[layout]
    packing = dict.fromkeys(("identity_map", "expression_map"), compression)
    with ShardWriter(folder / "shard-00000-of-00001.h5", {}, packing=packing) as writer:
        for sample in samples:
            writer.add({key: value for key, value in sample.items() if encoding == "dense" or not key.endswith("_map")})


def opened(layout: str, folder: Path) -> NpyFiles | ShardSet:
    """Return the faces that were written."""
    return NpyFiles(folder) if LAYOUTS[layout] is None else ShardSet(folder)


def read(layout: str, folder: Path, decode: bool, seconds: float, seed: int, start, counts) -> None:
    """Read faces at random for some seconds, after `start`; what one worker does."""
    faces, rng, count = opened(layout, folder), np.random.default_rng(seed), 0
    faces[0]
    start.wait()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sample = faces[int(rng.integers(len(faces)))]
        if decode:
            decode_image(sample["image"])
        count += 1
    counts.put(count)


def read_all(faces: NpyFiles | ShardSet) -> None:
    """Read every face once, in random order, crops left as JPEG."""
    for index in np.random.default_rng(0).permutation(len(faces)):
        faces[int(index)]


def reads_a_second(layout: str, folder: Path, decode: bool, workers: int, seconds: float) -> float:
    """Return the faces a second that some processes read together; 0 reads in this one."""
    context = multiprocessing.get_context("fork" if workers else None)
    start, counts = context.Barrier(max(1, workers)), context.SimpleQueue()
    arguments = [(layout, folder, decode, seconds, seed, start, counts) for seed in range(max(1, workers))]
    if not workers:
        read(*arguments[0])
        return counts.get() / seconds
    processes = [context.Process(target=read, args=one) for one in arguments]
    for process in processes:
        process.start()
    total = sum(counts.get() for _ in processes)
    for process in processes:
        process.join()
    return total / seconds


def layout_rows(samples: list[dict], folder: Path, workers: tuple[int, ...], seconds: float, rounds: int) -> list[dict]:
    """Measure every layout."""
    folders = {layout: folder / str(number) for number, layout in enumerate(LAYOUTS)}
    for place in folders.values():
        place.mkdir()
    timings = interleaved({name: partial(write, name, samples, place) for name, place in folders.items()}, rounds)
    reading = interleaved({name: partial(read_all, opened(name, place)) for name, place in folders.items()}, rounds)
    rates: dict[tuple, list[float]] = {}
    for _ in range(rounds):
        for layout, place in folders.items():
            for count in workers:
                for decode in (False, True):
                    rate = reads_a_second(layout, place, decode, count, seconds)
                    rates.setdefault((layout, count, decode), []).append(rate)
    rows = []
    for layout, place in folders.items():
        stored = sum(path.stat().st_size for path in place.iterdir()) / len(samples)
        rows.append({
            "layout": layout, "kilobytes": round(stored / 1e3, 1),
            "gigabytes_for_60000": round(FACES * stored / 1e9, 2),
            "write_milliseconds": round(1e3 * timings[layout].seconds / len(samples), 2),
            "write_process_milliseconds": round(1e3 * timings[layout].process_seconds / len(samples), 2),
            "read_process_milliseconds": round(1e3 * reading[layout].process_seconds / len(samples), 3),
            **{f"reads_a_second_{count}_workers{'_decoded' * decode}": round(np.median(rates[layout, count, decode]))
               for count in workers for decode in (False, True)},
        })
    return rows


def differences(steps: np.ndarray) -> np.ndarray:
    """Return each row as its difference from the row above."""
    return np.diff(steps, axis=-2, prepend=np.int16(0))


def filters() -> dict[str, dict]:
    """Return the filters to compare, by name: options of h5py."""
    import hdf5plugin

    return {
        "none": {}, "gzip-1, shuffle": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
        "lzf, shuffle": {"compression": "lzf", "shuffle": True}, "szip": {"compression": "szip"},
        "bitshuffle lz4": hdf5plugin.Bitshuffle(cname="lz4"),
        "bitshuffle zstd-1": hdf5plugin.Bitshuffle(cname="zstd", clevel=1),
        "zstd-1, shuffle": {**hdf5plugin.Zstd(clevel=1), "shuffle": True},
        "blosc2 lz4": hdf5plugin.Blosc2(cname="lz4", clevel=1, filters=hdf5plugin.Blosc2.BITSHUFFLE),
        "blosc2 zstd-1": hdf5plugin.Blosc2(cname="zstd", clevel=1),
    }


def filter_rows(samples: list[dict], folder: Path, rounds: int) -> list[dict]:
    """Measure filters on the maps alone, as they are and as differences of rows; and igzip, which makes gzip's."""
    maps = [sample[key] for sample in samples for key in ("identity_map", "expression_map")]
    kinds = {"steps": (lambda steps: steps, lambda steps: steps), "differences": (differences, undo_differences)}
    writers: dict[str, Callable] = {}
    readers: dict[str, Callable] = {}

    def write_maps(path: Path, prepare: Callable, options: dict) -> None:
        with h5py.File(path, "w", libver=("v110", "v110"), rdcc_nbytes=0) as file:
            stored = file.create_dataset(
                "maps", (len(maps), *maps[0].shape), np.int16, chunks=(1, *maps[0].shape), fletcher32=True, **options
            )
            for index, steps in enumerate(maps):
                stored[index] = prepare(steps)

    def read_maps(path: Path, restore: Callable) -> None:
        with h5py.File(path, rdcc_nbytes=2**17) as file:
            for index in np.random.default_rng(0).permutation(len(maps)):
                restore(file["maps"][index])

    paths = {}
    for kind, (prepare, restore) in kinds.items():
        for name, options in filters().items():
            path = paths[f"{name}, {kind}"] = folder / f"{len(paths)}.h5"
            writers[f"{name}, {kind}"] = partial(write_maps, path, prepare, options)
            readers[f"{name}, {kind}"] = partial(read_maps, path, restore)
    path = paths["igzip-1, shuffle, differences"] = folder / "igzip.h5"

    def write_small() -> None:
        with ShardWriter(path, {}, packing={"maps": "small"}) as writer:
            for steps in maps:
                writer.add({"maps": steps})

    def read_small() -> None:
        shards = ShardSet(path)
        for index in np.random.default_rng(0).permutation(len(maps)):
            shards[index]

    writers["igzip-1, shuffle, differences"] = write_small
    readers["igzip-1, shuffle, differences"] = read_small
    writing, reading = interleaved(writers, rounds), interleaved(readers, rounds)
    return [
        {"filter": name, "kilobytes": round(paths[name].stat().st_size / len(samples) / 1e3),
         "write_process_milliseconds": round(1e3 * writing[name].process_seconds / len(samples), 2),
         "read_process_milliseconds": round(1e3 * reading[name].process_seconds / len(samples), 2)}
        for name in paths
    ]


def measured(count: int, workers: tuple[int, ...], seconds: float, rounds: int, with_filters: bool) -> dict:
    """Return the rows of both tables."""
    face = open_face_model().face_only()
    maps = AttributeMaps.from_model(face, make_chart(face))
    samples = made_samples(maps, count)
    coeffs = (np.stack([sample[key] for sample in samples]) for key in ("id_coeffs", "exp_coeffs"))
    steps = MapSteps(face, maps)(*coeffs)
    for sample, identity_map, expression_map in zip(samples, *steps):
        sample |= {"identity_map": identity_map, "expression_map": expression_map}
    with tempfile.TemporaryDirectory() as folder:
        layouts = layout_rows(samples, Path(folder), workers, seconds, rounds)
        return {
            "layouts": layouts, "filters": filter_rows(samples[:16], Path(folder), rounds) if with_filters else [],
        }


def measure(quick: bool) -> list[dict]:
    """Return rows for the table of all benchmarks: size, writing and reading beside .npy files."""
    rows = measured(64 if quick else 256, (), 0, 5, False)["layouts"]
    baseline, table = rows[0], []
    for row in rows[1:]:
        for what, key, unit in (
            ("size of 60,000 faces", "gigabytes_for_60000", "GB"),
            ("write, process time", "write_process_milliseconds", "ms"),
            ("random read, process time", "read_process_milliseconds", "ms"),
        ):
            table.append({
                "operation": f"{what}: {row['layout']}", "baseline": f".npy {baseline[key]} {unit}",
                "ours": f"{row[key]} {unit}", "ratio": round(baseline[key] / row[key], 2),
            })
    return table


@click.command()
@click.option("--count", type=int, default=256, show_default=True, help="Faces that are written, 2.5 MB each.")
@click.option("--workers", type=int, multiple=True, default=(0, 4, 8), show_default=True, help="Processes that read.")
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Of each measurement of reading.")
@click.option("--rounds", type=int, default=5, show_default=True, help="Measurements of each, in turns.")
@click.option("--filters", "with_filters", is_flag=True, help="Compare HDF5 filters too; needs pip install hdf5plugin.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(count, workers, seconds, rounds, with_filters, output):
    """Compare layouts of ASMD samples by size, writing and random reading."""
    results = measured(count, workers, seconds, rounds, with_filters)
    for rows in results.values():
        for row in rows:
            click.echo("  ".join(f"{key} {value}" for key, value in row.items()))
    report = {
        "benchmark": "storage", **provenance(torch.device("cpu")), "faces": count, "seconds": seconds, **results,
    }
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
