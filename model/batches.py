"""Raw batches to what a training step is given: maps and augmentation, on the training device.

Each task has its batch, what prepares it from collated samples, and how it is augmented. Dimension key: B batch,
K modes, S side of the crop and of the maps in pixels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from asmgen.maps import AttributeMaps
from bfm.charts import Chart
from bfm.light import mirror_light, rotate_light_in_plane
from bfm.morphable_model import MorphableModel
from bfm.pose import mirror_placement, transform_placement
from model.augment import draw_changes
from model.config import Augmentation
from model.data import LABELS, MAP_FIELDS
from model.geometry import Parameters, normalise_position
from model.linear_albedo import LinearAlbedo
from model.losses import mirror_map

MAX_ASYMMETRY = 1.0
"""Texels on average between a vertex and the mirror image of its twin, above which a chart is not mirrored."""


class GeometryBatch(NamedTuple):
    """What a training step of the geometry stream is given, on its device.

    Attributes
    ----------
    image : torch.Tensor
        (B, 3, S, S) RGB in [0, 1].
    identity_map, expression_map : torch.Tensor
        (B, 3, S, S) true A_id and A_exp.
    parameters : Parameters
        True albedo coefficients, light, pose (radians) and position, normalised as the network predicts it.
    position : torch.Tensor
        (B, 3) the position in crop pixels.
    landmarks : torch.Tensor
        (B, 68, 2) projected landmarks of the model, crop pixels.
    """

    image: torch.Tensor
    identity_map: torch.Tensor
    expression_map: torch.Tensor
    parameters: Parameters
    position: torch.Tensor
    landmarks: torch.Tensor


class GeometryPreparer:
    """Turns collated `GEOMETRY` samples into a `GeometryBatch`, on a device.

    Parameters
    ----------
    model : MorphableModel
        The face model of the shards, numpy.
    maps : AttributeMaps
        Its map space, numpy.
    attributes : dict
        Of the shards.
    device : torch.device
        Where to work.
    """

    def __init__(self, model: MorphableModel, maps: AttributeMaps, attributes: dict, device: torch.device):
        self.device = device
        self.dense = attributes["encoding"] == "dense"
        self.quantum = float(attributes["quantum"]) if self.dense else None
        self.maps = maps.to(device)
        self.albedo_mirror = torch.tensor(mirrored_albedo(model), dtype=torch.float32, device=device)

    def __call__(
        self, raw: dict[str, torch.Tensor], augmentation: Augmentation | None = None,
        generator: torch.Generator | None = None,
    ) -> GeometryBatch:
        """Return the batch, augmented if an augmentation and its (CPU) generator are given."""
        raw = {key: value.to(self.device, non_blocking=True) for key, value in raw.items()}
        if self.dense:
            identity, expression = (raw[key].float() * self.quantum for key in MAP_FIELDS["dense"])
        else:
            identity = self.maps.identity_map(raw["id_coeffs"].float())
            expression = self.maps.expression_map(raw["exp_coeffs"].float())
        albedo, light, pose, position, landmarks = (raw[key].float() for key in LABELS)
        size = raw["image"].shape[-1]
        batch = GeometryBatch(
            raw["image"].float() / 255, identity, expression,
            Parameters(albedo, light, pose, normalise_position(position, size)), position, landmarks,
        )
        return batch if augmentation is None else augment_geometry(batch, augmentation, generator, self.albedo_mirror)


def augment_geometry(
    batch: GeometryBatch, augmentation: Augmentation, generator: torch.Generator, albedo_mirror: torch.Tensor
) -> GeometryBatch:
    """Turn, shift, scale, mirror and recolour the crops at random; everything known of them stays true.

    Parameters
    ----------
    batch : GeometryBatch
        On any device.
    augmentation : Augmentation
        Amounts.
    generator : torch.Generator
        On the CPU, so that every device draws the same numbers.
    albedo_mirror : torch.Tensor
        (K, K) from `mirrored_albedo`.

    Returns
    -------
    GeometryBatch
        New tensors.
    """
    size = batch.image.shape[-1]
    changes = draw_changes(batch.image, augmentation, generator)
    choose = changes.choose
    pose, position = transform_placement(batch.parameters.pose, batch.position, changes.transform)
    mirrored_pose, mirrored_position = mirror_placement(pose, position, size)
    pose, position = choose(mirrored_pose, pose), choose(mirrored_position, position)
    albedo = choose(batch.parameters.albedo @ albedo_mirror, batch.parameters.albedo)
    light = rotate_light_in_plane(batch.parameters.light, changes.angle)
    light = choose(mirror_light(light), light) * changes.brightness[:, None]
    return GeometryBatch(
        changes.image(batch.image),
        choose(mirror_map(batch.identity_map), batch.identity_map),
        choose(mirror_map(batch.expression_map), batch.expression_map),
        Parameters(albedo, light, pose, normalise_position(position, size)),
        position, changes.landmarks(batch.landmarks, size),
    )


def mirrored_albedo(model: MorphableModel) -> np.ndarray:
    """Return the (K, K) matrix M for which ``coeffs @ M`` is, as nearly as the basis can, the mirrored albedo.

    Parameters
    ----------
    model : MorphableModel
        Its mean albedo is taken as symmetric.

    Returns
    -------
    np.ndarray
        (K, K) float64.
    """
    count, vertex_count, _ = model.albedo_basis.shape
    basis = model.albedo_basis.reshape(count, 3 * vertex_count)
    mirrored = model.albedo_basis[:, model.mirror].reshape(basis.shape)
    gram = (basis @ basis.T).astype(np.float64)
    return (mirrored @ basis.T).astype(np.float64) @ np.linalg.pinv(gram, hermitian=True)


class TextureBatch(NamedTuple):
    """What a training step of the texture stream is given, on its device.

    Attributes
    ----------
    image : torch.Tensor
        (B, 3, S, S) I_o, RGB in [0, 1].
    linear_albedo : torch.Tensor
        (B, 3, S, S) I_u, RGB in [0, 1], 0 outside the chart.
    albedo : torch.Tensor
        (B, 3, S, S) I_a, RGB in [0, 1], 0 outside the chart.
    visible : torch.Tensor
        (B, 1, S, S) bool: texels that the photo shows; the others of I_a were filled in.
    inside : torch.Tensor
        (B, 1, S, S) bool: texels of the chart.
    """

    image: torch.Tensor
    linear_albedo: torch.Tensor
    albedo: torch.Tensor
    visible: torch.Tensor
    inside: torch.Tensor


class TexturePreparer:
    """Turns collated `TEXTURE` samples into a `TextureBatch`, on a device.

    I_u of ``params`` shards is made on the device: the albedo basis is unwrapped into the chart once.

    Parameters
    ----------
    model : MorphableModel
        The face model of the shards, face part only, numpy.
    chart : Chart
        Its chart.
    attributes : dict
        Of the shards.
    device : torch.device
        Where to work.

    Attributes
    ----------
    mirrors : bool
        Whether crops and maps are mirrored at all: not where the chart is not symmetric to `MAX_ASYMMETRY`, where
        the columns of a map reversed are not the map of the mirrored face.
    """

    def __init__(self, model: MorphableModel, chart: Chart, attributes: dict, device: torch.device):
        self.device = device
        self.inside = torch.tensor(chart.mask, device=device)
        self.mirrors = chart_asymmetry(chart, model.mirror) < MAX_ASYMMETRY
        self.dense, self.lit = attributes["encoding"] == "dense", bool(attributes["lit"])
        self._model, self._chart = model, chart

    def __call__(
        self, raw: dict[str, torch.Tensor], augmentation: Augmentation | None = None,
        generator: torch.Generator | None = None,
    ) -> TextureBatch:
        """Return the batch, augmented if an augmentation and its (CPU) generator are given."""
        raw = {key: value.to(self.device, non_blocking=True) for key, value in raw.items()}
        if self.dense:
            linear = raw["linear_albedo_map"].permute(0, 3, 1, 2).float() / 255
        else:
            linear = self.linear_albedo(raw["albedo_coeffs"].float())
        inside = self.inside.expand(len(linear), 1, -1, -1)
        batch = TextureBatch(
            raw["image"].float() / 255, linear * inside, raw["albedo_map"].float() / 255 * inside,
            raw["mask"][:, None].bool() & inside, inside,
        )
        if augmentation is None:
            return batch
        augmentation = augmentation if self.mirrors else replace(augmentation, flip=0.0)
        return augment_texture(batch, augmentation, generator, self.lit)

    @cached_property
    def linear_albedo(self) -> LinearAlbedo:
        """What makes I_u of coefficients on the device; made when first needed."""
        return LinearAlbedo(self._model, self._chart).to(self.device)


def augment_texture(
    batch: TextureBatch, augmentation: Augmentation, generator: torch.Generator, lit: bool = False
) -> TextureBatch:
    """Turn, shift, scale, mirror and recolour the photos at random, and the albedos with them where they change.

    Where the face lies in the crop and how bright it is lit do not change its albedo; its colours and which side is
    left do.

    Parameters
    ----------
    batch : TextureBatch
        On any device, in a mirror-symmetric chart.
    augmentation : Augmentation
        Amounts.
    generator : torch.Generator
        On the CPU, so that every device draws the same numbers.
    lit : bool
        Whether I_a holds the light of the photo (``build ftd --lit``), and so follows its brightness.

    Returns
    -------
    TextureBatch
        New tensors.
    """
    changes = draw_changes(batch.image, augmentation, generator)
    inside = changes.chart_maps(batch.inside) & batch.inside  # its outline may be off by a texel

    def recoloured(albedo: torch.Tensor, lit: bool = False) -> torch.Tensor:
        return changes.chart_maps(changes.recolour(albedo, lit)).clamp(0, 1) * inside

    return TextureBatch(
        changes.image(batch.image), recoloured(batch.linear_albedo), recoloured(batch.albedo, lit),
        changes.chart_maps(batch.visible) & inside, inside,
    )


def chart_asymmetry(chart: Chart, mirror: np.ndarray) -> float:
    """Return how far, in texels on average, vertices lie from the mirror images of their twins (V,) `mirror`."""
    across = chart.uv[mirror] * [-1, 1] + [1, 0]
    return float(np.linalg.norm(chart.uv - across, axis=1).mean() * (chart.size - 1))


class LandmarkBatch(NamedTuple):
    """What a training step of the landmark network is given, on its device.

    Attributes
    ----------
    image : torch.Tensor
        (B, 3, S, S) RGB in [0, 1].
    landmarks : torch.Tensor
        (B, 68, 2) crop pixels.
    """

    image: torch.Tensor
    landmarks: torch.Tensor


def prepare_landmarks(
    raw: dict[str, torch.Tensor], device: torch.device, augmentation: Augmentation | None = None,
    generator: torch.Generator | None = None,
) -> LandmarkBatch:
    """Return the batch of collated `LANDMARKS` samples, augmented if an augmentation and its generator are given.

    Parameters
    ----------
    raw : dict[str, torch.Tensor]
        On any device.
    device : torch.device
        Where to work.
    augmentation : Augmentation | None
        Amounts; None changes nothing.
    generator : torch.Generator | None
        On the CPU.

    Returns
    -------
    LandmarkBatch
        On the device.
    """
    image = raw["image"].to(device, non_blocking=True).float() / 255
    landmarks = raw["landmarks"].to(device, non_blocking=True).float()
    if augmentation is None:
        return LandmarkBatch(image, landmarks)
    changes = draw_changes(image, augmentation, generator)
    return LandmarkBatch(changes.image(image), changes.landmarks(landmarks, image.shape[-1]))


def prepare_photos(
    raw: dict[str, torch.Tensor], device: torch.device, augmentation: Augmentation | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return the photos of collated samples, (B, 3, S, S) RGB in [0, 1]; arguments as those of `prepare_landmarks`."""
    image = raw["image"].to(device, non_blocking=True).float() / 255
    return image if augmentation is None else draw_changes(image, augmentation, generator).image(image)
