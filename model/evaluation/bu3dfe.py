"""Faces with expression against scans: BU-3DFE (Fig. 9 of the paper).

The face in the frontal picture of a scan, identity and expression, is laid onto the scan by similarity ICP. The error
is the mean point-to-plane distance of the scan's vertices from it, within 95 mm of the scan's nose tip and where the
prediction has a surface before or behind them, over the scan's outer interocular distance:
``NME = 100 mean |(p - q) . n| / |e_right - e_left|`` percent. The paper names the normalised error and ICP; crop and
region are those of MICC's protocols, since it gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from asmgen.sheets import evenly
from model.evaluation.alignment import CROP_RADIUS, align
from model.evaluation.face_meshes import MESHES, Photographed, mesh_in
from model.evaluation.heatmap import clay_picture, heatmap, with_scale
from model.evaluation.report import markdown_table, mean_and_spread, write_report
from model.evaluation.scan_errors import (
    ERROR_NOTE, MEAN_COLUMNS, SPREAD_COLUMNS, ScanErrors, error_cells, scan_errors,
)
from model.evaluation.scans import Scan, interocular_distance, read_scan
from model.picture_sheet import TILE, Cell, above, picture_sheet

EXPRESSIONS = {
    "NE": "neutral", "AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happy", "SA": "sad", "SU": "surprise",
}
"""In the order of Fig. 9."""

LEVELS = (1, 2, 3, 4)

_NAME = re.compile(r"([FM]\d{4})_(" + "|".join(EXPRESSIONS) + r")(\d\d)([A-Z]{2})_F3D", re.IGNORECASE)
_SHEET_PEOPLE = 2

Predict = Callable[["Entry"], Scan]
"""A scan's entry to the predicted face; ValueErrors say why there is none."""


@dataclass(frozen=True)
class Entry:
    """A scan of the dataset.

    Attributes
    ----------
    path : Path
        Its ``.wrl``.
    person, expression : str
        ``F0001``; one of `EXPRESSIONS`.
    level : int
        0 neutral, 1 to 4 the full expression.
    """

    path: Path
    person: str
    expression: str
    level: int

    @property
    def name(self) -> str:
        """``F0001_AN01WH``."""
        return self.path.stem[:-len("_F3D")]

    @property
    def picture(self) -> Path:
        """The frontal picture, beside the scan."""
        return self.path.with_name(f"{self.name}_F2D.bmp")


def find_scans(root: Path, levels: Sequence[int] = LEVELS) -> tuple[list[Entry], list[str]]:
    """List the scans of BU-3DFE, and what is missing.

    Parameters
    ----------
    root : Path
        With ``F0001/F0001_AN01WH_F3D.wrl``, ...: sex and person, expression, level, ethnicity.
    levels : Sequence[int]
        Which levels to take; neutral faces, level 0, are always taken.

    Returns
    -------
    tuple[list[Entry], list[str]]
        Sorted; and for each person without a scan of some of the expressions at these levels, a sentence.

    Raises
    ------
    ValueError
        If there is no such scan.
    """
    entries = []
    for path in sorted(Path(root).rglob("*.wrl")):
        named = _NAME.fullmatch(path.stem)
        if named and (level := int(named[3])) in (0, *levels):
            entries.append(Entry(path, named[1], named[2].upper(), level))
    if not entries:
        raise ValueError(
            f"{root} holds no scan of the levels {', '.join(map(str, levels))}; give the folder of BU-3DFE that holds "
            "F0001/F0001_AN01WH_F3D.wrl and the others"
        )
    wanted = [("NE", 0), *((code, level) for code in EXPRESSIONS if code != "NE" for level in levels)]
    missing = []
    for person in dict.fromkeys(entry.person for entry in entries):
        there = {(entry.expression, entry.level) for entry in entries if entry.person == person}
        lacking = [f"{code}{level:02d}" for code, level in wanted if (code, level) not in there]
        if lacking:
            missing.append(f"{person} has no scan {', '.join(lacking)}")
    return entries, missing


def from_pictures(photographed: Photographed) -> Predict:
    """Return what predicts by a network: the whole face in the scan's picture."""
    return lambda entry: photographed.whole(entry.picture, entry.name)


def from_meshes(folder: Path) -> Predict:
    """Return what reads the meshes of another method, ``<folder>/<person>/F0001_AN01WH.obj`` or ``.ply``, in mm."""
    if not any(path.suffix.lower() in MESHES for path in Path(folder).glob("*/*")):
        raise ValueError(f"{folder} holds no <person>/<scan>{' or '.join(MESHES)}")
    return lambda entry: mesh_in(Path(folder, entry.person), entry.name)


def evaluate_bu3dfe(
    root: Path, predict: Predict, out_dir: Path, levels: Sequence[int] = LEVELS, settings: dict | None = None,
    progress: Callable[..., tqdm] = tqdm,
) -> tuple[Path, list[str]]:
    """Measure predictions on BU-3DFE.

    Writes ``table.md``, ``results.json``, the bars of Fig. 9, ``expressions.png``, and heatmaps of some people at their
    highest level, ``heatmaps.png``.

    Parameters
    ----------
    root : Path
        The dataset, see `find_scans`.
    predict : Predict
        `from_pictures` or `from_meshes`.
    out_dir : Path
        Made if need be.
    levels : Sequence[int]
        Of the expressions, 1 to 4.
    settings : dict | None
        Of what predicts, for the report.
    progress : Callable[..., tqdm]
        Makes the progress bars; called as tqdm is.

    Returns
    -------
    tuple[Path, list[str]]
        ``table.md``; and a sentence for each scan that could not be measured.

    Raises
    ------
    ValueError
        If none could be.
    """
    entries, missing = find_scans(root, levels)
    people = list(dict.fromkeys(entry.person for entry in entries))
    shown = {people[index] for index in evenly(len(people), _SHEET_PEOPLE)}
    results, problems, tiles = {}, [], {}
    for entry in progress(entries, unit="scan"):
        try:
            scan = read_scan(entry.path)
            eyes = interocular_distance(scan)
            prediction = predict(entry)
            measured = scan_errors(prediction, scan, align(prediction, scan))
        except ValueError as error:
            problems.append(f"{entry.name}: {error}")
            continue
        results[entry.name] = {
            "person": entry.person, "expression": entry.expression, "level": entry.level,
            "nme_percent": round(100 * measured.numbers["mean_mm"] / eyes, 5), "interocular_mm": round(eyes, 4),
            **measured.numbers,
        }
        if entry.person in shown and entry.level in (0, max(levels)):
            tiles.setdefault(entry.person, {})[entry.expression] = _cell(measured, results[entry.name])
    if not results:
        raise ValueError(f"nothing under {root} could be measured: {problems[0]}")
    out_dir = Path(out_dir)
    notes = [
        "NME: mean over the outer interocular distance of the scan.", ERROR_NOTE,
        f"{len(results)} scans of {len({one['person'] for one in results.values()})} people; levels "
        f"{', '.join(map(str, levels))} of the expressions.",
        *(f"Missing: {part}." for part in missing), *(f"Not measured: {part}" for part in problems),
    ]
    path = write_report(out_dir, {
        "BU-3DFE (Fig. 9)": _table(results), "NME by level, percent": _level_table(results),
        "Over what": "\n".join(notes),
    }, {
        "protocol": "bu3dfe", "settings": settings or {}, "levels": list(levels), "crop_mm": CROP_RADIUS,
        "scans": results, "missing": missing, "problems": problems,
    })
    _draw_bars(results, out_dir / "expressions.png")
    if tiles:
        blank = Cell(Image.new("RGB", (TILE, TILE), "white"))
        rows = [[cells.get(code, blank) for code in EXPRESSIONS] for cells in tiles.values()]
        with_scale(picture_sheet(list(EXPRESSIONS.values()), rows)).save(out_dir / "heatmaps.png")
    return path, problems


def _of(results: dict[str, dict], expression: str, *levels: int) -> list[dict]:
    """The measured scans of an expression, of all levels or of some."""
    return [
        one for one in results.values()
        if one["expression"] == expression and (not levels or one["level"] in levels)
    ]


def _table(results: dict[str, dict]) -> str:
    """A row an expression, and one of all."""
    rows = []
    for name, measured in (
        *((f"{code} {name}", _of(results, code)) for code, name in EXPRESSIONS.items()), ("all", [*results.values()]),
    ):
        if measured:
            nme = mean_and_spread(one["nme_percent"] for one in measured)
            rows.append([name, len(measured), nme, *error_cells(measured)])
    return markdown_table(["expression", "scans", "NME, %", *SPREAD_COLUMNS, *MEAN_COLUMNS], rows)


def _level_table(results: dict[str, dict]) -> str:
    """A row an expression, a column a level."""
    levels = sorted({one["level"] for one in results.values()})
    rows = []
    for code, name in EXPRESSIONS.items():
        cells = [[one["nme_percent"] for one in _of(results, code, level)] for level in levels]
        rows.append([f"{code} {name}", *(mean_and_spread(cell) if cell else None for cell in cells)])
    return markdown_table(["expression", *(f"level {level}" for level in levels)], rows)


def _draw_bars(results: dict[str, dict], path: Path) -> None:
    """Fig. 9: the mean NME of each expression, with its standard deviation over scans."""
    from matplotlib.figure import Figure  # a figure without pyplot needs no display and changes no global

    nme = {name: [one["nme_percent"] for one in _of(results, code)] for code, name in EXPRESSIONS.items()}
    nme = {name: values for name, values in nme.items() if values}
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.bar(list(nme), [np.mean(values) for values in nme.values()], width=0.6, capsize=4,
             yerr=[np.std(values, ddof=1) if len(values) > 1 else 0 for values in nme.values()])
    axes.set(ylabel="error over the interocular distance, %", title="BU-3DFE, mean +- standard deviation over scans")
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=100)


def _cell(measured: ScanErrors, numbers: dict) -> Cell:
    """The scan, the prediction on it, and the errors on the scan."""
    scan = measured.scan
    faces = above(clay_picture(scan, scan), clay_picture(measured.prediction, scan))
    text = "{nme_percent:.2f} %, {mean_mm:.2f} mm".format(**numbers)
    return Cell(above(faces, heatmap(measured)), ("{person} {expression}".format(**numbers), text))
