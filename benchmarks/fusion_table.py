"""The table of the fusion module: each loss left out in turn (Fig. 17), on held-out identities, before and after.

All variants start from the same two runs and the same seed and see the same batches. The photometric error is the mean
absolute difference of photo and rendered face over the pixels drawn, RGB in [0, 1]; the texture error is that of the
albedo map from I_a over the texels that the photo shows (of FTD shards); millimetres are vertex distances from the
true shape. A variant that runs out of time is measured where it stopped, and its steps say so; the first lines of its
log, in which workers and kernels start, are not of that time. A variant that collapses has no errors, but the step.
Results are kept in the JSON file as they come; a second call with other variants adds to it.

    python benchmarks/fusion_table.py FTD runs --geometry GEOMETRY_RUN --texture TEXTURE_RUN --identity IDENTITY_RUN \
        --steps 1000 --minutes 1.5 -o fusion.json --figure fusion.png
"""

import copy
import datetime
import json
import math
import platform
import resource
import statistics
import subprocess
import time
from pathlib import Path

import click
import torch

from bfm.model_file import load_model
from model.checkpoint import save_checkpoint, weights_sha256
from model.config import FusionConfig
from model.data import FUSION, FaceDataset
from model.dual_stream import load_dual_stream
from model.figures import fusion_figure
from model.identity import load_identity_network
from model.landmarks import load_landmark_network
from model.parsing import load_parsing_network
from model.train_fusion import FusionTask
from model.train_geometry import default_device
from model.trainer import json_text, run_training

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

COLUMNS = {
    "photometric error": "photometric_mae", "texture MAE": "albedo_mae", "linear MAE": "linear_mae",
    "identity, mm": "identity_mm", "expression, mm": "expression_mm", "full, mm": "full_mm",
    "pose, degrees": "pose_degrees", "landmarks, px": "landmark_pixels",
}
DRAWN = 5
"""Rows of the figure."""


class TimeIsUp(Exception):
    """Ends a run at its time limit."""


def train_variant(task: FusionTask, run_dir: Path, minutes: float | None) -> tuple[dict, dict]:
    """Train one variant into `run_dir`; return its errors before the first step, and its row of the table."""
    start, limit, speeds, measured, statistic, done = time.perf_counter(), math.inf, [], {}, {}, 0

    def watch(record: dict):
        nonlocal done, limit
        click.echo(f"{run_dir.name}  {json.dumps(record)}", err=True)
        done = record["step"]
        if "validation" in record:
            measured[done] = record["validation"]
        if "loss" in record:
            speeds.append(record["images_per_second"])
            statistic.update(record)
            if time.perf_counter() > limit and done < task.config.steps:
                raise TimeIsUp
            if minutes and len(speeds) == 1:
                limit = time.perf_counter() + 60 * minutes

    on_gpu = task.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(task.device)
    try:
        run_training(task, run_dir, task.config, on_log=watch)
    except TimeIsUp:
        config = task.config.to_dict()
        save_checkpoint(run_dir, task.kind, done, config, task.metadata, task.networks, task.optimisers)
        task.pictures().save(run_dir / "last.png")
    except FloatingPointError as error:
        return measured[0], {"steps": done, "collapsed": str(error)}
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    after = measured[done] if done in measured else task.validate()
    return measured[0], {
        "steps": done, "seconds": round(time.perf_counter() - start, 1),
        "images_per_second": statistics.median(speeds[1:] or speeds), "peak_memory_mib": round(peak / 2**20), **after,
        **{key: statistic[key] for key in ("identity_spread_percent", "expression_spread_percent", "from_start_mm")},
    }


def markdown(before: dict, results: dict[str, dict]) -> str:
    """Return the table; what the shards do not tell is left out."""
    columns = {heading: key for heading, key in COLUMNS.items() if key in before}
    lines = [
        f"| variant | {' | '.join(columns)} | spread of identity, % | moved, mm | steps | img/s | peak memory, GiB |",
        "|---" * (len(columns) + 6) + "|",
        f"| start | {' | '.join(_number(before[key]) for key in columns.values())} | 100 | 0 | | | |",
    ]
    for name, row in results.items():
        if "collapsed" in row:
            lines.append(f"| {name} | collapsed at step {row['steps']} {'| ' * (len(columns) + 4)}|")
            continue
        cells = [_number(row[key]) for key in columns.values()] + [
            f"{row['identity_spread_percent']:.0f}", f"{row['from_start_mm']:.2f}", f"{row['steps']}",
            f"{row['images_per_second']:.0f}", f"{row['peak_memory_mib'] / 1024:.2f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.4f}" if value < 0.3 else f"{value:.2f}"


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("runs", type=click.Path(file_okay=False, path_type=Path))
@click.option("--geometry", required=True, type=click.Path(exists=True, path_type=Path), help="Geometry run.")
@click.option("--texture", required=True, type=click.Path(exists=True, path_type=Path), help="Texture run.")
@click.option("--identity", type=click.Path(exists=True, path_type=Path), help="Identity run, or an ArcFace file.")
@click.option("--landmarks", type=click.Path(exists=True, path_type=Path), help="Landmark run, or a 3D-FAN file.")
@click.option("--parsing", type=click.Path(exists=True, path_type=Path), help="BiSeNet file.")
@click.option("--face-model", default="open", show_default=True)
@click.option("--variants", default=",".join(list(VARIANTS)[:5]), show_default=True,
              help=f"Comma-separated, of {', '.join(VARIANTS)}.")
@click.option("--camera-distance", type=float, default=math.inf, show_default=True,
              help="Millimetres; rendered shards are orthographic.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Of each variant.")
@click.option("--batch-size", type=int, default=16, show_default=True)
@click.option("--learning-rate", type=float, default=5e-5, show_default=True)
@click.option("--warm-up-steps", type=int, default=FusionConfig.warm_up_steps, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--validation-fraction", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05,
              show_default=True)
@click.option("--validation-samples", type=int, default=256, show_default=True)
@click.option("--log-every", type=int, default=50, show_default=True)
@click.option("--minutes", type=float, help="Most for each variant, from its first log line on.")
@click.option("--workers", type=int, default=0, show_default=True, help="Processes that decode.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
@click.option("--figure", type=click.Path(path_type=Path), help="PNG file: held-out faces by each variant.")
def main(shards, runs, geometry, texture, identity, landmarks, parsing, face_model, variants, camera_distance, steps,
         batch_size, learning_rate, warm_up_steps, seed, validation_fraction, validation_samples, log_every, minutes,
         workers, device, output, figure):
    """Train variants of the fusion on SHARDS, each into its folder in RUNS, and print their table."""
    names = variants.split(",")
    if set(names) - VARIANTS.keys():
        raise click.BadParameter(f"variants must be among {', '.join(VARIANTS)}, got {variants}")
    device = torch.device(device or default_device())
    settings = {
        "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "warm_up_steps": warm_up_steps,
        "seed": seed, "camera_distance": camera_distance, "validation_fraction": validation_fraction,
        "validation_samples": validation_samples, "log_every": log_every, "validate_every": steps,
        "checkpoint_every": steps,
    }
    full = FusionConfig(**settings)
    configs = {name: FusionConfig(**{**settings, **VARIANTS[name]}) for name in names}
    if identity is None and any(config.lambda_identity for config in configs.values()):
        raise click.UsageError("the identity loss needs --identity")
    start = load_dual_stream(geometry, texture, load_model(face_model), str(device), camera_distance)
    aligner = load_landmark_network(landmarks) if landmarks else start.network.landmarks
    if aligner is None and any(config.lambda_identity or config.lambda_alignment for config in configs.values()):
        raise click.UsageError("the alignment loss, and the identity loss for its crops, need --landmarks")
    dataset = FaceDataset(shards, FUSION)
    same = json.loads(json_text({  # as the file has it
        "settings": settings, "samples_sha256": dataset.samples_sha256, "start_sha256": weights_sha256(start.network),
    }))
    kept = json.loads(output.read_text(encoding="utf-8")) if output and output.exists() else {}
    if kept and any(kept.get(key) != value for key, value in same.items()):
        raise click.ClickException(f"{output} is of other settings, shards or runs; name another file")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    results = kept.get("results", {})
    for name, config in configs.items():
        task = FusionTask(
            dataset, start._replace(network=copy.deepcopy(start.network)), config, device, workers,
            identity=load_identity_network(identity) if config.lambda_identity else None,
            aligner=aligner if config.lambda_identity or config.lambda_alignment else None,
            parsing=load_parsing_network(parsing) if parsing else None,
        )
        before, results[name] = train_variant(task, runs / name, minutes)
        report = {
            "benchmark": "fusion_table", "commit": commit, "date": datetime.date.today().isoformat(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
            "torch": torch.__version__, "python": platform.python_version(), "samples": len(dataset),
            "size": int(dataset.attributes["size"]), "note": task.note, "held_out": len(task.held_out), **same,
            "weights": {key: value for key, value in full.to_dict().items() if key.startswith("lambda_")},
            "before": before, "results": results,
        }
        if output:
            output.write_text(json_text(report), encoding="utf-8")
        held_out = task.held_out if len(task.held_out) else task.training
        del task
    ordered = {name: results[name] for name in VARIANTS if name in results}
    click.echo(markdown(before, ordered))
    drawn = [name for name, row in ordered.items() if "collapsed" not in row]
    if figure and drawn:
        fusion_figure(
            shards, [runs / name for name in drawn], held_out[::-(-len(held_out) // DRAWN)], load_model(face_model),
            str(device), geometry=geometry, texture=texture, labels=drawn,
        ).save(figure)


if __name__ == "__main__":
    main()
