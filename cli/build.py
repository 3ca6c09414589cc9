"""`dualface build`: photos to training shards."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.command import Group, face_model_option
from cli.errors import one_sentence
from cli.output import is_quiet, json_option, progress, show

if TYPE_CHECKING:
    from asmgen.pipeline import BuildSummary

_MODEL_OPTIONS = (
    face_model_option("'open', or a file of `face-model convert`."),
    click.option("--refit", is_flag=True, help="Fit the model to the landmarks; needs no BFM, ignores the annotated "
                                               "coefficients."),
    click.option("--chart", type=click.Choice(["default", "cylindrical", "harmonic", "file"]), default="default",
                 show_default=True, help="UV chart; 'file' is the one that came with the model."),
    click.option("--encoding", type=click.Choice(["dense", "params"]), default="dense", show_default=True,
                 help="dense: the face model's maps are stored; params: coefficients only, the reader makes them."),
    click.option("--strict", is_flag=True, help="Stop at the first photo that cannot be read or whose face cannot be "
                                                "placed, in place of leaving it out with the reason."),
)


def _build_options(*options: Callable, shard_size: int = 1024) -> Callable:
    """Return what gives a command the arguments and options that all builds have, and some of its own."""
    common = (
        click.argument("root", metavar="ROOT", type=click.Path(exists=True, file_okay=False, path_type=Path)),
        click.argument("out_dir", metavar="OUT", type=click.Path(file_okay=False, path_type=Path)),
        *options,
        click.option("--size", type=click.IntRange(min=16), default=256, show_default=True,
                     help="Side of the crop, and of maps, in pixels."),
        click.option("--count", type=click.IntRange(min=1),
                     help="Take this many photos, drawn by the seed.  [default: all]"),
        click.option("--shard-size", type=click.IntRange(min=1), default=shard_size, show_default=True,
                     help="Photos a shard."),
        click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
                     help="Worker processes; dask and ray use all workers they have."),
        click.option("--backend", type=click.Choice(["loky", "dask", "ray"]), default="loky", show_default=True,
                     help="Where workers are: on this machine (loky), or those of a Dask or Ray cluster, on machines "
                          "that see ROOT and OUT under the same full path; needs pip install 'dualface[dask]' or "
                          "'dualface[ray]'."),
        click.option("--scheduler", metavar="ADDRESS",
                     help="Of the cluster, as tcp://host:8786.  [default: DASK_SCHEDULER_ADDRESS or RAY_ADDRESS]"),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of --count."),
        click.option("--repair", is_flag=True,
                     help="Compare every byte of the shards in OUT with its digest, and make those again that are "
                          "damaged; the others are kept."),
        json_option,
    )

    def decorate(command: Callable) -> Callable:
        for option in reversed(common):
            command = option(command)
        return command

    return decorate


@contextmanager
def _workers(options: dict) -> Iterator[None]:
    """Do what follows where --backend and --scheduler, which are taken from the options, say."""
    from asmgen.clusters import WorkersLost, cluster

    with one_sentence(WorkersLost), cluster(options.pop("backend"), options.pop("scheduler")):
        yield


def _tell(summary: "BuildSummary", as_json: bool) -> None:
    """Say what was built."""
    if as_json or not is_quiet():
        show(summary, as_json)


_THRESHOLDS = {
    "min_visible": "Least share of the face's texels that the photo shows, 0 to 1.",
    "max_yaw": "Greatest turn of the head to a side, degrees.",
    "max_light_ratio": "Greatest ratio of brightness between the two sides of the face.",
    "max_saturation": "Greatest share of visible texels with a channel of 250 of 255 or more, 0 to 1.",
    "min_exposure": "Least mean luminance of the visible texels, 0 to 1.",
    "max_exposure": "Greatest mean luminance of the visible texels, 0 to 1.",
    "max_albedo_residual": "Greatest RMS difference of texture and linear albedo, RGB in 0 to 1.",
    "min_skin": "Least share of skin with the colour of this face's own, in any part of the face, 0 to 1.",
}
"""Fields of `texgen.thresholds.Selection`, which has the defaults."""


class _Limit(click.ParamType):
    """A number from 0, or 'off', which is None."""

    name = "number"
    none = "off"  # what None is called in a saved file

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Return the number that was given."""
        if value == "off":
            return None
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        return limit if 0 <= limit < math.inf else self.fail(f"{value!r} is no number from 0, nor 'off'.", param, ctx)


class _Threshold(click.Option):
    """An option for a threshold; its default is looked up only when it is shown or used."""

    def get_default(self, ctx: click.Context, call: bool = True) -> float | str:
        """Return the default of `Selection`."""
        from texgen.thresholds import Selection

        limit = getattr(Selection(), self.name)
        return "off" if limit is None else limit


def _threshold_options(command: Callable) -> Callable:
    """Give a command an option for each threshold."""
    for name, text in reversed(_THRESHOLDS.items()):
        command = click.option(
            f"--{name.replace('_', '-')}", cls=_Threshold, type=_Limit(), metavar="NUMBER|off", show_default=True,
            help=text,
        )(command)
    return command


@click.group(cls=Group)
def build():
    """Build training datasets (HDF5 shards)."""


@build.command()
@_build_options(
    *_MODEL_OPTIONS,
    click.option("--compression", type=click.Choice(["none", "small"]), default="none", show_default=True,
                 help="Of dense maps. none: 0.79 MB a face of 256 pixels, fastest; small: a third, slower to write and "
                      "to read."),
    click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
                 help="What makes dense maps; their last digits may differ between the two."),
)
def asmd(root: Path, out_dir: Path, face_model: str, as_json: bool, **options):
    """Turn annotated photos under ROOT (300W-LP, AFLW2000-3D) into attribute map shards in OUT.

    The paper's ASMD are 60000 photos of 300W-LP (--count). A run that was stopped continues when started again.

    \b
    Example: dualface build asmd 300W_LP shards --face-model bfm.h5 --jobs 8
    On a cluster: dask scheduler; on each machine dask worker tcp://host:8786 --nthreads 1 --nworkers -1; then
      dualface build asmd /data/300W_LP /data/shards --backend dask --scheduler tcp://host:8786
    """
    from asmgen.build import build_asmd
    from bfm.model_file import load_model

    with _workers(options):
        summary = build_asmd(root, out_dir, load_model(face_model), progress=progress, **options)
    _tell(summary, as_json)


@build.command()
@_build_options(*_MODEL_OPTIONS)
@_threshold_options
@click.option("--lit", is_flag=True, help="Store the photo's colours as they are, not divided by the light.")
@click.option("--with-asm", "asmd_dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
              help="Also build attribute map shards (`build asmd`) of all photos into DIR, in the same pass.")
def ftd(root: Path, out_dir: Path, face_model: str, as_json: bool, **options):
    """Turn annotated photos under ROOT (300W-LP, AFLW2000-3D) into facial texture shards in OUT.

    Photos that fail a threshold are left out, with the reason; 'off' turns a threshold off. A run that was stopped
    continues when started again.

    \b
    Example: dualface build ftd 300W_LP textures --with-asm shards --face-model bfm.h5 --jobs 8
    """
    from bfm.model_file import load_model
    from texgen.build import build_ftd
    from texgen.thresholds import Selection

    with _workers(options):
        selection = Selection(**{name: options.pop(name) for name in _THRESHOLDS})
        summary = build_ftd(root, out_dir, load_model(face_model), selection=selection, progress=progress, **options)
    _tell(summary, as_json)


@build.command()
@_build_options(
    click.option("--landmarks", type=click.Path(exists=True, path_type=Path),
                 help="Where the faces are: a list with a row a photo, its name and x and y of 5 points (CelebA's "
                      "form) or of 68, in pixels from 0; or a folder of files of 68, named as the photos.  [default: "
                      "CelebA's list or the folder landmarks in ROOT; then files beside the photos]"),
    click.option("--boxes", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                 help="Where the faces are: a list with a row a photo, its name and left, top, right, bottom of the "
                      "face from eyebrows to chin, in pixels."),
    click.option("--detect/--no-detect", default=True,
                 help="Search where nothing else tells; needs pip install 'dualface[detect]'.  "
                      "[default: detect, where it is installed]"),
    shard_size=8192,
)
def faces(root: Path, out_dir: Path, as_json: bool, **options):
    """Cut the faces out of the photos under ROOT (CelebA, any folder) into image-only shards in OUT.

    For self-supervised training. Of several faces in a photo the largest is taken. A photo where none can be placed
    is left out, with the reason. A run that was stopped continues when started again.

    \b
    Example: dualface build faces celeba faces --jobs 8
    """
    from asmgen.face_crops import build_faces

    with _workers(options):
        summary = build_faces(root, out_dir, progress=progress, **options)
    _tell(summary, as_json)
