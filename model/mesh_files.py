"""Write a textured face as OBJ, PLY and GLB.

Axes are the program's in all three: x to the subject's left, y up, z out of the face; that is what glTF asks for
too. OBJ and PLY are in millimetres, GLB in metres. Dimension key: V vertices, F triangles, S side of the texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from bfm.charts import Chart
from bfm.render import vertex_normals


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A face ready to be written.

    Attributes
    ----------
    vertices : np.ndarray
        (V, 3) mm.
    triangles : np.ndarray
        (F, 3), counter-clockwise seen from outside.
    uv : np.ndarray
        (V, 2) in [0, 1], v up, the corners of the texture at 0 and 1 (`picture_uv`).
    texture : np.ndarray
        (S, S, 3) uint8, first row at v = 1.
    colours : np.ndarray
        (V, 3) uint8.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    colours: np.ndarray


def textured_mesh(vertices: np.ndarray, triangles: np.ndarray, albedo: np.ndarray, chart: Chart) -> TexturedMesh:
    """Put vertex colours on a face, and into its chart as a texture.

    Parameters
    ----------
    vertices : np.ndarray
        (V, 3) mm.
    triangles : np.ndarray
        (F, 3).
    albedo : np.ndarray
        (V, 3) RGB, about [0, 1].
    chart : Chart
        Of these vertices.

    Returns
    -------
    TexturedMesh
        Texels outside the chart repeat the nearest inside, so that no seam shows.
    """
    texture = chart.unwrap(albedo.astype(np.float32))  # (3, S, S)
    rows, columns = distance_transform_edt(~chart.mask, return_distances=False, return_indices=True)
    return TexturedMesh(
        np.asarray(vertices, np.float32), triangles, picture_uv(chart),
        _bytes(texture[:, rows, columns].transpose(1, 2, 0)), _bytes(albedo),
    )


def picture_uv(chart: Chart) -> np.ndarray:
    """Return the chart's (V, 2) coordinates as pictures have them: 0 and 1 are the edges, not the outer centres."""
    return ((chart.uv * (chart.size - 1) + 0.5) / chart.size).astype(np.float32)


def write_obj(path: Path, mesh: TexturedMesh) -> list[Path]:
    """Write OBJ, its ``.mtl``, and its texture ``<name>_albedo.png``; return the three files."""
    path = Path(path)
    material, picture = path.with_suffix(".mtl"), path.with_name(f"{path.stem}_albedo.png")
    Image.fromarray(mesh.texture).save(picture)
    material.write_text(f"newmtl face\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n", encoding="utf-8")
    normals = vertex_normals(mesh.vertices, mesh.triangles)
    lines = [f"# millimetres; x to the subject's left, y up, z forward\nmtllib {material.name}\nusemtl face"]
    lines += ["v %.4f %.4f %.4f" % tuple(row) for row in mesh.vertices.tolist()]
    lines += ["vt %.6f %.6f" % tuple(row) for row in mesh.uv.tolist()]
    lines += ["vn %.4f %.4f %.4f" % tuple(row) for row in normals.tolist()]
    lines += ["f {0}/{0}/{0} {1}/{1}/{1} {2}/{2}/{2}".format(*row) for row in (mesh.triangles + 1).tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path, material, picture]


def write_ply(path: Path, mesh: TexturedMesh) -> Path:
    """Write binary PLY with vertex colours and return the file."""
    vertices = np.empty(len(mesh.vertices), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices["xyz"], vertices["rgb"] = mesh.vertices, mesh.colours
    faces = np.empty(len(mesh.triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.triangles
    header = [
        "ply", "format binary_little_endian 1.0", "comment millimetres; x to the subject's left, y up, z forward",
        f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
        f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header",
    ]
    Path(path).write_bytes(("\n".join(header) + "\n").encode() + vertices.tobytes() + faces.tobytes())
    return Path(path)


def write_glb(path: Path, mesh: TexturedMesh) -> Path:
    """Write binary glTF with normals and texture, in metres, and return the file."""
    import trimesh  # only here: training needs no mesh library

    material = trimesh.visual.material.PBRMaterial(
        name="face", baseColorTexture=Image.fromarray(mesh.texture), metallicFactor=0.0, roughnessFactor=0.8
    )
    face = trimesh.Trimesh(
        mesh.vertices / 1000, mesh.triangles, vertex_normals=vertex_normals(mesh.vertices, mesh.triangles),
        visual=trimesh.visual.TextureVisuals(uv=mesh.uv, material=material), process=False,
    )
    Path(path).write_bytes(trimesh.Scene({"face": face}).export(file_type="glb", include_normals=True))
    return Path(path)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
