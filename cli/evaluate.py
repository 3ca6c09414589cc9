"""`dualface evaluate`: the paper's measurements of trained networks, each by its protocol."""

from pathlib import Path

import click

from cli.errors import one_sentence


@click.group()
def evaluate():
    """Measure trained networks by the paper's protocols (Sec. IV-C to IV-E)."""


@evaluate.command()
@click.argument("shards", metavar="SHARDS...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--checkpoint", "checkpoints", metavar="RUN", required=True, multiple=True,
              type=click.Path(exists=True, path_type=Path),
              help="Run of `train fusion` or `train geometry`; repeat for more rows.")
@click.option("--texture", metavar="RUN", type=click.Path(exists=True, path_type=Path),
              help="Run of `train texture` for the geometry runs among them.  [default: their linear albedo alone]")
@click.option("--identity", metavar="FILE|RUN", type=click.Path(exists=True, path_type=Path),
              help="Face recognition network for the similarity of persons: an ArcFace file, or a run of "
                   "`train identity`.")
@click.option("--parsing", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="BiSeNet weights: what covers the face is left out of the region.")
@click.option("--all", "every", is_flag=True, help="Take all samples, not only those that the runs held out.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True,
              help="Photos that go through the networks together.")
@click.option("--face-model", default="open", show_default=True, help="The model that the runs were trained on.")
@click.option("--device", help="torch device.  [default: the GPU if there is one]")
@click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder for table.md, results.json and sheet.png.")
def texture(shards: tuple[Path, ...], checkpoints: tuple[Path, ...], output: Path, face_model: str, **chosen):
    """Measure how near drawn faces come to their photos (Table II, Fig. 10 and 11).

    MAE, photometric error E_pho and SSIM over the pixels that all methods draw: the linear albedo of p_t and the
    generated one, of each RUN, and, where SHARDS know the face, on the true shape under the true light.

    \b
    Example: dualface evaluate texture textures --checkpoint geometry --texture texture --checkpoint fusion -o out
    """
    from bfm.model_file import load_model
    from model.evaluation.texture import evaluate_texture

    with one_sentence():
        table = evaluate_texture(shards, checkpoints, output, load_model(face_model), **chosen)
    click.echo(table.read_text(encoding="utf-8"))
