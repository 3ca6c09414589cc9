"""Training of K(.), the landmark network, on the projected landmarks of the face model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from model.batches import prepare_landmarks
from model.config import LandmarkConfig
from model.data import LANDMARKS, FaceDataset, step_generator
from model.landmarks import SIDE_MULTIPLE, LandmarkNetwork, landmark_heatmaps, landmarks_from_heatmaps
from model.metrics import landmark_errors
from model.train_geometry import torch_device
from model.trainer import Task, run_training


def train_landmarks(
    shards: str | Path | Sequence, run_dir: Path, config: LandmarkConfig, device: str | None = None, workers: int = 0,
    resume: bool = False, on_log: Callable[[dict], None] | None = None,
    progress: Callable[..., tqdm] | None = None,
) -> Path:
    """Train the landmark network on shards of faces.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards or one shard, or several of them.
    run_dir : Path
        Folder of the run: config, log, curves and checkpoint.
    config : LandmarkConfig
        Everything that changes the result.
    device : str | None
        As `torch_device` takes it.
    workers : int
        Processes that decode images.
    resume : bool
        Go on from the checkpoint in `run_dir`.
    on_log : Callable[[dict], None] | None
        Given each record of the log.
    progress : Callable[..., tqdm] | None
        Makes the progress bar, of the first process alone; called as tqdm is. None is no bar.

    Returns
    -------
    Path
        The last checkpoint, for `load_landmark_network`. Errors are those of `run_training`, `LandmarkTask`,
        `torch_device` and `split_identities`.
    """
    dataset = FaceDataset(shards, LANDMARKS)
    task = LandmarkTask(dataset, config, torch_device(device), workers)
    return run_training(task, run_dir, config, resume, on_log, progress)


def heatmap_loss(heatmaps: Sequence[torch.Tensor], truth: torch.Tensor) -> torch.Tensor:
    """Return the squared error of the heatmaps, summed over the stacks: each is supervised.

    Parameters
    ----------
    heatmaps : Sequence[torch.Tensor]
        (B, 68, H, W), one a stack.
    truth : torch.Tensor
        (B, 68, H, W) from `landmark_heatmaps`.

    Returns
    -------
    torch.Tensor
        Scalar, float32; a stack whose heatmaps are empty counts 1 where every landmark is in the crop.
    """
    landmark = math.pi  # sum of the squares of a Gaussian of deviation 1
    return sum((found.float() - truth).square().sum((2, 3)).mean() for found in heatmaps) / landmark


class LandmarkTask(Task):
    """The landmark network, its data and its loss, for `run_training`.

    Parameters
    ----------
    dataset : FaceDataset
        Read with `LANDMARKS`.
    config : LandmarkConfig
        Everything that changes the result.
    device : torch.device
        Where to train.
    workers : int
        Processes that decode images.

    Raises
    ------
    ValueError
        If the crops have a side that the network does not take.

    Attributes
    ----------
    kind : str
        ``landmarks``.
    networks : dict[str, nn.Module]
        The network, ``landmarks``.
    optimisers : dict[str, torch.optim.Optimizer]
        Adam.
    metadata : dict
        What the crops were.
    """

    kind = "landmarks"

    def __init__(self, dataset: FaceDataset, config: LandmarkConfig, device: torch.device, workers: int = 0):
        attributes = dataset.attributes
        size = int(attributes["size"])
        if size % SIDE_MULTIPLE:
            raise ValueError(
                f"the shards must hold crops whose side is a multiple of {SIDE_MULTIPLE} pixels, got {size}; build "
                "them with such a --size"
            )
        super().__init__(dataset, config, device, workers)
        self.network = LandmarkNetwork(config.stacks, config.width).to(device, memory_format=self.memory_format)
        self.networks, self.optimisers = {"landmarks": self.network}, {"adam": self.adam(self.network)}
        self.metadata = {
            **{key: attributes[key] for key in ("face_model", "face_model_sha256", "licence")}, "size": size,
            "samples_sha256": dataset.samples_sha256,
        }

    def step(self, raw: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Update the network once, on the heatmaps of all stacks."""
        config = self.config
        image, landmarks = prepare_landmarks(
            raw, self.device, config.augmentation, step_generator(config.seed, step)
        )
        with self.autocast():
            heatmaps = self.network.train()(image.contiguous(memory_format=self.memory_format))
        loss = heatmap_loss(heatmaps, landmark_heatmaps(landmarks, image.shape[-1]))
        adam = self.optimisers["adam"]
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        return {"loss": loss.detach()}

    def errors(self, raw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the `landmark_errors` of a raw batch, not augmented, in full precision."""
        image, landmarks = prepare_landmarks(raw, self.device)
        heatmaps = self.network.eval()(image.contiguous(memory_format=self.memory_format))[-1]
        return landmark_errors(landmarks_from_heatmaps(heatmaps), landmarks)
