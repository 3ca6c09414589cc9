"""Overfit the geometry stream on eight faces: whether networks, losses and data agree, in minutes on a CPU.

    dualface synth 300wlp faces --count 8 && dualface build asmd faces shards --size 64
    python benchmarks/overfit_geometry.py shards RUN
"""

from pathlib import Path

import click
import torch

from bfm.model_file import load_model
from model.config import NO_AUGMENTATION, GeometryConfig
from model.data import FaceDataset
from model.train_geometry import GeometryTask, default_device, map_space
from model.trainer import run_training


@click.command()
@click.argument("shards", type=click.Path(exists=True, path_type=Path))
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--steps", type=int, default=800, show_default=True)
@click.option("--width", type=float, default=0.25, show_default=True)
def main(shards: Path, run_dir: Path, steps: int, width: float):
    """Train on the first eight samples of SHARDS and print the errors on those same samples."""
    dataset = FaceDataset(shards)
    model, maps = map_space(dataset.attributes, load_model("open"), dataset.chart_uv)
    config = GeometryConfig(
        width=width, parameter_steps=0, stream_steps=steps, learning_rate=1e-3, augmentation=NO_AUGMENTATION,
        validation_fraction=0, log_every=100, validate_every=steps, checkpoint_every=steps,
    )
    task = GeometryTask(dataset, model, maps, config, torch.device(default_device()))
    task.training = task.training[:8]
    run_training(task, run_dir, config, False, lambda record: click.echo(record))
    click.echo(task.evaluate(task.training))


if __name__ == "__main__":
    main()
