"""Constants of the spherical harmonics, and refusals of the fit."""

import numpy as np
import pytest

from bfm.light import UNIT_LIGHT, fit_light, sh_basis


def test_constants_of_the_tables():
    s = np.sqrt(0.5)
    basis = sh_basis(np.array([[0, 0, 1.0], [s, 0, s], [s, s, 0], [0, s, s]]))
    y00, y1, y2, y20, y22 = 0.2820948, 0.4886025, 1.0925484, 0.3153916, 0.5462742
    np.testing.assert_allclose(basis, [
        [y00, 0, y1, 0, 0, 0, 2 * y20, 0, 0],
        [y00, 0, y1 * s, y1 * s, 0, 0, y20 / 2, y2 / 2, y22 / 2],
        [y00, y1 * s, 0, y1 * s, y2 / 2, 0, -y20, 0, 0],
        [y00, y1 * s, y1 * s, 0, 0, y2 / 2, y20 / 2, 0, -y22 / 2],
    ], atol=1e-6)


def test_orthonormal_on_the_sphere():
    # Gauss-Legendre in z, equal steps in angle: exact for polynomials of degree 4
    z, weight = np.polynomial.legendre.leggauss(6)
    angle = np.arange(12) * np.pi / 6
    radius = np.sqrt(1 - z**2)[:, None]
    normals = np.stack(np.broadcast_arrays(radius * np.cos(angle), radius * np.sin(angle), z[:, None]), -1)
    basis = sh_basis(normals)
    gram = np.einsum("i,ijk,ijl->kl", weight, basis, basis) * np.pi / 6
    np.testing.assert_allclose(gram, np.eye(9), atol=1e-12)
    np.testing.assert_allclose(basis @ UNIT_LIGHT, 1)
    assert sh_basis(normals.astype(np.float32)).dtype == np.float32


def test_noise_in_the_photo_does_not_blow_up_unseen_coefficients():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(500, 3)) * [0.1, 0.1, 0] + [0, 0, 1]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    albedo = np.full((500, 3), 0.5)
    light, residual = fit_light(albedo, albedo + rng.normal(0, 0.05, (500, 3)), normals)
    assert np.abs(light).max() < 6
    assert residual == pytest.approx(0.05, rel=0.05)


def test_refuses_a_face_without_usable_texels():
    normals, albedo = np.tile([0, 0, 1.0], (50, 1)), np.full((50, 3), 0.5)
    colours = np.where(np.arange(50)[:, None] < 8, 0.5, 1.0) * np.ones(3)
    with pytest.raises(ValueError, match="at least 9 unsaturated texels with albedo, got 8"):
        fit_light(albedo, colours, normals)
    with pytest.raises(ValueError, match="with albedo, got 50"):
        fit_light(albedo * 0, albedo, normals)
    colours[8] = 0.5
    np.testing.assert_allclose(sh_basis(normals) @ fit_light(albedo, colours, normals)[0], 1, atol=1e-6)


def light_by_definition(albedo, colours, normals):
    """Weighted least squares in six rounds, all channels of all texels as rows."""
    kept = (colours <= 250 / 255).all(axis=1)
    albedo, colours, basis = albedo[kept], colours[kept], sh_basis(normals[kept])
    trust = np.ones(len(basis))
    for _ in range(6):
        rows = (albedo[:, :, None] * basis[:, None]).reshape(-1, 9)
        weighted = rows * np.repeat(trust, 3)[:, None]
        ridge = 1e-4 * np.trace(weighted.T @ rows) / 9 * np.diag([0, 1, 1, 1, 1, 1, 1, 1, 1])
        light = np.linalg.solve(weighted.T @ rows + ridge, weighted.T @ colours.ravel())
        residual = np.sqrt(((albedo * (basis @ light)[:, None] - colours) ** 2).mean(axis=1))
        trust = 1 / (1 + (residual / (2 * np.median(residual) + 1e-4)) ** 2) ** 2
    return light, np.sqrt((residual**2).mean())


def test_a_batch_is_fitted_as_each_photo_by_definition():
    """Texels that are saturated or not seen do not count, whatever they hold, and are as many as they like."""
    rng = np.random.default_rng(3)
    normals = rng.normal(size=(4, 300, 3)) + [0, 0, 1.5]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    albedo = rng.uniform(0.2, 0.9, (4, 300, 3))
    shading = sh_basis(normals) @ np.array([2.5, 0.2, 0.5, 0.3, 0.1, 0, 0.1, 0, 0.1])
    colours = np.clip(albedo * shading[..., None] + rng.normal(0, 0.03, albedo.shape), 0, 1)
    colours[:, :30] = rng.uniform(0, 1, (4, 30, 3))  # hair
    seen = rng.random((4, 300)) > np.array([[0], [0.1], [0.5], [0.7]])
    wanted = [
        light_by_definition(*(part[row, seen[row]] for part in (albedo, colours, normals))) for row in range(4)
    ]
    colours[~seen] = rng.uniform(0, 1, colours[~seen].shape)
    lights, residuals = fit_light(albedo, colours, normals, seen)
    np.testing.assert_allclose(lights, [light for light, _ in wanted], atol=2e-6)
    np.testing.assert_allclose(residuals, [residual for _, residual in wanted], rtol=1e-9)
    single = fit_light(albedo.astype(np.float32), colours.astype(np.float32), normals.astype(np.float32), seen)
    np.testing.assert_allclose(single[0], lights, atol=2e-4)
    np.testing.assert_allclose(single[1], residuals, rtol=1e-4)
