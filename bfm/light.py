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
_ROUNDS = 6


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
    return array_namespace(normals).stack(_harmonics(normals), -1)


def _harmonics(normals: np.ndarray) -> list[np.ndarray]:
    """The nine of `sh_basis`, (...) each."""
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    return [
        0 * x + _Y00, _Y1 * y, _Y1 * z, _Y1 * x,
        _Y2 * x * y, _Y2 * y * z, _Y20 * (3 * z * z - 1), _Y2 * x * z, _Y22 * (x * x - y * y),
    ]


def fit_light(
    albedo: np.ndarray, colours: np.ndarray, normals: np.ndarray, seen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the light to a photo: least squares of ``colours - albedo * (sh_basis(normals) @ light)``.

    Texels with a channel above 250/255 are left out. Those that disagree with the fit (glasses, hair, highlights,
    cast shadows) count less in the next of six rounds, by the Geman-McClure weight at twice the median residual.
    As a photo shows at most half of all normals, some combinations of coefficients are hardly seen: a ridge of
    1e-4 of the mean squared regressor keeps those small.

    Parameters
    ----------
    albedo : np.ndarray
        (..., N, 3) RGB in [0, 1]; one photo, or any batch of them.
    colours : np.ndarray
        (..., N, 3) the photo's RGB in [0, 1] at the same texels.
    normals : np.ndarray
        (..., N, 3) unit normals.
    seen : np.ndarray | None
        (..., N) which texels the photo shows; None is all.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (..., 9) float32 light, and the (...) root mean square of the residual in [0, 1] over all unsaturated texels
        and channels, outliers included: a quality score. They are computed in the precision of the input.

    Raises
    ------
    ValueError
        If fewer than 9 texels are unsaturated, or the albedo is black.
    """
    usable = (colours[..., 0] <= _SATURATED) & (colours[..., 1] <= _SATURATED) & (colours[..., 2] <= _SATURATED)
    if seen is not None:
        usable &= seen
    count = usable.sum(axis=-1)
    # every channel has the same light: sums over channels make normal equations, and the residual is a quadratic
    power, product, energy = _dot(albedo, albedo), _dot(albedo, colours), _dot(colours, colours)
    if count.min() < 9 or not (usable * power).any(axis=-1).all():
        raise ValueError(
            f"the light needs at least 9 unsaturated texels with albedo, got {count.min()}; is the face visible?"
        )
    basis = np.stack(_harmonics(normals), -2)  # texels last, for long inner loops
    ridge = _RIDGE / 9 * np.diag([0, *[1] * 8])  # the constant term is always seen
    trust = usable.astype(power.dtype)
    for _ in range(_ROUNDS):
        gram = ((basis * (trust * power)[..., None, :]) @ basis.swapaxes(-1, -2)).astype(np.float64)
        gram += ridge * np.trace(gram, axis1=-2, axis2=-1)[..., None, None]
        light = np.linalg.solve(gram, basis @ (trust * product)[..., None])[..., 0]
        shading = (light.astype(power.dtype)[..., None, :] @ basis)[..., 0, :]
        residual = np.sqrt(np.maximum((power * shading - 2 * product) * shading + energy, 0) / 3)
        unlike = residual / (2 * _median(residual, usable, count)[..., None] + 1e-4)
        trust = usable / (1 + unlike**2) ** 2
    score = np.sqrt(np.einsum("...n,...n->...", usable * residual, residual) / count)
    return light.astype(np.float32), score


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...) products of (..., 3) colours: a fifth of the time of `np.einsum` over so few."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _median(values: np.ndarray, usable: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(...) median of the usable ones of (..., N) values, of which there are so many."""
    ordered = np.sort(np.where(usable, values, np.inf), axis=-1)
    middle = np.stack([(count - 1) // 2, count // 2], -1)
    return np.take_along_axis(ordered, middle, -1).mean(axis=-1)


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
