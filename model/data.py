"""ASMD shards to training batches: decoding in workers, maps and augmentation on the training device.

The content of a batch depends only on the seed and the step, whatever the workers and wherever the run was
resumed. Dimension key: B batch, K modes, S side of the crop and of the maps in pixels.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from asmgen.maps import AttributeMaps
from asmgen.shards import ShardSet
from asmgen.w300lp import SampleEntry
from bfm.light import mirror_light, rotate_light_in_plane
from bfm.morphable_model import MorphableModel
from bfm.pose import mirror_placement, transform_placement, transform_points
from model.config import Augmentation
from model.geometry import Parameters, normalise_position
from model.losses import mirror_map

LANDMARK_MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)
"""For each of the 68 landmarks the one on the other side of the face."""

_LABELS = ("albedo_coeffs", "light", "pose", "position", "landmarks")
_EQUAL = ("encoding", "size", "chart", "face_model_sha256", "centre", "scale", "quantum")
"""Attributes in which builds that are trained on together may not differ."""
_MAP_FIELDS = {"dense": ("identity_map", "expression_map"), "params": ("id_coeffs", "exp_coeffs")}


class Batch(NamedTuple):
    """What a training step is given, on its device.

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


class FaceDataset(torch.utils.data.Dataset):
    """The samples of one or more ASMD builds, images decoded, maps and coefficients as stored.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards or one shard, or several of them: real and rendered faces, say.
    fields : Sequence[str] | None
        What to read of a sample; None is what a `Batch` takes.

    Raises
    ------
    ValueError
        If shards are not ASMD, of an unknown version, or of another face model, chart, size or encoding than the
        first.

    Attributes
    ----------
    builds : list[ShardSet]
        Opened by each process for itself.
    attributes : dict
        Of the first build; those in which builds may not differ hold for all.
    """

    def __init__(self, source: str | Path | Sequence, fields: Sequence[str] | None = None):
        places = [source] if isinstance(source, (str, Path)) else list(source)
        if not places:
            raise ValueError("the list of shards is empty; name at least one folder of shards")
        heads = [ShardSet(place).attributes for place in places]
        self.attributes = heads[0]
        for place, head in zip(places, heads):
            kind, version = head.get("kind"), head.get("schema_version")
            if kind != "asmd" or version != 1:
                raise ValueError(
                    f"{place} must hold shards of kind 'asmd', version 1, got {kind!r}, version {version}; "
                    "make them with `dualface build asmd`"
                )
            for key in _EQUAL:
                if not np.array_equal(head[key], heads[0][key]):
                    raise ValueError(
                        f"{place} cannot be trained on together with {places[0]}: {key} is {head[key]} and not "
                        f"{heads[0][key]}; build both alike"
                    )
        fields = fields or ("image", *_LABELS, *_MAP_FIELDS[self.attributes["encoding"]])
        self.builds = [ShardSet(place, fields=fields) for place in places]
        self._starts = np.cumsum([0] + [len(build) for build in self.builds])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def chart_uv(self) -> np.ndarray:
        """(V, 2) chart coordinates kept with the first build."""
        return self.builds[0].constants["uv"]

    @property
    def sources(self) -> list[str]:
        """Names of the photos that the samples came from."""
        return [name for build in self.builds for name in ShardSet(build.paths, fields=("source",)).column("source")]

    @property
    def samples_sha256(self) -> str:
        """Hash of the sources and their poses: another one where samples were added, reordered or fitted anew."""
        digest = hashlib.sha256("\n".join(self.sources).encode())
        for build in self.builds:
            digest.update(np.ascontiguousarray(ShardSet(build.paths, fields=("pose",)).column("pose")).tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        build = int(np.searchsorted(self._starts, index, side="right")) - 1
        sample = self.builds[build][index - int(self._starts[build])]
        with Image.open(io.BytesIO(sample.pop("image"))) as jpeg:
            image = np.asarray(jpeg.convert("RGB")).transpose(2, 0, 1)
        return {"image": torch.tensor(image), **{key: torch.tensor(value) for key, value in sample.items()}}


class Preparer:
    """Turns collated samples of a `FaceDataset` into a `Batch`, on a device.

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
    ) -> Batch:
        """Return the batch, augmented if an augmentation and its (CPU) generator are given."""
        raw = {key: value.to(self.device, non_blocking=True) for key, value in raw.items()}
        if self.dense:
            identity, expression = (raw[key].float() * self.quantum for key in _MAP_FIELDS["dense"])
        else:
            identity = self.maps.identity_map(raw["id_coeffs"].float())
            expression = self.maps.expression_map(raw["exp_coeffs"].float())
        albedo, light, pose, position, landmarks = (raw[key].float() for key in _LABELS)
        size = raw["image"].shape[-1]
        batch = Batch(
            raw["image"].float() / 255, identity, expression,
            Parameters(albedo, light, pose, normalise_position(position, size)), position, landmarks,
        )
        return batch if augmentation is None else augment(batch, augmentation, generator, self.albedo_mirror)


def augment(
    batch: Batch, augmentation: Augmentation, generator: torch.Generator, albedo_mirror: torch.Tensor
) -> Batch:
    """Turn, shift, scale, mirror and recolour the crops at random; everything known of them stays true.

    Parameters
    ----------
    batch : Batch
        On any device.
    augmentation : Augmentation
        Amounts.
    generator : torch.Generator
        On the CPU, so that every device draws the same numbers.
    albedo_mirror : torch.Tensor
        (K, K) from `mirrored_albedo`.

    Returns
    -------
    Batch
        New tensors.
    """
    size = batch.image.shape[-1]
    changes = draw_changes(batch.image, augmentation, generator)
    pose, position = transform_placement(batch.parameters.pose, batch.position, changes.transform)
    light = rotate_light_in_plane(batch.parameters.light, changes.angle)
    choose = changes.choose
    mirrored_pose, mirrored_position = mirror_placement(pose, position, size)
    albedo = choose(batch.parameters.albedo @ albedo_mirror, batch.parameters.albedo)
    light = choose(mirror_light(light), light)
    pose, position = choose(mirrored_pose, pose), choose(mirrored_position, position)
    return Batch(
        changes.image(batch.image),
        choose(mirror_map(batch.identity_map), batch.identity_map),
        choose(mirror_map(batch.expression_map), batch.expression_map),
        Parameters(albedo, light * changes.brightness[:, None], pose, normalise_position(position, size)),
        position, changes.landmarks(batch.landmarks, size),
    )


class Changes(NamedTuple):
    """Random changes of a batch of crops: turned, shifted and scaled, recoloured, then mirrored.

    Attributes
    ----------
    transform : torch.Tensor
        (B, 2, 3) from old to new pixels, before mirroring.
    angle : torch.Tensor
        (B,) radians, its rotation.
    flipped : torch.Tensor
        (B,) bool, mirrored left and right.
    brightness, tint, saturation : torch.Tensor
        (B,), (B, 3), (B,) factors.
    """

    transform: torch.Tensor
    angle: torch.Tensor
    flipped: torch.Tensor
    brightness: torch.Tensor
    tint: torch.Tensor
    saturation: torch.Tensor

    def choose(self, mirrored: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
        """Return the mirrored (B, ...) values where a crop is mirrored, the original ones elsewhere."""
        return torch.where(self.flipped.view(-1, *[1] * (original.ndim - 1)), mirrored, original)

    def image(self, image: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, S, S) crops changed, in [0, 1]."""
        image = warp(image, self.transform)
        grey = image.mean(1, keepdim=True)
        image = grey + (image - grey) * self.saturation.view(-1, 1, 1, 1)
        image = image * (self.brightness[:, None] * self.tint)[:, :, None, None]
        return self.choose(image.flip(-1), image).clamp(0, 1)

    def landmarks(self, landmarks: torch.Tensor, size: int) -> torch.Tensor:
        """Return the (B, 68, 2) landmarks, pixels, of crops of this size changed likewise."""
        landmarks = transform_points(landmarks, self.transform)
        mirrored = landmarks[:, list(LANDMARK_MIRROR)]
        return self.choose(torch.stack([size - 1 - mirrored[..., 0], mirrored[..., 1]], -1), landmarks)


def draw_changes(image: torch.Tensor, augmentation: Augmentation, generator: torch.Generator) -> Changes:
    """Draw the changes of a batch of crops.

    Parameters
    ----------
    image : torch.Tensor
        (B, 3, S, S), for its shape and device.
    augmentation : Augmentation
        Amounts.
    generator : torch.Generator
        On the CPU, so that every device draws the same numbers.

    Returns
    -------
    Changes
        On the device of the image.
    """
    count, _, _, size = image.shape
    uniform = torch.rand(count, 10, generator=generator).to(image.device)
    either_way = uniform * 2 - 1
    angle = either_way[:, 0] * math.radians(augmentation.rotation)
    factor = 1 + either_way[:, 1] * augmentation.scale
    shift = either_way[:, 2:4] * augmentation.shift * size
    return Changes(
        similarity(angle, factor, shift, size), angle, uniform[:, 4] < augmentation.flip,
        brightness=1 + either_way[:, 5] * augmentation.brightness,
        tint=1 + either_way[:, 6:9] * augmentation.tint,
        saturation=1 + either_way[:, 9] * augmentation.saturation,
    )


def similarity(angle: torch.Tensor, factor: torch.Tensor, shift: torch.Tensor, size: int) -> torch.Tensor:
    """Return (B, 2, 3) transforms of crop pixels about the middle of the crop.

    Parameters
    ----------
    angle : torch.Tensor
        (B,) radians, from x toward y: clockwise as seen.
    factor : torch.Tensor
        (B,) magnification.
    shift : torch.Tensor
        (B, 2) pixels, applied last.
    size : int
        Side of the crop, pixels.

    Returns
    -------
    torch.Tensor
        (B, 2, 3), from old to new pixels.
    """
    a, b = factor * torch.cos(angle), factor * torch.sin(angle)
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    middle = (size - 1) / 2
    return torch.cat([linear, (shift + middle - linear.sum(-1) * middle)[..., None]], -1)


def warp(image: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    """Move images, (B, 3, S, S), by (B, 2, 3) transforms of pixels; beyond the border its pixels are repeated."""
    size = image.shape[-1]
    inverse = torch.linalg.inv(transform[..., :2])
    # from pixels to the [-1, 1] of grid_sample, whose ends are pixel centres here
    middle = (size - 1) / 2
    origin = -(inverse @ transform[..., 2:]) / middle + inverse.sum(-1, keepdim=True) - 1
    grid = F.affine_grid(torch.cat([inverse, origin], -1), list(image.shape), align_corners=True)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


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


def batch_indices(step: int, count: int, batch_size: int, seed: int) -> list[int]:
    """Return which samples make the batch of a step: each epoch is a permutation, drawn from (seed, epoch).

    Parameters
    ----------
    step : int
        From 0.
    count : int
        Number of samples.
    batch_size : int
        Samples a batch; a batch may span two epochs.
    seed : int
        Of the run.

    Returns
    -------
    list[int]
        (batch_size,) indices below `count`.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return [int(_permutation(place // count, count, seed)[place % count]) for place in places]


@lru_cache(maxsize=2)
def _permutation(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the CPU generator that draws everything random in a step."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


class _StepBatches:
    """Batch sampler of a `DataLoader`: the indices of steps `start` to `stop`."""

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int, start: int, stop: int):
        self.indices, self.batch_size, self.seed, self.steps = indices, batch_size, seed, range(start, stop)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            places = batch_indices(step, len(self.indices), self.batch_size, self.seed)
            yield [int(self.indices[place]) for place in places]


def training_loader(
    dataset: FaceDataset, indices: np.ndarray, batch_size: int, seed: int, start: int, stop: int, workers: int = 0,
    pin_memory: bool = False,
) -> torch.utils.data.DataLoader:
    """Return the collated batches of steps `start` to `stop`, in order.

    Parameters
    ----------
    dataset : FaceDataset
        Samples.
    indices : np.ndarray
        (N,) which samples to train on.
    batch_size : int
        Samples a step.
    seed : int
        Of the run.
    start : int
        First step.
    stop : int
        The step after the last.
    workers : int
        Processes that decode; 0 decodes in this one. The batches are the same.
    pin_memory : bool
        Whether to place batches where a GPU copies from.

    Returns
    -------
    torch.utils.data.DataLoader
        Dicts of CPU tensors.
    """
    return torch.utils.data.DataLoader(
        dataset, batch_sampler=_StepBatches(indices, batch_size, seed, start, stop), num_workers=workers,
        pin_memory=pin_memory,
        # its own generator: the loader must not draw from the global one, whose state a checkpoint restores
        generator=torch.Generator(),
        # never fork: this process may hold threads and open files
        multiprocessing_context="spawn" if workers else None,
    )


def validation_batches(dataset: FaceDataset, indices: np.ndarray, batch_size: int) -> Iterator[dict]:
    """Yield each of the samples `indices` once, in order, collated; decoded in this process."""
    for place in range(0, len(indices), batch_size):
        yield torch.utils.data.default_collate([dataset[index] for index in indices[place:place + batch_size]])


def split_identities(sources: Sequence[str], fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a share of the identities; all re-posed and mirrored copies of a photo go together.

    Parameters
    ----------
    sources : Sequence[str]
        (N,) source names of the samples, `SampleEntry.source`.
    fraction : float
        Share of the identities to hold out, rounded, at least one; 0 holds none.
    seed : int
        Chooses which.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        Indices to train on and indices held out, both increasing.

    Raises
    ------
    ValueError
        If nothing would be left to train on.
    """
    photos = [SampleEntry(source, Path(f"{source}.jpg"), None, None, "", False).photo for source in sources]
    ordered = sorted(set(photos), key=lambda photo: hashlib.sha256(f"{seed} {photo}".encode()).digest())
    held = set(ordered[:max(1, round(fraction * len(ordered)))]) if fraction > 0 else set()
    if len(held) == len(ordered):
        raise ValueError(
            f"the shards hold {len(ordered)} identities, too few to hold out {fraction:g} of them; "
            "build more, or hold none out (--validation-fraction 0)"
        )
    is_held = np.array([photo in held for photo in photos], bool)
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)
