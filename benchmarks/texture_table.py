"""The table of the texture stream: each variant of the paper's ablations, trained alike, on held-out identities.

All variants start from the same seed and see the same batches. The error is the mean absolute difference from I_a over
the texels that the photo shows, RGB in [0, 1], beside that of the linear albedo I_u itself. A variant that runs out of
time is measured where it stopped, and its steps say so. Results are kept in the JSON file as they come; a second call
with other variants adds to it.

    python benchmarks/texture_table.py FTD runs --geometry GEOMETRY_RUN --landmarks LANDMARK_RUN --steps 10000 -o t.json
"""

import datetime
import json
import platform
import resource
import statistics
import subprocess
import time
from pathlib import Path

import click
import torch

from bfm.model_file import load_model
from model.config import TextureConfig
from model.data import TEXTURE, FaceDataset, face_in_chart
from model.landmarks import load_landmark_network
from model.perceptual import load_perceptual
from model.train_geometry import default_device
from model.train_texture import TextureTask, albedo_predictor
from model.trainer import run_training

VARIANTS = {
    "adain": {"stylisation": "adain"},
    "transform": {"stylisation": "transform"},
    "n8": {"regions": 8},
    "n16": {"regions": 16},
    "n32": {"regions": 32},
    "n16-no-skips": {"regions": 16, "skips": False},
    "n16-no-landmarks": {"regions": 16, "landmark_branch": False},
}


class TimeIsUp(Exception):
    """Ends a run at its time limit."""


def train_variant(task: TextureTask, run_dir: Path, minutes: float | None) -> dict:
    """Train one variant into `run_dir` and return its row of the table."""
    start, speeds, done = time.perf_counter(), [], 0

    def watch(record: dict):
        nonlocal done
        click.echo(f"{run_dir.name}  {json.dumps(record)}", err=True)
        done = record["step"]
        if "images_per_second" in record:
            speeds.append(record["images_per_second"])
        if minutes and time.perf_counter() - start > 60 * minutes and done < task.config.steps:
            raise TimeIsUp

    on_gpu = task.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(task.device)
    try:
        run_training(task, run_dir, task.config, on_log=watch)
    except TimeIsUp:
        task.pictures().save(run_dir / "last.png")
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "steps": done, "seconds": round(time.perf_counter() - start, 1),
        "images_per_second": statistics.median(speeds[1:] or speeds), "peak_memory_mib": round(peak / 2**20),
        "parameters": sum(parameter.numel() for parameter in task.generator.parameters()),
        **{key: round(value, 5) for key, value in task.validate().items()},
    }


def markdown(results: dict[str, dict]) -> str:
    """Return the table; memory also as a multiple of AdaIN's."""
    lines = [
        "| variant | MAE on held-out identities | SSIM | steps | img/s | peak memory, GiB | of AdaIN's |",
        "|---|---|---|---|---|---|---|",
    ]
    first = next(iter(results.values()))
    lines.append(f"| linear p_t | {first['linear_mae']:.4f} | {first['linear_ssim']:.3f} | | | | |")
    for name, row in results.items():
        memory, base = row["peak_memory_mib"], results.get("adain", {}).get("peak_memory_mib")
        lines.append(
            f"| {name} | {row['albedo_mae']:.4f} | {row['albedo_ssim']:.3f} | {row['steps']} | "
            f"{row['images_per_second']:.0f} | {memory / 1024:.2f} | {f'{memory / base:.2f}' if base else ''} |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("runs", type=click.Path(file_okay=False, path_type=Path))
@click.option("--geometry", type=click.Path(exists=True, path_type=Path), help="Geometry run for the contextual loss.")
@click.option("--perceptual", type=click.Path(exists=True, path_type=Path), help="VGG-19 file, instead of it.")
@click.option("--landmarks", type=click.Path(exists=True, path_type=Path), help="Landmark run, or a 3D-FAN file.")
@click.option("--face-model", default="open", show_default=True)
@click.option("--variants", default=",".join(VARIANTS), show_default=True, help="Comma-separated.")
@click.option("--steps", type=int, default=10_000, show_default=True, help="Of each variant.")
@click.option("--batch-size", type=int, default=8, show_default=True)
@click.option("--width", type=float, default=1.0, show_default=True)
@click.option("--learning-rate", type=float, default=1e-4, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--validation-fraction", type=float, default=0.05, show_default=True)
@click.option("--validate-every", type=int, default=2000, show_default=True)
@click.option("--log-every", type=int, default=100, show_default=True)
@click.option("--predicted-albedo", is_flag=True, help="I_u from the p_t that the geometry run predicts.")
@click.option("--minutes", type=float, help="Most for each variant.")
@click.option("--workers", type=int, default=0, show_default=True, help="Processes that decode.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(shards, runs, geometry, perceptual, landmarks, face_model, variants, steps, batch_size, width, learning_rate,
         seed, validation_fraction, validate_every, log_every, predicted_albedo, minutes, workers, device, output):
    """Train variants of the texture stream on SHARDS, each into its folder in RUNS, and print their table."""
    names = variants.split(",")
    if set(names) - VARIANTS.keys():
        raise click.BadParameter(f"variants must be among {', '.join(VARIANTS)}, got {variants}")
    device = torch.device(device or default_device())
    dataset = FaceDataset(shards, TEXTURE)
    face, chart = face_in_chart(dataset.attributes, load_model(face_model), dataset.chart_uv)
    settings = {
        "steps": steps, "batch_size": batch_size, "width": width, "learning_rate": learning_rate, "seed": seed,
        "validation_fraction": validation_fraction, "validate_every": validate_every, "log_every": log_every,
        "checkpoint_every": validate_every, "predicted_albedo": predicted_albedo,
    }
    kept = json.loads(output.read_text(encoding="utf-8")) if output and output.exists() else {}
    if kept and (kept["settings"], kept["samples_sha256"]) != (settings, dataset.samples_sha256):
        raise click.ClickException(f"{output} is of other settings or shards; name another file")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    results = kept.get("results", {})
    for name in names:
        config = TextureConfig(**settings, **VARIANTS[name])
        phi = load_perceptual(perceptual, geometry)
        guided = config.stylisation == "srsm" and config.landmark_branch
        if guided and landmarks is None:
            raise click.UsageError(f"{name} needs --landmarks")
        network = load_landmark_network(landmarks) if guided else None
        stream = albedo_predictor(geometry, dataset.attributes) if predicted_albedo else None
        task = TextureTask(
            dataset, face, chart, config, device, workers, phi=phi, landmarks=network, geometry=stream
        )
        results[name] = train_variant(task, runs / name, minutes)
        report = {
            "benchmark": "texture_table", "commit": commit, "date": datetime.date.today().isoformat(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
            "torch": torch.__version__, "python": platform.python_version(), "samples": len(dataset),
            "size": int(dataset.attributes["size"]), "samples_sha256": dataset.samples_sha256, "note": task.note,
            "held_out": len(task.held_out), "settings": settings, "results": results,
        }
        if output:
            output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        del task
    click.echo(markdown({name: results[name] for name in VARIANTS if name in results}))


if __name__ == "__main__":
    main()
