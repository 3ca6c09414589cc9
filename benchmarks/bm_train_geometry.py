"""Speed and memory of training the geometry stream.

Times whole training steps of Eq. (8): preparing the batch, augmentation, forward, losses, backward, Adam.
``device``: one batch that lies on the device already, so the network alone. ``shards``: batches read and decoded
from ASMD shards by worker processes. The baseline is float32 in PyTorch's own memory order.

    python benchmarks/bm_train_geometry.py --width 1 --size 256 --batch-size 8 -o geometry.json
    python benchmarks/bm_train_geometry.py --shards SHARDS --workers 8 -o geometry.json
"""

import json
import resource
import statistics
import time
from pathlib import Path

import click
import numpy as np
import torch
from provenance import provenance
from timing import interleaved

from asmgen.asmd import QUANTUM
from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.model_file import load_model
from model.config import GeometryConfig
from model.data import FaceDataset
from model.train_geometry import GeometryTask, default_device

WARM_UP = 5
VARIANTS = {
    "float32": (False, False), "bfloat16": (True, False), "bfloat16, channels last": (True, True),
}


class RandomFaces:
    """Stands in for a `FaceDataset`: noise for photos, random faces for the truth."""

    def __init__(self, model, size: int):
        self.attributes = {
            "encoding": "params", "size": size, "chart": "harmonic", "quantum": QUANTUM, "face_model": model.name,
            "face_model_sha256": model.sha256, "licence": model.licence, "coefficients": model.coefficients,
        }
        self.samples_sha256 = ""
        self.sources = [f"R/R_{index}_0" for index in range(8)]
        self.counts = {
            "id_coeffs": len(model.id_basis), "exp_coeffs": len(model.exp_basis),
            "albedo_coeffs": len(model.albedo_basis), "light": 9, "pose": 3,
        }

    def batch(self, batch_size: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Return one raw batch on a device."""
        size, rng = self.attributes["size"], np.random.default_rng(0)
        raw = {key: rng.standard_normal((batch_size, count)) * 0.3 for key, count in self.counts.items()}
        raw["position"] = np.tile([size / 2, size / 2, size / 220], (batch_size, 1))
        raw["landmarks"] = rng.uniform(0, size, (batch_size, 68, 2))
        tensors = {key: torch.tensor(value, dtype=torch.float32, device=device) for key, value in raw.items()}
        photos = rng.integers(0, 256, (batch_size, 3, size, size), np.uint8)
        return {"image": torch.tensor(photos, device=device), **tensors}


def time_steps(task: GeometryTask, batches, steps: int) -> dict:
    """Time steps one by one, each until the device has finished, after some to warm up."""
    on_gpu = task.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds, clock = [], time.perf_counter()
    for step, raw in enumerate(batches):
        task.step(raw, step)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - clock)
        clock = time.perf_counter()
    timed = sorted(seconds[WARM_UP:])
    median, size = statistics.median(timed), task.config.batch_size
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "images_per_second": round(size / median, 2), "seconds_per_step": round(median, 5),
        "seconds_per_step_10_to_90_percent": [round(timed[int(part * (steps - 1))], 5) for part in (0.1, 0.9)],
        "mean_images_per_second": round(size * len(timed) / sum(timed), 2), "peak_memory_mib": round(peak / 2**20),
    }


def measure(quick: bool) -> list[dict]:
    """Time training steps in float32 and as they are, in turns: rows for ``bench.py``."""
    if not torch.cuda.is_available():
        raise SystemExit("needs a GPU: on a CPU training is float32 as it is")
    device, model = torch.device("cuda"), load_model("open")
    width, size, batch_size = (0.25, 256, 8) if quick else (1.0, 256, 32)
    random_faces, face = RandomFaces(model, size), model.face_only()
    maps, raw = AttributeMaps.from_model(face, make_chart(face, size=size)), random_faces.batch(batch_size, device)

    def steps(mixed_precision: bool, channels_last: bool):
        config = GeometryConfig(
            width=width, batch_size=batch_size, parameter_steps=0, validation_fraction=0,
            mixed_precision=mixed_precision, channels_last=channels_last,
        )
        task = GeometryTask(random_faces, face, maps, config, device, 0)

        def step():
            task.step(raw, 0)
            torch.cuda.synchronize()

        return step

    plain, ours = interleaved({name: steps(*VARIANTS[name]) for name in (*VARIANTS,)[::2]}, 20, WARM_UP).values()
    return [{
        "operation": f"geometry training step, width {width}, {size} px, batch {batch_size}",
        "baseline": f"float32: {batch_size / plain.seconds:.0f} img/s",
        "ours": f"bfloat16, channels last: {batch_size / ours.seconds:.0f} img/s",
        "ratio": plain.seconds / ours.seconds,
    }]


@click.command()
@click.option("--width", type=float, default=1.0, show_default=True)
@click.option("--size", type=int, default=256, show_default=True, help="Of crops and maps; that of SHARDS if given.")
@click.option("--batch-size", type=int, multiple=True, default=(8,), show_default=True, help="May be repeated.")
@click.option("--steps", type=int, default=30, show_default=True, help="Timed steps of each measurement.")
@click.option("--shards", type=click.Path(exists=True, path_type=Path), help="ASMD shards on the open model.")
@click.option("--workers", type=int, default=0, show_default=True, help="Processes that decode.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(width, size, batch_size, steps, shards, workers, device, output):
    """Time training steps of the geometry stream."""
    device, model = torch.device(device or default_device()), load_model("open")
    random_faces = RandomFaces(model, FaceDataset(shards).attributes["size"] if shards else size)
    face = model.face_only()
    chart = make_chart(face, size=random_faces.attributes["size"])
    maps = AttributeMaps.from_model(face, chart)
    results = []
    for count in batch_size:
        for name, (mixed_precision, channels_last) in VARIANTS.items():
            if device.type == "cpu" and mixed_precision:
                continue
            config = GeometryConfig(
                width=width, batch_size=count, parameter_steps=0, validation_fraction=0,
                mixed_precision=mixed_precision, channels_last=channels_last,
            )
            for source in ("device", "shards") if shards else ("device",):
                data = random_faces if source == "device" else FaceDataset(shards)
                task = GeometryTask(data, face, maps, config, device, workers)
                raw, total = random_faces.batch(count, device), WARM_UP + steps
                batches = (raw for _ in range(total)) if source == "device" else task.batches(0, total)
                results.append({
                    "variant": name, "data": source, "batch_size": count, **time_steps(task, batches, steps)
                })
                click.echo(json.dumps(results[-1]))
                del task
    report = {
        "benchmark": "train_geometry", **provenance(device),
        "width": width, "size": random_faces.attributes["size"], "workers": workers, "steps": steps,
        "results": results,
    }
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
