"""What analysis by synthesis recovers, on rendered photos whose faces are known.

Faces are rendered by `asmgen.synth`, which knows skin detail, gloss, blur, noise and backgrounds that the renderer of
`model.refine` does not. Each starts from its truth, disturbed: pose by 3 degrees an axis, place by 2 pixels of 256,
scale by 2 %, light by 10 % and its other coefficients by about 0.2, coefficients of identity, expression and albedo
shrunk to 0.7 and mixed with 0.4 (0.3) of another face's. Labels are 1.5 pixels of 256 off. The table has the
photometric error, the angle between poses (degrees), the distances of landmarks (pixels of the crop), of vertices, of
neutral ones and of the expression's offsets (mm), and the albedo map's mean absolute error, means of all photos.

    python benchmarks/refine_accuracy.py --count 8 --size 128
"""

import os
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch

from asmgen.crop import crop_image, face_square, square_transform
from asmgen.maps import AttributeMaps
from asmgen.synth import synthesize_300wlp
from asmgen.synthetic_faces import random_face
from asmgen.w300lp import find_samples, read_sample
from bfm.charts import make_chart
from bfm.open_face import open_face_model
from bfm.pose import transform_placement, transform_points
from model.dual_stream import Face, draw_face
from model.fusion_losses import photometric_error
from model.geometry import Parameters, denormalise_position, normalise_position
from model.metrics import pose_distance
from model.refine import refine
from model.render import FaceRenderer

STEPS = (0, 20, 50, 100, 200)
COLUMNS = ("photo", "pose", "points", "mm", "identity", "expression", "albedo")


@click.command()
@click.option("--count", default=8, show_default=True, help="Photos.")
@click.option("--seed", default=3, show_default=True)
@click.option("--size", default=128, show_default=True, help="Side of the crops and of the maps, pixels.")
@click.option("--steps", multiple=True, type=int, default=STEPS, show_default=True, help="Of the optimiser.")
@click.option("--landmarks/--no-landmarks", default=True, show_default=True, help="Whether labels are given.")
def main(count: int, seed: int, size: int, steps: tuple[int, ...], landmarks: bool):
    """Print the table."""
    model = open_face_model()
    face_model = model.face_only()
    maps = AttributeMaps.from_model(face_model, make_chart(face_model, size=size))
    renderer = FaceRenderer(face_model, maps)
    with tempfile.TemporaryDirectory() as folder:
        synthesize_300wlp(Path(folder, "faces"), model, count, seed=seed, copies=1)
        scenes = [
            scene(read_sample(entry, model), model, maps, size, np.random.default_rng([seed, index, 1]), seed)
            for index, entry in enumerate(find_samples(Path(folder, "faces")))
        ]
    image, labels, start, truth = (
        batch([part[key] for part in scenes]) for key in ("image", "labels", "start", "truth")
    )
    cores = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    click.echo(f"{count} photos, seed {seed}, {size} x {size} pixels, {cores}\n")
    click.echo(f"{'steps':>6}" + "".join(f"{name:>11}" for name in COLUMNS) + f"{'s a photo':>11}")
    for number in steps:
        begun = time.perf_counter()
        found = refine(start, image, renderer, number, maps=maps, landmarks=labels if landmarks else None)
        seconds = (time.perf_counter() - begun) / count
        row = errors(found.face, truth, image, renderer, maps).mean(0).tolist()
        click.echo(f"{number:6}" + "".join(f"{value:11.4f}" for value in row) + f"{seconds:11.2f}")


def scene(sample, model, maps, size, rng, seed) -> dict:
    """A photo's crop and labels, and its face, as it is and disturbed."""
    square = face_square(sample.landmarks)
    transform = square_transform(square, size)
    pose, position = transform_placement(sample.pose.astype(float), sample.position.astype(float), transform)
    labels = transform_points(sample.landmarks.astype(float), transform) + rng.normal(0, 1.5 * size / 256, (68, 2))
    drawn = random_face(model, np.random.default_rng([seed, int(sample.name.split("_")[1])]))
    colours = drawn.colours[np.flatnonzero(model.regions)]  # skin detail included

    def mixed(coeffs: np.ndarray, share: float) -> np.ndarray:
        return (0.7 * coeffs + share * rng.standard_normal(len(coeffs))).astype(np.float32)

    others = mixed(sample.id_coeffs, 0.4), mixed(sample.exp_coeffs, 0.3), mixed(sample.albedo_coeffs, 0.4)
    light = sample.light * rng.uniform(0.8, 1.2) + rng.normal(0, [0, *[0.2] * 3, *[0.1] * 5])
    there = np.array([*position[:2] + rng.normal(0, 2 * size / 256, 2), position[2] * np.exp(rng.normal(0, 0.02))])

    def face(id_coeffs, exp_coeffs, albedo_coeffs, albedo, light, pose, position) -> dict:
        return {
            "identity_map": maps.identity_map(id_coeffs[None])[0],
            "expression_map": maps.expression_map(exp_coeffs[None])[0], "albedo_map": maps.chart.unwrap(albedo),
            "parameters": [albedo_coeffs, light, pose, position],
        }

    linear = model.face_only().albedo(others[2]).clip(0, 1)
    turned = pose + np.radians(rng.normal(0, 3, 3))
    return {
        "image": crop_image(sample.image, square, size).transpose(2, 0, 1) / np.float32(255), "labels": labels,
        "truth": face(
            sample.id_coeffs, sample.exp_coeffs, sample.albedo_coeffs, colours, sample.light, pose, position
        ),
        "start": face(*others, linear, light, turned, there),
    }


def batch(parts: list) -> torch.Tensor | Face:
    """Arrays, or the parts of faces, as one batch."""
    if not isinstance(parts[0], dict):
        return torch.tensor(np.stack(parts), dtype=torch.float32)
    maps = [batch([part[key] for part in parts]) for key in ("identity_map", "expression_map", "albedo_map")]
    albedo, light, pose, position = (batch(list(values)) for values in zip(*(part["parameters"] for part in parts)))
    return Face(*maps, Parameters(albedo, light, pose, normalise_position(position, maps[0].shape[-1])))


@torch.no_grad()
def errors(face: Face, truth: Face, image: torch.Tensor, renderer: FaceRenderer, maps: AttributeMaps) -> torch.Tensor:
    """(B, 7) the columns of the table."""
    drawn = draw_face(renderer, face)
    angle = pose_distance(face.parameters.pose, truth.parameters.pose)
    place = denormalise_position(truth.parameters.position, image.shape[-1])
    there = renderer.vertices(truth.identity_map + truth.expression_map)
    points = drawn.landmarks - renderer.project_landmarks(there, truth.parameters.pose, place)

    def distance(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        return (renderer.vertices(ours) - renderer.vertices(theirs)).norm(dim=-1).mean(1)

    return torch.stack([
        photometric_error(drawn.image, image, drawn.mask), angle, points.norm(dim=-1).mean(1),
        distance(face.identity_map + face.expression_map, truth.identity_map + truth.expression_map),
        distance(face.identity_map, truth.identity_map), distance(face.expression_map, truth.expression_map),
        (face.albedo_map - truth.albedo_map)[..., torch.as_tensor(maps.chart.mask)].abs().mean((1, 2)),
    ], 1)


if __name__ == "__main__":
    main()
