"""Users' mistakes as one sentence instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def one_sentence(*others: type[Exception]) -> Iterator[None]:
    """Turn the errors that libraries raise for callers' mistakes, and `others`, into click's."""
    try:
        yield
    except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError, ValueError, *others) as error:
        raise click.ClickException(str(error)) from error
