"""The harmonic chart of the open face model, solved beforehand: five sparse solves less at every start.

The file holds the left half of the coordinates, whole steps of the grid that charts are rounded to (`bfm.charts`),
and a digest of what they follow from; whatever else a mesh is, its chart is solved. After a change of either,
``python -m bfm.solved_charts`` writes the file anew, and a test tells whether that is due.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from bfm.morphable_model import MorphableModel

CHART_FILE = Path(__file__).parent / "open_face" / "harmonic_chart.npz"
GRID = 2**18
"""Charts are rounded to this grid, a thousandth of a texel: 1 - u is exact on it, and the last digits of a sparse
solve, which differ between machines, do not reach the shards."""


def solved_uv(face: MorphableModel, path: Path = CHART_FILE) -> np.ndarray | None:
    """Return the (V, 2) float64 harmonic chart of a face, if it is the one that was solved beforehand.

    Parameters
    ----------
    face : MorphableModel
        Face part only.
    path : Path
        Of the file.

    Returns
    -------
    np.ndarray | None
        u and v in [0, 1], whole steps of `GRID`; None for any other face.
    """
    with np.load(path) as solved:
        if str(solved["digest"]) != _digest(face):
            return None
        half = solved["steps"] / GRID
    left = _left(face)
    uv = np.empty((len(face.mirror), 2))
    uv[face.mirror[left]] = half * [-1, 1] + [1, 0]
    uv[left] = half
    return uv


def save_solved(face: MorphableModel, uv: np.ndarray, path: Path = CHART_FILE):
    """Write the chart (V, 2), mirror-symmetric and on the grid, of a face."""
    steps = np.rint(np.asarray(uv, np.float64)[_left(face)] * GRID).astype(np.int32)
    np.savez_compressed(path, digest=_digest(face), steps=steps)


def _left(face: MorphableModel) -> np.ndarray:
    return np.flatnonzero(np.arange(len(face.mirror)) <= face.mirror)


def _digest(face: MorphableModel) -> str:
    """Of all that a harmonic chart follows from."""
    digest = hashlib.sha256()
    for values in (face.mean_shape, face.triangles, face.mouth_triangles, face.mirror):
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


if __name__ == "__main__":
    from bfm.charts import harmonic_uv
    from bfm.open_face import open_face_model

    save_solved(open_face_model(), harmonic_uv(open_face_model()))
