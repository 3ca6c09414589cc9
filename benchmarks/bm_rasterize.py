"""Speed of the batched rasteriser and of the deferred shading, beside the numpy rasteriser of `bfm`.

Times the open face model, full mesh, at random poses: ``bfm.rasterize`` image by image on the CPU, ``rasterize`` on the
device, and ``shade``: rasterize, then position and colour interpolated with gradient, forward and with the backward
pass of their mean square.

    python benchmarks/bm_rasterize.py --batch-size 8 -o rasterize.json
"""

import datetime
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path

import click
import numpy as np
import torch

import bfm.rasterize
from bfm.open_face import open_face_model
from bfm.pose import project
from model.rasterize import barycentric_weights, interpolate, rasterize

WARM_UP = 2


def scene(batch_size: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of the mean face at random poses, filling most of the image, and its triangles."""
    model, rng = open_face_model(), np.random.default_rng(0)
    pose = rng.uniform(-1, 1, (batch_size, 3)) * [0.4, 1.2, 0.4]
    position = np.tile([0.5 * size, 0.55 * size, 0.0045 * size], (batch_size, 1))
    return project(model.mean_shape, pose, position).astype(np.float32), model.triangles


def shade(points: torch.Tensor, values: torch.Tensor, triangles: torch.Tensor, size: int) -> torch.Tensor:
    """Return (B, H, W, C) attributes with gradient."""
    triangle_ids, _ = rasterize(points, triangles, size, size)
    return interpolate(values, triangles, triangle_ids, barycentric_weights(points, triangles, triangle_ids))


def milliseconds(step, steps: int, device: torch.device) -> float:
    """Return the median time of a step, each until the device has finished, after some to warm up."""
    seconds = []
    for _ in range(WARM_UP + steps):
        clock = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - clock)
    return 1e3 * statistics.median(seconds[WARM_UP:])


@click.command()
@click.option("--size", type=int, default=256, show_default=True)
@click.option("--batch-size", type=int, default=8, show_default=True)
@click.option("--steps", type=int, default=10, show_default=True, help="Timed steps of each.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(size, batch_size, steps, device, output):
    """Compare the rasterisers by images a second."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    given, faces = scene(batch_size, size)
    points, triangles = torch.from_numpy(given).to(device), torch.from_numpy(faces).to(device)
    colours = torch.rand(points.shape, device=device)
    for tensor in (points, colours):
        tensor.requires_grad_()
    values = torch.cat([points, colours], -1)
    same = (rasterize(points, triangles, size, size)[0].cpu().numpy() == np.stack([
        bfm.rasterize.rasterize(image[:, :2], image[:, 2], faces, size, size)[0] for image in given
    ])).mean()

    def numpy_step():
        for image in given:
            bfm.rasterize.rasterize(image[:, :2], image[:, 2], faces, size, size)

    def forward_step():
        with torch.no_grad():
            shade(points, values, triangles, size)

    def backward_step():
        loss = shade(points, torch.cat([points, colours], -1), triangles, size).square().mean()
        torch.autograd.grad(loss, [points, colours])

    timed = {
        "bfm.rasterize": numpy_step, "rasterize": lambda: rasterize(points, triangles, size, size),
        "shade, forward": forward_step, "shade, forward and backward": backward_step,
    }
    results = {}
    for name, step in timed.items():
        taken = milliseconds(step, steps, device)
        results[name] = {"milliseconds": round(taken, 2), "images_a_second": round(1e3 * batch_size / taken, 1)}
        click.echo(f"{name:<30}{taken:>10.1f} ms{1e3 * batch_size / taken:>10.1f} img/s")
    click.echo(f"pixels with the same triangle as bfm.rasterize: {100 * same:.4f} %")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    report = {
        "benchmark": "rasterize", "commit": commit, "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(),
        "size": size, "batch_size": batch_size, "triangles": len(faces), "steps": steps,
        "same_triangle": float(same), "results": results,
    }
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
