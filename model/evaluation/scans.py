"""Scans of heads: meshes and landmarks from the files that MICC Florence and BU-3DFE come in.

Dimension key: N vertices, M triangles. Millimetres; x to the subject's left, y up, z to the viewer, about.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bfm.rasterize import spread

SUFFIXES = (".obj", ".ply", ".wrl")
"""Of meshes that `read_scan` reads."""

JAW_POINTS = 17
"""The first so many of the 68 landmarks lie on the outline of the jaw."""

NOSE_TIP = 30
OUTER_EYES = (36, 45)
_EYES, _MOUTH = (36, 39, 42, 45), (48, 54)
_NOSE_REACH = 60.0  # mm from the middle of eyes and mouth: further than any nose tip

_DAMAGED = (
    ValueError, LookupError, ArithmeticError, TypeError, AttributeError, NameError, EOFError, MemoryError, struct.error,
)
"""What numpy and trimesh raise for one damage of a mesh or another."""

BND_POINTS = 83
BND_PARTS = {"eye": slice(0, 8), "other eye": slice(8, 16), "outer mouth": slice(48, 60)}
"""Which of BU-3DFE's 83 points outline what, as menpo's ``face_bu3dfe_83`` has them."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A mesh of a head, and what is known of it.

    Attributes
    ----------
    vertices : np.ndarray
        (N, 3) float64, mm.
    triangles : np.ndarray
        (M, 3) int32, ``cross(b - a, c - a)`` outward.
    landmarks : dict[int, np.ndarray]
        Number among the 68 Multi-PIE landmarks, from 0, to (3,) mm; those that are known, maybe none.
    name : str
        For messages.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    landmarks: dict[int, np.ndarray] = field(default_factory=dict)
    name: str = ""


def read_scan(path: Path) -> Scan:
    """Read a mesh, and the landmarks beside it where there are any.

    Parameters
    ----------
    path : Path
        ``.obj`` (positions and faces; colours, texture and materials are passed over), ``.ply``, or VRML 2 ``.wrl``
        (every ``Coordinate`` with its ``coordIndex``; nodes around it that would move it are not applied, BU-3DFE's
        landmarks are those of the points as they stand). Polygons are cut into fans. The landmarks are read from the
        same name with ``.ljson`` (`read_ljson`) or ``.bnd`` (`read_bnd`).

    Returns
    -------
    Scan
        Vertices in the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no mesh of finite vertices and triangles between them, or the landmarks cannot be read.
    """
    path = Path(path)
    readers = {".obj": _read_obj, ".ply": _read_ply, ".wrl": _read_wrl}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} must be a mesh in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a mesh in {', '.join(SUFFIXES)}")
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused below
            vertices, triangles = readers[path.suffix.lower()](path)
    except _DAMAGED as error:
        raise ValueError(f"{path} must hold a mesh, but cannot be read ({error})") from error
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError(f"{path} must hold finite vertices (N, 3), got shape {vertices.shape}")
    if not len(triangles) or triangles.min() < 0 or triangles.max() >= len(vertices):
        raise ValueError(
            f"{path} must hold triangles between its {len(vertices)} vertices, got "
            + (f"indices {triangles.min()} to {triangles.max()}" if len(triangles) else "none")
        )
    landmarks = {}
    for suffix, reader in ((".ljson", read_ljson), (".bnd", read_bnd)):
        beside = path.with_suffix(suffix)
        if beside.is_file():
            landmarks = reader(beside)
            break
    return Scan(vertices, triangles.astype(np.int32), landmarks, path.stem)


def read_ljson(path: Path) -> dict[int, np.ndarray]:
    """Read the 68 landmarks of a mesh as menpo writes them, in the mesh's axes and unit.

    Parameters
    ----------
    path : Path
        JSON: one group of 68 points, alone or under ``groups``; a point that is null is not known.

    Returns
    -------
    dict[int, np.ndarray]
        Number from 0 to (3,).

    Raises
    ------
    ValueError
        If the file is of another form.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
        groups = held.get("groups", {"": held})
        (group,) = groups.values()
        points = np.array(group["landmarks"]["points"], np.float64)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} must hold one group of 68 landmarks as menpo writes it ({error!r})") from error
    if points.shape != (68, 3):
        raise ValueError(f"{path} must hold 68 points (68, 3), got shape {points.shape}")
    return {number: point for number, point in enumerate(points) if np.isfinite(point).all()}


def read_bnd(path: Path) -> dict[int, np.ndarray]:
    """Read what is certain of BU-3DFE's 83 landmarks of a scan: the corners of eyes and mouth.

    The order of the points within an outline is documented nowhere that we know of, and public readers disagree on
    which eye comes first. So eyes and corners are told by where they lie: the right eye is the one at smaller x, and
    the corners of each eye and of the mouth are the outline's ends along the line through both eyes. That the outlines
    have these places among the 83 (`BND_PARTS`) is what public readers say; it was not checked on the real files.

    Parameters
    ----------
    path : Path
        83 lines of vertex number (not used), x, y, z.

    Returns
    -------
    dict[int, np.ndarray]
        Landmarks 36, 39, 42, 45, 48 and 54 of the 68, (3,) mm.

    Raises
    ------
    ValueError
        If the file is of another form.
    """
    try:
        rows = [line.split() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        points = np.array(rows, np.float64)
    except ValueError as error:
        raise ValueError(f"{path} must hold {BND_POINTS} lines of index, x, y and z ({error})") from error
    if points.shape != (BND_POINTS, 4) or not np.isfinite(points).all():
        raise ValueError(f"{path} must hold {BND_POINTS} lines of index, x, y and z, got shape {points.shape}")
    *eyes, mouth = (points[part, 1:] for part in BND_PARTS.values())
    right, left = sorted(eyes, key=lambda eye: eye[:, 0].mean())
    across = left.mean(0) - right.mean(0)
    ends = (outline[np.argsort(outline @ across)[[0, -1]]] for outline in (right, left, mouth))
    return dict(zip((*_EYES, *_MOUTH), np.concatenate(list(ends))))


def interocular_distance(scan: Scan) -> float:
    """Return the distance of the outer eye corners, mm; ValueError if the scan has none."""
    right, left = (scan.landmarks.get(number) for number in OUTER_EYES)
    if right is None or left is None:
        raise ValueError(f"{scan.name} has no outer eye corners; give its landmarks beside it (.ljson or .bnd)")
    return float(np.linalg.norm(left - right))


def nose_tip(scan: Scan) -> np.ndarray:
    """Return where the nose of a scan ends.

    That is the landmark; or without it, where eye and mouth corners are known, the vertex near them that is furthest
    before their plane; or else the vertex with the largest z, the most protruding point of a frontal head.

    Parameters
    ----------
    scan : Scan
        With the axes of this module.

    Returns
    -------
    np.ndarray
        (3,) mm.

    Raises
    ------
    ValueError
        If the scan is nowhere near its landmarks.
    """
    if NOSE_TIP in scan.landmarks:
        return scan.landmarks[NOSE_TIP]
    if not set(_EYES + _MOUTH) <= set(scan.landmarks):
        return scan.vertices[scan.vertices[:, 2].argmax()]
    eyes, mouth = (np.array([scan.landmarks[number] for number in part]) for part in (_EYES, _MOUTH))
    across, up = eyes[2:].sum(0) - eyes[:2].sum(0), eyes.mean(0) - mouth.mean(0)
    forward = np.cross(across, up)
    near = scan.vertices[np.linalg.norm(scan.vertices - (eyes.mean(0) + mouth.mean(0)) / 2, axis=1) < _NOSE_REACH]
    if not len(near):
        raise ValueError(f"{scan.name} has no vertex near its landmarks; are both in mm and in the same axes?")
    return near[(near @ forward).argmax()]


def border(triangles: np.ndarray, vertex_count: int) -> np.ndarray:
    """Return (N,) bool: which vertices lie on an edge of only one of the (M, 3) triangles, the rim of a surface."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    edges = edges.astype(np.int64) @ [vertex_count, 1]
    once, counts = np.unique(edges, return_counts=True)
    on_rim = np.zeros(vertex_count, bool)
    on_rim[np.concatenate(np.divmod(once[counts == 1], vertex_count))] = True
    return on_rim


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions and faces; indices count from 1, or, negative, back from the vertex before them."""
    vertices, corners, sizes = [], [], []
    for line in path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ").splitlines():
        if line.startswith(("v ", "v\t")):
            vertices.append(line.split()[1:4])
        elif line.startswith(("f ", "f\t")):
            polygon = [int(corner.partition("/")[0]) for corner in line.partition("#")[0].split()[1:]]
            if 0 in polygon:
                raise ValueError("a face holds the index 0, but they count from 1")
            corners += [index - 1 if index > 0 else len(vertices) + index for index in polygon]
            sizes.append(len(polygon))
    return np.array(vertices, np.float64), _fans(np.array(corners, np.int64), np.array(sizes, np.int64))


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import trimesh

    mesh = trimesh.load(path, process=False, skip_materials=True)
    if not isinstance(mesh, trimesh.Trimesh):
        raise ValueError("it holds no triangles")
    return np.array(mesh.vertices, np.float64), np.array(mesh.faces, np.int64)


_VRML_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|#[^\n\r]*')
_VRML_POINTS = re.compile(r"\bCoordinate\s*\{\s*point\s*\[([^\]]*)\]")
_VRML_FACES = re.compile(r"\bcoordIndex\s*\[([^\]]*)\]")


def _read_wrl(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points and polygons of each IndexedFaceSet, in order; commas are white space in VRML."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.lstrip("\ufeff").startswith("#VRML V2.0"):
        raise ValueError("the first line must be #VRML V2.0")
    text = _VRML_COMMENT.sub(lambda found: found[1] or "", text).replace(",", " ")
    points = [np.array(found.split(), np.float64).reshape(-1, 3) for found in _VRML_POINTS.findall(text)]
    faces = [np.array(found.split(), np.int64) for found in _VRML_FACES.findall(text)]
    if not points or len(points) != len(faces):
        raise ValueError(f"each list of points needs a coordIndex, got {len(points)} and {len(faces)}")
    triangles = []
    for before, held, indices in zip(np.cumsum([0, *map(len, points)]), points, faces):
        ends = np.flatnonzero(np.append(indices, -1) == -1)  # the last -1 may be missing
        sizes = np.diff(ends, prepend=-1) - 1
        corners = indices[indices != -1]
        if corners.size and (corners.min() < 0 or corners.max() >= len(held)):
            raise ValueError(f"coordIndex must lie within its {len(held)} points, got up to {corners.max()}")
        triangles.append(before + _fans(corners, sizes[sizes > 0]))
    return np.concatenate(points), np.concatenate(triangles)


def _fans(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(M, 3) triangles of polygons whose corners follow each other; the first corner of each is in all of its own."""
    if (sizes < 3).any():
        raise ValueError(f"a face must have 3 corners at least, got {sizes.min()}")
    of, step = spread(sizes - 2)
    first = (np.cumsum(sizes) - sizes)[of]
    return corners[np.stack([first, first + step + 1, first + step + 2], 1)] if len(sizes) else np.empty((0, 3), int)
