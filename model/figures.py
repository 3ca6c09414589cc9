"""The figures of Sec. IV-E, drawn from trained runs: Fig. 13 to 16 about the texture stream, Fig. 17 about fusion.

Dimension key: B samples, n regions, C channels, S side of the crop and of the maps in pixels, h/w of the mid-level
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from model.batches import TextureBatch, TexturePreparer
from model.checkpoint import weights_sha256
from model.config import FusionConfig, RunConfig, TextureConfig
from model.data import FUSION, TEXTURE, FaceDataset, face_in_chart, held_out_samples
from model.dual_stream import TrainedFaces, draw_face, load_dual_stream
from model.fusion_losses import compose, photometric_error
from model.geometry import GeometryStream
from model.metrics import texture_errors
from model.picture_sheet import TILE, Cell, above, picture_sheet, pixels_of, tile_of
from model.regions import region_statistics
from model.texture import Stylised
from model.train_geometry import torch_device
from model.train_texture import TrainedTexture, albedo_predictor, load_texture_stream, predict_linear_albedo

SAMPLE_COUNT = 4
PANEL = 100
"""Height of the plots of Fig. 15, pixels."""

REGIONS = (1, 4, 7, 9, 11, 15)
"""Drawn unless others are asked for: those of Fig. 14, from 0."""

FACE_MARGIN = 0.5
"""By which the sides of the landmarks' convex hull move out to be the face in Fig. 14, mid-level feature cells."""

NOSE_AND_MOUTH = (*range(27, 36), *range(48, 68))
"""The landmarks that the close-ups of Fig. 13 are about."""

_MUST_MATCH = ("face_model_sha256", "chart", "size", "lit")
_COLOURS = tuple(tuple(int(255 * part) for part in colour) for colour in colormaps["tab10"].colors)


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
    samples = _default_samples(dataset, runs[0].config, runs[0].metadata) if samples is None else samples
    raw = torch.utils.data.default_collate([dataset[index] for index in _checked(samples, dataset)])
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
    _check_labels(labels, checkpoints)
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
                Cell(_close_up(values, in_chart if place else in_photo[row]))
                for place, values in enumerate((batch.image[row], *maps))
            ])
    headings = labels or _distinct([describe(run.config) for run in scene.runs], checkpoints)
    linear = "3DMM, predicted" if scene.runs[0].config.predicted_albedo else "3DMM"
    return picture_sheet(["photo", linear, *headings, "albedo in the photo"], rows)


def regions_figure(
    shards: str | Path | Sequence, checkpoint: Path, samples: Sequence[int] | None = None,
    regions: Sequence[int] | None = None, face_model: MorphableModel | None = None, device: str | None = None,
    geometry: Path | None = None,
) -> Image.Image:
    """Draw the shared semantic regions in photo and linear albedo, after Fig. 14.

    The activation of region i is the root mean square over channels of ``X (.) X_si``, Eq. (13), with X_o for the
    photo and X_u for the linear albedo, where there is a chart. Circles of one colour, a region's (sparse
    correspondence), are where it is strongest: in the chart, and in the photo on the face, the convex hull of the
    landmarks grown by `FACE_MARGIN`, as the background has no counterpart in the chart.

    Parameters
    ----------
    shards : str | Path | Sequence
        See `stylise_samples`, as `samples`, `face_model`, `device` and `geometry`.
    checkpoint : Path
        Run with SRSM.
    samples : Sequence[int] | None
        Two rows each.
    regions : Sequence[int] | None
        One a column; None is `REGIONS`.
    face_model : MorphableModel | None
        Of the shards.
    device : str | None
        Where to generate.
    geometry : Path | None
        Of the linear albedo.

    Returns
    -------
    Image.Image
        Columns: correspondences, regions. ValueError is raised from within if the run has no regions, or not these.
    """
    scene, regions = _scene_with_regions(shards, checkpoint, samples, regions, face_model, device, geometry)
    made, rows = scene.stylised[0], []
    cells = made.regions.shape[2:]
    in_chart = torch.nn.functional.adaptive_avg_pool2d(scene.batch.inside.float(), cells) > 0.5
    for row, name in enumerate(scene.names):
        on_face = _in_hull(scene.landmarks[0][row], scene.batch.image.shape[-1], cells)
        for features, allowed, picture, lines in (
            (made.style, on_face, scene.batch.image, (name,)),
            (made.content * in_chart, True, scene.batch.linear_albedo, ("linear albedo",)),
        ):
            tile = tile_of(picture[row])
            activations = _activations(features[row], made.regions[row])[list(regions)]
            peaks = [_peak(activation * allowed) for activation in activations]
            rows.append([
                Cell(_circled(tile, dict(enumerate(peaks))), lines),
                *(Cell(_circled(_heated(tile, activations[place]), {place: peak})) for place, peak in enumerate(peaks)),
            ])
    return picture_sheet(["correspondence", *(f"region {region}" for region in regions)], rows)


def statistics_figure(
    shards: str | Path | Sequence, checkpoint: Path, samples: Sequence[int] | None = None,
    regions: Sequence[int] | None = None, face_model: MorphableModel | None = None, device: str | None = None,
    geometry: Path | None = None,
) -> Image.Image:
    """Draw the statistics of the photo's features X_o in the whole image and in regions, after Fig. 15.

    Parameters
    ----------
    shards : str | Path | Sequence
        See `stylise_samples`, as `samples`, `face_model`, `device` and `geometry`.
    checkpoint : Path
        Run with SRSM.
    samples : Sequence[int] | None
        One a row.
    regions : Sequence[int] | None
        One a column; None is `REGIONS`.
    face_model : MorphableModel | None
        Of the shards.
    device : str | None
        Where to generate.
    geometry : Path | None
        Of the linear albedo.

    Returns
    -------
    Image.Image
        Columns: whole image, regions. Below each the mean over channels of mu and sigma (`region_statistics`), and
        a plot with a dot for each channel: mu to the right, sigma up, those of the whole image in grey behind.
        ValueError is raised from within if the run has no regions, or not these.
    """
    scene, regions = _scene_with_regions(shards, checkpoint, samples, regions, face_model, device, geometry)
    made, rows = scene.stylised[0], []
    everywhere = torch.ones_like(made.regions[:, :1])
    statistics = torch.stack(  # (B, n + 1, C, 2)
        region_statistics(made.style, torch.cat([everywhere, made.regions[:, list(regions)]], 1)), -1
    ).numpy()
    for row, name in enumerate(scene.names):
        picture = tile_of(scene.batch.image[row])
        activations = _activations(made.style[row], made.regions[row])[list(regions)]
        pictures = [picture, *(_heated(picture, part) for part in activations)]
        whole = statistics[row, 0]
        rows.append([
            Cell(above(tile, _dots(dots, whole, statistics[row])), (
                *((name,) if place == 0 else ()), "mean {:.3f}, deviation {:.3f}".format(*dots.mean(0)),
            )) for place, (tile, dots) in enumerate(zip(pictures, statistics[row]))
        ])
    headings = ["whole image (a dot a channel: mean right, deviation up)", *(f"region {region}" for region in regions)]
    return picture_sheet(headings, rows)


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
    _check_labels(labels, checkpoints)
    if (geometry is None) != (texture is None):
        raise ValueError("geometry and texture must be given together, or neither; fusion starts from one run of each")
    face_model, dataset = face_model or load_model("open"), FaceDataset(shards, FUSION)
    samples = samples if samples is None else _checked(samples, dataset)
    runs = [_load_fusion(path, face_model, device, dataset) for path in checkpoints]
    configs = [FusionConfig.from_dict(run.metadata["fusion_config"]) for run in runs]
    labels = labels or _distinct([describe_losses(config) for config in configs], checkpoints)
    samples = _default_samples(dataset, configs[0], runs[0].metadata) if samples is None else samples
    photo = torch.stack([dataset[index]["image"] for index in samples]) / 255
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


def describe(config: TextureConfig) -> str:
    """Return a few words on how a stream was trained: how it stylises, and what was left out."""
    kind = {"adain": "AdaIN", "transform": "no regions"}.get(config.stylisation, f"n={config.regions}")
    parts = {
        "skips": config.skips, "landmarks": config.landmark_branch or config.stylisation != "srsm",
        "reconstruction loss": config.omega_r, "contextual loss": config.omega_c, "adversarial loss": config.omega_a,
    }
    return ", ".join([kind, *(f"no {part}" for part, there in parts.items() if not there)])


def _check_labels(labels: Sequence[str], checkpoints: Sequence[Path]):
    if labels and len(labels) != len(checkpoints):
        raise ValueError(f"labels must be one for each of the {len(checkpoints)} checkpoints, got {len(labels)}")


def _distinct(labels: list[str], checkpoints: Sequence[Path]) -> list[str]:
    """Labels, with the name of the run where several are alike."""
    runs = [Path(path).resolve() for path in checkpoints]
    runs = [path.name if path.is_dir() else path.parent.name for path in runs]
    return [f"{label} ({run})" if labels.count(label) > 1 else label for label, run in zip(labels, runs)]


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


def _default_samples(dataset: FaceDataset, config: RunConfig, metadata: dict) -> np.ndarray:
    """At most `SAMPLE_COUNT` samples, evenly spread, of those that a run held out of these, or of all."""
    held_out = held_out_samples(dataset, config, metadata)
    indices = np.arange(len(dataset)) if held_out is None else held_out
    return indices[np.unique(np.linspace(0, len(indices) - 1, SAMPLE_COUNT).round().astype(int))]


def _checked(samples: Sequence[int], dataset: FaceDataset) -> Sequence[int]:
    """The samples, each of which there must be."""
    for index in samples:
        if not 0 <= index < len(dataset):
            raise ValueError(f"samples must be among the {len(dataset)} there are, got {index}")
    return samples


def _scene_with_regions(
    shards, checkpoint, samples, regions, face_model, device, geometry
) -> tuple[Scene, Sequence[int]]:
    """The samples stylised by one run, and the regions to draw."""
    scene = stylise_samples(shards, [checkpoint], samples, face_model, device, geometry)
    if scene.stylised[0].regions is None:
        raise ValueError(
            f"{checkpoint} must have been trained with regions (--stylisation srsm), got "
            f"'{scene.runs[0].config.stylisation}'"
        )
    count = scene.stylised[0].regions.shape[1]
    regions = regions or [region for region in REGIONS if region < count] or [0]
    for region in regions:
        if not 0 <= region < count:
            raise ValueError(f"regions must be among the {count} there are, from 0, got {region}")
    return scene, regions


def _activations(features: torch.Tensor, regions: torch.Tensor) -> np.ndarray:
    """(n, h, w) strength of (C, h, w) features in (n, h, w) regions: the RMS over channels of Eq. (13)."""
    return (features.float().square().mean(0).sqrt() * regions).numpy()


def _in_hull(points: np.ndarray, size: int, cells: tuple[int, int]) -> np.ndarray:
    """(h, w) whether the middles of a picture's cells lie in the convex hull, grown, of (K, 2) points, pixels."""
    sides = ConvexHull(points).equations  # outward normal and offset
    cell = size / np.array(cells[::-1])
    rows, columns = np.indices(cells)
    middles = (np.stack([columns, rows], -1) + 0.5) * cell - 0.5
    return (middles @ sides[:, :2].T + sides[:, 2] <= FACE_MARGIN * cell.max()).all(-1)


def _close_up(values: torch.Tensor, points: np.ndarray) -> Image.Image:
    """The square about some points, pixels, of a (3, S, S) image as a tile; black beyond its border."""
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2 + 0.5, 0.6 * (high - low).max()
    box = (*(middle - half), *(middle + half))
    return pixels_of(values).transform((TILE, TILE), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)


def _heated(picture: Image.Image, activation: np.ndarray) -> Image.Image:
    """A tile under the colours of an (h, w) activation, from 0 to its largest."""
    strength = Image.fromarray((activation / max(activation.max(), 1e-12)).astype(np.float32))
    strength = np.asarray(strength.resize(picture.size, Image.Resampling.BILINEAR))
    return Image.blend(picture, Image.fromarray(colormaps["turbo"](strength, bytes=True)[..., :3].copy()), 0.5)


def _peak(activation: np.ndarray) -> np.ndarray:
    """(2,) where an (h, w) activation is largest, x and y as parts of its width and height."""
    row, column = np.unravel_index(activation.argmax(), activation.shape)
    return (np.array([column, row]) + 0.5) / activation.shape[::-1]


def _circled(picture: Image.Image, peaks: dict[int, np.ndarray]) -> Image.Image:
    """A tile with a circle about each peak, in the colour of its place."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    for place, peak in peaks.items():
        draw.ellipse(_disc(*peak * picture.size, 10), outline="black", width=5)
        draw.ellipse(_disc(*peak * picture.size, 9), outline=_COLOURS[place % len(_COLOURS)], width=3)
    return picture


def _dots(values: np.ndarray, behind: np.ndarray, everything: np.ndarray) -> Image.Image:
    """A plot of (C, 2) points over grey ones, (C, 2), its axes wide enough for everything, (..., 2)."""
    panel = Image.new("RGB", (TILE, PANEL), "white")
    draw = ImageDraw.Draw(panel)
    low, high = everything.min((0, 1)), everything.max((0, 1))
    for points, colour in ((behind, (190, 190, 190)), (values, _COLOURS[0])):
        for right, up in (points - low) / np.maximum(high - low, 1e-12):
            draw.ellipse(_disc(4 + right * (TILE - 9), PANEL - 5 - up * (PANEL - 9), 1.5), fill=colour)
    return panel


def _disc(x: float, y: float, radius: float) -> tuple[float, ...]:
    return x - radius, y - radius, x + radius, y + radius
