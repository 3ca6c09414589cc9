"""Files of scans as MICC Florence and BU-3DFE have them: OBJ with material, VRML 2, and their landmarks.

Dimension key: N vertices, M triangles. Numbers are written with four digits after the point.
"""

from __future__ import annotations

import json

import numpy as np
from scipy.spatial import cKDTree

_RIGHT_EYE = ((39, 39), (38, 38), (37, 38), (37, 37), (36, 36), (41, 41), (40, 41), (40, 40))
_LEFT_EYE = ((42, 42), (43, 43), (43, 44), (44, 44), (45, 45), (46, 46), (46, 47), (47, 47))
_NOSE = (
    (27, 39), (28, 39), (29, 31), (31, 31), (32, 32), (32, 33), (33, 33), (34, 34), (35, 35), (29, 35), (28, 42),
    (27, 42),
)
_BROWS = (*range(21, 16, -1), *range(17, 22), *range(22, 27), *range(26, 21, -1))
BND_FROM_68 = (
    *_RIGHT_EYE, *_LEFT_EYE, *zip(_BROWS, _BROWS), *_NOSE, *((k, k) for k in (*range(48, 68), *range(1, 16))),
)
"""Each of BU-3DFE's 83 landmarks as the middle of two of the 68.

In order: right eye 8, left eye 8 (the subject's; each from the inner corner over the upper lid), brows 10 + 10, nose
12, outer 12 and inner 8 points of the lips, 15 of the jaw. The parts are those of menpo's ``face_bu3dfe_83``. Within
them the corners of the eyes, the wings of the nose, its base, the corners and middles of the lips and the chin are
placed as a list of Deep-MVLM's documentation names them; it calls the first eye the left one. The rest is filled in
between, and the lower edge of a brow repeats its upper one. None of this was checked on the real files.
"""


def obj_bytes(vertices: np.ndarray, triangles: np.ndarray, uv: np.ndarray, material_file: str) -> bytes:
    """Return an OBJ file.

    Parameters
    ----------
    vertices : np.ndarray
        (N, 3) mm.
    triangles : np.ndarray
        (M, 3).
    uv : np.ndarray
        (N, 2) texture coordinates, v up.
    material_file : str
        Name of the `.mtl`, whose material is ``scan``.

    Returns
    -------
    bytes
        Text, lines ended by a newline.
    """
    return "".join([
        f"mtllib {material_file}\n",
        *("v %.4f %.4f %.4f\n" % tuple(row) for row in vertices.tolist()),
        *("vt %.6f %.6f\n" % tuple(row) for row in uv.tolist()),
        "usemtl scan\n",
        *("f %d/%d %d/%d %d/%d\n" % (a, a, b, b, c, c) for a, b, c in (triangles + 1).tolist()),
    ]).encode()


def mtl_bytes(texture_file: str) -> bytes:
    """Return the material file of an OBJ whose colours are those of a picture."""
    return f"newmtl scan\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {texture_file}\n".encode()


def wrl_bytes(vertices: np.ndarray, triangles: np.ndarray, uv: np.ndarray, texture_file: str) -> bytes:
    """Return a VRML 2 file of one ``IndexedFaceSet``; parameters as `obj_bytes`, with the name of the texture."""
    points = ",\n".join("%.4f %.4f %.4f" % tuple(row) for row in vertices.tolist())
    places = ",\n".join("%.6f %.6f" % tuple(row) for row in uv.tolist())
    faces = ",\n".join("%d, %d, %d, -1" % tuple(row) for row in triangles.tolist())
    return f"""#VRML V2.0 utf8

Shape {{
  appearance Appearance {{
    material Material {{ diffuseColor 1 1 1 }}
    texture ImageTexture {{ url "{texture_file}" }}
  }}
  geometry IndexedFaceSet {{
    solid FALSE
    coord Coordinate {{
      point [
{points}
      ]
    }}
    coordIndex [
{faces}
    ]
    texCoord TextureCoordinate {{
      point [
{places}
      ]
    }}
    texCoordIndex [
{faces}
    ]
  }}
}}
""".encode()


def ljson_bytes(landmarks: np.ndarray) -> bytes:
    """Return menpo's file of (68, 3) landmarks, mm, in the 300-W order."""
    group = {"labels": [], "landmarks": {"points": np.round(landmarks, 4).tolist()}}
    return (json.dumps({"version": 2, "groups": {"LJSON": group}}) + "\n").encode()


def bnd_bytes(landmarks: np.ndarray, vertices: np.ndarray) -> bytes:
    """Return BU-3DFE's landmark file: 83 lines of the number, from 0, and place of the vertex next to a landmark.

    Parameters
    ----------
    landmarks : np.ndarray
        (68, 3) mm; `BND_FROM_68` makes 83 of them.
    vertices : np.ndarray
        (N, 3) of the scan, mm.

    Returns
    -------
    bytes
        Tab-separated text.
    """
    wanted = landmarks[np.array(BND_FROM_68)].mean(axis=1)
    nearest = cKDTree(vertices).query(wanted)[1]
    return "".join("%d\t%.4f\t%.4f\t%.4f\n" % (number, *vertices[number]) for number in nearest).encode()
