"""The scores by which photos are selected for the Facial Texture Dataset (`texgen.thresholds`).

They are taken on texels of the chart, so they mean the same for every size of the photo.

Dimension key: B batch, K modes of the albedo, S side of the chart, N texels that scores are taken over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from bfm.charts import Chart
from bfm.morphable_model import REGIONS, MorphableModel
from texgen.surface import surface_texels
from texgen.texture import Texture
from texgen.thresholds import Scores

SATURATED = 250 / 255
"""Least value of a channel that counts as saturated."""
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the brightness of an encoded colour (ITU-R BT.601)."""

_SIDE = 64
_FEATURES, _FEATURE_COLOUR = ("eyes", "mouth"), 0.12
_DARK = 0.04  # added to colours before their logarithm: below, noise decides
_TRIMMED = 0.1
_SPREADS = 4
_BRIGHTNESS, _TINT, _TINT_IN_SHADOW = (0.25, 0.6), (0.1, 0.25), 0.4
_LEAST_PART = 0.03


@dataclass(frozen=True, eq=False)
class ScoreTexels:
    """The texels that scores are taken over, the same for every photo; some 64 x 64 of a larger chart.

    Attributes
    ----------
    surface : np.ndarray
        (N,) flat indices into the (S, S) map: in the chart and not in the mouth gap.
    part : np.ndarray
        (N,) int8 part of the skin: 0 forehead, 1 about the eyes, 2 nose and chin, 3 and 4 the subject's left and
        right cheek with the jaw; -1 for eyes, brows and mouth themselves.
    mean_albedo : np.ndarray
        (N, 3) float32 RGB of the mean face there, not clipped.
    albedo_basis : np.ndarray
        (K, N, 3) float32 modes of the albedo there.
    """

    surface: np.ndarray
    part: np.ndarray
    mean_albedo: np.ndarray
    albedo_basis: np.ndarray

    @classmethod
    def from_model(cls, model: MorphableModel, chart: Chart) -> ScoreTexels:
        """Choose the texels of a chart.

        Parameters
        ----------
        model : MorphableModel
            The face alone (`MorphableModel.face_only`).
        chart : Chart
            Its chart.

        Returns
        -------
        ScoreTexels
            Made once a process.
        """
        step = max(1, chart.size // _SIDE)
        lattice = np.zeros_like(chart.mask)
        lattice[step // 2::step, step // 2::step] = True
        surface = np.flatnonzero(surface_texels(model, chart) & lattice)
        part = np.where(_features(model, chart), -1, _parts(model, chart)).ravel()[surface]
        to_texels = chart.to_texels[surface]
        modes = [to_texels @ mode for mode in model.albedo_basis]
        return cls(
            surface, part.astype(np.int8), to_texels @ model.mean_albedo,
            np.reshape(modes, (-1, len(surface), 3)).astype(np.float32),
        )

    def linear_albedo(self, albedo_coeffs: np.ndarray) -> np.ndarray:
        """Return I_u at these texels; of the same coefficients as `TextureMapper.linear_albedo`, and equal to it there.

        Parameters
        ----------
        albedo_coeffs : np.ndarray
            (B, K) standard deviations; (B, 0) is the mean albedo.

        Returns
        -------
        np.ndarray
            (B, N, 3) float32 RGB, clipped to [0, 1].
        """
        basis = self.albedo_basis.reshape(-1, self.mean_albedo.size)
        if not albedo_coeffs.shape[1]:
            basis = basis[:0]
        albedo = self.mean_albedo + (albedo_coeffs @ basis).reshape(-1, *self.mean_albedo.shape)
        return np.clip(albedo, 0, 1, out=albedo)


def _features(model: MorphableModel, chart: Chart) -> np.ndarray:
    """(S, S) bool: eyes, brows and lips with a rim, told from the skin by the mean face's colours where it has any."""
    nearest = chart.triangles[chart.texel_triangles, chart.texel_barycentric.argmax(-1)]
    features = np.isin(model.regions[nearest], [REGIONS.index(name) for name in _FEATURES]) & chart.mask
    if model.has_albedo:
        albedo = np.moveaxis(chart.unwrap(model.mean_albedo), 0, -1)
        skin = np.median(albedo[chart.mask & ~features], axis=0)
        features &= np.abs(np.log(np.maximum(albedo, _DARK) / skin)).max(axis=-1) > _FEATURE_COLOUR
    return binary_dilation(features, iterations=max(1, chart.size // 64))


def _parts(model: MorphableModel, chart: Chart) -> np.ndarray:
    """(S, S) part of each texel, by its place among the landmarks of the mean face."""
    landmarks = model.mean_shape[model.landmarks]
    brows, eyes = landmarks[17:27, 1].mean(), landmarks[36:48, 1].mean()
    x, y, _ = chart.unwrap(model.mean_shape)
    middle = np.abs(x) < np.abs(landmarks[48:55, 0]).max()
    # what is about the eyes ends as far below them as the brows are above
    return np.select([y > brows, y > 2 * eyes - brows, middle], [0, 1, 2], np.where(x > 0, 3, 4))


def measure(texture: Texture, linear_albedo: np.ndarray, texels: ScoreTexels, pose: np.ndarray) -> Scores:
    """Score one photo.

    A face lit from one side is bright, relative to its albedo, where it faces that side of the picture. So the
    visible skin is halved by the sideways component of its normals, and the halves compared: that works for a profile
    too, where the halves of the face cannot be compared, and counts cast shadows, which the fitted light cannot have.

    Skin is told from what covers it by the photo's colour over the fitted one (I_u times shading), in brightness and
    tint, both relative to the median over this face, so that no colour of skin is preferred. How far a texel may
    be off follows the spread within the face, within limits; shadows may be tinted.

    Parameters
    ----------
    texture : Texture
        The photo on the chart.
    linear_albedo : np.ndarray
        (N, 3) I_u at `texels`, RGB in [0, 1].
    texels : ScoreTexels
        Of the same chart.
    pose : np.ndarray
        (3,) pitch, yaw, roll, radians.

    Returns
    -------
    Scores
        Python floats.
    """
    in_sight = texture.visible.ravel()[texels.surface]
    seen, part = texels.surface[in_sight], texels.part[in_sight]
    skin = np.flatnonzero(part >= 0)
    visible_fraction, yaw = float(in_sight.mean()), yaw_degrees(pose)
    if not len(skin):
        return Scores(visible_fraction, yaw, *[np.nan] * 5)
    photo, albedo = texture.colours.reshape(-1, 3)[seen], linear_albedo[in_sight]
    shading, sideways = texture.shading.ravel()[seen], texture.normals[..., 0].ravel()[seen]
    skin_like = _skin_like(photo[skin], albedo[skin], shading[skin])
    return Scores(
        visible_fraction=visible_fraction,
        yaw=yaw,
        light_ratio=_light_ratio(photo[skin], albedo[skin], sideways[skin]),
        saturation=float((photo.max(axis=1) >= SATURATED).mean()),
        exposure=float((photo @ LUMINANCE).mean()),
        albedo_residual=_residual(photo, albedo, np.maximum(shading, texture.least_shading)),
        skin_fraction=_least_share(skin_like, part[skin], _LEAST_PART * len(texels.surface)),
    )


def yaw_degrees(pose: np.ndarray) -> float:
    """Return |yaw| in degrees of a (3,) pose in radians."""
    return abs(float(np.degrees(pose[1])))


def _light_ratio(photo, albedo, sideways) -> float:
    """Brightness over albedo of the half of the texels that faces right against that of the other half."""
    right = sideways > np.median(sideways)
    if not right.any():
        return 1.0
    one, other = (
        (photo[half] @ LUMINANCE).mean() / max((albedo[half] @ LUMINANCE).mean(), _DARK) for half in (right, ~right)
    )
    return float(max(one, other) / max(min(one, other), 1e-6))


def _residual(photo, albedo, shading) -> float:
    """RMS of I_a - I_u, the worst texels aside."""
    squares = ((np.clip(photo / shading[:, None], 0, 1) - albedo) ** 2).mean(axis=1)
    kept = max(1, round((1 - _TRIMMED) * len(squares)))
    return float(np.sqrt(np.partition(squares, kept - 1)[:kept].mean()))


def _skin_like(photo, albedo, shading) -> np.ndarray:
    """(N,) bool: the texels that differ from the fitted face as most of them do."""
    fitted = albedo * np.maximum(shading, 0)[:, None]
    differs = np.log((photo + _DARK) / (fitted + _DARK))
    brightness = differs.mean(axis=1)
    tint = differs - brightness[:, None]
    brightness -= np.median(brightness)
    tint = np.abs(tint - np.median(tint, axis=0)).max(axis=1)
    far = np.clip(_SPREADS * np.median(np.abs(brightness)), *_BRIGHTNESS)
    off = np.clip(_SPREADS * np.median(tint), *_TINT)
    return (np.abs(brightness) < far) & (tint < off + _TINT_IN_SHADOW * np.maximum(-brightness, 0))


def _least_share(good, part, least) -> float:
    """Share of good texels in the part that has the least, of all parts with enough texels, and in all together."""
    count, good_count = np.bincount(part), np.bincount(part, good)
    large = count >= max(least, 1)
    return float(min([good.mean(), *(good_count[large] / count[large])]))
