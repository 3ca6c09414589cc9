"""Training step 1 of the paper: the encoder with its parameters first, then the whole geometry stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from asmgen.maps import AttributeMaps
from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from model.batches import GeometryBatch, GeometryPreparer
from model.checkpoint import load_checkpoint, load_networks
from model.config import GeometryConfig
from model.data import FaceDataset, face_in_chart, step_generator
from model.geometry import GeometryStream
from model.losses import (
    albedo_weights, asm_loss, equal_weights, identity_weights, map_laplacian, parameter_loss, smoothness_loss,
    symmetry_loss,
)
from model.metrics import geometry_errors
from model.trainer import Task, run_training
from model.vgg import load_vgg


def train_geometry(
    shards: str | Path | Sequence, run_dir: Path, config: GeometryConfig, model: MorphableModel | None = None,
    device: str | None = None, workers: int = 0, resume: bool = False, on_log: Callable[[dict], None] | None = None,
    progress: Callable[..., tqdm] | None = None,
) -> Path:
    """Train the geometry stream on ASMD shards.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards or one shard, or several of them.
    run_dir : Path
        Folder of the run: config, log, curves and checkpoint.
    config : GeometryConfig
        Everything that changes the result.
    model : MorphableModel | None
        The face model that the shards were built on; None is the open model.
    device : str | None
        As `torch_device` takes it.
    workers : int
        Processes that decode images.
    resume : bool
        Go on from the checkpoint in `run_dir`.
    on_log : Callable[[dict], None] | None
        Given each record of the log.
    progress : Callable[..., tqdm] | None
        Makes the progress bar, of the first process alone; called as tqdm is. None is no bar.

    Returns
    -------
    Path
        The last checkpoint. Errors are those of `run_training`, `map_space`, `torch_device`, `split_identities` and
        `load_vgg`.
    """
    dataset = FaceDataset(shards)
    model, maps = map_space(dataset.attributes, model or load_model("open"), dataset.chart_uv)
    task = GeometryTask(dataset, model, maps, config, torch_device(device), workers)
    return run_training(task, run_dir, config, resume, on_log, progress)


def default_device() -> str:
    """Return ``cuda`` if there is a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_device(name: str | None) -> torch.device:
    """Return the device of this name, once it is known to work.

    Parameters
    ----------
    name : str | None
        Such as ``cpu``, ``cuda``, ``cuda:1``; None is the GPU if there is one.

    Returns
    -------
    torch.device
        Usable.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    try:
        device = torch.device(name or default_device())
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # PyTorch built without CUDA asserts
        reason = str(error).split("\n")[0][:100]
        raise ValueError(f"device must be one that works here, such as cpu, got '{name}' ({reason})") from error
    return device


def map_space(described: dict, model: MorphableModel, uv: np.ndarray) -> tuple[MorphableModel, AttributeMaps]:
    """Return the face part of a model and its map space; arguments and errors are those of `face_in_chart`."""
    face, chart = face_in_chart(described, model, uv)
    return face, AttributeMaps.from_model(face, chart)


class GeometryTask(Task):
    """The geometry stream, its data and its losses, for `run_training`.

    Parameters
    ----------
    dataset : FaceDataset
        ASMD samples.
    model : MorphableModel
        Their face model, face part only, numpy.
    maps : AttributeMaps
        Its map space, numpy.
    config : GeometryConfig
        Everything that changes the result.
    device : torch.device
        Where to train.
    workers : int
        Processes that decode images.

    Attributes
    ----------
    kind : str
        ``geometry``.
    networks : dict[str, nn.Module]
        The stream.
    optimisers : dict[str, torch.optim.Optimizer]
        Adam.
    metadata : dict
        What `model.reconstruct` needs beside the weights.
    """

    kind = "geometry"

    def __init__(
        self, dataset: FaceDataset, model: MorphableModel, maps: AttributeMaps, config: GeometryConfig,
        device: torch.device, workers: int = 0,
    ):
        super().__init__(dataset, config, device, workers)
        self.preparer = GeometryPreparer(model, maps, dataset.attributes, device)
        self.maps = self.preparer.maps
        self.landmarks = torch.tensor(model.landmarks, dtype=torch.int64, device=device)
        self.mode_weights = torch.tensor(albedo_weights(model), device=device)
        weights = identity_weights(model, maps)
        self.weights = torch.tensor(weights if config.weighted else equal_weights(weights), device=device)
        self.mask = torch.tensor(maps.chart.mask, device=device)
        self.laplacian = map_laplacian(model, maps).to(device)

        attributes = dataset.attributes
        described = ("face_model", "face_model_sha256", "licence", "coefficients", "chart", "size")
        self.metadata = {
            **{key: attributes[key] if isinstance(attributes[key], str) else int(attributes[key]) for key in described},
            "albedo_modes": len(model.albedo_basis), "id_modes": len(model.id_basis),
            "exp_modes": len(model.exp_basis), "scale": maps.scale, "centre": torch.tensor(maps.centre),
            "chart_uv": torch.tensor(maps.chart.uv), "samples_sha256": dataset.samples_sha256,
        }
        self.network = geometry_stream(config, self.metadata)
        self.network.start_from_(maps)
        if config.encoder_weights:
            load_vgg(self.network.encoder, Path(config.encoder_weights))
        self.network.to(device, memory_format=self.memory_format)
        self.networks, self.optimisers = {"geometry": self.network}, {"adam": self.adam(self.network)}
        self.forward = self.compiled(self.network)
        self.predict_parameters = self.compiled(self.network.predict_parameters)
        self.map_losses = self.compiled(self.map_losses)  # type: ignore[method-assign]

    def step(self, raw: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Update the stream once, on Eq. (4) in the first phase and Eq. (8) in the second."""
        config = self.config
        batch = self.batch(raw, config.augmentation, step_generator(config.seed, step))
        losses = self.losses(batch, whole_stream=step >= config.parameter_steps)
        adam = self.optimisers["adam"]
        adam.zero_grad(set_to_none=True)
        losses["loss"].backward()
        adam.step()
        return {key: value.detach() for key, value in losses.items()}

    def losses(self, batch: GeometryBatch, whole_stream: bool) -> dict[str, torch.Tensor]:
        """Return the terms of Eq. (8) and their weighted sum ``loss``; without the decoders only those of Eq. (4).

        A symmetry or smoothness loss of weight 0 is not made.
        """
        config = self.config
        self.network.train()
        image = batch.image.contiguous(memory_format=self.memory_format)
        with self.autocast():
            if whole_stream:
                identity_map, expression_map, parameters = self.forward(image)
            else:
                parameters = self.predict_parameters(image)
        losses = {"parameters": parameter_loss(parameters, batch.parameters, self.mode_weights, config.tau)}
        losses["loss"] = config.eta_p * losses["parameters"]
        if whole_stream:
            losses |= self.map_losses(identity_map, expression_map, batch.identity_map, batch.expression_map)
            losses["loss"] = losses["loss"] + config.eta_a * losses["asm"]
            if config.eta_s:
                losses["loss"] = losses["loss"] + config.eta_s * losses["symmetry"]
            if config.eta_r:
                losses["smoothness"] = smoothness_loss(identity_map + expression_map, self.laplacian)
                losses["loss"] = losses["loss"] + config.eta_r * losses["smoothness"]
        return losses

    def map_losses(
        self, identity_map: torch.Tensor, expression_map: torch.Tensor, true_identity: torch.Tensor,
        true_expression: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return Eq. (5), and Eq. (6) unless its weight is 0, of (B, 3, S, S) maps."""
        expression_weights = self.weights if self.config.expression_weighted else 1.0
        losses = {"asm": asm_loss(
            identity_map, expression_map, true_identity, true_expression, self.weights, expression_weights
        )}
        if self.config.eta_s:
            losses["symmetry"] = symmetry_loss(identity_map, self.mask)
        return losses

    def errors(self, raw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the `geometry_errors` of a raw batch, not augmented, in full precision."""
        batch = self.batch(raw)
        predicted = self.network.eval()(batch.image.contiguous(memory_format=self.memory_format))
        return geometry_errors(predicted, batch, self.maps, self.landmarks, decoupled=self.config.shape != "single")

    def batch(self, raw: dict[str, torch.Tensor], *augmentation) -> GeometryBatch:
        """Return what `GeometryPreparer` makes of a raw batch; for a single map, true maps as that should be."""
        batch = self.preparer(raw, *augmentation)
        if self.config.shape != "single":
            return batch
        whole = batch.identity_map + batch.expression_map
        return batch._replace(identity_map=whole, expression_map=torch.zeros_like(whole))


class TrainedGeometry(NamedTuple):
    """A trained geometry stream, ready for use.

    Attributes
    ----------
    network : GeometryStream
        On its device, in evaluation mode, frozen.
    config : GeometryConfig
        Of the run.
    metadata : dict
        Of the checkpoint: face model, chart, size and what else the run was.
    step : int
        Steps done.
    """

    network: GeometryStream
    config: GeometryConfig
    metadata: dict
    step: int


def geometry_stream(config: GeometryConfig, metadata: dict) -> GeometryStream:
    """Return an untrained stream of the shape of a run's, by its config and the metadata of its checkpoint."""
    modes = (metadata["id_modes"], metadata["exp_modes"]) if config.shape == "linear" else (0, 0)
    return GeometryStream(
        metadata["albedo_modes"], metadata["size"], config.width, batch_norm=not config.encoder_weights,
        shape=config.shape, decoder_width=config.decoder_width, modes=modes,
    )


def load_geometry_stream(path: Path, device: str | None = "cpu") -> TrainedGeometry:
    """Return the geometry stream of a run.

    Parameters
    ----------
    path : Path
        The run's folder, or its checkpoint.
    device : str | None
        As `torch_device` takes it.

    Returns
    -------
    TrainedGeometry
        Errors are those of `load_checkpoint` and `torch_device`.
    """
    state = load_checkpoint(path, "geometry")
    config, metadata = GeometryConfig.from_dict(state["config"]), state["metadata"]
    network = load_networks(state, lambda: {"geometry": geometry_stream(config, metadata)})["geometry"]
    network.to(torch_device(device)).eval().requires_grad_(False)
    return TrainedGeometry(network, config, metadata, state["step"])
