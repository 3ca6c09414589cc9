"""What is watched of the gradients: how large they are, and that none which is not finite changes a weight."""

from __future__ import annotations

import math
from functools import partial

import torch


class GradientWatch:
    """While this is entered, measures the gradients each optimiser is about to use, and stops all at bad ones.

    From the first gradient on that is not finite no optimiser changes anything any more, so that the weights stay
    what they were when it was found. Nothing waits for a GPU: there it is the fused optimiser's kernel that looks at
    `found_inf`, as it does for PyTorch's gradient scaler. bfloat16 has the range of float32, so that nothing is scaled.

    Parameters
    ----------
    optimisers : dict[str, torch.optim.Optimizer]
        Of a task.

    Attributes
    ----------
    broken : bool
        Whether such a gradient was found; not known here of a GPU's.
    """

    def __init__(self, optimisers: dict[str, torch.optim.Optimizer]):
        self.broken, self._optimisers, self._norms, self._hooks = False, optimisers, {}, []
        self._found = None

    def __enter__(self) -> GradientWatch:
        for name, optimiser in self._optimisers.items():
            key = f"{name}_gradient_norm" if len(self._optimisers) > 1 else "gradient_norm"
            self._hooks.append(optimiser.register_step_pre_hook(partial(self._measure, key)))
        return self

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()
        for optimiser in self._optimisers.values():
            optimiser.found_inf = None

    def taken_norms(self) -> dict[str, torch.Tensor]:
        """Return the norms of the gradients used since the last call, each over all of an optimiser's weights."""
        norms, self._norms = self._norms, {}
        return norms

    @torch.no_grad()
    def _measure(self, key: str, optimiser: torch.optim.Optimizer, *_):
        weights = [weight for group in optimiser.param_groups for weight in group["params"] if weight.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([weight.grad for weight in weights])))
        self._norms[key] = norm
        if optimiser.defaults.get("fused"):
            found = (~norm.isfinite()).float()
            self._found = found if self._found is None else torch.maximum(self._found, found)
            optimiser.found_inf = self._found
        else:
            self.broken |= not math.isfinite(norm)
            if self.broken:
                for weight in weights:
                    weight.grad = None  # an optimiser leaves such weights, and what it keeps of them, alone
