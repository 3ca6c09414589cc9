"""What the regions of SRSM are about: where they lie, Fig. 14, and the statistics of features in them, Fig. 15.

Dimension key: B samples, n regions, C channels, S side of the crop and of the maps in pixels, h/w of the mid-level
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import color_sequences, colormaps
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from bfm.morphable_model import MorphableModel
from model.figures.texture import Scene, stylise_samples
from model.picture_sheet import TILE, Cell, above, picture_sheet, tile_of
from model.regions import region_statistics

PANEL = 100
"""Height of the plots of Fig. 15, pixels."""

REGIONS = (1, 4, 7, 9, 11, 15)
"""Drawn unless others are asked for: those of Fig. 14, from 0."""

FACE_MARGIN = 0.5
"""By which the sides of the landmarks' convex hull move out to be the face in Fig. 14, mid-level feature cells."""

_COLOURS = tuple(tuple(int(255 * part) for part in to_rgb(colour)) for colour in color_sequences["tab10"])


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
        x, y = peak * picture.size
        draw.ellipse(_disc(x, y, 10), outline="black", width=5)
        draw.ellipse(_disc(x, y, 9), outline=_COLOURS[place % len(_COLOURS)], width=3)
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
