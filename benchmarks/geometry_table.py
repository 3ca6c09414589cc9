"""The table of the geometry stream: the losses of Table III, one map for both (Fig. 12), and linear coefficients.

Measured on photos of people held out: the dense error in both alignments (`model.evaluation.dense`), the NME of 68
landmarks (`model.evaluation.nme`), and without any alignment, in canonical space, the error of identity, expression and
full face; the first row is the mean face. ICP takes longest: it is measured on some of the photos. With --stress, the
folder of `dualface synth expressions`, also the errors by unit and strength of the expression
(`model.evaluation.expression_errors`), which `expression_figure.py` draws. Seeds, time limit and the JSON file:
`variants.py`.

    python benchmarks/geometry_table.py ASMD runs --width 0.5 --batch-size 32 --minutes 0.7 --stress FACES -o t.json
"""

from pathlib import Path

import click
import torch
from geometry_measures import HeldOut, Stress
from result_tables import Column, table
from variants import run_variants, table_options

from bfm.model_file import load_model
from cli.errors import one_sentence
from model.config import GeometryConfig
from model.data import FaceDataset
from model.train_geometry import GeometryTask, default_device, map_space

VARIANTS = {
    "mse": {"weighted": False, "eta_s": 0.0, "eta_r": 0.0},
    "w": {"eta_s": 0.0, "eta_r": 0.0},
    "w-sym": {"eta_r": 0.0},
    "full": {},
    "w-both": {"expression_weighted": True},
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
    "stress: full, mm": Column("stress_full_mm", 3),
    "stress: moved region, mm": Column("stress_region_mm", 3),
    "stress: recovered": Column("stress_recovered", 3),
    "steps": Column("steps", 0), "images/s": Column("images_per_second", 0),
    "parameters": Column("geometry_parameters", 0),
}


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
@click.option("--icp-photos", type=click.IntRange(min=1), default=32, show_default=True,
              help="On which the ICP error is measured.")
@click.option("--stress", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of `dualface synth expressions`.")
@table_options(VARIANTS)
def main(shards, runs, face_model, parameter_steps, steps, batch_size, width, learning_rate, validation_fraction,
         log_every, icp_photos, stress, variants, seeds, minutes, workers, device, output):
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
        model = load_model(face_model)
        face, maps = map_space(dataset.attributes, model, dataset.chart_uv)
        held_out, stressed = HeldOut(icp_photos), stress and Stress(stress, model, maps, device)
        report = run_variants(
            lambda config: GeometryTask(dataset, face, maps, config, device, workers), configs, range(seeds), runs,
            output, columns=COLUMNS, start="mean face", minutes=minutes,
            measure=lambda task, _: held_out(task) | (stressed(task) if stressed else {}), same={
                "samples_sha256": dataset.samples_sha256, "icp_photos": icp_photos,
                "stress": stressed.known if stressed else None,
            },
        )
    click.echo(table(report))


if __name__ == "__main__":
    main()
