"""The texture of a photographed face: what the photo shows at each texel, its light divided out, its holes filled.

Departs from IV-A of the paper: I_a is not the photo's colour but that over the fitted shading, because eq. 19 lights it
again; `Texture.filled` of `Texture.colours` is the paper's.

Dimension key: B batch, K modes of a basis, V vertices, S side of the chart in texels, H/W pixels of the photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from PIL import Image

from bfm.charts import Chart
from bfm.light import sh_basis
from bfm.morphable_model import MorphableModel
from bfm.sampling import sample_image
from texgen.fill import fill_map
from texgen.occlusion import Occlusion
from texgen.surface import FaceSurface
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
"""Side of a cell of `texgen.visibility` over the spacing of the texels."""
DARKEST = 0.5
"""Of the median shading in sight: no colour is divided by less, as that would blow up noise and errors of the light."""
_LEAST_SHADING = 0.02


@dataclass(frozen=True, eq=False)
class Texture:
    """What a photo shows of a face, texel by texel.

    Attributes
    ----------
    colours : np.ndarray
        (S, S, 3) float32, the photo's RGB in [0, 1] at the texels that are turned to the camera (by `FACING`), hidden
        or not; 0 elsewhere.
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
        shading = np.maximum(self.shading, np.float32(self.least_shading))
        return np.clip(self.colours / cv2.merge([shading] * 3), 0, 1)

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
    surface : FaceSurface
        Where its texels lie.
    occlusion : Occlusion
        Which of them are hidden.
    """

    def __init__(self, model: MorphableModel, chart: Chart):
        self._model, self._chart = model, chart
        bases = np.concatenate([model.id_basis, model.exp_basis])
        self._shape_basis = np.ascontiguousarray(bases.swapaxes(1, 2)).reshape(len(bases), -1)
        self._mean_shape = model.mean_shape.T.ravel()
        self.surface = FaceSurface(model, chart)
        self.occlusion = Occlusion(model, chart, self.surface.texels)
        self._chart_texels = np.flatnonzero(chart.mask)
        height = (chart.to_texels @ model.mean_shape[:, 1])[self.surface.texels]
        brows, eyes = (model.mean_shape[model.landmarks[part], 1] for part in (slice(17, 27), slice(36, 48)))
        self._margin = np.interp(height, (eyes.mean(), brows.max()), (OUTER_MARGIN, FOREHEAD_MARGIN)).astype(np.float32)
        twins = np.rint(chart.unwrap(chart.vertex_pixels[model.mirror])).astype(np.int64)
        column, row = np.clip(twins, 0, chart.size - 1)
        itself = np.arange(chart.size**2).reshape(chart.mask.shape)
        self._mirrored = np.where(chart.mask, row * chart.size + column, itself).ravel()

    @property
    def spacing(self) -> float:
        """Millimetres between texels on the mean face."""
        return self.surface.spacing

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
        maps = np.empty((len(albedo), self._chart.size**2, 3), np.float32)
        for each, values in zip(maps, albedo):
            channels = cv2.merge([self.surface.to_texels @ channel for channel in values.T])
            np.clip(channels.reshape(each.shape), 0, 1, out=each)
        return maps.reshape(-1, self._chart.size, self._chart.size, 3)

    def vertices(self, id_coeffs: np.ndarray, exp_coeffs: np.ndarray) -> np.ndarray:
        """Return the (B, V, 3) float32 vertices, mm, for (B, K) coefficients: one matrix product a batch."""
        coeffs = np.concatenate([id_coeffs, exp_coeffs], axis=1).astype(np.float32)
        vertices = coeffs @ self._shape_basis
        vertices += self._mean_shape
        return vertices.reshape(len(coeffs), 3, -1).swapaxes(1, 2)

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
        placed, scale = self.surface.place(vertices, pose, position), float(position[2])
        texels, normals = (values.take(self.surface.texels, axis=1) for values in (placed.places, placed.normals))
        cell = CELL * self.spacing * scale
        turned = np.flatnonzero(normals[2] > FACING)
        hidden = self.occlusion.hidden(placed.points, placed.away, texels, turned, cell)
        seen = visible_texels(
            texels.T, normals.T, hidden, cell, FACING, self._margin * scale, INNER_MARGIN * scale, STEP * scale
        )
        for places, side in zip(texels, image.shape[1::-1]):
            seen &= (places >= 0) & (places <= side - 1)
        visible = self._map(self.surface.texels, seen)
        turned = np.flatnonzero(placed.normals[2] > FACING)  # in the mouth gap too
        colours = _look_up(image, placed.places[:2].take(turned, axis=1), max(1, int(self.spacing * scale)))
        shading = sh_basis(placed.normals.take(self._chart_texels, axis=1).T) @ np.asarray(light, np.float32)
        return Texture(
            cv2.merge([self._map(turned, channel) for channel in colours.T]), self._without_islands(visible),
            np.moveaxis(placed.normals.reshape(3, *self._chart.mask.shape), 0, -1),
            self._map(self._chart_texels, shading), self._mirrored,
        )

    def _map(self, texels, values):
        """(S, S) values at some texels, 0 elsewhere."""
        made = np.zeros(self._chart.mask.shape, values.dtype)
        made.ravel()[texels] = values
        return made

    def _without_islands(self, visible):
        """The (S, S) visible texels but for small pieces of which most is seen on the other side too."""
        count, pieces = cv2.connectedComponents(visible.view(np.uint8), connectivity=4)
        seen = np.flatnonzero(visible)
        piece, mirrored = pieces.ravel()[seen], visible.ravel()[self._mirrored[seen]]
        size, seen_twice = (np.bincount(some, minlength=count) for some in (piece, piece[mirrored]))
        kept = (size >= ISLAND * len(self._chart_texels)) | (seen_twice < size / 2)
        return self._map(seen, kept[piece])


def _look_up(image, places, reduction):
    """(N, 3) float32 colours in [0, 1] of a photo at (2, N) places, bilinear; reduced by boxes first if above 1.

    Only the part of the photo about the places is looked at.
    """
    if not places.size:
        return np.zeros((0, 3), np.float32)
    sides = np.array(image.shape[1::-1])
    low = np.clip(np.floor(places.min(axis=1)) - reduction, 0, sides - 1).astype(int)
    high = np.clip(np.ceil(places.max(axis=1)) + reduction, low + 1, sides).astype(int)
    image = image[low[1]:high[1], low[0]:high[0]]
    places = places - low[:, None].astype(np.float32)
    if reduction > 1:
        image = np.asarray(Image.fromarray(image).reduce(reduction))
        places = (places + 0.5) / reduction - 0.5
    return sample_image(image, places.T) / np.float32(255)
