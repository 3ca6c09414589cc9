"""The table of the texture stream: each variant of the paper's ablations, trained alike, on held-out identities.

The error is the mean absolute difference from I_a over the texels that the photo shows, RGB in [0, 1], beside that of
the linear albedo I_u itself. Seeds, time limit and the JSON file: `variants.py`.

    python benchmarks/texture_table.py FTD runs --geometry GEOMETRY_RUN --landmarks LANDMARK_RUN --steps 10000 -o t.json
"""

from pathlib import Path

import click
import torch
from result_tables import Column, table
from variants import run_variants, table_options

from bfm.model_file import load_model
from cli.errors import one_sentence
from model.checkpoint import weights_sha256
from model.config import TextureConfig
from model.data import TEXTURE, FaceDataset, face_in_chart
from model.landmarks import load_landmark_network
from model.perceptual import load_perceptual
from model.train_geometry import default_device
from model.train_texture import TextureTask, albedo_predictor

VARIANTS = {
    "adain": {"stylisation": "adain"},
    "transform": {"stylisation": "transform"},
    "n8": {"regions": 8},
    "n16": {"regions": 16},
    "n32": {"regions": 32},
    "n16-no-skips": {"regions": 16, "skips": False},
    "n16-no-landmarks": {"regions": 16, "landmark_branch": False},
}
COLUMNS = {
    "MAE on held-out identities": Column("albedo_mae", 4, "linear_mae"),
    "SSIM": Column("albedo_ssim", 3, "linear_ssim"), "steps": Column("steps", 0),
    "images/s": Column("images_per_second", 0), "peak memory, MiB": Column("peak_memory_mib", 0),
    "parameters": Column("generator_parameters", 0),
}


def guided(config: TextureConfig) -> bool:
    """Return whether a variant asks the landmark network."""
    return config.stylisation == "srsm" and config.landmark_branch


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("runs", type=click.Path(file_okay=False, path_type=Path))
@click.option("--geometry", type=click.Path(exists=True, path_type=Path), help="Geometry run for the contextual loss.")
@click.option("--perceptual", type=click.Path(exists=True, path_type=Path), help="VGG-19 file, instead of it.")
@click.option("--landmarks", type=click.Path(exists=True, path_type=Path), help="Landmark run, or a 3D-FAN file.")
@click.option("--face-model", default="open", show_default=True)
@click.option("--steps", type=int, default=10_000, show_default=True, help="Of each run.")
@click.option("--batch-size", type=int, default=8, show_default=True)
@click.option("--width", type=float, default=1.0, show_default=True)
@click.option("--learning-rate", type=float, default=1e-4, show_default=True)
@click.option("--validation-fraction", type=float, default=0.05, show_default=True)
@click.option("--log-every", type=int, default=100, show_default=True)
@click.option("--predicted-albedo", is_flag=True, help="I_u from the p_t that the geometry run predicts.")
@table_options(VARIANTS)
def main(shards, runs, geometry, perceptual, landmarks, face_model, steps, batch_size, width, learning_rate,
         validation_fraction, log_every, predicted_albedo, variants, seeds, minutes, workers, device, output):
    """Train variants of the texture stream on SHARDS, each run into its folder in RUNS, and print their table."""
    configs = {
        name: TextureConfig(
            steps=steps, batch_size=batch_size, width=width, learning_rate=learning_rate, log_every=log_every,
            validation_fraction=validation_fraction, validate_every=steps, checkpoint_every=steps,
            predicted_albedo=predicted_albedo, **VARIANTS[name],
        ) for name in variants
    }
    for name, config in configs.items():
        if guided(config) and landmarks is None:
            raise click.UsageError(f"{name} needs --landmarks")
    if predicted_albedo and geometry is None:
        raise click.UsageError("--predicted-albedo needs --geometry")
    with one_sentence():
        dataset, device = FaceDataset(shards, TEXTURE), torch.device(device or default_device())
        face, chart = face_in_chart(dataset.attributes, load_model(face_model), dataset.chart_uv)
        phi = load_perceptual(perceptual, geometry)
        network = load_landmark_network(landmarks) if landmarks else None
        stream = albedo_predictor(geometry, dataset.attributes) if predicted_albedo else None
        report = run_variants(
            lambda config: TextureTask(
                dataset, face, chart, config, device, workers, phi=phi, geometry=stream,
                landmarks=network if guided(config) else None,
            ),
            configs, range(seeds), runs, output, columns=COLUMNS, start="linear p_t", minutes=minutes, same={
                "samples_sha256": dataset.samples_sha256,
                **{key: weights_sha256(used) if used else "" for key, used in (("phi", phi), ("K", network))},
            },
        )
    click.echo(table(report))


if __name__ == "__main__":
    main()
