"""What a face model is, for people: a summary in words and a sheet of its first modes."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from PIL import Image, ImageDraw

from bfm.charts import CHARTS, make_chart, round_trip_error
from bfm.mirror import asymmetry
from bfm.morphable_model import BFM_COEFFICIENTS, REGIONS, MorphableModel
from bfm.render import portrait

_KINDS = {"id": "identity", "exp": "expression", "albedo": "albedo"}
_POSE = (0.0, 0.35, 0.0)
_MARGIN = 18


def model_facts(model: MorphableModel) -> dict:
    """Return what a model is: layout, modes, sizes, licence.

    Parameters
    ----------
    model : MorphableModel
        Numpy arrays.

    Returns
    -------
    dict
        Numbers, texts and dicts of them; lengths in millimetres, ``mirrored_mm`` is how far mirror images are apart.
    """
    off_twin = asymmetry(model.mean_shape, model.mirror)
    arrays = [getattr(model, field.name) for field in fields(model)]
    return {
        "name": model.name, "layout": model.layout, "vertices": len(model.mean_shape),
        "triangles": len(model.triangles), "mouth_triangles": len(model.mouth_triangles),
        "modes": {name: len(getattr(model, f"{kind}_basis")) for kind, name in _KINDS.items()},
        "coefficients": model.coefficients, "annotations_apply": model.coefficients == BFM_COEFFICIENTS,
        "size_mm": np.ptp(model.mean_shape, axis=0).tolist(),
        "regions": dict(zip(REGIONS, np.bincount(model.regions, minlength=len(REGIONS)).tolist())),
        "paired": float((model.mirror[model.mirror] == np.arange(len(model.mirror))).mean()),
        "mirrored_mm": {"mean": float(off_twin.mean()), "most": float(off_twin.max())},
        "uv": model.uv is not None,
        "bytes": sum(array.nbytes for array in arrays if isinstance(array, np.ndarray)),
        "sha256": model.sha256, "licence": model.licence,
    }


def describe_model(model: MorphableModel) -> str:
    """Return a summary of a model for people: layout, modes, units, sizes, licence.

    Parameters
    ----------
    model : MorphableModel
        Numpy arrays.

    Returns
    -------
    str
        A line a property, names in the first column.
    """
    facts = model_facts(model)
    width, height, depth = facts["size_mm"]
    applies = "annotations of 300W-LP and AFLW2000-3D " + (
        "apply" if facts["annotations_apply"] else "do not apply: images need `--refit`"
    )
    lines = {
        "name": model.name,
        "layout": f"{model.layout}: {facts['vertices']} vertices, {facts['triangles']} triangles, "
                  f"{facts['mouth_triangles']} more close the mouth in a chart",
        **{name: _modes(model, kind) for kind, name in _KINDS.items()},
        "coefficients": f"{model.coefficients} ({applies})",
        "units": "mm; x to the subject's left, y up, z to the camera; RGB in [0, 1]; "
                 "coefficients in standard deviations",
        "size": f"{width:.0f} x {height:.0f} x {depth:.0f} mm",
        "regions": ", ".join(f"{name} {count}" for name, count in facts["regions"].items()),
        "symmetry": f"{facts['paired']:.1%} of the vertices are in pairs; mirror images are "
                    f"{facts['mirrored_mm']['mean']:.2f} mm apart on average, {facts['mirrored_mm']['most']:.2f} mm at "
                    "most",
        "uv": "with the model" if facts["uv"] else "none",
        "memory": f"{facts['bytes'] / 1e6:.0f} MB",
        "sha256": model.sha256,
        "licence": model.licence,
    }
    return "\n".join(f"{name:<13} {text}" for name, text in lines.items())


def chart_errors(model: MorphableModel, size: int = 256) -> dict[str, dict[str, float]]:
    """Return the round-trip error of each UV chart of a model: vertices to map and back.

    Parameters
    ----------
    model : MorphableModel
        Numpy arrays.
    size : int
        Side of the map in texels.

    Returns
    -------
    dict[str, dict[str, float]]
        By chart: ``mean`` and ``most``, millimetres.
    """
    names = [name for name in CHARTS if name != "file" or model.uv is not None]
    face = model.face_only()
    errors = {name: round_trip_error(face, make_chart(face, name, size)) for name in names}
    return {name: {"mean": float(mean), "most": float(most)} for name, (mean, most) in errors.items()}


def describe_charts(model: MorphableModel, size: int = 256) -> str:
    """Return `chart_errors` for people.

    Parameters
    ----------
    model : MorphableModel
        Numpy arrays.
    size : int
        Side of the map in texels.

    Returns
    -------
    str
        A line a chart.
    """
    return "\n".join(
        f"{'chart':<13} {name}, {size} x {size}: round trip {error['mean']:.3f} mm on average, {error['most']:.3f} mm "
        "at most"
        for name, error in chart_errors(model, size).items()
    )


def draw_modes(model: MorphableModel, count: int = 6, sigma: float = 3.0, size: int = 160) -> Image.Image:
    """Draw the mean face and the first modes of each basis.

    Parameters
    ----------
    model : MorphableModel
        Numpy arrays.
    count : int
        Modes of each basis, one a column.
    sigma : float
        Coefficient: each mode is drawn at -sigma above and +sigma below.
    size : int
        Side of one face in pixels.

    Returns
    -------
    Image.Image
        Identity and expression as clay, albedo as colour without shading.
    """
    kinds = [kind for kind in _KINDS if len(getattr(model, f"{kind}_basis"))]
    columns = 1 + min(count, max(len(getattr(model, f"{kind}_basis")) for kind in kinds))
    row = 2 * size + _MARGIN
    sheet = Image.new("RGB", (columns * size, len(kinds) * row), "white")
    draw = ImageDraw.Draw(sheet)
    extent = 1.3 * np.ptp(model.mean_shape, axis=0)[:2].max()

    def face(kind: str, mode: int, value: float) -> Image.Image:
        shape, colours = model.mean_shape, None
        if kind == "albedo":
            colours = np.clip(model.mean_albedo + value * model.albedo_basis[mode], 0, 1)
        else:
            shape = shape + value * getattr(model, f"{kind}_basis")[mode]
        return Image.fromarray(portrait(shape, model.triangles, _POSE, size, extent, colours))

    for line, kind in enumerate(kinds):
        top = line * row
        sheet.paste(face(kind, 0, 0.0), (0, top + _MARGIN + size // 2))
        draw.text((4, top + 2), f"mean, {_KINDS[kind]} -{sigma:g} / +{sigma:g}", fill="black")
        for mode in range(min(columns - 1, len(getattr(model, f"{kind}_basis")))):
            left = (mode + 1) * size
            draw.text((left + size // 2, top + 2), str(mode + 1), fill="black")
            for place, value in enumerate((-sigma, sigma)):
                sheet.paste(face(kind, mode, value), (left, top + _MARGIN + place * size))
    return sheet


def _modes(model: MorphableModel, kind: str) -> str:
    """One line on a basis."""
    basis, stddev = getattr(model, f"{kind}_basis"), getattr(model, f"{kind}_stddev")
    if not len(basis):
        return "none"
    first = np.sqrt((basis[0].astype(np.float64) ** 2).sum(axis=-1).mean())
    unit = "RGB" if kind == "albedo" else "mm"
    return (
        f"{len(basis)} modes; the first moves a vertex by {first:.3g} {unit} (rms); raw units a standard deviation "
        f"{stddev[0]:.4g} to {stddev[-1]:.4g}"
    )
