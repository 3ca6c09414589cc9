"""`dualface inspect` and `dualface verify`: look at what was built."""

from pathlib import Path

import click

from cli.command import FACE_MODEL, PICTURE, Command
from cli.errors import one_sentence
from cli.output import json_option, say, show

SHARDS = click.argument("shards", metavar="SHARDS", type=click.Path(exists=True, path_type=Path))


@click.command(cls=Command)
@SHARDS
@click.option("--sample", "samples", type=int, multiple=True,
              help="Sample to draw; repeat for more.  [default: 8, or 100 crops, evenly spread]")
@click.option("--rejected", is_flag=True, help="Draw the photos that were left out, with their reasons.")
@click.option("-o", "--output", type=PICTURE, help="Write the sheet to this PNG.")
@click.option("--face-model", type=FACE_MODEL, help="Model file for shards of another model than 'open'.")
@json_option
def inspect(
    shards: Path, samples: tuple[int, ...], rejected: bool, output: Path | None, face_model: str | None, as_json: bool
):
    """Print a table of statistics of SHARDS; draw samples with -o.

    Of attribute maps: crop, overlay, maps, channels and mesh. Of textures: I_o, I_u, I_a, mask, shading, and I_a on
    the mesh. Of image-only shards: the crops, and what placed them.

    \b
    Example: dualface inspect shards --sample 0 --sample 5 -o sheet.png
    """
    from asmgen.sheets import rejected_sheet
    from asmgen.shards import ShardSet
    from asmgen.tables import facts
    from texgen.inspect import inspector

    if (rejected or samples) and not output:
        raise click.UsageError("--sample and --rejected draw a sheet: name its PNG with -o")
    if rejected and samples:
        raise click.UsageError("choose one of --sample and --rejected")
    with one_sentence():
        statistics, sheet = inspector(shards)
        show(facts(ShardSet(shards)) if as_json else statistics(shards), as_json)
        if output:
            picture = rejected_sheet(shards) if rejected else sheet(shards, samples or None, face_model=face_model)
            picture.save(output)
            if not as_json:
                say(f"wrote {output}")


@click.command(cls=Command)
@SHARDS
@json_option
def verify(shards: Path, as_json: bool):
    """Reread every byte of SHARDS and check it; exit 1 if anything is wrong.

    Names the shards, and the samples in them, that are not as they were written. `dualface build ... --repair` makes
    these shards again.

    \b
    Example: dualface verify shards
    """
    from asmgen.shards import verify_shards

    with one_sentence():
        report = verify_shards(shards)
    show(report, as_json)
    if report.problems:
        raise SystemExit(1)
