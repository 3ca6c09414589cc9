"""What every measurement writes: tables in markdown, and all its numbers as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from asmgen.dataset_files import write_whole
from model.checkpoint import CHECKPOINT_NAME
from model.run_folder import json_text


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in markdown, its columns aligned as plain text too.

    Parameters
    ----------
    headings : Sequence[str]
        Of the columns.
    rows : Sequence[Sequence[object]]
        Cells, as many a row as there are headings: text or numbers, written as ``str`` writes them; None is "-", for
        what was not measured.

    Returns
    -------
    str
        Lines without a newline at the end.

    Raises
    ------
    ValueError
        If a row has another number of cells.
    """
    table = []
    for row in [headings, *rows]:
        if len(row) != len(headings):
            raise ValueError(f"a row must have {len(headings)} cells, as the headings, got {len(row)}: {list(row)}")
        table.append(["-" if cell is None else str(cell).replace("|", "\\|") for cell in row])
    widths = [max(3, *map(len, column)) for column in zip(*table)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in table]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def mean_and_spread(values: Iterable[float], decimals: int = 2) -> str:
    """Return the mean of values +- their standard deviation.

    Parameters
    ----------
    values : Iterable[float]
        At least one, finite.
    decimals : int
        Digits after the point.

    Returns
    -------
    str
        As ``1.23 +- 0.04``; of one value the mean alone. The standard deviation is that of a sample (n - 1).
    """
    values = [float(value) for value in values]
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} +- {statistics.stdev(values):.{decimals}f}"


def run_labels(paths: Sequence[Path], labels: Sequence[str] = ()) -> list[str]:
    """Return what runs, and files, are called in tables and figures.

    Parameters
    ----------
    paths : Sequence[Path]
        Folders of runs, checkpoints in them, or other files.
    labels : Sequence[str]
        One for each, in order; none for the names of the runs' folders and of the files.

    Returns
    -------
    list[str]
        Distinct.

    Raises
    ------
    ValueError
        If the labels are not as many, or two would be alike.
    """
    if labels and len(labels) != len(paths):
        raise ValueError(f"labels must be one for each of the {len(paths)} runs and files, in order, got {len(labels)}")
    paths = [Path(path).resolve() for path in paths]
    folders = [path.parent if path.name == CHECKPOINT_NAME else path for path in paths]
    labels = list(labels) or [path.name if path.is_dir() else path.stem for path in folders]
    alike = next((label for label in labels if labels.count(label) > 1), None)
    if alike is not None:
        raise ValueError(f"labels must differ, got '{alike}' twice; give each its own (--label)")
    return labels


def write_report(out_dir: Path, tables: dict[str, str], results: dict) -> Path:
    """Write what was measured.

    Parameters
    ----------
    out_dir : Path
        Folder, made if need be; files of the same names are replaced, whole ones by whole ones.
    tables : dict[str, str]
        Heading to a table or a paragraph, markdown, in order.
    results : dict
        Settings, files and their hashes, values a photo and their means: whatever JSON holds; no dates, so that the
        same measurement gives the same bytes.

    Returns
    -------
    Path
        ``table.md`` in the folder; ``results.json`` lies beside it.
    """
    text = "\n\n".join(f"## {heading}\n\n{table}" for heading, table in tables.items()) + "\n"
    write_whole(Path(out_dir, "results.json"), json_text(results).encode())
    path = Path(out_dir, "table.md")
    write_whole(path, text.encode())
    return path
