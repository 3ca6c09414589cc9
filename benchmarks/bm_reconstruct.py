"""Speed of `reconstruct`: photos a second by batch and by threads, and where the time of one photo goes.

The networks (geometry, texture, K) have random weights, made here: their speed is that of trained ones. The photos are
noise of 450 x 450 pixels, saved as JPEG, each its own crop; so no detector is timed. The baseline takes one photo
after another through reading, network and writing; `reconstruct` reads ahead, takes a batch, and writes behind.

    python benchmarks/bm_reconstruct.py --width 1 --batch-size 1 --batch-size 8 --batch-size 32 --threads 2 -o out.json
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from bm_train_geometry import RandomFaces
from bm_train_texture import RandomTriplets
from provenance import commit, machine, provenance
from timing import Timing, interleaved

from asmgen.crop import crop_image
from asmgen.images import encode_image, read_photo
from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.model_file import load_model
from model.checkpoint import save_checkpoint
from model.config import GeometryConfig, TextureConfig
from model.dual_stream import TrainedFaces, load_dual_stream
from model.face_files import FaceWriter
from model.landmarks import LandmarkNetwork
from model.photos import PhotoLocator, find_photos
from model.reconstruct import Reconstructor, reconstruct
from model.train_geometry import GeometryTask, default_device
from model.train_texture import TextureTask
from model.run_folder import json_text
from model.views import surroundings

PHOTO = 450


def random_runs(folder: Path, width: float, size: int = 256) -> tuple[Path, Path]:
    """Write checkpoints of a geometry and of a texture run of random weights; return their folders."""
    model, device = load_model("open"), torch.device("cpu")
    face = model.face_only()
    chart = make_chart(face, size=size)
    config = GeometryConfig(width=width, parameter_steps=0, validation_fraction=0)
    geometry = GeometryTask(RandomFaces(model, size), face, AttributeMaps.from_model(face, chart), config, device, 0)
    config = TextureConfig(width=width, validation_fraction=0, omega_c=0.0)
    landmarks = LandmarkNetwork(width=width).eval().requires_grad_(False)
    texture = TextureTask(RandomTriplets(model, size), face, chart, config, device, phi=None, landmarks=landmarks)
    for task in (geometry, texture):
        run = folder / task.kind
        run.mkdir()
        save_checkpoint(run, task.kind, 1, task.config.to_dict(), task.metadata, task.networks, task.optimisers)
    return folder / geometry.kind, folder / texture.kind


def made_photos(folder: Path, count: int) -> Path:
    """Write photos of noise as soft as photos are, and return their folder."""
    folder.mkdir()
    for k in range(count):
        coarse = np.random.default_rng(k).integers(0, 256, (30, 30, 3), np.uint8)
        photo = cv2.resize(coarse, (PHOTO, PHOTO), interpolation=cv2.INTER_CUBIC)
        (folder / f"{k}.jpg").write_bytes(encode_image(photo))
    return folder


class Bench:
    """Trained faces, photos and a place for files, under one folder.

    Parameters
    ----------
    folder : Path
        For everything that is written.
    width : float
        Of the networks.
    count : int
        Photos.
    device : str
        Of torch.
    """

    def __init__(self, folder: Path, width: float, count: int, device: str):
        self.out = folder / "out"
        self.photos = find_photos([made_photos(folder / "photos", count)], self.out)
        self.faces: TrainedFaces = load_dual_stream(*random_runs(folder, width), load_model("open"), device)
        self.locator = PhotoLocator(self.photos, whole=True)
        self.reconstructor, self.writer = Reconstructor(self.faces), FaceWriter(self.faces)

    def batched(self, batch_size: int) -> Callable[[], None]:
        """Return what reconstructs all photos as the command does."""
        def run():
            outcomes = reconstruct(
                self.photos, self.locator, self.reconstructor, self.writer, self.out, batch_size
            )
            assert not any(outcome.error for outcome in outcomes)

        return run

    def one_by_one(self):
        """Reconstruct all photos, one stage after another."""
        for photo in self.photos:
            (face, _), = self.reconstructor([self.reconstructor.crop(photo.path, self.locator)])
            self.writer.write(face, self.out / photo.name)

    def stages(self) -> dict[str, Callable[[], object]]:
        """Return what one photo goes through, each on its own."""
        photo, size, face_files = self.photos[0], self.faces.metadata["size"], self.out / "one"
        read = read_photo(photo.path)
        square = self.locator.place(photo.path, read).square
        crop = self.reconstructor.crop(photo.path, self.locator)
        (face, _), = self.reconstructor([crop])
        return {
            "read": lambda: read_photo(photo.path),
            "crop": lambda: (crop_image(read, square, size), surroundings(read, square)),
            "network": lambda: self.reconstructor([crop]),
            "mesh and files": lambda: self.writer.write(face, face_files),
        }


def measure(quick: bool) -> list[dict]:
    """Time both ways through all photos in turns: rows for ``bench.py``."""
    width, count, batch_size = (0.125, 4, 2) if quick else (1.0, 64, 8)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), width, count, default_device())
        timed = interleaved({"one": bench.one_by_one, "ours": bench.batched(batch_size)}, 2 if quick else 3)
    one, ours = timed["one"].seconds, timed["ours"].seconds
    return [{
        "operation": f"reconstruct, width {width}, {torch.get_num_threads()} thread(s) of torch",
        "baseline": f"one photo after another: {count / one:.2f} img/s",
        "ours": f"batches of {batch_size}, read ahead, written behind: {count / ours:.2f} img/s", "ratio": one / ours,
    }]


def _described(timing: Timing, count: int) -> dict:
    return {
        "images_a_second": round(count / timing.seconds, 3),
        "milliseconds_an_image": round(1e3 * timing.seconds / count, 2),
        "milliseconds_10_to_90_percent": [round(1e3 * part / count, 2) for part in (timing.low, timing.high)],
        "processor_milliseconds_an_image": round(1e3 * timing.process_seconds / count, 2),
    }


@click.command()
@click.option("--width", type=float, default=1.0, show_default=True)
@click.option("--batch-size", "batch_sizes", type=int, multiple=True, default=(1, 8, 32), show_default=True)
@click.option("--threads", type=int, multiple=True, default=(1, 2), show_default=True, help="Of torch, on the CPU.")
@click.option("--photos", "count", type=int, default=32, show_default=True, help="Photos a round.")
@click.option("--rounds", type=int, default=3, show_default=True, help="Timed rounds of each.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(width, batch_sizes, threads, count, rounds, device, output):
    """Time `reconstruct` by batch and threads, and its stages."""
    device, results = device or default_device(), []
    folder = Path(tempfile.mkdtemp(prefix="bm_reconstruct-"))
    try:
        bench = Bench(folder, width, count, device)
        for threads_now in threads:
            torch.set_num_threads(threads_now)
            ways = {"one after another": bench.one_by_one}
            ways |= {f"batches of {size}": bench.batched(size) for size in batch_sizes}
            timed = {name: _described(timing, count) for name, timing in interleaved(ways, rounds).items()}
            timed |= {
                f"stage: {name}": _described(timing, 1)
                for name, timing in interleaved(bench.stages(), max(5, rounds)).items()
            }
            for name, described in timed.items():
                results.append({"name": name, "threads": threads_now, **described})
                click.echo(
                    f"{threads_now} thread(s)  {name:<24}{described['milliseconds_an_image']:>10.1f} ms"
                    f"{described['images_a_second']:>9.2f} img/s"
                    f"{described['processor_milliseconds_an_image']:>10.1f} ms of processors"
                )
    finally:
        shutil.rmtree(folder)
    report = {
        "benchmark": "reconstruct", **provenance(torch.device(device)), "commit": commit(), "machine": machine(),
        "width": width, "photos": count, "rounds": rounds, "results": results,
    }
    if output:
        output.write_text(json_text(report), encoding="utf-8")


if __name__ == "__main__":
    main()
