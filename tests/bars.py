"""Progress bars that tests look at."""

import io
from typing import Any

from tqdm import tqdm


class Bars:
    """Called as tqdm is, makes bars that are drawn nowhere, and keeps them."""

    def __init__(self):
        self.made: list[tqdm] = []

    def __call__(self, *arguments: Any, **settings: Any) -> tqdm:
        """Return a bar."""
        self.made.append(tqdm(*arguments, file=io.StringIO(), **settings))
        return self.made[-1]

    def counts(self) -> list[tuple]:
        """Of each bar its unit, where it began, where it is, and how many there are; none is left open."""
        assert all(bar.disable for bar in self.made)  # as closed ones are
        return [(bar.unit, bar.initial, bar.n, bar.total) for bar in self.made]
