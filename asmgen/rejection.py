"""Why a photo gives no sample: one error for every step from its file to its shard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asmgen.source_files import printable


class SampleError(ValueError):
    """Why one sample cannot be used.

    Parameters
    ----------
    kind : str
        The reason in a few fixed words, to count by.
    detail : str
        What was wanted, what was found, and what to do; made `printable`.
    preview : bytes
        A small JPEG of the photo, for people, where that helps.
    """

    def __init__(self, kind: str, detail: str, preview: bytes = b""):
        detail = printable(detail)
        super().__init__(kind, detail, preview)
        self.kind, self.detail, self.preview = kind, detail, preview

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@contextmanager
def rejecting(kind: str) -> Iterator[None]:
    """Turn what a step says about its input (ValueError) into a `SampleError` of this kind."""
    try:
        yield
    except SampleError:
        raise
    except ValueError as error:
        raise SampleError(kind, str(error)) from error
