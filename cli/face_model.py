"""`dualface face-model`: morphable models from their published files."""

from pathlib import Path

import click

from cli.command import FACE_MODEL, PICTURE, Group, OutputFile
from cli.errors import one_sentence
from cli.output import json_option, say, show, tell


@click.group(cls=Group)
def face_model():
    """Convert and describe morphable face models."""


@face_model.command()
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=OutputFile(),
              help="HDF5 file to write.")
@click.option("--layout", type=click.Choice(["bfm-53490", "bfm-53215", "bfm-38365", "bfm-35709"]),
              help="Vertex layout wanted; the files that list its vertices must be among SRC.  [default: as read]")
@json_option
def convert(sources: tuple[Path, ...], output: Path, layout: str | None, as_json: bool):
    """Read the published files of a face model and write it as one file.

    SRC is recognised by content: BFM 2009 (01_MorphableModel.mat with an expression basis and Model_info.mat),
    3DDFA (Model_Shape.mat, Model_Exp.mat), face3d (BFM.mat), BFM 2017/2019 (.h5) or an ICT-FaceKit folder;
    BFM_UV.mat and vertex lists may come along.

    \b
    Example: dualface face-model convert Model_Shape.mat Model_Exp.mat BFM_UV.mat -o bfm.h5
    """
    from bfm.layouts import to_layout
    from bfm.model_file import save_model
    from bfm.readers import read_face_model

    with one_sentence():
        model = read_face_model(list(sources))
        if layout:
            model = to_layout(model, layout, list(sources))
        save_model(model, output)
    count = len(model.mean_shape)
    tell({"file": output, "name": model.name, "layout": model.layout, "vertices": count},
         f"wrote {output}: {model.name}, {model.layout}, {count} vertices", as_json)


@face_model.command()
@click.argument("source", metavar="MODEL", type=FACE_MODEL)
@click.option("-o", "--output", type=PICTURE,
              help="Draw the first modes at +-3 sigma into this PNG.")
@click.option("--size", type=click.IntRange(min=16), default=256, show_default=True,
              help="Side of the maps for the chart errors, in texels.")
@json_option
def info(source: str, output: Path | None, size: int, as_json: bool):
    """Print layout, modes, units, licence and chart errors of MODEL ('open' or a file).

    \b
    Example: dualface face-model info open -o modes.png
    """
    from bfm.describe import chart_errors, describe_charts, describe_model, draw_modes, model_facts
    from bfm.model_file import load_model

    with one_sentence():
        model = load_model(source)
        if as_json:
            show({**model_facts(model), "chart_size": size, "chart_errors_mm": chart_errors(model, size)}, as_json=True)
        else:
            click.echo(f"{describe_model(model)}\n{describe_charts(model, size)}")
        if output:
            draw_modes(model).save(output)
            if not as_json:
                say(f"wrote {output}")
