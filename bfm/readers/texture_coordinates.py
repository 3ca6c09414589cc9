"""``BFM_UV.mat``: texture coordinates of the Basel Face Model 2009."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bfm.readers.sources import Source, open_source

# three vertices of the inner lip whose coordinates slipped in the file for the raw model, by vertex count
_SLIPPED = {53215: (10031, 10154, 10279), 53490: (10298, 10424, 10553)}
_FAR = 0.02


def read_uv(path: Path) -> np.ndarray:
    """Read texture coordinates as they are in the file.

    Parameters
    ----------
    path : Path
        A .mat file with `UV`.

    Returns
    -------
    np.ndarray
        (N, 2) float32 in [0, 1], u right, v up.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    source = open_source(path)
    if source.kind != "uv":
        raise ValueError(f"{path} must hold texture coordinates 'UV' as BFM_UV.mat does, got another kind of file")
    return _coordinates(source)


def uv_for(source: Source, trim: np.ndarray | None, triangles: np.ndarray, vertex_count: int) -> np.ndarray:
    """Return the texture coordinates of a model's vertices.

    Parameters
    ----------
    source : Source
        Of kind "uv".
    trim : np.ndarray | None
        (V,) vertices of the raw model that the model keeps, where known.
    triangles : np.ndarray
        (F, 3) triangles of the model.
    vertex_count : int
        V.

    Returns
    -------
    np.ndarray
        (V, 2) float32; the three slipped vertices of the published raw file are put amid their neighbours.

    Raises
    ------
    ValueError
        If the file is for another number of vertices.
    """
    uv = _coordinates(source)
    if len(uv) != vertex_count and trim is not None and len(trim) == vertex_count and trim.max() < len(uv):
        uv = uv[trim]
    if len(uv) != vertex_count:
        raise ValueError(
            f"{source.path} has texture coordinates of {len(uv)} vertices and the model has {vertex_count}; "
            "add the Model_info.mat whose trimIndex leads from one to the other, or another BFM_UV.mat"
        )
    slipped = np.array(_SLIPPED.get(vertex_count, ()), int)
    neighbours = {vertex: np.unique(triangles[(triangles == vertex).any(axis=1)]) for vertex in slipped.tolist()}
    sound = {vertex: np.setdiff1d(around, slipped) for vertex, around in neighbours.items()}
    moved = [vertex for vertex, around in sound.items() if np.linalg.norm(uv[vertex] - uv[around].mean(axis=0)) > _FAR]
    for vertex in moved:
        uv[vertex] = uv[sound[vertex]].mean(axis=0)
    for _ in range(50):  # they are neighbours of each other: relax until they settle apart
        for vertex in moved:
            uv[vertex] = uv[neighbours[vertex][neighbours[vertex] != vertex]].mean(axis=0)
    return uv


def _coordinates(source: Source) -> np.ndarray:
    uv = source.mat("UV")[0]
    if uv.ndim != 2 or uv.shape[1] != 2:
        raise ValueError(f"UV of {source.path} must have shape (N, 2), got {uv.shape}")
    if not (uv.min() >= 0 and uv.max() <= 1):
        raise ValueError(f"UV of {source.path} must lie in [0, 1], got {uv.min():g} to {uv.max():g}")
    return uv.astype(np.float32)
