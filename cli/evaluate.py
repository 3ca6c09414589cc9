"""`dualface evaluate`: the paper's measurements of trained networks, each by its protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.command import Group, face_model_option
from cli.errors import one_sentence
from cli.output import json_option, progress

if TYPE_CHECKING:
    from model.evaluation.face_meshes import Photographed


@click.group(cls=Group)
def evaluate():
    """Measure trained networks by the paper's protocols (Sec. IV-C to IV-E)."""


@evaluate.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--checkpoint", "checkpoints", metavar="RUN", multiple=True,
              type=click.Path(exists=True, path_type=Path),
              help="Run of `train fusion` or `train geometry`; repeat for more rows.")
@click.option("--predictions", metavar="NPY", multiple=True, type=click.Path(exists=True, path_type=Path),
              help="Landmarks of another method: (N, 68, 2 or 3) or (N, 2 or 3, 68), pixels of the photo, a row for "
                   "each below ROOT, sorted by path; repeat for more methods.")
@click.option("--label", "labels", multiple=True,
              help="Name of a row: once each, checkpoints first, in order.  [default: the names of runs and files]")
@click.option("--index-base", type=click.IntRange(0, 1), default=0, show_default=True,
              help="What pixels are counted from in NPY.")
@click.option("--annotation", type=click.Choice(["original", "reannotated"]), default="original", show_default=True,
              help="Truth among the benchmark's arrays.")
@click.option("--most", type=click.IntRange(min=0), default=8, show_default=True,
              help="Photos in sheet.png at most, evenly spread from the best to the worst; 0 draws none.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True,
              help="Photos that go through a network together.")
@face_model_option("The model that the runs were trained on.")
@click.option("--device", help="torch device.  [default: the GPU if there is one]")
@click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder for table.md, results.json, curve.png and sheet.png.")
@json_option
def aflw2000(root: Path, output: Path, face_model: str, as_json: bool, **chosen):
    """Measure 68 landmarks (NME) by yaw, pose, and shape, on the photos below ROOT.

    ROOT holds photos and annotations in the layout of AFLW2000-3D or 300W-LP, also of `synth 300wlp`, or photos with
    landmark files alone; or it holds the arrays of 3DDFA's benchmark (AFLW2000-3D.pts68.npy, ...), which --predictions
    can be scored on without a photo. Shape is measured where the annotated coefficients are of the face model. A photo
    that cannot be measured is reported, the rest goes on, and the exit code is 1.

    \b
    Example: dualface evaluate aflw2000 AFLW2000 --checkpoint fusion -o out
    """
    from bfm.model_file import load_model
    from model.evaluation.aflw2000 import evaluate_aflw2000

    with one_sentence():
        table, truth = evaluate_aflw2000(root, output, load_model(face_model), **chosen)
    _tell(table, truth.failed, as_json, "photos")


@evaluate.command()
@click.argument("shards", metavar="SHARDS...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--checkpoint", "checkpoints", metavar="RUN", required=True, multiple=True,
              type=click.Path(exists=True, path_type=Path),
              help="Run of `train fusion` or `train geometry`; repeat for more rows.")
@click.option("--label", "labels", multiple=True, help="Name of a run: once each, in order.  [default: the folders']")
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
@face_model_option("The model that the runs were trained on.")
@click.option("--device", help="torch device.  [default: the GPU if there is one]")
@click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder for table.md, results.json and sheet.png.")
@json_option
def texture(
    shards: tuple[Path, ...], checkpoints: tuple[Path, ...], output: Path, face_model: str, as_json: bool, **chosen
):
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
    _tell(table, [], as_json)


@evaluate.command()
@click.argument("photos", metavar="PHOTOS", type=click.Path(exists=True, path_type=Path))
@click.argument("masks", metavar="[MASKS]", required=False,
                type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--checkpoint", metavar="RUN", required=True, type=click.Path(exists=True, path_type=Path),
              help="Run of `train fusion` or `train geometry`.")
@click.option("--parsing", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="BiSeNet weights, to mark the faces in place of MASKS.")
@click.option("--landmarks", metavar="PATH", type=click.Path(exists=True, path_type=Path),
              help="List with a row a photo (as CelebA's), or folder of landmark files, pixels.  [default: a landmark "
                   "file beside the photo, or else the detector]")
@click.option("--box", "boxes", nargs=4, type=float, multiple=True, metavar="L T R B",
              help="Face from eyebrows to chin, in pixels of the upright photo: once a photo, in order.")
@click.option("--whole", is_flag=True, help="Each photo is itself the crop.")
@face_model_option("The model that RUN was trained on.")
@click.option("--device", help="torch device.  [default: the GPU if there is one]")
@click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder for table.md, results.json and sheet.png.")
@json_option
def silhouette(
    photos: Path, masks: Path | None, checkpoint: Path, parsing: Path | None, landmarks: Path | None, boxes: tuple,
    whole: bool, face_model: str, device: str | None, output: Path, as_json: bool,
):
    """Measure whether reconstructed faces cover the faces in PHOTOS (Fig. 7).

    MASKS holds a PNG named as each photo, not 0 where the face is, or CelebAMask-HQ's parts (`<name>_skin.png`, ...).
    A photo that fails is reported, the rest goes on, and the exit code is 1.

    \b
    Example: dualface evaluate silhouette CelebA-HQ-img CelebAMask-HQ-mask-anno --checkpoint run -o out
    """
    from bfm.model_file import load_model
    from model.dual_stream import load_dual_stream
    from model.evaluation.face_masks import MaskFolder
    from model.evaluation.silhouette import evaluate_silhouette
    from model.parsing import load_parsing_network
    from model.photos import PhotoLocator, find_photos

    if (masks is None) == (parsing is None):
        raise click.UsageError("give MASKS or --parsing: one of the two")
    if masks and masks.resolve() == photos.resolve():
        raise click.UsageError("MASKS must be another folder than PHOTOS, or one within it")
    with one_sentence():
        found = find_photos([photos], output)
        if masks and masks.resolve().is_relative_to(photos.resolve()):
            found = [photo for photo in found if not photo.path.resolve().is_relative_to(masks.resolve())]
        locator = PhotoLocator(found, boxes, () if landmarks is None else (landmarks,), whole)
        if masks:
            marked = MaskFolder(masks)
        else:
            assert parsing
            marked = load_parsing_network(parsing)
        faces = load_dual_stream(checkpoint, model=load_model(face_model), device=device)
        table, failed = evaluate_silhouette(
            found, locator, faces, marked, output, lambda photos: progress(photos, unit="photo")
        )
    _tell(table, [f"{name}: {error}" for name, error in failed.items()], as_json, "photos")


def scan_options(predictions_help: str, *others: Callable) -> Callable:
    """Return the decorator that gives a command what both measurements on scans take, and `others`."""
    options = (
        click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path)),
        click.option("--checkpoint", metavar="RUN", type=click.Path(exists=True, path_type=Path),
                     help="Run of `train fusion` or `train geometry`."),
        click.option("--predictions", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path),
                     help=f"Meshes of another method in place of RUN, {predictions_help}: mm, any topology; 68 "
                          "landmarks beside as menpo's .ljson, or else frontal, the nose the most protruding point."),
        *others,
        click.option("--landmarks", metavar="PATH", type=click.Path(exists=True, path_type=Path),
                     help="List with a row a photo (as CelebA's), or folder of landmark files, pixels; frame 12 of a "
                          "video NAME.mjpg is called NAME/0012.jpg.  [default: a landmark file beside the photo, or "
                          "else the detector]"),
        click.option("--boxes", metavar="LIST", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                     help="List with a row a photo: left, top, right, bottom of the face from eyebrows to chin, "
                          "pixels."),
        click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True,
                     help="Photos that go through the network together."),
        face_model_option("The model that RUN was trained on."),
        click.option("--device", help="torch device.  [default: the GPU if there is one]"),
        click.option("-o", "--output", metavar="OUT", required=True,
                     type=click.Path(file_okay=False, path_type=Path),
                     help="Folder for table.md, results.json, and pictures."),
        json_option,
    )

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@evaluate.command()
@scan_options(
    "DIR/<subject>/<cooperative|indoor|outdoor>.obj or .ply",
    click.option("--protocol", type=click.Choice(["genova", "per-mesh", "both"]), default="both", show_default=True,
                 help="One scale for all predictions and rigid ICP, or a scale a prediction."),
    click.option("--frames", type=click.IntRange(min=1), default=10, show_default=True,
                 help="Frames of a video, evenly spread, whose neutral faces are averaged."),
)
def micc(
    root: Path, checkpoint: Path | None, predictions: Path | None, protocol: str, frames: int, output: Path,
    as_json: bool, **chosen,
):
    """Measure neutral faces of videos against the scans of MICC Florence below ROOT (Table I, Fig. 6).

    ROOT holds subject_XX with Model/frontal1/obj/*.obj, frontal2, and Video/Indoor-Cooperative, PTZ-Indoor and
    PTZ-Outdoor as .mjpg or folders of frames. Point-to-plane distance after ICP, mean +- std over subjects, by two
    protocols; heatmaps on the scans. What cannot be measured is reported, the rest goes on, and the exit code is 1.

    \b
    Example: dualface evaluate micc MICC --checkpoint fusion -o out
    """
    from model.evaluation.micc import PROTOCOLS, evaluate_micc, from_meshes, from_videos

    with one_sentence():
        source = _photographed(checkpoint, predictions, **chosen)
        if isinstance(source, Path):
            predict, settings = from_meshes(source), {"predictions": source.name}
        else:
            predict, settings = from_videos(source, frames), {**source.settings, "frames": frames}
        protocols = PROTOCOLS if protocol == "both" else (protocol,)
        report = evaluate_micc(root, predict, output, protocols, settings, progress)
    _tell(*report, as_json)


@evaluate.command()
@scan_options(
    "DIR/<person>/F0001_AN01WH.obj or .ply",
    click.option("--level", "levels", type=click.IntRange(1, 4), multiple=True,
                 help="Of the expressions, 4 the full one; repeat for more.  [default: all]"),
)
def bu3dfe(
    root: Path, checkpoint: Path | None, predictions: Path | None, levels: tuple[int, ...], output: Path,
    as_json: bool, **chosen,
):
    """Measure faces with expression against the scans of BU-3DFE below ROOT (Fig. 9).

    ROOT holds F0001/F0001_AN01WH_F3D.wrl with its .bnd and F0001_AN01WH_F2D.bmp, and so on. Point-to-plane distance
    after similarity ICP over the outer interocular distance, mean +- std for each of the seven expressions; bars and
    heatmaps. What cannot be measured is reported, the rest goes on, and the exit code is 1.

    \b
    Example: dualface evaluate bu3dfe BU-3DFE --checkpoint fusion --level 4 -o out
    """
    from model.evaluation.bu3dfe import LEVELS, evaluate_bu3dfe, from_meshes, from_pictures

    with one_sentence():
        source = _photographed(checkpoint, predictions, **chosen)
        if isinstance(source, Path):
            predict, settings = from_meshes(source), {"predictions": source.name}
        else:
            predict, settings = from_pictures(source), source.settings
        report = evaluate_bu3dfe(root, predict, output, sorted(set(levels)) or LEVELS, settings, progress)
    _tell(*report, as_json)


def _photographed(
    checkpoint: Path | None, predictions: Path | None, landmarks: Path | None, boxes: Path | None, batch_size: int,
    face_model: str, device: str | None,
) -> Path | Photographed:
    """What predicts from photos, or where the predictions are."""
    from asmgen.locate import FaceLocator
    from bfm.model_file import load_model
    from model.dual_stream import load_dual_stream
    from model.evaluation.face_meshes import Photographed

    if predictions and not checkpoint:
        return predictions
    if predictions or not checkpoint:
        raise click.UsageError("give --checkpoint or --predictions: one of the two")
    faces = load_dual_stream(checkpoint, model=load_model(face_model), device=device)
    return Photographed(faces, FaceLocator(landmarks, boxes), batch_size)


def _tell(table: Path, problems: list[str], as_json: bool, what: str = "cases") -> None:
    """Print the table, or results.json, and what could not be measured."""
    click.echo((table.with_name("results.json") if as_json else table).read_text(encoding="utf-8"))
    if problems:
        click.echo("\n".join([*problems, f"{len(problems)} {what} could not be measured"]), err=True)
        raise SystemExit(1)


@evaluate.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--checkpoint", "checkpoints", metavar="RUN", required=True, multiple=True,
              type=click.Path(exists=True, path_type=Path),
              help="Run of `train fusion` or `train geometry`; repeat for more columns.")
@click.option("--label", "labels", multiple=True, help="Name of a run: once each, in order.  [default: the folders']")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True,
              help="Photos that go through a network together.")
@face_model_option("The model that the runs were trained on.")
@click.option("--device", help="torch device.  [default: the GPU if there is one]")
@click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder for table.md, results.json and expressions.png.")
@json_option
def expressions(
    root: Path, checkpoints: tuple[Path, ...], output: Path, face_model: str, as_json: bool, **chosen
):
    """Measure how errors grow with the expression (mm, %), and how much of it is recovered.

    ROOT is made by `synth expressions`; or it holds any photos in the layout of 300W-LP whose coefficients are of the
    face model, which are compared by magnitude alone. A photo that cannot be measured is reported, the rest goes on,
    and the exit code is 1.

    \b
    Example: dualface evaluate expressions stress --checkpoint dual --checkpoint single -o out
    """
    from bfm.model_file import load_model
    from model.evaluation.expressions import evaluate_expressions

    with one_sentence():
        report = evaluate_expressions(root, checkpoints, output, load_model(face_model), **chosen)
    _tell(*report, as_json, "photos")
