"""Users' mistakes as one sentence instead of a traceback."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from cli.output import is_verbose


@contextmanager
def one_sentence(*others: type[Exception]) -> Iterator[None]:
    """Turn the errors that files, devices and callers' mistakes raise, and `others`, into click's."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output has gone; click ends quietly
        raise
    except (OSError, ValueError, *others) as error:  # type: ignore[misc]  # mypy knows no star here
        if is_verbose():
            traceback.print_exc()
        raise click.ClickException(str(error)) from error
