"""Numbers and texts of the Matlab v5-v7 files beside photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asmgen.source_files import read_file
from bfm.mat_file import parse_mat

MAX_BYTES = 1 << 24
"""Of a file, and of all its arrays decompressed; an annotation has a few thousand."""


def read_mat(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray | str]:
    """Return the arrays and texts of these names that a file holds.

    Parameters
    ----------
    path : Path
        A Matlab v5, v6 or v7 file.
    keys : tuple[str, ...]
        Names wanted; one that the file lacks, or holds as something else than numbers or text, is left out.

    Returns
    -------
    dict[str, np.ndarray | str]
        Arrays of the stored class and shape (2-D or more), texts as one string. ValueError if the file is of another
        kind, larger than `MAX_BYTES`, truncated or damaged.
    """
    found = parse_mat(read_file(path, MAX_BYTES), MAX_BYTES, keys)
    return {name: value for name, value in found.items() if isinstance(value, (np.ndarray, str))}
