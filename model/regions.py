"""Semantic regions of the texture stream: SSRPM, Eq. (9) to (11), and SRSM, Eq. (13) and (14).

Dimension key: B batch, C channels, n regions, h/w height and width of the mid-level features, S side of the photo.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model.layers import full_precision, he_initialise, scaled

EPSILON = 1e-5
"""Of Eq. (14). The formula adds it to sigma, the text to the variance, as instance normalisation does; so do we."""

LANDMARKS = 68


class SharedRegions(nn.Module):
    """SSRPM, Fig. 4: one set of soft regions for the features of I_u and of I_o.

    F_s begins with ReLU: without it the filters that align and those that segment would be one linear map.

    Parameters
    ----------
    channels : int
        C, of the mid-level features.
    regions : int
        n.
    landmark_branch : bool
        Whether landmark heatmaps guide the regions (Eq. 9); without it Eq. (10) is F_s(X') alone.
    width : float
        Factor on the channels inside the landmark branch.
    """

    def __init__(self, channels: int, regions: int = 16, landmark_branch: bool = True, width: float = 1.0):
        super().__init__()
        self.align_content = nn.Conv2d(channels, channels, 3, padding=1)
        self.align_style = nn.Conv2d(channels, channels, 3, padding=1)
        self.segment = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, regions, 3, padding=1))  # F_s
        if landmark_branch:
            self.guide = nn.Sequential(  # F_a
                nn.Conv2d(LANDMARKS + 3, scaled(64, width), 4, stride=2, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(scaled(64, width), regions, 3, padding=1),
            )
            self.guide_scale = nn.Parameter(torch.tensor(1e-2))  # k
        self.landmark_branch = landmark_branch
        he_initialise(self)
        with torch.no_grad():
            self.segment[1].weight.mul_(0.5)  # logits of about unit variance: regions that differ, none that rules

    def forward(
        self, content: torch.Tensor, style: torch.Tensor, image: torch.Tensor, heatmaps: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the region maps X_s.

        Parameters
        ----------
        content : torch.Tensor
            (B, C, h, w) X_u, features of the linear albedo map.
        style : torch.Tensor
            (B, C, h, w) X_o, features of the photo.
        image : torch.Tensor
            (B, 3, S, S) the photo I_o in [-1, 1].
        heatmaps : torch.Tensor | None
            (B, 68, 2h, 2w) K(I_o); not looked at without the landmark branch.

        Returns
        -------
        torch.Tensor
            (B, n, h, w) float32, summing to one over the regions.

        Raises
        ------
        ValueError
            If the landmark branch is there and the heatmaps are not, or have another shape.
        """
        logits = self.segment(self.align_content(content) + self.align_style(style))  # F_s(X'), (B, n, h, w)
        if self.landmark_branch:
            wanted = (len(content), LANDMARKS, 2 * content.shape[2], 2 * content.shape[3])
            if heatmaps is None or tuple(heatmaps.shape) != wanted:
                raise ValueError(
                    f"heatmaps must have shape {wanted}, got {None if heatmaps is None else tuple(heatmaps.shape)}; "
                    "give those of the landmark network, or build the stream without its landmark branch"
                )
            photo = F.interpolate(image, heatmaps.shape[2:], mode="area")
            logits = logits + self.guide_scale * self.guide(torch.cat([heatmaps, photo], 1))  # Eq. (9), (10)
        return logits.float().softmax(1)  # Eq. (11)


class RegionModulation(nn.Module):
    """alpha_i and beta_i of Eq. (14): two 1x1 convolutions of the style features within each region, averaged.

    A 1x1 convolution commutes with the mean over the map, so the features are averaged first and the convolutions
    act on n vectors. They start so that alpha_i is the mean of the style features and beta_i about 1.

    Parameters
    ----------
    channels : int
        C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.alpha, self.beta = nn.Linear(channels, channels), nn.Linear(channels, channels)
        with torch.no_grad():
            nn.init.eye_(self.alpha.weight)
            nn.init.normal_(self.beta.weight, std=0.1 / channels**0.5)
            nn.init.zeros_(self.alpha.bias)
            nn.init.ones_(self.beta.bias)

    def forward(
        self, style: torch.Tensor, regions: torch.Tensor, whole_map: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return alpha and beta, (B, n, C), of style features (B, C, h, w) and region maps (B, n, h, w)."""
        with full_precision(style):
            pooled = _average(_full(style), _weights(_full(regions), whole_map))
            return self.alpha(pooled), self.beta(pooled)


def region_statistics(
    features: torch.Tensor, regions: torch.Tensor, whole_map: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of features in each region: mu and sigma of Eq. (14).

    Departs from Eq. (14): by default the statistics are those of the region, its texels weighted by X_si over the
    region's mass. Read literally, mu(X (.) X_si) is a mean over the whole map, where the texels of other regions
    count as zeros: with n regions the mean shrinks to about 1/n of the region's, X - mu is not centred, and sigma
    measures the region's size as much as its texture. ``whole_map`` gives that reading.

    Both are matrix products of the features, and of their squares, with the region maps; no (B, n, C, h, w) is made.

    Parameters
    ----------
    features : torch.Tensor
        (B, C, h, w) X.
    regions : torch.Tensor
        (B, n, h, w) X_s, not negative.
    whole_map : bool
        Take mean and deviation of X (.) X_si over all h*w texels, as the formula is written.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        mu and sqrt(variance + epsilon), (B, n, C); float32, or float64 if the features are.
    """
    with full_precision(features):
        features, regions = _full(features), _full(regions)
        weights = _weights(regions, whole_map)
        mean = _average(features, weights)
        # (X (.) X_si)^2 over the map holds the region map twice
        square = _average(features.square(), weights * regions if whole_map else weights)
        return mean, ((square - mean.square()).clamp(min=0) + EPSILON).sqrt()


def region_stylise(
    content: torch.Tensor, regions: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor, whole_map: bool = False
) -> torch.Tensor:
    """Return the stylised features X_r of Eq. (14).

    The sum over regions is ``X (.) sum_i (beta_i/sigma_i) X_si + sum_i (alpha_i - mu_i beta_i/sigma_i) X_si``: a
    scale and a shift map, each one matrix product with the region maps.

    Parameters
    ----------
    content : torch.Tensor
        (B, C, h, w) X_u, features of the linear albedo map.
    regions : torch.Tensor
        (B, n, h, w) X_s.
    alpha : torch.Tensor
        (B, n, C) the new mean of each region.
    beta : torch.Tensor
        (B, n, C) its new standard deviation.
    whole_map : bool
        Which statistics; see `region_statistics`.

    Returns
    -------
    torch.Tensor
        (B, C, h, w), of the content's type.
    """
    with full_precision(content):
        regions = _full(regions)
        mean, stddev = region_statistics(content, regions, whole_map)
        scale = beta / stddev  # (B, n, C)
        scale_map, shift_map = (
            torch.einsum("bnc,bnhw->bchw", values, regions) for values in (scale, alpha - mean * scale)
        )
        return (content * scale_map + shift_map).to(content.dtype)


def adaptive_instance_norm(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Return the content with the style's mean and deviation, AdaIN [1]_: one region, the whole map.

    Parameters
    ----------
    content : torch.Tensor
        (B, C, h, w).
    style : torch.Tensor
        (B, C, h, w).

    Returns
    -------
    torch.Tensor
        (B, C, h, w), of the content's type.

    References
    ----------
    .. [1] Huang and Belongie, Arbitrary style transfer in real-time with adaptive instance normalization, ICCV 2017.
    """
    everywhere = style.new_ones((len(style), 1, *style.shape[2:]))
    return region_stylise(content, everywhere, *region_statistics(style, everywhere))


def _weights(regions: torch.Tensor, whole_map: bool) -> torch.Tensor:
    """What each texel counts in a region's mean, (B, n, h, w)."""
    if whole_map:
        return regions / regions[0, 0].numel()
    return regions / regions.sum((2, 3), keepdim=True).clamp(min=EPSILON)


def _average(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums over the map, (B, n, C)."""
    return torch.einsum("bchw,bnhw->bnc", features, weights)


def _full(tensor: torch.Tensor) -> torch.Tensor:
    """In float32, or float64 if it is that: in bfloat16 the variance of Eq. (14) would cancel."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
