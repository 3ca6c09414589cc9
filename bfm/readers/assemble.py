"""From the arrays of a file, in our units, to a `MorphableModel`: what a format leaves out is derived here."""

from __future__ import annotations

import numpy as np

from bfm.mirror import mirror_map
from bfm.morphable_model import MorphableModel
from bfm.mouth import close_mouth
from bfm.regions import label_regions

_FAR = 1e5  # mm
GREY = np.float32(0.5)


def points(vector: np.ndarray, unit: float, what: str) -> np.ndarray:
    """Return an xyz-interleaved vector as points.

    Parameters
    ----------
    vector : np.ndarray
        3 V numbers in any shape.
    unit : float
        What one of them is in our unit, such as 1e-3 for micrometres.
    what : str
        Name for the error message.

    Returns
    -------
    np.ndarray
        (V, 3) float32.

    Raises
    ------
    ValueError
        If the numbers are no multiple of 3.
    """
    if vector.size == 0 or vector.size % 3:
        raise ValueError(f"{what} must hold x, y, z of each vertex, got {vector.size} numbers")
    with np.errstate(over="ignore", invalid="ignore"):  # `assemble` refuses what is not finite
        return (vector.reshape(-1, 3) * np.float64(unit)).astype(np.float32)


def modes(basis: np.ndarray, stddev: np.ndarray, unit: float, vertex_count: int, what: str) -> np.ndarray:
    """Return the columns of a basis, each times its standard deviation.

    Parameters
    ----------
    basis : np.ndarray
        (3 V, K), rows xyz-interleaved.
    stddev : np.ndarray
        (K,) standard deviations.
    unit : float
        What one unit of `basis * stddev` is in ours.
    vertex_count : int
        V, for the check.
    what : str
        Name for the error message.

    Returns
    -------
    np.ndarray
        (K, V, 3) float32.

    Raises
    ------
    ValueError
        If basis, standard deviations and vertices do not match.
    """
    if basis.ndim != 2 or basis.shape[0] != 3 * vertex_count:
        raise ValueError(
            f"{what} must have shape ({3 * vertex_count}, K) to match {vertex_count} vertices, got {basis.shape}"
        )
    if stddev.shape != (basis.shape[1],):
        raise ValueError(
            f"the standard deviations of {what} must be {basis.shape[1]}, one a mode, got shape {stddev.shape}"
        )
    out = np.empty((basis.shape[1], vertex_count, 3), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # `assemble` refuses what is not finite
        for mode, factor in enumerate(stddev.astype(np.float64) * unit):
            out[mode] = (basis[:, mode] * factor).reshape(-1, 3)
    return out


def triangle_list(array: np.ndarray, first: int, vertex_count: int, what: str) -> np.ndarray:
    """Return (F, 3) int32 triangles from 0, of a (3, F) or (F, 3) list that counts from `first`."""
    if array.ndim != 2 or 3 not in array.shape:
        raise ValueError(f"{what} must have shape (3, F) or (F, 3), got {array.shape}")
    with np.errstate(invalid="ignore"):  # NaN becomes no vertex
        triangles = (array.T if array.shape[0] == 3 else array).astype(np.int64) - first
    if len(triangles) == 0 or triangles.min() < 0 or triangles.max() >= vertex_count:
        raise ValueError(
            f"{what} must hold vertex numbers {first} to {vertex_count - 1 + first}, "
            f"got {array.min() if array.size else 'none'} to {array.max() if array.size else 'none'}"
        )
    return triangles.astype(np.int32)


def vertex_list(array: np.ndarray, first: int, vertex_count: int, what: str) -> np.ndarray:
    """Return (N,) int32 vertices from 0, of a list in any shape that counts from `first`."""
    with np.errstate(invalid="ignore"):  # NaN becomes no vertex
        vertices = array.ravel().astype(np.int64) - first
    if vertices.size == 0 or vertices.min() < 0 or vertices.max() >= vertex_count:
        found = f"{array.min()} to {array.max()}" if array.size else "none"
        raise ValueError(f"{what} must hold vertex numbers {first} to {vertex_count - 1 + first}, got {found}")
    return vertices.astype(np.int32)


def outward(triangles: np.ndarray, mean_shape: np.ndarray) -> np.ndarray:
    """Return the triangles turned, all together, so that their normals point away from the middle of the mesh."""
    a, b, c = (mean_shape[triangles[:, corner]].astype(np.float64) - mean_shape.mean(axis=0) for corner in range(3))
    volume = (a * np.cross(b, c)).sum()
    return triangles if volume >= 0 else np.ascontiguousarray(triangles[:, ::-1])


def assemble(
    *, mean_shape: np.ndarray, id_basis: np.ndarray, id_stddev: np.ndarray, exp_basis: np.ndarray,
    exp_stddev: np.ndarray, triangles: np.ndarray, landmarks: np.ndarray, name: str, layout: str, coefficients: str,
    licence: str, mean_albedo: np.ndarray | None = None, albedo_basis: np.ndarray | None = None,
    albedo_stddev: np.ndarray | None = None, mirror: np.ndarray | None = None,
    mouth_triangles: np.ndarray | None = None, regions: np.ndarray | None = None, uv: np.ndarray | None = None,
) -> MorphableModel:
    """Return the model, with what is None derived from the rest; the arguments are its fields.

    Raises ValueError where there are not 68 landmarks, numbers are not finite or too large, or fields do not fit.
    """
    if landmarks.shape != (68,):
        raise ValueError(f"the landmarks must be 68 vertices, got {landmarks.size}; give a complete list")
    for field, values in (
        ("mean_shape", mean_shape), ("id_basis", id_basis), ("id_stddev", id_stddev), ("exp_basis", exp_basis),
        ("exp_stddev", exp_stddev), ("mean_albedo", mean_albedo), ("albedo_basis", albedo_basis),
        ("albedo_stddev", albedo_stddev), ("uv", uv),
    ):
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"{field} must hold finite numbers, and holds NaN or infinity; get a complete copy")
    if np.abs(mean_shape).max() > _FAR:
        raise ValueError(
            f"mean_shape must lie within {_FAR:.0f} mm of its origin, and reaches {np.abs(mean_shape).max():.3g} mm; "
            "get a complete copy"
        )
    count = len(mean_shape)
    triangles = outward(triangles, mean_shape)
    if mouth_triangles is None:
        mouth_triangles = close_mouth(triangles, mean_shape, landmarks)
    if albedo_basis is None or albedo_stddev is None:
        albedo_basis, albedo_stddev = np.zeros((0, count, 3), np.float32), np.zeros(0, np.float32)
    return MorphableModel(
        mean_shape=mean_shape, id_basis=id_basis, exp_basis=exp_basis, albedo_basis=albedo_basis,
        mean_albedo=np.full((count, 3), GREY) if mean_albedo is None else mean_albedo,
        id_stddev=id_stddev.astype(np.float32), exp_stddev=exp_stddev.astype(np.float32),
        albedo_stddev=albedo_stddev.astype(np.float32), triangles=triangles,
        mouth_triangles=mouth_triangles.astype(np.int32), landmarks=landmarks.astype(np.int32),
        mirror=(mirror_map(mean_shape) if mirror is None else mirror).astype(np.int32),
        regions=label_regions(mean_shape, triangles, landmarks) if regions is None else regions,
        name=name, layout=layout, coefficients=coefficients, licence=licence,
        uv=None if uv is None else uv.astype(np.float32),
    )
