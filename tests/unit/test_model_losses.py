import numpy as np
import pytest
import scipy.sparse
import torch
from toy import toy_model

from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from model.geometry import Parameters
from model.losses import (
    albedo_weights, asm_loss, equal_weights, identity_weights, map_laplacian, mirror_map, parameter_loss,
    smoothness_loss, symmetry_loss,
)
from model.sparse_operator import SparseOperator

SIZE = 32


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def maps(model):
    return AttributeMaps.from_model(model, make_chart(model, "cylindrical", SIZE))


def random_parameters(albedo=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Parameters(*(torch.randn(2, k, generator=generator, dtype=torch.float64) for k in (albedo, 9, 3, 3)))


def test_parameter_loss_by_hand():
    truth = Parameters(*(torch.zeros(1, k) for k in (199, 9, 3, 3)))
    predicted = Parameters(
        torch.full((1, 199), 2.0), torch.full((1, 9), 3.0), torch.tensor([[0.0, 0.0, 3.0]]), torch.ones(1, 3)
    )
    weights = torch.zeros(199)
    weights[:2] = torch.tensor([0.75, 0.25])
    predicted.albedo[0, :2] = torch.tensor([4.0, 6.0])
    mean_square = (197 * 2**2 + 4**2 + 6**2) / 199
    expected = 0.75 * 4**2 + 0.25 * 6**2 + 9 + 3 + 1 + 0.25 * mean_square
    assert parameter_loss(predicted, truth, weights, 0.25).item() == pytest.approx(expected)
    # the regularisation is on the prediction, also where it is right
    assert parameter_loss(predicted, predicted, weights, 0.25).item() == pytest.approx(0.25 * mean_square)


def test_albedo_weights_are_shares_of_the_colour_variance(model):
    rng = np.random.default_rng(0)
    colours = model.albedo(rng.standard_normal((20_000, 4)).astype(np.float32)[:, :2] @ np.eye(2, 4, dtype=np.float32))
    variance = (model.albedo_basis[:2].astype(float) ** 2).sum((1, 2))
    # of independent coefficients the variances add up
    assert colours.var(0).sum() == pytest.approx(variance.sum(), rel=0.02)
    weights = albedo_weights(model)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(variance[0] / variance[1], rel=1e-5)


def test_parameter_loss_without_texture():
    predicted, truth = random_parameters(0), random_parameters(0, seed=1)
    expected = sum((p - t).square().mean() for p, t in zip(predicted[1:], truth[1:]))
    assert parameter_loss(predicted, truth, torch.zeros(0), 0.05) == expected


def test_asm_loss_against_its_formula():
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((4, 2, 3, 5, 5))
    weights = rng.uniform(size=(5, 5))
    expected = both = 0.0
    for sample in range(2):
        for m in range(5):
            for n in range(5):
                identity = ((maps[0, sample, :, m, n] - maps[2, sample, :, m, n]) ** 2).sum()
                expression = ((maps[1, sample, :, m, n] - maps[3, sample, :, m, n]) ** 2).sum()
                expected += identity * weights[m, n] + expression
                both += (identity + expression) * weights[m, n]
    maps, weights = torch.from_numpy(maps), torch.from_numpy(weights)
    assert asm_loss(*maps, weights).item() == pytest.approx(expected / (2 * 25))
    assert asm_loss(*maps, weights, weights).item() == pytest.approx(both / (2 * 25))


def test_symmetric_face_has_no_symmetry_loss(model, maps):
    symmetric = torch.from_numpy(maps.mean_map)[None]
    mask = torch.from_numpy(maps.chart.mask)
    assert symmetry_loss(symmetric, mask) < 1e-5
    # even modes of the toy are symmetric, odd ones not
    coeffs = np.zeros((1, len(model.id_basis)), np.float32)
    coeffs[0, 2] = 3
    assert symmetry_loss(torch.from_numpy(maps.identity_map(coeffs)), mask) < 1e-5
    coeffs[0, 1] = 3
    assert symmetry_loss(torch.from_numpy(maps.identity_map(coeffs)), mask) > 0.01


def test_symmetry_loss_by_hand():
    mask = torch.tensor([[True, True], [False, False]])
    identity = torch.zeros(1, 3, 2, 2)
    identity[0, :, 0] = torch.tensor([[0.5, -0.5], [0.1, 0.4], [0.2, 0.2]])  # x mirrored; y differs by 0.3
    identity[0, :, 1] = torch.tensor([[9.0, 1.0]])  # outside
    assert symmetry_loss(identity, mask).item() == pytest.approx(0.3)


def test_mirror_map_is_the_map_of_the_mirrored_face(model, maps):
    shape = model.shape(np.random.default_rng(0).standard_normal(5).astype(np.float32))
    mirrored = shape[model.mirror] * np.float32([-1, 1, 1])
    unwrapped, expected = (
        maps.chart.unwrap((vertices - maps.centre) / np.float32(maps.scale)) for vertices in (shape, mirrored)
    )
    np.testing.assert_allclose(mirror_map(torch.from_numpy(unwrapped)).numpy(), expected, atol=1e-5)


def test_smoothness_loss_against_its_formula(model, maps):
    rng = np.random.default_rng(0)
    full_map = rng.standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    neighbours = [set() for _ in model.mean_shape]
    for triangle in model.triangles.tolist():
        for corner in triangle:
            neighbours[corner] |= set(triangle) - {corner}
    expected = 0.0
    for vertices in maps.vertices(full_map).astype(np.float64):
        for vertex, ring in enumerate(neighbours):
            if ring:
                expected += ((vertices[vertex] - vertices[sorted(ring)].mean(axis=0)) ** 2).sum()
    expected /= 2 * len(model.mean_shape)
    loss = smoothness_loss(torch.from_numpy(full_map), map_laplacian(model, maps))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_where_a_face_is_does_not_count_as_roughness(model, maps):
    moved = torch.full((1, 3, SIZE, SIZE), 0.3)
    assert smoothness_loss(moved, map_laplacian(model, maps)) < 1e-6


def test_gradients():
    torch.manual_seed(0)
    a, b, c, d = (torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(4))
    weights, mask = torch.rand(4, 4, dtype=torch.float64), torch.rand(4, 4) > 0.3
    laplacian = SparseOperator.of(scipy.sparse.random_array((7, 16), density=0.4, rng=0))
    assert torch.autograd.gradcheck(lambda a, b: asm_loss(a, b, c.detach(), d.detach(), weights), (a, b))
    assert torch.autograd.gradcheck(lambda a: symmetry_loss(a, mask), (a,))
    assert torch.autograd.gradcheck(lambda a: smoothness_loss(a, laplacian), (a,))
    truth = random_parameters(seed=3)
    inputs = tuple(values.requires_grad_() for values in random_parameters())
    weights = torch.tensor([0.6, 0.3, 0.1, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *p: parameter_loss(Parameters(*p), truth, weights, 0.05), inputs)


def test_equal_weights_spread_the_same_weight_over_the_face(model, maps):
    weights = identity_weights(model, maps)
    equal = equal_weights(weights)
    assert equal.dtype == weights.dtype and len(np.unique(equal[maps.chart.mask])) == 1
    assert (equal[~maps.chart.mask] == 0).all()
    assert equal.mean() == pytest.approx(weights.mean(), rel=1e-6)


def test_identity_weights(model, maps):
    weights = identity_weights(model, maps)
    assert set(np.unique(weights)) <= {0, 3, 4, 16}
    assert (weights[~maps.chart.mask] == 0).all() and (weights[maps.chart.mask] > 0).all()
    # every landmark is read from texels of weight 16 alone, and no more texels than that have it
    for texels, taps in zip(maps.vertex_texels[model.landmarks], maps.vertex_weights[model.landmarks]):
        assert (weights.ravel()[texels[taps > 0]] == 16).all()
    assert 68 <= (weights == 16).sum() <= 4 * 68
    # elsewhere a texel has the region of the corner of its triangle with the most weight
    chart, plain = maps.chart, maps.chart.mask & (weights != 16)
    for row, column in np.argwhere(plain):
        corners = chart.triangles[chart.texel_triangles[row, column]]
        nearest = corners[np.argmax(chart.texel_barycentric[row, column])]
        assert weights[row, column] == (3 if model.regions[nearest] == 1 else 4)
    assert (weights[plain] == 4).any() and (weights[plain] == 3).any()
