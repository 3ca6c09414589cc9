"""Arrays from ``.npy`` files of others: no objects, and no memory before the file is known to have the numbers."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

_DAMAGED = (
    ValueError, EOFError, TypeError, OverflowError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError,
)
"""What numpy raises for one damage of the header, which is Python's notation, or another."""


def read_npy(path: Path) -> np.ndarray:
    """Read one array of real numbers.

    Parameters
    ----------
    path : Path
        A ``.npy`` file.

    Returns
    -------
    np.ndarray
        Of the stored shape and type, in memory.

    Raises
    ------
    ValueError
        If the file is of another kind, cut short or damaged, or holds objects or other things than real numbers;
        FileNotFoundError if there is none.
    """
    try:
        # a mapped file must be as long as its header says
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGED as error:
        raise ValueError("it must be a whole .npy file without objects, and is none; get a complete copy") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError("it must hold one array of real numbers, and holds something else; save the array alone")
    return np.array(array)
