"""The texture of a photographed face: what the photo shows at each texel, its light divided out, its holes filled.

Departs from IV-A of the paper: I_a is not the photo's colour but that over the fitted shading, because eq. 19 lights it
again; `Texture.filled` of `Texture.colours` is the paper's.

The chart is fixed, so where a texel lies on the mesh is known once a process. Dimension key: B batch, K modes of a
basis, V vertices, S side of the chart in texels, T texels on the surface, H/W pixels of the photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image
from scipy import sparse
from scipy.ndimage import label

from bfm.charts import Chart
from bfm.light import sh_basis
from bfm.morphable_model import MorphableModel
from bfm.pose import project
from bfm.sampling import sample_image
from texgen.fill import fill_map
from texgen.visibility import visible_texels

FACING = 0.3
"""Least cosine between normal and view of a texel that is taken from the photo."""
OUTER_MARGIN, FOREHEAD_MARGIN, INNER_MARGIN, STEP = 5.0, 10.0, 2.5, 8.0
"""mm: least distance from the outline of the face in the photo, below the eyes and above the brows, and from holes and
steps in depth of at least `STEP` within it. Fitted meshes are about so far off the photographed face, and more so above
the brows, where no landmark holds them."""
ISLAND = 0.03
"""Of the chart: smaller pieces of the visible texture are left out where the other side of the face is seen: slivers of
the far side, at a grazing angle, with which the near side would be mixed."""
CELL = 1.7
"""Side of a cell of `texgen.visibility` over the spacing of the samples of the surface."""
DARKEST = 0.5
"""Of the median shading in sight: no colour is divided by less, as that would blow up noise and errors of the light."""
_LEAST_SHADING = 0.02


def surface_texels(model: MorphableModel, chart: Chart) -> np.ndarray:
    """Return the texels that lie on the face: (S, S) bool, without the mouth gap and the ring about the chart."""
    return chart.mask & (chart.texel_triangles < len(model.triangles)) & (chart.texel_barycentric >= 0).all(-1)


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
        """(S, S, 3) float32 RGB in [0, 1]: `colours` over `shading`, or over `least_shading` where that is more."""
        return np.clip(self.colours / np.maximum(self.shading, self.least_shading)[..., None], 0, 1)

    @cached_property
    def least_shading(self) -> float:
        """`DARKEST` of the median shading of the visible texels: the least that a colour is divided by."""
        seen = self.shading[self.visible]
        return max(DARKEST * float(np.median(seen)) if len(seen) else DARKEST, _LEAST_SHADING)

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

    Attributes
    ----------
    spacing : float
        Millimetres between texels on the mean face: the root of its area a texel.
    """

    def __init__(self, model: MorphableModel, chart: Chart):
        self._model, self._chart = model, chart
        self._shape_basis = np.concatenate([model.id_basis, model.exp_basis]).reshape(-1, model.mean_shape.size)
        surface = surface_texels(model, chart)
        self._surface_count = np.count_nonzero(surface)
        # the texels on the surface first, then those that close the mouth or ring the chart
        self._in_chart = np.concatenate([np.flatnonzero(surface), np.flatnonzero(chart.mask & ~surface)])
        self._to_texels = chart.to_texels[self._in_chart]
        self.spacing = _spacing(model, chart)
        height = self._to_texels[:self._surface_count] @ model.mean_shape[:, 1]
        brows, eyes = (model.mean_shape[model.landmarks[part], 1] for part in (slice(17, 27), slice(36, 48)))
        self._margin = np.interp(height, (eyes.mean(), brows.max()), (OUTER_MARGIN, FOREHEAD_MARGIN)).astype(np.float32)
        self._corners = np.ascontiguousarray(model.triangles.T)
        count = len(model.triangles)
        self._about_vertex = sparse.csr_array(
            (np.ones(3 * count, np.float32), (self._corners.ravel(), np.tile(np.arange(count), 3))),
            (len(model.mean_shape), count),
        )
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
        texels = self._to_texels @ np.concatenate([points, self._normals(points)], axis=1)
        texels, normals = np.ascontiguousarray(texels[:, :3]), _unit(texels[:, 3:])
        scale = float(position[2])
        surface, facing = texels[:self._surface_count], normals[:self._surface_count]
        visible = np.zeros(len(texels), bool)
        visible[:len(surface)] = visible_texels(
            surface, facing, surface, facing, CELL * self.spacing * scale, FACING,
            self._margin * scale, INNER_MARGIN * scale, STEP * scale,
        )
        for axis, side in ((0, image.shape[1]), (1, image.shape[0])):
            visible &= (texels[:, axis] >= 0) & (texels[:, axis] <= side - 1)
        colours = _look_up(image, texels[:, :2], max(1, int(self.spacing * scale)))
        shading = sh_basis(normals) @ np.asarray(light, np.float32)
        colours, visible, normals, shading = (
            self._as_map(values) for values in (colours, visible, normals, shading)
        )
        return Texture(colours, self._without_islands(visible), normals, shading, self._mirrored)

    def _normals(self, points):
        """(V, 3) unit normals in camera axes, as `bfm.render.vertex_normals`, whose sums are prepared here."""
        columns = np.ascontiguousarray(points.T)
        columns[1] *= -1
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (columns.take(corner, axis=1) for corner in self._corners)
        bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
        normals = self._about_vertex @ np.stack([by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx], -1)
        return _unit(normals)

    def _without_islands(self, visible):
        """The (S, S) visible texels but for small pieces of which most is seen on the other side too."""
        pieces, _ = label(visible)
        pieces = pieces.ravel()
        size, seen_twice = np.bincount(pieces), np.bincount(pieces, visible.ravel()[self._mirrored])
        kept = (size >= ISLAND * len(self._in_chart)) | (seen_twice < size / 2)
        return visible & kept[pieces].reshape(visible.shape)

    def _as_map(self, values):
        """Texel values as a map that is 0 outside the chart."""
        shape = (self._chart.size, self._chart.size, *values.shape[1:])
        full = np.zeros((self._chart.size**2, *values.shape[1:]), values.dtype)
        full[self._in_chart] = values
        return full.reshape(shape)


def _unit(vectors):
    """(N, 3) vectors at length 1; zero stays zero."""
    return vectors / np.maximum(np.sqrt(np.einsum("nc,nc->n", vectors, vectors)), 1e-12)[:, None]


def _spacing(model, chart) -> float:
    """Root of the mean face's area a texel, mm."""
    a, b, c = (model.mean_shape[model.triangles[:, k]].astype(np.float64) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    return float(np.sqrt(area / np.count_nonzero(chart.mask)))


def _look_up(image, places, reduction):
    """(T, 3) float32 colours in [0, 1] of a photo at (T, 2) places, bilinear; reduced by boxes first if above 1."""
    if reduction > 1:
        sides = image.shape[1::-1]
        low = np.clip(np.floor(places.min(axis=0)) - reduction, 0, sides).astype(int)
        high = np.clip(np.ceil(places.max(axis=0)) + reduction, low + 1, sides).astype(int)
        low = np.minimum(low, high - 1)
        image = np.asarray(Image.fromarray(image[low[1]:high[1], low[0]:high[0]]).reduce(reduction))
        places = (places - low + 0.5) / reduction - 0.5
    return sample_image(image, places) / 255
