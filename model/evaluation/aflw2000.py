"""AFLW2000-3D, and any photos with 68 landmarks: NME by yaw, and the errors of shape where a true one is annotated.

Most of an NME is pose, so the mean face under the true pose stands beside the methods, and pose and shape are measured
on their own (`model.evaluation.scores`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bfm.morphable_model import MorphableModel
from model.dual_stream import load_dual_stream
from model.evaluation.annotations import FaceAnnotations, read_annotations
from model.evaluation.curves import draw_error_curves
from model.evaluation.landmark_arrays import is_benchmark_folder, load_landmark_array, read_benchmark_arrays
from model.evaluation.landmark_sheet import landmark_sheet
from model.evaluation.nme import YAW_BINS, area_under_curve, by_yaw, failure_rate, landmark_nme
from model.evaluation.peers import DENSE_PEERS, LANDMARK_PEERS
from model.evaluation.report import markdown_table, run_labels, write_report
from model.evaluation.scores import SHAPE_ERRORS, Scores, score_mean_face, score_network


SHAPE_HEADING = (
    "Shape: dense NME, % of the outer interocular distance (the two alignments are not comparable), and canonical mm"
)


def evaluate_aflw2000(
    root: Path, out_dir: Path, model: MorphableModel, checkpoints: Sequence[Path] = (),
    predictions: Sequence[Path] = (), labels: Sequence[str] = (), index_base: int = 0, annotation: str = "original",
    most: int = 8, batch_size: int = 16, device: str | None = None,
) -> tuple[Path, FaceAnnotations]:
    """Score networks and given landmarks, and write ``table.md``, ``results.json``, ``curve.png`` and ``sheet.png``.

    Parameters
    ----------
    root : Path
        Photos in the layout of AFLW2000-3D or 300W-LP, or a folder of the benchmark's arrays.
    out_dir : Path
        Folder to write into.
    model : MorphableModel
        That the networks were trained on.
    checkpoints : Sequence[Path]
        Runs, see `load_dual_stream`; textures play no part.
    predictions : Sequence[Path]
        Landmarks of other methods, see `load_landmark_array`.
    labels : Sequence[str]
        Names of checkpoints, then predictions; none for those of their files.
    index_base : int
        What pixels are counted from in the predictions.
    annotation : str
        Truth among the benchmark's arrays: ``original`` or ``reannotated``.
    most : int
        Rows of the sheet at most, evenly spread over the NME of the first method; 0 draws none.
    batch_size : int
        Photos that go through a network together.
    device : str | None
        As `torch_device` takes it.

    Returns
    -------
    tuple[Path, FaceAnnotations]
        ``table.md``, and the truth, which names the photos that could not be measured.

    Raises
    ------
    ValueError
        If there is nothing to score, or not for these files.
    """
    if not checkpoints and not predictions:
        raise ValueError("there is nothing to score; give a checkpoint or predictions")
    names = run_labels([*checkpoints, *predictions], labels)
    arrays, model = is_benchmark_folder(root), model.face_only()
    if arrays and checkpoints:
        raise ValueError(f"{root} holds the benchmark's arrays without photos; give predictions only, or the photos")
    if annotation != "original" and not arrays:
        raise ValueError(f"{root} holds photos with the annotation of their own; '{annotation}' is one of the arrays")
    networks = [load_dual_stream(path, model=model, device=device) for path in checkpoints]
    truth = read_benchmark_arrays(root, annotation, model) if arrays else read_annotations(root, model)
    everything = len(truth.faces) + len(truth.failed)
    given = [load_landmark_array(path, index_base, everything)[truth.rows] for path in predictions]
    methods = [score_network(name, faces, truth, batch_size) for name, faces in zip(names, networks)]
    for name, path, landmarks in zip(names[len(networks):], predictions, given):
        described = {"predictions": Path(path).name, "index_base": index_base}
        methods.append(Scores(name, landmarks, landmark_nme(landmarks, truth.landmarks), described=described))
    methods.append(score_mean_face(truth, model))
    settings = {"annotation": annotation if arrays else "of the photos", "face_model_sha256": model.sha256}
    table = write_report(out_dir, tables(methods, truth), results(methods, truth, settings))
    draw_error_curves(Path(out_dir, "curve.png"), {method.label: method.nme for method in methods})
    if most and not arrays:
        landmark_sheet(methods, truth.faces, most).save(Path(out_dir, "sheet.png"))
    return table, truth


def tables(methods: Sequence[Scores], truth: FaceAnnotations) -> dict[str, str]:
    """Return heading to markdown: landmarks beside the peers', shape beside the peers', and what to know of them."""
    counts = by_yaw(truth.yaw, truth.yaw).counts
    bins = [f"{name} ({count})" for name, count in zip(YAW_BINS, counts)]
    rows, dense_rows = [], []
    known = any(method.faces and method.errors.keys() & SHAPE_ERRORS.keys() for method in methods)
    for method in methods:
        means = by_yaw(method.nme, truth.yaw)
        rows.append([
            method.label, *(_number(value) for value in (*means.bins, means.mean_of_bins, means.mean)),
            f"{100 * area_under_curve(method.nme):.1f}", f"{100 * failure_rate(method.nme):.1f}",
            method.mean("pose_degrees"),
        ])
        dense_rows.append([method.label, *(method.mean(name) for name in SHAPE_ERRORS)])
    return {
        "68 landmarks: NME, % of sqrt(w h) of the true landmarks' box": markdown_table(
            ["method", *bins, "mean of bins", "mean", "AUC to 10 %, %", "above 10 %, %", "pose, degrees"], rows
        ),
        **({SHAPE_HEADING: markdown_table(["method", *SHAPE_ERRORS.values()], dense_rows)} if known else {}),
        "What was measured": "\n".join(f"- {note}" for note in truth.notes()),
        "Published, 68 landmarks (AFLW2000-3D)": markdown_table(
            ["method", *YAW_BINS, "mean of bins", "annotation", "source"],
            [
                [p.method, *(p.bins or [None] * 3), p.mean_of_bins, p.annotation or "not said", p.source]
                for p in LANDMARK_PEERS
            ],
        ),
        "Published, dense NME (AFLW2000-3D), % of the outer interocular distance": markdown_table(
            ["method", "alignment", "NME", "source"],
            [[peer.method, peer.alignment or "not said", peer.nme, peer.source] for peer in DENSE_PEERS],
        ),
    }


def results(methods: Sequence[Scores], truth: FaceAnnotations, settings: dict) -> dict:
    """Return everything measured, for ``results.json``."""
    return {
        "settings": settings, "notes": truth.notes(), "failed": truth.failed,
        "methods": [
            {
                "label": method.label, **method.described, "nme_percent": by_yaw(method.nme, truth.yaw)._asdict(),
                "auc": area_under_curve(method.nme), "failure_rate": failure_rate(method.nme),
                "means": {
                    name: float(np.nanmean(values)) for name, values in method.errors.items()
                    if np.isfinite(values).any()
                },
            } for method in methods
        ],
        "photos": [
            {
                "name": face.name, "yaw_degrees": float(face.yaw), "yaw_annotated": face.yaw_annotated,
                "methods": {
                    method.label: {"nme_percent": float(method.nme[row])} | {
                        name: float(values[row]) for name, values in method.errors.items() if np.isfinite(values[row])
                    } for method in methods
                },
            } for row, face in enumerate(truth.faces)
        ],
    }


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
