"""The normalised mean error of 68 landmarks, and how AFLW2000-3D averages it.

Of one photo: ``NME = 100 / 68 sum_l |p_l - t_l| / sqrt(w h)`` percent, over x and y, with w x h the box of the true
landmarks t. Of a set [1]_: the mean within each bin of |yaw|, then the mean of the three, in which 1312, 383 and 305
photos of AFLW2000-3D weigh the same; the plain mean over photos is less, as most are about frontal.

Dimension key: N photos.

References
----------
.. [1] X. Zhu et al., Face alignment across large poses: a 3D solution, CVPR 2016.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from model.metrics import landmark_errors

YAW_BINS = ("yaw to 30", "30 to 60", "above 60")
"""Degrees, of either sign; an edge belongs to the bin below it."""

_EDGES = (30, 60)

LIMIT = 10.0
"""Percent: a photo with a larger NME is a failure, and the cumulative error curve ends there."""


class YawMeans(NamedTuple):
    """Means of an error over photos.

    Attributes
    ----------
    bins : tuple[float | None, ...]
        Of each of `YAW_BINS`; None for a bin without photos.
    mean_of_bins : float | None
        Unweighted; None if a bin has no photos.
    mean : float
        Over all photos.
    counts : tuple[int, ...]
        Photos of each bin.
    """

    bins: tuple[float | None, ...]
    mean_of_bins: float | None
    mean: float
    counts: tuple[int, ...]


def landmark_nme(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the NME of each photo.

    Parameters
    ----------
    predicted : np.ndarray
        (N, 68, 2) or more x, y, pixels; what comes after y is not compared.
    truth : np.ndarray
        Likewise, counted from the same pixel: a photo whose 1-based landmarks are taken for 0-based ones is off by
        1.4 pixels.

    Returns
    -------
    np.ndarray
        (N,) float64, percent.

    Raises
    ------
    ValueError
        If the shapes are not those.
    """
    predicted, truth = (torch.as_tensor(np.asarray(points, np.float64)) for points in (predicted, truth))
    if predicted.ndim != 3 or predicted.shape[:2] != truth.shape[:2] or truth.ndim != 3 or truth.shape[1] != 68:
        raise ValueError(
            f"landmarks must have shape (N, 68, 2), got {tuple(predicted.shape)} for a truth of {tuple(truth.shape)}"
        )
    return landmark_errors(predicted[..., :2], truth[..., :2])["landmark_percent"].numpy()


def by_yaw(errors: np.ndarray, yaw_degrees: np.ndarray) -> YawMeans:
    """Return the means of an error by yaw.

    Parameters
    ----------
    errors : np.ndarray
        (N,) any unit, at least one.
    yaw_degrees : np.ndarray
        (N,) of either sign.

    Returns
    -------
    YawMeans
        In the unit of the errors.
    """
    which = np.digitize(np.abs(yaw_degrees), _EDGES, right=True)
    groups = [np.asarray(errors, np.float64)[which == place] for place in range(len(YAW_BINS))]
    bins = tuple(float(group.mean()) if len(group) else None for group in groups)
    mean_of_bins = None if None in bins else sum(bins) / len(bins)
    return YawMeans(bins, mean_of_bins, float(np.mean(errors)), tuple(map(len, groups)))


def area_under_curve(nme: np.ndarray, limit: float = LIMIT) -> float:
    """Return the area under the cumulative error curve up to a limit over that of a perfect method, in [0, 1].

    The curve is the share of photos with an NME below each value; exact, not by a sum over steps.
    """
    return float(np.clip(1 - np.asarray(nme, np.float64) / limit, 0, None).mean())


def failure_rate(nme: np.ndarray, limit: float = LIMIT) -> float:
    """Return the share of photos, in [0, 1], with an NME above a limit, percent."""
    return float((np.asarray(nme) > limit).mean())
