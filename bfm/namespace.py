"""Functions that take numpy arrays or torch tensors alike find their library here."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np


def array_namespace(array: np.ndarray) -> ModuleType:
    """Return the library an array belongs to: numpy, or torch if it came from there (never imported here)."""
    return np if isinstance(array, (np.ndarray, np.generic)) else sys.modules["torch"]
