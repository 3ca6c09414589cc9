"""ICT-FaceKit: a folder of OBJ meshes in centimetres, one a mode, all with the vertices of the neutral mesh.

``V = neutral + sum w_i (identity_i - neutral) + sum e_j (expression_j - neutral)``, w standard normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bfm.landmarks import ICT
from bfm.morphable_model import REGIONS, MorphableModel
from bfm.mouth import close_hole, close_mouth
from bfm.readers.assemble import assemble, outward, vertex_list
from bfm.readers.sources import Source
from bfm.regions import label_regions

VERTICES = 26719
FACE_VERTICES, FACE_POLYGONS = 9409, 9230
"""The skin of the face; what follows is neck, mouth cavity, eyes, teeth, lashes."""
NARROW_VERTICES = 6706
"""The front of the face, without ears and seams."""

EXPRESSION_STDDEV = 0.25
"""Blendshape weights lie in [0, 1] and have no published spread: one standard deviation is set at a quarter."""

_MILLIMETRES = 10
_LICENCE = "ICT-FaceKit (USC Institute for Creative Technologies): MIT licence."


@dataclass
class _Mesh:
    """An OBJ file: `vertices` (V, 3), `uv` (T, 2), `polygons` and `polygons_uv` lists of corner numbers from 0."""

    vertices: np.ndarray
    uv: np.ndarray
    polygons: list[list[int]]
    polygons_uv: list[list[int]]


def read_ict(sources: dict[str, Source]) -> MorphableModel:
    """Read the folder ``FaceXModel`` of ICT-FaceKit.

    Kept is the skin of the face (vertices 0-9408); beyond the narrow face (0-6705) it is labelled "outside", so that
    a face chart has no UV seam. Quads are cut along the diagonal from their first corner. A vertex with several UVs
    gets the first that lies on the tile of the nose tip; one that has none there, the nearest on the tile's edge.

    Parameters
    ----------
    sources : dict[str, Source]
        By kind: "ict"; optionally "landmarks".

    Returns
    -------
    MorphableModel
        Layout "ict-9409"; a raw expression coefficient is a blendshape weight.

    Raises
    ------
    ValueError
        If the folder lacks meshes, or they are not ICT-FaceKit's.
    """
    folder = sources["ict"].path
    neutral = _read_obj(folder / "generic_neutral_mesh.obj")
    if len(neutral.vertices) != VERTICES or len(neutral.polygons) < FACE_POLYGONS:
        raise ValueError(
            f"{folder}/generic_neutral_mesh.obj must have {VERTICES} vertices and at least {FACE_POLYGONS} faces as "
            f"ICT-FaceKit's, got {len(neutral.vertices)} and {len(neutral.polygons)}; get the folder FaceXModel again"
        )
    others = sorted(path for path in folder.glob("*.obj") if path.stem != "generic_neutral_mesh")
    identities = [path for path in others if path.stem.startswith("identity")]
    expressions = [path for path in others if path not in identities]
    if not identities:
        raise ValueError(f"{folder} must hold identity000.obj and on beside the neutral mesh, and holds none")
    mean_shape = (neutral.vertices[:FACE_VERTICES] * _MILLIMETRES).astype(np.float32)

    def offsets(paths: list[Path], stddev: float) -> np.ndarray:
        found = np.empty((len(paths), FACE_VERTICES, 3), np.float32)
        for mode, path in zip(found, paths):
            mode[:] = (_read_vertices(path) - neutral.vertices[:FACE_VERTICES]) * (_MILLIMETRES * stddev)
        return found

    polygons = neutral.polygons[:FACE_POLYGONS]
    triangles = np.array(
        [(polygon[0], b, c) for polygon in polygons for b, c in zip(polygon[1:], polygon[2:])], np.int32
    )
    if triangles.max() >= FACE_VERTICES:
        raise ValueError(
            f"the first {FACE_POLYGONS} faces of {folder}/generic_neutral_mesh.obj must use vertices 1 to "
            f"{FACE_VERTICES}, got {triangles.max() + 1}; get the folder FaceXModel again"
        )
    triangles = outward(triangles, mean_shape)
    given = sources.get("landmarks")
    landmarks = np.array(ICT, np.int32)
    if given is not None:
        landmarks = vertex_list(given.numbers(), 0, FACE_VERTICES, f"{given.path}")
    regions = label_regions(mean_shape, triangles, landmarks)
    regions[NARROW_VERTICES:] = REGIONS.index("outside")
    narrow = regions[:NARROW_VERTICES]
    narrow[narrow == REGIONS.index("outside")] = REGIONS.index("face")
    # the eyes are holes too
    holes = [close_mouth(triangles, mean_shape, landmarks)]
    holes += [close_hole(triangles, mean_shape, landmarks[eye]) for eye in (slice(36, 42), slice(42, 48))]
    return assemble(
        mean_shape=mean_shape, id_basis=offsets(identities, 1), id_stddev=np.ones(len(identities)),
        exp_basis=offsets(expressions, EXPRESSION_STDDEV),
        exp_stddev=np.full(len(expressions), EXPRESSION_STDDEV), triangles=triangles,
        mouth_triangles=np.concatenate(holes), landmarks=landmarks, regions=regions, uv=_vertex_uv(neutral, landmarks),
        name="ICT-FaceKit", layout=f"ict-{FACE_VERTICES}",
        coefficients=f"ict-{len(identities)}+{len(expressions)}", licence=_LICENCE,
    )


def _vertex_uv(mesh: _Mesh, landmarks: np.ndarray) -> np.ndarray | None:
    """(9409, 2) one UV a vertex, on the tile of the nose tip; None if the file has none."""
    corners = [
        (vertex, coordinate)
        for polygon, of_uv in zip(mesh.polygons[:FACE_POLYGONS], mesh.polygons_uv) for vertex, coordinate
        in zip(polygon, of_uv)
    ]
    if not corners:
        return None
    vertex, coordinate = np.array(corners).T
    uv = mesh.uv[coordinate]
    uv = uv - np.floor(uv[np.flatnonzero(vertex == landmarks[30])[0]])
    on_tile = ((uv >= 0) & (uv <= 1)).all(axis=1)
    # the last assignment wins: those on the tile after the others, the first corner after the later ones
    order = np.concatenate([np.flatnonzero(~on_tile)[::-1], np.flatnonzero(on_tile)[::-1]])
    chosen = np.zeros((FACE_VERTICES, 2))
    chosen[vertex[order]] = np.clip(uv[order], 0, 1)
    return chosen


def _read_vertices(path: Path) -> np.ndarray:
    """The face's vertices of a mode's mesh, after a check that it has all of the neutral one's."""
    lines = [line[2:] for line in path.read_bytes().split(b"\n") if line.startswith(b"v ")]
    if len(lines) != VERTICES:
        raise ValueError(
            f"{path} must have the {VERTICES} vertices of the neutral mesh, got {len(lines)}; "
            "take all meshes from one version of ICT-FaceKit"
        )
    try:
        return np.array(b" ".join(lines[:FACE_VERTICES]).split(), np.float64).reshape(-1, 3)
    except ValueError as error:
        raise ValueError(f"{path} must hold three numbers a vertex ({error}); get it again") from error


def _read_obj(path: Path) -> _Mesh:
    """Read positions, texture coordinates and polygons."""
    vertices, uv, polygons, polygons_uv = [], [], [], []
    try:
        for line in path.read_text().splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                vertices.append([float(word) for word in words[1:4]])
            elif words[0] == "vt":
                uv.append([float(word) for word in words[1:3]])
            elif words[0] == "f":
                corners = [word.split("/") for word in words[1:]]
                polygons.append([int(corner[0]) - 1 for corner in corners])
                polygons_uv.append([int(corner[1]) - 1 for corner in corners if len(corner) > 1 and corner[1]])
        return _Mesh(np.array(vertices).reshape(-1, 3), np.array(uv).reshape(-1, 2), polygons, polygons_uv)
    except ValueError as error:
        raise ValueError(f"{path} must be an OBJ mesh, and a line of it is not ({error}); get it again") from error
