"""Faces of fusion runs over their photos side by side: Fig. 17.

Dimension key: B samples, S side of the crop in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from model.config import FusionConfig
from model.data import FUSION, FaceDataset
from model.dual_stream import TrainedFaces, draw_face, load_dual_stream
from model.figures.samples import check_labels, checked, default_samples, distinct
from model.fusion_losses import compose, photometric_error
from model.picture_sheet import Cell, picture_sheet, tile_of


@torch.no_grad()
def fusion_figure(
    shards: str | Path | Sequence, checkpoints: Sequence[Path], samples: Sequence[int] | None = None,
    face_model: MorphableModel | None = None, device: str | None = None, *, geometry: Path | None = None,
    texture: Path | None = None, labels: Sequence[str] = (),
) -> Image.Image:
    """Draw what several fusion runs reconstruct of the same photos, after Fig. 17.

    Below each picture is its `photometric_error`, RGB in [0, 1], as in the log of `train_fusion` without face parsing.

    Parameters
    ----------
    shards : str | Path | Sequence
        Of any kind: folder of shards, one shard, or several.
    checkpoints : Sequence[Path]
        Runs of `train_fusion`, one a column.
    samples : Sequence[int] | None
        One a row; None is four, evenly spread over those held out when the first run was trained on these shards, or
        over all if it was not.
    face_model : MorphableModel | None
        The model of the runs; None is the open model.
    device : str | None
        As `torch_device` takes it.
    geometry : Path | None
        Geometry run that the checkpoints started from, whose faces come first.
    texture : Path | None
        Texture run that they started from; goes with `geometry`.
    labels : Sequence[str]
        Of the checkpoints; empty describes them by the losses they were trained without.

    Returns
    -------
    Image.Image
        Columns: photo, and I_R over it, of the start if it is given and of each checkpoint.

    Raises
    ------
    ValueError
        If a checkpoint is of another size than the shards or no fusion run, there is not one label a checkpoint, only
        one of `geometry` and `texture`, or no such sample.
    """
    check_labels(labels, checkpoints)
    if (geometry is None) != (texture is None):
        raise ValueError("geometry and texture must be given together, or neither; fusion starts from one run of each")
    face_model, dataset = face_model or load_model("open"), FaceDataset(shards, FUSION)
    samples = samples if samples is None else checked(samples, dataset)
    runs = [_load_fusion(path, face_model, device, dataset) for path in checkpoints]
    configs = [FusionConfig.from_dict(run.metadata["fusion_config"]) for run in runs]
    labels = labels or distinct([describe_losses(config) for config in configs], checkpoints)
    samples = default_samples(dataset, configs[0], runs[0].metadata) if samples is None else samples
    photo = dataset.batch(samples)["image"] / 255
    if geometry is not None:
        distance = runs[0].metadata["camera_distance"]
        runs.insert(0, load_dual_stream(geometry, texture, face_model, device, distance))
        labels = ["start", *labels]
    sources = dataset.sources
    rows = [[Cell(tile_of(image), (f"{index}: {sources[index]}",))] for index, image in zip(samples, photo)]
    for run in runs:
        image = photo.to(run.renderer.centre.device)
        rendered = draw_face(run.renderer, run.network(image))
        errors = photometric_error(rendered.image, image, rendered.mask)
        for row, picture, error in zip(rows, compose(rendered.image, image, rendered.mask).cpu(), errors):
            row.append(Cell(tile_of(picture), (f"error {error:.4f}",)))
    return picture_sheet(["photo", *labels], rows)


def _load_fusion(
    checkpoint: Path, face_model: MorphableModel, device: str | None, dataset: FaceDataset
) -> TrainedFaces:
    """A fusion run that takes the crops of a dataset."""
    run, size = load_dual_stream(checkpoint, model=face_model, device=device), int(dataset.attributes["size"])
    if run.metadata["kind"] != "fusion":
        raise ValueError(f"{checkpoint} must be a run of `dualface train fusion`, got one of kind 'geometry'")
    if run.metadata["size"] != size:
        raise ValueError(
            f"{checkpoint} must have been trained on crops of {size} pixels, as those to draw, got "
            f"{run.metadata['size']}; draw it from shards built with --size {run.metadata['size']}"
        )
    return run


def describe_losses(config: FusionConfig) -> str:
    """Return a few words on which losses of Eq. (23) a fusion run was trained without."""
    weights = {"pixel": config.lambda_pixel, "identity": config.lambda_identity, "alignment": config.lambda_alignment}
    return ", ".join(f"no {name} loss" for name, weight in weights.items() if not weight) or "all losses"
