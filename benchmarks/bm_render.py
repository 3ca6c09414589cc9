"""Speed and memory of the rasteriser and of the renderer, beside the numpy rasteriser of `bfm`.

Times the open face model, full mesh, at random poses: ``bfm.rasterize`` image by image, ``rasterize`` for orthographic
and for perspective points, and the renderer from maps to picture, forward and with the backward pass of the picture's
mean square to maps, light, pose and position. ``moved`` is what the operations read and write, each tensor once an
operation: about the traffic to memory, less what caches keep. ``peak`` is the most GPU memory beyond the input.

    python benchmarks/bm_render.py --batch-size 8 --batch-size 32 -o render.json
"""

import gc
import statistics
import time
from pathlib import Path

import click
import numpy as np
import torch
from provenance import provenance
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bfm.rasterize
from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.open_face import open_face_model
from bfm.pose import project, project_homogeneous
from model.rasterize import nearest_triangles
from model.render import FaceRenderer
from model.trainer import json_text

WARM_UP = 3


class MovedBytes(TorchDispatchMode):
    """Adds up the sizes of what operations read and write; views and allocations are free."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        """Run an operation and count."""
        made = operation(*arguments, **(options or {}))
        read, written = (
            [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)] for tree in (arguments, made)
        )
        storages = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = any(tensor.untyped_storage().data_ptr() in storages for tensor in written)
        if not (is_view and not operation._schema.is_mutable) and "empty" not in operation._schema.name:
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in read + written)
        return made


def scene(maps: AttributeMaps, model, batch_size: int, size: int) -> list[torch.Tensor]:
    """Return I_g, I_a, light, pose and position of random faces that fill most of a picture."""
    rng = np.random.default_rng(0)
    coeffs = rng.standard_normal((batch_size, len(model.id_basis)), np.float32)
    albedo_map = np.stack([maps.chart.unwrap(model.albedo(row[:len(model.albedo_basis)])) for row in coeffs])
    light = np.array([2.6, 0.3, 0.5, 0.4, 0, 0, 0, 0, 0]) * rng.uniform(0.7, 1.2, (batch_size, 1))
    pose = rng.uniform(-1, 1, (batch_size, 3)) * [0.4, 1.2, 0.4]
    position = np.tile([0.5 * size, 0.55 * size, 0.0045 * size], (batch_size, 1))
    return [
        torch.tensor(part, dtype=torch.float32)
        for part in (maps.identity_map(coeffs), albedo_map, light, pose, position)
    ]


def measure(step, batch_size: int, steps: int, device: torch.device, in_torch: bool) -> dict:
    """Time a step, each until the device has finished, after some to warm up."""
    on_gpu, seconds = device.type == "cuda", []
    with MovedBytes() as moved:
        step()
    gc.collect()
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    for _ in range(WARM_UP + steps):
        clock = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - clock)
    timed = sorted(seconds[WARM_UP:])
    taken = statistics.median(timed)
    return {
        "batch_size": batch_size, "images_a_second": round(batch_size / taken, 1),
        "milliseconds": round(1e3 * taken, 2),
        "milliseconds_10_to_90_percent": [round(1e3 * timed[int(part * (steps - 1))], 2) for part in (0.1, 0.9)],
        "moved_mib_an_image": round(moved.total / 2**20 / batch_size, 1) if in_torch else None,
        "peak_mib": round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1) if on_gpu else None,
    }


@click.command()
@click.option("--size", type=int, default=256, show_default=True, help="Side of the picture, pixels.")
@click.option("--batch-size", "batch_sizes", type=int, multiple=True, default=(8,), show_default=True)
@click.option("--camera-distance", type=float, default=1000.0, show_default=True, help="Millimetres.")
@click.option("--steps", type=int, default=20, show_default=True, help="Timed steps of each.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(size, batch_sizes, camera_distance, steps, device, output):
    """Compare rasterisers, and time the renderer, by images a second."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = open_face_model().face_only()
    maps = AttributeMaps.from_model(model, make_chart(model))
    renderer = FaceRenderer(model, maps, camera_distance).to(device)
    results = []
    for batch_size in batch_sizes:
        given = [part.to(device).requires_grad_() for part in scene(maps, model, batch_size, size)]
        with torch.no_grad():
            vertices, pose, position = renderer.vertices(given[0]), *given[3:]
            points = project(vertices, pose, position)
            near_points = project_homogeneous(vertices, pose, position, camera_distance)
        in_numpy = points.cpu().numpy()

        def numpy_step():
            return np.stack([
                bfm.rasterize.rasterize(image[:, :2], image[:, 2], model.triangles, size, size)[0]
                for image in in_numpy
            ])

        def forward():
            with torch.no_grad():
                renderer(*given, size)

        def forward_and_backward():
            torch.autograd.grad(renderer(*given, size).image.square().mean(), given)

        same = (nearest_triangles(points, renderer.triangles, size, size).cpu().numpy() == numpy_step()).mean()
        click.echo(f"pixels with the same triangle as bfm.rasterize: {100 * same:.4f} %")
        for name, step in {
            "bfm.rasterize": numpy_step,
            "rasterize": lambda: nearest_triangles(points, renderer.triangles, size, size),
            "rasterize, perspective": lambda: nearest_triangles(near_points, renderer.triangles, size, size),
            "render": forward, "render, forward and backward": forward_and_backward,
        }.items():
            result = measure(step, batch_size, steps, device, step is not numpy_step)
            results.append({"name": name, "same_triangle": float(same), **result})
            click.echo(
                f"{name:<30}{batch_size:>4}{result['milliseconds']:>10.1f} ms{result['images_a_second']:>10.1f} img/s"
                f"{result['moved_mib_an_image'] or 0:>10.1f} MiB an image moved{result['peak_mib'] or 0:>9.1f} MiB peak"
            )
    report = {
        "benchmark": "render", **provenance(device),
        "size": size, "camera_distance_mm": camera_distance, "triangles": len(model.triangles), "steps": steps,
        "results": results,
    }
    if output:
        output.write_text(json_text(report), encoding="utf-8")


if __name__ == "__main__":
    main()
