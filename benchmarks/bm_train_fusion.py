"""Speed and memory of training both streams on photos, what each part of a step costs, and its numerics.

Times whole steps of Eq. (23) from one batch of noise that lies on the device. All networks have random weights, the
streams, K (4 stacks; it is H too) and F_id (50 layers) of the given width: their speed is that of trained ones, their
landmarks and losses mean nothing. There is no face parsing. The baseline is float32 in PyTorch's own memory order.

``--profile`` tells the milliseconds of each part of a step that is not compiled: CUDA events on a GPU, which
count what it stands idle for the program too, a clock on a CPU; beside them what its convolutions and products multiply
(`floor`), and so how near a part is to what the chip can. Then come the lines that wait for the GPU, the largest
kernels, and how far the losses and gradients of a faster way lie from those of float32.

    python benchmarks/bm_train_fusion.py --width 1 --size 256 --batch-size 16 --profile -o fusion.json
"""

import copy
import json
import statistics
import time
import warnings
from collections import Counter
from pathlib import Path

import click
import numpy as np
import torch
from bm_train_geometry import WARM_UP, time_steps
from provenance import provenance
from timing import interleaved
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import model.train_fusion
from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.model_file import load_model
from model.batches import prepare_photos
from model.config import FusionConfig
from model.dual_stream import DualStream, TrainedFaces
from model.geometry import GeometryStream
from model.identity import CROP_SIZE, IdentityNetwork
from model.landmarks import LandmarkNetwork
from model.linear_albedo import LinearAlbedo
from model.render import FaceRenderer
from model.texture import TextureStream
from model.train_fusion import FusionTask
from model.train_geometry import default_device

FLOAT32 = {"mixed_precision": False, "channels_last": False}
VARIANTS = {
    "float32": FLOAT32,
    "all losses": {},
    "all losses, compiled": {"compiled": True},
    "without identity": {"lambda_identity": 0.0},
    "without alignment": {"lambda_alignment": 0.0},
    "pixels alone": {"lambda_identity": 0.0, "lambda_alignment": 0.0},
    "pixels alone, float32": {"lambda_identity": 0.0, "lambda_alignment": 0.0, **FLOAT32},
}
COMPARED = {"all losses": "float32", "all losses, compiled": "float32", "pixels alone": "pixels alone, float32"}
KERNELS = 20


class RandomPhotos:
    """Stands in for a `FaceDataset`: noise for photos, of which nothing is known."""

    def __init__(self, size: int):
        self.attributes, self.samples_sha256, self.builds = {"size": size}, "", []
        self.sources = [f"R/R_{index}_0" for index in range(8)]

    def batch(self, batch_size: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Return one raw batch on a device."""
        size = self.attributes["size"]
        photos = np.random.default_rng(0).integers(0, 256, (batch_size, 3, size, size), np.uint8)
        return {"image": torch.tensor(photos, device=device)}


def random_faces(width: float, size: int) -> tuple[TrainedFaces, IdentityNetwork]:
    """Return both streams with K, and F_id, all with random weights; the first geometry is about the mean face."""
    face = load_model("open").face_only()
    maps = AttributeMaps.from_model(face, make_chart(face, size=size))
    torch.manual_seed(0)
    geometry = GeometryStream(len(face.albedo_basis), size, width, batch_norm=True)
    geometry.start_from_(maps)
    with torch.no_grad():  # in front of the camera and lit, so that as much is drawn as of a true face
        geometry.psn[-1].weight.mul_(0.01)
        geometry.psn[-1].bias.zero_()[-15] = 1.0
    network = DualStream(
        geometry, LinearAlbedo(face, maps.chart), TextureStream(width=width, size=size), LandmarkNetwork(width=width),
    ).eval().requires_grad_(False)
    metadata = {"size": size, "shape": "dual", "camera_distance": FusionConfig.camera_distance}
    renderer = FaceRenderer(face, maps, metadata["camera_distance"])
    identity = IdentityNetwork(width=width).eval().requires_grad_(False)
    return TrainedFaces(network, renderer, face, maps, metadata, True), identity


def fusion_task(
    variant: str, faces: TrainedFaces, identity: IdentityNetwork, batch_size: int, device: torch.device
) -> FusionTask:
    """Return the task of one of the `VARIANTS`, on copies of the networks."""
    config = FusionConfig(batch_size=batch_size, validation_fraction=0, **VARIANTS[variant])
    network, renderer = (copy.deepcopy(part).to(device) for part in (faces.network, faces.renderer))
    return FusionTask(
        RandomPhotos(faces.metadata["size"]), faces._replace(network=network, renderer=renderer), config, device,
        identity=copy.deepcopy(identity) if config.lambda_identity else None,
        aligner=network.landmarks if config.lambda_identity or config.lambda_alignment else None,
    )


class Parts:
    """Clock of the parts of a step: what has passed since the last mark belongs to the part that ends now.

    Parameters
    ----------
    task : FusionTask
        Its networks and functions are watched from now on; not compiled.
    """

    def __init__(self, task: FusionTask):
        self.on_gpu, self.marks, self.seen = task.on_gpu, [], Counter()
        network = task.network
        for name, part in {
            "start": task.forward_start, "geometry": network.geometry, "texture": network.generator,
            "landmarks": task.find, "F_id": task.recognise,
        }.items():
            if part:
                self._watch(name, part)
        draw = task.draw

        def drawn(face):
            self.mark("between the networks")
            rendered = draw(face)
            self.mark("render")
            rendered.image.register_hook(self._marker("backward: composing, crop and F_id"))
            return rendered

        task.draw = drawn
        first, last = (optimiser for optimiser in task.optimisers.values())
        first.register_step_pre_hook(self._marker("backward: geometry"))
        last.register_step_post_hook(self._marker("Adam"))

    def _watch(self, name: str, part: nn.Module):
        """Mark where a network begins and ends, and where the gradient has come back to it."""
        after = {"texture": "backward: render", "geometry": "backward: texture", "F_id": "backward: losses and H"}

        def ends(module, given, made):
            self.seen[name] += 1
            if name != "landmarks":
                self.mark(name)
            else:
                self.mark("K" if self.seen[name] % 2 else "H")
            leaf = {"geometry": lambda: made.parameters.pose, "F_id": lambda: made, "texture": lambda: made}.get(name)
            if leaf and leaf().requires_grad:
                leaf().register_hook(self._marker(after[name]))

        part.register_forward_pre_hook(self._marker("between the networks"))
        part.register_forward_hook(ends)

    def _marker(self, name: str):
        """Return a hook that marks, and changes nothing."""
        def hook(*_):
            self.mark(name)

        return hook

    def mark(self, name: str):
        """End a part; its name may come several times a step."""
        if self.on_gpu:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self.marks.append((name, now))

    def milliseconds(self) -> dict[str, float]:
        """Return what each part took since the first mark, and forget it."""
        if self.on_gpu:
            torch.cuda.synchronize()
        taken = Counter()
        for (_, before), (name, now) in zip(self.marks, self.marks[1:]):
            taken[name] += before.elapsed_time(now) if self.on_gpu else 1e3 * (now - before)
        self.marks.clear()
        return dict(taken)


def profile_parts(task: FusionTask, raw: dict[str, torch.Tensor], steps: int) -> dict[str, float]:
    """Return the median milliseconds of each part of a step."""
    parts, prepare, rounds = Parts(task), model.train_fusion.prepare_photos, []

    def prepared(*given):
        image = prepare(*given)
        parts.mark("prepare")
        return image

    model.train_fusion.prepare_photos = prepared
    try:
        for step in range(WARM_UP + steps):
            parts.mark("begin")
            task.step(raw, step)
            rounds.append(parts.milliseconds())
    finally:
        model.train_fusion.prepare_photos = prepare
    return {name: statistics.median(taken[name] for taken in rounds[WARM_UP:]) for name in rounds[-1]}


def largest_kernels(task: FusionTask, raw: dict[str, torch.Tensor], steps: int = 3) -> list[dict]:
    """Return the kernels, on a CPU the operations, that take most of a step, and how often each is begun."""
    activities = [torch.profiler.ProfilerActivity.CPU, *[torch.profiler.ProfilerActivity.CUDA] * task.on_gpu]
    for step in range(WARM_UP):
        task.step(raw, step)
    with torch.profiler.profile(activities=activities) as profile:
        for step in range(steps):
            task.step(raw, step)
        if task.on_gpu:
            torch.cuda.synchronize()
    of_device = torch.autograd.DeviceType.CUDA if task.on_gpu else torch.autograd.DeviceType.CPU
    events = [event for event in profile.key_averages() if event.device_type == of_device]
    taken = {event.key: event.self_device_time_total if task.on_gpu else event.self_cpu_time_total for event in events}
    counts = {event.key: event.count for event in events}
    return [{
        "name": name[:120], "milliseconds_a_step": round(taken[name] / 1e3 / steps, 3),
        "calls_a_step": round(counts[name] / steps),
    } for name in sorted(taken, key=taken.get, reverse=True)[:KERNELS]]


def waits(task: FusionTask, raw: dict[str, torch.Tensor]) -> dict[str, int]:
    """Return where the program waits for the GPU in a step, file and line, and how often."""
    task.step(raw, 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        task.step(raw, 1)
        torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{Path(warning.filename).name}:{warning.lineno}" for warning in caught)


def floor(task: FusionTask, raw: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the least GFLOP of each part of a step: of its convolutions and products.

    A multiplication and an addition are two. The backward pass of a trained network costs twice the forward one, of a
    frozen one that leads the gradient on once.
    """
    image, network = prepare_photos(raw, task.device)[:1], task.network
    crop = image.new_zeros(1, 3, CROP_SIZE, CROP_SIZE)

    @torch.no_grad()
    def count(part, *given) -> float:
        with FlopCounterMode(display=False) as counter:
            part(*given)
        return counter.get_total_flops() * len(raw["image"]) / 1e9

    geometry = count(network.geometry, image)
    texture = count(network.generator, image, image, network.landmarks(image)[-1])
    landmarks, features = count(network.landmarks, image), count(task.identity, crop)
    return {
        "start": geometry, "geometry": geometry, "texture": texture, "K": landmarks, "H": landmarks,
        "F_id": 2 * features, "backward: losses and H": landmarks, "backward: composing, crop and F_id": features,
        "backward: texture": 2 * texture, "backward: geometry": 2 * geometry,
    }


def agreement(ours: FusionTask, exact: FusionTask, raw: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return how far one step's losses are from those of float32, relatively, and 1 - cosine of the gradients.

    Random heatmaps have many peaks as high as the highest, so what is laid on landmarks differs: see that K's are
    trained, or leave those losses out.
    """
    losses, gradients = [], []
    for task in (ours, exact):
        image = prepare_photos(raw, task.device).contiguous(memory_format=task.memory_format)
        task.network.eval()
        losses.append(task.losses(image))
        losses[-1]["loss"].backward()
        gradients.append({
            name: torch.cat([p.grad.flatten() for p in task.networks[name].parameters() if p.grad is not None])
            for name in task.optimisers
        })
        for network in task.networks.values():
            network.zero_grad(set_to_none=True)
    found = {key: abs(losses[0][key].item() / losses[1][key].item() - 1) for key in ("pixel", "loss")}
    for name, gradient in gradients[0].items():
        cosine = torch.cosine_similarity(gradient.double(), gradients[1][name].double(), 0)
        found[f"gradient_{name}"] = 1 - cosine.item()
    return found


def measure(quick: bool) -> list[dict]:
    """Time steps with and without the networks that compare, on a GPU also in float32: rows for ``bench.py``."""
    device = torch.device(default_device())
    width, size, batch_size = (0.125, 64, 2) if quick else (1.0, 256, 16)
    faces, identity = random_faces(width, size)
    raw = RandomPhotos(size).batch(batch_size, device)

    def steps(variant: str):
        task = fusion_task(variant, faces, identity, batch_size, device)

        def step():
            task.step(raw, 0)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return step

    names = ["all losses", "pixels alone", *["float32"] * (device.type == "cuda")]
    ours, *others = interleaved({name: steps(name) for name in names}, 5 if quick else 20, 2).values()
    return [{
        "operation": f"fusion step, width {width}, {size} px, batch {batch_size}, {device.type}",
        "baseline": f"{name}: {batch_size / other.seconds:.1f} img/s",
        "ours": f"all losses: {batch_size / ours.seconds:.1f} img/s", "ratio": other.seconds / ours.seconds,
    } for name, other in zip(names[1:], others)]


@click.command()
@click.option("--width", type=float, default=1.0, show_default=True)
@click.option("--size", type=int, default=256, show_default=True)
@click.option("--batch-size", type=int, default=16, show_default=True)
@click.option("--steps", type=int, default=30, show_default=True, help="Timed steps of each measurement.")
@click.option("--variants", default=";".join(VARIANTS), help="Semicolon-separated.  [default: all]")
@click.option("--profile", is_flag=True, help="Also tell the parts of a step, its largest kernels and its numerics.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(width, size, batch_size, steps, variants, profile, device, output):
    """Time training steps of both streams together."""
    device = torch.device(device or default_device())
    faces, identity = random_faces(width, size)
    raw = RandomPhotos(size).batch(batch_size, device)
    report = {
        "benchmark": "train_fusion", **provenance(device), "width": width, "size": size, "batch_size": batch_size,
        "steps": steps, "results": [],
    }
    for name in variants.split(";"):
        if device.type == "cpu" and name.endswith(("compiled", "float32")):  # there all are float32 and not compiled
            continue
        task = fusion_task(name, faces, identity, batch_size, device)
        report["results"].append({"variant": name, **time_steps(task, (raw for _ in range(WARM_UP + steps)), steps)})
        click.echo(json.dumps(report["results"][-1]))
        del task
    if profile:
        report |= profiled(faces, identity, raw, steps, device)
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def profiled(faces, identity, raw, steps, device) -> dict:
    """Return the parts, kernels and numerics of a step, and print them."""
    batch_size = len(raw["image"])
    task = fusion_task("all losses", faces, identity, batch_size, device)
    least, taken = floor(task, raw), profile_parts(task, raw, steps)
    parts = {name: {"milliseconds": round(value, 3), "gflop": least.get(name)} for name, value in taken.items()}
    for name, part in sorted(parts.items(), key=lambda item: -item[1]["milliseconds"]):
        rate = part["gflop"] and part["gflop"] / part["milliseconds"]
        click.echo(
            f"{name:<36}{part['milliseconds']:>10.2f} ms"
            + (f"{part['gflop']:>12.1f} GFLOP{rate:>10.2f} TFLOP/s" if rate else "")
        )
    click.echo(f"{'all':<36}{sum(taken.values()):>10.2f} ms{sum(least.values()):>12.1f} GFLOP")
    kernels, numerics, waited = {}, {}, {}
    if task.on_gpu:
        waited = waits(fusion_task("all losses", faces, identity, batch_size, device), raw)
        click.echo(f"waits for the GPU: {json.dumps(waited)}")
    del task
    for ours, exact in COMPARED.items():
        task, twin = (fusion_task(variant, faces, identity, batch_size, device) for variant in (ours, exact))
        numerics[ours] = agreement(task, twin, raw)
        click.echo(json.dumps({"variant": ours, f"against {exact}": numerics[ours]}))
        del twin
        kernels[ours] = largest_kernels(task, raw)
        for name, milliseconds, calls in (kernel.values() for kernel in kernels[ours]):
            click.echo(f"{ours}: {milliseconds:>9.3f} ms{calls:>7} x  {name}")
        del task
    return {"parts": parts, "waits": waited, "kernels": kernels, "numerics": numerics}


if __name__ == "__main__":
    main()
