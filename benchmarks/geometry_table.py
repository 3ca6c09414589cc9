"""The table of the geometry stream: the losses of Table III, one map for both (Fig. 12), and linear coefficients.

Measured on photos of people held out: the dense error in both alignments (`model.evaluation.dense`), the NME of 68
landmarks (`model.evaluation.nme`), and without any alignment, in canonical space, the error of identity, expression and
full face; the first row is the mean face. ICP takes longest: it is measured on some of the photos. With --stress, the
folder of `dualface synth expressions`, also how the error grows with the expression, drawn beside the JSON file. Seeds,
time limit and the JSON file: `variants.py`.

    python benchmarks/geometry_table.py ASMD runs --width 0.5 --batch-size 32 --minutes 0.7 --stress FACES -o t.json
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import torch
from variants import Column, run_variants, table, table_options

from bfm.model_file import load_model
from bfm.pose import project
from cli.errors import one_sentence
from model.config import GeometryConfig
from model.data import FaceDataset, validation_batches
from model.evaluation.dense import ALIGNMENTS, dense_nme
from model.evaluation.nme import landmark_nme
from model.geometry import denormalise_position
from model.train_geometry import GeometryTask, default_device, map_space

VARIANTS = {
    "mse": {"weighted": False, "eta_s": 0.0, "eta_r": 0.0},
    "w": {"eta_s": 0.0, "eta_r": 0.0},
    "w-sym": {"eta_r": 0.0},
    "full": {},
    "single": {"shape": "single", "eta_s": 0.0},
    "single-wide": {"shape": "single", "eta_s": 0.0, "decoder_width": 2**0.5},
    "linear": {"shape": "linear"},
}
COLUMNS = {
    "dense NME, correspondence, %": Column("correspondence_percent", 3, "mean_correspondence_percent"),
    "dense NME, ICP, %": Column("icp_percent", 3, "mean_icp_percent"),
    "68-point NME, %": Column("landmark_percent", 2),
    "identity, mm": Column("identity_mm", 3, "mean_identity_mm"),
    "expression, mm": Column("expression_mm", 3, "mean_expression_mm"),
    "full, mm": Column("full_mm", 3, "mean_full_mm"),
    "pose, degrees": Column("pose_degrees", 2),
    "steps": Column("steps", 0), "images/s": Column("images_per_second", 0),
    "parameters": Column("geometry_parameters", 0),
}


def dense_errors(found: np.ndarray, true: np.ndarray, landmarks: np.ndarray, icp_photos: int) -> dict[str, float]:
    """Return the mean dense NME of (N, V, 3) shapes in each alignment, percent; ICP of at most so many of them."""
    few = np.unique(np.linspace(0, len(found) - 1, icp_photos).round().astype(int))
    chosen = {"correspondence": range(len(found)), "icp": few}
    with ThreadPoolExecutor() as pool:
        return {
            f"{alignment}_percent": float(np.mean(list(pool.map(
                lambda index: dense_nme(found[index], true[index], landmarks, alignment), chosen[alignment]
            )))) for alignment in ALIGNMENTS
        }


class HeldOut:
    """Measures trained streams on the people held out, who are the same for all."""

    def __init__(self, icp_photos: int):
        self.icp_photos, self.of_mean = icp_photos, None

    @torch.no_grad()
    def __call__(self, task: GeometryTask, run_dir: Path) -> dict[str, float]:
        """Return what the table has beside the last validation."""
        maps, corners = task.maps, task.landmarks.cpu().numpy()
        found, true, identities, landmarks = ([] for _ in range(4))
        for raw in validation_batches(task.dataset, task.held_out, task.config.batch_size):
            batch = task.preparer(raw)
            predicted = task.network.eval()(batch.image.contiguous(memory_format=task.memory_format))
            shape = maps.vertices(predicted.identity_map + predicted.expression_map)
            position = denormalise_position(predicted.parameters.position, batch.image.shape[-1])
            points = project(shape[:, task.landmarks], predicted.parameters.pose, position)[..., :2]
            landmarks.append(landmark_nme(points.cpu().numpy(), batch.landmarks.cpu().numpy()))
            for parts, values in (
                (found, shape), (true, maps.vertices(batch.identity_map + batch.expression_map)),
                (identities, maps.vertices(batch.identity_map)),
            ):
                parts.append(values.cpu().numpy())
        found, true, identities, landmarks = map(np.concatenate, (found, true, identities, landmarks))
        if self.of_mean is None:
            mean = maps.vertices(maps.mean_map).cpu().numpy()
            self.of_mean = {
                **dense_errors(np.broadcast_to(mean, true.shape), true, corners, self.icp_photos),
                "identity_mm": distance(mean, identities), "expression_mm": distance(true, identities),
                "full_mm": distance(mean, true),
            }
        return {
            **dense_errors(found, true, corners, self.icp_photos), "landmark_percent": float(landmarks.mean()),
            **{f"mean_{key}": value for key, value in self.of_mean.items()},
        }


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the mean distance of corresponding vertices, mm."""
    return float(np.linalg.norm(ours - theirs, axis=-1).mean())


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("runs", type=click.Path(file_okay=False, path_type=Path))
@click.option("--face-model", default="open", show_default=True)
@click.option("--parameter-steps", type=int, default=1000, show_default=True, help="First phase of each run.")
@click.option("--steps", type=int, default=10_000, show_default=True, help="Of each run, both phases.")
@click.option("--batch-size", type=int, default=8, show_default=True)
@click.option("--width", type=float, default=1.0, show_default=True)
@click.option("--learning-rate", type=float, default=2e-4, show_default=True)
@click.option("--validation-fraction", type=float, default=0.05, show_default=True)
@click.option("--log-every", type=int, default=100, show_default=True)
@click.option("--icp-photos", type=int, default=32, show_default=True, help="On which the ICP error is measured.")
@table_options(VARIANTS)
def main(shards, runs, face_model, parameter_steps, steps, batch_size, width, learning_rate, validation_fraction,
         log_every, icp_photos, variants, seeds, minutes, workers, device, output):
    """Train variants of the geometry stream on SHARDS, each run into its folder in RUNS, and print their table."""
    if not parameter_steps < steps:
        raise click.UsageError(f"--steps must be above --parameter-steps, {parameter_steps}, got {steps}")
    configs = {
        name: GeometryConfig(
            parameter_steps=parameter_steps, stream_steps=steps - parameter_steps, batch_size=batch_size, width=width,
            learning_rate=learning_rate, log_every=log_every, validation_fraction=validation_fraction,
            validate_every=steps, checkpoint_every=steps, **VARIANTS[name],
        ) for name in variants
    }
    with one_sentence():
        dataset, device = FaceDataset(shards), torch.device(device or default_device())
        face, maps = map_space(dataset.attributes, load_model(face_model), dataset.chart_uv)
        report = run_variants(
            lambda config: GeometryTask(dataset, face, maps, config, device, workers), configs, range(seeds), runs,
            output, columns=COLUMNS, start="mean face", minutes=minutes, measure=HeldOut(icp_photos),
            same={"samples_sha256": dataset.samples_sha256, "icp_photos": icp_photos},
        )
    click.echo(table(report))


if __name__ == "__main__":
    main()
