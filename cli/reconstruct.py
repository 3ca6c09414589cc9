"""`dualface reconstruct`: photos to meshes."""

from pathlib import Path

import click

from cli.errors import one_sentence


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True,
                type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--checkpoint", metavar="RUN", required=True, type=click.Path(exists=True, path_type=Path),
              help="Run folder of `train geometry`, or a checkpoint in it.")
@click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder to write into.")
@click.option("--box", "boxes", nargs=4, type=float, multiple=True, metavar="L T R B",
              help="Face from eyebrows to chin, in pixels of the upright photo: once an image, in order.")
@click.option("--landmarks", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="File of 68 landmarks (.pts, .mat, .npy, .txt): once an image, in order.")
@click.option("--face-model", default="open", show_default=True, help="The model that RUN was trained on.")
@click.option("--device", help="torch device.  [default: the GPU if there is one]")
def reconstruct(images: tuple[Path, ...], checkpoint: Path, output: Path, boxes: tuple, landmarks: tuple[Path, ...],
                face_model: str, device: str | None):
    """Reconstruct the face in each IMAGE: OBJ, PLY, GLB, overlay, UV maps, parameters.

    Without --box or --landmarks the whole image is taken as the face crop. A photo that fails is reported, the
    rest goes on, and the exit code is 1.

    \b
    Example: dualface reconstruct photo.jpg --checkpoint run -o out --box 120 80 260 250
    """
    from bfm.model_file import load_model
    from model.reconstruct import reconstruct as run

    failed = 0
    with one_sentence():
        model = load_model(face_model)
        for outcome in run(images, checkpoint, output, boxes or None, landmarks or None, model, device):
            failed += bool(outcome.error)
            click.echo(f"{outcome.image}: {outcome.error or 'wrote ' + str(outcome.files[0].with_suffix('.*'))}",
                       err=bool(outcome.error))
    if failed:
        raise SystemExit(1)
