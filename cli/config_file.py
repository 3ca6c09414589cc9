"""`dualface --config FILE`: options from a TOML file, a table a command; what is typed wins.

    [build.asmd]
    face-model = "bfm.h5"
    jobs = 8
"""

import sys
from pathlib import Path
from typing import Any

import click

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_defaults(path: Path, context: click.Context) -> dict:
    """Return what click takes as the defaults of a group's commands (`Context.default_map`).

    Parameters
    ----------
    path : Path
        TOML file: tables are named as the commands are, keys as their long options without dashes in front.
    context : click.Context
        Of the group.

    Returns
    -------
    dict
        The same, with the names of parameters in place of those of options.

    Raises
    ------
    click.UsageError
        If the file is no TOML, or names a command or an option that there is not.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"{path} must be a TOML file, and is not: {error}") from error
    return _of_group(tables, context.command, context, path, ())


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
    """Options of a command, by the names of its parameters."""
    options = {
        name.lstrip("-"): parameter.name
        for parameter in command.params if isinstance(parameter, click.Option)
        for name in parameter.opts if name.startswith("--")
    }
    for name in table:
        if name not in options:
            raise click.UsageError(f"{path}: [{here}] has the option {name!r}, must be among {', '.join(options)}")
    return {options[name]: value for name, value in table.items()}
