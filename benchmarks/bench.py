"""All benchmarks of operations, as one table: what `make bench` prints and keeps.

Runs the ``measure(quick)`` of each ``bm_*.py`` in a process of its own, so that none has another's threads or memory.
It returns rows of an operation, a named baseline, ours, and the ratio of the two, measured in turns. A benchmark that
fails, or wants a GPU where there is none, says so in its row, and the rest go on.

    python benchmarks/bench.py --only bm_render
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from provenance import commit, machine

from model.run_folder import json_text

FOLDER = Path(__file__).parent
COLUMNS = ("operation", "baseline", "ours", "ratio")

_MEASURE = """
import importlib, json, pathlib, sys
folder, name, quick, answer = sys.argv[1:]
sys.path[:0] = [folder, str(pathlib.Path(folder).parent)]
try:
    rows = importlib.import_module(name).measure(quick == "True")
except SystemExit as error:
    rows = [{"operation": name, "error": str(error)}]
except Exception as error:
    rows = [{"operation": name, "error": " ".join(f"{type(error).__name__}: {error}".split())}]
pathlib.Path(answer).write_text(json.dumps(rows), encoding="utf-8")
"""


def benchmarks(folder: Path = FOLDER) -> list[str]:
    """Return the names of the benchmarks in a folder."""
    return sorted(path.stem for path in folder.glob("bm_*.py"))


def rows_of(name: str, quick: bool = True, folder: Path = FOLDER) -> list[dict]:
    """Return the rows of one benchmark; or a row that says why there are none."""
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch, "rows.json")
        ran = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(folder), name, str(quick), str(answer)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        if not answer.exists():
            return [{"benchmark": name, "operation": name, "error": f"ended with exit code {ran.returncode}"}]
        return [{"benchmark": name, **row} for row in json.loads(answer.read_text(encoding="utf-8"))]


def table(rows: Sequence[dict]) -> str:
    """Return rows as lines of text in columns; an error takes the place of the numbers."""
    cells = [[_cell(row.get(column, "")) for column in COLUMNS] for row in [dict(zip(COLUMNS, COLUMNS)), *rows]]
    widths = [max(len(line[k]) for line in cells) for k in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    errors = ["", *(row.get("error", "") for row in rows)]
    return "\n".join(f"{line}  {error}" if error else line for line, error in zip(lines, errors))


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


@click.command()
@click.option("--only", "names", multiple=True, type=click.Choice(benchmarks()),
              help="May be repeated.  [default: all]")
@click.option("--quick/--full", default=True, show_default=True, help="Some 20 seconds each, or true sizes.")
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="JSON file.  [default: benchmarks/results/bench_<machine>.json]")
def main(names, quick, output):
    """Run the benchmarks and print one table."""
    described, rows = machine(), []
    for name in names or benchmarks():
        click.echo(name, err=True)
        rows += rows_of(name, quick)
    click.echo(table(rows))
    output = output or FOLDER / "results" / f"bench_{described['name']}.json"
    report = {"benchmark": "bench", "commit": commit(), "quick": quick, "machine": described, "rows": rows}
    output.write_text(json_text(report), encoding="utf-8")
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
