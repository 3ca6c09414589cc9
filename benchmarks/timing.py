"""Compare operations on one machine, fairly: they take turns, so that whatever else it does slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Timing(NamedTuple):
    """How long one operation took, over all rounds.

    Attributes
    ----------
    seconds : float
        Median by the clock on the wall.
    low, high : float
        Seconds that one round in ten stayed below, and above.
    process_seconds : float
        Median of processor time, all threads of this process together; child processes and a GPU do not count.
    """

    seconds: float
    low: float
    high: float
    process_seconds: float


def interleaved(
    functions: dict[str, Callable[[], object]], rounds: int, warm_up: int = 1,
    before: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time functions in turns, A B A B ...

    Parameters
    ----------
    functions : dict[str, Callable[[], object]]
        By name. One that works on a GPU has to wait until the device has finished.
    rounds : int
        How often each is timed.
    warm_up : int
        Untimed rounds before.
    before : Callable[[], object]
        Called before each function, untimed.

    Returns
    -------
    dict[str, Timing]
        Of each function, in their order.
    """
    taken = {name: [] for name in functions}
    for round_ in range(warm_up + rounds):
        for name, function in functions.items():
            before()
            wall, process = time.perf_counter(), time.process_time()
            function()
            wall, process = time.perf_counter() - wall, time.process_time() - process
            if round_ >= warm_up:
                taken[name].append((wall, process))
    return {name: _timing(*zip(*pairs)) for name, pairs in taken.items()}


def _timing(wall: tuple[float, ...], process: tuple[float, ...]) -> Timing:
    ordered, last = sorted(wall), len(wall) - 1
    low, high = (ordered[round(part * last)] for part in (0.1, 0.9))
    return Timing(statistics.median(ordered), low, high, statistics.median(process))
