"""The 3D morphable model: mean, bases, topology, and its evaluation.

Dimension key: B batch, V vertices, F triangles, K modes of a basis.

Space, everywhere in the program: millimetres; x to the subject's left (right in the image), y up, z toward
the camera; indices start at 0. Albedo is gamma-encoded RGB in [0, 1], as in the BFM.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

REGIONS = ("outside", "face", "eyes", "nose", "mouth")
"""Names of the values of `MorphableModel.regions`; "outside" is what a face chart leaves out (ears, neck)."""

BFM_COEFFICIENTS = "bfm2009-199+3ddfa-29"
"""Coefficient space of the annotations of 300W-LP and AFLW2000-3D."""

_BASES = ("id", "exp", "albedo")


@dataclass(frozen=True, eq=False)
class MorphableModel:
    """A linear face model: ``S = mean_shape + id_coeffs @ id_basis + exp_coeffs @ exp_basis``.

    Coefficients are in standard deviations. The arrays are numpy, or torch tensors after `to`; every
    method then takes and returns the same kind.

    Attributes
    ----------
    mean_shape : np.ndarray
        (V, 3) float32, mm: the neutral mean face, mean expression included.
    id_basis, exp_basis : np.ndarray
        (K, V, 3) float32, mm per standard deviation.
    mean_albedo : np.ndarray
        (V, 3) float32, RGB in [0, 1]; meaningless (grey) when `has_albedo` is false.
    albedo_basis : np.ndarray
        (K, V, 3) float32, RGB per standard deviation; K is 0 for a model without texture.
    id_stddev, exp_stddev, albedo_stddev : np.ndarray
        (K,) float32: raw annotation units (300W-LP's ``Shape_Para``, ``Exp_Para``, ``Tex_Para``) a
        standard deviation, so ``coeffs = raw / stddev``.
    triangles : np.ndarray
        (F, 3) int32; ``cross(b - a, c - a)`` points outward.
    mouth_triangles : np.ndarray
        (M, 3) int32: extra triangles that close the mouth gap in a UV chart; not part of the surface.
    landmarks : np.ndarray
        (68,) int32: vertices of the 68 Multi-PIE landmarks.
    mirror : np.ndarray
        (V,) int32: for each vertex its twin under x -> -x.
    regions : np.ndarray
        (V,) uint8: index into `REGIONS`.
    name : str
        Which model this is, for people.
    layout : str
        Vertex layout, such as ``open``, ``bfm-53215``; see `bfm.layouts`.
    coefficients : str
        Coefficient space: annotations apply to a model only where this matches.
    licence : str
        What may be done with the model, in a sentence.
    uv : np.ndarray | None
        (V, 2) float32 in [0, 1], v up: texture coordinates that came with the model.
    """

    mean_shape: np.ndarray
    id_basis: np.ndarray
    exp_basis: np.ndarray
    mean_albedo: np.ndarray
    albedo_basis: np.ndarray
    id_stddev: np.ndarray
    exp_stddev: np.ndarray
    albedo_stddev: np.ndarray
    triangles: np.ndarray
    mouth_triangles: np.ndarray
    landmarks: np.ndarray
    mirror: np.ndarray
    regions: np.ndarray
    name: str
    layout: str
    coefficients: str
    licence: str
    uv: np.ndarray | None = None

    def __post_init__(self):
        vertex_count = len(self.mean_shape)
        for kind in _BASES:
            basis, stddev = getattr(self, f"{kind}_basis"), getattr(self, f"{kind}_stddev")
            if basis.ndim != 3 or tuple(basis.shape[1:]) != (vertex_count, 3):
                raise ValueError(
                    f"{kind}_basis must have shape (K, {vertex_count}, 3) to match mean_shape, got {tuple(basis.shape)}"
                )
            if tuple(stddev.shape) != (len(basis),):
                raise ValueError(
                    f"{kind}_stddev must have shape ({len(basis)},) to match {kind}_basis, got {tuple(stddev.shape)}"
                )
        shapes = {
            "mean_shape": (vertex_count, 3), "mean_albedo": (vertex_count, 3), "landmarks": (68,),
            "mirror": (vertex_count,), "regions": (vertex_count,), "triangles": (len(self.triangles), 3),
            "mouth_triangles": (len(self.mouth_triangles), 3),
        }
        for key, shape in (shapes if self.uv is None else {**shapes, "uv": (vertex_count, 2)}).items():
            if tuple(getattr(self, key).shape) != shape:
                raise ValueError(f"{key} must have shape {shape}, got {tuple(getattr(self, key).shape)}")
        for key in ("triangles", "mouth_triangles", "landmarks", "mirror"):
            indices = getattr(self, key)
            if len(indices) and not (0 <= int(indices.min()) and int(indices.max()) < vertex_count):
                raise ValueError(
                    f"{key} must index {vertex_count} vertices from 0, "
                    f"got {int(indices.min())} to {int(indices.max())}"
                )

    @property
    def has_albedo(self) -> bool:
        """Whether the model has a texture basis."""
        return len(self.albedo_basis) > 0

    @cached_property
    def sha256(self) -> str:
        """Hex digest of every array (not of the texts): two models with it equal give equal maps."""
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                digest.update(f"{field.name} {value.dtype} {value.shape}".encode())
                digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()

    def shape(self, id_coeffs: np.ndarray, exp_coeffs: np.ndarray | None = None) -> np.ndarray:
        """Return the vertices for a batch of coefficients (or for one set).

        Parameters
        ----------
        id_coeffs : np.ndarray
            (B, K_id) or (K_id,) identity coefficients, in standard deviations.
        exp_coeffs : np.ndarray | None
            (B, K_exp) or (K_exp,) expression coefficients, in standard deviations; None is neutral.

        Returns
        -------
        np.ndarray
            (B, V, 3) or (V, 3) vertices in millimetres.
        """
        vertices = self.mean_shape + _combine("id", id_coeffs, self.id_basis)
        return vertices if exp_coeffs is None else vertices + self.expression_offset(exp_coeffs)

    def expression_offset(self, exp_coeffs: np.ndarray) -> np.ndarray:
        """Return the displacement from the neutral face, (B, V, 3) or (V, 3), mm."""
        return _combine("exp", exp_coeffs, self.exp_basis)

    def albedo(self, albedo_coeffs: np.ndarray) -> np.ndarray:
        """Return the vertex albedo, (B, V, 3) or (V, 3), RGB about [0, 1] (not clipped).

        Parameters
        ----------
        albedo_coeffs : np.ndarray
            (B, K) or (K,) albedo coefficients, in standard deviations.

        Returns
        -------
        np.ndarray
            (B, V, 3) or (V, 3).

        Raises
        ------
        ValueError
            If the model has no texture.
        """
        if not self.has_albedo:
            raise ValueError(f"the face model '{self.name}' has no texture; convert it with one, or use the open model")
        return self.mean_albedo + _combine("albedo", albedo_coeffs, self.albedo_basis)

    def to(self, device: str) -> MorphableModel:
        """Return the same model with torch tensors on `device` in place of arrays (indices become int64)."""
        import torch

        def tensor(array: np.ndarray):
            dtype = torch.int64 if np.issubdtype(array.dtype, np.integer) else torch.float32
            return torch.as_tensor(array).to(device=device, dtype=dtype)

        arrays = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)}
        return replace(self, **{key: tensor(array) for key, array in arrays.items()})

    def take(self, keep: np.ndarray, layout: str) -> MorphableModel:
        """Return the model on some of its vertices only; triangles that lose a corner go.

        Parameters
        ----------
        keep : np.ndarray
            (V',) vertex indices, each once, in the order wanted.
        layout : str
            Name of the new vertex layout.

        Returns
        -------
        MorphableModel
            Numpy arrays, copied. A vertex whose mirror twin goes gets the one nearest to its mirror image.

        Raises
        ------
        ValueError
            If a landmark vertex would be lost.
        """
        keep = np.asarray(keep)
        new_index = np.full(len(self.mean_shape), -1, np.int32)
        new_index[keep] = np.arange(len(keep), dtype=np.int32)
        lost = np.flatnonzero(new_index[self.landmarks] < 0)
        if len(lost):
            raise ValueError(f"the vertices to keep must include all 68 landmarks; landmark {lost[0]} is missing")

        def kept(triangles: np.ndarray) -> np.ndarray:
            mapped = new_index[triangles]
            return mapped[(mapped >= 0).all(axis=1)]

        mirror, mean_shape = new_index[self.mirror[keep]], self.mean_shape[keep]
        bereft = mirror < 0
        mirror[bereft] = cKDTree(mean_shape).query(mean_shape[bereft] * [-1, 1, 1])[1]
        return replace(
            self,
            mean_shape=mean_shape, mean_albedo=self.mean_albedo[keep],
            id_basis=self.id_basis[:, keep], exp_basis=self.exp_basis[:, keep],
            albedo_basis=self.albedo_basis[:, keep],
            triangles=kept(self.triangles), mouth_triangles=kept(self.mouth_triangles),
            landmarks=new_index[self.landmarks],
            mirror=mirror,
            regions=self.regions[keep], layout=layout, uv=None if self.uv is None else self.uv[keep],
        )

    def face_only(self) -> MorphableModel:
        """Return the model without the vertices labelled "outside" (ears, neck); itself if there are none."""
        inside = np.flatnonzero(self.regions != REGIONS.index("outside"))
        return self if len(inside) == len(self.regions) else self.take(inside, f"{self.layout}-face")


def _combine(kind: str, coeffs: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Sum the modes: (..., K) coefficients times a (K, V, 3) basis."""
    if coeffs.shape[-1] != len(basis):
        raise ValueError(
            f"{kind}_coeffs must have shape (..., {len(basis)}) to match {kind}_basis, got {tuple(coeffs.shape)}"
        )
    return (coeffs @ basis.reshape(len(basis), -1)).reshape(*coeffs.shape[:-1], *basis.shape[1:])
