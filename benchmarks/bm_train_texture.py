"""Speed and memory of training the texture stream, and what each of its parts costs.

Times whole training steps from one batch that lies on the device: preparing, augmentation, K, generator, losses,
backward, both Adams. A part costs what a step is faster without it. The baseline is AdaIN, the stylisation without
regions. K (FAN, 4 stacks) and phi (VGG-19) have random weights here: their speed is that of trained ones.

    python benchmarks/bm_train_texture.py --width 1 --size 256 --batch-size 8 -o texture.json
"""

import json
from pathlib import Path

import click
import numpy as np
import torch
from bm_train_geometry import WARM_UP, time_steps
from provenance import provenance
from timing import interleaved

from bfm.charts import make_chart
from bfm.model_file import load_model
from model.config import TextureConfig
from model.landmarks import LandmarkNetwork
from model.perceptual import PerceptualFeatures, imagenet_normalisation, vgg19_layers
from model.train_geometry import default_device
from model.train_texture import TextureTask

VARIANTS = {
    "AdaIN": {"stylisation": "adain"},
    "n=16": {"regions": 16},
    "n=16, compiled": {"regions": 16, "compiled": True},
    "n=16, without K": {"regions": 16, "landmark_branch": False},
    "n=16, without contextual loss": {"regions": 16, "omega_c": 0.0},
    "n=16, without discriminator": {"regions": 16, "omega_a": 0.0},
    "n=16, generator alone": {"regions": 16, "landmark_branch": False, "omega_c": 0.0, "omega_a": 0.0},
    "n=16, float32": {"regions": 16, "mixed_precision": False, "channels_last": False},
    "n=8": {"regions": 8},
    "n=32": {"regions": 32},
}


class RandomTriplets:
    """Stands in for a `FaceDataset`: noise for photos and maps."""

    def __init__(self, model, size: int):
        self.attributes = {
            "encoding": "params", "size": size, "chart": "harmonic", "lit": False, "face_model": model.name,
            "face_model_sha256": model.sha256, "licence": model.licence, "coefficients": model.coefficients,
        }
        self.samples_sha256 = ""
        self.sources = [f"R/R_{index}_0" for index in range(8)]
        self.albedo_modes = len(model.albedo_basis)

    def batch(self, batch_size: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Return one raw batch on a device."""
        size, rng = self.attributes["size"], np.random.default_rng(0)
        pictures = rng.integers(0, 256, (2, batch_size, 3, size, size), np.uint8)
        raw = {
            "image": pictures[0], "albedo_map": pictures[1],
            "mask": rng.integers(0, 2, (batch_size, size, size), np.uint8),
            "albedo_coeffs": rng.standard_normal((batch_size, self.albedo_modes), np.float32),
        }
        return {key: torch.tensor(value, device=device) for key, value in raw.items()}


def texture_task(variant: str, width: float, batch_size: int, triplets, face, chart, device: torch.device):
    """Return the task of one of the `VARIANTS`, with random K and phi where it wants them."""
    config = TextureConfig(width=width, batch_size=batch_size, validation_fraction=0, **VARIANTS[variant])
    guided = config.stylisation == "srsm" and config.landmark_branch
    phi = PerceptualFeatures(vgg19_layers(), *imagenet_normalisation(), "random") if config.omega_c else None
    return TextureTask(
        triplets, face, chart, config, device, phi=phi,
        landmarks=LandmarkNetwork().eval().requires_grad_(False) if guided else None,
    )


def measure(quick: bool) -> list[dict]:
    """Time training steps of both stylisations in turns: rows for ``bench.py``."""
    device, model = torch.device(default_device()), load_model("open")
    width, size, batch_size = (0.125, 64, 2) if quick else (1.0, 256, 8)
    triplets, face = RandomTriplets(model, size), model.face_only()
    chart, raw = make_chart(face, size=size), triplets.batch(batch_size, device)

    def steps(variant: str):
        task = texture_task(variant, width, batch_size, triplets, face, chart, device)

        def step():
            task.step(raw, 0)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return step

    adain, ours = interleaved({name: steps(name) for name in ("AdaIN", "n=16")}, 5 if quick else 20, 2).values()
    return [{
        "operation": f"texture training step, width {width}, {size} px, batch {batch_size}",
        "baseline": f"AdaIN, no regions: {batch_size / adain.seconds:.1f} img/s",
        "ours": f"SRSM n=16: {batch_size / ours.seconds:.1f} img/s", "ratio": adain.seconds / ours.seconds,
    }]


@click.command()
@click.option("--width", type=float, default=1.0, show_default=True)
@click.option("--size", type=int, default=256, show_default=True)
@click.option("--batch-size", type=int, multiple=True, default=(8,), show_default=True, help="May be repeated.")
@click.option("--steps", type=int, default=30, show_default=True, help="Timed steps of each measurement.")
@click.option("--variants", default=";".join(VARIANTS), help="Semicolon-separated.  [default: all]")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(width, size, batch_size, steps, variants, device, output):
    """Time training steps of the texture stream."""
    device, model = torch.device(device or default_device()), load_model("open")
    triplets, face = RandomTriplets(model, size), model.face_only()
    chart = make_chart(face, size=size)
    results = []
    for count in batch_size:
        for name in variants.split(";"):
            task = texture_task(name, width, count, triplets, face, chart, device)
            raw = triplets.batch(count, device)
            results.append({
                "variant": name, "batch_size": count, **time_steps(task, (raw for _ in range(WARM_UP + steps)), steps)
            })
            click.echo(json.dumps(results[-1]))
            del task
    report = {
        "benchmark": "train_texture", **provenance(device),
        "width": width, "size": size, "steps": steps, "results": results,
    }
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
