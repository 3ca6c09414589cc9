"""The errors of a prediction as colours on the scan, as in Fig. 6 of the paper.

Dimension key: N vertices of the scan.
"""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image

from asmgen.sheets import write
from bfm.render import clay_colours, portrait, vertex_normals
from model.evaluation.scan_errors import ScanErrors
from model.evaluation.scans import Scan, nose_tip
from model.picture_sheet import TILE, above

LIMIT = 5.0
"""Error, mm, from which on all is the last colour."""

OUTSIDE = 0.72
"""Grey of what is not measured."""

_COLOURS = "turbo"
_AROUND = 115.0  # mm about the nose tip: what is drawn
_BAR, _TEXT = 14, 18


def error_colours(errors: np.ndarray, limit: float = LIMIT) -> np.ndarray:
    """Return (N, 3) RGB in [0, 1] of (N,) errors, mm: 0 is the first colour, `limit` the last, NaN grey."""
    colours = colormaps[_COLOURS](np.clip(np.nan_to_num(errors) / limit, 0, 1))[:, :3]
    return np.where(np.isnan(errors)[:, None], OUTSIDE, colours)


def heatmap(measured: ScanErrors, limit: float = LIMIT) -> Image.Image:
    """Draw the errors on the scan, from the front, grey outside the common region.

    Parameters
    ----------
    measured : ScanErrors
        A scan and its distances.
    limit : float
        Error of the last colour, mm.

    Returns
    -------
    Image.Image
        RGB, of side `TILE`.
    """
    colours = error_colours(np.where(measured.common, measured.distances, np.nan), limit)
    shade = clay_colours(vertex_normals(measured.scan.vertices, measured.scan.triangles)).mean(1, keepdims=True)
    return _drawn(measured.scan, nose_tip(measured.scan), colours * (0.45 + 0.55 * np.clip(shade / 0.8, 0, 1)))


def clay_picture(mesh: Scan, scan: Scan) -> Image.Image:
    """Draw a mesh as clay from the front, as large as `heatmap` draws the scan on which it lies."""
    return _drawn(mesh, nose_tip(scan))


def with_scale(sheet: Image.Image, limit: float = LIMIT) -> Image.Image:
    """Return a sheet of heatmaps with the scale of their colours below it."""
    width = min(sheet.width, 2 * TILE)
    strip = Image.new("RGB", (sheet.width, _BAR + 2 * _TEXT), "white")
    colours = error_colours(np.linspace(0, limit, width), limit)
    bar = np.broadcast_to(np.rint(255 * colours).astype(np.uint8), (_BAR, width, 3))
    left = (sheet.width - width) // 2
    strip.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, 2))
    for place, anchor in ((0.0, "lm"), (0.5, "mm"), (1.0, "rm")):
        text = f"{place * limit:g} mm" + (" or more" if place == 1 else "")
        write(strip, (left + int(place * width), _BAR + _TEXT // 2 + 3), text, 13, anchor)
    write(strip, (left + width // 2, _BAR + _TEXT + _TEXT // 2 + 1), "grey: not measured", 12, "mm")
    return above(sheet, strip)


def _drawn(mesh: Scan, middle: np.ndarray, colours: np.ndarray | None = None) -> Image.Image:
    """What of a mesh is near a point."""
    near = np.linalg.norm(mesh.vertices - middle, axis=1) < _AROUND
    kept = mesh.triangles[near[mesh.triangles].all(1)]
    used, triangles = np.unique(kept, return_inverse=True)
    picture = portrait(
        mesh.vertices[used], triangles.reshape(-1, 3), size=TILE, extent=2 * _AROUND,
        colours=None if colours is None else colours[used],
    )
    return Image.fromarray(picture)
