"""Shards to samples and raw batches: which are read, and in which order; `model.loader` decodes ahead.

The content of a batch depends only on the seed and the step, whatever the workers and wherever the run was
resumed. Dimension key: B batch, S side of the crop and of the maps in pixels, V vertices.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import joblib
import numpy as np
import torch

from asmgen import asmd, face_crops
from asmgen.images import decode_image
from asmgen.shards import ShardSet
from asmgen.w300lp import SampleEntry
from bfm.charts import Chart, make_chart
from bfm.morphable_model import MorphableModel
from model.config import RunConfig
from model.packed_batch import PackedBatch
from texgen import ftd

LABELS = ("albedo_coeffs", "light", "pose", "position", "landmarks")
"""Fields of a sample that hold the parameters of its face."""

MAP_FIELDS: dict[str, tuple[str, ...]] = {
    "dense": ("identity_map", "expression_map"), "params": ("id_coeffs", "exp_coeffs"),
}
"""Fields that hold its attribute maps, or what they are made of, by encoding."""

IMAGE_FIELDS = ("image", "albedo_map")
"""Fields that are stored as JPEG."""

_ALBEDO_FIELDS: dict[str, tuple[str, ...]] = {"dense": ("linear_albedo_map",), "params": ("albedo_coeffs",)}
_VERSIONS = {
    asmd.KIND: asmd.SCHEMA_VERSION, ftd.KIND: ftd.SCHEMA_VERSION, face_crops.KIND: face_crops.SCHEMA_VERSION,
}

_SAME = ("face_model_sha256", "chart", "size")
"""In what shards must agree with a network for what is known of their faces to be compared."""

MOST_WORKERS = 8
"""Processes that decode where none are asked for: 2 keep up with a GPU, the rest ride out a slow disk."""

MAX_CHART_SHIFT = 0.02
"""Texels: above what another processor's arithmetic does to a chart, below what shows in a face."""


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
    (asmd.KIND,), ("image", *LABELS), MAP_FIELDS,
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

FUSION = Wanted((face_crops.KIND, asmd.KIND, ftd.KIND), ("image",))
"""Photos alone."""

TRUTH = {
    asmd.KIND: Wanted((asmd.KIND,), ("image", *LABELS, *MAP_FIELDS["params"])),
    ftd.KIND: Wanted((ftd.KIND,), (*TEXTURE.fields, *LABELS, *MAP_FIELDS["params"])),
}
"""Photos with all that is known of them, by the kind of shards: what a fusion run is measured by."""


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
        fields = [wanted.fields + wanted.encoded.get(head.get("encoding"), ()) for head in heads]
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
        """Hash of the sources and their poses, or crops where faces have none: another one where samples were added,
        reordered, fitted anew or cut out anew.
        """
        digest = hashlib.sha256("\n".join(self.sources).encode())
        for build in self.builds:
            whole = ShardSet(build.paths)
            placed = whole.column("pose" if "pose" in whole.fields else "crop_transform")
            digest.update(np.ascontiguousarray(placed).tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {key: values[0] for key, values in self.batch([index]).items()}

    def batch(self, indices: Iterable[int]) -> dict[str, torch.Tensor]:
        """Return samples, collated: (B, ...) each field, images (B, 3, S, S) uint8 with the channels last in memory."""
        return PackedBatch.of([self.sample(index) for index in indices], IMAGE_FIELDS).fields()

    def sample(self, index: int) -> dict[str, np.ndarray]:
        """Return the fields of a sample as stored, images decoded, (S, S, 3).

        Parameters
        ----------
        index : int
            From 0.

        Returns
        -------
        dict[str, np.ndarray]
            Of one sample.

        Raises
        ------
        ValueError
            If it is damaged; it is named.
        """
        build, row = self._located(index)
        stored = build[row]
        try:
            return {
                key: decode_image(value) if key in IMAGE_FIELDS else np.asarray(value)
                for key, value in stored.items()
            }
        except ValueError as error:
            raise ValueError(
                f"{self.name_of(index)} holds an image that cannot be decoded ({error}); check the shards with "
                "`dualface verify`, and build them again"
            ) from error

    def name_of(self, index: int) -> str:
        """Return what a person finds a sample by: its shard, its row, and its source."""
        build, row = self._located(index)
        path, row_in_shard = build.location(row)
        source = ShardSet(build.paths, fields=("source",))[row]["source"]
        return f"row {row_in_shard} of {path} ({source})"

    def _located(self, index: int) -> tuple[ShardSet, int]:
        """The build and the place in it of a sample."""
        build = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.builds[build], int(index) - int(self._starts[build])


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


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
    epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), count)
    drawn = [_permutation(int(epoch), count, seed)[places[epochs == epoch]] for epoch in np.unique(epochs)]
    return np.concatenate(drawn).tolist()


@lru_cache(maxsize=2)
def _permutation(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the CPU generator that draws everything random in a step."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def validation_batches(
    dataset: FaceDataset, indices: Sequence[int] | np.ndarray, batch_size: int
) -> Iterator[dict]:
    """Yield each of the samples `indices` once, in order, collated; decoded in this process."""
    for place in range(0, len(indices), batch_size):
        yield dataset.batch(indices[place:place + batch_size])


def default_workers(on_gpu: bool) -> int:
    """Return how many processes decode for each that trains: none on a CPU, whose cores train; on a GPU up to 8."""
    share = joblib.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(0, min(MOST_WORKERS, share - 1)) if on_gpu else 0


def photo_names(sources: Sequence[str]) -> list[str]:
    """Return for each `SampleEntry.source` the name that all re-posed and mirrored copies of its photo share."""
    return [SampleEntry(source, Path(f"{source}.jpg"), None, None, "", False).photo for source in sources]


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
    photos = photo_names(sources)
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


def held_out_samples(dataset: FaceDataset, config: RunConfig, metadata: dict) -> np.ndarray | None:
    """Return which samples a run held out of the shards it was trained on.

    Parameters
    ----------
    dataset : FaceDataset
        Of these shards, or of others.
    config : RunConfig
        Of the run.
    metadata : dict
        Of its checkpoint.

    Returns
    -------
    np.ndarray | None
        (N,) indices, increasing; None if it held none out, or was not trained on these samples, as they are now.
    """
    if not config.validation_fraction or metadata["samples_sha256"] != dataset.samples_sha256:
        return None
    seed = metadata.get("held_out_seed", config.seed)  # benchmarks hold out the same people whatever the seed
    return split_identities(dataset.sources, config.validation_fraction, seed)[1]


def samples_with_truth(dataset: FaceDataset, metadata: dict) -> tuple[list[FaceDataset], list[Path]]:
    """Open the photos of shards of any kind again with all that is known of them and can be compared with a network's.

    Parameters
    ----------
    dataset : FaceDataset
        Read with `FUSION`.
    metadata : dict
        Of the network: its face model, chart and size.

    Returns
    -------
    tuple[list[FaceDataset], list[Path]]
        One a build, and the folders of builds of which only the photos can be used: nothing more is known of them, or
        it is of another face model, chart or size.
    """
    samples, unknown = [], []
    for build in dataset.builds:
        attributes, wanted = build.attributes, FUSION
        if all(attributes.get(key) == metadata[key] for key in _SAME):
            # albedo that holds the light cannot be compared
            wanted = TRUTH[asmd.KIND if attributes.get("lit") else attributes["kind"]]
        else:
            unknown.append(build.paths[0].parent)
        samples.append(FaceDataset([build.paths], replace(wanted, kinds=FUSION.kinds)))
    return samples, unknown
