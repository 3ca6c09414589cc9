"""Write a textured face as OBJ, PLY and GLB.

Axes are the program's in all three: x to the subject's left, y up, z out of the face; that is what glTF asks for
too. OBJ and PLY are in millimetres, GLB in metres. Dimension key: V vertices, F triangles, S side of the texture.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from bfm.charts import Chart
from bfm.render import vertex_normals

PNG_LEVEL = 1
"""Of compression: five times as fast as Pillow's 6, a fifth larger."""

_UNLIT = "KHR_materials_unlit"
_COMPONENTS, _VERTICES, _INDICES = {"<f4": 5126, "<u2": 5123, "<u4": 5125}, 34962, 34963  # glTF's names for them


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A face ready to be written.

    Attributes
    ----------
    template : MeshTemplate
        What it shares with every face of its model.
    vertices : np.ndarray
        (V, 3) float32 mm.
    texture : np.ndarray
        (S, S, 3) uint8, first row at v = 1.
    colours : np.ndarray
        (V, 3) uint8: the texture at the vertices.
    """

    template: MeshTemplate
    vertices: np.ndarray
    texture: np.ndarray
    colours: np.ndarray

    @cached_property
    def normals(self) -> np.ndarray:
        """(V, 3) unit normals."""
        return vertex_normals(self.vertices, self.template.triangles)

    @cached_property
    def png(self) -> bytes:
        """The texture as a PNG file."""
        file = io.BytesIO()
        Image.fromarray(self.texture).save(file, "PNG", compress_level=PNG_LEVEL)
        return file.getvalue()


class MeshTemplate:
    """What all faces of a model share in their files; made once.

    Parameters
    ----------
    triangles : np.ndarray
        (F, 3), counter-clockwise seen from outside.
    chart : Chart
        Of the vertices.

    Attributes
    ----------
    triangles : np.ndarray
        (F, 3).
    chart : Chart
        The same.
    uv : np.ndarray
        (V, 2) of `picture_uv`.
    """

    def __init__(self, triangles: np.ndarray, chart: Chart):
        self.triangles, self.chart = triangles, chart
        self.uv = picture_uv(chart.uv, chart.size)
        self._nearest = tuple(distance_transform_edt(~chart.mask, return_distances=False, return_indices=True))

    def textured(self, vertices: np.ndarray, colour_map: np.ndarray) -> TexturedMesh:
        """Put a map of colours on a face.

        Parameters
        ----------
        vertices : np.ndarray
            (V, 3) mm.
        colour_map : np.ndarray
            (3, S, S) RGB in [0, 1] in the chart; clipped.

        Returns
        -------
        TexturedMesh
            Its texture is the map, whose texels outside the chart repeat the nearest inside, so that no seam shows.
        """
        rows, columns = self._nearest
        return TexturedMesh(
            self, np.asarray(vertices, np.float32), _bytes(colour_map[:, rows, columns].transpose(1, 2, 0)),
            _bytes(self.chart.sample(colour_map)),
        )

    @cached_property
    def obj_lines(self) -> bytes:
        """The lines of an OBJ file that are the same for every face: texture coordinates and triangles."""
        corners = (self.triangles + 1).repeat(3, 1)
        return _lines("vt %.6f %.6f\n", self.uv) + _lines("f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners)


def picture_uv(uv: np.ndarray, size: int) -> np.ndarray:
    """Return coordinates in a chart as pictures have them: 0 and 1 are the outer edges, not the outer texels' centres.

    Parameters
    ----------
    uv : np.ndarray
        (V, 2) u right and v up, in [0, 1].
    size : int
        S.

    Returns
    -------
    np.ndarray
        (V, 2) float32, v up.
    """
    return ((uv * (size - 1) + 0.5) / size).astype(np.float32)


def write_obj(path: Path, mesh: TexturedMesh) -> list[Path]:
    """Write OBJ, its ``.mtl``, and its texture ``<name>_albedo.png``; return the three files."""
    path = Path(path)
    material, picture = path.with_suffix(".mtl"), path.with_name(f"{path.stem}_albedo.png")
    picture.write_bytes(mesh.png)
    material.write_text(f"newmtl face\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n", encoding="utf-8")
    header = f"# millimetres; x to the subject's left, y up, z forward\nmtllib {material.name}\nusemtl face\n"
    lines = (_lines("v %.4f %.4f %.4f\n", mesh.vertices), _lines("vn %.4f %.4f %.4f\n", mesh.normals))
    path.write_bytes(b"".join([header.encode(), *lines, mesh.template.obj_lines]))
    return [path, material, picture]


def write_ply(path: Path, mesh: TexturedMesh) -> Path:
    """Write binary PLY with vertex colours and return the file."""
    triangles = mesh.template.triangles
    vertices = np.empty(len(mesh.vertices), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices["xyz"], vertices["rgb"] = mesh.vertices, mesh.colours
    faces = np.empty(len(triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, triangles
    header = [
        "ply", "format binary_little_endian 1.0", "comment millimetres; x to the subject's left, y up, z forward",
        f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
        f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header",
    ]
    Path(path).write_bytes(("\n".join(header) + "\n").encode() + vertices.tobytes() + faces.tobytes())
    return Path(path)


def write_glb(path: Path, mesh: TexturedMesh, unlit: bool = False) -> Path:
    """Write binary glTF 2.0 with normals and texture, in metres, and return the file.

    With `unlit` viewers show the texture as it is (``KHR_materials_unlit``): for one that has the light in it.
    """
    parts: dict[str, np.ndarray] = {  # glTF's v points down
        "POSITION": mesh.vertices / np.float32(1000), "NORMAL": mesh.normals.astype(np.float32),
        "TEXCOORD_0": mesh.template.uv * np.array([1, -1], np.float32) + np.array([0, 1], np.float32),
        "indices": mesh.template.triangles.ravel().astype("<u2" if len(mesh.vertices) < 2**16 else "<u4"),
    }
    blocks = [*(np.ascontiguousarray(values).tobytes() for values in parts.values()), mesh.png]
    blocks = [block + b"\0" * (-len(block) % 4) for block in blocks]
    starts = np.cumsum([0, *map(len, blocks)]).tolist()
    accessors = [
        {"bufferView": k, "componentType": _COMPONENTS[values.dtype.str], "count": len(values),
         "type": "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}",
         "min": np.atleast_1d(values.min(0)).tolist(), "max": np.atleast_1d(values.max(0)).tolist()}
        for k, values in enumerate(parts.values())
    ]
    material = {"name": "face", "pbrMetallicRoughness": {
        "baseColorTexture": {"index": 0}, "metallicFactor": 0, "roughnessFactor": 0.8,
    }}
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}, "indices": 3, "material": 0}
    tree = {
        "asset": {"version": "2.0", "generator": "dualface"}, "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "face", "mesh": 0}], "meshes": [{"name": "face", "primitives": [primitive]}],
        "materials": [material | ({"extensions": {_UNLIT: {}}} if unlit else {})],
        **({"extensionsUsed": [_UNLIT]} if unlit else {}),
        "textures": [{"source": 0}], "images": [{"bufferView": 4, "mimeType": "image/png"}], "accessors": accessors,
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(block)} | ({"target": target} if target else {})
            for start, block, target in zip(starts, blocks, (_VERTICES, _VERTICES, _VERTICES, _INDICES, None))
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }
    described = json.dumps(tree).encode()
    described += b" " * (-len(described) % 4)
    length = 12 + 8 + len(described) + 8 + starts[-1]
    Path(path).write_bytes(b"".join([
        struct.pack("<4s2I", b"glTF", 2, length), struct.pack("<I4s", len(described), b"JSON"), described,
        struct.pack("<I4s", starts[-1], b"BIN\0"), *blocks,
    ]))
    return Path(path)


def _lines(row: str, values: np.ndarray) -> bytes:
    """Each row of an array as a line of text."""
    return (row * len(values) % tuple(values.ravel().tolist())).encode()


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
