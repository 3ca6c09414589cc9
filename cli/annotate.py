"""`dualface annotate`: landmarks for own photos."""

from pathlib import Path

import click

from cli.command import Command
from cli.errors import one_sentence
from cli.output import json_option, report


@click.command(cls=Command)
@click.argument("paths", metavar="PHOTO|FOLDER...", nargs=-1, required=True,
                type=click.Path(exists=True, path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--network", metavar="RUN|FILE", type=click.Path(exists=True, path_type=Path),
              help="What finds the landmarks: a run of `train landmarks`, or a 3D-FAN file of the face-alignment "
                   "package.")
@click.option("--position-maps", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Read them off the position maps of PRNet or SADRNet beside the photos, which are the crops; FILE "
                   "(uv_kpt_ind.txt) says at which texels.")
@click.option("--boxes", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Where the faces are: a list with a row a photo, its name and left, top, right, bottom of the face "
                   "from eyebrows to chin, in pixels.  [default: the detector, after pip install 'dualface[detect]']")
@click.option("--kind", type=click.Choice(["3d", "2d"]), default="3d", show_default=True,
              help="Of the landmarks: hidden ones where they are on the face (3d), or on its visible outline (2d, as "
                   "2D-FAN gives them).")
@click.option("--min-peak", type=click.FloatRange(min=0), default=0.1, show_default=True,
              help="Leave out photos whose heatmaps have a lower mean peak; 1 is a sure network, 0 keeps all.")
@click.option("--device", help="torch device.  [default: the GPU if there is one]")
@json_option
def annotate(
    paths: tuple[Path, ...], out: Path, network: Path | None, position_maps: Path | None, boxes: Path | None,
    kind: str, min_peak: float, device: str | None, as_json: bool,
):
    """Find 68 landmarks in each PHOTO, and in each photo below each FOLDER, and write both into OUT as 300W-LP does.

    Each photo is copied, with NAME_pts.mat beside it; `dualface build ... --refit` turns OUT into training data. Of
    several faces in a photo the largest is taken. A photo that fails is reported, the rest goes on, and the exit code
    is 1.

    \b
    Example: dualface annotate photos annotated --network landmark_run
    """
    from asmgen.locate import FaceLocator
    from asmgen.position_maps import read_landmark_texels
    from model.annotate import LandmarkFinder, PositionMapLandmarks, landmark_crop_size
    from model.annotate import annotate as run
    from model.landmarks import load_landmark_network
    from model.photos import find_photos
    from model.train_geometry import torch_device

    if (network is None) == (position_maps is None):
        raise click.UsageError("give --network or --position-maps: one of the two")
    with one_sentence():
        photos = find_photos(paths, out)
        if position_maps:
            find = PositionMapLandmarks(read_landmark_texels(position_maps))
        else:
            assert network
            trained = load_landmark_network(network).to(torch_device(device))
            find = LandmarkFinder(trained, landmark_crop_size(network), FaceLocator(boxes=boxes), min_peak)
        report(run(photos, find, out, kind), len(photos), as_json)
