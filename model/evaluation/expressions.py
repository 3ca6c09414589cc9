"""The expression stress of several networks: tables by magnitude and unit, and errors drawn over the expression.

The paper's central claim is that two maps, of identity and of expression, hold strong expressions better than one;
`expression_errors` says what is measured. Beside the networks stands a baseline, the true faces without expressions:
what a network reaches at best that ignores them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bfm.morphable_model import MorphableModel
from model.checkpoint import weights_sha256
from model.dual_stream import load_dual_stream
from model.evaluation.expression_curves import (
    draw_expression_curves, group_mean, magnitude_groups, unit_curves, unit_groups,
)
from model.evaluation.expression_errors import ALL, MEASURES, ExpressionPhotos
from model.evaluation.report import markdown_table, run_labels, write_report

IGNORED = "expression ignored"
"""The baseline's label."""

DRAWN = ("full_mm", "region_mm", "recovered")
BY_UNIT = ("region_mm", "full_mm", "nme_percent", "recovered")
"""Measures that have a table by unit and strength."""

Errors = dict[str, dict[str, np.ndarray]]
"""Errors of all photos, by method, then by measure."""


def evaluate_expressions(
    root: Path, checkpoints: Sequence[Path], out_dir: Path, model: MorphableModel, labels: Sequence[str] = (),
    batch_size: int = 16, device: str | None = None,
) -> tuple[Path, list[str]]:
    """Measure networks on expressions of known strength, and write ``table.md``, ``results.json``, ``expressions.png``.

    Parameters
    ----------
    root : Path
        See `ExpressionPhotos`.
    checkpoints : Sequence[Path]
        Runs, see `load_dual_stream`; textures play no part.
    out_dir : Path
        Folder to write into.
    model : MorphableModel
        That the networks were trained on.
    labels : Sequence[str]
        Names of the checkpoints; none for those of their folders.
    batch_size : int
        Photos that go through a network together.
    device : str | None
        As `torch_device` takes it.

    Returns
    -------
    tuple[Path, list[str]]
        ``table.md``, and why photos could not be measured, a sentence each. Errors of files are those of
        `ExpressionPhotos` and `load_dual_stream`, of labels those of `run_labels`.
    """
    names = run_labels(checkpoints, labels)
    networks = [load_dual_stream(path, model=model, device=device) for path in checkpoints]
    photos = ExpressionPhotos(root, model)
    errors = {IGNORED: photos.measure(photos.ignoring)}
    for name, faces in zip(names, networks):
        errors[name] = photos.measure(photos.predictor(faces, batch_size))
    runs = {
        name: {"kind": faces.metadata["kind"], "weights_sha256": weights_sha256(faces.network)}
        for name, faces in zip(names, networks)
    }
    table = write_report(out_dir, expression_tables(photos, errors), expression_results(photos, errors, runs))
    draw_expression_curves(Path(out_dir, "expressions.png"), {
        MEASURES[name]: {label: unit_curves(photos, name, values[name]) for label, values in errors.items()}
        for name in DRAWN if np.isfinite(errors[IGNORED][name]).any()
    }, IGNORED)
    return table, photos.failed


def expression_tables(photos: ExpressionPhotos, errors: Errors) -> dict[str, str]:
    """Return heading to markdown: all photos, then each measure by magnitude, then by unit and strength."""
    def cells(name: str, group: Iterable[int]) -> list[str | None]:
        means = (group_mean(photos, name, values[name], group) for values in errors.values())
        return [None if mean is None else f"{mean:.3f}" for mean in means]

    everyone = range(len(photos.faces))
    overall = zip(*(cells(name, everyone) for name in MEASURES))
    tables = {
        "All photos": markdown_table(["", *MEASURES.values()], [[name, *row] for name, row in zip(errors, overall)]),
        "What was measured": "\n".join(f"- {note}" for note in notes(photos)),
    }
    for name, heading in MEASURES.items():
        tables[f"By magnitude: {heading}"] = markdown_table(
            ["magnitude", "photos", *errors],
            [[bin_, len(group), *cells(name, group)] for bin_, group in magnitude_groups(photos).items()],
        )
    for name in BY_UNIT if ALL not in photos.units else ():
        rows = []
        for unit, groups in unit_groups(photos).items():
            rows += [[unit, strength, len(group), *cells(name, group)] for strength, group in groups.items()]
            whole = np.concatenate(list(groups.values()))
            rows.append([unit, "all", len(whole), *cells(name, whole)])
        tables[f"By unit: {MEASURES[name]}"] = markdown_table(["unit", "strength", "photos", *errors], rows)
    return tables


def notes(photos: ExpressionPhotos) -> list[str]:
    """Return what a reader of the numbers must know, a sentence each."""
    people = len(set(photos.people) - {""})
    found = [
        f"{len(photos.faces)} photos, expressions of up to {photos.magnitudes.max():.2f} mm, mean over the vertices.",
        f"'{IGNORED}' is the true face without its expression.",
        "The moved region holds the vertices that the true expression moves by over 20 % of its largest displacement.",
    ]
    if people:
        found.append(f"They are of {people} people with seeds of their own: no training set has them.")
        found.append(
            "Recovered is the slope of the predicted on the true displacement from the same person's photos at rest: 1 "
            "is all of the expression, 0 none; leaked is the same slope of the predicted neutral face."
        )
    if photos.failed:
        found.append(f"{len(photos.failed)} photos could not be measured.")
    return found


def expression_results(photos: ExpressionPhotos, errors: Errors, runs: dict[str, dict]) -> dict:
    """Return everything measured, for ``results.json``."""
    def means(group: Iterable[int]) -> dict[str, dict[str, float | None]]:
        return {
            label: {name: group_mean(photos, name, values[name], group) for name in MEASURES}
            for label, values in errors.items()
        }

    return {
        "face_model_sha256": photos.model.sha256, "runs": runs, "notes": notes(photos), "failed": photos.failed,
        "all": means(range(len(photos.faces))),
        "by_magnitude": {
            name: {"photos": len(group), **means(group)} for name, group in magnitude_groups(photos).items()
        },
        "by_unit": {
            unit: {name: {"photos": len(group), **means(group)} for name, group in groups.items()}
            for unit, groups in unit_groups(photos).items()
        },
        "photos": [
            {
                "name": face.name, "magnitude_mm": float(photos.magnitudes[row]),
                "methods": {
                    label: {name: float(value[row]) for name, value in values.items() if np.isfinite(value[row])}
                    for label, values in errors.items()
                },
            } for row, face in enumerate(photos.faces)
        ],
    }
