"""I_u, the linear albedo map that a face model's texture coefficients p_t stand for, in its chart."""

from __future__ import annotations

import torch
from torch import nn

from bfm.charts import Chart
from bfm.morphable_model import MorphableModel
from model.layers import full_precision


class LinearAlbedo(nn.Module):
    """p_t to I_u, with gradient: the albedo basis is unwrapped into the chart once (150 MB for 199 modes at 256).

    Parameters
    ----------
    model : MorphableModel
        Face part only, numpy. One without a texture basis takes no coefficients and gives its mean albedo.
    chart : Chart
        Its chart.

    Attributes
    ----------
    inside : torch.Tensor
        (S, S) bool, texels of the chart.
    """

    def __init__(self, model: MorphableModel, chart: Chart):
        super().__init__()
        # constants: they come from the model and the chart, not from a checkpoint
        self.register_buffer("mean_map", torch.tensor(chart.unwrap(model.mean_albedo)), persistent=False)
        basis_map = torch.tensor(chart.unwrap(model.albedo_basis)).flatten(1)
        self.register_buffer("basis_map", basis_map, persistent=False)
        self.register_buffer("inside", torch.tensor(chart.mask), persistent=False)

    def forward(self, coeffs: torch.Tensor) -> torch.Tensor:
        """Return I_u of (B, K) coefficients in standard deviations: (B, 3, S, S) in [0, 1], 0 outside the chart."""
        with full_precision(coeffs):
            maps = (coeffs.float() @ self.basis_map).view(-1, *self.mean_map.shape) + self.mean_map
        return maps.clamp(0, 1) * self.inside
