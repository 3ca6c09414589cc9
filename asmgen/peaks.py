"""The largest value of each face's attribute maps, exactly, for a hundredth of the arithmetic that makes the maps.

The chart is cut into tiles. The texel in the middle of a tile tells of the others: by the Cauchy-Schwarz inequality
``|(A - mean)(texel) - (A - mean)(middle)| <= |coefficients| * radius``, where ``radius`` is the largest distance of
their modes. Only tiles where this allows a value beyond the largest known one, or beyond 1, are evaluated.
Dimension key: B batch, K modes, S side of the chart, T tiles, once for each channel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from asmgen.maps import AttributeMaps

_TILE = 8  # texels a side
_ROUNDING = 1e-5  # map units: well above what float32 does to a bound
_KEPT = 512  # tiles of a map whose modes are kept side by side, 50 kB each: faces reach furthest at a few places


class MapPeaks:
    """Finds the largest values of maps that are not made.

    Parameters
    ----------
    maps : AttributeMaps
        The map space, in numpy.
    """

    def __init__(self, maps: AttributeMaps):
        self._maps = maps
        rows, columns = np.nonzero(maps.chart.mask)
        tile = rows // _TILE * maps.chart.size + columns // _TILE
        off_middle = np.hypot(rows % _TILE - _TILE / 2, columns % _TILE - _TILE / 2)
        order = np.lexsort([off_middle, tile])  # tile by tile, the middle first
        texels = (rows * maps.chart.size + columns)[order]
        starts = np.flatnonzero(np.diff(tile[order], prepend=-1))
        corners = [divmod(first, maps.chart.size) for first in tile[order][starts] * _TILE]
        self._squares = [
            (channel, slice(row, row + _TILE), slice(column, column + _TILE))
            for channel in range(3) for row, column in corners
        ]
        self._identity = _Bounds.of(maps.id_basis_map, maps.mean_map, texels, starts)
        self._expression = _Bounds.of(maps.exp_basis_map, np.zeros_like(maps.mean_map), texels, starts)

    def __call__(self, id_coeffs: np.ndarray, exp_coeffs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what both maps of each face reach.

        Parameters
        ----------
        id_coeffs : np.ndarray
            (B, K_id) float32, standard deviations.
        exp_coeffs : np.ndarray
            (B, K_exp) float32, standard deviations.

        Returns
        -------
        tuple[np.ndarray, np.ndarray]
            (B,) float32, the largest absolute value of A_id and A_exp; (B,) int32, how many of their values lie
            outside [-1, 1].
        """
        maps = self._maps
        jobs = (
            (self._identity, id_coeffs, maps.id_basis_map, maps.mean_map),
            (self._expression, exp_coeffs, maps.exp_basis_map, None),
        )
        found = [bounds.at(coeffs) for bounds, coeffs, _, _ in jobs]
        peaks = np.max([known for known, _ in found], axis=0)
        outside = np.zeros(len(peaks), np.int32)
        for (bounds, coeffs, basis_map, mean_map), (_, bound) in zip(jobs, found):
            tiles = np.flatnonzero((bound > np.minimum(peaks, 1)[:, None]).any(axis=0))
            for tile in tiles[np.argsort(-bound[:, tiles].max(axis=0), kind="stable")]:
                faces = np.flatnonzero(bound[:, tile] > np.minimum(peaks, 1))
                if len(faces):
                    square = self._squares[tile]
                    magnitude = coeffs[faces] @ bounds.modes(basis_map, tile, square)
                    if mean_map is not None:
                        magnitude += mean_map[square].ravel()
                    np.abs(magnitude, out=magnitude)
                    peaks[faces] = np.maximum(peaks[faces], magnitude.max(axis=1))
                    outside[faces] += np.count_nonzero(magnitude > 1, axis=1).astype(np.int32)
        return peaks, outside


@dataclass(frozen=True, eq=False)
class _Bounds:
    """What bounds the values of one map in each tile: the modes and the mean of its middle, how far the mean of its
    other texels lies above and below, and how far their modes lie from the middle's; and the modes of some tiles."""

    basis: np.ndarray
    mean: np.ndarray
    above: np.ndarray
    below: np.ndarray
    radius: np.ndarray
    kept: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, basis_map: np.ndarray, mean_map: np.ndarray, texels: np.ndarray, starts: np.ndarray) -> _Bounds:
        """Measure a map; `starts` are the tiles' first places in `texels`, where their middles are."""
        middles = texels[starts]
        own_middle = middles.repeat(np.diff(starts, append=len(texels)))
        mean = mean_map.reshape(3, -1)
        away = mean[:, texels] - mean[:, own_middle]
        squares = np.zeros_like(away)
        for mode in basis_map.reshape(len(basis_map), 3, -1):
            squares += (mode[:, texels] - mode[:, own_middle]) ** 2
        return cls(
            basis=basis_map.reshape(len(basis_map), 3, -1)[:, :, middles].reshape(len(basis_map), -1),
            mean=mean[:, middles].ravel(),
            above=np.maximum.reduceat(away, starts, axis=1).ravel(),
            below=-np.minimum.reduceat(away, starts, axis=1).ravel(),
            radius=np.sqrt(np.maximum.reduceat(squares, starts, axis=1)).ravel(),
        )

    def modes(self, basis_map: np.ndarray, tile: int, square: tuple) -> np.ndarray:
        """(K, texels) modes of a tile: to gather them from the whole map takes three times as long as their product."""
        if tile not in self.kept:
            if len(self.kept) == _KEPT:
                self.kept.clear()
            self.kept[tile] = basis_map[(slice(None), *square)].reshape(len(basis_map), -1)
        return self.kept[tile]

    def at(self, coeffs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B,) largest absolute value in the middles, and (B, T) bound of those in each tile."""
        values = coeffs @ self.basis + self.mean
        reach = np.linalg.norm(coeffs, axis=1)[:, None] * self.radius + _ROUNDING
        return np.abs(values).max(axis=1), np.maximum(values + self.above, self.below - values) + reach
