"""How near the drawn face comes to its photo: Table II of the paper, and Fig. 10 and 11, from shards and trained runs.

Every method draws the face over its photo, and all are compared on the same pixels. Where the shards know shape, pose
and light, the same albedos are drawn on the true face, too: what is left is the texture's error, without what comes
of its being in the wrong place.

Dimension key: B photos of a batch, S side of the crop and of the maps in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from asmgen.sheets import evenly
from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from model.checkpoint import load_checkpoint, weights_sha256
from model.config import FusionConfig, GeometryConfig, RunConfig, TextureConfig
from model.data import FUSION, FaceDataset, held_out_samples, samples_with_truth, validation_batches
from model.dual_stream import TrainedFaces, load_dual_stream
from model.evaluation.report import markdown_table, run_labels, write_report
from model.evaluation.texture_methods import GENERATED, Drawn, TextureMethods, method_errors
from model.fusion_losses import compose
from model.identity import load_identity_network
from model.parsing import load_parsing_network
from model.picture_sheet import TILE, Cell, above, picture_sheet, tile_of

PUBLISHED = {
    "paper, linear (p_t)": 0.101, "paper, nonlinear 3DMM": 0.062, "paper, earlier version": 0.056, "paper": 0.049,
}
"""MAE by Table II of the paper."""

COLUMNS = {
    "MAE": "mae", "E_pho": "e_pho", "SSIM": "ssim", "identity similarity": "identity", "albedo map MAE": "albedo_mae",
}
"""Heading of the table to what `method_errors` calls it."""

SHEET_ROWS = 5
ERROR_RANGE = 0.3
"""Mean difference of the channels, RGB in [0, 1], that is brightest in the pictures of errors."""

_BESIDE = 0.3  # how bright the photo is around the errors

Training = tuple[RunConfig, dict]
"""Config and metadata of a training."""


@torch.no_grad()
def evaluate_texture(
    shards: str | Path | Sequence, checkpoints: Sequence[Path], out_dir: Path, face_model: MorphableModel | None = None,
    device: str | None = None, *, labels: Sequence[str] = (), texture: Path | None = None,
    identity: Path | None = None, parsing: Path | None = None, every: bool = False, batch_size: int = 16,
) -> Path:
    """Measure what runs draw of the photos in shards, and write ``table.md``, ``results.json`` and ``sheet.png``.

    Parameters
    ----------
    shards : str | Path | Sequence
        Of any kind: folder of shards, one shard, or several. Those of the runs' face model, chart and size give the
        rows of the true geometry, and FTD the errors of the albedo maps.
    checkpoints : Sequence[Path]
        Runs of `train_fusion` or `train_geometry`.
    out_dir : Path
        Made if need be.
    face_model : MorphableModel | None
        Of the runs; None is the open model.
    device : str | None
        As `torch_device` takes it.
    labels : Sequence[str]
        Of the checkpoints, in order (`run_labels`).
    texture : Path | None
        Run of `train_texture` for the geometry runs among the checkpoints, which are linear only without it.
    identity : Path | None
        F_id (`load_identity_network`).
    parsing : Path | None
        Network that tells skin from what hides it (`load_parsing_network`).
    every : bool
        Whether to take all samples, not only those that the runs held out.
    batch_size : int
        Photos that go through the networks together.

    Returns
    -------
    Path
        ``table.md``. Errors are those of `run_labels`, `load_dual_stream` and of the networks' files.

    Raises
    ------
    ValueError
        If the runs differ in chart or from the crops in size, no sample is held out by all, or no photo shows a face
        that all methods draw.
    """
    dataset = FaceDataset(shards, FUSION)
    named = dict(zip(run_labels(checkpoints, labels), checkpoints))
    runs, trainings = _load(named, texture, face_model or load_model("open"), device)
    for label, run in runs.items():
        wanted = (int(dataset.attributes["size"]), next(iter(runs.values())).metadata["chart"])
        if (run.metadata["size"], run.metadata["chart"]) != wanted:
            raise ValueError(
                f"{label} must have the size of the shards and the chart of the first run, {wanted}, got "
                f"{(run.metadata['size'], run.metadata['chart'])}; evaluate it by itself, on shards built like its own"
            )
    indices, note = _chosen(dataset, trainings, every)
    methods = TextureMethods(runs, load_parsing_network(parsing) if parsing else None)
    f_id = load_identity_network(identity).to(methods.device) if identity else None
    samples = samples_with_truth(dataset, next(iter(runs.values())).metadata)[0]
    measured = {}
    for some, raw in _batches(samples, indices, batch_size):
        drawn = methods(raw)
        found, pixels = method_errors(drawn, f_id), drawn.region.sum((1, 2, 3)).tolist()
        for row, index in enumerate(some.tolist()):
            measured[index] = {"region_pixels": pixels[row], "methods": {
                method: {key: float(values[row]) for key, values in errors.items()} for method, errors in found.items()
            } if pixels[row] else {}}
    empty = [index for index, photo in measured.items() if not photo["methods"]]
    shown = {index: photo["methods"] for index, photo in measured.items() if photo["methods"]}
    if not shown:
        raise ValueError(f"none of the {len(measured)} photos shows a face that all methods draw; check the runs")
    means = _means(shown)
    sources = dataset.sources
    area = np.mean([measured[index]["region_pixels"] for index in shown])
    region = "of what all methods draw" + (" and face parsing takes for face" if parsing else "")
    notes = [
        f"{len(shown)} photos: {note}.",
        f"R_s, the same for all methods: the pixels {region}, {area:.0f} a photo on average. "
        "MAE and E_pho are of RGB in [0, 1]; the squares of E_pho add up over the channels.",
        "The true face has the shape, pose and light that the shards know, where they do.",
        *([f"Photos without such a pixel, which do not count: {len(empty)} ({', '.join(sources[i] for i in empty)})."]
          if empty else []),
        "The paper's rows are on other photos, and over a region that it does not describe: compare the order of the "
        "methods, not the numbers.",
    ]
    out_dir = Path(out_dir)
    path = write_report(out_dir, {"Texture (Table II)": _table(means), "Over what": "\n".join(notes)}, {
        "protocol": "texture", "samples": note, "samples_sha256": dataset.samples_sha256, "region": region, "runs": {
            label: {"kind": run.metadata["kind"], "weights_sha256": weights_sha256(run.network)}
            for label, run in runs.items()
        },
        **{name: network and weights_sha256(network) for name, network in (
            ("identity_sha256", f_id), ("parsing_sha256", methods.parsing),
        )},
        "means": means, "published_mae": PUBLISHED,
        "photos": [{"sample": i, "source": sources[i], **measured[i]} for i in sorted(measured)],
    })
    _sheet(methods, samples, shown, sources).save(out_dir / "sheet.png")
    return path


def _load(
    checkpoints: dict[str, Path], texture: Path | None, face_model: MorphableModel, device: str | None
) -> tuple[dict[str, TrainedFaces], dict[str, Training]]:
    """The runs by label, and their trainings, and that of the texture run, by what these are called."""
    runs, used = {}, False
    trainings: dict[str, Training] = {}
    for label, path in checkpoints.items():
        state = load_checkpoint(path, "fusion", "geometry")
        of_geometry = state["kind"] == "geometry"
        kind = GeometryConfig if of_geometry else FusionConfig
        trainings[label] = kind.from_dict(state["config"]), state["metadata"]
        runs[label] = load_dual_stream(path, texture if of_geometry else None, face_model, device)
        used |= of_geometry
    if texture is not None:
        if not used:
            raise ValueError(f"{texture} goes with a geometry run, and there is none; fusion runs hold their own")
        state = load_checkpoint(texture, "texture")
        trainings[f"{texture} (texture)"] = TextureConfig.from_dict(state["config"]), state["metadata"]
    return runs, trainings


def _chosen(dataset: FaceDataset, trainings: dict[str, Training], every: bool) -> tuple[np.ndarray, str]:
    """Which samples to take, and in words which these are."""
    indices, parts = np.arange(len(dataset)), []
    for name, (config, metadata) in trainings.items():
        held_out = held_out_samples(dataset, config, metadata)
        if metadata["samples_sha256"] != dataset.samples_sha256:
            parts.append(
                f"{name} was trained on other shards, or on these before they changed; whether on some of these "
                "photos is not known"
            )
        elif every or held_out is None:
            parts.append(f"{name} was trained on " + ("all of them" if held_out is None else "most of them"))
        else:
            indices = np.intersect1d(indices, held_out)
            parts.append(f"{name} held them out")
        if isinstance(config, FusionConfig):
            parts.append(f"on what the runs that {name} started from were trained is not recorded")
    if not len(indices):
        raise ValueError("no sample was held out by all of the runs; evaluate them apart, or on all samples (--all)")
    return indices, "; ".join([f"{len(indices)} of {len(dataset)} samples", *parts])


def _batches(
    samples: Sequence[FaceDataset], indices: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Some of the indices, all of one build, and their samples collated."""
    start = 0
    for build in samples:
        own = indices[(indices >= start) & (indices < start + len(build))]
        batches = validation_batches(build, own - start, batch_size)
        yield from zip((own[at:at + batch_size] for at in range(0, len(own), batch_size)), batches)
        start += len(build)


def _means(shown: dict[int, dict]) -> dict[str, dict]:
    """Method to the means of its errors over the photos that have them, and their number."""
    means = {}
    for method in dict.fromkeys(method for methods in shown.values() for method in methods):
        errors = [methods[method] for methods in shown.values() if method in methods]
        means[method] = {"photos": len(errors)} | {
            key: float(np.mean([one[key] for one in errors if key in one])) for key in dict.fromkeys(
                key for one in errors for key in one
            )
        }
    return means


def _table(means: dict[str, dict]) -> str:
    columns = {heading: key for heading, key in COLUMNS.items() if any(key in errors for errors in means.values())}
    rows = [
        [method, errors["photos"], *(f"{errors[key]:.4f}" if key in errors else None for key in columns.values())]
        for method, errors in means.items()
    ]
    empty = [None] * (len(columns) - 1)
    rows += [[name, None, f"{mae:.3f}", *empty] for name, mae in PUBLISHED.items()]
    return markdown_table(["method", "photos", *columns], rows)


def _sheet(
    methods: TextureMethods, samples: Sequence[FaceDataset], shown: dict[int, dict], sources: Sequence[str]
) -> Image.Image:
    """Photos from the worst to the best; of each method the face in them, and below it its errors."""
    names = list(dict.fromkeys(method for errors in shown.values() for method in errors))
    ranked_by = next((name for name in names if name.endswith(GENERATED)), names[0])
    by_error = sorted(shown, key=lambda index: -shown[index][ranked_by]["e_pho"])
    rows = []
    for place in evenly(len(by_error), SHEET_ROWS):
        index = by_error[place]
        (_, raw), = _batches(samples, np.array([index]), 1)
        drawn, errors = methods(raw), shown[index]
        rank = f"worst E_pho: {place + 1} of {len(by_error)}"
        row = [Cell(tile_of(drawn.image[0].cpu()), (f"{index}: {sources[index]}", rank))]
        for name in names:
            if name not in errors:
                row.append(Cell(Image.new("RGB", (TILE, TILE), "white"), ("not known",)))
                continue
            over = compose(drawn.pictures[name], drawn.image, drawn.region)[0].cpu()
            row.append(Cell(above(tile_of(over), tile_of(_error_picture(over, drawn))), (
                "E_pho {e_pho:.4f}, MAE {mae:.4f}".format(**errors[name]),
            )))
        rows.append(row)
    return picture_sheet([f"photo; below the faces: |difference|, 0 to {ERROR_RANGE}", *names], rows)


def _error_picture(over: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """(3, S, S): from black to bright how far a picture is from the first photo drawn, in R_s; beside it the photo."""
    photo = drawn.image[0].cpu()
    difference = ((over - photo).abs().mean(0) / ERROR_RANGE).clamp(0, 1)
    colours = torch.tensor(colormaps["inferno"](difference.numpy())[..., :3]).movedim(-1, 0).float()
    return torch.where(drawn.region[0].cpu(), colours, _BESIDE * photo.mean(0, keepdim=True))
