"""`dualface synth`: datasets rendered from a face model."""

from pathlib import Path

import click

from cli.errors import one_sentence


@click.group()
def synth():
    """Render datasets with exact ground truth."""


@synth.command("300wlp")
@click.argument("out_dir", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(min=1), required=True, help="Number of images.")
@click.option("--face-model", default="open", show_default=True, help="'open', or a file of `face-model convert`.")
@click.option("--expressions", type=click.Choice(["normal", "acts"]), default="normal", show_default=True,
              help="Each mode from a normal distribution, or a few acts of the open face model (smile, wink, ...) "
                   "at once, without the pairs that `synth expressions` holds out.")
@click.option("--image-size", type=click.IntRange(min=64), default=450, show_default=True, help="Side in pixels.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
def synth_300wlp(
    out_dir: Path, count: int, face_model: str, expressions: str, image_size: int, seed: int, jobs: int
):
    """Render faces into OUT in the layout of 300W-LP: photos, .mat annotations, landmarks.

    \b
    Example: dualface synth 300wlp faces --count 200 --jobs 2
    """
    from asmgen.synth import synthesize_300wlp
    from bfm.model_file import load_model

    with one_sentence():
        synthesize_300wlp(
            out_dir, load_model(face_model), count, seed=seed, jobs=jobs, image_size=image_size, expressions=expressions
        )
    click.echo(f"rendered {count} images into {out_dir}")


@synth.command("expressions")
@click.argument("out_dir", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--people", type=click.IntRange(min=1), required=True, help="Number of people, 36 photos each.")
@click.option("--image-size", type=click.IntRange(min=64), default=450, show_default=True, help="Side in pixels.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
def synth_expressions(out_dir: Path, people: int, image_size: int, seed: int, jobs: int):
    """Render the expression stress set into OUT, in the layout of 300W-LP.

    Each person opens the mouth, pouts, smiles, raises the brows, closes the eyes, and makes two acts at once that
    `synth 300wlp --expressions acts` never combines: at 0, 25, 50, 75, 100 and 125 % of the full movement.

    \b
    Example: dualface synth expressions stress --people 20 --jobs 2
    """
    from asmgen.synth_expressions import synthesize_expressions

    with one_sentence():
        written = synthesize_expressions(out_dir, people, seed=seed, jobs=jobs, image_size=image_size)
    click.echo(f"rendered {len(written)} images of {people} people into {out_dir}")
