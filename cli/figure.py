"""`dualface figure`: the paper's figures about its parts, from trained runs."""

from collections.abc import Callable
from pathlib import Path

import click

from cli.command import PICTURE, Group, face_model_option
from cli.errors import one_sentence
from cli.output import json_option, tell


@click.group(cls=Group)
def figure():
    """Draw what trained streams and fusion runs do, after the paper's Fig. 12 to 17."""


def figure_options(*others: Callable, samples: str = "4, evenly spread, held out if RUN held any") -> Callable:
    """Return the decorator that gives a command what every figure takes, and `others` after its checkpoints."""
    options = (
        click.argument("shards", metavar="SHARDS...", nargs=-1, required=True,
                       type=click.Path(exists=True, path_type=Path)),
        *others,
        click.option("-o", "--output", metavar="PNG", required=True, type=PICTURE,
                     help="Picture to write."),
        click.option("--sample", "samples", type=click.IntRange(min=0), multiple=True,
                     help=f"Sample to draw; repeat for more.  [default: {samples}]"),
        face_model_option("The model that SHARDS were built on."),
        click.option("--device", help="torch device.  [default: the GPU if there is one]"),
        json_option,
    )

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


one_run = click.option("--checkpoint", metavar="RUN", required=True, type=click.Path(exists=True, path_type=Path),
                       help="Run of `train texture` with regions, or its checkpoint.")
several_runs = click.option("--checkpoint", "checkpoints", metavar="RUN", required=True, multiple=True,
                            type=click.Path(exists=True, path_type=Path),
                            help="Run of `train texture`, or its checkpoint; repeat for more columns.")
geometry_option = click.option("--geometry", metavar="RUN", type=click.Path(exists=True, path_type=Path),
                               help="Geometry run that a --predicted-albedo run was trained with; needed for such "
                                    "runs only.")
regions_option = click.option("--region", "regions", type=click.IntRange(min=0), multiple=True,
                              help="Region to draw, from 0; repeat for more.  [default: 1, 4, 7, 9, 11, 15]")
labels_option = click.option("--label", "labels", multiple=True,
                             help="Heading of a checkpoint's column; once each, in order.  [default: its options]")


@figure.command()
@figure_options(
    click.option("--checkpoint", "checkpoints", metavar="RUN", required=True, multiple=True,
                 type=click.Path(exists=True, path_type=Path),
                 help="Run of `train geometry` or `train fusion`, or its checkpoint; repeat for more columns."),
    labels_option, samples="the 4 of the largest expressions, held out if RUN held any",
)
def geometry(output: Path, **chosen):
    """Draw the shapes that geometry runs see in the same photos, and close-ups of their mouths (Fig. 12).

    \b
    Example: dualface figure geometry shards --checkpoint dual --checkpoint single -o fig12.png
    """
    from model.figures.geometry import geometry_figure

    _draw(geometry_figure, output, **chosen)


@figure.command()
@figure_options(one_run, geometry_option, regions_option)
def regions(output: Path, **chosen):
    """Draw the semantic regions that photo and linear albedo share, and where they correspond (Fig. 14).

    \b
    Example: dualface figure regions ftd --checkpoint run -o regions.png
    """
    from model.figures.regions import regions_figure

    _draw(regions_figure, output, **chosen)


@figure.command()
@figure_options(one_run, geometry_option, regions_option)
def statistics(output: Path, **chosen):
    """Draw the statistics of the photo's features in some regions (Fig. 15).

    \b
    Example: dualface figure statistics ftd --checkpoint run --region 1 --region 4 --region 7 -o statistics.png
    """
    from model.figures.regions import statistics_figure

    _draw(statistics_figure, output, **chosen)


@figure.command()
@figure_options(several_runs, geometry_option, labels_option)
def stylisation(output: Path, **chosen):
    """Draw the albedo maps of several streams side by side, each with its error (Fig. 16).

    \b
    Example: dualface figure stylisation ftd --checkpoint adain --checkpoint n8 --checkpoint n16 -o stylisation.png
    """
    from model.figures.texture import comparison_figure

    _draw(comparison_figure, output, **chosen)


@figure.command()
@figure_options(several_runs, geometry_option, labels_option)
def skips(output: Path, **chosen):
    """Draw streams with and without skip connections, close-ups of nose and mouth below (Fig. 13).

    \b
    Example: dualface figure skips ftd --checkpoint no_skips --checkpoint run -o skips.png
    """
    from model.figures.texture import comparison_figure

    _draw(comparison_figure, output, **chosen, close_ups=True)


@figure.command()
@figure_options(
    click.option("--checkpoint", "checkpoints", metavar="RUN", required=True, multiple=True,
                 type=click.Path(exists=True, path_type=Path),
                 help="Run of `train fusion`, or its checkpoint; repeat for more columns."),
    click.option("--geometry", metavar="RUN", type=click.Path(exists=True, path_type=Path),
                 help="Geometry run that they started from, to draw the start first; takes --texture, too."),
    click.option("--texture", metavar="RUN", type=click.Path(exists=True, path_type=Path),
                 help="Texture run that they started from."),
    click.option("--label", "labels", multiple=True,
                 help="Heading of a checkpoint's column; once each, in order.  [default: the losses left out]"),
)
def fusion(output: Path, **chosen):
    """Draw the faces of fusion runs over their photos side by side, each with its photometric error (Fig. 17).

    \b
    Example: dualface figure fusion faces --checkpoint full --checkpoint no_identity -o fusion.png
    """
    from model.figures.fusion import fusion_figure

    _draw(fusion_figure, output, **chosen)


def _draw(function: Callable, output: Path, samples: tuple[int, ...], face_model: str, as_json: bool, **chosen):
    """Save what a function of `model.figures` draws."""
    from bfm.model_file import load_model

    with one_sentence():
        function(**chosen, samples=samples or None, face_model=load_model(face_model)).save(output)
    tell({"file": output}, f"wrote {output}", as_json)
