"""Which camera fits real photos best: how near the faces of annotated photos are to it, by landmarks and by pixels.

For each distance of the camera from the face model's origin the face model is fitted anew to the inner 51 landmarks
(the jaw's labels lie on an outline), with its prior; then the face is refined to look like the photo (`model.refine`).
The table has, for each set of photos: half the least of ``sum |label - point|^2 / sigma^2 + |coefficients|^2``, which
is what a photo says against that camera (a difference of 1 is a factor of e in likelihood); the distance of the inner
landmarks from their labels after that fit and after the refinement, pixels of the crop; and the photometric error after
the refinement, with the albedo that the fit began with and with its own.

Labels of re-posed copies (300W-LP) were made with an orthographic camera, and so were their pictures; 3-D labels of
AFLW2000-3D are a model fitted with one. Both therefore favour infinity.

    DUALFACE_REAL_DATA=... python benchmarks/camera_distance.py --size 128 --steps 40
"""

import math
import os
from pathlib import Path

import click
import numpy as np
import torch

from asmgen.crop import crop_image, face_square, square_transform
from asmgen.maps import AttributeMaps
from asmgen.refit import JAW, LANDMARK_SIGMA, Refitter
from asmgen.w300lp import find_samples, read_sample
from bfm.charts import make_chart
from bfm.open_face import open_face_model
from bfm.pose import project, transform_placement, transform_points
from model.dual_stream import Face, draw_face
from model.fusion_losses import photometric_error
from model.geometry import Parameters, denormalise_position, normalise_position
from model.refine import refine
from model.render import FaceRenderer

DISTANCES = (500.0, 1000.0, 2000.0, math.inf)
SETS = ("aflw2000_3d", "300w_lp")
BATCH = 11


@click.command()
@click.option("--size", default=128, show_default=True, help="Side of the crops and of the maps, pixels.")
@click.option("--steps", default=40, show_default=True, help="Of the refinement; 0 leaves it out.")
@click.option("--distance", "distances", multiple=True, type=float, default=DISTANCES, show_default=True,
              help="Of the camera, mm.")
def main(size: int, steps: int, distances: tuple[float, ...]):
    """Print the table."""
    root = Path(os.environ["DUALFACE_REAL_DATA"])
    model = open_face_model()
    refitter, face_model = Refitter(model), model.face_only()
    maps = AttributeMaps.from_model(face_model, make_chart(face_model, size=size))
    click.echo(f"{size} x {size} pixels, {steps} steps\n")
    click.echo(f"{'photos':14}{'distance':>9}{'against':>9}{'points':>8}{'refined':>9}{'pixels':>9}{'own albedo':>12}")
    for name in SETS:
        photos = read_photos(root / name, refitter, size)
        for distance in distances:
            renderer = FaceRenderer(face_model, maps, distance)
            rows = []
            for begin in range(0, len(photos), BATCH):
                rows += measured(photos[begin:begin + BATCH], model, maps, renderer, steps)
            against, points, refined, pixels, own = np.mean(rows, axis=0)
            click.echo(
                f"{name:14}{distance:9.0f}{against:9.2f}{points:8.2f}{refined:9.2f}{pixels:9.4f}{own:12.4f}"
            )


def read_photos(folder: Path, refitter: Refitter, size: int) -> list[dict]:
    """Crops of the annotated photos, their landmarks, and the face model fitted to them with an orthographic camera."""
    photos = []
    for entry in find_samples(folder):
        if not (entry.parameters_path or entry.landmarks_path):
            continue
        sample = read_sample(entry, None)
        fit = refitter.fit(sample.image, sample.landmarks, sample.landmark_kind)
        square = face_square(sample.landmarks)
        transform = square_transform(square, size)
        pose, position = transform_placement(fit.pose.astype(float), fit.position.astype(float), transform)
        photos.append({
            "image": crop_image(sample.image, square, size), "fit": fit, "pose": pose, "position": position,
            "landmarks": transform_points(sample.landmarks.astype(float), transform),
        })
    return photos


def measured(photos, model, maps, renderer, steps) -> list[tuple[float, ...]]:
    """One row of the table a photo."""
    found = [fit_landmarks(model, photo, renderer.camera_distance) for photo in photos]
    id_coeffs, exp_coeffs, pose, position, against = (np.stack(part).astype(np.float32) for part in zip(*found))
    albedo_coeffs, light = (
        np.stack([getattr(photo["fit"], key) for photo in photos]) for key in ("albedo_coeffs", "light")
    )
    albedo = maps.chart.unwrap(model.face_only().albedo(albedo_coeffs)).clip(0, 1)
    image, labels = (np.stack([photo[key] for photo in photos]).astype(np.float32) for key in ("image", "landmarks"))
    image, labels = torch.tensor(image).permute(0, 3, 1, 2) / 255, torch.tensor(labels)
    size = image.shape[-1]
    position = normalise_position(torch.tensor(position), size)
    face = Face(
        torch.tensor(maps.identity_map(id_coeffs)), torch.tensor(maps.expression_map(exp_coeffs)), torch.tensor(albedo),
        Parameters(torch.tensor(albedo_coeffs), torch.tensor(light), torch.tensor(pose), position),
    )
    refined = refine(face, image, renderer, steps, maps=maps, landmarks=labels)
    plain = draw_face(renderer, refined.face._replace(albedo_map=face.albedo_map))
    pixels = photometric_error(plain.image, image, plain.mask)
    points = [inner_error(renderer, some, labels) for some in (face, refined.face)]
    return list(zip(against.tolist(), *(values.tolist() for values in (*points, pixels, refined.after))))


def inner_error(renderer: FaceRenderer, face: Face, labels: torch.Tensor) -> torch.Tensor:
    """(B,) mean distance of the inner landmarks from their labels, pixels."""
    position = denormalise_position(face.parameters.position, face.albedo_map.shape[-1])
    vertices = renderer.vertices(face.identity_map + face.expression_map)
    points = renderer.project_landmarks(vertices, face.parameters.pose, position)
    return (points - labels)[:, JAW:].norm(dim=-1).mean(1)


def fit_landmarks(model, photo: dict, distance: float) -> tuple[np.ndarray, ...]:
    """Coefficients, placement and half the least squares of the fit to the inner landmarks, by this camera."""
    at = model.landmarks[JAW:]
    basis = torch.tensor(np.concatenate([model.id_basis[:, at], model.exp_basis[:, at]]), dtype=torch.float64)
    mean, labels = torch.tensor(model.mean_shape[at]).double(), torch.tensor(photo["landmarks"][JAW:])
    fit, scale = photo["fit"], float(photo["position"][2])
    start = np.concatenate([
        fit.id_coeffs, fit.exp_coeffs, photo["pose"], (photo["position"][:2]) / scale / 10, [0]
    ])
    free = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    count = len(basis)

    def placement():
        shift, growth = free[count + 3:count + 5] * 10 * scale, scale * free[-1:].exp()
        return free[count:count + 3], torch.cat([shift, growth])

    def objective():
        points = project(mean + torch.tensordot(free[:count], basis, 1), *placement(), distance)[:, :2]
        return (
            ((points - labels) / (scale * LANDMARK_SIGMA)).square().sum() + free[:count].square().sum()
        ) / 2

    optimiser = torch.optim.LBFGS(
        [free], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=1e-12
    )

    def closure():
        optimiser.zero_grad()
        value = objective()
        value.backward()
        return value

    optimiser.step(closure)
    pose, position = (part.detach().numpy() for part in placement())
    ids = len(model.id_basis)
    coeffs = free.detach().numpy()[:count]
    return coeffs[:ids], coeffs[ids:], pose, position, np.array(objective().item())


if __name__ == "__main__":
    main()
