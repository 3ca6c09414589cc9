"""Training step 3 of the paper: both streams together, on photos alone, by drawing what they see and comparing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from bfm.light import sh_basis
from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from bfm.render import clay_colours
from model.batches import GeometryPreparer, TextureBatch, prepare_photos
from model.checkpoint import weights_sha256
from model.config import FusionConfig
from model.data import FUSION, FaceDataset, samples_with_truth, step_generator, validation_batches
from model.dual_stream import Face, TrainedFaces, draw_face, load_dual_stream
from model.fusion_losses import (
    alignment_loss, compose, identity_loss, keep_loss, photometric_error, pixel_loss, spread,
)
from model.geometry import Geometry
from model.identity import IdentityNetwork, face_crop, load_identity_network
from model.landmarks import LandmarkNetwork, landmarks_from_heatmaps, load_landmark_network
from model.losses import map_laplacian, smoothness_loss, symmetry_loss
from model.metrics import geometry_errors, texture_errors
from model.parsing import FaceParsing, load_parsing_network
from model.render import Rendered
from model.train_geometry import torch_device
from model.train_texture import SHEET_ROWS, texture_sheet
from model.trainer import Task, run_training

COLLAPSED = 20.0
"""Percent of the start's spread of faces below which a run ends: what changes of data and light do to it is within a
factor of two, and a network that gives everyone the same face comes through here on its way."""

GREY = 0.7
"""Albedo of the face in the column of a sheet that shows the light."""


def train_fusion(
    shards: str | Path | Sequence, run_dir: Path, config: FusionConfig, model: MorphableModel | None = None,
    device: str | None = None, workers: int = 0, resume: bool = False, on_log: Callable[[dict], None] | None = None,
    progress: Callable[..., tqdm] | None = None,
    *, geometry: Path, texture: Path | None = None, identity: Path | None = None, landmarks: Path | None = None,
    parsing: Path | None = None,
) -> Path:
    """Fine-tune both streams on photos.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards of any kind, or one shard, or several of them; only their photos are trained on, and what else
        they know of those held out is compared with.
    run_dir : Path
        Folder of the run: config, log, curves, sample sheets and checkpoint.
    config : FusionConfig
        Everything that changes the result, but for the runs and networks below, whose hashes are kept with it.
    model : MorphableModel | None
        The face model of the runs; None is the open model.
    device : str | None
        As `torch_device` takes it.
    workers : int
        Processes that decode images.
    resume : bool
        Go on from the checkpoint in `run_dir`; the runs and networks must be the same.
    on_log : Callable[[dict], None] | None
        Given each record of the log.
    progress : Callable[..., tqdm] | None
        Makes the progress bar, of the first process alone; called as tqdm is. None is no bar.
    geometry : Path
        Geometry run to start from, or a fusion run, to go on from it on other photos.
    texture : Path | None
        Texture run to start from; a fusion run holds its own.
    identity : Path | None
        F_id (`load_identity_network`).
    landmarks : Path | None
        H (`load_landmark_network`); None is the K of the texture run.
    parsing : Path | None
        Network that tells skin from what hides it, for M (`load_parsing_network`); None takes all that is drawn.

    Returns
    -------
    Path
        The last checkpoint, for `load_dual_stream`. Errors are those of `run_training`, `load_dual_stream`,
        `split_identities`, `FusionTask` and of the networks' files.

    Raises
    ------
    ValueError
        If a network is needed that was not given.
    """
    dataset = FaceDataset(shards, FUSION)
    trained = load_dual_stream(geometry, texture, model or load_model("open"), device, config.camera_distance)
    aligner = load_landmark_network(landmarks) if landmarks else trained.network.landmarks
    if config.lambda_identity and identity is None:
        raise ValueError(
            "the identity loss needs a trained face recognition network: give an ArcFace file or a run of `dualface "
            "train identity` (--identity), or turn the loss off (--no-identity)"
        )
    if (config.lambda_identity or config.lambda_alignment) and aligner is None:
        raise ValueError(
            "the alignment loss, and the identity loss for its crops, need a trained landmark network: give a run of "
            "`dualface train landmarks` or a 3D-FAN file (--landmarks), or turn them off (--no-alignment --no-identity)"
        )
    task = FusionTask(
        dataset, trained, config, torch_device(device), workers,
        identity=load_identity_network(identity) if config.lambda_identity else None,
        aligner=aligner if config.lambda_identity or config.lambda_alignment else None,
        parsing=load_parsing_network(parsing) if parsing else None,
    )
    return run_training(task, run_dir, config, resume, on_log, progress)


class FusionTask(Task):
    """Both streams, the renderer, the networks that compare, for `run_training`.

    Parameters
    ----------
    dataset : FaceDataset
        Read with `FUSION`.
    trained : TrainedFaces
        To start from, with a texture stream, on the device; its streams are trained in place.
    config : FusionConfig
        Everything that changes the result.
    device : torch.device
        Where to train.
    workers : int
        Processes that decode images.
    identity : IdentityNetwork | None
        F_id, frozen; None where the identity loss is off.
    aligner : LandmarkNetwork | None
        H, frozen; None where the identity and the alignment loss are off. It may be the K of `trained`.
    parsing : FaceParsing | None
        For M, frozen; None takes all that is drawn.

    Attributes
    ----------
    kind : str
        ``fusion``.
    note : str
        What M is, and which of the shards there is no truth to measure by.
    networks : dict[str, nn.Module]
        ``geometry``, ``generator``, and ``landmarks`` where the generator has a branch for them.
    optimisers : dict[str, torch.optim.Optimizer]
        Adam of the first two.
    metadata : dict
        What `load_dual_stream` needs beside the weights, and the hashes of all that the run starts from.

    Raises
    ------
    ValueError
        If the crops have another size than those of the runs, there is no texture stream, or no identity map to be
        symmetric.
    """

    kind = "fusion"
    fine_tunes = True

    def __init__(
        self, dataset: FaceDataset, trained: TrainedFaces, config: FusionConfig, device: torch.device,
        workers: int = 0, *, identity: IdentityNetwork | None, aligner: LandmarkNetwork | None,
        parsing: FaceParsing | None = None,
    ):
        size = trained.metadata["size"]
        if int(dataset.attributes["size"]) != size:
            raise ValueError(
                f"the shards must hold crops of {size} pixels, as those that the runs were trained on, got "
                f"{dataset.attributes['size']}; build them with --size {size}"
            )
        network = trained.network
        if network.generator is None:
            raise ValueError("fusion needs a texture stream; give a texture run (--texture)")
        if config.lambda_symmetry and trained.metadata["shape"] == "single":
            raise ValueError(
                "lambda_symmetry must be 0 for a geometry run of shape 'single', whose map holds the expression too, "
                f"got {config.lambda_symmetry:g}"
            )
        super().__init__(dataset, config, device, workers)
        self.network, self.renderer = network.to(memory_format=self.memory_format), trained.renderer
        self.start = copy.deepcopy(network.geometry)  # frozen
        if aligner and network.landmarks and weights_sha256(aligner) == weights_sha256(network.landmarks):
            aligner = network.landmarks  # so that it runs once
        self.identity, self.aligner, self.parsing = (
            other and other.to(device, memory_format=self.memory_format) for other in (identity, aligner, parsing)
        )
        frozen = self.start, self.aligner, self.identity
        if config.mixed_precision and self.on_gpu:
            frozen = (other and rounded(other) for other in frozen)
        self.forward = self.compiled(network)
        self.forward_start, self.find, self.recognise = (other and self.compiled(other) for other in frozen)
        self.networks = {"geometry": network.geometry, "generator": network.generator}
        self.optimisers = {key: self.adam(stream.requires_grad_()) for key, stream in self.networks.items()}
        if network.landmarks:
            self.networks["landmarks"] = network.landmarks
        self.mask = network.linear_albedo.inside
        self.texels = self.mask.flatten().nonzero()[:, 0]
        self.laplacian = map_laplacian(trained.model, trained.maps).to(device)
        self.landmarks = torch.tensor(trained.model.landmarks, dtype=torch.int64, device=device)
        self.trained = trained
        self.samples, unknown = samples_with_truth(dataset, trained.metadata)
        self.note = "; ".join([
            "the pixel loss compares all that is drawn" + (" and that nothing hides (face parsing)" if parsing else ""),
            *(f"nothing but photos is known of the samples in {folder}" for folder in unknown),
        ])
        given = {"identity": self.identity, "aligner": self.aligner, "parsing": self.parsing}
        self.metadata = {
            **trained.metadata, "kind": self.kind, "samples_sha256": dataset.samples_sha256,
            "held_out_seed": config.seed,  # not that of the geometry run
            **{f"start_{key}_sha256": weights_sha256(stream) for key, stream in self.networks.items()},
            **{f"{key}_sha256": weights_sha256(other) if other else "" for key, other in given.items()},
        }

    @cached_property
    def preparer(self) -> GeometryPreparer:
        """What makes true maps of coefficients, which shards of both encodings hold."""
        return GeometryPreparer(self.trained.model, self.trained.maps, {"encoding": "params"}, self.device)

    def step(self, raw: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Update both streams once on Eq. (23).

        Batch normalisation keeps the statistics of the runs: a photo is drawn as it will be reconstructed, by itself.
        (With those of the batch, 150 steps on 72 toy faces raised their photometric error from 0.095 to 0.099; so they
        lower it to 0.080.)
        """
        config = self.config
        self.network.eval()
        image = prepare_photos(raw, self.device, config.augmentation, step_generator(config.seed, step))
        losses = self.losses(image.contiguous(memory_format=self.memory_format))
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate_at(step)
            optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        for optimiser in self.optimisers.values():
            optimiser.step()
        return {key: value.detach() for key, value in losses.items()}

    def losses(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the terms of Eq. (23), of what holds the geometry, their weighted sum ``loss``, and `statistics`.

        The start follows the renderer, which waits for the device: it is much work in few calls, and while a GPU does
        it the calls of the networks that compare are made.
        """
        config, size = self.config, image.shape[-1]
        with torch.no_grad(), self.autocast():
            heatmaps = self.find(image)[-1] if self.aligner else None
        with self.autocast():
            face = self.forward(image, heatmaps if self.aligner is self.network.landmarks else None)
        rendered = self.draw(face)
        with torch.no_grad(), self.autocast():
            begun = self.forward_start(image)
        visible = self.visible(rendered, image)
        terms = {}
        if config.lambda_pixel:
            terms["pixel"] = pixel_loss(rendered.image, image, visible)
        if self.aligner:
            over = compose(rendered.image, image, visible)
            landmarks = landmarks_from_heatmaps(heatmaps)
        if config.lambda_identity:
            crops = [face_crop(picture, landmarks) for picture in (over, image)]
            with self.autocast():
                ours = self.recognise(crops[0].contiguous(memory_format=self.memory_format))
                with torch.no_grad():
                    theirs = self.recognise(crops[1].contiguous(memory_format=self.memory_format))
            terms["identity"] = identity_loss(ours, theirs)
        if config.lambda_alignment:
            with self.autocast():
                found = self.find(over.contiguous(memory_format=self.memory_format))[-1]
            terms["alignment"] = alignment_loss(landmarks_from_heatmaps(found), landmarks, size)
        full_map, begun_map = face.identity_map + face.expression_map, begun.identity_map + begun.expression_map
        if config.lambda_symmetry:
            terms["symmetry"] = symmetry_loss(face.identity_map, self.mask)
        if config.lambda_smoothness:
            terms["smoothness"] = smoothness_loss(full_map - begun_map, self.laplacian)
        if config.lambda_keep:
            terms["keep"] = keep_loss(self.points(full_map), self.points(begun_map))
        loss = sum(getattr(config, f"lambda_{key}") * term for key, term in terms.items())
        return {**terms, "loss": loss, **self.statistics(face, begun)}

    @torch.no_grad()
    def statistics(self, face: Face, begun: Geometry) -> dict[str, torch.Tensor]:
        """Return what tells whether the geometry collapses, of faces and what the start makes of the same photos.

        ``..._spread_mm`` is by how much the faces of the batch differ, ``..._spread_percent`` that in percent of the
        start's, and ``from_start_mm`` how far its points have moved since.
        """
        found = {}
        moved: Any = 0
        for key in ("identity", "expression"):
            ours, theirs = (self.points(getattr(maps, f"{key}_map")) for maps in (face, begun))
            found[f"{key}_spread_mm"] = spread(ours)
            found[f"{key}_spread_percent"] = 100 * spread(ours) / spread(theirs).clamp(min=1e-6)
            moved = moved + (ours - theirs)
        return {**found, "from_start_mm": moved.norm(dim=-1).mean()}

    def points(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the (B, N, 3) points, mm from the map's centre, at the texels of the chart in (B, 3, S, S) maps."""
        # index_select: the gradient of indexing sorts the places
        return maps.flatten(2).index_select(2, self.texels).mT * self.trained.maps.scale

    def check(self, losses: dict[str, float]):
        """End the run where all faces come to look the same."""
        for key in ("identity", "expression"):
            percent = losses[f"{key}_spread_percent"]
            if percent < COLLAPSED:
                raise FloatingPointError(
                    f"the {key} maps collapse: the faces of a batch differ by {percent:.0f} % of what they did at the "
                    "start; lower the learning rate, or raise lambda_keep, and start again"
                )

    def draw(self, face: Face) -> Rendered:
        """Return I_R; faces that cannot be drawn, as the network has diverged, end the run."""
        try:
            return draw_face(self.renderer, face)
        except ValueError as error:
            raise FloatingPointError("the network's faces are not finite any more") from error

    def visible(self, rendered: Rendered, image: torch.Tensor) -> torch.Tensor:
        """Return M, (B, 1, S, S) bool: what is drawn and, by the parsing network if there is one, not hidden."""
        if self.parsing is None:
            return rendered.mask
        with torch.no_grad(), self.autocast():
            return rendered.mask & self.parsing.face_mask(image)

    @torch.no_grad()
    def evaluate(self, indices: Sequence[int]) -> dict[str, float]:
        """Return the mean of each error over those of the samples that have it."""
        found, indices = {}, np.asarray(indices)
        stops = np.cumsum([len(samples) for samples in self.samples])
        for samples, stop in zip(self.samples, stops):
            places = indices - (stop - len(samples))
            places = places[(places >= 0) & (places < len(samples))]
            for raw in validation_batches(samples, places, self.config.batch_size):
                for key, values in self.errors(raw).items():
                    found.setdefault(key, []).append(values)
        errors = {key: torch.cat(values) for key, values in found.items()}
        return {key: float(values.mean()) for key, values in errors.items() if len(values)}

    def errors(self, raw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return `photometric_error`, and of raw batches with the truth `geometry_errors` and `texture_errors`.

        The first is that of the photos in which something of the face is seen.
        ``linear_mae`` is of the linear albedo as it is predicted now.
        """
        network, image = self.network.eval(), prepare_photos(raw, self.device)
        face = network(image.contiguous(memory_format=self.memory_format))
        rendered = self.draw(face)
        photometric = photometric_error(rendered.image, image, self.visible(rendered, image))
        errors = {"photometric_mae": photometric[~photometric.isnan()]}
        if "id_coeffs" in raw:
            errors |= geometry_errors(
                Geometry(face.identity_map, face.expression_map, face.parameters), self.preparer(raw),
                self.preparer.maps, self.landmarks, self.trained.metadata["camera_distance"],
                decoupled=self.trained.metadata["shape"] != "single",
            )
        if "albedo_map" in raw:
            inside = self.mask.expand(len(image), 1, -1, -1)
            albedo, mask = (raw[key].to(self.device) for key in ("albedo_map", "mask"))
            errors |= texture_errors(face.albedo_map, TextureBatch(
                image, network.linear_albedo(face.parameters.albedo), albedo.float() / 255 * inside,
                mask[:, None].bool() & inside, inside,
            ))
        return errors

    @torch.no_grad()
    def pictures(self) -> Image.Image:
        """Return rows of I_o, I_R over I_o, I_a, the light on grey, and the mesh as clay; held-out ones if any."""
        indices = self.held_out if len(self.held_out) else self.training
        chosen = indices[::-(-len(indices) // SHEET_ROWS)]
        image = prepare_photos(self.dataset.batch(chosen), self.device)
        face = self.network.eval()(image.contiguous(memory_format=self.memory_format))
        rendered = self.draw(face)
        normals = rendered.normals.movedim(1, -1)  # (B, S, S, 3)
        shading = GREY * (sh_basis(normals) @ face.parameters.light[:, None, :, None]).movedim(-1, 1)
        clay = torch.tensor(clay_colours(normals.cpu().numpy())).movedim(-1, 1).to(image)
        return texture_sheet([
            image, compose(rendered.image, image, rendered.mask), face.albedo_map,
            (shading * rendered.mask).expand_as(image), clay * rendered.mask,
        ])


def rounded(network: nn.Module) -> nn.Module:
    """Return a copy of a frozen network whose convolutions hold what bfloat16 autocast makes of their weights.

    Autocast rounds weights that have no gradient in every call anew, which takes a kernel a layer. The results are the
    same, bit for bit. Layers derived from a convolution, such as `UpsampledConv2d`, compute with their weights before
    these are rounded, if they are, and are left as they are.

    Parameters
    ----------
    network : nn.Module
        Not changed.

    Returns
    -------
    nn.Module
        To be called under autocast only.
    """
    network = copy.deepcopy(network)
    for layer in network.modules():
        if type(layer) in (nn.Conv2d, nn.PReLU):
            layer.to(torch.bfloat16)
    return network
