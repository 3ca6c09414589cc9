"""Speed and memory of the rasteriser and of the renderer, beside the numpy rasteriser of `bfm` and the floor.

Times the open face model, full mesh, at random poses: ``bfm.rasterize`` image by image, ``nearest_triangles`` for
orthographic and for perspective points, and the renderer from maps to picture with either camera, forward and with the
backward pass of the picture's mean square to maps, light, pose and position. All take turns.

``least`` is what any program would have to move to and from memory: the inputs once, the outputs once (see `least`).
``floor`` is the time for that at the rate of a large copy, measured in the same run, and ``of_floor`` the floor over
the time taken. ``moved`` is what our operations read and write, each tensor once an operation: about the traffic to
memory, less what caches keep. ``peak`` is the most GPU memory beyond the input.

    python benchmarks/bm_render.py --batch-size 8 --batch-size 32 -o render.json
"""

import gc
import math
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from provenance import provenance
from timing import interleaved
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bfm.rasterize
from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.open_face import open_face_model
from bfm.pose import project, project_homogeneous
from model.nearest_triangles import nearest_triangles
from model.render import FaceRenderer
from model.run_folder import json_text

NUMPY = "bfm.rasterize"
CAMERAS = {"orthographic": math.inf, "perspective": 1000.0}  # mm


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


def least(name: str, given: list[torch.Tensor], model, size: int) -> int:
    """Return the bytes that any program has to move for a batch.

    B images of H x H pixels, V vertices, F triangles, maps of S x S texels, float32 and int64:

    rasterise         B (4 V C + 8 H^2) + 24 F: points of C = 3 or 4 numbers, indices out, triangles
    render            B (24 S^2 + 41 H^2) + 24 F: two maps; 10 numbers and the mask a pixel out; triangles
    ... and backward  the same again, with B 48 S^2 for the maps read once more and their gradients written
    """
    batch_size, side = len(given[0]), given[0].shape[-1]
    if "raster" in name:
        numbers = 4 if "perspective" in name else 3
        return batch_size * (4 * numbers * len(model.mean_shape) + 8 * size**2) + 24 * len(model.triangles)
    forward = batch_size * (24 * side**2 + 41 * size**2) + 24 * len(model.triangles)
    return forward + ("backward" in name) * (forward + batch_size * 24 * side**2)


def operations(model, maps: AttributeMaps, device: torch.device, given: list[torch.Tensor], size: int) -> dict:
    """Return what is timed, by name; all wait for the device."""
    renderers = {name: FaceRenderer(model, maps, distance).to(device) for name, distance in CAMERAS.items()}
    triangles = renderers["orthographic"].triangles
    with torch.no_grad():
        vertices, pose, position = renderers["orthographic"].vertices(given[0]), *given[3:]
        points = {
            "orthographic": project(vertices, pose, position),
            "perspective": project_homogeneous(vertices, pose, position, CAMERAS["perspective"]),
        }
    in_numpy = points["orthographic"].cpu().numpy()

    def numpy_twin():
        return np.stack([
            bfm.rasterize.rasterize(image[:, :2], image[:, 2], model.triangles, size, size)[0] for image in in_numpy
        ])

    def finished(made):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return made

    def rasterised(camera):
        return finished(nearest_triangles(points[camera], triangles, size, size))

    def forward(camera):
        with torch.no_grad():
            return finished(renderers[camera](*given, size))

    def with_backward(camera):
        return finished(torch.autograd.grad(renderers[camera](*given, size).image.square().mean(), given))

    works = {"rasterise": rasterised, "render": forward, "render and backward": with_backward}
    return {NUMPY: numpy_twin} | {
        f"{name}, {camera}": partial(work, camera) for name, work in works.items() for camera in CAMERAS
    }


def timed(model, maps: AttributeMaps, device: torch.device, batch_size: int, size: int, rounds: int) -> list[dict]:
    """Return what each operation takes for one batch, beside the floor."""
    given = [part.to(device).requires_grad_() for part in scene(maps, model, batch_size, size)]
    named = operations(model, maps, device, given, size)
    same = float((named["rasterise, orthographic"]().cpu().numpy() == named[NUMPY]()).mean())
    source = torch.ones(2**28 if device.type == "cuda" else 2**24, device=device)
    moved, peak = {}, {}
    for name, work in named.items():
        with MovedBytes() as counted:
            work()
        moved[name], peak[name] = counted.total, _peak_bytes(work, device)

    def copy():
        source.clone()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    taken = interleaved({"copy": copy, **named}, rounds, warm_up=3)
    rate = 2 * source.nbytes / taken["copy"].seconds
    results = []
    for name in named:
        seconds, in_torch = taken[name].seconds, name != NUMPY
        floor = least(name, given, model, size) / rate
        results.append({
            "name": name, "batch_size": batch_size, "same_triangle": same,
            "images_a_second": round(batch_size / seconds, 1), "milliseconds": round(1e3 * seconds, 3),
            "milliseconds_10_to_90_percent": [round(1e3 * limit, 3) for limit in (taken[name].low, taken[name].high)],
            "process_milliseconds": round(1e3 * taken[name].process_seconds, 3),
            "times_as_fast_as_numpy": round(taken[NUMPY].seconds / seconds, 2) if "raster" in name else None,
            "copy_gb_a_second": round(rate / 1e9, 1),
            "least_mib_an_image": round(floor * rate / 2**20 / batch_size, 2),
            "moved_mib_an_image": round(moved[name] / 2**20 / batch_size, 1) if in_torch else None,
            "of_floor": round(floor / seconds, 4),
            "peak_mib": round(peak[name] / 2**20, 1) if device.type == "cuda" else None,
        })
    return results


def _peak_bytes(work, device):
    """The most GPU memory beyond what is held before."""
    if device.type != "cuda":
        return 0
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def measure(quick: bool) -> list[dict]:
    """Return rows for the table of all benchmarks: the rasteriser against numpy, all against the floor."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = open_face_model().face_only()
    maps = AttributeMaps.from_model(model, make_chart(model))
    batch_size = 32 if device.type == "cuda" else 2 if quick else 8
    numpy_twin, *rest = timed(model, maps, device, batch_size, 256, rounds=5 if quick else 20)
    rows = []
    for result in rest:
        ours = {
            "operation": f"{result['name']}, {batch_size} images, {device.type}",
            "ours": f"{result['images_a_second']:.0f} img/s",
        }
        if "raster" in result["name"]:
            rate, ratio = numpy_twin["images_a_second"], result["times_as_fast_as_numpy"]
            rows.append({**ours, "baseline": f"{NUMPY}, one core: {rate:.0f} img/s", "ratio": ratio})
        floor = result["images_a_second"] / result["of_floor"]
        rows.append({**ours, "baseline": f"least bytes, copied: {floor:.0f} img/s", "ratio": result["of_floor"]})
    return rows


@click.command()
@click.option("--size", type=int, default=256, show_default=True, help="Side of the picture, pixels.")
@click.option("--batch-size", "batch_sizes", type=int, multiple=True, default=(8,), show_default=True)
@click.option("--steps", type=int, default=20, show_default=True, help="Timed steps of each.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(size, batch_sizes, steps, device, output):
    """Compare rasterisers, and time the renderer, by images a second."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = open_face_model().face_only()
    maps = AttributeMaps.from_model(model, make_chart(model))
    results = []
    for batch_size in batch_sizes:
        taken = timed(model, maps, device, batch_size, size, steps)
        results += taken
        click.echo(
            f"{batch_size} images; pixels with the same triangle as bfm.rasterize: "
            f"{100 * taken[0]['same_triangle']:.4f} %; a copy moves {taken[0]['copy_gb_a_second']} GB/s"
        )
        for result in taken:
            click.echo(
                f"{result['name']:<33}{result['milliseconds']:>10.2f} ms{result['images_a_second']:>9.0f} img/s"
                f"{result['least_mib_an_image']:>8.1f} MiB an image at least"
                f"{result['moved_mib_an_image'] or 0:>8.1f} moved"
                f"{100 * result['of_floor']:>7.2f} % of the floor{result['peak_mib'] or 0:>9.1f} MiB peak"
            )
    report = {
        "benchmark": "render", **provenance(device),
        "size": size, "camera_distance_mm": CAMERAS["perspective"], "triangles": len(model.triangles), "steps": steps,
        "results": results,
    }
    if output:
        output.write_text(json_text(report), encoding="utf-8")


if __name__ == "__main__":
    main()
