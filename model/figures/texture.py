"""Albedo maps of several texture streams side by side: Fig. 16, and with close-ups Fig. 13.

Dimension key: B samples, S side of the crop and of the maps in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from model.batches import TextureBatch, TexturePreparer
from model.checkpoint import weights_sha256
from model.config import TextureConfig
from model.data import TEXTURE, FaceDataset, face_in_chart
from model.figures.samples import check_labels, checked, default_samples, distinct
from model.geometry import GeometryStream
from model.metrics import texture_errors
from model.picture_sheet import Cell, close_up, picture_sheet, tile_of
from model.texture import Stylised
from model.train_geometry import torch_device
from model.train_texture import TrainedTexture, albedo_predictor, load_texture_stream, predict_linear_albedo

NOSE_AND_MOUTH = (*range(27, 36), *range(48, 68))
"""The landmarks that the close-ups of Fig. 13 are about."""

_MUST_MATCH = ("face_model_sha256", "chart", "size", "lit")


class Scene(NamedTuple):
    """What a figure is drawn from.

    Attributes
    ----------
    names : list[str]
        Of the samples.
    batch : TextureBatch
        Of them, on the CPU; I_u as the checkpoints were trained on.
    runs : list[TrainedTexture]
        One a checkpoint.
    stylised : list[Stylised]
        What each made of the batch, on the CPU.
    landmarks : tuple[np.ndarray, np.ndarray]
        (B, 68, 2) and (68, 2) in the crops and in the chart, pixels.
    """

    names: list[str]
    batch: TextureBatch
    runs: list[TrainedTexture]
    stylised: list[Stylised]
    landmarks: tuple[np.ndarray, np.ndarray]


def stylise_samples(
    shards: str | Path | Sequence, checkpoints: Sequence[Path], samples: Sequence[int] | None = None,
    face_model: MorphableModel | None = None, device: str | None = None, geometry: Path | None = None,
) -> Scene:
    """Generate the albedo maps of some samples with each of some trained texture streams.

    Parameters
    ----------
    shards : str | Path | Sequence
        FTD: folder of shards, one shard, or several.
    checkpoints : Sequence[Path]
        Runs of `train_texture`, or their checkpoints.
    samples : Sequence[int] | None
        Which; None is four, evenly spread over those held out when the first checkpoint was trained on these shards,
        or over all if it was not.
    face_model : MorphableModel | None
        The model of the shards; None is the open model.
    device : str | None
        As `torch_device` takes it.
    geometry : Path | None
        Geometry run that predicts the linear albedo of the photos; given where, and only where, the checkpoints were
        trained on what it predicts.

    Returns
    -------
    Scene
        What the figures draw.

    Raises
    ------
    ValueError
        If a checkpoint was trained on another face model, chart or size, the checkpoints on linear albedo of several
        origins or of another one than `geometry`, or there is no such sample.
    """
    device = torch_device(device)
    dataset = FaceDataset(shards, replace(TEXTURE, fields=(*TEXTURE.fields, "landmarks")))
    runs = [load_texture_stream(path, str(device)) for path in checkpoints]
    for path, run in zip(checkpoints, runs):
        for key in _MUST_MATCH:
            if run.metadata[key] != dataset.attributes[key]:
                raise ValueError(
                    f"{path} was trained on shards whose {key} is {run.metadata[key]}, here it is "
                    f"{dataset.attributes[key]}; draw it from shards built alike"
                )
    stream = _geometry_of(runs, checkpoints, geometry, dataset.attributes)
    face, chart = face_in_chart(dataset.attributes, face_model or load_model("open"), dataset.chart_uv)
    samples = default_samples(dataset, runs[0].config, runs[0].metadata) if samples is None else samples
    raw = dataset.batch(checked(samples, dataset))
    preparer = TexturePreparer(face, chart, dataset.attributes, device)
    batch = preparer(raw)
    if stream:
        batch = batch._replace(linear_albedo=predict_linear_albedo(stream.to(device), preparer, batch.image))
    made = [run.stylise(batch.linear_albedo, batch.image) for run in runs]
    made = [Stylised(*(None if part is None else part.cpu() for part in one)) for one in made]
    sources = dataset.sources
    return Scene(
        [f"{index}: {sources[index]}" for index in samples], TextureBatch(*(part.cpu() for part in batch)), runs, made,
        (raw["landmarks"].numpy(), chart.vertex_pixels[face.landmarks]),
    )


def comparison_figure(
    shards: str | Path | Sequence, checkpoints: Sequence[Path], samples: Sequence[int] | None = None,
    face_model: MorphableModel | None = None, device: str | None = None, geometry: Path | None = None, *,
    labels: Sequence[str] = (), close_ups: bool = False,
) -> Image.Image:
    """Draw what several streams make of the same faces, after Fig. 16, or with close-ups after Fig. 13.

    Below each map is its mean absolute error on the texels that the photo shows, RGB in [0, 1], as in the log of
    `train_texture`; Fig. 16 gives squared errors.

    Parameters
    ----------
    shards : str | Path | Sequence
        See `stylise_samples`, as the next five.
    checkpoints : Sequence[Path]
        One a column.
    samples : Sequence[int] | None
        One a row.
    face_model : MorphableModel | None
        Of the shards.
    device : str | None
        Where to generate.
    geometry : Path | None
        Of the linear albedo.
    labels : Sequence[str]
        Of the checkpoints; empty describes them by their options.
    close_ups : bool
        Whether nose and mouth follow, enlarged, in a row of their own.

    Returns
    -------
    Image.Image
        Columns: photo, linear albedo that the checkpoints were trained on (3DMM), each checkpoint, albedo in the photo.
        ValueError is raised from within if there is not one label a checkpoint.
    """
    check_labels(labels, checkpoints)
    scene = stylise_samples(shards, checkpoints, samples, face_model, device, geometry)
    batch = scene.batch
    errors = [texture_errors(made.albedo_map, batch) for made in scene.stylised]
    seen = batch.visible.sum((1, 2, 3)) / batch.inside.sum((1, 2, 3))
    rows = []
    for row, name in enumerate(scene.names):
        maps = [batch.linear_albedo[row], *(made.albedo_map[row] for made in scene.stylised), batch.albedo[row]]
        numbers = [errors[0]["linear_mae"][row], *(error["albedo_mae"][row] for error in errors)]
        lines = [*(f"error {number:.4f}" for number in numbers), f"{100 * seen[row]:.0f} % seen in the photo"]
        rows.append([
            Cell(tile_of(batch.image[row]), (name,)),
            *(Cell(tile_of(albedo), (line,)) for albedo, line in zip(maps, lines)),
        ])
        if close_ups:
            in_photo, in_chart = (points[..., NOSE_AND_MOUTH, :] for points in scene.landmarks)
            rows.append([
                Cell(close_up(values, in_chart if place else in_photo[row]))
                for place, values in enumerate((batch.image[row], *maps))
            ])
    headings = labels or distinct([describe(run.config) for run in scene.runs], checkpoints)
    linear = "3DMM, predicted" if scene.runs[0].config.predicted_albedo else "3DMM"
    return picture_sheet(["photo", linear, *headings, "albedo in the photo"], rows)


def describe(config: TextureConfig) -> str:
    """Return a few words on how a stream was trained: how it stylises, and what was left out."""
    kind = {"adain": "AdaIN", "transform": "no regions"}.get(config.stylisation, f"n={config.regions}")
    parts = {
        "skips": config.skips, "landmarks": config.landmark_branch or config.stylisation != "srsm",
        "reconstruction loss": config.omega_r, "contextual loss": config.omega_c, "adversarial loss": config.omega_a,
    }
    return ", ".join([kind, *(f"no {part}" for part, there in parts.items() if not there)])


def _geometry_of(
    runs: Sequence[TrainedTexture], checkpoints: Sequence[Path], geometry: Path | None, attributes: dict
) -> GeometryStream | None:
    """The geometry stream that predicted the I_u that runs were trained on; None where it was annotated."""
    wanted = [run.metadata["geometry_sha256"] for run in runs]
    for path, sha256 in zip(checkpoints, wanted):
        if sha256 != wanted[0]:
            raise ValueError(
                f"{path} and {checkpoints[0]} must have been trained on the same linear albedo, got "
                f"{_origin(sha256)} and {_origin(wanted[0])}; draw a figure of each"
            )
    if not wanted[0]:
        if geometry is not None:
            raise ValueError(f"{checkpoints[0]} was trained on the annotated linear albedo; leave out --geometry")
        return None
    if geometry is None:
        raise ValueError(
            f"{checkpoints[0]} was trained on predicted linear albedo; give the geometry run that predicted it "
            "(--geometry RUN)"
        )
    stream = albedo_predictor(geometry, attributes)
    if weights_sha256(stream) != wanted[0]:
        raise ValueError(
            f"{geometry} must be the geometry run that {checkpoints[0]} was trained with (weights "
            f"{wanted[0][:12]}...), got {weights_sha256(stream)[:12]}...; give that run, as it was then"
        )
    return stream


def _origin(sha256: str) -> str:
    return f"that of geometry weights {sha256[:12]}..." if sha256 else "the annotated one"
