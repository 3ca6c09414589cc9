"""`dualface inspect` and `dualface verify`: look at what was built."""

from pathlib import Path

import click

from cli.errors import one_sentence

SHARDS = click.argument("shards", metavar="SHARDS", type=click.Path(exists=True, path_type=Path))


@click.command()
@SHARDS
@click.option("--sample", "samples", type=int, multiple=True,
              help="Sample to draw; repeat for more.  [default: 8, evenly spread]")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the sheet to this PNG.")
@click.option("--face-model", help="Model file for shards of another model than 'open'.")
def inspect(shards: Path, samples: tuple[int, ...], output: Path | None, face_model: str | None):
    """Print a table of statistics of SHARDS; draw crop, overlay, maps, channels and mesh with -o.

    \b
    Example: dualface inspect shards --sample 0 --sample 5 -o sheet.png
    """
    from asmgen.inspect import inspect_sheet, statistics_table

    with one_sentence():
        click.echo(statistics_table(shards))
        if output:
            inspect_sheet(shards, samples or None, face_model=face_model).save(output)
            click.echo(f"wrote {output}")


@click.command()
@SHARDS
def verify(shards: Path):
    """Reread every sample of SHARDS and check it; exit 1 if anything is wrong.

    \b
    Example: dualface verify shards
    """
    from asmgen.shards import verify_shards

    with one_sentence():
        report = verify_shards(shards)
    click.echo(report)
    if report.problems:
        raise SystemExit(1)
