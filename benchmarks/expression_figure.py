"""Draws how errors grow with the expression, dual maps against one map and coefficients, from a table's JSON file.

A band is the standard deviation over seeds. The dashed line is that of the true faces without their expressions.

    python benchmarks/expression_figure.py table.json -o expressions.png
"""

from pathlib import Path

import click
import numpy as np
from result_tables import read_report

from model.evaluation.expression_curves import Curve, draw_expression_curves
from model.evaluation.expression_errors import MEASURES
from model.evaluation.expressions import IGNORED

DRAWN = ("full", "single", "single-wide", "linear")
ROWS = ("region_mm", "full_mm", "recovered")


def curves(report: dict, name: str, variants: tuple[str, ...]) -> dict[str, dict[str, Curve]]:
    """Return the curves of a measure by variant, then by unit; of all seeds that were measured."""
    groups = report["same"]["stress"]
    found = {IGNORED: [groups]} | {
        variant: [row["stress"] for row in report["results"].get(variant, {}).values() if "stress" in row]
        for variant in variants
    }
    drawn = {}
    for label, runs in found.items():
        for unit, by_strength in groups.items() if runs else ():
            points = []
            for strength, group in by_strength.items():
                values = [run[unit][strength][name] for run in runs]
                if None not in values:
                    points.append((group["magnitude_mm"], np.mean(values), np.std(values, ddof=1) if runs[1:] else 0))
            if points:
                drawn.setdefault(label, {})[unit] = Curve(*np.array(points, float).T)
    return drawn


def draw(report: dict, output: Path, variants: tuple[str, ...] = DRAWN) -> Path:
    """Draw the figure of a report with a stress set, PNG."""
    return draw_expression_curves(
        output, {MEASURES[name]: curves(report, name, variants) for name in ROWS}, IGNORED
    )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--variants", default=",".join(DRAWN), show_default=True, help="Comma-separated.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="PNG file.")
def main(file: Path, variants: str, output: Path):
    """Draw the expression stress in FILE, of `geometry_table.py`."""
    report = read_report(file)
    if not report["same"].get("stress"):
        raise click.ClickException(f"{file} holds no expression stress; make the table with --stress")
    click.echo(f"wrote {draw(report, output, tuple(variants.split(',')))}")


if __name__ == "__main__":
    main()
