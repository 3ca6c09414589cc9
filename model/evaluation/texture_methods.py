"""What each method of Table II draws of a photo, and how far that is from it.

Dimension key: B photos of a batch, S side of the crop and of the maps in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.batches import GeometryPreparer, TextureBatch, prepare_photos
from model.dual_stream import TrainedFaces, draw_face
from model.fusion_losses import compose, photometric_error
from model.identity import IdentityNetwork, face_crop
from model.landmarks import landmarks_from_heatmaps
from model.metrics import ssim_map, texture_errors
from model.parsing import FaceParsing
from model.render import FaceRenderer, Rendered

LINEAR, GENERATED, ON_TRUE_FACE = "linear", "this method", "{} on the true face"
"""Names of the methods; the label of a run goes before them where there are several. The true face has the shape, the
pose and the light that the shards know."""


def picture_errors(rendered: torch.Tensor, image: torch.Tensor, region: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return how far pictures of faces are from their photos over a region.

    Parameters
    ----------
    rendered : torch.Tensor
        (B, 3, S, S) I_r; clipped to [0, 1].
    image : torch.Tensor
        (B, 3, S, S) I_o, RGB in [0, 1].
    region : torch.Tensor
        (B, 1, S, S) bool, R_s.

    Returns
    -------
    dict[str, torch.Tensor]
        (B,) each, NaN where the region is empty: ``mae``, the mean absolute difference over pixels and channels;
        ``e_pho`` of Sec. IV-D, ``||R_s (.) (I_o - I_r)||_2^2 / N_p`` with N_p the pixels of R_s, so that the squares
        of the three channels add up (the paper does not say the range of its colours; here it is [0, 1]); ``ssim``,
        the mean of `ssim_map` over the region, with I_o around it in both pictures.
    """
    count = region.sum((1, 2, 3))
    over = compose(rendered, image, region)
    return {
        "mae": photometric_error(rendered, image, region),
        "e_pho": (over - image).square().sum((1, 2, 3)) / count,
        "ssim": (ssim_map(over, image).mean(1, keepdim=True) * region).sum((1, 2, 3)) / count,
    }


@dataclass(frozen=True, eq=False)
class Drawn:
    """Photos, and what each method draws of them.

    Attributes
    ----------
    image : torch.Tensor
        (B, 3, S, S) I_o.
    region : torch.Tensor
        (B, 1, S, S) bool, R_s: what all methods draw, and nothing hides.
    pictures : dict[str, torch.Tensor]
        Method to (B, 3, S, S) I_r.
    landmarks : torch.Tensor
        (B, 68, 2) pixels, as nearly as they are known.
    albedo_errors : dict[str, torch.Tensor]
        Method to (B,) MAE of its albedo map from the shards' I_a; of some methods.
    """

    image: torch.Tensor
    region: torch.Tensor
    pictures: dict[str, torch.Tensor]
    landmarks: torch.Tensor
    albedo_errors: dict[str, torch.Tensor]


class TextureMethods:
    """Draws photos by each method: of each run the linear albedo I_u of its p_t, and what its texture stream makes.

    Parameters
    ----------
    runs : dict[str, TrainedFaces]
        By label, of one face model, chart and size, on one device.
    parsing : FaceParsing | None
        What hides the face is left out of R_s; None takes all that is drawn.
    """

    def __init__(self, runs: dict[str, TrainedFaces], parsing: FaceParsing | None = None):
        self.runs = runs
        first = next(iter(runs.values()))
        self.device = first.renderer.centre.device
        self.parsing = parsing and parsing.to(self.device)
        self.preparer = GeometryPreparer(first.model, first.maps, {"encoding": "params"}, self.device)
        # annotated placements are of a scaled orthographic camera
        self.true_renderer = FaceRenderer(first.model, first.maps, math.inf).to(self.device)

    @torch.no_grad()
    def __call__(self, raw: dict[str, torch.Tensor]) -> Drawn:
        """Return what is drawn of a collated batch of `samples_with_truth`."""
        image = prepare_photos(raw, self.device)
        truth = self.preparer(raw) if "id_coeffs" in raw else None
        albedo = self._photographed(raw, image) if "albedo_map" in raw else None
        rendered, albedo_errors, landmarks = {}, {}, None if truth is None else truth.landmarks

        def on_true_face(albedo_map: torch.Tensor) -> Rendered:
            return self.true_renderer(
                truth.identity_map + truth.expression_map, albedo_map, truth.parameters.light, truth.parameters.pose,
                truth.position,
            )

        for label, run in self.runs.items():
            face, prefix = run.network(image), f"{label}: " if len(self.runs) > 1 else ""
            albedos = {prefix + LINEAR: run.network.linear_albedo(face.parameters.albedo)}
            if run.network.generator:
                albedos[prefix + GENERATED] = face.albedo_map
            for method, albedo_map in albedos.items():
                rendered[method] = draw_face(run.renderer, face._replace(albedo_map=albedo_map))
                if truth is not None:
                    rendered[ON_TRUE_FACE.format(method)] = on_true_face(albedo_map)
                if albedo is not None:
                    albedo_errors[method] = texture_errors(albedo_map, albedo)["albedo_mae"]
            if landmarks is None and run.network.landmarks:
                landmarks = landmarks_from_heatmaps(run.network.landmarks(image)[-1])
        if albedo is not None:
            rendered[ON_TRUE_FACE.format("I_a of the shards")] = on_true_face(albedo.albedo)
        region = torch.stack([one.mask for one in rendered.values()]).all(0)
        if self.parsing:
            region = region & self.parsing.face_mask(image)
        return Drawn(
            image, region, {method: one.image for method, one in rendered.items()},
            next(iter(rendered.values())).landmarks if landmarks is None else landmarks, albedo_errors,
        )

    def _photographed(self, raw: dict[str, torch.Tensor], image: torch.Tensor) -> TextureBatch:
        """I_a of FTD samples and where the photo shows it; I_u, which is not compared, is empty."""
        inside = next(iter(self.runs.values())).network.linear_albedo.inside.expand(len(image), 1, -1, -1)
        albedo, mask = (raw[key].to(self.device) for key in ("albedo_map", "mask"))
        return TextureBatch(
            image, torch.zeros_like(image), albedo.float() / 255 * inside, mask[:, None].bool() & inside, inside
        )


def method_errors(drawn: Drawn, identity: IdentityNetwork | None = None) -> dict[str, dict[str, torch.Tensor]]:
    """Return the errors of each method, (B,) each: `picture_errors`, ``identity`` and ``albedo_mae`` where known.

    ``identity`` is the cosine of F_id, as Eq. (21) compares it, of the photo and of the face drawn over it within R_s.
    """
    def features(pictures: torch.Tensor) -> torch.Tensor:
        return identity(face_crop(pictures, drawn.landmarks))

    theirs = None if identity is None else features(drawn.image)
    found = {}
    for method, picture in drawn.pictures.items():
        found[method] = picture_errors(picture, drawn.image, drawn.region)
        if identity is not None:
            ours = features(compose(picture, drawn.image, drawn.region))
            found[method]["identity"] = F.cosine_similarity(ours, theirs, dim=1)
        if method in drawn.albedo_errors:
            found[method]["albedo_mae"] = drawn.albedo_errors[method]
    return found
