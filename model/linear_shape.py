"""Both attribute maps of the coefficients of a face model: what the maps of the network are compared with."""

from __future__ import annotations

import torch
from torch import nn

from asmgen.maps import AttributeMaps


class LinearShape(nn.Module):
    """f_L to A_id and A_exp by regressed coefficients, the shape of linear 3DMM methods.

    Two layers like those of PSN, Eq. (3), predict the coefficients; the rest of the stream and its losses, which are on
    the maps, stay the same, so only the representation differs. A shape outside the face model's span it cannot give.
    Mean and bases are part of the weights (12 S^2 bytes a mode).

    Parameters
    ----------
    incoming : int
        Length of f_L.
    hidden : int
        Outputs of the first layer.
    modes : tuple[int, int]
        Identity and expression coefficients.
    size : int
        S, side of the maps.
    """

    def __init__(self, incoming: int, hidden: int, modes: tuple[int, int], size: int):
        super().__init__()
        self.modes = modes
        self.layers = nn.Sequential(
            nn.Linear(incoming, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, sum(modes))
        )
        self.register_buffer("mean_map", torch.zeros(3, size, size))
        self.register_buffer("id_basis_map", torch.zeros(modes[0], 3, size, size))
        self.register_buffer("exp_basis_map", torch.zeros(modes[1], 3, size, size))
        with torch.no_grad():
            self.layers[-1].weight.mul_(0.01)  # the untrained network gives about the mean face, as the decoders do

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A_id and A_exp, (B, 3, S, S) each, of (B, C) features."""
        id_coeffs, exp_coeffs = self.layers(features).split(self.modes, 1)
        return (
            self.mean_map + torch.tensordot(id_coeffs, self.id_basis_map, 1),
            torch.tensordot(exp_coeffs, self.exp_basis_map, 1),
        )

    def start_from_(self, maps: AttributeMaps):
        """Take mean and bases of a map space, numpy."""
        for buffer, values in (
            (self.mean_map, maps.mean_map), (self.id_basis_map, maps.id_basis_map),
            (self.exp_basis_map, maps.exp_basis_map),
        ):
            buffer.copy_(torch.tensor(values))
