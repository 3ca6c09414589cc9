"""Analysis by synthesis: the fusion losses, Eq. (23), minimised for given photos over what their faces are drawn from.

In four stages of one run of Adam, each with all that the earlier ones move: the light, the placement, the shape, the
albedo. Albedo comes last because it can explain any photo, and would leave nothing to the shape.

Dimension key: B batch, S side of the crop and of the maps in pixels, K modes of the face model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from asmgen.maps import AttributeMaps
from asmgen.rigid_pose import rigid_pose
from bfm.pose import pose_from_rotation, project
from model.config import FusionConfig
from model.dual_stream import Face, draw_face
from model.fusion_losses import alignment_loss, compose, identity_loss, photometric_error, pixel_loss
from model.geometry import Parameters, denormalise_position, normalise_position
from model.identity import IdentityNetwork, face_crop
from model.parsing import FaceParsing
from model.render import FaceRenderer

PLACEMENT_FROM, SHAPE_FROM, ALBEDO_FROM = 0.1, 0.3, 0.6
"""Shares of the steps after which the placement, the shape and the albedo move; the light always does."""

RATES = {"pose": 0.02, "position": 0.01, "light": 0.03, "coeffs": 0.1, "albedo": 0.01}
"""Adam's first learning rates, in radians, normalised units, light coefficients, standard deviations and RGB of [0, 1];
they fall to 0 along a cosine."""

SHAPE_PRIOR = 1e-3
"""Weight of the squared length of the shape's move, in standard deviations."""

ALBEDO_SIDES = (8, 4)
"""Texels of the chart a cell of the grids that the albedo's change is the sum of. No finer: vertices lie a texel apart,
and one that none of them reads would keep its old colour."""

ALBEDO_PRIOR = 30.0
"""Weight of the mean square of the albedo's change, RGB in [0, 1]."""

LIGHT_PRIOR = 0.3
"""Weight of the squared length of the light's move, its brightness free: what is seen of a face leaves some of the
nine coefficients open, and hair takes those."""

ALIGNMENT = 0.1
"""Weight of the alignment loss. Departs from Eq. (23), which has 0.01: hair and glasses over the face then pull it up
to a third of its size away, as no network has learned from other photos where it belongs."""

FAR_OFF = 0.1
"""RMS distance of a face's landmarks from those of its photo, over the side of their box, from which on it is placed
anew. Nearer ones the steps bring in."""

MOST_RESIZED = 4.0
"""Landmarks that ask for more are not those of the face in the crop."""


class Refined(NamedTuple):
    """Faces after analysis by synthesis.

    Attributes
    ----------
    face : Face
        Without gradient.
    before, after : torch.Tensor
        (B,) photometric error of the given and of the refined faces, mean absolute difference in [0, 1] over M; NaN
        where M is empty.
    """

    face: Face
    before: torch.Tensor
    after: torch.Tensor


def refine(
    face: Face, image: torch.Tensor, renderer: FaceRenderer, steps: int, *, maps: AttributeMaps,
    landmarks: torch.Tensor | None = None, identity: IdentityNetwork | None = None,
    parsing: FaceParsing | None = None,
) -> Refined:
    """Move faces so that they look like their photos.

    The shape moves within the face model, by coefficients added to what the network found, with their prior: of freely
    moving maps the losses ask nothing but that the shading fits, which led away from the truth where it is known
    (identity 1.37 mm wrong before and 1.40 after). The albedo moves freely.

    A face that is far off is first placed by its landmarks, in one go (`placed_by_landmarks`): steps do not turn a head
    by much.

    Departs from Eq. (22): the landmarks of I_R are those of its mesh, which are exact and cost no network.

    Parameters
    ----------
    face : Face
        What the network made of the photos; not changed.
    image : torch.Tensor
        (B, 3, S, S) I_o, RGB in [0, 1]. The photos of a batch do not influence each other.
    renderer : FaceRenderer
        Of the face model and the camera that the faces are placed for.
    steps : int
        Of the optimiser; 0 leaves the faces as they are.
    maps : AttributeMaps
        The map space of the face model, numpy.
    landmarks : torch.Tensor | None
        (B, 68, 2) of the photos, pixels, of the 3-D face (an outline's hidden half where it would be seen through the
        head), from a network or a file; None leaves the alignment loss out.
    identity : IdentityNetwork | None
        F_id, frozen, for the identity loss; takes landmarks, which place its crop.
    parsing : FaceParsing | None
        Network that tells skin from what hides it, for M; None takes all that is drawn.

    Returns
    -------
    Refined
        The same for the same input on the same machine.

    Raises
    ------
    ValueError
        If `identity` is given without `landmarks`, or `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    if identity is not None and landmarks is None:
        raise ValueError("the identity loss needs landmarks to place its crop; give landmarks too, or no identity")
    with torch.no_grad():
        visible = parsing.face_mask(image) if parsing else torch.ones_like(image[:, :1], dtype=torch.bool)
        features = identity(face_crop(image, landmarks)) if identity else None
        start = draw_face(renderer, face)
        before = photometric_error(start.image, image, start.mask & visible)
    if steps == 0:
        return Refined(face, before, before)
    moves = _Moves(face if landmarks is None else placed_by_landmarks(face, landmarks, renderer), maps)
    optimiser = torch.optim.Adam([{"params": moves.free[key], "lr": rate} for key, rate in RATES.items()])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        with torch.enable_grad():
            stage = [step >= share * steps for share in (PLACEMENT_FROM, SHAPE_FROM, ALBEDO_FROM)]
            rendered = draw_face(renderer, moves.face(*stage))
            seen = rendered.mask & visible
            loss = FusionConfig.lambda_pixel * pixel_loss(rendered.image, image, seen) + moves.prior(*stage[1:])
            if landmarks is not None:
                loss += ALIGNMENT * alignment_loss(rendered.landmarks, landmarks, image.shape[-1])
            if identity is not None:
                crop = face_crop(compose(rendered.image, image, seen), landmarks)
                loss += FusionConfig.lambda_identity * identity_loss(identity(crop), features)
            optimiser.zero_grad(set_to_none=True)
            # the losses are means over the batch, and no photo's step may depend on how many others there are
            (len(image) * loss).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        refined = moves.face()
        refined = refined._replace(
            albedo_map=refined.albedo_map.clamp(0, 1), parameters=Parameters(*(p.detach() for p in refined.parameters))
        )
        end = draw_face(renderer, refined)
        return Refined(refined, before, photometric_error(end.image, image, end.mask & visible))


@torch.no_grad()
def placed_by_landmarks(face: Face, landmarks: torch.Tensor, renderer: FaceRenderer) -> Face:
    """Turn and move faces that are far off, their shapes as they are, to where their landmarks are nearest the photos'.

    Parameters
    ----------
    face : Face
        Of a batch; not changed.
    landmarks : torch.Tensor
        (B, 68, 2) of the photos, pixels.
    renderer : FaceRenderer
        Of the face model and the camera.

    Returns
    -------
    Face
        Nearer ones stay as they are: the place that fits a wrong shape best is not where the face is. So do those whose
        size would change by more than `MOST_RESIZED`.
    """
    size, parameters, distance = face.identity_map.shape[-1], face.parameters, renderer.camera_distance
    vertices = renderer.vertices(face.identity_map + face.expression_map)[:, renderer.landmarks]
    shapes, targets = (values.double().cpu().numpy() for values in (vertices, landmarks))
    rotations, shifts, scales = zip(*(
        rigid_pose(shape, target * [1, -1], distance) for shape, target in zip(shapes, targets)
    ))
    pose, position = (
        torch.tensor(values).to(parameters.pose) for values in
        (pose_from_rotation(np.stack(rotations)), np.column_stack([np.stack(shifts) * [1, -1], scales]))
    )
    given = denormalise_position(parameters.position, size)
    before, after = (
        (project(vertices, *place, distance)[..., :2] - landmarks).square().sum(2).mean(1).sqrt()
        for place in ((parameters.pose, given), (pose, position))
    )
    side = (landmarks.amax(1) - landmarks.amin(1)).prod(1).sqrt()
    resized = position[:, 2] / given[:, 2]
    better = (before > FAR_OFF * side) & (after < before) & (resized > 1 / MOST_RESIZED) & (resized < MOST_RESIZED)
    better = better[:, None]
    return face._replace(parameters=parameters._replace(
        pose=torch.where(better, pose, parameters.pose),
        position=torch.where(better, normalise_position(position, size), parameters.position),
    ))


class _Moves:
    """What is free to move, as leaves for the optimiser, and the faces that it stands for."""

    def __init__(self, face: Face, maps: AttributeMaps):
        count, _, size, _ = face.albedo_map.shape
        device, (_, light, pose, position) = face.albedo_map.device, face.parameters
        self.start = face
        self.bases = [torch.as_tensor(basis, device=device) for basis in (maps.id_basis_map, maps.exp_basis_map)]
        self.inside = torch.as_tensor(maps.chart.mask, device=device)
        coeffs = [light.new_zeros(count, len(basis)) for basis in self.bases]
        albedo = [light.new_zeros(count, 3, size // side, size // side) for side in ALBEDO_SIDES]
        self.free = {
            key: [leaf.detach().clone().requires_grad_() for leaf in leaves] for key, leaves in
            {"pose": [pose], "position": [position], "light": [light], "coeffs": coeffs, "albedo": albedo}.items()
        }

    def face(self, placement: bool = True, shape: bool = True, albedo: bool = True) -> Face:
        """The faces; what does not move yet gets no gradient."""
        identity_map, expression_map, albedo_map, parameters = self.start
        if shape:
            identity_map, expression_map = (
                maps + (coeffs @ basis.flatten(1)).view_as(maps)
                for maps, coeffs, basis in zip((identity_map, expression_map), self.free["coeffs"], self.bases)
            )
        if albedo:
            size = albedo_map.shape[-1]
            change = sum(
                F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=False)
                for grid in self.free["albedo"]
            )
            albedo_map = albedo_map + change * self.inside
        parameters = parameters._replace(light=self.free["light"][0])
        if placement:
            parameters = parameters._replace(pose=self.free["pose"][0], position=self.free["position"][0])
        return Face(identity_map, expression_map, albedo_map, parameters)

    def prior(self, shape: bool, albedo: bool) -> torch.Tensor:
        """What large moves cost, mean of the photos; only of what moves, as Adam counts gradients of zero too."""
        change = self.free["light"][0] - self.start.parameters.light
        cost = LIGHT_PRIOR * change[:, 1:].square().sum(1).mean()
        if shape:
            cost += SHAPE_PRIOR * sum(coeffs.square().sum(1).mean() for coeffs in self.free["coeffs"])
        if albedo:
            cost += ALBEDO_PRIOR * sum(grid.square().mean() for grid in self.free["albedo"])
        return cost
