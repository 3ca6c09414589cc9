"""The Basel Face Models 2017 and 2019: HDF5 files as Statismo writes them, in millimetres and RGB in [0, 1].

They hold variances, not standard deviations, of unit-norm modes.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from bfm.landmarks import NAMED, complete_landmarks
from bfm.morphable_model import MorphableModel
from bfm.readers.assemble import assemble, modes, points, triangle_list, vertex_list
from bfm.readers.sources import Source, damage

# vertex counts of the published files
_EDITIONS = {53149: "2017", 28588: "2017-face12", 47439: "2019", 27657: "2019-face12", 58203: "2019-full-head"}
_ENOUGH = 8
_LICENCE = (
    "Basel Face Model 2017/2019, University of Basel: non-commercial research after registration, not to be passed on."
)


def read_bfm2017(sources: dict[str, Source]) -> MorphableModel:
    """Read ``model2017-1_*.h5`` or ``model2019_*.h5``.

    The file names a few anatomical landmarks; the 68 follow from these (`bfm.landmarks.complete_landmarks`, with the
    open face model as the other face), unless a list of 68 vertices is given.

    Parameters
    ----------
    sources : dict[str, Source]
        By kind: "bfm2017"; optionally "landmarks".

    Returns
    -------
    MorphableModel
        Layout "bfm2017", "bfm2017-face12", "bfm2019" ... by vertex count.

    Raises
    ------
    ValueError
        If an array is missing or does not fit, or the landmarks stay unknown.
    """
    path = sources["bfm2017"].path
    try:
        with h5py.File(path, "r") as file:
            parts = {part: _pca(file, part, path) for part in ("shape", "expression", "color") if part in file}
            cells = _dataset(file, "shape/representer/cells", path)
            named = _named_landmarks(file, path)
    except (OSError, RuntimeError, KeyError, MemoryError) as error:
        raise ValueError(damage(path, error)) from error
    mean, basis, id_stddev = parts["shape"]
    mean_shape = points(mean, 1, f"shape/model/mean of {path}")
    count = len(mean_shape)
    landmarks = _landmarks(sources, named, mean_shape)  # the points it names are on the mean without expression
    exp_basis, exp_stddev = np.zeros((0, count, 3), np.float32), np.zeros(0)
    if "expression" in parts:
        exp_mean, modes_of_expression, exp_stddev = parts["expression"]
        if exp_mean.size != 3 * count:
            raise ValueError(
                f"expression/model/mean of {path} must match the shape's {count} vertices, got {exp_mean.size // 3}"
            )
        mean_shape = mean_shape + points(exp_mean, 1, f"expression/model/mean of {path}")
        exp_basis = modes(modes_of_expression, exp_stddev, 1, count, f"expression/model/pcaBasis of {path}")
    albedo = {}
    if "color" in parts:
        color_mean, color_basis, color_stddev = parts["color"]
        albedo = {
            "mean_albedo": points(color_mean, 1, f"color/model/mean of {path}"),
            "albedo_basis": modes(color_basis, color_stddev, 1, count, f"color/model/pcaBasis of {path}"),
            "albedo_stddev": color_stddev,
        }
        if not (0 <= albedo["mean_albedo"].min() and albedo["mean_albedo"].max() <= 1):
            raise ValueError(
                f"color/model/mean of {path} must be RGB in [0, 1], got {color_mean.min():g} to {color_mean.max():g}; "
                "get the published file"
            )
    edition = _EDITIONS.get(count, f"2017/2019 ({count} vertices)")
    return assemble(
        mean_shape=mean_shape, id_basis=modes(basis, id_stddev, 1, count, f"shape/model/pcaBasis of {path}"),
        id_stddev=id_stddev, exp_basis=exp_basis, exp_stddev=exp_stddev,
        triangles=triangle_list(cells, 0, count, f"shape/representer/cells of {path}"),
        landmarks=landmarks,
        name=f"Basel Face Model {edition}", layout=f"bfm{edition}",
        coefficients=f"bfm{edition}-{len(id_stddev)}+{len(exp_stddev)}", licence=_LICENCE, **albedo,
    )


def _landmarks(sources: dict[str, Source], named: dict[str, np.ndarray], mean_shape: np.ndarray) -> np.ndarray:
    """(68,) vertices: as given, or from the landmarks that the file names."""
    if "landmarks" in sources:
        given = sources["landmarks"]
        return vertex_list(given.numbers(), 0, len(mean_shape), f"{given.path}")
    known = {NAMED[name]: point for name, point in named.items() if name in NAMED}
    if len(known) < _ENOUGH:
        raise ValueError(
            f"{sources['bfm2017'].path} must name the corners of eyes and lips in metadata/landmarks/json, and names "
            f"{len(known)} of the {len(NAMED)} used; add a text of 68 vertex numbers counted from 0"
        )
    from bfm.open_face import open_face_model

    other = open_face_model()
    return complete_landmarks(known, other.mean_shape[other.landmarks], mean_shape)


def _pca(file: h5py.File, part: str, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, basis and standard deviations of a part."""
    mean, basis, variance = (
        _dataset(file, f"{part}/model/{name}", path) for name in ("mean", "pcaBasis", "pcaVariance")
    )
    with np.errstate(invalid="ignore"):  # `assemble` refuses NaN
        return mean, basis, np.sqrt(variance.ravel())


def _dataset(file: h5py.File, name: str, path: Path) -> np.ndarray:
    if name not in file:
        raise ValueError(f"{path} must hold {name} as the published Basel Face Model does, and does not")
    return file[name][()]


def _named_landmarks(file: h5py.File, path: Path) -> dict[str, np.ndarray]:
    """Positions of the landmarks that the file names; empty if it names none."""
    if "metadata/landmarks/json" not in file:
        return {}
    text = file["metadata/landmarks/json"][()]
    if not isinstance(text, bytes):  # an array of one string, or of the bytes
        text = text.ravel()[0] if text.dtype.kind in "OS" else text.tobytes()
    try:
        named = {entry["id"]: np.array(entry["coordinates"], np.float64).reshape(3) for entry in json.loads(text)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"metadata/landmarks/json of {path} must list landmarks with 'id' and three 'coordinates', and does not "
            f"({type(error).__name__}: {error}); get a complete copy"
        ) from error
    return named
