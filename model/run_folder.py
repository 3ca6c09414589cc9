"""The folder of a run: what was run, its log and curves, pictures. Every file but the log is whole or absent."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from asmgen.dataset_files import write_whole
from asmgen.writing import writing

CONFIG_NAME = "config.json"
LOG_NAME = "log.jsonl"
CURVES_NAME = "curves.png"


def describe_run(run_dir: Path, described: dict, records: Sequence[dict]):
    """Write what is run, and the records of it that there are.

    Parameters
    ----------
    run_dir : Path
        Folder of the run; made if need be.
    described : dict
        For `json_text`.
    records : Sequence[dict]
        For the log, which is replaced.
    """
    lines = "".join(json.dumps(record) + "\n" for record in records)
    write_whole(run_dir / CONFIG_NAME, json_text(described).encode())
    write_whole(run_dir / LOG_NAME, lines.encode())


class RunLog:
    """The log of a run, to which records are added, each with one call of the system.

    Parameters
    ----------
    path : Path
        The file; `os.devnull` keeps nothing.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: Any = None  # open within the context

    def __enter__(self) -> RunLog:
        self._file = open(self._path, "ab", buffering=0)
        return self

    def __exit__(self, *_):
        self._file.close()

    def add(self, record: dict):
        """Add a record; the OSError of `writing` if the disk is full."""
        line = (json.dumps(record) + "\n").encode()
        with writing(self._path):
            while line:
                line = line[self._file.write(line):]

    def synchronise(self):
        """Wait until the records are on the disk, so that a checkpoint never knows more than the log."""
        with writing(self._path):
            os.fsync(self._file.fileno())


def save_sheet(sheet: Image.Image | None, run_dir: Path, done: int):
    """Save a task's pictures, if there are any, in its run's folder, named by the steps done."""
    if sheet is not None:
        file = io.BytesIO()
        sheet.save(file, "PNG")
        write_whole(run_dir / "samples" / f"step-{done:06d}.png", file.getvalue())


def json_text(described: dict) -> str:
    """Return JSON that every reader takes: infinity, for which JSON has no number, is null (`RunConfig.from_dict`)."""
    def strict(value: object) -> object:
        if isinstance(value, dict):
            return {key: strict(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [strict(part) for part in value]
        return None if value == math.inf else value

    return json.dumps(strict(described), indent=2, allow_nan=False) + "\n"


def read_log(run_dir: Path) -> list[dict]:
    """Return the records of a run: losses (``step`` and their names), ``validation`` and ``note``, each with a step.

    Parameters
    ----------
    run_dir : Path
        Folder of a run.

    Returns
    -------
    list[dict]
        In the order of the log; a last line that a kill left half written is none of them.

    Raises
    ------
    ValueError
        If another line is damaged.
    """
    path = Path(run_dir) / LOG_NAME
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"line {number} of {path} must be a record in JSON, but is damaged; delete it") from error
    return records


def curve_panels(records: Sequence[dict]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the curves of a run: the losses, which have no unit, in one panel, and a panel for each other unit.

    Parameters
    ----------
    records : Sequence[dict]
        Of `read_log`.

    Returns
    -------
    dict[str, dict[str, list[tuple[int, float]]]]
        Title of a panel to label of a curve to its (step, value); the first title is ``losses``.
    """
    records = [record for record in records if "note" not in record]
    train = [record for record in records if "validation" not in record]
    entries = {"losses": [{k: v for k, v in record.items() if "_" not in k} for record in train]}
    measured = [{**record, **record.get("validation", {})} for record in records]
    for unit in sorted({key.rpartition("_")[2] for record in measured for key in record if "_" in key} - {"second"}):
        entries[unit] = [{k: v for k, v in r.items() if k == "step" or k.endswith(f"_{unit}")} for r in measured]
    return {
        title: {
            key.removesuffix(f"_{title}"): [(entry["step"], entry[key]) for entry in panel if key in entry]
            for key in dict.fromkeys(key for entry in panel for key in entry if key != "step")
        }
        for title, panel in entries.items()
    }


def draw_curves(run_dir: Path) -> Path:
    """Draw the losses and the validation metrics of a run over its steps.

    Parameters
    ----------
    run_dir : Path
        Folder of a run.

    Returns
    -------
    Path
        ``curves.png`` in it.
    """
    from matplotlib.figure import Figure  # a figure without pyplot needs no display and changes no global

    panels = curve_panels(read_log(run_dir))
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for label, points in curves.items():
            axes.plot(*zip(*points), label=label, marker="." if len(points) < 30 else None)
        if title == "losses":
            axes.set_yscale("log")
        else:
            axes.update_datalim([(axes.lines[0].get_xdata()[0], 0)])  # so that constant curves keep off the frame
            axes.autoscale_view()
            axes.set_ylim(bottom=0)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    file, path = io.BytesIO(), Path(run_dir) / CURVES_NAME
    figure.savefig(file, dpi=100)
    write_whole(path, file.getvalue())
    return path
