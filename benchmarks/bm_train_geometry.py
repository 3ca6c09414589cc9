"""Speed, memory and precision of training the geometry stream.

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
from dataclasses import replace
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
    "float32": {"mixed_precision": False, "channels_last": False},
    "bfloat16": {"mixed_precision": True, "channels_last": False},
    "bfloat16, channels last": {"mixed_precision": True, "channels_last": True},
    "compiled": {"mixed_precision": True, "channels_last": True, "compiled": True},
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
    """Time steps, after some to warm up, as training makes them: the host does not wait for a GPU between them."""
    on_gpu = task.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    marks = []
    for step, raw in enumerate(batches):
        task.step(raw, step)
        marks.append(torch.cuda.Event(enable_timing=True) if on_gpu else time.perf_counter())
        if on_gpu:
            marks[-1].record()
    if on_gpu:
        torch.cuda.synchronize()
    pairs = list(zip(marks, marks[1:]))[WARM_UP - 1:]
    seconds = sorted(a.elapsed_time(b) / 1000 if on_gpu else b - a for a, b in pairs)
    median, size = statistics.median(seconds), task.config.batch_size
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "images_per_second": round(size / median, 2), "seconds_per_step": round(median, 5),
        "seconds_per_step_10_to_90_percent": [round(seconds[int(part * (steps - 1))], 5) for part in (0.1, 0.9)],
        "mean_images_per_second": round(size * len(seconds) / sum(seconds), 2),
        "peak_memory_mib": round(peak / 2**20),
    }


def deviation(fast: GeometryTask, exact: GeometryTask, raw: dict) -> dict:
    """Compare a step of the fast way with one in float32, of equal weights and batch, before any update."""
    exact.network.load_state_dict(fast.network.state_dict())
    results = []
    for task in (fast, exact):
        batch = task.batch(raw)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=task is fast):
            losses = task.losses(batch, whole_stream=True)
            losses["loss"].backward()
            with torch.no_grad(), task.autocast():
                maps = task.forward(batch.image.contiguous(memory_format=task.memory_format))[:2]
        gradients = [p.grad.flatten() for p in task.network.parameters()]
        task.network.zero_grad()
        results.append(({key: float(value.detach()) for key, value in losses.items()}, torch.stack(maps), gradients))
    (fast_losses, fast_maps, fast_gradients), (losses, maps, gradients) = results
    alike = [float(torch.cosine_similarity(*pair, dim=0)) for pair in zip(fast_gradients, gradients)]
    away = (fast_maps - maps).abs() * fast.maps.scale
    return {
        "losses_relative": {key: round(abs(fast_losses[key] / losses[key] - 1), 5) for key in losses},
        "maps_mm_mean": round(float(away.mean()), 4), "maps_mm_max": round(float(away.max()), 3),
        "gradient_cosine_median": round(statistics.median(alike), 5), "gradient_cosine_least": round(min(alike), 4),
    }


def measure(quick: bool) -> list[dict]:
    """Time training steps in float32 and as they are, in turns: rows for ``bench.py``."""
    if not torch.cuda.is_available():
        raise SystemExit("needs a GPU: on a CPU training is float32 as it is")
    device, model = torch.device("cuda"), load_model("open")
    width, size, batch_size = (0.25, 256, 8) if quick else (1.0, 256, 32)
    random_faces, face = RandomFaces(model, size), model.face_only()
    maps, raw = AttributeMaps.from_model(face, make_chart(face, size=size)), random_faces.batch(batch_size, device)

    def steps(name: str):
        config = GeometryConfig(
            width=width, batch_size=batch_size, parameter_steps=0, validation_fraction=0, **VARIANTS[name]
        )
        task = GeometryTask(random_faces, face, maps, config, device, 0)

        def step():
            task.step(raw, 0)
            torch.cuda.synchronize()

        return step

    plain, ours = interleaved({name: steps(name) for name in ("float32", "compiled")}, 20, WARM_UP).values()
    return [{
        "operation": f"geometry training step, width {width}, {size} px, batch {batch_size}",
        "baseline": f"float32: {batch_size / plain.seconds:.0f} img/s",
        "ours": f"bfloat16, channels last, compiled: {batch_size / ours.seconds:.0f} img/s",
        "ratio": plain.seconds / ours.seconds,
    }]


@click.command()
@click.option("--width", type=float, default=1.0, show_default=True)
@click.option("--size", type=int, default=256, show_default=True, help="Of crops and maps; that of SHARDS if given.")
@click.option("--batch-size", type=int, multiple=True, default=(8,), show_default=True, help="May be repeated.")
@click.option("--steps", type=int, default=30, show_default=True, help="Timed steps of each measurement.")
@click.option("--variants", default=";".join(VARIANTS), help="Semicolon-separated.  [default: all]")
@click.option("--compare", is_flag=True, help="Also compare each variant's first step with float32.")
@click.option("--shards", type=click.Path(exists=True, path_type=Path), help="ASMD shards on the open model.")
@click.option("--workers", type=int, default=0, show_default=True, help="Processes that decode.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(width, size, batch_size, steps, variants, compare, shards, workers, device, output):
    """Time training steps of the geometry stream."""
    device, model = torch.device(device or default_device()), load_model("open")
    random_faces = RandomFaces(model, FaceDataset(shards).attributes["size"] if shards else size)
    face = model.face_only()
    chart = make_chart(face, size=random_faces.attributes["size"])
    maps = AttributeMaps.from_model(face, chart)
    results = []
    for count in batch_size:
        exact = GeometryConfig(
            width=width, batch_size=count, parameter_steps=0, validation_fraction=0, **VARIANTS["float32"]
        )
        for name in variants.split(";"):
            config = replace(exact, **VARIANTS[name])
            if device.type == "cpu" and config != exact:
                continue
            for source in ("device", "shards") if shards else ("device",):
                data = random_faces if source == "device" else FaceDataset(shards)
                task = GeometryTask(data, face, maps, config, device, workers)
                raw, total = random_faces.batch(count, device), WARM_UP + steps
                compared = {}
                if compare and source == "device":
                    compared = deviation(task, GeometryTask(data, face, maps, exact, device), raw)
                batches = (raw for _ in range(total)) if source == "device" else task.batches(0, total)
                results.append({
                    "variant": name, "data": source, "batch_size": count, **time_steps(task, batches, steps),
                    **compared,
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
