"""What every command has: -q, -v and --config, before it or after it, and its options saved beside what it writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


class FaceModel(click.Path):
    """'open', or a file of `face-model convert`."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "model"  # what help shows


class OutputFile(click.Path):
    """A file to write, in a folder that is there: found out before the work, not after.

    Parameters
    ----------
    *endings : str
        Of its name; none allows any.
    """

    def __init__(self, *endings: str):
        super().__init__(dir_okay=False)
        self._endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if self._endings and path.suffix.lower() not in self._endings:
            self.fail(f"{str(path)!r} must end in {' or '.join(self._endings)}.", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"Directory {str(path.parent)!r} does not exist.", param, ctx)
        return path


PICTURE = OutputFile(".png", ".jpg", ".jpeg")
FACE_MODEL = FaceModel()


def face_model_option(text: str) -> Callable:
    """Return the decorator that gives a command --face-model, with its help text."""
    return click.option("--face-model", type=FACE_MODEL, default="open", show_default=True, help=text)


def _note(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    """Keep -q or -v for `cli.output`, in what the contexts of all words of the command line share."""
    if given:
        ctx.meta[f"dualface.{option.name}"] = True


def _take(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Read --config, before the other options take their defaults."""
    if path and not ctx.resilient_parsing:
        from cli.config_file import read_defaults

        ctx.default_map = {**(ctx.default_map or {}), **read_defaults(path, ctx)}


COMMON = [
    click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_note,
                 help="No progress bars, and no word of what was written; errors only."),
    click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_note,
                 help="With an error, also where in the program it came up."),
    click.Option(["--config"], metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                 is_eager=True, expose_value=False, callback=_take,
                 help="Take from a TOML file what is not typed: the command.toml beside an output, or an own one, with "
                      "a table a command, [build.asmd], and keys as options, jobs = 8."),
]
"""Options of all commands and groups, behind their own."""


class Command(click.Command):
    """A command that also takes `COMMON`, and leaves beside each of its outputs a file that repeats it."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return its own parameters, the common ones and --help."""
        return _with_common(self, super().get_params(ctx))

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what was asked is saved when it is done, also for a part of the photos (exit code 1) alone."""
        try:
            result = super().invoke(ctx)
        except SystemExit:
            self.save(ctx)
            raise
        self.save(ctx)
        return result

    def save(self, ctx: click.Context) -> None:
        """Save what was asked beside the outputs that there are."""
        if any(map(is_output, self.params)):
            from cli.config_file import save_command
            from cli.errors import one_sentence

            with one_sentence():
                save_command(ctx)


class Group(click.Group):
    """A group of such commands, which takes `COMMON`, too."""

    command_class = Command

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return its own parameters, the common ones and --help."""
        return _with_common(self, super().get_params(ctx))


def _with_common(command: click.Command, params: list[click.Parameter]) -> list[click.Parameter]:
    """`COMMON` behind a command's own parameters, before what click adds."""
    own = len(command.params)
    return [*params[:own], *COMMON, *params[own:]]


def is_output(parameter: click.Parameter) -> bool:
    """Return whether a parameter names what a command writes: a path that need not exist."""
    kind = parameter.type
    return isinstance(kind, click.Path) and not kind.exists and not isinstance(kind, FaceModel)
