"""Both streams as one network (Fig. 2): a photo to everything that a face is drawn from.

Dimension key: B batch, S side of the crop and of the maps in pixels, V vertices.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from asmgen.maps import AttributeMaps
from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from model.checkpoint import load_checkpoint, load_networks
from model.config import GeometryConfig, TextureConfig
from model.geometry import GeometryStream, Parameters, denormalise_position
from model.landmarks import LandmarkNetwork
from model.linear_albedo import LinearAlbedo
from model.render import FaceRenderer, Rendered
from model.texture import TextureStream
from model.train_geometry import geometry_stream, map_space, torch_device
from model.train_texture import TrainedTexture, load_texture_stream, texture_networks


class Face(NamedTuple):
    """What the network makes of a batch of crops: all that `FaceRenderer` draws.

    Attributes
    ----------
    identity_map, expression_map : torch.Tensor
        (B, 3, S, S) A_id and A_exp in map units; their sum is I_g (Eq. 2).
    albedo_map : torch.Tensor
        (B, 3, S, S) I_a, RGB in [0, 1], 0 outside the chart.
    parameters : Parameters
        p_t, p_l, p_h, and the position normalised (`denormalise_position` gives pixels).
    """

    identity_map: torch.Tensor
    expression_map: torch.Tensor
    albedo_map: torch.Tensor
    parameters: Parameters


class DualStream(nn.Module):
    """The geometry stream, and the texture stream on the linear albedo I_u of the p_t that the first predicts.

    Parameters
    ----------
    geometry : GeometryStream
        A crop to both maps and the parameters.
    linear_albedo : LinearAlbedo
        p_t to I_u.
    generator : TextureStream | None
        G_t, Eq. (12); without one the albedo map is I_u itself.
    landmarks : LandmarkNetwork | None
        K, where the generator has a landmark branch. It stays in evaluation mode.
    """

    def __init__(
        self, geometry: GeometryStream, linear_albedo: LinearAlbedo, generator: TextureStream | None = None,
        landmarks: LandmarkNetwork | None = None,
    ):
        super().__init__()
        self.geometry, self.linear_albedo, self.generator, self.landmarks = (
            geometry, linear_albedo, generator, landmarks
        )

    def train(self, mode: bool = True) -> DualStream:
        """Put the streams into training mode, K never."""
        super().train(mode)
        if self.landmarks:
            self.landmarks.eval()
        return self

    def forward(self, image: torch.Tensor, heatmaps: torch.Tensor | None = None) -> Face:
        """Return the faces in photos.

        Parameters
        ----------
        image : torch.Tensor
            (B, 3, S, S) I_o, RGB in [0, 1].
        heatmaps : torch.Tensor | None
            (B, 68, S/4, S/4) K(I_o), where it is known already.

        Returns
        -------
        Face
            Float32, with gradient also from the albedo map to p_t.
        """
        identity_map, expression_map, parameters = self.geometry(image)
        albedo_map = self.linear_albedo(parameters.albedo)
        if self.generator:
            if self.landmarks and heatmaps is None:
                heatmaps = self.landmarks(image)[-1]
            albedo_map = self.generator(albedo_map, image, heatmaps) * self.linear_albedo.inside
        return Face(identity_map, expression_map, albedo_map, parameters)


def draw_face(renderer: FaceRenderer, face: Face) -> Rendered:
    """Return what the renderer makes of faces, Eq. (19), at the size of their crops."""
    parameters, size = face.parameters, face.identity_map.shape[-1]
    return renderer(
        face.identity_map + face.expression_map, face.albedo_map, parameters.light, parameters.pose,
        denormalise_position(parameters.position, size),
    )


class TrainedFaces(NamedTuple):
    """A trained network and what draws its faces, ready for use.

    Attributes
    ----------
    network : DualStream
        On its device, in evaluation mode, frozen.
    renderer : FaceRenderer
        On the same device, with the camera that the network was trained for.
    model : MorphableModel
        Face part, numpy.
    maps : AttributeMaps
        Its map space, numpy.
    metadata : dict
        ``kind`` (``geometry``, ``geometry+texture`` or ``fusion``), ``camera_distance`` (mm), ``size``, ``shape``
        (``single``: the identity map is that of the whole face; see `GeometryConfig`), face model, chart, the configs
        of its trainings, and what else building the network takes.
    has_texture : bool
        False where the albedo map is the grey mean: no texture stream, and a face model without albedo.
    """

    network: DualStream
    renderer: FaceRenderer
    model: MorphableModel
    maps: AttributeMaps
    metadata: dict
    has_texture: bool


def load_dual_stream(
    checkpoint: Path, texture: Path | None = None, model: MorphableModel | None = None, device: str | None = None,
    camera_distance: float | None = None,
) -> TrainedFaces:
    """Return the network of a fusion run; or that of a geometry run, alone or with a texture run.

    Parameters
    ----------
    checkpoint : Path
        Run of ``dualface train fusion`` or ``train geometry``: its folder or its checkpoint.
    texture : Path | None
        Run of ``dualface train texture``; goes with a geometry run only.
    model : MorphableModel | None
        The face model that the runs were trained on; None is the open model.
    device : str | None
        As `torch_device` takes it.
    camera_distance : float | None
        Millimetres, infinity for scaled orthographic projection; None is that of the fusion run, and infinity for
        geometry runs, which learn 300W-LP's placements. Under another camera than it learned the network's scale is
        corrected, so that faces keep their size; the effect of perspective is left to training.

    Returns
    -------
    TrainedFaces
        Errors of unreadable files are those of `load_checkpoint`, of another face model those of `map_space`.

    Raises
    ------
    ValueError
        If the runs do not fit together, the geometry run has not come to its decoders yet, or the camera is too near.
    """
    state = load_checkpoint(checkpoint, "fusion", "geometry")
    metadata = dict(state["metadata"])
    if state["kind"] == "fusion":
        if texture is not None:
            raise ValueError(f"{checkpoint} is a fusion run, which holds a texture stream; leave out the texture run")
        metadata["fusion_config"] = state["config"]
        geometry = GeometryConfig.from_dict(metadata["geometry_config"])
        style = TextureConfig.from_dict(metadata["texture_config"])
        networks = load_networks(
            state, lambda: {"geometry": geometry_stream(geometry, metadata), **texture_networks(style, metadata)}
        )
    else:
        config = GeometryConfig.from_dict(state["config"])
        if state["step"] <= config.parameter_steps:
            raise ValueError(
                f"{checkpoint} has {state['step']} steps done, but its decoders are trained only after step "
                f"{config.parameter_steps}; train on with --resume"
            )
        networks = load_networks(state, lambda: {"geometry": geometry_stream(config, metadata)})
        metadata |= {"kind": "geometry", "camera_distance": math.inf, "geometry_config": config.to_dict()}
        if texture is not None:
            trained = load_texture_stream(texture)
            metadata |= {"kind": "geometry+texture", **_fitting(trained, texture, checkpoint, metadata)}
            networks |= {"generator": trained.generator, "landmarks": trained.landmarks}
    metadata["shape"] = metadata["geometry_config"]["shape"]
    face, maps = map_space(metadata, model or load_model("open"), metadata["chart_uv"].numpy())
    if camera_distance is not None:
        nearest = float(face.mean_shape[:, 2].max())
        if not camera_distance > nearest:
            raise ValueError(
                f"camera_distance must be above {nearest:.0f} mm, where the face is, got {camera_distance:g}"
            )
        middle = float(face.mean_shape[:, 2].mean())  # the face lies before the origin, where the scale holds
        before, after = (1 - middle / distance for distance in (metadata["camera_distance"], camera_distance))
        with torch.no_grad():
            networks["geometry"].psn[-1].bias[-1] += math.log(after / before)  # the logarithm of the scale
        metadata["camera_distance"] = camera_distance
    network = DualStream(linear_albedo=LinearAlbedo(face, maps.chart), **networks)
    renderer = FaceRenderer(face, maps, metadata["camera_distance"])
    device = torch_device(device)
    return TrainedFaces(
        network.to(device).eval().requires_grad_(False), renderer.to(device), face, maps, metadata,
        network.generator is not None or face.has_albedo,
    )


def _fitting(trained: TrainedTexture, texture: Path, geometry: Path, metadata: dict) -> dict:
    """What a texture run adds to the metadata of a geometry run, after checking that the two fit."""
    for key, name in (("face_model_sha256", "face model"), ("chart", "chart"), ("size", "size")):
        if trained.metadata[key] != metadata[key]:
            wanted, found = (str(described[key])[:12] for described in (metadata, trained.metadata))  # a hash is long
            raise ValueError(
                f"{texture} must be a texture run of the same {name} as {geometry}, {wanted}, got {found}; train both "
                "on shards built alike"
            )
    if trained.metadata["lit"]:
        raise ValueError(
            f"{texture} was trained on textures that hold the light of their photos (build ftd --lit), and rendering "
            "would light them again; give a run on textures without it"
        )
    kept = ("landmark_stacks", "landmark_width")
    return {**{key: trained.metadata[key] for key in kept}, "texture_config": trained.config.to_dict()}
