"""`dualface reconstruct`: photos to meshes."""

from pathlib import Path

import click

from cli.command import Command, face_model_option
from cli.errors import one_sentence
from cli.output import json_option, report


@click.command(cls=Command)
@click.argument("paths", metavar="PHOTO|FOLDER...", nargs=-1, required=True,
                type=click.Path(exists=True, path_type=Path))
@click.option("--checkpoint", metavar="RUN", required=True, type=click.Path(exists=True, path_type=Path),
              help="Run of `train fusion`, or of `train geometry`: its folder, or a checkpoint in it.")
@click.option("--texture", metavar="RUN", type=click.Path(exists=True, path_type=Path),
              help="Run of `train texture` to go with a geometry run.  [default: the linear albedo]")
@click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder to write into; folders within FOLDER are kept.")
@click.option("--landmarks", multiple=True, metavar="PATH", type=click.Path(exists=True, path_type=Path),
              help="File of 68 landmarks (.pts, .mat, .npy, .txt), pixels: once a photo, in order; or one list with a "
                   "row a photo (as CelebA's), or a folder of landmark files.")
@click.option("--box", "boxes", nargs=4, type=float, multiple=True, metavar="L T R B",
              help="Face from eyebrows to chin, in pixels of the upright photo: once a photo, in order.")
@click.option("--whole", is_flag=True, help="Each photo is itself the crop.")
@click.option("--mesh", "meshes", multiple=True, type=click.Choice(["obj", "ply", "glb"]),
              help="Mesh format to write; may be repeated.  [default: all]")
@click.option("--turntable/--no-turntable", default=False, show_default=True,
              help="Write the face turning about its vertical axis, a GIF.")
@click.option("--neutral", is_flag=True, help="Write the face without its expression, too.")
@click.option("--swap-expression", "other", metavar="OTHER",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Write the face with the expression of the one in the photo OTHER, too. Where that is, a list or "
                   "folder of --landmarks tells, a landmark file beside it, or the detector; or --whole holds for it.")
@click.option("--refine", "refine_steps", metavar="N", type=click.IntRange(min=0), default=0, show_default=True,
              help="Steps of analysis by synthesis on each photo: the fusion loss, on this photo alone, which holds "
                   "the face to the landmarks given with the photo, or else to those that RUN finds.")
@click.option("--identity", metavar="FILE|RUN", type=click.Path(exists=True, path_type=Path),
              help="Face recognition network for --refine: an ArcFace file, or a run of `train identity`.")
@click.option("--parsing", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="BiSeNet weights for --refine: what covers the face is left out.")
@click.option("--camera-distance", metavar="MM", type=click.FloatRange(min=0, min_open=True),
              help="From the model's origin, mm; inf is a scaled orthographic camera.  [default: that of RUN]")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True,
              help="Photos that go through the networks together.")
@face_model_option("The model that RUN was trained on.")
@click.option("--device", help="torch device.  [default: the GPU if there is one]")
@json_option
def reconstruct(
    paths: tuple[Path, ...], checkpoint: Path, texture: Path | None, output: Path, landmarks: tuple[Path, ...],
    boxes: tuple, whole: bool, meshes: tuple[str, ...], turntable: bool, neutral: bool, other: Path | None,
    refine_steps: int, identity: Path | None, parsing: Path | None, camera_distance: float | None, batch_size: int,
    face_model: str, device: str | None, as_json: bool,
):
    """Reconstruct the face in each PHOTO, and in each photo below each FOLDER.

    Writes OBJ, PLY, GLB (also one with the photo's light in its texture), pictures (overlay, normals, depth, UV maps)
    and parameters, under the photo's name. Where the face is, landmarks or boxes tell, or a landmark file
    beside the photo, or the detector of the extra `detect`. A photo that fails is reported, the rest goes on, and the
    exit code is 1.

    \b
    Example: dualface reconstruct photo.jpg --checkpoint run -o out --box 120 80 260 250
    """
    from bfm.model_file import load_model
    from model.dual_stream import load_dual_stream
    from model.face_files import MESHES, FaceWriter, name_variants
    from model.identity import load_identity_network
    from model.parsing import load_parsing_network
    from model.photos import PhotoLocator, find_photos
    from model.reconstruct import Reconstructor, face_in
    from model.reconstruct import reconstruct as run

    if (identity or parsing) and not refine_steps:
        raise click.UsageError("--identity and --parsing serve the refinement; give --refine N too, or leave them out")
    with one_sentence():
        photos = find_photos(paths, output, name_variants(neutral, other is not None))
        locator = PhotoLocator(photos, boxes, landmarks, whole)
        faces = load_dual_stream(checkpoint, texture, load_model(face_model), device, camera_distance)
        reconstructor = Reconstructor(
            faces, refine_steps, load_identity_network(identity) if identity else None,
            load_parsing_network(parsing) if parsing else None,
        )
        writer = FaceWriter(
            faces, meshes or MESHES, turntable, neutral, face_in(other, reconstructor, locator) if other else None
        )
        report(run(photos, locator, reconstructor, writer, output, batch_size), len(photos), as_json)
