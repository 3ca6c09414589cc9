"""`--config FILE`: options from a TOML file, a table a command; and such a file beside every output, to repeat it.

    [build.asmd]
    root = "300W_LP"
    face-model = "bfm.h5"
    jobs = 8

Keys are the long options without dashes, and arguments by their names here; paths start at the folder of the file.
What is typed wins.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from cli.command import FaceModel, is_output

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SAVED_NAME = "command.toml"
"""Of the file in an output folder; beside an output file it is called as that, with ``.toml`` behind."""

_UNSAVED = {"jobs", "backend", "scheduler", "workers", "resume", "repair", "as_json"}
"""How the work is done and told, and not what comes out: the saved file is the same whatever they are."""


def read_defaults(path: Path, context: click.Context) -> dict:
    """Return what click takes as the defaults of a command, or of a group's commands (`Context.default_map`).

    Parameters
    ----------
    path : Path
        TOML file, see the module.
    context : click.Context
        Of the command or group.

    Returns
    -------
    dict
        Its part of the file, with the names of parameters in place of keys.

    Raises
    ------
    click.UsageError
        If the file is no TOML, says nothing of the command, or names a command or an option that there is not.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"{path} must be a TOML file, and is not: {error}") from error
    root = context.find_root()
    defaults = _of_group(tables, root.command, root, path, ())
    for word in _words(context):
        if word not in defaults:
            wanted, got = ".".join(_words(context)), ", ".join(_names(tables)) if tables else "none"
            raise click.UsageError(f"{path} must have a table [{wanted}], got {got}")
        defaults = defaults[word]
    return defaults


def _words(context: click.Context) -> list[str]:
    """What leads from `dualface` to a command."""
    return [*_words(context.parent), str(context.info_name)] if context.parent else []


def _names(table: dict, words: tuple[str, ...] = ()) -> list[str]:
    """The tables of a file."""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    return [name for key in inner for name in _names(inner[key], (*words, key))] if inner else [f"[{'.'.join(words)}]"]


def _of_group(tables: dict, group: Any, context: click.Context, path: Path, words: tuple[str, ...]) -> dict:
    """Tables of a group's commands."""
    known = group.list_commands(context)
    defaults = {}
    for name, table in tables.items():
        here = ".".join((*words, name))
        if name not in known or not isinstance(table, dict):
            raise click.UsageError(
                f"{path}: tables must be commands of `{' '.join(('dualface', *words))}` ({', '.join(known)}), got "
                f"{here!r}"
            )
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            defaults[name] = _of_group(table, command, context, path, (*words, name))
        else:
            defaults[name] = _of_command(table, command, path, here)
    return defaults


def _of_command(table: dict, command: click.Command, path: Path, here: str) -> dict:
    """What is given to a command, by the names of its parameters."""
    parameters = {
        name.lstrip("-").replace("_", "-"): parameter for parameter in command.params for name in parameter.opts
        if isinstance(parameter, click.Argument) or name.startswith("--")
    }
    defaults = {}
    for name, value in table.items():
        if name not in parameters:
            raise click.UsageError(f"{path}: [{here}] has the option {name!r}, must be among {', '.join(parameters)}")
        parameter = parameters[name]
        several = parameter.multiple or parameter.nargs != 1
        if isinstance(value, dict) or isinstance(value, list) and not several:
            raise click.UsageError(f"{path}: {name} of [{here}] must be one value, got {value}")
        value = [value] if several and not isinstance(value, list) else value
        if isinstance(parameter.type, click.Path):
            if not all(isinstance(part, str) for part in (value if several else [value])):
                raise click.UsageError(f"{path}: {name} of [{here}] must be a path in quotes, got {value}")
        defaults[parameter.name] = _each(parameter, value, lambda place: _from_folder(place, path.parent))
    return defaults


def _each(parameter: click.Parameter, value: Any, change: Any) -> Any:
    """A value, or several, with the paths in it changed."""
    if isinstance(value, (list, tuple)):
        return [_each(parameter, part, change) for part in value]
    is_word = isinstance(parameter.type, FaceModel) and value == "open"
    return change(os.fspath(value)) if isinstance(parameter.type, click.Path) and not is_word else value


def _from_folder(place: str, folder: Path) -> str:
    """A path that starts at a folder, from where the program runs; by its words, as links may lead elsewhere."""
    return os.path.normpath(os.path.join(folder, place))


def _to_folder(place: str, folder: Path, always: bool) -> str:
    """What `_from_folder` makes a path of."""
    if os.path.isabs(place) and not always:
        return place
    try:
        return Path(os.path.relpath(place, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return os.path.abspath(place)


def save_command(context: click.Context) -> None:
    """Write beside each output of a command, where there is one, what was asked: typed, from a file, or by default.

    Parameters
    ----------
    context : click.Context
        Of the command, which has run. OSError is raised if a file cannot be written.
    """
    from asmgen.dataset_files import write_whole

    for parameter in filter(is_output, context.command.params):
        place = context.params[parameter.name]
        if not place or not (place.is_dir() or place.is_file()):  # there is none, or it is a device
            continue
        path = place / SAVED_NAME if place.is_dir() else place.with_name(f"{place.name}.toml")
        text = command_text(context, path.parent).encode()
        if not path.exists() or path.read_bytes() != text:
            write_whole(path, text)


def command_text(context: click.Context, folder: Path) -> str:
    """Return the file that repeats a command, to be kept in a folder; nothing in it tells when it ran.

    Parameters
    ----------
    context : click.Context
        Of the command.
    folder : Path
        Where paths in it start.

    Returns
    -------
    str
        TOML for `read_defaults`, without options that have no value, and those that only tell how the work is done.
    """
    try:
        program = f"dualface {version('dualface')}"
    except PackageNotFoundError:  # run from its source
        program = "dualface"
    words = _words(context)
    lines = [f"# {program}; to repeat it: dualface {' '.join(words)} --config FILE", f"[{'.'.join(words)}]"]
    for parameter in context.command.params:
        value = context.params[parameter.name]
        value = getattr(parameter.type, "none", None) if value is None else value
        if parameter.name not in _UNSAVED and value is not None:
            # a path from the root stays, but of what is written, which goes along when folders are moved
            value = _each(parameter, value, partial(_to_folder, folder=folder, always=is_output(parameter)))
            lines.append(_line(max(parameter.opts, key=len).lstrip("-").replace("_", "-"), value))
    return "\n".join([*lines, ""])


def _line(key: str, value: Any) -> str:
    """One option; of a path that is no Unicode, which TOML must be, that it has to be typed."""
    line = f"{key} = {_toml(value)}"
    return f"# {key} is no Unicode: type it" if re.search("[\ud800-\udfff]", line) else line


def _toml(value: bool | float | str | Sequence) -> str:
    """A value as TOML writes it."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
