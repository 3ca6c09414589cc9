"""Analysis by synthesis: the fusion losses, Eq. (23), minimised for given photos over what their faces are drawn from.

In three stages of one run of Adam, each with all that the earlier ones move: the placement and the light; then the
shape; then the albedo. Albedo comes last because it can explain any photo, and would leave nothing to the shape.

Dimension key: B batch, S side of the crop and of the maps in pixels, K modes of the face model.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from asmgen.maps import AttributeMaps
from bfm.light import fit_light
from model.config import FusionConfig
from model.dual_stream import Face, draw_face
from model.fusion_losses import alignment_loss, compose, identity_loss, photometric_error, pixel_loss
from model.geometry import Parameters
from model.identity import IdentityNetwork, face_crop
from model.parsing import FaceParsing
from model.render import FaceRenderer, Rendered

SHAPE_FROM, ALBEDO_FROM = 0.3, 0.6
"""Shares of the steps after which the shape and the albedo move."""

RATES = {"pose": 0.02, "position": 0.01, "light": 0.02, "coeffs": 0.1, "albedo": 0.004}
"""Adam's first learning rates, in radians, normalised units, light coefficients, standard deviations and RGB of [0, 1];
they fall to 0 along a cosine."""

SHAPE_PRIOR = 1e-3
"""Weight of the squared length of the shape's move, in standard deviations."""

ALBEDO_SIDES = (8, 4)
"""Texels of the chart a cell of the grids that the albedo's change is the sum of. No finer: vertices lie a texel apart,
and one that none of them reads would keep its old colour."""

ALBEDO_PRIOR = 3.0
"""Weight of the mean square of the albedo's change, RGB in [0, 1]."""

LEAST_PIXELS = 100
"""With fewer of a face in sight its light is not fitted anew."""


class Refined(NamedTuple):
    """Faces after analysis by synthesis.

    Attributes
    ----------
    face : Face
        Without gradient.
    before, after : torch.Tensor
        (B,) photometric error of the given and of the refined faces, mean absolute difference in [0, 1] over M.
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

    The light starts at the least squares fit to the photo (`bfm.light.fit_light`). The shape moves within the face
    model, by coefficients added to what the network found, with their prior: of freely moving maps the losses ask
    nothing but that the shading fits, and on faces whose shape is known that led away from it
    (benchmarks/refine_accuracy.py). The albedo moves freely.

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
    moves = _Moves(face, _fitted_light(start, image, visible, face.parameters.light), maps)
    optimiser = torch.optim.Adam([{"params": moves.free[key], "lr": rate} for key, rate in RATES.items()])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        with torch.enable_grad():
            moved = moves.face(shape=step >= SHAPE_FROM * steps, albedo=step >= ALBEDO_FROM * steps)
            rendered = draw_face(renderer, moved)
            seen = rendered.mask & visible
            loss = FusionConfig.lambda_pixel * pixel_loss(rendered.image, image, seen) + moves.prior()
            if landmarks is not None:
                loss += FusionConfig.lambda_alignment * alignment_loss(rendered.landmarks, landmarks, image.shape[-1])
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


class _Moves:
    """What is free to move, as leaves for the optimiser, and the faces that it stands for."""

    def __init__(self, face: Face, light: torch.Tensor, maps: AttributeMaps):
        count, _, size, _ = face.albedo_map.shape
        device = light.device
        self.start = face
        self.bases = [torch.as_tensor(basis, device=device) for basis in (maps.id_basis_map, maps.exp_basis_map)]
        self.inside = torch.as_tensor(maps.chart.mask, device=device)
        pose, position = face.parameters.pose, face.parameters.position
        coeffs = [light.new_zeros(count, len(basis)) for basis in self.bases]
        albedo = [light.new_zeros(count, 3, size // side, size // side) for side in ALBEDO_SIDES]
        self.free = {
            key: [leaf.detach().clone().requires_grad_() for leaf in leaves] for key, leaves in
            {"pose": [pose], "position": [position], "light": [light], "coeffs": coeffs, "albedo": albedo}.items()
        }

    def face(self, shape: bool = True, albedo: bool = True) -> Face:
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
        (pose,), (position,), (light,) = (self.free[key] for key in ("pose", "position", "light"))
        return Face(
            identity_map, expression_map, albedo_map, parameters._replace(pose=pose, position=position, light=light)
        )

    def prior(self) -> torch.Tensor:
        """What large moves cost, the mean of the photos."""
        shape = sum(coeffs.square().sum(1).mean() for coeffs in self.free["coeffs"])
        return SHAPE_PRIOR * shape + ALBEDO_PRIOR * sum(grid.square().mean() for grid in self.free["albedo"])


def _fitted_light(start: Rendered, image: torch.Tensor, visible: torch.Tensor, light: torch.Tensor) -> torch.Tensor:
    """(B, 9): the light that makes each face most like its photo, or the given one where too little is seen."""
    lights = []
    for photo, seen in enumerate(start.mask[:, 0] & visible[:, 0]):
        if seen.sum() < LEAST_PIXELS:
            lights.append(light[photo])
            continue
        albedo, colours, normals = (
            values[photo][:, seen].T.cpu().numpy() for values in (start.albedo, image, start.normals)
        )
        lights.append(torch.as_tensor(fit_light(albedo, colours, normals)[0], device=light.device))
    return torch.stack(lights)
