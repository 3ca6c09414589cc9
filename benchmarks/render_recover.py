"""From a picture back to the scene: faces are rendered, perturbed, and found again by gradient steps on the picture.

Random identities of the open face model with random skin are drawn under random poses, places and lights. From a pose
some degrees off, a place some pixels off, a size some percent off, a plain light and the mean shape, Adam lowers the
photometric loss through `model.render`; skin is known. Printed are the errors before and after, means over the faces.

    python benchmarks/render_recover.py --faces 8 --size 128 --steps 300
"""

import math
from dataclasses import replace

import click
import numpy as np
import torch

from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.light import UNIT_LIGHT
from bfm.morphable_model import MorphableModel
from bfm.open_face import open_face_model
from model.metrics import pose_distance
from model.render import FaceRenderer

MODES = 20
"""Identity modes of the faces, all of which are found."""

STEP_SIZES = {"pose": 0.02, "place": 0.008, "size": 0.008, "light": 0.1, "shape": 0.04}
"""Of Adam at first; in radians, sides of the picture, nepers, and the units of light and coefficients."""


def random_scene(model: MorphableModel, faces: int, seed: int) -> tuple[dict, dict, np.ndarray]:
    """Return what is to be found, where the search starts, and the albedo of the vertices; (faces, ...) arrays."""
    rng = np.random.default_rng(seed)
    truth = {
        "pose": rng.uniform(-1, 1, (faces, 3)) * [0.25, 0.6, 0.2],
        "place": 0.5 + rng.normal(0, 0.02, (faces, 2)),
        "size": np.log(0.0044) + rng.normal(0, 0.05, (faces, 1)),
        "light": np.array([2.6, 0.3, 0.6, 0.4, 0.05, 0.1, 0, 0, 0]) + rng.normal(0, 0.15, (faces, 9)),
        "shape": rng.normal(size=(faces, len(model.id_basis))),
    }
    start = {
        "pose": truth["pose"] + np.radians(rng.uniform(3, 6, (faces, 3)) * rng.choice([-1, 1], (faces, 3))),
        "place": truth["place"] + rng.uniform(0.01, 0.02, (faces, 2)) * rng.choice([-1, 1], (faces, 2)),
        "size": truth["size"] + 0.04 * rng.choice([-1, 1], (faces, 1)),
        "light": np.tile(np.array(UNIT_LIGHT) * 0.7, (faces, 1)),
        "shape": np.zeros((faces, len(model.id_basis))),
    }
    return truth, start, model.albedo(rng.standard_normal((faces, len(model.albedo_basis)), np.float32))


def recover(
    model: MorphableModel, renderer: FaceRenderer, faces: int, size: int, steps: int, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the errors of each face before and after the search."""
    device = renderer.triangles.device
    truth, start, albedo = random_scene(model, faces, seed)
    truth, start = (
        {key: torch.tensor(value, dtype=torch.float32, device=device) for key, value in scene.items()}
        for scene in (truth, start)
    )
    basis = model.id_basis.reshape(len(model.id_basis), -1)
    albedo, mean, basis = (torch.tensor(part, device=device) for part in (albedo, model.mean_shape, basis))

    def draw(scene):
        vertices = mean + (scene["shape"] @ basis).unflatten(1, (-1, 3))
        position = torch.cat([scene["place"], scene["size"].exp()], 1) * size
        return renderer.render_vertices(vertices, albedo, scene["light"], scene["pose"], position, size), vertices

    with torch.no_grad():
        target, true_vertices = draw(truth)

    def photometric(rendered):
        both = rendered.mask & target.mask
        return ((rendered.image - target.image).abs() * both).sum((1, 2, 3)) / both.sum((1, 2, 3)) / 3

    @torch.no_grad()
    def errors(scene):
        rendered, vertices = draw(scene)
        return {
            "pose_deg": pose_distance(scene["pose"], truth["pose"]),
            "position_px": size * (scene["place"] - truth["place"]).norm(dim=1),
            "scale_percent": 100 * (scene["size"] - truth["size"]).abs()[:, 0],
            "light_percent": 100 * (scene["light"] - truth["light"]).norm(dim=1) / truth["light"].norm(dim=1),
            "shape_mm": (vertices - true_vertices).norm(dim=2).mean(1),
            "landmarks_px": (rendered.landmarks - target.landmarks).norm(dim=2).mean(1),
            "photometric": photometric(rendered),
        }

    scene = {key: value.clone().requires_grad_() for key, value in start.items()}
    rates = [{"params": [scene[key]], "lr": rate} for key, rate in STEP_SIZES.items()]
    optimiser = torch.optim.Adam(rates, betas=(0.8, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    before = errors(scene)
    for _ in range(steps):
        optimiser.zero_grad()
        photometric(draw(scene)[0]).sum().backward()
        optimiser.step()
        schedule.step()
    return tuple({key: value.cpu().numpy() for key, value in some.items()} for some in (before, errors(scene)))


@click.command()
@click.option("--faces", type=int, default=8, show_default=True)
@click.option("--size", type=int, default=128, show_default=True, help="Side of the picture, pixels.")
@click.option("--steps", type=int, default=300, show_default=True)
@click.option("--device", help="[default: the GPU if there is one]")
def main(faces, size, steps, device):
    """Print the errors before and after, for an orthographic and a near camera."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = open_face_model().face_only()
    model = replace(model, id_basis=model.id_basis[:MODES], id_stddev=model.id_stddev[:MODES])
    maps = AttributeMaps.from_model(model, make_chart(model))
    for distance in (math.inf, 1000.0):
        renderer = FaceRenderer(model, maps, distance).to(device)
        before, after = recover(model, renderer, faces, size, steps)
        click.echo(f"camera at {distance} mm")
        for key in before:
            mean, worst = after[key].mean(), after[key].max()
            click.echo(f"{key:<20}{before[key].mean():>10.4f} ->{mean:>10.4f}   worst{worst:>10.4f}")


if __name__ == "__main__":
    main()
