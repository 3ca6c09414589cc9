"""Training step 2 of the paper: the texture stream against its discriminator, in the manner of pix2pix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from bfm.charts import Chart
from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from model.batches import TextureBatch, TexturePreparer
from model.checkpoint import load_checkpoint, load_networks, weights_sha256
from model.config import Augmentation, TextureConfig
from model.data import TEXTURE, FaceDataset, face_in_chart, step_generator
from model.geometry import GeometryStream
from model.landmarks import LandmarkNetwork, load_landmark_network
from model.metrics import texture_errors
from model.perceptual import STRIDES, PerceptualFeatures, load_perceptual
from model.texture import PatchDiscriminator, Stylised, TextureStream
from model.texture_losses import (
    adversarial_loss, contextual_loss, discriminator_loss, draw_points, layer_points, reconstruction_loss,
)
from model.train_geometry import load_geometry_stream, torch_device
from model.trainer import Task, run_training

ADAM_BETAS = (0.5, 0.999)
"""Of pix2pix."""

SHEET_ROWS = 6


def train_texture(
    shards: str | Path | Sequence, run_dir: Path, config: TextureConfig, model: MorphableModel | None = None,
    device: str | None = None, workers: int = 0, resume: bool = False, on_log: Callable[[dict], None] | None = None,
    progress: Callable[..., tqdm] | None = None,
    *, perceptual: Path | None = None, geometry: Path | None = None, landmarks: Path | None = None,
) -> Path:
    """Train the texture stream on FTD shards.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards or one shard, or several of them.
    run_dir : Path
        Folder of the run: config, log, curves, sample sheets and checkpoint.
    config : TextureConfig
        Everything that changes the result, but for the frozen networks, whose hashes are kept with it.
    model : MorphableModel | None
        The face model that the shards were built on; None is the open model.
    device : str | None
        As `torch_device` takes it.
    workers : int
        Processes that decode images.
    resume : bool
        Go on from the checkpoint in `run_dir`; the frozen networks must be the same.
    on_log : Callable[[dict], None] | None
        Given each record of the log.
    progress : Callable[..., tqdm] | None
        Makes the progress bar, of the first process alone; called as tqdm is. None is no bar.
    perceptual : Path | None
        VGG-19 weights for the contextual loss (`load_perceptual`).
    geometry : Path | None
        Geometry run whose encoder takes its place.
    landmarks : Path | None
        Landmark network K for the landmark-guided branch (`load_landmark_network`).

    Returns
    -------
    Path
        The last checkpoint, for `load_texture_stream`. Errors are those of `run_training`, `face_in_chart`,
        `torch_device`, `split_identities`, `TextureStream`, `load_perceptual` and `load_landmark_network`.

    Raises
    ------
    ValueError
        If a frozen network is needed that was not given.
    """
    dataset = FaceDataset(shards, TEXTURE)
    face, chart = face_in_chart(dataset.attributes, model or load_model("open"), dataset.chart_uv)
    phi = load_perceptual(perceptual, geometry) if config.omega_c else None
    stream = None
    if config.predicted_albedo:
        if geometry is None:
            raise ValueError(
                "the predicted albedo needs a trained geometry stream: give a geometry run (--geometry RUN), or take "
                "the annotated one (--annotated-albedo)"
            )
        stream = albedo_predictor(geometry, dataset.attributes)
    network = None
    if config.stylisation == "srsm" and config.landmark_branch:
        if landmarks is None:
            raise ValueError(
                "the landmark branch needs a trained landmark network: give a run of `dualface train landmarks` or a "
                "3D-FAN file (--landmarks), or leave the branch out (--no-landmark-branch)"
            )
        network = load_landmark_network(landmarks)
    task = TextureTask(
        dataset, face, chart, config, torch_device(device), workers, phi=phi, landmarks=network, geometry=stream
    )
    return run_training(task, run_dir, config, resume, on_log, progress)


def albedo_predictor(run: Path, attributes: dict) -> GeometryStream:
    """Return the geometry stream of a run, to predict p_t of the photos of some shards.

    Parameters
    ----------
    run : Path
        Of ``dualface train geometry``.
    attributes : dict
        Of the shards.

    Returns
    -------
    GeometryStream
        On the CPU, frozen.

    Raises
    ------
    ValueError
        If it was trained on another face model or size, or the face model has no albedo to predict.
    """
    network, _, metadata, _ = load_geometry_stream(run)
    for key, name in (("face_model_sha256", "face model"), ("size", "size")):
        if metadata[key] != attributes[key]:
            wanted, found = (str(described[key])[:12] for described in (attributes, metadata))  # a hash is long
            raise ValueError(
                f"{run} must be a geometry run on shards of the same {name}, {wanted}, got {found}; train one on them"
            )
    if not network.albedo_modes:
        raise ValueError(f"the face model '{metadata['face_model']}' has no texture; take the annotated albedo")
    return network


@torch.no_grad()
def predict_linear_albedo(
    stream: GeometryStream, preparer: TexturePreparer, image: torch.Tensor,
    precision: AbstractContextManager = nullcontext(),
) -> torch.Tensor:
    """Return I_u of the p_t that a geometry stream predicts from photos.

    Parameters
    ----------
    stream : GeometryStream
        From `albedo_predictor`, in evaluation mode.
    preparer : TexturePreparer
        Of the shards that the photos are from.
    image : torch.Tensor
        (B, 3, S, S) I_o, RGB in [0, 1].
    precision : AbstractContextManager
        Around the network, such as autocast; full precision by default.

    Returns
    -------
    torch.Tensor
        (B, 3, S, S) RGB in [0, 1], 0 outside the chart.
    """
    with precision:
        coeffs = stream.predict_parameters(image).albedo
    return preparer.linear_albedo(coeffs)


class TextureTask(Task):
    """The texture stream, its discriminator, its data and its losses, for `run_training`.

    Parameters
    ----------
    dataset : FaceDataset
        Read with `TEXTURE`.
    model : MorphableModel
        Its face model, face part only, numpy.
    chart : Chart
        Its chart.
    config : TextureConfig
        Everything that changes the result.
    device : torch.device
        Where to train.
    workers : int
        Processes that decode images.
    phi : PerceptualFeatures | None
        For the contextual loss; None where it is off.
    landmarks : LandmarkNetwork | None
        K, frozen; None where there is no landmark branch.
    geometry : GeometryStream | None
        Frozen, to predict p_t; None where the annotated p_t is taken.

    Attributes
    ----------
    kind : str
        ``texture``.
    note : str
        Which features the contextual loss compares.
    networks : dict[str, nn.Module]
        ``generator``, ``discriminator`` where there is an adversarial loss, ``landmarks`` where there is a branch.
    optimisers : dict[str, torch.optim.Optimizer]
        Adam of the first two.
    metadata : dict
        What `load_texture_stream` needs beside the weights, and the hashes of the frozen networks.
    """

    kind = "texture"

    def __init__(
        self, dataset: FaceDataset, model: MorphableModel, chart: Chart, config: TextureConfig, device: torch.device,
        workers: int = 0, *, phi: PerceptualFeatures | None, landmarks: LandmarkNetwork | None,
        geometry: GeometryStream | None = None,
    ):
        super().__init__(dataset, config, device, workers)
        attributes = dataset.attributes
        size = int(attributes["size"])
        self.preparer = TexturePreparer(model, chart, attributes, device)
        # the discriminator first, so that it starts alike beside every variant of the generator
        self.discriminator = PatchDiscriminator(config.width) if config.omega_a else None
        self.generator = TextureStream(
            config.regions, config.stylisation, config.skips, config.landmark_branch, config.width, size
        )
        self.phi, self.landmarks, self.geometry = phi, landmarks, geometry
        networks = {"generator": self.generator, "discriminator": self.discriminator, "landmarks": landmarks}
        self.networks = {key: network for key, network in networks.items() if network is not None}
        for network in (*self.networks.values(), *(frozen for frozen in (phi, geometry) if frozen)):
            network.to(device, memory_format=self.memory_format)
        self.optimisers = {
            key: self.adam(network, betas=ADAM_BETAS) for key, network in self.networks.items() if key != "landmarks"
        }
        self.trained_generator, self.compiled_phi, self.compiled_landmarks = (
            network and self.compiled(network) for network in (self.generator, phi, landmarks)
        )
        self.places = layer_points(self.preparer.inside, [size // stride for stride in STRIDES])
        self.note = f"the contextual loss compares features of {phi.description}" if phi else "no contextual loss"
        described = ("face_model", "face_model_sha256", "licence", "coefficients", "chart", "lit")
        self.metadata = {
            **{key: attributes[key] for key in described}, "size": size,
            "mask": self.preparer.inside.cpu(), "chart_uv": torch.tensor(chart.uv),
            "mirrored": self.preparer.mirrors, "samples_sha256": dataset.samples_sha256,
            "perceptual": phi.description if phi else "", "perceptual_sha256": weights_sha256(phi) if phi else "",
            "landmark_stacks": landmarks.stacks if landmarks else 0,
            "landmark_width": landmarks.width if landmarks else 0.0,
            "landmarks_sha256": weights_sha256(landmarks) if landmarks else "",
            "geometry_sha256": weights_sha256(geometry) if geometry else "",
        }

    def step(self, raw: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Update the discriminator on Eq. (16), then the generator on Eq. (18), as pix2pix does."""
        config = self.config
        draws = step_generator(config.seed, step)
        batch = self.prepare(raw, config.augmentation, draws)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate_at(step)
        for network in self.networks.values():
            network.train(network is not self.landmarks)
        with self.autocast():
            generated = self.generate(batch)
        losses = {}
        if self.discriminator:
            losses["discriminator"] = self.update_discriminator(generated.detach(), batch.albedo)
        losses |= self.losses(generated, batch, draws)
        self._update("generator", losses["loss"])
        return {key: value.detach() for key, value in losses.items()}

    def prepare(
        self, raw: dict[str, torch.Tensor], augmentation: Augmentation | None = None,
        draws: torch.Generator | None = None,
    ) -> TextureBatch:
        """Return the batch of the preparer, its I_u of the predicted p_t where the config wants that.

        The network that predicts it runs in mixed precision only on augmented batches, which are those of training.
        """
        batch = self.preparer(raw, augmentation, draws)
        if self.geometry is None:
            return batch
        image = batch.image.contiguous(memory_format=self.memory_format)
        precision = self.autocast() if augmentation else nullcontext()
        return batch._replace(linear_albedo=predict_linear_albedo(self.geometry, self.preparer, image, precision))

    def generate(self, batch: TextureBatch) -> torch.Tensor:
        """Return (B, 3, S, S) generated albedo maps, 0 outside the chart as the true ones are."""
        image = batch.image.contiguous(memory_format=self.memory_format)
        linear = batch.linear_albedo.contiguous(memory_format=self.memory_format)
        heatmaps = self.compiled_landmarks(image)[-1] if self.landmarks else None
        generator = self.trained_generator if self.generator.training else self.generator
        return generator(linear, image, heatmaps) * batch.inside

    def update_discriminator(self, generated: torch.Tensor, albedo: torch.Tensor) -> torch.Tensor:
        """Update the discriminator once and return its loss."""
        with self.autocast():
            loss = discriminator_loss(
                *(self.discriminator(maps.contiguous(memory_format=self.memory_format)) for maps in (albedo, generated))
            )
        self._update("discriminator", loss)
        return loss

    def losses(
        self, generated: torch.Tensor, batch: TextureBatch, draws: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Return the terms of Eq. (18) that are on and their weighted sum ``loss``."""
        config = self.config
        losses, loss = {}, 0.0
        if config.omega_r:
            losses["reconstruction"] = reconstruction_loss(
                generated, batch.albedo, batch.visible, batch.inside, config.fill_weight
            )
            loss = loss + config.omega_r * losses["reconstruction"]
        generated = generated.contiguous(memory_format=self.memory_format)
        if self.phi:
            with self.autocast():
                ours = self.compiled_phi(generated)
                with torch.no_grad():
                    theirs = self.compiled_phi(batch.albedo.contiguous(memory_format=self.memory_format))
            losses["contextual"] = contextual_loss(ours, theirs, draw_points(self.places, draws))
            loss = loss + config.omega_c * losses["contextual"]
        if self.discriminator:
            self.discriminator.requires_grad_(False)
            with self.autocast():
                losses["adversarial"] = adversarial_loss(self.discriminator(generated))
            self.discriminator.requires_grad_(True)
            loss = loss + config.omega_a * losses["adversarial"]
        return {**losses, "loss": loss}

    def _update(self, name: str, loss: torch.Tensor):
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def errors(self, raw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the `texture_errors` of a raw batch, not augmented, in full precision."""
        batch = self.prepare(raw)
        self.generator.eval()
        return texture_errors(self.generate(batch), batch)

    @torch.no_grad()
    def pictures(self) -> Image.Image:
        """Return rows of I_o, I_u, generated albedo, I_a, and what of I_a the photo shows; held-out ones if any."""
        indices = self.held_out if len(self.held_out) else self.training
        chosen = indices[::-(-len(indices) // SHEET_ROWS)]
        batch = self.prepare(self.dataset.batch(chosen))
        self.generator.eval()
        columns = (
            batch.image, batch.linear_albedo, self.generate(batch), batch.albedo, batch.albedo * batch.visible
        )
        return texture_sheet(columns)


def texture_sheet(columns: Sequence[torch.Tensor]) -> Image.Image:
    """Return (B, 3, S, S) pictures, RGB in [0, 1], as B rows with a column for each."""
    sheet = torch.cat([column.float().cpu() for column in columns], 3)  # (B, 3, S, columns S)
    pixels = (sheet.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).flatten(0, 1)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()))


class TrainedTexture(NamedTuple):
    """A trained texture stream, ready for use: networks on their device, in evaluation mode, frozen.

    Attributes
    ----------
    generator : TextureStream
        G_t.
    landmarks : LandmarkNetwork | None
        K; None without a landmark branch.
    mask : torch.Tensor
        (S, S) bool, texels of the chart.
    config : TextureConfig
        Of the run.
    metadata : dict
        Of the checkpoint: face model, chart, size and what else the run was.
    """

    generator: TextureStream
    landmarks: LandmarkNetwork | None
    mask: torch.Tensor
    config: TextureConfig
    metadata: dict

    @torch.no_grad()
    def stylise(self, linear_albedo: torch.Tensor, image: torch.Tensor) -> Stylised:
        """Return what the generator makes of I_u and I_o, (B, 3, S, S) in [0, 1]; the map is 0 outside the chart."""
        heatmaps = self.landmarks(image)[-1] if self.landmarks else None
        stylised = self.generator.stylise(linear_albedo, image, heatmaps)
        return stylised._replace(albedo_map=stylised.albedo_map * self.mask)


def texture_networks(config: TextureConfig, metadata: dict) -> dict[str, nn.Module]:
    """Return ``generator`` and, where it has a branch for it, ``landmarks`` as in a run's checkpoint, untrained."""
    networks = {
        "generator": TextureStream(
            config.regions, config.stylisation, config.skips, config.landmark_branch, config.width, metadata["size"]
        )
    }
    if metadata["landmark_stacks"]:
        networks["landmarks"] = LandmarkNetwork(metadata["landmark_stacks"], metadata["landmark_width"])
    return networks


def load_texture_stream(path: Path, device: str | None = "cpu") -> TrainedTexture:
    """Return the texture stream of a run.

    Parameters
    ----------
    path : Path
        The run's folder, or its checkpoint.
    device : str | None
        As `torch_device` takes it.

    Returns
    -------
    TrainedTexture
        Errors are those of `load_checkpoint` and `torch_device`.
    """
    state = load_checkpoint(path, "texture")
    config, metadata, device = TextureConfig.from_dict(state["config"]), state["metadata"], torch_device(device)
    networks = load_networks(state, lambda: texture_networks(config, metadata))
    for network in networks.values():
        network.to(device).eval().requires_grad_(False)
    mask = metadata["mask"].to(device)
    return TrainedTexture(networks["generator"], networks.get("landmarks"), mask, config, metadata)
