"""What commands print: bars, lines, JSON; more with -v, less with -q."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs, in place of the text.")


def is_quiet() -> bool:
    """Whether -q was given."""
    return _is_noted("quiet")


def is_verbose() -> bool:
    """Whether -v was given."""
    return _is_noted("verbose")


def _is_noted(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(f"dualface.{name}"))


def progress(*arguments: Any, **settings: Any) -> Any:
    """Return a bar with rate and remaining time, as tqdm is called: on a terminal alone, and not with -q."""
    from tqdm import tqdm

    return tqdm(*arguments, disable=True if is_quiet() else None, dynamic_ncols=True, **settings)


def report(outcomes: Iterable[Any], count: int, as_json: bool = False) -> None:
    """Print what became of each of `count` photos, an object with an `error` where it failed; SystemExit if any did.

    JSON is one document when all are done, with every outcome; errors go to stderr in either case.
    """
    done, failed = [], 0
    for outcome in progress(outcomes, total=count, unit="photo"):
        failed += bool(outcome.error)
        if outcome.error:
            _line(outcome, err=True)
        elif not as_json:
            say(outcome)
        if as_json:
            done.append(outcome)
    if as_json:
        show({"photos": done, "failed": failed}, as_json)
    if failed:
        click.echo(f"{failed} of {count} photos failed", err=True)
        raise SystemExit(1)


def say(text: object) -> None:
    """Print what was done, but not with -q."""
    if not is_quiet():
        _line(text)


def _line(text: object, err: bool = False) -> None:
    """Print a line, above a bar if there is one."""
    from tqdm import tqdm

    with tqdm.external_write_mode():
        click.echo(text, err=err)


def tell(facts: dict, text: str, as_json: bool) -> None:
    """Print what was written: as JSON, or in a sentence, which -q leaves out."""
    if as_json:
        show(facts, as_json)
    else:
        say(text)


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
