"""Runs that are told to end, by a machine that is taken away or by Ctrl-C: a step is finished and saved first."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from model.distributed import highest

SIGNALS = (signal.SIGTERM, signal.SIGINT)

REPEAT_SECONDS = 2.0
"""Signals this soon after the first are the same one: schedulers tell every process, torchrun tells them again."""

Found = TypeVar("Found")


class Stopped(Exception):
    """A run was told to end, and has saved what it had done.

    Parameters
    ----------
    done : int
        Steps.
    steps : int
        Of the whole run.
    number : int
        The signal.

    Attributes
    ----------
    number : int
        The signal.
    """

    def __init__(self, done: int, steps: int, number: int):
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}, {done} steps of {steps} are saved; go on with --resume")
        self.number = number


class _Told(BaseException):
    """Ends what may be abandoned; no `except Exception` on the way holds it up."""


class StopSignals:
    """While this is entered, the first SIGTERM or SIGINT is noted, and a later one ends the process at once.

    Signals come to the main thread; entered in another one, this notes none.

    Attributes
    ----------
    number : int
        The signal that the processes have `agreed` on, 0 for none.
    """

    def __init__(self):
        # what came to this process is written by `_take` alone: it may come while the processes agree
        self.number, self._taken, self._abandon, self._until, self._before = 0, 0, False, 0.0, {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None):
        if not self._taken:
            self._taken, self._until = number, time.monotonic() + REPEAT_SECONDS
            if self._abandon:
                raise _Told
        elif time.monotonic() > self._until:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def agreed(self) -> bool:
        """Return whether any of the processes that train together was told to end: the same in all of them."""
        self.number = highest(self._taken)
        return bool(self.number)

    def unless_told(self, work: Callable[[], Found]) -> Found | None:
        """Return what some work gives that changes nothing; None where it is left out or abandoned for a signal."""
        try:
            try:
                self._abandon = True
                return None if self._taken else work()
            finally:
                self._abandon = False
        except _Told:
            return None
