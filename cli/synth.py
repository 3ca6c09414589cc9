"""`dualface synth`: datasets rendered from a face model."""

from pathlib import Path

import click

from cli.command import Group, face_model_option
from cli.errors import one_sentence
from cli.output import json_option, progress, tell


@click.group(cls=Group)
def synth():
    """Render datasets with exact ground truth."""


@synth.command("300wlp")
@click.argument("out_dir", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(min=1), required=True, help="Number of images.")
@face_model_option("'open', or a file of `face-model convert`.")
@click.option("--expressions", type=click.Choice(["normal", "acts"]), default="normal", show_default=True,
              help="Each mode from a normal distribution, or a few acts of the open face model (smile, wink, ...) "
                   "at once, without the pairs that `synth expressions` holds out.")
@click.option("--image-size", type=click.IntRange(min=64), default=450, show_default=True, help="Side in pixels.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
@json_option
def synth_300wlp(
    out_dir: Path, count: int, face_model: str, expressions: str, image_size: int, seed: int, jobs: int, as_json: bool
):
    """Render faces into OUT in the layout of 300W-LP: photos, .mat annotations, landmarks.

    \b
    Example: dualface synth 300wlp faces --count 200 --jobs 2
    """
    from asmgen.synth import synthesize_300wlp
    from bfm.model_file import load_model

    with one_sentence():
        synthesize_300wlp(
            out_dir, load_model(face_model), count, seed=seed, jobs=jobs, image_size=image_size,
            expressions=expressions, progress=progress,
        )
    tell({"folder": out_dir, "photos": count}, f"rendered {count} images into {out_dir}", as_json)


@synth.command("expressions")
@click.argument("out_dir", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--people", type=click.IntRange(min=1), required=True, help="Number of people, 36 photos each.")
@click.option("--image-size", type=click.IntRange(min=64), default=450, show_default=True, help="Side in pixels.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
@json_option
def synth_expressions(out_dir: Path, people: int, image_size: int, seed: int, jobs: int, as_json: bool):
    """Render the expression stress set into OUT, in the layout of 300W-LP.

    Each person opens the mouth, pouts, smiles, raises the brows, closes the eyes, and makes two acts at once that
    `synth 300wlp --expressions acts` never combines: at 0, 25, 50, 75, 100 and 125 % of the full movement.

    \b
    Example: dualface synth expressions stress --people 20 --jobs 2
    """
    from asmgen.synth_expressions import synthesize_expressions

    with one_sentence():
        written = synthesize_expressions(
            out_dir, people, seed=seed, jobs=jobs, image_size=image_size, progress=progress
        )
    tell({"folder": out_dir, "photos": len(written), "people": people},
         f"rendered {len(written)} images of {people} people into {out_dir}", as_json)


@synth.command("micc")
@click.argument("out_dir", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--subjects", type=click.IntRange(min=1), required=True, help="Number of subjects.")
@click.option("--frames", type=click.IntRange(min=1), default=8, show_default=True, help="Of each of three videos.")
@click.option("--noise", type=click.FloatRange(min=0), default=0.1, show_default=True,
              help="Of the scans, standard deviation along the normal, mm.")
@click.option("--spacing", type=click.FloatRange(min=0.2), default=0.8, show_default=True,
              help="Between samples of a scan, mm.")
@click.option("--mjpg/--frames-as-files", default=False, show_default=True,
              help="Videos as .mjpg files with one list of landmarks, or as folders with landmarks beside each frame.")
@click.option("--image-size", type=click.IntRange(min=64), default=400, show_default=True, help="Side in pixels.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
@json_option
def synth_micc(
    out_dir: Path, subjects: int, frames: int, noise: float, spacing: float, mjpg: bool, image_size: int, seed: int,
    jobs: int, as_json: bool,
):
    """Render scans and videos into OUT in the layout of MICC Florence, with the truth in OUT/truth.

    \b
    Example: dualface synth micc micc --subjects 4 --jobs 2
    """
    from asmgen.synth_micc import synthesize_micc

    with one_sentence():
        names = synthesize_micc(
            out_dir, subjects, frames=frames, noise=noise, spacing=spacing, seed=seed, jobs=jobs,
            image_size=image_size, mjpg=mjpg, progress=progress,
        )
    tell({"folder": out_dir, "subjects": names},
         f"rendered {subjects} subjects with 3 videos of {frames} frames each into {out_dir}", as_json)


@synth.command("bu3dfe")
@click.argument("out_dir", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--people", type=click.IntRange(min=1), required=True, help="Number of people.")
@click.option("--level", "levels", type=click.IntRange(1, 4), multiple=True, default=(1, 2, 3, 4), show_default=True,
              help="Of the expressions, 4 the full one; may be given several times.")
@click.option("--noise", type=click.FloatRange(min=0), default=0.1, show_default=True,
              help="Of the scans, standard deviation along the normal, mm.")
@click.option("--spacing", type=click.FloatRange(min=0.2), default=1.6, show_default=True,
              help="Between samples of a scan, mm.")
@click.option("--image-size", type=click.IntRange(min=64), default=512, show_default=True, help="Side in pixels.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
@json_option
def synth_bu3dfe(
    out_dir: Path, people: int, levels: tuple[int, ...], noise: float, spacing: float, image_size: int, seed: int,
    jobs: int, as_json: bool,
):
    """Render scans and pictures of seven expressions into OUT in the layout of BU-3DFE, with the truth in OUT/truth.

    \b
    Example: dualface synth bu3dfe bu3dfe --people 4 --level 4 --jobs 2
    """
    from asmgen.synth_bu3dfe import synthesize_bu3dfe

    with one_sentence():
        names = synthesize_bu3dfe(
            out_dir, people, levels, noise=noise, spacing=spacing, seed=seed, jobs=jobs, image_size=image_size,
            progress=progress,
        )
    scans = 1 + 6 * len(set(levels))
    tell({"folder": out_dir, "people": names, "scans": scans},
         f"rendered {people} people with {scans} scans each into {out_dir}", as_json)
