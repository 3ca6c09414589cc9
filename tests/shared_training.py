"""Runs of every kind that several processes may share; also the program of each process of `test_train_distributed`.

    RANK=0 WORLD_SIZE=2 ... python tests/shared_training.py FOLDER

FOLDER holds toy shards ``asmd`` and ``ftd``; ``begun``, a geometry run cut short; and ``alone``, runs of every kind.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from compiled_step import compiled_step
from torch.overrides import TorchFunctionMode
from toy import toy_model

from model import trainer
from model.config import Augmentation, FusionConfig, GeometryConfig, IdentityConfig, LandmarkConfig, TextureConfig
from model.data import LANDMARKS as LANDMARK_SAMPLES
from model.data import FaceDataset
from model.distributed import is_first, own_part, synchronise_, training_processes
from model.fusion_losses import spread
from model.train_fusion import train_fusion
from model.train_geometry import train_geometry
from model.train_identity import train_identity
from model.train_landmarks import LandmarkTask, train_landmarks
from model.train_texture import train_texture
from model.trainer import run_training

SIZE = 64
RUN = {
    "seed": 3, "batch_size": 4, "log_every": 1, "validate_every": 3, "checkpoint_every": 3, "validation_fraction": 0.3,
    "learning_rate": 1e-3, "augmentation": Augmentation(corruption=0.5),
}
GEOMETRY = GeometryConfig(**RUN, width=0.06, parameter_steps=2, stream_steps=3)
IDENTITY = IdentityConfig(**RUN, width=1 / 32, steps=3)
LANDMARKS = LandmarkConfig(**RUN, width=0.05, stacks=1, steps=3)
TEXTURE = TextureConfig(**RUN, width=0.06, regions=4, landmark_branch=False, omega_c=0.0, steps=3)
FUSION = FusionConfig(**RUN | {"learning_rate": 1e-4}, warm_up_steps=1, steps=3)


class Unplugged(Exception):
    """Ends one process of several."""


class Failing(LandmarkTask):
    """A task of which one process fails in the second step."""

    def step(self, raw, step):
        if step == 1 and not is_first():
            raise Unplugged
        return super().step(raw, step)


class Spoiled(LandmarkTask):
    """A task of which one process has no finite gradient in the second step."""

    def step(self, raw, step):
        if step == 1 and not is_first():
            raw = {**raw, "landmarks": raw["landmarks"] * float("nan")}
        return super().step(raw, step)


class _Double(TorchFunctionMode):
    """Makes float64 of every float32 tensor that a call gives, but for views, through which batches are written."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        found = function(*arguments, **(keywords or {}))
        if function is torch.Tensor.view or not isinstance(found, torch.Tensor) or found.dtype != torch.float32:
            return found
        return found.double()


@contextmanager
def double_precision() -> Iterator[None]:
    """Train in float64, in which the order of sums does not show; in float32, Adam's first steps make much of it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


def train_all(folder: Path, out: Path):
    """Train a network of each kind."""
    train_geometry(folder / "asmd", out / "geometry", GEOMETRY, toy_model(), "cpu")
    train_identity(folder / "asmd", out / "identity", IDENTITY, "cpu")
    train_landmarks(folder / "asmd", out / "landmarks", LANDMARKS, "cpu")
    train_texture(folder / "ftd", out / "texture", TEXTURE, toy_model(), "cpu")
    given = {kind: folder / "alone" / kind for kind in ("geometry", "texture", "identity", "landmarks")}
    train_fusion(folder / "ftd", out / "fusion", FUSION, toy_model(), "cpu", **given)


def points() -> torch.Tensor:
    """(4, 5, 3) points of faces of a batch."""
    return torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))


def main(folder: Path):
    """Train, try a batch that cannot be shared, and fail in one process, with a number and with an error."""
    trainer.draw_curves = lambda run_dir: None
    with training_processes("cpu"):
        with double_precision():
            train_all(folder, folder / "together")
            train_geometry(folder / "asmd", folder / "begun", GEOMETRY, toy_model(), "cpu", resume=True)
        rank = dist.get_rank()
        (folder / f"spread-{rank}").write_text(repr(float(spread(own_part(points())))))
        torch.manual_seed(rank)
        network = torch.nn.Linear(2, 2)
        synchronise_([network], [])
        (folder / f"start-{rank}").write_text(repr(network.weight.tolist()))
        dataset = FaceDataset(folder / "asmd", LANDMARK_SAMPLES)
        torch.save(compiled_step("cpu", "aot_eager"), folder / f"compiled-{rank}.pt")
        try:
            train_landmarks(folder / "asmd", folder / "odd", replace(LANDMARKS, batch_size=3), "cpu")
        except ValueError as error:
            (folder / f"refused-{rank}").write_text(str(error))
        try:
            run_training(Spoiled(dataset, LANDMARKS, torch.device("cpu")), folder / "spoiled", LANDMARKS)
        except FloatingPointError as error:
            (folder / f"spoiled-{rank}").write_text(str(error))
        run_training(Failing(dataset, LANDMARKS, torch.device("cpu")), folder / "failing", LANDMARKS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
