"""What `geometry_table.py` measures of a trained geometry stream.

Dimension key: N photos, V vertices.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from asmgen.maps import AttributeMaps
from bfm.morphable_model import MorphableModel
from bfm.pose import project
from model.data import validation_batches
from model.dual_stream import DualStream, TrainedFaces
from model.evaluation.dense import ALIGNMENTS, dense_nme
from model.evaluation.expression_curves import group_mean, unit_groups
from model.evaluation.expression_errors import MEASURES, ExpressionPhotos
from model.evaluation.nme import landmark_nme
from model.geometry import denormalise_position
from model.linear_albedo import LinearAlbedo
from model.render import FaceRenderer
from model.train_geometry import GeometryTask


def dense_errors(found: np.ndarray, true: np.ndarray, landmarks: np.ndarray, icp_photos: int) -> dict[str, float]:
    """Return the mean dense NME of (N, V, 3) shapes in each alignment, percent; ICP of at most so many of them."""
    few = np.unique(np.linspace(0, len(found) - 1, icp_photos).round().astype(int))
    chosen = {"correspondence": range(len(found)), "icp": few}
    with ThreadPoolExecutor() as pool:
        return {
            f"{alignment}_percent": float(np.mean(list(pool.map(
                lambda index: dense_nme(found[index], true[index], landmarks, alignment), chosen[alignment]
            )))) for alignment in ALIGNMENTS
        }


class HeldOut:
    """Measures trained streams on the people held out, who are the same for all.

    Parameters
    ----------
    icp_photos : int
        On at most so many photos, evenly spread, is the error after ICP measured.
    """

    def __init__(self, icp_photos: int):
        self.icp_photos, self.of_mean = icp_photos, None

    @torch.no_grad()
    def __call__(self, task: GeometryTask) -> dict[str, float]:
        """Return what the table has beside the last validation."""
        maps, corners = task.maps, task.landmarks.cpu().numpy()
        found, true, identities, landmarks = ([] for _ in range(4))
        for raw in validation_batches(task.dataset, task.held_out, task.config.batch_size):
            batch = task.preparer(raw)
            predicted = task.network.eval()(batch.image.contiguous(memory_format=task.memory_format))
            shape = maps.vertices(predicted.identity_map + predicted.expression_map)
            position = denormalise_position(predicted.parameters.position, batch.image.shape[-1])
            points = project(shape[:, task.landmarks], predicted.parameters.pose, position)[..., :2]
            landmarks.append(landmark_nme(points.cpu().numpy(), batch.landmarks.cpu().numpy()))
            for parts, values in (
                (found, shape), (true, maps.vertices(batch.identity_map + batch.expression_map)),
                (identities, maps.vertices(batch.identity_map)),
            ):
                parts.append(values.cpu().numpy())
        found, true, identities, landmarks = map(np.concatenate, (found, true, identities, landmarks))
        if self.of_mean is None:
            mean = maps.vertices(maps.mean_map).cpu().numpy()
            self.of_mean = {
                **dense_errors(np.broadcast_to(mean, true.shape), true, corners, self.icp_photos),
                "identity_mm": distance(mean, identities), "expression_mm": distance(true, identities),
                "full_mm": distance(mean, true),
            }
        return {
            **dense_errors(found, true, corners, self.icp_photos), "landmark_percent": float(landmarks.mean()),
            **{f"mean_{key}": value for key, value in self.of_mean.items()},
        }


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the mean distance of corresponding vertices, mm."""
    return float(np.linalg.norm(ours - theirs, axis=-1).mean())


class Stress:
    """Measures trained streams on the photos of an expression stress, which are read once.

    Parameters
    ----------
    root : Path
        Of ``dualface synth expressions``.
    model : MorphableModel
        The face model, numpy.
    maps : AttributeMaps
        The map space of its face part, numpy.
    device : torch.device
        Of the streams.

    Attributes
    ----------
    known : dict
        By unit and strength: how many photos, their mean magnitude, and what a network gets that sees no expression.

    Raises
    ------
    ValueError
        If there is a photo that cannot be measured.
    """

    def __init__(self, root: Path, model: MorphableModel, maps: AttributeMaps, device: torch.device):
        self.photos, self.maps = ExpressionPhotos(root, model), maps
        face = self.photos.model
        self.linear_albedo = LinearAlbedo(face, maps.chart).to(device)  # a part of the network, not used
        self.renderer = FaceRenderer(face, maps).to(device)
        if self.photos.failed:
            raise ValueError(f"{len(self.photos.failed)} photos cannot be measured, such as {self.photos.failed[0]}")
        ignoring, groups = self.by_group(self.photos.measure(self.photos.ignoring)), unit_groups(self.photos)
        self.known = {
            unit: {
                strength: {
                    "photos": len(group), "magnitude_mm": round(float(self.photos.magnitudes[group].mean()), 6),
                    **ignoring[unit][strength],
                } for strength, group in by_strength.items()
            } for unit, by_strength in groups.items()
        }

    def by_group(self, errors: dict[str, np.ndarray]) -> dict:
        """Return the mean of each measure by unit and strength; None where it is not defined."""
        return {
            unit: {
                strength: {name: self.mean(name, errors, group) for name in MEASURES}
                for strength, group in by_strength.items()
            } for unit, by_strength in unit_groups(self.photos).items()
        }

    def mean(self, name: str, errors: dict[str, np.ndarray], group: Sequence[int]) -> float | None:
        """Return a measure over some photos."""
        value = group_mean(self.photos, name, errors[name], group)
        return value if value is None else round(value, 6)

    def __call__(self, task: GeometryTask) -> dict:
        """Return the measures over all photos as ``stress_...``, and by unit and strength as ``stress``."""
        network = DualStream(task.network, self.linear_albedo).eval()
        metadata = {**task.metadata, "shape": task.config.shape}
        faces = TrainedFaces(network, self.renderer, self.photos.model, self.maps, metadata, has_texture=False)
        errors = self.photos.measure(self.photos.predictor(faces, task.config.batch_size))
        everyone = range(len(self.photos.faces))
        means = {f"stress_{name}": self.mean(name, errors, everyone) for name in MEASURES}
        return {**means, "stress": self.by_group(errors)}
