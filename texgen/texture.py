"""The texture of a photographed face: what the photo shows at each texel, its light divided out, its holes filled.

The chart is fixed, so where a texel lies on the mesh is known once a process. Dimension key: B batch, K modes of a
basis, V vertices, S side of the chart in texels, T texels on the surface, H/W pixels of the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from bfm.charts import Chart
from bfm.light import sh_basis
from bfm.morphable_model import MorphableModel
from bfm.pose import project
from bfm.render import camera_vertices, vertex_normals
from bfm.sampling import sample_image
from texgen.fill import fill_map
from texgen.visibility import visible_texels

FACING = 0.25
"""Least cosine between normal and view of a texel that is taken from the photo."""
MARGIN = 2.5
"""mm from an outline of the face: the fitted mesh is about so far off the photographed face."""
DARKEST = 0.2
"""Least shading that a colour is divided by: below, noise and the light's own error would be blown up."""


@dataclass(frozen=True, eq=False)
class Texture:
    """What a photo shows of a face, texel by texel.

    Attributes
    ----------
    colours : np.ndarray
        (S, S, 3) float32, the photo's RGB in [0, 1] at every texel of the surface, seen or not; 0 outside.
    visible : np.ndarray
        (S, S) bool: the texels whose colour is the face's own.
    normals : np.ndarray
        (S, S, 3) float32 unit normals in camera axes (y up); 0 outside the chart.
    shading : np.ndarray
        (S, S) float32 ``sh_basis(normals) @ light``; 0 outside the chart.
    mirrored : np.ndarray
        (S * S,) flat index of the texel on the other side of the face.
    """

    colours: np.ndarray
    visible: np.ndarray
    normals: np.ndarray
    shading: np.ndarray
    mirrored: np.ndarray

    @property
    def albedo(self) -> np.ndarray:
        """(S, S, 3) float32 RGB in [0, 1]: `colours` over `shading`, which counts `DARKEST` where it is less."""
        return np.clip(self.colours / np.maximum(self.shading, DARKEST)[..., None], 0, 1)

    def filled(self, values: np.ndarray) -> np.ndarray:
        """Return (S, S, 3) values with all but the visible texels filled (`texgen.fill`), clipped to [0, 1]."""
        return np.clip(fill_map(values, self.visible, self.mirrored), 0, 1)

    def filled_albedo(self) -> np.ndarray:
        """Return I_a, (S, S, 3) float32 RGB in [0, 1], everywhere; ValueError if nothing is visible."""
        return self.filled(self.albedo)


class TextureMapper:
    """Takes textures from photos of one face model; made once a process.

    Parameters
    ----------
    model : MorphableModel
        The face alone (`MorphableModel.face_only`), numpy arrays.
    chart : Chart
        Its chart.
    """

    def __init__(self, model: MorphableModel, chart: Chart):
        self._model, self._chart = model, chart
        self._shape_basis = np.concatenate([model.id_basis, model.exp_basis]).reshape(-1, model.mean_shape.size)
        surface = chart.mask & (chart.texel_triangles < len(model.triangles)) & (chart.texel_barycentric >= 0).all(-1)
        self._in_chart, self._on_surface = np.flatnonzero(chart.mask), surface[chart.mask]
        self._to_texels = chart.to_texels[self._in_chart]
        self._spacing = _spacing(model, chart)
        twins = np.rint(chart.unwrap(chart.vertex_pixels[model.mirror])).astype(np.int64)
        column, row = np.clip(twins, 0, chart.size - 1)
        itself = np.arange(chart.size**2).reshape(chart.mask.shape)
        self._mirrored = np.where(chart.mask, row * chart.size + column, itself).ravel()

    def linear_albedo(self, albedo_coeffs: np.ndarray) -> np.ndarray:
        """Return I_u, the model's albedo unwrapped.

        Parameters
        ----------
        albedo_coeffs : np.ndarray
            (B, K) standard deviations; (B, 0) is the mean albedo.

        Returns
        -------
        np.ndarray
            (B, S, S, 3) float32 RGB, clipped to [0, 1]; 0 outside the chart.
        """
        albedo = self._model.mean_albedo
        if albedo_coeffs.shape[1]:
            albedo = self._model.albedo(albedo_coeffs)
        else:
            albedo = np.broadcast_to(albedo, (len(albedo_coeffs), *albedo.shape))
        return np.clip(np.moveaxis(self._chart.unwrap(albedo), 1, -1), 0, 1)

    def vertices(self, id_coeffs: np.ndarray, exp_coeffs: np.ndarray) -> np.ndarray:
        """Return the (B, V, 3) float32 vertices, mm, for (B, K) coefficients: one matrix product a batch."""
        coeffs = np.concatenate([id_coeffs, exp_coeffs], axis=1).astype(np.float32)
        return self._model.mean_shape + (coeffs @ self._shape_basis).reshape(len(coeffs), -1, 3)

    def extract(
        self, image: np.ndarray, vertices: np.ndarray, pose: np.ndarray, position: np.ndarray, light: np.ndarray
    ) -> Texture:
        """Take the texture of one photo.

        Parameters
        ----------
        image : np.ndarray
            (H, W, 3) uint8 RGB, the photo in full resolution.
        vertices : np.ndarray
            (V, 3) mm.
        pose : np.ndarray
            (3,) radians.
        position : np.ndarray
            (3,) t_x, t_y, scale (`bfm.pose`), pixels of the photo.
        light : np.ndarray
            (9,) spherical harmonics (`bfm.light`).

        Returns
        -------
        Texture
            Float32 throughout.
        """
        points = project(vertices, pose, position).astype(np.float32)
        normals = vertex_normals(camera_vertices(points), self._model.triangles)
        texels = self._to_texels @ np.concatenate([points, normals], axis=1)
        texels, normals = texels[:, :3], texels[:, 3:]
        normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        scale = float(position[2])
        on = self._on_surface
        visible = on.copy()
        visible[on] = visible_texels(
            texels[on], normals[on], texels[on], normals[on], 1.7 * self._spacing * scale, FACING, MARGIN * scale
        )
        height, width = image.shape[:2]
        visible &= ((texels[:, :2] >= 0) & (texels[:, :2] <= [width - 1, height - 1])).all(axis=1)
        colours = _look_up(image, texels[:, :2], max(1, int(self._spacing * scale)))
        shading = (sh_basis(normals) @ light).astype(np.float32)
        return Texture(*(self._as_map(values) for values in (colours, visible, normals, shading)), self._mirrored)

    def _as_map(self, values):
        """Texel values as a map that is 0 outside the chart."""
        shape = (self._chart.size, self._chart.size, *values.shape[1:])
        full = np.zeros((self._chart.size**2, *values.shape[1:]), values.dtype)
        full[self._in_chart] = values
        return full.reshape(shape)


def _spacing(model, chart) -> float:
    """Root of the mean face's area a texel, mm."""
    a, b, c = (model.mean_shape[model.triangles[:, k]].astype(np.float64) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    return float(np.sqrt(area / np.count_nonzero(chart.mask)))


def _look_up(image, places, reduction):
    """(T, 3) float32 colours in [0, 1] of a photo at (T, 2) places, bilinear, reduced by boxes first."""
    if reduction > 1:
        image = np.asarray(Image.fromarray(image).reduce(reduction))
        places = (places + 0.5) / reduction - 0.5
    return sample_image(image, places) / 255
