"""Users' mistakes as one sentence instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def one_sentence(*others: type[Exception]) -> Iterator[None]:
    """Turn the errors that files, devices and callers' mistakes raise, and `others`, into click's."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output has gone; click ends quietly
        raise
    except (OSError, ValueError, *others) as error:
        raise click.ClickException(str(error)) from error
