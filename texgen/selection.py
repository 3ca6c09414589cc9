"""Which photos go into the Facial Texture Dataset: scores of a sample, and thresholds on them.

The paper selects "face images from 300W-LP with rare occlusion and normal lighting conditions" (IV-A), 40 000 of
about 60 000, and does not say how. Here each photo is measured, and a threshold on each measure keeps or rejects
it. Scores read the texels of the chart, not the photo's pixels, so they mean the same at every size and pose.

Dimension key: S side of the chart, N texels that scores are taken over, P mirror pairs of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from bfm.charts import Chart
from bfm.morphable_model import REGIONS, MorphableModel
from texgen.texture import Texture

SATURATED = 250 / 255
"""Least value of a channel that counts as saturated."""
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the brightness of an encoded colour (ITU-R BT.601)."""

_SIDE = 64
_FEATURES, _FEATURE_COLOUR = ("eyes", "mouth"), 0.12
_DARK = 0.04
_TRIMMED = 0.1
_SPREADS = 4
_BRIGHTNESS, _TINT, _TINT_IN_SHADOW = (0.25, 0.6), (0.1, 0.25), 0.4


@dataclass(frozen=True)
class Scores:
    """What the texels of one photo tell; the colour scores are NaN where no texel is in sight.

    Attributes
    ----------
    visible_fraction : float
        Share of the chart's texels, the mouth gap aside, that the photo shows.
    yaw : float
        |yaw|, degrees.
    light_ratio : float
        How many times brighter one half of the face is than the other, at least 1; see `measure`.
    saturation : float
        Share of the visible texels with a channel of 250 / 255 or more in the photo.
    exposure : float
        Mean luminance of the visible texels in the photo, [0, 1].
    albedo_residual : float
        RMS difference between I_a and I_u over the visible texels, the worst tenth aside; RGB in [0, 1].
    skin_fraction : float
        Share of the visible skin texels that have the colour of this face's own skin; see `measure`.
    """

    visible_fraction: float
    yaw: float
    light_ratio: float
    saturation: float
    exposure: float
    albedo_residual: float
    skin_fraction: float


@dataclass(frozen=True)
class Selection:
    """Thresholds on `Scores`; None turns one off.

    Attributes
    ----------
    min_visible : float | None
        Least visible fraction.
    max_yaw : float | None
        Greatest |yaw|, degrees.
    max_light_ratio : float | None
        Greatest ratio of brightness between the halves of the face.
    max_saturation : float | None
        Greatest share of saturated texels.
    min_exposure, max_exposure : float | None
        Range of the mean luminance.
    max_albedo_residual : float | None
        Greatest difference between I_a and I_u.
    min_skin : float | None
        Least share of skin texels that look like skin.
    """

    min_visible: float | None = 0.35
    max_yaw: float | None = 70.0
    max_light_ratio: float | None = 1.8
    max_saturation: float | None = 0.15
    min_exposure: float | None = 0.1
    max_exposure: float | None = 0.85
    max_albedo_residual: float | None = 0.2
    min_skin: float | None = 0.8

    def reason(self, scores: Scores) -> str | None:
        """Return why a photo is left out, by the first threshold that it fails; None if it is taken.

        Parameters
        ----------
        scores : Scores
            From `measure`.

        Returns
        -------
        str | None
            As in "too little visible: 0.31, at least 0.45 wanted"; the kind of reason stands before the colon.
        """
        for kind, value, limit, sign in (
            ("turned too far", scores.yaw, self.max_yaw, -1),
            ("too little visible", scores.visible_fraction, self.min_visible, 1),
            ("too dark", scores.exposure, self.min_exposure, 1),
            ("too bright", scores.exposure, self.max_exposure, -1),
            ("overexposed", scores.saturation, self.max_saturation, -1),
            ("lit from one side", scores.light_ratio, self.max_light_ratio, -1),
            ("covered or odd skin", scores.skin_fraction, self.min_skin, 1),
            ("poor albedo fit", scores.albedo_residual, self.max_albedo_residual, -1),
        ):
            if limit is not None and not sign * value >= sign * limit:  # NaN is no good value either
                return f"{kind}: {value:.3g}, at {'least' if sign > 0 else 'most'} {limit:.3g} wanted"
        return None


@dataclass(frozen=True, eq=False)
class ScoreTexels:
    """The texels that scores are taken over, the same for every photo; at most about 64 x 64 of a larger chart.

    Attributes
    ----------
    surface : np.ndarray
        (N,) flat indices into the (S, S) map: in the chart and not in the mouth gap.
    skin : np.ndarray
        (N,) bool: neither eyes, brows nor mouth.
    """

    surface: np.ndarray
    skin: np.ndarray

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
        ids = chart.texel_triangles
        inside = (ids >= 0) & (ids < len(model.triangles)) & (chart.texel_barycentric >= 0).all(axis=-1)
        lattice = np.zeros_like(inside)
        lattice[step // 2::step, step // 2::step] = True
        surface = np.flatnonzero(inside & lattice)
        return cls(surface, ~_features(model, chart).ravel()[surface])


def _features(model: MorphableModel, chart: Chart) -> np.ndarray:
    """(S, S) bool: eyes, brows, lips and their surroundings, found by the colour of the mean face where it has one."""
    nearest = chart.triangles[chart.texel_triangles, chart.texel_barycentric.argmax(-1)]
    features = np.isin(model.regions[nearest], [REGIONS.index(name) for name in _FEATURES]) & chart.mask
    if model.has_albedo:
        albedo = np.moveaxis(chart.unwrap(model.mean_albedo), 0, -1)
        skin = np.median(albedo[chart.mask & ~features], axis=0)
        features &= np.abs(np.log(np.maximum(albedo, _DARK) / skin)).max(axis=-1) > _FEATURE_COLOUR
    return binary_dilation(features, iterations=max(1, chart.size // 64))


def measure(texture: Texture, linear_albedo: np.ndarray, texels: ScoreTexels, pose: np.ndarray) -> Scores:
    """Score one photo.

    Parameters
    ----------
    texture : Texture
        The photo on the chart.
    linear_albedo : np.ndarray
        (S, S, 3) I_u, RGB in [0, 1].
    texels : ScoreTexels
        Of the same chart.
    pose : np.ndarray
        (3,) pitch, yaw, roll, radians.

    Returns
    -------
    Scores
        Python floats.
    """
    colours, albedo = (array.reshape(-1, 3) for array in (texture.colours, linear_albedo))
    shading, visible = texture.shading.ravel(), texture.visible.ravel()
    in_sight = visible[texels.surface]
    seen = texels.surface[in_sight]
    yaw = abs(float(np.degrees(pose[1])))
    if not len(seen):
        return Scores(0.0, yaw, *[np.nan] * 5)
    photo, albedo, shading = colours[seen], albedo[seen], shading[seen]
    skin = np.flatnonzero(texels.skin[in_sight])
    return Scores(
        visible_fraction=float(in_sight.mean()),
        yaw=yaw,
        light_ratio=_light_ratio(photo[skin], albedo[skin], texture.normals.reshape(-1, 3)[seen[skin], 0]),
        saturation=float((photo.max(axis=1) >= SATURATED).mean()),
        exposure=float((photo @ LUMINANCE).mean()),
        albedo_residual=_residual(photo, albedo, np.maximum(shading, texture.least_shading)),
        skin_fraction=float(_skin_like(photo[skin], albedo[skin], shading[skin]).mean()) if len(skin) else np.nan,
    )


def _light_ratio(photo, albedo, facing) -> float:
    """Brightness, relative to the albedo, of the texels that face the left of the picture and of the others."""
    left = facing <= np.median(facing)
    left, right = (
        (photo[half] @ LUMINANCE).mean() / max((albedo[half] @ LUMINANCE).mean(), _DARK) for half in (left, ~left)
    )
    return float(max(left / right, right / left))


def _residual(photo, albedo, shading) -> float:
    """RMS of I_a - I_u, the worst texels aside."""
    texture = np.clip(photo / shading[:, None], 0, 1)
    squares = ((texture - albedo) ** 2).mean(axis=1)
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
