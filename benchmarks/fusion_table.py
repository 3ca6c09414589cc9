"""The table of the fusion module: each loss left out in turn (Fig. 17), on held-out identities, before and after.

All variants start from the same two runs, and those of one seed see the same batches. The photometric error is the mean
absolute difference of photo and rendered face over the pixels drawn, RGB in [0, 1]; the texture error is that of the
albedo map from I_a over the texels that the photo shows (of FTD shards); millimetres are vertex distances from the
true shape. Seeds, time limit and the JSON file: `variants.py`.

    python benchmarks/fusion_table.py FTD runs --geometry GEOMETRY_RUN --texture TEXTURE_RUN --identity IDENTITY_RUN \
        --steps 1000 --minutes 1.5 -o fusion.json --figure fusion.png
"""

import copy
import math
from pathlib import Path

import click
import torch
from result_tables import Column, table
from variants import HELD_OUT_SEED, run_variants, table_options

from bfm.model_file import load_model
from cli.errors import one_sentence
from model.checkpoint import weights_sha256
from model.config import FusionConfig
from model.data import FUSION, FaceDataset, split_identities
from model.dual_stream import load_dual_stream
from model.figures.fusion import fusion_figure
from model.identity import load_identity_network
from model.landmarks import load_landmark_network
from model.parsing import load_parsing_network
from model.train_fusion import FusionTask
from model.train_geometry import default_device
from model.trainer import read_log

VARIANTS = {
    "full": {},
    "no-identity": {"lambda_identity": 0.0},
    "no-pixel": {"lambda_pixel": 0.0},
    "no-alignment": {"lambda_alignment": 0.0},
    "no-keep": {"lambda_keep": 0.0},
    "keep-less": {"lambda_keep": 0.02},
    "smooth": {"lambda_keep": 0.02, "lambda_smoothness": 1.0},
}
"""Fig. 17 has (d) no-identity and (e) no-pixel; its (c) and (f) leave out losses of the texture stream. Without `keep`
the losses are those of Eq. (23) alone; the last two hold the geometry otherwise."""

ERRORS = {
    "photometric error": ("photometric_mae", 4), "texture MAE": ("albedo_mae", 4), "linear MAE": ("linear_mae", 4),
    "identity, mm": ("identity_mm", 2), "expression, mm": ("expression_mm", 2), "full, mm": ("full_mm", 2),
    "pose, degrees": ("pose_degrees", 2), "landmarks, px": ("landmark_pixels", 2),
}
COLUMNS = {
    **{heading: Column(key, digits, f"start_{key}") for heading, (key, digits) in ERRORS.items()},
    "spread of identity, %": Column("identity_spread_percent", 0), "moved, mm": Column("from_start_mm"),
    "steps": Column("steps", 0), "images/s": Column("images_per_second", 0),
    "peak memory, MiB": Column("peak_memory_mib", 0),
}
DRAWN = 5
"""Rows of the figure."""


def last_statistics(task: FusionTask, run_dir: Path) -> dict[str, float]:
    """Return what the last line of losses says of the shapes."""
    last = [record for record in read_log(run_dir) if "loss" in record][-1]
    return {key: last[key] for key in ("identity_spread_percent", "expression_spread_percent", "from_start_mm")}


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("runs", type=click.Path(file_okay=False, path_type=Path))
@click.option("--geometry", required=True, type=click.Path(exists=True, path_type=Path), help="Geometry run.")
@click.option("--texture", required=True, type=click.Path(exists=True, path_type=Path), help="Texture run.")
@click.option("--identity", type=click.Path(exists=True, path_type=Path), help="Identity run, or an ArcFace file.")
@click.option("--landmarks", type=click.Path(exists=True, path_type=Path), help="Landmark run, or a 3D-FAN file.")
@click.option("--parsing", type=click.Path(exists=True, path_type=Path), help="BiSeNet file.")
@click.option("--face-model", default="open", show_default=True)
@click.option("--camera-distance", type=float, default=math.inf, show_default=True,
              help="Millimetres; rendered shards are orthographic.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Of each run.")
@click.option("--batch-size", type=int, default=16, show_default=True)
@click.option("--learning-rate", type=float, default=5e-5, show_default=True)
@click.option("--warm-up-steps", type=int, default=FusionConfig.warm_up_steps, show_default=True)
@click.option("--validation-fraction", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05,
              show_default=True)
@click.option("--validation-samples", type=int, default=256, show_default=True)
@click.option("--log-every", type=int, default=50, show_default=True)
@click.option("--figure", type=click.Path(path_type=Path), help="PNG file: held-out faces by each variant.")
@table_options(VARIANTS, list(VARIANTS)[:5])
def main(shards, runs, geometry, texture, identity, landmarks, parsing, face_model, camera_distance, steps, batch_size,
         learning_rate, warm_up_steps, validation_fraction, validation_samples, log_every, figure, variants, seeds,
         minutes, workers, device, output):
    """Train variants of the fusion on SHARDS, each run into its folder in RUNS, and print their table."""
    configs = {
        name: FusionConfig(**{
            "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "warm_up_steps": warm_up_steps,
            "camera_distance": camera_distance, "validation_fraction": validation_fraction,
            "validation_samples": validation_samples, "log_every": log_every, "validate_every": steps,
            "checkpoint_every": steps, **VARIANTS[name],
        }) for name in variants
    }
    if identity is None and any(config.lambda_identity for config in configs.values()):
        raise click.UsageError("the identity loss needs --identity")
    device = torch.device(device or default_device())
    with one_sentence():
        dataset, model = FaceDataset(shards, FUSION), load_model(face_model)
        start = load_dual_stream(geometry, texture, model, str(device), camera_distance)
        aligner = load_landmark_network(landmarks) if landmarks else start.network.landmarks
        if aligner is None and any(config.lambda_identity or config.lambda_alignment for config in configs.values()):
            raise click.UsageError("the alignment loss, and the identity loss for its crops, need --landmarks")
        faces = load_identity_network(identity) if identity else None
        parser = load_parsing_network(parsing) if parsing else None
        report = run_variants(
            lambda config: FusionTask(
                dataset, start._replace(network=copy.deepcopy(start.network)), config, device, workers,
                identity=faces if config.lambda_identity else None,
                aligner=aligner if config.lambda_identity or config.lambda_alignment else None, parsing=parser,
            ),
            configs, range(seeds), runs, output, columns=COLUMNS, start="start", minutes=minutes,
            measure=last_statistics, same={
                "samples_sha256": dataset.samples_sha256, "start_sha256": weights_sha256(start.network),
                **{key: weights_sha256(used) if used else ""
                   for key, used in (("identity", faces), ("H", aligner), ("parsing", parser))},
            },
        )
        click.echo(table(report))
        drawn = [name for name in report["results"] if "collapsed" not in report["results"][name]["0"]]
        if figure and drawn:
            _, held_out = split_identities(dataset.sources, validation_fraction, HELD_OUT_SEED, validation_samples)
            fusion_figure(
                shards, [runs / name / "seed-0" for name in drawn], held_out[::-(-len(held_out) // DRAWN)], model,
                str(device), geometry=geometry, texture=texture, labels=drawn,
            ).save(figure)


if __name__ == "__main__":
    main()
