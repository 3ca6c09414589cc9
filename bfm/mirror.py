"""Which vertex is whose twin under x -> -x."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

_FLIP = np.array([-1, 1, 1], np.float32)
_CANDIDATES = 8


def mirror_map(mean_shape: np.ndarray) -> np.ndarray:
    """Pair each vertex with the one nearest to its mirror image.

    Vertices that choose each other are paired, the rest choose again among the unpaired; one without a partner
    in its neighbourhood keeps its nearest. The map is an involution on all that were paired.

    Parameters
    ----------
    mean_shape : np.ndarray
        (V, 3) mm; the mirror plane is x = 0.

    Returns
    -------
    np.ndarray
        (V,) int32.
    """
    own = np.arange(len(mean_shape))
    nearest = np.arange(min(_CANDIDATES, len(mean_shape))) + 1
    distance, candidates = cKDTree(mean_shape).query(mean_shape * _FLIP, k=nearest)
    twin = np.full(len(mean_shape), -1)
    while True:
        open_distance = np.where(twin[candidates] < 0, distance, np.inf)
        choice = candidates[own, open_distance.argmin(axis=1)]
        paired = (twin < 0) & (choice[choice] == own)
        if not paired.any():
            return np.where(twin < 0, candidates[:, 0], twin).astype(np.int32)
        twin[paired] = choice[paired]


def asymmetry(mean_shape: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Return the distance of each vertex from the mirror image of its twin.

    Parameters
    ----------
    mean_shape : np.ndarray
        (V, 3) mm.
    mirror : np.ndarray
        (V,) twins.

    Returns
    -------
    np.ndarray
        (V,) mm.
    """
    return np.linalg.norm(mean_shape[mirror] * _FLIP - mean_shape, axis=1)
