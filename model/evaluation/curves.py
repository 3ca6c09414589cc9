"""The cumulative error curve: for each NME the share of photos with less."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.evaluation.nme import LIMIT, area_under_curve


def draw_error_curves(path: Path, methods: dict[str, np.ndarray], limit: float = LIMIT) -> Path:
    """Draw the cumulative error curves of several methods.

    Parameters
    ----------
    path : Path
        PNG to write.
    methods : dict[str, np.ndarray]
        Label to (N,) NME, percent.
    limit : float
        Where the axis ends, percent.

    Returns
    -------
    Path
        The file.
    """
    from matplotlib.figure import Figure  # a figure without pyplot needs no display and changes no global

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for label, nme in methods.items():
        nme = np.sort(nme)
        below = np.concatenate([[0], nme[nme <= limit], [limit]])
        share = 100 * np.searchsorted(nme, below, side="right") / len(nme)
        axes.step(below, share, where="post", label=f"{label} (AUC {100 * area_under_curve(nme, limit):.1f} %)")
    axes.set(
        xlim=(0, limit), ylim=(0, 100), xlabel="NME of 68 landmarks, % of sqrt(w h) of their box",
        ylabel="photos with less, %",
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)  # beside the curves, wherever they lie
    figure.savefig(path, dpi=120)
    return Path(path)
