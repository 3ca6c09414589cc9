"""Distant light as second-order spherical harmonics: one grey band set of nine coefficients.

Dimension key: ... any batch, N texels or vertices.

Shading is ``sh_basis(normals) @ light`` and image colour is ``albedo * shading``, both as encoded in the photo
(RGB in [0, 1], no gamma undone, as the albedo of the BFM). Normals are in camera axes: x right, y up, z toward
the camera. Functions other than `fit_light` take numpy arrays or torch tensors and return the same kind.
"""

from __future__ import annotations

import numpy as np

from bfm.namespace import array_namespace

# sqrt(1 / 4 pi), sqrt(3 / 4 pi), sqrt(15 / 4 pi), sqrt(5 / 16 pi), sqrt(15 / 16 pi): orthonormal on the sphere
_Y00, _Y1, _Y2, _Y20, _Y22 = np.sqrt(np.array([1, 3, 15, 5 / 4, 15 / 4]) / (4 * np.pi)).tolist()

UNIT_LIGHT = (1 / _Y00, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""The light whose shading is 1 for every normal."""

_SATURATED = 250 / 255
_RIDGE = 1e-4
_ROUNDS = 10


def sh_basis(normals: np.ndarray) -> np.ndarray:
    """Return the nine real spherical harmonics of degrees 0 to 2, orthonormal on the sphere.

    Parameters
    ----------
    normals : np.ndarray
        (..., 3) unit vectors.

    Returns
    -------
    np.ndarray
        (..., 9) in the order 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2, each with its constant.
    """
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    return array_namespace(normals).stack([
        0 * x + _Y00, _Y1 * y, _Y1 * z, _Y1 * x,
        _Y2 * x * y, _Y2 * y * z, _Y20 * (3 * z * z - 1), _Y2 * x * z, _Y22 * (x * x - y * y),
    ], -1)


def fit_light(albedo: np.ndarray, colours: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit the light to a photo: least squares of ``colours - albedo * (sh_basis(normals) @ light)``.

    Texels with a channel above 250/255 are left out. Those that disagree with the fit (glasses, hair, highlights,
    cast shadows) count less in the next of ten rounds, by the Geman-McClure weight at twice the median residual.
    As a photo shows at most half of all normals, some combinations of coefficients are hardly seen: a ridge of
    1e-4 of the mean squared regressor keeps those small.

    Parameters
    ----------
    albedo : np.ndarray
        (N, 3) RGB in [0, 1].
    colours : np.ndarray
        (N, 3) the photo's RGB in [0, 1] at the same visible texels.
    normals : np.ndarray
        (N, 3) unit normals.

    Returns
    -------
    tuple[np.ndarray, float]
        (9,) float32 light, and the root mean square of the residual in [0, 1] over all unsaturated texels
        and channels, outliers included: a quality score.

    Raises
    ------
    ValueError
        If fewer than 9 texels are unsaturated, or the albedo is black.
    """
    usable = (np.asarray(colours) <= _SATURATED).all(axis=1)
    albedo, colours, normals = (np.asarray(array, np.float64)[usable] for array in (albedo, colours, normals))
    if usable.sum() < 9 or not albedo.any():
        raise ValueError(
            f"the light needs at least 9 unsaturated texels with albedo, got {usable.sum()}; is the face visible?"
        )
    basis = sh_basis(normals)
    # every channel has the same light: sum over channels of (a b)(a b)^T and (a b) c
    power, product = (albedo**2).sum(1), (albedo * colours).sum(1)
    ridge = _RIDGE * np.diag([0, *[1] * 8])  # the constant term is always seen
    trust = np.ones(len(basis))
    for _ in range(_ROUNDS):
        weighted = basis * (trust * power)[:, None]
        gram = weighted.T @ basis
        light = np.linalg.solve(gram + ridge * np.trace(gram) / 9, basis.T @ (trust * product))
        residual = np.sqrt(((albedo * (basis @ light)[:, None] - colours) ** 2).mean(1))
        trust = 1 / (1 + (residual / (2 * np.median(residual) + 1e-4)) ** 2) ** 2
    return light.astype(np.float32), float(np.sqrt((residual**2).mean()))


def rotate_light_in_plane(light: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return the light of a picture turned in its plane.

    With ``R = rotation_matrix((0, 0, angle))``, ``sh_basis(R n) @ rotated == sh_basis(n) @ light``. An image
    transform ``[[a, -b, x], [b, a, y]]`` in pixels turns by ``angle = atan2(b, a)``, as `transform_placement` does.

    Parameters
    ----------
    light : np.ndarray
        (..., 9) coefficients.
    angle : np.ndarray
        (...) radians; an array or tensor as `light` is.

    Returns
    -------
    np.ndarray
        (..., 9) coefficients.
    """
    xp = array_namespace(light)
    cos, sin, cos2, sin2 = xp.cos(angle), xp.sin(angle), xp.cos(2 * angle), xp.sin(2 * angle)
    one, y, z, x, xy, yz, zz, xz, xx_yy = (light[..., k] for k in range(9))
    return xp.stack([
        one, cos * y - sin * x, z, cos * x + sin * y,
        cos2 * xy - sin2 * xx_yy, cos * yz - sin * xz, zz, cos * xz + sin * yz, cos2 * xx_yy + sin2 * xy,
    ], -1)


def mirror_light(light: np.ndarray) -> np.ndarray:
    """Return the light of a picture flipped left to right: (..., 9), the functions odd in x negated."""
    return array_namespace(light).stack([-light[..., k] if k in (3, 4, 7) else light[..., k] for k in range(9)], -1)
