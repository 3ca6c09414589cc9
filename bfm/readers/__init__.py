"""Readers of published face models: each format becomes a `MorphableModel` in the program's own conventions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bfm.morphable_model import MorphableModel
from bfm.readers.bfm2009 import read_3ddfa, read_face3d, read_raw
from bfm.readers.bfm2017 import read_bfm2017
from bfm.readers.ict import read_ict
from bfm.readers.sources import LAYOUT_KINDS, NAMES, Source, open_source
from bfm.readers.texture_coordinates import uv_for

_OF_BFM_2009 = {"trim", "3ddfa-expression", "3ddfa-sigma", "guo-expression", "guo-stddev", "landmarks", "uv"}
# kind of the file that holds the model -> how to read it, and what may come along
_MODELS = {
    "bfm2009": (read_raw, _OF_BFM_2009),
    "3ddfa": (read_3ddfa, _OF_BFM_2009),
    "face3d": (read_face3d, {"trim", "landmarks", "uv"}),
    "bfm2017": (read_bfm2017, {"landmarks"}),
    "ict": (read_ict, {"landmarks"}),
}


def read_face_model(sources: list[Path]) -> MorphableModel:
    """Read a face model from the files it is published in.

    What a file is follows from its content, not from its name; the order is free. Known are: the raw Basel Face
    Model 2009 with an expression basis (3DDFA's or Guo et al.'s) and ``Model_info.mat``; 3DDFA's ``Model_Shape.mat``
    and ``Model_Exp.mat``; face3d's ``BFM.mat``; the Basel Face Models 2017 and 2019; an ICT-FaceKit folder. With any,
    a list of 68 landmark vertices; with a BFM 2009, ``BFM_UV.mat``.

    Parameters
    ----------
    sources : list[Path]
        Files, or one folder. Vertex lists of `bfm.layouts` may be among them and are passed over.

    Returns
    -------
    MorphableModel
        In mm, RGB in [0, 1], standardised coefficients, outward triangles, vertices from 0.

    Raises
    ------
    ValueError
        If a file is not what it should be, or one is missing: what was expected, what was found, what to do
        (FileNotFoundError where there is none).
    """
    by_kind: dict[str, Source] = {}
    for path in sources:
        source = open_source(path)
        if source.kind in by_kind:
            raise ValueError(f"{by_kind[source.kind].path} and {path} are both {NAMES[source.kind]}; give one of them")
        by_kind[source.kind] = source
    models = [kind for kind in by_kind if kind in _MODELS]
    if len(models) != 1:
        found = ", ".join(f"{source.path} ({NAMES[kind]})" for kind, source in by_kind.items()) or "nothing"
        wanted = "; ".join(NAMES[kind] for kind in _MODELS)
        raise ValueError(f"give exactly one file (or folder) that holds a face model ({wanted}), got {found}")
    read, accompany = _MODELS[models[0]]
    for kind, source in by_kind.items():
        if kind != models[0] and kind not in accompany | LAYOUT_KINDS:
            raise ValueError(f"{source.path} ({NAMES[kind]}) does not go with {NAMES[models[0]]}; leave it out")
    model = read(by_kind)
    if "uv" not in by_kind:
        return model
    trim = by_kind["trim"].mat("trimIndex")[0].ravel().astype(int) - 1 if "trim" in by_kind else None
    return replace(model, uv=uv_for(by_kind["uv"], trim, model.triangles, len(model.mean_shape)))
