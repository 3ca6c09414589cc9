"""What commands print: bars, lines, JSON; more with `dualface -v`, less with `-q`."""

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs, in place of the text.")


def is_quiet() -> bool:
    """Whether `dualface -q` was given."""
    return _level("quiet")


def is_verbose() -> bool:
    """Whether `dualface -v` was given."""
    return _level("verbose")


def _level(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().params.get(name))


def progress(*arguments: Any, **settings: Any) -> Any:
    """Return a bar with rate and remaining time, as tqdm is called: on a terminal alone, and not with -q."""
    from tqdm import tqdm

    return tqdm(*arguments, disable=True if is_quiet() else None, dynamic_ncols=True, **settings)


def report(outcomes: Iterable[Any], count: int) -> None:
    """Print what became of each of `count` photos, an object with an `error` where it failed; SystemExit if any did."""
    failed = 0
    bar = progress(outcomes, total=count, unit="photo")
    for outcome in bar:
        failed += bool(outcome.error)
        if outcome.error or not is_quiet():
            bar.write(str(outcome), file=sys.stderr if outcome.error else sys.stdout)
    if failed:
        click.echo(f"{failed} of {count} photos failed", err=True)
        raise SystemExit(1)


def say(text: object) -> None:
    """Print what was done, but not with -q."""
    if not is_quiet():
        click.echo(text)


def show(value: Any, as_json: bool) -> None:
    """Print what was asked for as JSON, a dataclass or dicts and lists, where NaN and infinity are null; or as text."""
    click.echo(json.dumps(_plain(value), indent=2, allow_nan=False) if as_json else str(value))


def _plain(value: Any) -> Any:
    """What JSON holds of a value."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # a number or an array of numpy's
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
