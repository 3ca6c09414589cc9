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
from bm_train_geometry import WARM_UP, measure
from provenance import provenance

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
            config = TextureConfig(width=width, batch_size=count, validation_fraction=0, **VARIANTS[name])
            guided = config.stylisation == "srsm" and config.landmark_branch
            phi = PerceptualFeatures(vgg19_layers(), *imagenet_normalisation(), "random") if config.omega_c else None
            task = TextureTask(
                triplets, face, chart, config, device, phi=phi,
                landmarks=LandmarkNetwork().eval().requires_grad_(False) if guided else None,
            )
            raw = triplets.batch(count, device)
            results.append({
                "variant": name, "batch_size": count, **measure(task, (raw for _ in range(WARM_UP + steps)), steps)
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
