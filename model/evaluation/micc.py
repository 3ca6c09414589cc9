"""Neutral faces of videos against head scans: MICC Florence (Table I and Fig. 6 of the paper), by two protocols.

``genova`` [1]_: one scale for all predictions, the geometric mean of what similarity ICP finds for each; then rigid
ICP, and the mean point-to-plane distance over the common region, on the first frontal scan that a subject has.
``per-mesh`` [2]_: similarity ICP a prediction, and the distance of every vertex of the scan within 95 mm of its nose
tip (60 mm for subject 28), of the two frontal scans the one with the smaller RMSE. Both tables give both regions and
both measures.

Departs from [2]_: the forehead is not cut off by hand; the common region leaves out what the face model lacks.
Whether [1]_ takes the first frontal scan is not published.

References
----------
.. [1] K. Genova et al., Unsupervised training for 3D morphable model regression, 2018.
.. [2] Y. Deng et al., Accurate 3D face reconstruction with weakly-supervised learning, 2019; the details are from an
   answer of its author in the issues of its repository (number 23), which tells the two protocols apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asmgen.sheets import evenly
from bfm.similarity import Similarity
from model.evaluation.alignment import CROP_RADIUS, Alignment, align
from model.evaluation.face_meshes import MESHES, Photographed, mesh_in
from model.evaluation.heatmap import clay_picture, heatmap, with_scale
from model.evaluation.micc_subjects import CONDITIONS, SMALLER_CROPS, Subject, find_subjects
from model.evaluation.report import markdown_table, write_report
from model.evaluation.scan_errors import (
    ERROR_NOTE, MEAN_COLUMNS, SPREAD_COLUMNS, ScanErrors, error_cells, scan_errors,
)
from model.evaluation.scans import Scan, read_scan
from model.evaluation.videos import video_frames
from model.picture_sheet import Cell, picture_sheet

PROTOCOLS = ("genova", "per-mesh")
_SHEET_SUBJECTS = 4
_scan = lru_cache(maxsize=2)(read_scan)  # those of a subject: its conditions follow each other

Predict = Callable[[Subject, str], tuple[Scan, dict]]
"""Subject and condition to the neutral face, and what is to be reported of it; ValueErrors say why there is none, a
`Missing` that there is nothing to predict from."""


class Missing(ValueError):
    """A part of the data that is not there, rather than damaged."""


def from_videos(photographed: Photographed, frames: int) -> Predict:
    """Return what predicts by a network: the mean neutral face of so many frames of the video."""
    def predict(subject: Subject, condition: str) -> tuple[Scan, dict]:
        if condition not in subject.videos:
            raise Missing(f"{subject.name} has no video {CONDITIONS[condition]}")
        return photographed.neutral(video_frames(subject.videos[condition], frames), f"{subject.name} {condition}")

    return predict


def from_meshes(folder: Path) -> Predict:
    """Return what reads the meshes of another method, ``<folder>/<subject>/<condition>.obj`` or ``.ply``, in mm.

    Videos are not needed. A condition that no subject has a mesh of is missing; of the others, every subject's is due.
    """
    held = {path.stem for path in Path(folder).glob("*/*") if path.suffix.lower() in MESHES}
    if not held & set(CONDITIONS):
        raise ValueError(f"{folder} holds no <subject>/<{'|'.join(CONDITIONS)}>{' or '.join(MESHES)}")

    def predict(subject: Subject, condition: str) -> tuple[Scan, dict]:
        if condition not in held:
            raise Missing(f"there is no prediction of {condition}")
        return mesh_in(Path(folder, subject.name), condition), {}

    return predict


def evaluate_micc(
    root: Path, predict: Predict, out_dir: Path, protocols: tuple[str, ...] = PROTOCOLS, settings: dict | None = None,
    progress: Callable[..., tqdm] = tqdm,
) -> tuple[Path, list[str]]:
    """Measure predictions on MICC Florence.

    Writes ``table.md``, ``results.json``, a heatmap sheet for each subject in ``heatmaps/``, and one of some subjects,
    ``heatmaps.png``.

    Parameters
    ----------
    root : Path
        The dataset, see `find_subjects`.
    predict : Predict
        `from_videos` or `from_meshes`.
    out_dir : Path
        Made if need be.
    protocols : tuple[str, ...]
        Of `PROTOCOLS`.
    settings : dict | None
        Of what predicts, for the report.
    progress : Callable[..., tqdm]
        Makes the progress bars; called as tqdm is.

    Returns
    -------
    tuple[Path, list[str]]
        ``table.md``; and a sentence for each prediction or scan that could not be measured.

    Raises
    ------
    ValueError
        If nothing could be measured.
    """
    subjects, missing = find_subjects(root)
    problems: list[str] = []
    aligned = list(_aligned(progress(subjects, "align", unit="subject"), predict, missing, problems))
    missing = list(dict.fromkeys(missing))
    if not aligned:
        raise ValueError(f"nothing under {root} could be measured: {(problems + missing)[0]}")
    scale = float(np.exp(np.mean([np.log(case.alignments[0].transform.scale) for case in aligned])))
    results, tiles = defaultdict(dict), {}
    for case in progress(aligned, "measure", unit="face"):
        for protocol in protocols:
            try:
                measured = _per_mesh(case) if protocol == "per-mesh" else _one_scale(case, scale)
            except ValueError as error:
                problems.append(f"{case.subject.name} {case.condition}, {protocol}: {error}")
                continue
            results[protocol].setdefault(case.subject.name, {})[case.condition] = {
                **measured.numbers, "scan": measured.scan.name, **case.told
            }
            row = tiles.setdefault(case.subject.name, {}).setdefault(case.condition, _first_tiles(measured, case))
            row.append(Cell(heatmap(measured), (
                "{mean_mm:.2f} mm, crop RMSE {crop_rmse_mm:.2f}".format(**measured.numbers),
            )))
    if not results:
        raise ValueError(f"nothing under {root} could be measured: {problems[0]}")
    out_dir = Path(out_dir)
    path = write_report(
        out_dir,
        {f"MICC Florence, {protocol}": _table(by_subject) for protocol, by_subject in results.items()} | {
            "Over what": _notes(aligned, results, scale, settings or {}, missing, problems)
        },
        {
            "protocol": "micc", "settings": settings or {}, "crop_mm": CROP_RADIUS, "smaller_crops_mm": SMALLER_CROPS,
            "global_scale": round(scale, 6), "subjects": results, "missing": missing, "problems": problems,
        },
    )
    _write_sheets(out_dir, tiles, protocols)
    return path, problems


@dataclass(frozen=True, eq=False)
class _Case:
    """A prediction, and how similarity ICP lays it on each frontal scan of its subject."""

    subject: Subject
    condition: str
    prediction: Scan
    told: dict
    scans: tuple[Path, ...]
    alignments: tuple[Alignment, ...]


def _aligned(
    subjects: Iterable[Subject], predict: Predict, missing: list[str], problems: list[str]
) -> Iterator[_Case]:
    """Every prediction that can be laid on a scan; why the others cannot goes into `missing` and `problems`."""
    for subject in subjects:
        scans = {}
        for path in subject.scans:
            try:
                scans[path] = read_scan(path)
            except ValueError as error:
                problems.append(str(error))
        for condition in CONDITIONS if scans else ():
            try:
                prediction, told = predict(subject, condition)
                alignments = tuple(align(prediction, scan, radius=subject.radius) for scan in scans.values())
            except Missing as error:
                missing.append(str(error))
                continue
            except ValueError as error:
                problems.append(f"{subject.name} {condition}: {error}")
                continue
            yield _Case(subject, condition, prediction, told, tuple(scans), alignments)


def _per_mesh(case: _Case) -> ScanErrors:
    """The frontal scan with the smaller RMSE over the crop."""
    measured = [
        scan_errors(case.prediction, _scan(scan), alignment, case.subject.radius)
        for scan, alignment in zip(case.scans, case.alignments)
    ]
    return min(measured, key=lambda errors: errors.numbers["crop_rmse_mm"])


def _one_scale(case: _Case, scale: float) -> ScanErrors:
    """The first scan, the prediction scaled as all are, from where similarity ICP laid its middle."""
    scan, found = _scan(case.scans[0]), case.alignments[0].transform
    middle = case.prediction.vertices.mean(0)
    start = Similarity(scale, found.rotation, found.apply(middle) - scale * found.rotation @ middle)
    alignment = align(case.prediction, scan, scale=False, start=start, radius=case.subject.radius)
    return scan_errors(case.prediction, scan, alignment, case.subject.radius)


def _table(by_subject: dict[str, dict]) -> str:
    """A row a condition."""
    rows = []
    for condition in CONDITIONS:
        measured = [conditions[condition] for conditions in by_subject.values() if condition in conditions]
        if measured:
            rows.append([condition, len(measured), *error_cells(measured)])
    return markdown_table(["condition", "subjects", *SPREAD_COLUMNS, *MEAN_COLUMNS], rows)


def _notes(
    aligned: list[_Case], results: dict, scale: float, settings: dict, missing: list[str], problems: list[str]
) -> str:
    """What the tables are over, and what not."""
    lines = [ERROR_NOTE]
    if "genova" in results:
        lines.append(
            f"genova: one scale for all, {scale:.4f}, then rigid ICP, on the first frontal scan; to be read: mean."
        )
    if "per-mesh" in results:
        lines.append(
            "per-mesh: a scale a prediction, the frontal scan with the smaller crop RMSE; to be read: crop RMSE and "
            "crop mean."
        )
    frames = [case.told["frames"] for case in aligned if "frames" in case.told]
    if frames:
        skipped = sum(len(case.told["skipped"]) for case in aligned)
        lines.append(f"A prediction is the mean of {min(frames)} to {max(frames)} frames; {skipped} showed no face.")
    if settings.get("decoupled") is False:
        lines.append("The network does not tell identity from expression: whole faces are averaged, not neutral ones.")
    return "\n".join(lines + [f"Missing: {part}." for part in missing] + [f"Not measured: {part}" for part in problems])


def _first_tiles(measured: ScanErrors, case: _Case) -> list[Cell]:
    """The scan and the prediction on it."""
    return [
        Cell(clay_picture(measured.scan, measured.scan), (f"{case.subject.name} {case.condition}",)),
        Cell(clay_picture(measured.prediction, measured.scan), ("prediction",)),
    ]


def _write_sheets(out_dir: Path, tiles: dict[str, dict[str, list[Cell]]], protocols: tuple[str, ...]) -> None:
    """A sheet a subject, and one of some of them."""
    headings = ["scan", "prediction on it", *(f"error, {protocol}" for protocol in protocols)]
    whole = {
        name: rows for name, conditions in tiles.items()
        if (rows := [row for row in conditions.values() if len(row) == len(headings)])
    }
    if not whole:
        return
    (out_dir / "heatmaps").mkdir(exist_ok=True)
    for name, rows in whole.items():
        with_scale(picture_sheet(headings, rows)).save(out_dir / "heatmaps" / f"{name}.png")
    chosen = [list(whole)[index] for index in evenly(len(whole), _SHEET_SUBJECTS)]
    with_scale(picture_sheet(headings, [row for name in chosen for row in whole[name]])).save(out_dir / "heatmaps.png")
