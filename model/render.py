"""The renderer R of Eq. (19): maps, light, pose and position to a picture of the face, with gradient to all of them.

Deferred shading: `model.rasterize` finds the triangle at each pixel, without gradient; position, normal and albedo are
interpolated there and shaded, only where a face is. The gradient knows how the surface under a pixel changes, not that
an outline moves over it.

Dimension key: B batch, V vertices, F triangles, N covered pixels, S side of the maps, H = W pixels.
Colours are RGB in [0, 1] as encoded in the photo, places pixels with centres at whole numbers, normals in camera axes
(x right, y up, z toward the camera).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from asmgen.maps import AttributeMaps
from bfm.light import sh_basis
from bfm.morphable_model import MorphableModel
from bfm.pose import project, project_homogeneous, rotation_matrix
from model.layers import full_precision
from model.nearest_triangles import nearest_triangles
from model.rasterize import covered_pixels, to_images, values_at, weights_at


class Rendered(NamedTuple):
    """A batch of rendered faces and what they were shaded from; 0 where there is no face.

    Attributes
    ----------
    image : torch.Tensor
        (B, 3, H, W) ``albedo * shading``, about [0, 1], not clipped.
    mask : torch.Tensor
        (B, 1, H, W) bool: where the face shows its outer side. The mouth's opening is none of it, nor is the inner
        side, which hides what is behind it as the rest of the head would.
    albedo : torch.Tensor
        (B, 3, H, W).
    normals : torch.Tensor
        (B, 3, H, W) unit vectors in camera axes.
    depth : torch.Tensor
        (B, 1, H, W) mm along the camera's axis from the model's origin, larger nearer.
    landmarks : torch.Tensor
        (B, 68, 2) x, y in pixels.
    """

    image: torch.Tensor
    mask: torch.Tensor
    albedo: torch.Tensor
    normals: torch.Tensor
    depth: torch.Tensor
    landmarks: torch.Tensor


class FaceRenderer(nn.Module):
    """Mesh assembly (Sec. III-C) and rendering for one face model and chart.

    Parameters
    ----------
    model : MorphableModel
        Face part of the model, numpy. Its mouth gap stays open.
    maps : AttributeMaps
        Its map space, numpy.
    camera_distance : float
        Of the camera from the model's origin, mm; infinite is the scaled orthographic camera of the annotations.
    """

    def __init__(self, model: MorphableModel, maps: AttributeMaps, camera_distance: float = math.inf):
        super().__init__()
        self.size, self.scale, self.camera_distance = maps.chart.size, maps.scale, camera_distance
        for name, values in {
            "triangles": model.triangles, "landmarks": model.landmarks, "vertex_texels": maps.vertex_texels.T,
        }.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
        self.register_buffer("around", corners_by_vertex(self.triangles, len(model.mean_shape)), persistent=False)
        for name, values in {"vertex_weights": maps.vertex_weights.T, "centre": maps.centre}.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def vertices(self, full_map: torch.Tensor) -> torch.Tensor:
        """Return the (B, V, 3) vertices, mm, that (B, 3, S, S) maps I_g hold, or A_id for the neutral faces."""
        return self._at_vertices(full_map) * self.scale + self.centre

    def vertex_albedo(self, albedo_map: torch.Tensor) -> torch.Tensor:
        """Return the (B, V, 3) albedo of the vertices from (B, 3, S, S) maps I_a."""
        return self._at_vertices(albedo_map)

    def _at_vertices(self, maps):
        """(B, V, 3): maps read bilinearly at the vertices, as `AttributeMaps.sample` does."""
        planes = maps.flatten(2).flatten(0, 1)  # (B * 3, S * S)
        texels = planes.index_select(1, self.vertex_texels.flatten()).unflatten(1, (4, -1))
        return (texels * self.vertex_weights).sum(1).unflatten(0, (-1, 3)).mT

    def forward(
        self,
        full_map: torch.Tensor,
        albedo_map: torch.Tensor,
        light: torch.Tensor,
        pose: torch.Tensor,
        position: torch.Tensor,
        size: int | None = None,
    ) -> Rendered:
        """Render faces, Eq. (19).

        Parameters
        ----------
        full_map : torch.Tensor
            (B, 3, S, S) I_g, map units.
        albedo_map : torch.Tensor
            (B, 3, S, S) I_a, RGB in [0, 1].
        light : torch.Tensor
            (B, 9) p_l, see `bfm.light`.
        pose : torch.Tensor
            (B, 3) p_h, radians.
        position : torch.Tensor
            (B, 3) t_x, t_y, scale in pixels of the picture.
        size : int | None
            Side of the picture, pixels; None is S.

        Returns
        -------
        Rendered
            In the precision of the inputs, also under autocast.
        """
        with full_precision(full_map):
            return self.render_vertices(
                self.vertices(full_map), self.vertex_albedo(albedo_map), light, pose, position, size or self.size
            )

    def render_vertices(
        self,
        vertices: torch.Tensor,
        albedo: torch.Tensor,
        light: torch.Tensor,
        pose: torch.Tensor,
        position: torch.Tensor,
        size: int,
    ) -> Rendered:
        """Render faces given as meshes.

        Parameters
        ----------
        vertices : torch.Tensor
            (B, V, 3) mm, canonical.
        albedo : torch.Tensor
            (B, V, 3) RGB in [0, 1].
        light : torch.Tensor
            (B, 9) p_l, see `bfm.light`.
        pose : torch.Tensor
            (B, 3) p_h, radians.
        position : torch.Tensor
            (B, 3) t_x, t_y, scale in pixels of the picture.
        size : int
            Side of the picture, pixels.

        Returns
        -------
        Rendered
            In the precision of the inputs, also under autocast.
        """
        with full_precision(vertices):
            points: Any = project_homogeneous(vertices, pose, position, self.camera_distance)
            triangle_ids = nearest_triangles(points.detach(), self.triangles, size, size)
            covered = covered_pixels(triangle_ids, self.triangles)
            weights, front = weights_at(points, covered)
            turned_normals = vertex_normals(vertices, self.triangles, self.around) @ rotation_matrix(pose).mT
            depth = points[..., 2:3] / position[:, None, 2:3]
            at_pixels = values_at(
                torch.cat([albedo, turned_normals, depth], 2), covered, weights.where(front, 0)
            )  # (N, 7), 0 where a pixel shows the inner side
            albedo_there, normals, depth = at_pixels.split((3, 3, 1), 1)
            normals = F.normalize(normals, dim=1)
            shading = (sh_basis(normals) * light.index_select(0, covered.images)).sum(1, keepdim=True)
            pictures = to_images(torch.cat([albedo_there * shading, albedo_there, normals, depth], 1), covered)
            image, albedo, normals, depth = pictures.permute(0, 3, 1, 2).split((3, 3, 3, 1), 1)
            mask = to_images(front[:, None], covered).permute(0, 3, 1, 2)
            landmarks = self.project_landmarks(vertices, pose, position)
            return Rendered(image, mask, albedo, normals, depth, landmarks)

    def project_landmarks(self, vertices: torch.Tensor, pose: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the (B, 68, 2) landmarks, pixels, of (B, V, 3) vertices under (B, 3) poses and positions."""
        with full_precision(vertices):
            return project(vertices[:, self.landmarks], pose, position, self.camera_distance)[..., :2]


def vertex_normals(
    vertices: torch.Tensor, triangles: torch.Tensor, around: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the normal of each vertex: the mean of its triangles' normals, weighted by area.

    The batched twin of `bfm.render.vertex_normals`.

    Parameters
    ----------
    vertices : torch.Tensor
        (B, V, 3) in right-handed axes.
    triangles : torch.Tensor
        (F, 3) int64, ``cross(b - a, c - a)`` outward.
    around : torch.Tensor | None
        What `corners_by_vertex` gives for these triangles, if they have been sorted before.

    Returns
    -------
    torch.Tensor
        (B, V, 3) unit normals; zero where a vertex has no triangle with area.
    """
    around = corners_by_vertex(triangles, vertices.shape[1]) if around is None else around
    rows = vertices.transpose(0, 1).flatten(1)  # (V, B * 3): whole rows are read and added
    a, b, c = _ToCorners.apply(rows, triangles.T, around).unflatten(1, (-1, 3)).unflatten(0, (3, -1)).unbind(0)
    faces = torch.linalg.cross(b - a, c - a)
    total = _ToVertices.apply(faces.flatten(1), triangles.T, around).unflatten(1, (-1, 3))
    return F.normalize(total, dim=2).transpose(0, 1)


def corners_by_vertex(triangles: torch.Tensor, vertex_count: int) -> torch.Tensor:
    """Return (V + 3 F,) int64: where each vertex starts in the second part, the flattened (3, F) corners sorted."""
    corners = triangles.T.flatten()
    starts = torch.bincount(corners, minlength=vertex_count).cumsum(0).roll(1)
    starts[0] = 0
    return torch.cat([starts, corners.argsort(stable=True)])


class _ToCorners(torch.autograd.Function):
    """(V, C) rows of the vertices to (3 F, C) rows of the corners; the gradients are added in one order, always."""

    @staticmethod
    def forward(context, rows, corners, around):
        """Read."""
        context.around, context.count = around, len(rows)
        return rows.index_select(0, corners.flatten())

    @staticmethod
    def backward(context, gradient):
        """Add."""
        return _sums(gradient, context.around, context.count), None, None


class _ToVertices(torch.autograd.Function):
    """(F, C) rows of the triangles to (V, C) sums over the triangles at each vertex, added in one order, always."""

    @staticmethod
    def forward(context, rows, corners, around):
        """Add."""
        context.corners = corners
        count = len(around) - corners.numel()
        return F.embedding_bag(around[count:] % len(rows), rows, around[:count], mode="sum")

    @staticmethod
    def backward(context, gradient):
        """Read."""
        a, b, c = (gradient.index_select(0, corner) for corner in context.corners)
        return a + b + c, None, None


def _sums(rows, around, count):
    """(V, C) sums of (3 F, C) rows of the corners over the corners at each vertex."""
    return F.embedding_bag(around[count:], rows, around[:count], mode="sum")
