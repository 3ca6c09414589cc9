"""The Basel Face Model 2009 and its relatives: raw, as 3DDFA trims it, and as face3d packs it.

All hold the same identity and texture modes, in micrometres and 0..255, xyz (rgb) interleaved, counted from 1;
expressions come from 3DDFA (29 modes) or from Guo et al. (79). A raw coefficient of 300W-LP is a standardised one
times the model's standard deviation: its ``S = mu + mu_exp + w @ Shape_Para + w_exp @ Exp_Para`` has no sigma in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bfm.landmarks import landmark_table
from bfm.morphable_model import MorphableModel
from bfm.readers.assemble import assemble, modes, points, triangle_list, vertex_list
from bfm.readers.sources import Source

_MICROMETRE = 1e-3
_TEXTURE = 1 / 255
_LICENCE = (
    "Basel Face Model 2009, University of Basel: non-commercial research after registration, not to be passed on; "
    "expression modes: research use."
)


@dataclass
class _Parts:
    """What the file of one format holds, in the file's own units; triangles and vertices from 0."""

    path: Path
    shape: tuple[np.ndarray, np.ndarray, np.ndarray]
    """mean (3 V), basis (3 V, K), standard deviations (K)"""
    triangles: np.ndarray
    texture: tuple[np.ndarray, np.ndarray | None, np.ndarray | None] | None = None
    """likewise; the last two may lack"""
    expressions: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    expression_family: str = "3ddfa"
    landmarks: np.ndarray | None = None
    mirror: np.ndarray | None = None
    mouth_triangles: np.ndarray | None = None


def read_raw(sources: dict[str, Source]) -> MorphableModel:
    """Read ``01_MorphableModel.mat``, with expressions and ``Model_info.mat`` where given.

    The expression bases live on the 53215 vertices of 3DDFA: `trimIndex` of ``Model_info.mat`` says which of the
    53490 these are, and the model is cut to them. Alone, it keeps all 53490 and has no expressions.

    Parameters
    ----------
    sources : dict[str, Source]
        By kind: "bfm2009"; optionally "trim", "3ddfa-expression" (with "3ddfa-sigma"), "guo-expression" with
        "guo-stddev", "landmarks".

    Returns
    -------
    MorphableModel
        Layout "bfm-53215" or "bfm-53490" (by vertex count). Files that do not fit together give a ValueError that
        says which one is missing; so for the other readers here.
    """
    raw = sources["bfm2009"]
    mean, basis, stddev, cells = raw.mat("shapeMU", "shapePC", "shapeEV", "tl")
    count = mean.size // 3
    parts = _Parts(raw.path, (mean, basis, stddev), triangle_list(cells, 1, count, f"tl of {raw.path}"))
    if "texMU" in raw.variables:
        tex_mean, tex_basis, tex_stddev = raw.mat("texMU", "texPC", "texEV")
        parts.texture = tex_mean, tex_basis, tex_stddev
    if "trim" in sources:
        trim = sources["trim"]
        keep = vertex_list(trim.mat("trimIndex")[0], 1, count, f"trimIndex of {trim.path}")
        _trim(parts, keep, count)
        _read_topology(parts, trim, len(keep))
    return _finish(parts, sources, "Basel Face Model 2009")


def read_3ddfa(sources: dict[str, Source]) -> MorphableModel:
    """Read 3DDFA's ``Model_Shape.mat`` and ``Model_Exp.mat`` (also called ``Model_Expression.mat``).

    Parameters
    ----------
    sources : dict[str, Source]
        By kind: "3ddfa" and an expression basis, else as for `read_raw`.

    Returns
    -------
    MorphableModel
        Layout "bfm-53215" (by vertex count).

    Raises
    ------
    ValueError
        If a variable is missing.
    """
    source = sources["3ddfa"]
    if "sigma" not in source.variables:
        raise ValueError(
            f"{source.path} must hold the standard deviations 'sigma' beside 'w', and does not; "
            "convert from 01_MorphableModel.mat with Model_Exp.mat and Model_info.mat instead"
        )
    mean, basis, stddev, cells = source.mat("mu_shape", "w", "sigma", "tri")
    count = mean.size // 3
    parts = _Parts(source.path, (mean, basis, stddev), triangle_list(cells, 1, count, f"tri of {source.path}"))
    mean_key = next((key for key in ("mu_tex", "tex") if key in source.variables), None)
    if mean_key is not None:
        texture = source.mat(mean_key)[0]
        texture = texture.T if texture.shape == (3, count) else texture
        parts.texture = texture, None, None
    if mean_key is not None and "w_tex" in source.variables:
        stddev_key = next((key for key in ("sigma_tex", "alpha_tex", "texEV") if key in source.variables), None)
        if stddev_key is None:
            raise ValueError(
                f"{source.path} must hold the standard deviations 'sigma_tex' beside 'w_tex', and does not; convert "
                "from 01_MorphableModel.mat with Model_Exp.mat and Model_info.mat instead, or save it without w_tex"
            )
        tex_basis, tex_stddev = source.mat("w_tex", stddev_key)
        parts.texture = texture, tex_basis, tex_stddev
    if "trim" in sources:
        _read_topology(parts, sources["trim"], count)
    _read_topology(parts, source, count)
    return _finish(parts, sources, "Basel Face Model 2009 (3DDFA)")


def read_face3d(sources: dict[str, Source]) -> MorphableModel:
    """Read face3d's ``BFM.mat``, one struct with everything.

    Parameters
    ----------
    sources : dict[str, Source]
        By kind: "face3d"; optionally "landmarks".

    Returns
    -------
    MorphableModel
        Layout "bfm-53215" (by vertex count).

    Raises
    ------
    ValueError
        If a field is missing or does not fit.
    """
    source = sources["face3d"]
    struct = source.variables["model"]
    if not isinstance(struct, dict):
        raise ValueError(f"'model' of {source.path} must be one struct as in face3d's BFM.mat, and is something else")

    def field(name: str) -> np.ndarray:
        value = struct.get(name)
        if not isinstance(value, np.ndarray):
            raise ValueError(
                f"'model' of {source.path} must have the field '{name}' as in face3d's BFM.mat, numbers, and has "
                f"{', '.join(list(struct)[:12])}; make the file again with face3d's generate.m"
            )
        return value

    count = field("shapeMU").size // 3
    parts = _Parts(
        source.path, (field("shapeMU"), field("shapePC"), field("shapeEV")),
        triangle_list(field("tri"), 1, count, f"tri of {source.path}"),
        texture=(field("texMU"), field("texPC"), field("texEV")),
        expressions=(field("expMU"), field("expPC"), field("expEV")),
        landmarks=vertex_list(field("kpt_ind"), 1, count, f"kpt_ind of {source.path}"),
        mouth_triangles=triangle_list(field("tri_mouth"), 1, count, f"tri_mouth of {source.path}"),
    )
    return _finish(parts, sources, "Basel Face Model 2009 (face3d)")


def _trim(parts: _Parts, keep: np.ndarray, count: int) -> None:
    """Cut raw parts to the vertices `keep`."""
    rows = (3 * keep[:, None].astype(np.int64) + np.arange(3)).ravel()

    def cut(mean: np.ndarray, basis: np.ndarray, stddev: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        for what, array in (("mean", mean.reshape(-1, 1)), ("basis", basis)):
            if len(array) != 3 * count:
                raise ValueError(f"{what} in {parts.path} must have {3 * count} rows, got {len(array)}")
        return mean.ravel()[rows], basis.T[:, rows].T, stddev  # a .mat keeps each mode together; so does this

    parts.shape = cut(*parts.shape)
    if parts.texture is not None:
        mean, basis, stddev = parts.texture
        assert basis is not None and stddev is not None  # a raw model has texture modes
        parts.texture = cut(mean, basis, stddev)
    new_index = np.full(count, -1, np.int32)
    new_index[keep] = np.arange(len(keep))
    mapped = new_index[parts.triangles]
    parts.triangles = mapped[(mapped >= 0).all(axis=1)]


def _read_topology(parts: _Parts, source: Source, count: int) -> None:
    """Take triangles, landmarks and mirror pairs, where a Model_info.mat or Model_Shape.mat has them."""
    if "tri" in source.variables:
        parts.triangles = triangle_list(source.mat("tri")[0], 1, count, f"tri of {source.path}")
    if "keypoints" in source.variables:
        parts.landmarks = vertex_list(source.mat("keypoints")[0], 1, count, f"keypoints of {source.path}")
    if "symlist" in source.variables:
        pairs = source.mat("symlist")[0]
        pairs = vertex_list(pairs if len(pairs) == 2 else pairs.T, 1, count, f"symlist of {source.path}").reshape(2, -1)
        parts.mirror = np.arange(count, dtype=np.int32)
        parts.mirror[pairs[0]], parts.mirror[pairs[1]] = pairs[1], pairs[0]


def _read_expressions(parts: _Parts, sources: dict[str, Source]) -> None:
    """Take the expression basis of its own file."""
    if "3ddfa-expression" in sources:
        source = sources["3ddfa-expression"]
        of_sigma = source if "sigma_exp" in source.variables else sources.get("3ddfa-sigma")
        if of_sigma is None:
            raise ValueError(
                f"{source.path} must hold the standard deviations 'sigma_exp' beside 'w_exp', and does not; "
                "add the sigma_exp.mat that came with it"
            )
        mean, basis = source.mat("mu_exp", "w_exp")
        parts.expressions = mean, basis, of_sigma.mat("sigma_exp")[0]
    elif "guo-expression" in sources:
        source = sources["guo-expression"]
        if "guo-stddev" not in sources:
            raise ValueError(f"{source.path} (Guo et al.) comes without standard deviations; add its std_exp.txt")
        values = np.fromfile(source.path, "<f4", offset=4)
        mode_count = int(np.fromfile(source.path, "<i4", count=1)[0])
        mean, basis = np.split(values, [values.size // (mode_count + 1)])
        # the file's mean expression is left out, as Deep3DFaceRecon does: coefficients in use are relative to the
        # neutral Basel mean
        stddev = sources["guo-stddev"].numbers()
        parts.expressions = (np.zeros_like(mean), basis.reshape(mode_count, -1).T, stddev)
        parts.expression_family = "guo"


def _finish(parts: _Parts, sources: dict[str, Source], name: str) -> MorphableModel:
    """Convert to our units and conventions."""
    _read_expressions(parts, sources)
    mean, basis, stddev = parts.shape
    mean_shape = points(mean, _MICROMETRE, f"the mean shape in {parts.path}")
    count = len(mean_shape)
    id_basis = modes(basis, stddev.ravel(), _MICROMETRE, count, f"the shape basis of {parts.path}")
    exp_basis, exp_stddev = np.zeros((0, count, 3), np.float32), np.zeros(0)
    coefficients = f"bfm2009-{len(id_basis)}"
    if parts.expressions is not None:
        exp_mean, basis, exp_stddev = parts.expressions
        if exp_mean.size != 3 * count:
            raise ValueError(_mismatch(parts, exp_mean.size // 3, count, sources))
        with np.errstate(invalid="ignore"):  # `assemble` refuses what is not finite
            mean = mean.ravel().astype(np.float64) + exp_mean.ravel()
        mean_shape = points(mean, _MICROMETRE, "the mean shape")
        exp_stddev = exp_stddev.ravel()
        exp_basis = modes(basis, exp_stddev, _MICROMETRE, count, "the expression basis")
        coefficients += f"+{parts.expression_family}-{len(exp_basis)}"
    albedo = {}
    if parts.texture is not None:
        tex_mean, basis, tex_stddev = parts.texture
        albedo["mean_albedo"] = points(tex_mean, _TEXTURE, f"the mean texture in {parts.path}")
        if basis is not None and tex_stddev is not None:
            tex_stddev = tex_stddev.ravel()
            what = f"the texture basis of {parts.path}"
            albedo.update(albedo_basis=modes(basis, tex_stddev, _TEXTURE, count, what), albedo_stddev=tex_stddev)
    landmarks = parts.landmarks
    if "landmarks" in sources:
        given = sources["landmarks"]
        landmarks = vertex_list(given.numbers(), 0, count, f"{given.path}")
    if landmarks is None:
        landmarks = landmark_table(count)
    if landmarks is None:
        raise ValueError(
            f"{parts.path} has {count} vertices and no 'keypoints', so its 68 landmarks are unknown; "
            "add a Model_info.mat, or a text of 68 vertex numbers counted from 0"
        )
    return assemble(
        mean_shape=mean_shape, id_basis=id_basis, id_stddev=stddev.ravel(), exp_basis=exp_basis,
        exp_stddev=exp_stddev, triangles=parts.triangles, landmarks=landmarks, mirror=parts.mirror,
        mouth_triangles=parts.mouth_triangles, name=name, layout=f"bfm-{count}", coefficients=coefficients,
        licence=_LICENCE, **albedo,
    )


def _mismatch(parts: _Parts, exp_count: int, count: int, sources: dict[str, Source]) -> str:
    """Say which file is missing when shape and expressions have different vertices."""
    source = sources.get("3ddfa-expression", sources.get("guo-expression"))
    of_expressions = source.path if source else parts.path
    advice = "they are of different models: take both from one distribution"
    if "bfm2009" in sources and "trim" not in sources:
        advice = "add Model_info.mat, whose trimIndex says which vertices the expressions are of"
    return f"{parts.path} has {count} vertices and the expressions of {of_expressions} have {exp_count}; {advice}"
