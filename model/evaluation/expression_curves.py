"""Errors of the expression stress by unit and by magnitude: means of groups of photos, and the figure.

Dimension key: N photos, P groups of a unit.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.evaluation.expression_errors import ExpressionPhotos

SLOPES = ("recovered", "leaked")
"""Measures that are pooled over photos; of all others the mean is taken."""

MAGNITUDE_EDGES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Millimetres: a bin is above its edge, up to the next one; photos without expression are a bin of their own."""


class Curve(NamedTuple):
    """A measure over the expression's magnitude.

    Attributes
    ----------
    magnitude : np.ndarray
        (P,) mean of each group of photos, mm, increasing.
    mean : np.ndarray
        (P,) of the measure.
    band : np.ndarray
        (P,) how far it may be off, such as its standard error.
    """

    magnitude: np.ndarray
    mean: np.ndarray
    band: np.ndarray


def magnitude_groups(photos: ExpressionPhotos) -> dict[str, np.ndarray]:
    """Return the indices of the photos of each bin of `MAGNITUDE_EDGES` that has any, by its name."""
    names = ["0 mm"] + [f"{low:g} to {high:g} mm" for low, high in zip(MAGNITUDE_EDGES, MAGNITUDE_EDGES[1:])]
    names.append(f"above {MAGNITUDE_EDGES[-1]:g} mm")
    bins = np.digitize(photos.magnitudes, MAGNITUDE_EDGES, right=True)
    return {name: np.flatnonzero(bins == place) for place, name in enumerate(names) if (bins == place).any()}


def unit_groups(photos: ExpressionPhotos) -> dict[str, dict[str, np.ndarray]]:
    """Return the indices of the photos of each unit, by strength; of other photos, by magnitude."""
    units = np.array(photos.units)
    if np.isnan(photos.strengths).any():
        splits = magnitude_groups(photos)
    else:
        strengths = np.unique(photos.strengths)
        splits = {f"{strength:.0f} %": np.flatnonzero(photos.strengths == strength) for strength in strengths}
    groups = {unit: {name: split[units[split] == unit] for name, split in splits.items()} for unit in np.unique(units)}
    return {unit: {name: group for name, group in found.items() if len(group)} for unit, found in groups.items()}


def group_mean(photos: ExpressionPhotos, name: str, values: np.ndarray, group: Iterable[int]) -> float | None:
    """Return a measure over a group of photos: the mean, or the pooled slope, of those that have it; None of none.

    Parameters
    ----------
    photos : ExpressionPhotos
        All of them.
    name : str
        Of the measure.
    values : np.ndarray
        (N,) as `ExpressionPhotos.measure` returns it.
    group : Iterable[int]
        Indices of the group.

    Returns
    -------
    float | None
        In the unit of the measure.
    """
    known = [index for index in group if np.isfinite(values[index])]
    weights = photos.weights[known] if name in SLOPES else None
    return float(np.average(values[known], weights=weights)) if known else None


def unit_curves(photos: ExpressionPhotos, name: str, values: np.ndarray) -> dict[str, Curve]:
    """Return a measure over the magnitude, by unit, with its standard error over photos; arguments of `group_mean`."""
    curves = {}
    for unit, groups in unit_groups(photos).items():
        points = []
        for group in groups.values():
            known = group[np.isfinite(values[group])]
            if len(known):
                error = values[known].std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else 0.0
                points.append((photos.magnitudes[known].mean(), group_mean(photos, name, values, known), error))
        if points:
            curves[unit] = Curve(*np.array(points).T)
    return curves


def draw_expression_curves(path: Path, rows: dict[str, dict[str, dict[str, Curve]]], baseline: str = "") -> Path:
    """Draw measures over the expression's magnitude, a panel a unit and a line a method.

    Parameters
    ----------
    path : Path
        PNG to write.
    rows : dict[str, dict[str, dict[str, Curve]]]
        Of each row of panels, by the name of its axis: curves by method, then by unit.
    baseline : str
        The method that is drawn dashed; empty for none.

    Returns
    -------
    Path
        The file.
    """
    from matplotlib.figure import Figure  # a figure without pyplot needs no display and changes no global

    units = list(dict.fromkeys(unit for methods in rows.values() for curves in methods.values() for unit in curves))
    figure = Figure(figsize=(2.9 * len(units) + 0.6, 2.7 * len(rows) + 0.3), layout="constrained")
    panels = figure.subplots(len(rows), len(units), squeeze=False)
    for line, (heading, methods) in zip(panels, rows.items()):
        for axes, unit in zip(line, units):
            colours = (f"C{place}" for place in range(len(methods)))
            for label, curves in methods.items():
                colour, style = ("black", "--") if label == baseline else (next(colours), "-")
                if unit in curves:
                    x, mean, band = curves[unit]
                    axes.plot(x, mean, color=colour, linestyle=style, marker=".", label=label)
                    axes.fill_between(x, mean - band, mean + band, color=colour, alpha=0.2, linewidth=0)
            axes.set(title=unit.replace("_", " "), xlabel="magnitude of the expression, mm")
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
            axes.grid(alpha=0.3)
        line[0].set_ylabel(heading)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=110)
    return Path(path)
