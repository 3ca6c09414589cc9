"""Faces of geometry runs over their photos, from the front, and their mouths: Fig. 12.

Dimension key: B samples, V vertices of the face part, S side of the crop in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from asmgen.crop import Square, crop_image, square_about, square_transform
from asmgen.maps import AttributeMaps
from bfm.model_file import load_model
from bfm.morphable_model import REGIONS, MorphableModel
from model.batches import GeometryBatch, GeometryPreparer
from model.config import FusionConfig, GeometryConfig
from model.data import GEOMETRY, MAP_FIELDS, FaceDataset, held_out_samples, photo_names
from model.dual_stream import TrainedFaces, load_dual_stream
from model.figures.samples import SAMPLE_COUNT, check_labels, checked, distinct
from model.geometry import denormalise_position
from model.picture_sheet import TILE, Cell, picture_sheet, pixels_of
from model.render import FaceRenderer
from model.train_geometry import map_space
from model.views import BACKDROP, PlacedFace, clay, draw

MOUTH = slice(48, 68)
"""Of the 68 landmarks."""

_MOUTH_MARGIN = 1.8
"""Side of the close-up over the longer side of the box of the mouth's landmarks."""

_FRONT_MARGIN = 1.15
"""Height of the frontal picture over that of the mean face: an open mouth makes a face longer."""


class Shapes(NamedTuple):
    """Faces of the samples, of the truth or of a run, numpy.

    Attributes
    ----------
    vertices : np.ndarray
        (B, V, 3) mm, canonical.
    pose, position : np.ndarray
        (B, 3) each, placement in crop pixels.
    renderer : FaceRenderer
        What draws them.
    """

    vertices: np.ndarray
    pose: np.ndarray
    position: np.ndarray
    renderer: FaceRenderer


def geometry_figure(
    shards: str | Path | Sequence, checkpoints: Sequence[Path], samples: Sequence[int] | None = None,
    face_model: MorphableModel | None = None, device: str | None = None, *, labels: Sequence[str] = (),
) -> Image.Image:
    """Draw the shapes that several runs see in the same photos, after Fig. 12.

    Below are the mean distance of all vertices, and of those of the mouth, from the true ones, mm, in canonical space
    and without alignment.

    Parameters
    ----------
    shards : str | Path | Sequence
        ASMD: folder of shards, one shard, or several.
    checkpoints : Sequence[Path]
        Runs of `train_geometry` or `train_fusion`, three columns each.
    samples : Sequence[int] | None
        One a row; None is the four of the largest expressions, by mean vertex displacement and one a photo, of those
        held out when the first run was trained on these shards, or of all if it was not.
    face_model : MorphableModel | None
        The model of the shards and the runs; None is the open model.
    device : str | None
        As `torch_device` takes it.
    labels : Sequence[str]
        Of the checkpoints; empty describes them by how they were trained.

    Returns
    -------
    Image.Image
        Columns: photo; then of the truth and of each run the face as clay over the photo, from the front, and its
        mouth over the photo. ValueError is raised from within if a checkpoint is of crops of another size than the
        shards or of another face model, there is not one label a checkpoint, or no such sample.
    """
    check_labels(labels, checkpoints)
    face_model, dataset = face_model or load_model("open"), FaceDataset(shards)
    samples = samples if samples is None else checked(samples, dataset)
    face, maps = map_space(dataset.attributes, face_model, dataset.chart_uv)
    runs = [_load(path, face_model, device, dataset) for path in checkpoints]
    configs = [GeometryConfig.from_dict(run.metadata["geometry_config"]) for run in runs]
    expressions = expression_sizes(dataset, maps, _held_out(dataset, runs[0]) if samples is None else samples)
    sources = dataset.sources
    if samples is None:
        photos, largest = photo_names(sources), {}
        for index in sorted(expressions, key=expressions.get, reverse=True):
            largest.setdefault(photos[index], index)  # of its copies, which have one expression, the first
        samples = list(largest.values())[:SAMPLE_COUNT]
    raw = dataset.batch(samples)
    batch = GeometryPreparer(face, maps, dataset.attributes, torch.device("cpu"))(raw)
    truth = Shapes(
        np.stack([maps.vertices(full) for full in (batch.identity_map + batch.expression_map).numpy()]),
        batch.parameters.pose.numpy(), batch.position.numpy(), FaceRenderer(face, maps),
    )
    mouth = face.regions == REGIONS.index("mouth")
    photos = [pixels_of(image) for image in batch.image]
    rows = [
        [Cell(_tile(photo), (f"{index}: {sources[index]}", f"expression {expressions[index]:.1f} mm"))]
        for index, photo in zip(samples, photos)
    ]
    for shapes in (truth, *(_shapes(run, batch) for run in runs)):
        errors = np.linalg.norm(shapes.vertices - truth.vertices, axis=-1)
        for row, cells in enumerate(rows):
            lines = [()] * 3 if shapes is truth else [
                (f"face {errors[row].mean():.2f} mm",), (), (f"mouth {errors[row, mouth].mean():.2f} mm",)
            ]
            square = _mouth_square(batch.landmarks[row, MOUTH].numpy())
            pictures = _pictures(shapes, row, photos[row], square, face.mean_shape)
            cells += [Cell(picture, line) for picture, line in zip(pictures, lines)]
    labels = labels or distinct([describe(config) for config in configs], checkpoints)
    return picture_sheet(["photo", *(part for label in ("truth", *labels) for part in (label, "front", "mouth"))], rows)


def expression_sizes(
    dataset: FaceDataset, maps: AttributeMaps, samples: Sequence[int] | np.ndarray
) -> dict[int, float]:
    """Return by how much the true expression moves a vertex on average, mm, by sample; photos are not decoded."""
    encoding, sizes = dataset.attributes["encoding"], {}
    kept = FaceDataset([build.paths for build in dataset.builds], replace(GEOMETRY, fields=()))
    for index in map(int, samples):
        expression = kept[index][MAP_FIELDS[encoding][1]].numpy()
        if encoding == "dense":
            expression_map = expression * np.float32(dataset.attributes["quantum"])
        else:
            expression_map = maps.expression_map(expression[None])[0]
        sizes[index] = float(np.linalg.norm(maps.sample(expression_map), axis=-1).mean() * maps.scale)
    return sizes


def describe(config: GeometryConfig) -> str:
    """Return a few words on how a stream was trained: its shape, and what was left out."""
    kind = {"dual": "identity and expression map", "single": "one map", "linear": "linear coefficients"}[config.shape]
    parts = {
        "W": config.weighted, "symmetry loss": config.eta_s or config.shape == "single",
        "smoothness loss": config.eta_r,
    }
    return ", ".join([kind, *(f"no {part}" for part, there in parts.items() if not there)])


def _load(checkpoint: Path, face_model: MorphableModel, device: str | None, dataset: FaceDataset) -> TrainedFaces:
    """A run that takes the crops of a dataset."""
    run, size = load_dual_stream(checkpoint, model=face_model, device=device), int(dataset.attributes["size"])
    if run.metadata["size"] != size:
        raise ValueError(
            f"{checkpoint} must have been trained on crops of {size} pixels, as those to draw, got "
            f"{run.metadata['size']}; draw it from shards built with --size {run.metadata['size']}"
        )
    return run


def _held_out(dataset: FaceDataset, run: TrainedFaces) -> Sequence[int] | np.ndarray:
    """The samples that a run held out of these, or all."""
    if run.metadata["kind"] == "fusion":
        config = FusionConfig.from_dict(run.metadata["fusion_config"])
    else:
        config = GeometryConfig.from_dict(run.metadata["geometry_config"])
    held_out = held_out_samples(dataset, config, run.metadata)
    return range(len(dataset)) if held_out is None else held_out


@torch.no_grad()
def _shapes(run: TrainedFaces, batch: GeometryBatch) -> Shapes:
    """What a run sees in the photos."""
    predicted = run.network.geometry(batch.image.to(run.renderer.centre.device))
    vertices = run.renderer.vertices(predicted.identity_map + predicted.expression_map)
    position = denormalise_position(predicted.parameters.position, batch.image.shape[-1])
    parts = (vertices, predicted.parameters.pose, position)
    vertices, pose, position = (part.cpu().numpy() for part in parts)
    return Shapes(vertices, pose, position, run.renderer)


def _pictures(
    shapes: Shapes, row: int, photo: Image.Image, mouth: Square, mean_shape: np.ndarray
) -> tuple[Image.Image, ...]:
    """One face over its photo, from the front, and its mouth over the photo, as clay."""
    vertices, pose, position, renderer = shapes
    face = PlacedFace(
        vertices[row], np.ones_like(vertices[row]), np.eye(9)[0], pose[row].astype(np.float64),
        position[row].astype(np.float64),
    )
    low, high = mean_shape.min(0), mean_shape.max(0)
    scale = TILE / (_FRONT_MARGIN * (high - low)[1])
    middle = (low + high) / 2
    front = replace(
        face, pose=np.zeros(3), position=np.array([*((TILE - 1) / 2 + scale * middle[:2] * [-1, 1]), scale])
    )
    pictures = [(front, np.full((TILE, TILE, 3), BACKDROP))]
    for square in ((0, 0, photo.width), mouth):
        pictures.append((face.transformed(square_transform(square, TILE)), crop_image(np.asarray(photo), square, TILE)))
    drawn, over, close = (
        Image.fromarray(clay(draw(renderer, placed, TILE, TILE), behind)) for placed, behind in pictures
    )
    return over, drawn, close


def _mouth_square(landmarks: np.ndarray) -> Square:
    """The square about the (20, 2) landmarks of a mouth, crop pixels."""
    low, high = landmarks.min(0), landmarks.max(0)
    x, y = (low + high) / 2 + 0.5
    return square_about(x, y, _MOUTH_MARGIN * (high - low).max())


def _tile(photo: Image.Image) -> Image.Image:
    return photo.resize((TILE, TILE), Image.Resampling.BICUBIC)
