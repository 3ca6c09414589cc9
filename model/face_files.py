"""Everything that is written about one reconstructed face: meshes, pictures, numbers.

Dimension key: V vertices, K albedo modes, S side of the maps in texels.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from asmgen.locate import Placement
from bfm.light import sh_basis
from bfm.pose import project, rotation_matrix
from bfm.render import vertex_normals
from model.dual_stream import TrainedFaces
from model.mesh_files import PNG_LEVEL, MeshTemplate, TexturedMesh, write_glb, write_obj, write_ply
from model.views import (
    BACKDROP, DEPTH_STEPS, DEPTH_ZERO, PlacedFace, Surroundings, clay, depth_picture, draw, normal_picture, textured,
    turntable, write_gif,
)

MESHES = ("obj", "ply", "glb")
"""Formats of `FaceWriter`."""

NEUTRAL, SWAPPED = "_neutral", "_swapped"
"""What is added to a photo's name in those of the meshes without expression, and with another's."""

EXPRESSION_GAIN = 8
"""How much stronger the expression map is drawn in the picture of the maps."""


@dataclass(frozen=True, eq=False)
class FacialMaps:
    """A reconstructed face, in numpy.

    Attributes
    ----------
    identity_map, expression_map : np.ndarray
        (3, S, S) A_id and A_exp, map units.
    albedo_map : np.ndarray
        (3, S, S) I_a, RGB in [0, 1], 0 outside the chart.
    albedo_coeffs, light : np.ndarray
        (K,) p_t in standard deviations, (9,) p_l.
    pose, position : np.ndarray
        (3,) radians, (3,) t_x, t_y, scale in pixels of the photo.
    """

    identity_map: np.ndarray
    expression_map: np.ndarray
    albedo_map: np.ndarray
    albedo_coeffs: np.ndarray
    light: np.ndarray
    pose: np.ndarray
    position: np.ndarray


@dataclass(frozen=True, eq=False)
class PhotoFace:
    """A face and its photo.

    Attributes
    ----------
    maps : FacialMaps
        The face.
    placement : Placement
        Where in the photo it was looked for.
    around : Surroundings
        The photo there, as a picture.
    """

    maps: FacialMaps
    placement: Placement
    around: Surroundings


def name_variants(neutral: bool = False, swapped: bool = False) -> tuple[str, ...]:
    """Return what `FaceWriter` adds to a photo's name in those of its meshes."""
    return ("", "_lit") + neutral * (NEUTRAL,) + swapped * (SWAPPED,)


class FaceWriter:
    """Writes faces of one network; what they share is made once.

    Parameters
    ----------
    faces : TrainedFaces
        The network's face model, maps, renderer and description.
    meshes : Sequence[str]
        Formats, of `MESHES`.
    turning : bool
        Whether to write the turntable.
    neutral : bool
        Whether to write the face without expression.
    other : PhotoFace | None
        Whose expression to put on the face; None does not.

    Raises
    ------
    ValueError
        If identity and expression are asked for, and the network does not tell them apart.
    """

    def __init__(
        self, faces: TrainedFaces, meshes: Sequence[str] = MESHES, turning: bool = False, neutral: bool = False,
        other: PhotoFace | None = None,
    ):
        if (neutral or other) and faces.metadata["shape"] == "single":
            raise ValueError(
                "a run of --shape single has one map for identity and expression, so it has no neutral face and no "
                "expression to swap; give a run of another shape"
            )
        self.faces, self.meshes, self.turning, self.neutral, self.other = faces, meshes, turning, neutral, other
        self.template = MeshTemplate(faces.model.triangles, faces.maps.chart)

    def write(self, face: PhotoFace, stem: Path) -> tuple[list[Path], float | None]:
        """Write every file of a face; they appear under their names when all are whole.

        Parameters
        ----------
        face : PhotoFace
            The face.
        stem : Path
            Path of the files without their endings; its folder is made if need be.

        Returns
        -------
        tuple[list[Path], float | None]
            The files (`reconstruct` names them), and the photometric error: mean difference of photo and rendering
            over the face, RGB in [0, 1]; None if no pixel shows the face.
        """
        stem.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=stem.parent) as scratch:
            written, error = self._write(face, Path(scratch, stem.name))
            for file in written:
                os.replace(file, stem.with_name(file.name))
        return [stem.with_name(file.name) for file in written], error

    def _write(self, face: PhotoFace, stem: Path) -> tuple[list[Path], float | None]:
        """The files, and the error, of `write`."""
        shapes = self.shapes(face.maps)
        placed = {name: self.placed(face, shape) for name, shape in shapes.items()}
        files = []
        for name, shape in shapes.items():
            files += self._write_meshes(_ending(stem, name), self.template.textured(shape, face.maps.albedo_map))
        if "glb" in self.meshes:
            lit = self.template.textured(shapes[""], face.maps.albedo_map * self.shading_map(placed[""]))
            files.append(write_glb(_ending(stem, "_lit.glb"), lit, unlit=True))
        pictures, error = self.pictures(face, placed)
        for ending, pixels in pictures.items():
            Image.fromarray(pixels).save(_ending(stem, ending), compress_level=PNG_LEVEL)
            files.append(_ending(stem, ending))
        if self.turning:
            files.append(write_gif(_ending(stem, "_turntable.gif"), turntable(self.faces.renderer, placed[""])))
        parameters = _ending(stem, "_parameters.json")
        described = json.dumps(self.description(face, placed[""], error), indent=2, allow_nan=False)
        parameters.write_text(described + "\n", encoding="utf-8")
        return [*files, parameters], error

    def shapes(self, maps: FacialMaps) -> dict[str, np.ndarray]:
        """Return the (V, 3) shapes to write, mm, by what is added to the name: the face, neutral, swapped."""
        full_maps = {"": maps.identity_map + maps.expression_map}
        if self.neutral:
            full_maps[NEUTRAL] = maps.identity_map
        if self.other:
            full_maps[SWAPPED] = maps.identity_map + self.other.maps.expression_map
        return {name: self.faces.maps.vertices(full_map) for name, full_map in full_maps.items()}

    def placed(self, face: PhotoFace, shape: np.ndarray) -> PlacedFace:
        """Return a (V, 3) shape with the colours, the light and the place in the picture of a face."""
        maps = face.maps
        albedo = self.faces.maps.sample(maps.albedo_map)
        return PlacedFace(shape, albedo, maps.light, maps.pose, maps.position).transformed(face.around.transform)

    def shading_map(self, placed: PlacedFace) -> np.ndarray:
        """Return the (S, S) shading of a face as it stands in the photo, in its chart."""
        turned = vertex_normals(placed.vertices, self.faces.model.triangles) @ rotation_matrix(placed.pose).T
        normals = self.faces.maps.chart.unwrap(turned).transpose(1, 2, 0)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        return sh_basis(normals / np.where(length > 0, length, 1)) @ placed.light

    def pictures(self, face: PhotoFace, placed: dict[str, PlacedFace]) -> tuple[dict[str, np.ndarray], float | None]:
        """Return the pictures by the ending of their names, and the photometric error (see `write`)."""
        picture = face.around.picture
        rendered = draw(self.faces.renderer, placed[""], *picture.shape[:2])
        over, mask = textured(rendered, picture), rendered.mask[0, 0].cpu().numpy()
        pictures = {
            "_overlay.png": np.concatenate([picture, over, clay(rendered, picture)], 1),
            "_normals.png": normal_picture(rendered), "_depth.png": depth_picture(rendered),
            "_maps.png": maps_picture(face.maps),
        }
        if len(placed) > 1:
            pictures["_expressions.png"] = self.expression_picture(face, placed)
        difference = np.abs(over[mask].astype(np.float32) - picture[mask])
        return pictures, float(difference.mean()) / 255 if mask.any() else None

    def expression_picture(self, face: PhotoFace, placed: dict[str, PlacedFace]) -> np.ndarray:
        """Return photo, face, face without expression, the other's photo, face with its expression; clay below.

        Only what was asked for; faces in the photo's pose and light.
        """
        picture = face.around.picture
        behind = np.broadcast_to(BACKDROP, picture.shape)
        drawn = {name: draw(self.faces.renderer, shape, *picture.shape[:2]) for name, shape in placed.items()}
        columns = {name: np.concatenate([textured(part, behind), clay(part, behind)]) for name, part in drawn.items()}
        panels = [np.concatenate([picture, clay(drawn[""], picture)]), columns[""]]
        if NEUTRAL in columns:
            panels.append(columns[NEUTRAL])
        if SWAPPED in columns:
            height, width = self._other_panel.shape[:2]
            size = (round(width * len(columns[""]) / height), len(columns[""]))
            other = Image.fromarray(self._other_panel).resize(size, Image.Resampling.LANCZOS)
            panels += [np.asarray(other), columns[SWAPPED]]
        return np.concatenate(panels, 1)

    @cached_property
    def _other_panel(self) -> np.ndarray:
        """The other's photo, and below it as clay."""
        picture, maps = self.other.around.picture, self.other.maps
        shape = self.faces.maps.vertices(maps.identity_map + maps.expression_map)
        rendered = draw(self.faces.renderer, self.placed(self.other, shape), *picture.shape[:2])
        return np.concatenate([picture, clay(rendered, picture)])

    def description(self, face: PhotoFace, placed: PlacedFace, error: float | None) -> dict:
        """Return what the JSON file holds; numbers of places are in pixels of the photo."""
        maps, metadata, distance = face.maps, self.faces.metadata, float(self.faces.renderer.camera_distance)
        landmarks = project(
            placed.vertices[self.faces.model.landmarks].astype(np.float64), maps.pose, maps.position, distance
        )[:, :2]
        return {
            "pose": maps.pose.tolist(), "pose_units": "pitch, yaw, roll, radians (300W-LP's signs)",
            "position": maps.position.tolist(), "position_units": "t_x, t_y, scale in photo pixels (a millimetre)",
            "camera_distance": None if math.isinf(distance) else distance,
            "camera_distance_units": "mm from the model's origin; null is a scaled orthographic camera",
            "light": maps.light.tolist(),
            "light_units": "orthonormal spherical harmonics 1, y, z, x, xy, yz, 3z^2-1, xz, x^2-y^2 of the normals",
            "albedo_coeffs": maps.albedo_coeffs.tolist(), "albedo_coeffs_units": "standard deviations",
            "landmarks": landmarks.round(3).tolist(), "landmarks_units": "68 points x, y, photo pixels",
            "square": list(face.placement.square), "square_units": "left, top, side of the crop, edges, photo pixels",
            "placed_by": face.placement.placed_by,
            "photometric_error": error,
            "photometric_error_units": "mean |photo - rendering| over the face in the overlay, RGB in [0, 1]",
            "pictures": face.around.transform.tolist(),
            "pictures_units": "2x3 matrix from photo pixels to those of overlay, normals and depth",
            "normals_units": "RGB = 127.5 (n + 1); x right, y up, z toward the camera; black beside the face",
            "depth_units": f"mm before the model's origin = (value - {DEPTH_ZERO}) / {DEPTH_STEPS}; 0 beside the face",
            "checkpoint": metadata["kind"],
            **{key: metadata[key] for key in ("face_model", "face_model_sha256", "licence", "chart", "size")},
        }

    def _write_meshes(self, stem: Path, mesh: TexturedMesh) -> list[Path]:
        """A mesh in every format that is wanted."""
        files = write_obj(_ending(stem, ".obj"), mesh) if "obj" in self.meshes else []
        files += [write_ply(_ending(stem, ".ply"), mesh)] if "ply" in self.meshes else []
        return files + ([write_glb(_ending(stem, ".glb"), mesh)] if "glb" in self.meshes else [])


def maps_picture(maps: FacialMaps) -> np.ndarray:
    """Return identity map, expression map (stronger) and their sum, -1 to 1 as 0 to 255; (S, 3 S, 3) uint8."""
    parts = (maps.identity_map, EXPRESSION_GAIN * maps.expression_map, maps.identity_map + maps.expression_map)
    pictures = [np.clip((values + 1) * 127.5, 0, 255).transpose(1, 2, 0) for values in parts]
    return np.rint(np.concatenate(pictures, 1)).astype(np.uint8)


def _ending(stem: Path, text: str) -> Path:
    return stem.with_name(stem.name + text)
