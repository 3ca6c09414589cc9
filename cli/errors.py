"""Users' mistakes as one sentence instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn the errors that libraries raise for callers' mistakes into click's."""
    try:
        yield
    except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError, ValueError) as error:
        raise click.ClickException(str(error)) from error
