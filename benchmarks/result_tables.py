"""Files of results: runs of variants from several seeds as JSON, merged and as a markdown table.

    python benchmarks/result_tables.py merge a.json b.json -o table.json
    python benchmarks/result_tables.py show table.json
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from asmgen.dataset_files import write_whole
from model.evaluation.report import markdown_table, mean_and_spread
from model.run_folder import json_text

TABLES = "geometry_table.py, texture_table.py and fusion_table.py"


class Column(NamedTuple):
    """A column of a table: which number of a row, its decimals, and which one stands in the row of the start."""

    key: str
    digits: int = 2
    start: str = ""


def merged(reports: Sequence[dict]) -> dict:
    """Return one report of several of the same table, with the last one's columns.

    Reports of other settings, and runs that two of them hold, are refused with click's exception.
    """
    first, *others = copy.deepcopy(list(reports))
    for other in others:
        settings = [(key, first[key], other[key]) for key in ("same", "minutes")]
        settings += [(name, first["variants"].get(name, config), config) for name, config in other["variants"].items()]
        for key, wanted, got in settings:
            if wanted != got:
                raise click.ClickException(
                    "runs of one table must have the same settings and data; they differ in "
                    f"{key}: {_difference(wanted, got)}; name another file"
                )
        first |= {key: other[key] for key in ("columns", "start")}
        first["variants"] |= other["variants"]
        for name, rows in other["results"].items():
            ours = first["results"].setdefault(name, {})
            for seed, row in rows.items():
                if seed in ours:
                    raise click.ClickException(f"{name} of seed {seed} is in two of the files; leave one out")
                ours[seed] = {**row, "call": row["call"] + len(first["calls"])}
        first["calls"] += other["calls"]
    return first


def _difference(wanted: object, got: object) -> str:
    if isinstance(wanted, dict) and isinstance(got, dict):
        key = next(key for key in {**wanted, **got} if wanted.get(key) != got.get(key))
        return f"{key}: " + _difference(wanted.get(key), got.get(key))
    return f"{wanted} and {got}"


def read_report(file: Path) -> dict:
    """Return the report in a JSON file; click's exception if it holds something else."""
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        report = None
    if not isinstance(report, dict) or "calls" not in report:
        raise click.ClickException(f"{file} must be a JSON file of a table's runs, as {TABLES} write it with -o")
    return report


def write_report(report: dict, output: Path):
    """Replace the JSON file by one of this report, never by half of it."""
    write_whole(output, json_text(report).encode())


def table(report: dict) -> str:
    """Return the markdown table: mean +- standard deviation over seeds, how many; what no run measures is left out."""
    rows = {name: list(rows.values()) for name, rows in report["results"].items() if rows}
    whole = {name: [row for row in found if "collapsed" not in row] for name, found in rows.items()}
    columns = {heading: Column(*column) for heading, column in report["columns"].items()}
    measured = {key for found in whole.values() for row in found for key in row}
    columns = {heading: column for heading, column in columns.items() if column.key in measured}

    def cell(found: list[dict], key: str, digits: int, given: bool) -> str | None:
        values = [row[key] for row in found if row.get(key) is not None]
        if given and len(set(values)) == 1:  # such as steps
            values = values[:1]
        return mean_and_spread(values, digits) if values else None

    lines = []
    if report["start"] and rows:
        first = next(iter(rows.values()))
        cells = (cell(first, each.start, each.digits, True) for each in columns.values())
        lines.append([report["start"], None, *cells])
    for name, found in rows.items():
        collapsed = len(found) - len(whole[name])
        count = f"{len(whole[name])}" + (f" ({collapsed} collapsed)" if collapsed else "")
        cells = (cell(whole[name], each.key, each.digits, each.digits == 0) for each in columns.values())
        lines.append([name, count, *cells])
    return markdown_table(["variant", "seeds", *columns], lines)


@click.group()
def main():
    """Put tables together and print them."""


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="JSON file.")
def merge(files: tuple[Path, ...], output: Path):
    """Write the runs of FILES, of one table, into one file."""
    report = merged([read_report(file) for file in files])
    write_report(report, output)
    click.echo(table(report))


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def show(file: Path):
    """Print the table in FILE."""
    click.echo(table(read_report(file)))


if __name__ == "__main__":
    main()
