"""Identity and expression attribute spatial maps (ASMs) as linear maps of the coefficients.

The chart is fixed, so the bases are unwrapped into it once; a batch of maps is then one matrix product.
Nothing is rasterised per image. Dimension key: B batch, K modes, V vertices, S side of the chart in texels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from bfm.charts import Chart
from bfm.morphable_model import MorphableModel
from bfm.sampling import bilinear_taps


@dataclass(frozen=True, eq=False)
class AttributeMaps:
    """The map space of a face model in a chart.

    ``A_id = (UV(neutral) - centre) / scale`` and ``A_exp = UV(offset) / scale``. One centre and one scale serve
    both maps, so ``I_g = A_id + A_exp`` (eq. 2 of the paper) holds exactly. Texels outside the chart are 0. The
    arrays are numpy, or torch tensors after `to`.

    Attributes
    ----------
    chart : Chart
        The UV chart.
    centre : np.ndarray
        (3,) float32, mm: the origin of the maps, on the mirror plane (x = 0), so that mirroring negates x.
    scale : float
        Millimetres a map unit; keeps the mean face +-3 standard deviations inside [-1, 1], the range of tanh.
    mean_map : np.ndarray
        (3, S, S) float32: A_id of the mean face.
    id_basis_map, exp_basis_map : np.ndarray
        (K, 3, S, S) float32, map units a standard deviation.
    vertex_texels : np.ndarray
        (V, 4) flat indices of the four texels around each vertex.
    vertex_weights : np.ndarray
        (V, 4) float32: their bilinear weights.
    """

    chart: Chart
    centre: np.ndarray
    scale: float
    mean_map: np.ndarray
    id_basis_map: np.ndarray
    exp_basis_map: np.ndarray
    vertex_texels: np.ndarray
    vertex_weights: np.ndarray

    @classmethod
    def from_model(cls, model: MorphableModel, chart: Chart) -> AttributeMaps:
        """Unwrap the bases of a model (`MorphableModel.face_only`) into its chart."""
        centre, scale = map_normalization(model)
        texels, weights = bilinear_taps(chart.vertex_pixels, chart.size, chart.size)
        return cls(
            chart=chart, centre=centre, scale=scale,
            mean_map=chart.unwrap((model.mean_shape - centre) / np.float32(scale)),
            id_basis_map=chart.unwrap(model.id_basis / np.float32(scale)),
            exp_basis_map=chart.unwrap(model.exp_basis / np.float32(scale)),
            vertex_texels=texels, vertex_weights=weights,
        )

    def to(self, device: str) -> AttributeMaps:
        """Return the same maps with torch tensors on `device`; `chart` stays as it is."""
        import torch

        arrays = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)}
        return replace(self, **{key: torch.as_tensor(array).to(device) for key, array in arrays.items()})

    def identity_map(self, id_coeffs: np.ndarray) -> np.ndarray:
        """Return A_id, (B, 3, S, S), for (B, K_id) identity coefficients in standard deviations."""
        return self.mean_map + _combine(id_coeffs, self.id_basis_map)

    def expression_map(self, exp_coeffs: np.ndarray) -> np.ndarray:
        """Return A_exp, (B, 3, S, S), for (B, K_exp) expression coefficients in standard deviations."""
        return _combine(exp_coeffs, self.exp_basis_map)

    def sample(self, maps: np.ndarray) -> np.ndarray:
        """Read maps at the vertices, bilinearly: (..., 3, S, S) -> (..., V, 3), map units."""
        flat = maps.reshape(*maps.shape[:-2], -1)
        at_vertices = (flat[..., self.vertex_texels] * self.vertex_weights).sum(-1)
        return at_vertices.swapaxes(-1, -2)

    def vertices(self, full_map: np.ndarray) -> np.ndarray:
        """Return the shape that a map holds.

        Parameters
        ----------
        full_map : np.ndarray
            (..., 3, S, S) ``I_g = A_id + A_exp``, or A_id alone for the neutral face.

        Returns
        -------
        np.ndarray
            (..., V, 3) vertices, mm; off by the chart's round-trip error (`bfm.charts.round_trip_error`).
        """
        return self.sample(full_map) * self.scale + self.centre


def map_normalization(model: MorphableModel) -> tuple[np.ndarray, float]:
    """Return the centre (3,), mm, and the scale, mm a map unit, that keep mean +-3 sigma inside [-1, 1]."""
    low, high = model.mean_shape.min(axis=0), model.mean_shape.max(axis=0)
    centre = ((low + high) / 2).astype(np.float32)
    centre[0] = 0
    bases = (model.id_basis, model.exp_basis)
    variance = sum(np.einsum("kvc,kvc->vc", basis, basis, dtype=np.float64) for basis in bases)
    reach = np.abs(model.mean_shape - centre) + 3 * np.sqrt(variance)
    return centre, float(np.ceil(1000 * reach.max()) / 1000)  # whole micrometres: equal on every machine


def _combine(coeffs: np.ndarray, basis_map: np.ndarray) -> np.ndarray:
    """Sum the modes: (B, K) coefficients times a (K, 3, S, S) basis."""
    if coeffs.ndim != 2 or coeffs.shape[1] != len(basis_map):
        raise ValueError(f"coefficients must have shape (B, {len(basis_map)}), got {tuple(coeffs.shape)}")
    return (coeffs @ basis_map.reshape(len(basis_map), -1)).reshape(len(coeffs), *basis_map.shape[1:])
