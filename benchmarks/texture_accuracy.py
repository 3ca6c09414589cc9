"""How true extracted textures are, on rendered faces whose albedo and light are known.

Renders faces (`asmgen.synth`), takes their textures (`texgen.texture`) with the annotation or with the face model
fitted to the landmarks, and prints a table: mean absolute error of I_a against the albedo the face was rendered with
(skin detail included), on visible and on filled texels of the chart; of the shading against the true light's, root
mean square over the visible normals; and how often visibility agrees with ray casting, over all surface texels and over
those more than 1.5 pixels from an outline. RGB and shading in units where 1 is white.

    python benchmarks/texture_accuracy.py --count 60 --seed 7
"""

import tempfile
from pathlib import Path

import click
import numpy as np
from scipy.ndimage import distance_transform_edt

from asmgen.photometry import Photometry
from asmgen.refit import Refitter
from asmgen.synth import synthesize_300wlp
from asmgen.synthetic_faces import random_face
from asmgen.w300lp import find_samples, read_sample
from bfm.charts import make_chart
from bfm.light import sh_basis
from bfm.open_face import open_face_model
from bfm.rasterize import rasterize
from texgen.texture import CELL, FACING, TextureMapper

COPIES = 4
RAYS = 300
AWAY = 1.5


@click.command()
@click.option("--count", default=60, show_default=True, help="Photos, four poses of each face.")
@click.option("--seed", default=7, show_default=True)
@click.option("--size", default=256, show_default=True, help="Side of the chart, texels.")
def main(count: int, seed: int, size: int):
    """Print the table."""
    model = open_face_model()
    chart = make_chart(model, size=size)
    mapper, photometry, refitter = TextureMapper(model, chart), Photometry(model), Refitter(model)
    rows = {"annotated albedo, true light": [], "annotated albedo, fitted light": [], "refit": []}
    agreement = []
    with tempfile.TemporaryDirectory() as folder:
        synthesize_300wlp(Path(folder, "faces"), model, count, seed=seed, copies=COPIES)
        for entry in find_samples(Path(folder, "faces")):
            photo = read_sample(entry, model)
            image = np.asarray(photo.image)
            face = random_face(model, np.random.default_rng([seed, int(photo.name.split("_")[1])]))
            truth = np.moveaxis(chart.unwrap(face.colours), 0, -1)
            fitted, _ = photometry.fit_light(
                image, photo.id_coeffs, photo.exp_coeffs, photo.albedo_coeffs, photo.pose, photo.position
            )
            refit = refitter.fit(photo.image, photo.landmarks, photo.landmark_kind)
            for row, shape, light in zip(rows.values(), (photo, photo, refit), (photo.light, fitted, refit.light)):
                vertices = mapper.vertices(shape.id_coeffs[None], shape.exp_coeffs[None])[0]
                texture = mapper.extract(image, vertices, shape.pose, shape.position, light)
                row.append(errors(texture, truth, light, photo.light, chart.mask))
            vertices = mapper.vertices(photo.id_coeffs[None], photo.exp_coeffs[None])[0]
            agreement.append(visibility_agreement(model, mapper, vertices, photo, image))
    click.echo(f"{count} photos, seed {seed}, {size} x {size} texels\n")
    click.echo(f"{'':32}{'I_a visible':>12}{'I_a filled':>12}{'shading RMS':>13}{'visible':>9}")
    for name, row in rows.items():
        visible, filled, shading, share = np.mean(row, axis=0)
        click.echo(f"{name:32}{visible:12.4f}{filled:12.4f}{shading:13.4f}{share:8.1%}")
    everywhere, away = np.mean(agreement, axis=0)
    click.echo(
        f"\nvisibility agrees with ray casting on {everywhere:.2%} of the texels, on {away:.2%} of those more than "
        f"{AWAY} px from an outline (worst photo {np.min(agreement, axis=0)[1]:.2%})"
    )


def errors(texture, truth, light, true_light, mask) -> tuple[float, float, float, float]:
    """MAE of visible and of filled texels, RMS of the shading in sight, share of the chart in sight."""
    difference = np.abs(texture.filled_albedo() - truth).mean(axis=-1)
    seen = texture.visible
    shading = sh_basis(texture.normals[seen]) @ (light - true_light)
    return (
        difference[seen].mean(), difference[mask & ~seen].mean(), np.sqrt((shading**2).mean()),
        seen.sum() / mask.sum(),
    )


def visibility_agreement(model, mapper, vertices, photo, image) -> tuple[float, float]:
    """Share of texels, of all drawn and of those away from outlines, on which `texgen.occlusion` and rays agree."""
    placed = mapper.surface.place(vertices, photo.pose, photo.position)
    texels, normals = (values.take(mapper.surface.texels, axis=1) for values in (placed.places, placed.normals))
    front, cell = normals[2] > FACING, CELL * mapper.spacing * float(photo.position[2])
    hidden = mapper.occlusion.hidden(placed.points, placed.away, texels, np.flatnonzero(front), cell)
    drawn = np.random.default_rng(0).choice(len(front), RAYS, replace=False)
    seen, texels, points = (front & ~hidden)[drawn], texels.T[drawn], placed.points.T
    truth = front[drawn] & ray_casts_free(texels, points, model.triangles)
    height, width = image.shape[:2]
    ids, barycentric = rasterize(points[:, :2], points[:, 2], model.triangles, height, width)
    depth = np.where(ids < 0, np.nan, (points[model.triangles[ids], 2] * barycentric).sum(-1))
    outline = np.isnan(depth)
    for axis in (0, 1):
        jump = np.abs(np.diff(depth, axis=axis, append=np.nan)) > 3
        outline |= jump | np.roll(jump, 1, axis)
    column, row = np.clip(np.rint(texels[:, :2]), 0, [width - 1, height - 1]).astype(int).T
    away = distance_transform_edt(~outline)[row, column] > AWAY + 1
    agree = seen == truth
    return agree.mean(), agree[away].mean()


def ray_casts_free(origins, points, triangles) -> np.ndarray:
    """(N,) whether a ray from each origin toward the camera meets no triangle (Moeller and Trumbore 1997)."""
    a, b, c = (points[triangles[:, corner]].astype(np.float64) for corner in range(3))
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    free = np.ones(len(origins), bool)
    for ray, origin in enumerate(origins.astype(np.float64)):
        near = ((low[:, :2] <= origin[:2]) & (origin[:2] <= high[:, :2])).all(1) & (high[:, 2] > origin[2])
        edge_b, edge_c, offset = b[near] - a[near], c[near] - a[near], origin - a[near]
        across = np.cross([0, 0, 1], edge_c)
        determinant = (edge_b * across).sum(1)
        solid = np.abs(determinant) > 1e-12
        scale = np.divide(1, determinant, out=np.zeros(len(solid)), where=solid)
        u, turned = (offset * across).sum(1) * scale, np.cross(offset, edge_b)
        v, distance = turned[:, 2] * scale, (edge_c * turned).sum(1) * scale
        free[ray] = not (solid & (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 1e-2)).any()
    return free


if __name__ == "__main__":
    main()
