"""Vertex layouts of the Basel Face Model 2009, and how one leads to another.

bfm-53490  raw
bfm-53215  3DDFA, 300W-LP, face3d; `trimIndex` of Model_info.mat or BFM_exp_idx.mat, into 53490
bfm-38365  3DDFA_V2 without neck; indices .npy, from 0, into 53215
bfm-35709  Deep3DFaceRecon's front of the face; `idx` of BFM_front_idx.mat, into 53215, or `select_id` of
           select_vertex_id.mat, into 53490

The lists are files of those who published the layout; none is part of this program.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bfm.morphable_model import MorphableModel
from bfm.readers.assemble import vertex_list
from bfm.readers.sources import LAYOUT_KINDS, open_source

RAW, TRIMMED = "bfm-53490", "bfm-53215"
LAYOUTS = (RAW, TRIMMED, "bfm-38365", "bfm-35709")

# kind of source -> parent layout, variable in a .mat file, first number
_LISTS = {
    "trim": (RAW, "trimIndex", 1),
    "front-53490": (RAW, "select_id", 1),
    "front-53215": (TRIMMED, "idx", 1),
    "vertices": (TRIMMED, None, 0),
}


def to_layout(model: MorphableModel, target: str, index_sources: list[Path]) -> MorphableModel:
    """Return a BFM 2009 on another of its vertex layouts.

    Parameters
    ----------
    model : MorphableModel
        A model whose layout is one of `LAYOUTS`.
    target : str
        One of `LAYOUTS`; its vertices must be among the model's.
    index_sources : list[Path]
        Files with the vertex lists that lead there, told apart by content; other files are passed over.

    Returns
    -------
    MorphableModel
        The model on the vertices of the target, in the target's order.

    Raises
    ------
    ValueError
        If no list leads to the target, or the model lacks some of its vertices.
    """
    if model.layout == target:
        return model
    for layout in (model.layout, target):
        if layout not in LAYOUTS:
            raise ValueError(f"a vertex layout of the BFM 2009 must be one of {', '.join(LAYOUTS)}, got {layout}")
    maps = read_index_maps(index_sources)
    for ancestor in (TRIMMED, RAW):
        have, want = (_vertices_in(layout, ancestor, maps) for layout in (model.layout, target))
        if have is not None and want is not None:
            break
    else:
        known = ", ".join(f"{child} in {parent}" for child, parent in maps) or "none"
        raise ValueError(
            f"vertex lists must lead from {model.layout} to {target}, and those given ({known}) do not; "
            "see bfm.layouts for the files to add"
        )
    place = np.full(max(have.max(), want.max()) + 1, -1)
    place[have] = np.arange(len(have))
    keep = place[want]
    if (keep < 0).any():
        raise ValueError(
            f"{model.layout} lacks {int((keep < 0).sum())} of the {len(want)} vertices of {target}; "
            "convert from a layout with more vertices"
        )
    return model.take(keep, target)


def read_index_maps(paths: list[Path]) -> dict[tuple[str, str], np.ndarray]:
    """Read the vertex lists among some files.

    Parameters
    ----------
    paths : list[Path]
        Files; those that are no vertex list are passed over.

    Returns
    -------
    dict[tuple[str, str], np.ndarray]
        (layout, parent layout) to the (V,) vertices of the parent, from 0.

    Raises
    ------
    ValueError
        If two lists for one step differ.
    """
    maps: dict[tuple[str, str], np.ndarray] = {}
    for path in paths:
        source = open_source(path)
        if source.kind not in LAYOUT_KINDS:
            continue
        parent, variable, first = _LISTS[source.kind]
        numbers = source.numbers() if variable is None else source.mat(variable)[0]
        vertices = vertex_list(numbers, first, int(parent.split("-")[1]), f"{variable or 'the vertex list'} of {path}")
        step = (f"bfm-{len(vertices)}", parent)
        if step in maps and not np.array_equal(maps[step], vertices):
            raise ValueError(f"{path} lists other vertices for {step[0]} in {parent} than a file before it; give one")
        maps[step] = vertices
    return maps


def _vertices_in(layout: str, ancestor: str, maps: dict[tuple[str, str], np.ndarray]) -> np.ndarray | None:
    """(V,) vertices of the ancestor that make up a layout, or None where no list leads there."""
    if layout == ancestor:
        return np.arange(int(layout.split("-")[1]))
    for (child, parent), vertices in maps.items():
        if child == layout:
            above = _vertices_in(parent, ancestor, maps)
            if above is not None:
                return above[vertices]
    return None
