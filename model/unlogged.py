"""The losses of the steps since the last line of the log."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from model.distributed import average


class NotFinite(Exception):
    """A step is not finite.

    Parameters
    ----------
    step : int
        From 0.
    losses : dict[str, float]
        All of its losses; empty where it did not come to them.
    reason : str
        Why it did not.

    Attributes
    ----------
    step : int
        From 0.
    losses : dict[str, float]
        All of its losses; empty where it did not come to them.
    reason : str
        Why it did not.
    """

    def __init__(self, step: int, losses: dict[str, float], reason: str = ""):
        super().__init__(step, losses, reason)
        self.step, self.losses, self.reason = step, losses, reason


class Unlogged:
    """Losses, kept on the device: nothing waits for it until they are asked for.

    Parameters
    ----------
    since : int
        Steps done at the last line.
    steps : Sequence[dict[str, float]]
        Losses of the steps since then, from a checkpoint that was saved between two lines.
    """

    def __init__(self, since: int, steps: Sequence[dict[str, float]] = ()):
        self._since, self._steps, self._kept = since, list(steps), []

    def __len__(self) -> int:
        return len(self._steps) + len(self._kept)

    def add(self, losses: dict[str, torch.Tensor]):
        """Keep the losses of a further step, scalars."""
        self._kept.append((tuple(losses), torch.stack(list(losses.values()))))

    def steps(self) -> list[dict[str, float]]:
        """Return the losses of each step, over all processes; `NotFinite` names the first that has none."""
        if self._kept:
            values = iter(average(torch.cat([row for _, row in self._kept])).tolist())  # the one wait for the device
            self._steps += [dict(zip(keys, values)) for keys, _ in self._kept]
            self._kept = []
        for step, losses in enumerate(self._steps, self._since):
            if not all(map(math.isfinite, losses.values())):
                raise NotFinite(step, losses)
        return self._steps

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the steps that have it; errors are those of `steps`."""
        found = {}
        for losses in self.steps():
            for key, value in losses.items():
                found.setdefault(key, []).append(value)
        return {key: sum(values) / len(values) for key, values in found.items()}
