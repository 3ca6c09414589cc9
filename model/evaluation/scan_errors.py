"""How far a scan is from the face laid onto it: what MICC's and BU-3DFE's protocols count.

Dimension key: N vertices of the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from model.evaluation.alignment import CROP_RADIUS, Alignment, surface_distances
from model.evaluation.report import mean_and_spread
from model.evaluation.scans import Scan, nose_tip


@dataclass(frozen=True, eq=False)
class ScanErrors:
    """Distances of a scan from an aligned prediction.

    Attributes
    ----------
    scan : Scan
        What was measured.
    prediction : Scan
        Moved onto the scan.
    alignment : Alignment
        How it was moved.
    distances : np.ndarray
        (N,) mm, point to plane (`surface_distances`).
    cropped : np.ndarray
        (N,) bool, the vertices within the crop.
    common : np.ndarray
        (N,) bool, those of them that the prediction has a surface for.
    """

    scan: Scan
    prediction: Scan
    alignment: Alignment
    distances: np.ndarray
    cropped: np.ndarray
    common: np.ndarray

    @cached_property
    def numbers(self) -> dict:
        """Mean and root mean square over the common region and over the whole crop, mm; and what part is common."""
        regions = {"": self.common, "crop_": self.cropped}
        measured = {}
        for prefix, region in regions.items():
            distances = self.distances[region]
            measured[f"{prefix}mean_mm"] = float(distances.mean())
            measured[f"{prefix}rmse_mm"] = float(np.sqrt((distances**2).mean()))
        measured["common_percent"] = 100 * float(self.common.sum() / self.cropped.sum())
        return {name: round(value, 5) for name, value in measured.items()} | self.alignment.quality()


def scan_errors(
    prediction: Scan, scan: Scan, alignment: Alignment, radius: float = CROP_RADIUS
) -> ScanErrors:
    """Measure a scan against a prediction laid onto it.

    The error of a vertex is its point-to-plane distance from the prediction. Two regions are told apart, because the
    protocols differ there: the whole crop (Deng et al. count every vertex in it), and the common region, the vertices
    that have the prediction's surface before or behind them (Genova et al. count the intersection); what is left out
    there is mostly neck, hair and ears.

    Parameters
    ----------
    prediction : Scan
        In its own axes.
    scan : Scan
        The head.
    alignment : Alignment
        Of the one with the other.
    radius : float
        Of the crop about the scan's nose tip, mm.

    Returns
    -------
    ScanErrors
        A distance for every vertex of the scan.

    Raises
    ------
    ValueError
        If no vertex of the crop has the prediction before or behind it.
    """
    moved = replace(prediction, vertices=alignment.transform.apply(prediction.vertices))
    distances, faced = surface_distances(scan.vertices, moved)
    cropped = np.linalg.norm(scan.vertices - nose_tip(scan), axis=1) < radius
    common = cropped & faced
    if not common.any():
        raise ValueError(f"{prediction.name} has no surface before or behind {scan.name}; look at their alignment")
    return ScanErrors(scan, moved, alignment, distances, cropped, common)


SPREAD_COLUMNS = {
    "mean, mm": "mean_mm", "RMSE, mm": "rmse_mm", "crop mean, mm": "crop_mean_mm", "crop RMSE, mm": "crop_rmse_mm",
}
MEAN_COLUMNS = {
    "common, %": ("common_percent", 1), "scale": ("scale", 4), "landmarks, mm": ("landmark_distance_mm", 2),
    "inliers": ("fitness", 3), "inlier RMSE, mm": ("inlier_rmse_mm", 2),
}
"""Heading of a table to the name among the numbers; of the alignment's quality the mean, with so many digits."""


def error_cells(measured: Sequence[dict]) -> list[str | None]:
    """Return the cells of a row under `SPREAD_COLUMNS`, mean +- std, and `MEAN_COLUMNS`, for numbers of some scans."""
    def known(name: str) -> list[float]:
        return [one[name] for one in measured if one.get(name) is not None]

    cells = [mean_and_spread(known(name)) if known(name) else None for name in SPREAD_COLUMNS.values()]
    return cells + [
        f"{np.mean(known(name)):.{digits}f}" if known(name) else None for name, digits in MEAN_COLUMNS.values()
    ]


ERROR_NOTE = (
    "mean and RMSE are over the region that scan and prediction have in common, \"crop\" over all of the scan's "
    "vertices in the crop; mean +- standard deviation over scans. Landmarks and inliers (within 10 mm, of what took "
    "part in ICP) tell how well the one was laid onto the other."
)
