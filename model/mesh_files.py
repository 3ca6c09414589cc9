"""Write a textured face as OBJ, PLY and GLB.

Axes are the program's in all three: x to the subject's left, y up, z out of the face; that is what glTF asks for
too. OBJ and PLY are in millimetres, GLB in metres. Dimension key: V vertices, F triangles, S side of the texture.
"""

from __future__ import annotations

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
        (V, 2) in [0, 1], v up: the chart's coordinates as pictures have them, whose 0 and 1 are the outer edges of
        the texture and not the centres of its outer texels.
    """

    def __init__(self, triangles: np.ndarray, chart: Chart):
        self.triangles, self.chart = triangles, chart
        self.uv = ((chart.uv * (chart.size - 1) + 0.5) / chart.size).astype(np.float32)
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
    def obj_lines(self) -> str:
        """The lines of an OBJ file that are the same for every face: texture coordinates and triangles."""
        corners = "f {0}/{0}/{0} {1}/{1}/{1} {2}/{2}/{2}\n"
        return _lines("vt %.6f %.6f\n", self.uv) + "".join(
            [corners.format(*row) for row in (self.triangles + 1).tolist()]
        )


def write_obj(path: Path, mesh: TexturedMesh) -> list[Path]:
    """Write OBJ, its ``.mtl``, and its texture ``<name>_albedo.png``; return the three files."""
    path = Path(path)
    material, picture = path.with_suffix(".mtl"), path.with_name(f"{path.stem}_albedo.png")
    Image.fromarray(mesh.texture).save(picture, compress_level=PNG_LEVEL)
    material.write_text(f"newmtl face\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n", encoding="utf-8")
    path.write_text(
        f"# millimetres; x to the subject's left, y up, z forward\nmtllib {material.name}\nusemtl face\n"
        + _lines("v %.4f %.4f %.4f\n", mesh.vertices) + _lines("vn %.4f %.4f %.4f\n", mesh.normals)
        + mesh.template.obj_lines, encoding="utf-8",
    )
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
    """Write binary glTF with normals and texture, in metres, and return the file.

    With `unlit` viewers show the texture as it is (``KHR_materials_unlit``): for one that has the light in it.
    """
    import trimesh  # only here: training needs no mesh library

    def mark_unlit(tree: dict):
        tree["extensionsUsed"] = [_UNLIT]
        for material in tree["materials"]:
            material["extensions"] = {_UNLIT: {}}

    material = trimesh.visual.material.PBRMaterial(
        name="face", baseColorTexture=Image.fromarray(mesh.texture), metallicFactor=0.0, roughnessFactor=0.8
    )
    face = trimesh.Trimesh(
        mesh.vertices / 1000, mesh.template.triangles, vertex_normals=mesh.normals,
        visual=trimesh.visual.TextureVisuals(uv=mesh.template.uv, material=material), process=False,
    )
    Path(path).write_bytes(trimesh.exchange.gltf.export_glb(
        trimesh.Scene({"face": face}), include_normals=True, tree_postprocessor=mark_unlit if unlit else None
    ))
    return Path(path)


def _lines(row: str, values: np.ndarray) -> str:
    """Each row of an array as a line of text."""
    return row * len(values) % tuple(values.ravel().tolist())


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
