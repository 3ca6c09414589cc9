"""`dualface train`: networks from shards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cli.command import Command, Group, face_model_option
from cli.config_file import save_command
from cli.errors import one_sentence
from cli.output import json_option, progress, say, tell


class Training(Command):
    """A command that saves what was asked while it runs (`_Log`)."""

    def save(self, ctx: click.Context) -> None:
        """Nothing more is to be saved."""


class TrainingGroup(Group):
    """The commands that train."""

    command_class = Training


@click.group(cls=TrainingGroup)
def train():
    """Train a network from shards.

    On several GPUs: torchrun --nproc-per-node 2 -m cli train ...; they share each batch.

    SIGTERM and Ctrl-C finish the step, save it and end with exit code 143 or 130, a second one ends at once; after
    any end --resume goes on as if there had been none.
    """


def run_options(learning_rate: float, batch_size: int = 8) -> Callable:
    """Return the decorator that gives a command what every training run takes; `run_settings` reads the rest of it."""
    options = (
        click.argument("shards", metavar="SHARDS...", nargs=-1, required=True,
                       type=click.Path(exists=True, path_type=Path)),
        click.option("-o", "--output", metavar="RUN", required=True, type=click.Path(file_okay=False, path_type=Path),
                     help="Folder of the run: checkpoint, config, log, curves."),
        click.option("--batch-size", type=click.IntRange(min=2), default=batch_size, show_default=True,
                     help="Samples a step; processes of torchrun share them."),
        click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=learning_rate,
                     show_default=True, help="Of Adam."),
        click.option("--augment/--no-augment", default=True, show_default=True, help="Crop jitter, mirroring, colour."),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                     help="Of weights, order and augmentation."),
        click.option("--validation-fraction", type=click.FloatRange(min=0, max=1, max_open=True), default=0.05,
                     show_default=True, help="Share of the identities held out; 0 holds none."),
        click.option("--validate-every", type=click.IntRange(min=1), default=1000, show_default=True,
                     help="Steps between validations on held-out identities, and between checkpoints."),
        click.option("--log-every", type=click.IntRange(min=1), default=50, show_default=True,
                     help="Steps a log line."),
        click.option("--workers", type=click.IntRange(min=0),
                     help="Processes that decode photos.  [default: for a GPU up to 8, on a CPU 0]"),
        click.option("--device", help="torch device.  [default: the GPU if there is one]"),
        click.option("--resume", is_flag=True,
                     help="Go on from the checkpoint in RUN; start where there is none yet."),
        json_option,
    )

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def run_settings(augment: bool, validate_every: int, corruption: float = 0.0, **settings) -> dict:
    """Return the fields of a config that the options of every run stand for, with those of its own."""
    from model.config import NO_AUGMENTATION, Augmentation

    if corruption and not augment:
        raise click.UsageError("--corruption is part of the augmentation; leave out --no-augment")
    augmentation = {"augmentation": Augmentation(corruption=corruption)} if corruption else {}
    return {
        **settings, **(augmentation if augment else {"augmentation": NO_AUGMENTATION}),
        "validate_every": validate_every, "checkpoint_every": validate_every,
    }


width_option = click.option(
    "--width", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
    help="Factor on every channel count; 1 is the paper.",
)
compile_option = click.option(
    "--compile", "compiled", is_flag=True,
    help="Fuse what lies between the convolutions, on a GPU: one to four minutes at the start, then up to twice as "
         "fast.",
)
corruption_option = click.option(
    "--corruption", type=click.FloatRange(min=0, max=1), default=0.0, show_default=True,
    help="Probability of each: the crop partly covered, grey, of harsh tones, blurred, noisy. For rendered photos, "
         "which are cleaner than real ones.",
)
shards_model = face_model_option("The model that SHARDS were built on.")


@train.command()
@run_options(learning_rate=2e-4)
@width_option
@compile_option
@corruption_option
@shards_model
@click.option("--parameter-steps", type=click.IntRange(min=0), default=20_000, show_default=True,
              help="Steps of the first phase: encoder and parameters (eq. 4).")
@click.option("--stream-steps", type=click.IntRange(min=0), default=180_000, show_default=True,
              help="Steps of the second phase: the whole stream (eq. 8).")
@click.option("--encoder-weights", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="VGG-Face or VGG-16 weights file for the encoder (width 1).  [default: from scratch]")
@click.option("--shape", type=click.Choice(["dual", "single", "linear"]), default="dual", show_default=True,
              help="Identity and expression map, or for comparison: one map of the whole face, or coefficients of the "
                   "face model.")
@click.option("--decoder-width", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
              help="Further factor on the channel counts of the decoders; a single one of 1.41 is as large as two.")
@click.option("--weighted/--no-weighted", default=True, show_default=True,
              help="Regions of the face weighted by W (eq. 5), or all alike.")
@click.option("--expression-weighted/--no-expression-weighted", default=False, show_default=True,
              help="These weights on the expression map, too; eq. 5 has them on the identity map alone.")
@click.option("--symmetry/--no-symmetry", default=None,
              help="Loss of eq. 6.  [default: symmetry; a single map has none]")
@click.option("--smoothness/--no-smoothness", default=True, show_default=True, help="Loss of eq. 7.")
def geometry(shards: tuple[Path, ...], output: Path, face_model: str, encoder_weights: Path | None,
             symmetry: bool | None, smoothness: bool, **settings):
    """Train the geometry stream on the attribute map shards in SHARDS.

    Several builds, of photos and of rendered faces for example, are trained on together. The paper's comparisons are
    runs with --shape single (Fig. 12), and with losses left out (Table III).

    \b
    Example: dualface train geometry shards -o run --workers 8
    """
    from bfm.model_file import load_model
    from model.config import GeometryConfig
    from model.train_geometry import train_geometry

    symmetry = settings["shape"] != "single" if symmetry is None else symmetry
    off: dict[str, Any] = {name: 0.0 for name, on in {"eta_s": symmetry, "eta_r": smoothness}.items() if not on}
    with _training(output, settings) as run:
        config = GeometryConfig(encoder_weights=str(encoder_weights or ""), **off, **run_settings(**settings))
        run.tell(train_geometry(shards, output, config, load_model(face_model), **run.options))


@train.command()
@run_options(learning_rate=2.5e-4)
@width_option
@corruption_option
@click.option("--steps", type=click.IntRange(min=1), default=100_000, show_default=True, help="Steps of the run.")
@click.option("--stacks", type=click.IntRange(min=1), default=4, show_default=True,
              help="Hourglasses, each refining the last one's heatmaps.")
def landmarks(shards: tuple[Path, ...], output: Path, **settings):
    """Train the landmark network on the photos and projected landmarks in SHARDS, of any kind.

    `train texture --landmarks` takes RUN, or a 3D-FAN file of the face-alignment package in its place.

    \b
    Example: dualface train landmarks shards -o run --workers 8
    """
    from model.config import LandmarkConfig
    from model.train_landmarks import train_landmarks

    with _training(output, settings) as run:
        config = LandmarkConfig(**run_settings(**settings))
        run.tell(train_landmarks(shards, output, config, **run.options))


@train.command()
@run_options(learning_rate=5e-4, batch_size=64)
@width_option
@click.option("--steps", type=click.IntRange(min=1), default=40_000, show_default=True, help="Steps of the run.")
@click.option("--depth", type=click.Choice(["18", "34", "50", "100"]), default="18", show_default=True,
              help="Layers of the iResNet.")
@click.option("--margin", type=click.FloatRange(min=0, max=1), default=0.5, show_default=True,
              help="Radians that a face must be closer to its own person than to another.")
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=64.0, show_default=True,
              help="Factor on the cosines, which are the logits.")
def identity(shards: tuple[Path, ...], output: Path, depth: str, **settings):
    """Train the network that tells people apart, for the identity loss (eq. 21), on SHARDS of kind asmd or ftd.

    All re-posed and mirrored copies of a photo are one person. `train fusion --identity` takes RUN, or an ArcFace
    file of insightface in its place.

    \b
    Example: dualface train identity shards -o run --workers 8
    """
    from model.config import IdentityConfig
    from model.train_identity import train_identity

    with _training(output, settings) as run:
        config = IdentityConfig(depth=int(depth), **run_settings(**settings))
        run.tell(train_identity(shards, output, config, **run.options))


@train.command()
@run_options(learning_rate=1e-4)
@width_option
@compile_option
@shards_model
@click.option("--steps", type=click.IntRange(min=1), default=200_000, show_default=True,
              help="Steps of the run; the learning rate falls to 0 over the second half.")
@click.option("--perceptual", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="torchvision's VGG-19 weights file, for the contextual loss (eq. 17).")
@click.option("--geometry", type=click.Path(exists=True, path_type=Path),
              help="Geometry run: its encoder stands in for VGG-19; --predicted-albedo needs it.")
@click.option("--landmarks", type=click.Path(exists=True, path_type=Path),
              help="Run of `train landmarks`, or a 3D-FAN file, for the landmark-guided regions (eq. 9).")
@click.option("--predicted-albedo/--annotated-albedo", default=False, show_default=True,
              help="Linear albedo I_u as the geometry run predicts it from the photo, or as annotated.")
@click.option("--regions", type=click.IntRange(min=1), default=16, show_default=True,
              help="Soft semantic regions n (srsm).")
@click.option("--stylisation", type=click.Choice(["srsm", "adain", "transform"]), default="srsm", show_default=True,
              help="By regions (eq. 13-14), or for comparison of the whole map: AdaIN, or a plain convolution.")
@click.option("--skips/--no-skips", default=True, show_default=True, help="Skip connections of the generator.")
@click.option("--landmark-branch/--no-landmark-branch", default=True, show_default=True,
              help="Landmarks guide the regions (srsm).")
@click.option("--reconstruction/--no-reconstruction", default=True, show_default=True, help="Loss of eq. 15.")
@click.option("--adversarial/--no-adversarial", default=True, show_default=True, help="Loss of eq. 16.")
@click.option("--contextual/--no-contextual", default=True, show_default=True, help="Loss of eq. 17.")
def texture(shards: tuple[Path, ...], output: Path, face_model: str, perceptual: Path | None, geometry: Path | None,
            landmarks: Path | None, reconstruction: bool, adversarial: bool, contextual: bool, **settings):
    """Train the texture stream on the facial texture shards in SHARDS.

    Two trained networks help: features that the contextual loss compares (--perceptual, or else --geometry), and the
    landmark network (--landmarks). Without them, give --no-contextual and --no-landmark-branch. Sheets of held-out
    faces are drawn into RUN/samples at each validation.

    \b
    Example: dualface train texture ftd -o run --geometry geometry_run --landmarks landmark_run --workers 8
    """
    from bfm.model_file import load_model
    from model.config import TextureConfig
    from model.train_texture import train_texture

    losses = {"omega_r": reconstruction, "omega_a": adversarial, "omega_c": contextual}
    off: dict[str, Any] = {name: 0.0 for name, on in losses.items() if not on}
    with _training(output, settings) as run:
        config = TextureConfig(**off, **run_settings(**settings))
        checkpoint = train_texture(
            shards, output, config, load_model(face_model), **run.options,
            perceptual=perceptual, geometry=geometry, landmarks=landmarks,
        )
        run.tell(checkpoint)


@train.command()
@run_options(learning_rate=5e-5)
@click.option("--geometry", metavar="RUN", required=True, type=click.Path(exists=True, path_type=Path),
              help="Geometry run to start from; or a fusion run, to go on from it on other photos.")
@click.option("--texture", metavar="RUN", type=click.Path(exists=True, path_type=Path),
              help="Texture run to start from; goes with a geometry run.")
@click.option("--identity", type=click.Path(exists=True, path_type=Path),
              help="ArcFace weights file, or run of `train identity`, for the identity loss (eq. 21).")
@click.option("--landmarks", type=click.Path(exists=True, path_type=Path),
              help="Run of `train landmarks`, or a 3D-FAN file, for the alignment loss (eq. 22).  [default: that of "
                   "the texture run]")
@click.option("--parsing", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="BiSeNet face parsing file: what hides the face is left out of the pixel loss.  [default: all that "
                   "is drawn counts]")
@face_model_option("The model that the runs were trained on.")
@click.option("--camera-distance", type=click.FloatRange(min=0, min_open=True), default=1000.0, show_default=True,
              help="Of the camera from the face model's origin, millimetres; inf is 300W-LP's orthographic camera.")
@click.option("--warm-up-steps", type=click.IntRange(min=0), default=500, show_default=True,
              help="Steps over which the learning rate rises to its value.")
@click.option("--steps", type=click.IntRange(min=1), default=20_000, show_default=True, help="Steps of the run.")
@click.option("--pixel/--no-pixel", default=True, show_default=True, help="Loss of eq. 20.")
@click.option("--identity-loss/--no-identity", default=True, show_default=True, help="Loss of eq. 21.")
@click.option("--alignment/--no-alignment", default=True, show_default=True, help="Loss of eq. 22.")
def fusion(shards: tuple[Path, ...], output: Path, face_model: str, geometry: Path, texture: Path | None,
           identity: Path | None, landmarks: Path | None, parsing: Path | None, pixel: bool, identity_loss: bool,
           alignment: bool, **settings):
    """Fine-tune a geometry and a texture stream together on the photos in SHARDS, of any kind, by rendering them.

    What else SHARDS hold of their faces is not trained on; it is compared with at each validation, on held-out
    identities, and sheets of those are drawn into RUN/samples. The first validation is before the first step.

    \b
    Example: dualface train fusion faces -o run --geometry geometry_run --texture texture_run --identity identity_run
    """
    from bfm.model_file import load_model
    from model.config import FusionConfig
    from model.train_fusion import train_fusion

    losses = {"lambda_pixel": pixel, "lambda_identity": identity_loss, "lambda_alignment": alignment}
    off: dict[str, Any] = {name: 0.0 for name, on in losses.items() if not on}
    with _training(output, settings) as run:
        config = FusionConfig(**off, **run_settings(**settings))
        checkpoint = train_fusion(
            shards, output, config, load_model(face_model), **run.options,
            geometry=geometry, texture=texture, identity=identity, landmarks=landmarks, parsing=parsing,
        )
        run.tell(checkpoint)


@contextmanager
def _training(output: Path, settings: dict) -> Iterator["_Run"]:
    """Train with the other processes that torchrun started, if it did, and say in one sentence what ended a run.

    Takes from the settings what only tells how to train.
    """
    import torch

    from model.data import default_workers
    from model.distributed import is_first, trains_on_gpu, training_processes
    from model.stopping import Stopped
    from model.trainer import check_new

    device, workers, resume, as_json = (settings.pop(name) for name in ("device", "workers", "resume", "as_json"))
    with one_sentence(FloatingPointError, torch.cuda.OutOfMemoryError), training_processes(device):
        if not resume:
            check_new(output)  # before networks are made, which takes its time
        workers = default_workers(trains_on_gpu(device)) if workers is None else workers
        try:
            yield _Run(as_json, device=device, workers=workers, resume=resume)
        except Stopped as stopped:
            if is_first():
                click.echo(str(stopped), err=True)
            raise click.exceptions.Exit(128 + stopped.number) from stopped  # as of a process that the signal ended


class _Run:
    """What a run is given, and what is told of it, by the first process."""

    def __init__(self, as_json: bool, **options: Any):
        self.options = {**options, "on_log": self._log, "progress": progress}
        self._as_json, self._saved = as_json, False

    def _log(self, record: dict) -> None:
        """Print a record on a line; with the first, when the folder is this run's own, save what was asked."""
        if not self._saved:
            save_command(click.get_current_context())
            self._saved = True
        if self._as_json:
            return
        values = record.get("validation", record)
        say(record["note"] if "note" in record else (
            f"step {record['step']}{'  validation' * ('validation' in record)}  "
            + "  ".join(f"{key} {value:.4g}" for key, value in values.items() if key != "step")
        ))

    def tell(self, checkpoint: Path) -> None:
        """Say where the result is, once."""
        from model.distributed import is_first

        if is_first():
            tell({"checkpoint": checkpoint}, f"wrote {checkpoint}", self._as_json)
