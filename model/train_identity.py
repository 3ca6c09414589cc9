"""Training of F_id, the identity network, where ArcFace's own weights are not to be had: on the copies of photos.

All re-posed and mirrored copies of a photo are one person. They also share their expression, so what is learnt here
tells that apart too, which ArcFace's weights, trained on many photos of a person, do less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from bfm.pose import transform_points
from model.augment import draw_changes
from model.config import Augmentation, IdentityConfig
from model.data import (
    LANDMARKS, FaceDataset, batch_indices, photo_names, split_identities, step_generator, validation_batches,
)
from model.distributed import own_part
from model.identity import FEATURES, LAYERS, IdentityNetwork, face_crop
from model.train_geometry import torch_device
from model.trainer import Task, run_training


def train_identity(
    shards: str | Path | Sequence, run_dir: Path, config: IdentityConfig, device: str | None = None, workers: int = 0,
    resume: bool = False, on_log: Callable[[dict], None] | None = None,
    progress: Callable[..., tqdm] | None = None,
) -> Path:
    """Train the identity network on shards of faces.

    Parameters
    ----------
    shards : str | Path | Sequence
        Folder of shards or one shard, or several of them.
    run_dir : Path
        Folder of the run: config, log, curves and checkpoint.
    config : IdentityConfig
        Everything that changes the result.
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
        The last checkpoint, for `load_identity_network`. Errors are those of `run_training`, `IdentityTask`,
        `torch_device` and `split_identities`.
    """
    dataset = FaceDataset(shards, LANDMARKS)
    task = IdentityTask(dataset, config, torch_device(device), workers)
    return run_training(task, run_dir, config, resume, on_log, progress)


class PersonCentres(nn.Module):
    """The direction of each person's features, learnt beside them and not used after training.

    Parameters
    ----------
    count : int
        People.
    """

    def __init__(self, count: int):
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(count, FEATURES))


def arcface_loss(
    features: torch.Tensor, centres: torch.Tensor, people: torch.Tensor, margin: float, scale: float
) -> torch.Tensor:
    """Return the loss of Eq. (3) of [1]_: cross entropy of the cosines, the angle to one's own centre enlarged.

    Departs from Eq. (3) beyond the angle pi - margin, because cos(angle + margin) rises again there: the cosine less
    1 - cos(margin) goes on without a jump.

    Parameters
    ----------
    features : torch.Tensor
        (B, C) of any length.
    centres : torch.Tensor
        (N, C) likewise, one a person.
    people : torch.Tensor
        (B,) int64, which of them each face is.
    margin : float
        m, radians.
    scale : float
        s.

    Returns
    -------
    torch.Tensor
        Scalar.

    References
    ----------
    .. [1] Deng et al., ArcFace: additive angular margin loss for deep face recognition, CVPR 2019.
    """
    cosines = F.normalize(features) @ F.normalize(centres).T
    own = cosines.gather(1, people[:, None])
    sine = (1 - own.square()).clamp(min=1e-9).sqrt()
    farther = own * math.cos(margin) - sine * math.sin(margin)
    farther = torch.where(own > -math.cos(margin), farther, own - (1 - math.cos(margin)))
    return F.cross_entropy(scale * cosines.scatter(1, people[:, None], farther), people)


def verification(features: torch.Tensor, people: np.ndarray) -> dict[str, float]:
    """Return how well the cosine between two faces says whether they are of one person, over all pairs.

    Parameters
    ----------
    features : torch.Tensor
        (N, C) of any length.
    people : np.ndarray
        (N,) int, who each is.

    Returns
    -------
    dict[str, float]
        ``verification_auc``, the probability that a pair of one person is the closer of two, 0.5 by chance; and
        ``equal_error_percent``, the share of pairs of one person taken for two at the threshold where it equals
        that of the opposite mistake. Empty if there is no pair of one person, or none of two.
    """
    features = F.normalize(features.double())
    first, second = np.triu_indices(len(people), 1)
    cosines = (features @ features.T).cpu().numpy()[first, second]
    same = people[first] == people[second]
    if same.all() or not same.any():
        return {}
    order = np.argsort(-cosines, kind="stable")
    cosines, same = cosines[order], same[order]
    ends = np.flatnonzero(np.append(np.diff(cosines) != 0, True))  # pairs as close as each other come together
    accepted, mistaken = (
        np.concatenate([[0], np.cumsum(pairs)[ends] / pairs.sum()]) for pairs in (same, ~same)
    )
    return {
        "verification_auc": float(np.trapezoid(accepted, mistaken)),
        "equal_error_percent": 100 * float(np.interp(0, mistaken + accepted - 1, mistaken)),
    }


def identity_crops(
    raw: dict[str, torch.Tensor], device: torch.device, augmentation: Augmentation | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return the face crops of collated `LANDMARKS` samples, augmented if an augmentation and its generator are given.

    Parameters
    ----------
    raw : dict[str, torch.Tensor]
        On any device.
    device : torch.device
        Where to work.
    augmentation : Augmentation | None
        Amounts; what turns, scales and shifts moves the crop over the photo, which so is sampled once.
    generator : torch.Generator | None
        On the CPU.

    Returns
    -------
    torch.Tensor
        (B, 3, 112, 112) RGB in [0, 1].
    """
    image = raw["image"].to(device, non_blocking=True).float() / 255
    landmarks = raw["landmarks"].to(device, non_blocking=True).float()
    if augmentation is None:
        return face_crop(image, landmarks)
    changes = draw_changes(image, augmentation, generator)
    crops = face_crop(image, transform_points(landmarks, changes.transform))
    return changes.chart_maps(changes.recolour(crops, lit=True)).clamp(0, 1)


class IdentityTask(Task):
    """The identity network, its data and its loss, for `run_training`.

    Parameters
    ----------
    dataset : FaceDataset
        Read with `LANDMARKS`.
    config : IdentityConfig
        Everything that changes the result.
    device : torch.device
        Where to train.
    workers : int
        Processes that decode images.

    Raises
    ------
    ValueError
        If two builds hold samples of the same name: nothing says whether they are of one person.

    Attributes
    ----------
    kind : str
        ``identity``.
    people, held_out_people : np.ndarray
        (N,) int64, who is on each sample to train on, and on each held out.
    networks : dict[str, nn.Module]
        The network, ``identity``, and the ``centres`` of the people it is trained on.
    optimisers : dict[str, torch.optim.Optimizer]
        Adam.
    metadata : dict
        What the crops were.
    """

    kind = "identity"

    def __init__(self, dataset: FaceDataset, config: IdentityConfig, device: torch.device, workers: int = 0):
        super().__init__(dataset, config, device, workers)
        sources = dataset.sources
        names, counts = np.unique(sources, return_counts=True)
        if counts.max() > 1:
            raise ValueError(
                "builds that identities are learnt from may not share sample names, as nothing says whether "
                f"{names[counts.argmax()]} is the same person in each; give one of them"
            )
        photos = np.array(photo_names(sources))
        people, self.people = np.unique(photos[self.training], return_inverse=True)
        self.held_out, self.held_out_people = self._whole_people(photos, split_identities(
            sources, config.validation_fraction, config.seed
        )[1])
        self.network = IdentityNetwork(LAYERS[config.depth], config.width).to(device, memory_format=self.memory_format)
        self.centres = PersonCentres(len(people)).to(device)
        self.networks = {"identity": self.network, "centres": self.centres}
        self.optimisers = {"adam": self.adam(nn.ModuleList(self.networks.values()))}
        self.metadata = {
            "size": int(dataset.attributes["size"]), "people": len(people), "samples_sha256": dataset.samples_sha256,
        }

    def _whole_people(self, photos: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return about as many held-out samples as the config says, all of a person or none, and who is on each."""
        names = np.unique(photos[held_out])
        every = max(1, math.ceil(len(held_out) / max(1, self.config.validation_samples)))
        held_out = held_out[np.isin(photos[held_out], names[::every])]
        return held_out, np.unique(photos[held_out], return_inverse=True)[1]

    def step(self, raw: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Update the network and the centres once."""
        config = self.config
        crops = identity_crops(raw, self.device, config.augmentation, step_generator(config.seed, step))
        places = batch_indices(step, len(self.training), config.batch_size, config.seed)
        people = torch.tensor(own_part(self.people[places])).to(self.device, non_blocking=True)
        with self.autocast():
            features = self.network.train()(crops.contiguous(memory_format=self.memory_format))
        loss = arcface_loss(features, self.centres.weight, people, config.margin, config.scale)
        adam = self.optimisers["adam"]
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the `verification` of the people held out, not augmented, in full precision; empty without them."""
        features = [
            self.network.eval()(identity_crops(raw, self.device).contiguous(memory_format=self.memory_format))
            for raw in validation_batches(self.dataset, self.held_out, self.config.batch_size)
        ]
        return verification(torch.cat(features), self.held_out_people) if features else {}
