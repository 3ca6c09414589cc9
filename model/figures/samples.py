"""What the figures share: which samples are drawn, and what their columns are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.config import RunConfig
from model.data import FaceDataset, held_out_samples

SAMPLE_COUNT = 4


def default_samples(dataset: FaceDataset, config: RunConfig, metadata: dict) -> np.ndarray:
    """Return at most `SAMPLE_COUNT` samples, evenly spread, of those that a run held out of these, or of all."""
    held_out = held_out_samples(dataset, config, metadata)
    indices = np.arange(len(dataset)) if held_out is None else held_out
    return indices[np.unique(np.linspace(0, len(indices) - 1, SAMPLE_COUNT).round().astype(int))]


def checked(samples: Sequence[int] | np.ndarray, dataset: FaceDataset) -> Sequence[int] | np.ndarray:
    """Return the samples, after checking that there is each of them."""
    for index in samples:
        if not 0 <= index < len(dataset):
            raise ValueError(f"samples must be among the {len(dataset)} there are, got {index}")
    return samples


def check_labels(labels: Sequence[str], checkpoints: Sequence[Path]):
    """Raise a ValueError if there are labels, but not one a checkpoint."""
    if labels and len(labels) != len(checkpoints):
        raise ValueError(f"labels must be one for each of the {len(checkpoints)} checkpoints, got {len(labels)}")


def distinct(labels: list[str], checkpoints: Sequence[Path]) -> list[str]:
    """Return labels, with the name of the run where several are alike."""
    runs = [Path(path).resolve() for path in checkpoints]
    runs = [path.name if path.is_dir() else path.parent.name for path in runs]
    return [f"{label} ({run})" if labels.count(label) > 1 else label for label, run in zip(labels, runs)]
