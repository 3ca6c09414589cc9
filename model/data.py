"""Shards to training batches: decoding in workers, maps and augmentation on the training device.

One `FaceDataset` reads for every task; a task's `Preparer` makes its batches.

The content of a batch depends only on the seed and the step, whatever the workers and wherever the run was
resumed. Dimension key: B batch, K modes, S side of the crop and of the maps in pixels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from asmgen import asmd
from asmgen.maps import AttributeMaps
from asmgen.shards import ShardSet
from asmgen.w300lp import SampleEntry
from bfm.charts import Chart, make_chart
from bfm.light import mirror_light, rotate_light_in_plane
from bfm.morphable_model import MorphableModel
from bfm.pose import mirror_placement, transform_placement
from model.augment import draw_changes
from model.config import Augmentation
from model.geometry import Parameters, normalise_position
from model.losses import mirror_map
from texgen import ftd

_LABELS = ("albedo_coeffs", "light", "pose", "position", "landmarks")
_MAP_FIELDS = {"dense": ("identity_map", "expression_map"), "params": ("id_coeffs", "exp_coeffs")}
_ALBEDO_FIELDS = {"dense": ("linear_albedo_map",), "params": ("albedo_coeffs",)}
_VERSIONS = {asmd.KIND: asmd.SCHEMA_VERSION, ftd.KIND: ftd.SCHEMA_VERSION}

MAX_CHART_SHIFT = 0.02
"""Texels: above what another processor's arithmetic does to a chart, below what shows in a face."""

MAX_ASYMMETRY = 1.0
"""Texels on average between a vertex and the mirror image of its twin, above which a chart is not mirrored."""


@dataclass(frozen=True)
class Wanted:
    """What a task reads of which shards.

    Attributes
    ----------
    kinds : tuple[str, ...]
        Kinds of shards that will do.
    fields : tuple[str, ...]
        Fields of a sample.
    encoded : dict[str, tuple[str, ...]]
        Further fields, by encoding.
    equal : tuple[str, ...]
        Attributes in which builds that are trained on together may not differ.
    """

    kinds: tuple[str, ...]
    fields: tuple[str, ...]
    encoded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    equal: tuple[str, ...] = ("size",)


GEOMETRY = Wanted(
    (asmd.KIND,), ("image", *_LABELS), _MAP_FIELDS,
    ("encoding", "size", "chart", "face_model_sha256", "centre", "scale", "quantum"),
)
"""Photos, attribute spatial maps and parameters."""

TEXTURE = Wanted(
    (ftd.KIND,), ("image", "albedo_map", "mask"), _ALBEDO_FIELDS,
    ("encoding", "size", "chart", "face_model_sha256", "lit"),
)
"""Triplets of photo, linear albedo and photographed albedo, and the mask of the latter."""

LANDMARKS = Wanted((asmd.KIND, ftd.KIND), ("image", "landmarks"))
"""Photos and their 68 landmarks."""


class Batch(NamedTuple):
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


class FaceDataset(torch.utils.data.Dataset):
    """The samples of one or more builds, images decoded, everything else as stored.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards or one shard, or several of them: real and rendered faces, say.
    wanted : Wanted
        What to read of which kind of shards.

    Raises
    ------
    ValueError
        If shards are of another kind or of an unknown version, or differ from the first where they may not.

    Attributes
    ----------
    builds : list[ShardSet]
        Opened by each process for itself.
    attributes : dict
        Of the first build; those in which builds may not differ hold for all.
    """

    def __init__(self, source: str | Path | Sequence, wanted: Wanted = GEOMETRY):
        places = [source] if isinstance(source, (str, Path)) else list(source)
        if not places:
            raise ValueError("the list of shards is empty; name at least one folder of shards")
        heads = [ShardSet(place).attributes for place in places]
        self.attributes = heads[0]
        for place, head in zip(places, heads):
            kind, version = head.get("kind"), head.get("schema_version")
            if kind not in wanted.kinds or version != _VERSIONS[kind]:
                raise ValueError(
                    f"{place} must hold shards of kind {_either(wanted.kinds)}, version {_VERSIONS[wanted.kinds[0]]}, "
                    f"got {kind!r}, version {version}; make them with `dualface build {wanted.kinds[0]}`"
                )
            for key in wanted.equal:
                if not np.array_equal(head[key], heads[0][key]):
                    raise ValueError(
                        f"{place} cannot be trained on together with {places[0]}: {key} is {head[key]} and not "
                        f"{heads[0][key]}; build both alike"
                    )
        fields = [wanted.fields + wanted.encoded.get(head["encoding"], ()) for head in heads]
        self.builds = [ShardSet(place, fields=names) for place, names in zip(places, fields)]
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
        return {
            key: _decoded(value) if isinstance(value, bytes) else torch.tensor(value) for key, value in sample.items()
        }


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


def _decoded(jpeg: bytes) -> torch.Tensor:
    """(3, S, S) uint8 of an image."""
    return torch.tensor(asmd.decode_image(jpeg).transpose(2, 0, 1))


def face_in_chart(described: dict, model: MorphableModel, uv: np.ndarray) -> tuple[MorphableModel, Chart]:
    """Return the face part of a model and its chart, after checking that they are those of some shards.

    Parameters
    ----------
    described : dict
        Attributes of shards, or the metadata of a checkpoint.
    model : MorphableModel
        Numpy.
    uv : np.ndarray
        (V, 2) chart coordinates kept with them.

    Returns
    -------
    tuple[MorphableModel, Chart]
        Numpy.

    Raises
    ------
    ValueError
        If the model or its chart is another one.
    """
    if model.sha256 != described["face_model_sha256"]:
        raise ValueError(
            f"the face model must be '{described['face_model']}' (sha256 {described['face_model_sha256'][:12]}...), "
            f"got '{model.name}' ({model.sha256[:12]}...); give the file of that model"
        )
    face, size = model.face_only(), int(described["size"])
    chart = make_chart(face, described["chart"], size)
    moved = np.abs(chart.uv - uv).max() * size if chart.uv.shape == uv.shape else np.inf
    if moved > MAX_CHART_SHIFT:
        raise ValueError(
            f"the '{chart.name}' chart must be that of the shards, it differs by {moved:.2g} texels; build the shards "
            "again, or use the version of the program that made them"
        )
    return face, chart


class Preparer:
    """Turns collated `GEOMETRY` samples into a `Batch`, on a device.

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
    choose = changes.choose
    pose, position = transform_placement(batch.parameters.pose, batch.position, changes.transform)
    mirrored_pose, mirrored_position = mirror_placement(pose, position, size)
    pose, position = choose(mirrored_pose, pose), choose(mirrored_position, position)
    albedo = choose(batch.parameters.albedo @ albedo_mirror, batch.parameters.albedo)
    light = rotate_light_in_plane(batch.parameters.light, changes.angle)
    light = choose(mirror_light(light), light) * changes.brightness[:, None]
    return Batch(
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
        return augment_triplet(batch, augmentation, generator, self.lit)

    def linear_albedo(self, albedo_coeffs: torch.Tensor) -> torch.Tensor:
        """Return I_u, (B, 3, S, S) in [0, 1], of (B, K) coefficients on the device; 0 outside the chart."""
        mean_map, basis_map = self._albedo_space
        return ((albedo_coeffs @ basis_map).view(-1, *mean_map.shape) + mean_map).clamp(0, 1)

    @cached_property
    def _albedo_space(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean albedo (3, S, S) and its basis (K, 3 S S) in the chart; 150 MB for 199 modes at 256."""
        return (
            torch.tensor(self._chart.unwrap(self._model.mean_albedo), device=self.device),
            torch.tensor(self._chart.unwrap(self._model.albedo_basis), device=self.device).flatten(1),
        )


def augment_triplet(
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


def split_identities(
    sources: Sequence[str], fraction: float, seed: int, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a share of the identities; all re-posed and mirrored copies of a photo go together.

    Parameters
    ----------
    sources : Sequence[str]
        (N,) source names of the samples, `SampleEntry.source`.
    fraction : float
        Share of the identities to hold out, rounded, at least one; 0 holds none.
    seed : int
        Chooses which.
    most : int | None
        Of the samples held out return at most this many, spread evenly over them: they are in the order of their
        names. None is all.

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
    held_out = np.flatnonzero(is_held)
    every = 1 if most is None else max(1, math.ceil(len(held_out) / max(1, most)))
    return np.flatnonzero(~is_held), held_out[::every]
