import numpy as np
import pytest
from toy import toy_model

from asmgen.maps import AttributeMaps, map_normalization
from bfm.charts import make_chart, round_trip_error

SIZE = 64


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def maps(model):
    return AttributeMaps.from_model(model, make_chart(model, size=SIZE))


@pytest.fixture(scope="module")
def coeffs():
    rng = np.random.default_rng(3)
    return rng.standard_normal((3, 5)).astype(np.float32), rng.standard_normal((3, 3)).astype(np.float32)


def test_sum_is_the_map_of_the_full_shape(model, maps, coeffs):
    """Eq. (2): A_id + A_exp holds the shape with its expression."""
    full = maps.chart.unwrap((model.shape(*coeffs) - maps.centre) / maps.scale)
    assert np.abs(maps.identity_map(coeffs[0]) + maps.expression_map(coeffs[1]) - full).max() < 2e-6


def test_each_map_is_the_unwrapped_vertices(model, maps, coeffs):
    neutral = maps.chart.unwrap((model.shape(coeffs[0]) - maps.centre) / maps.scale)
    offset = maps.chart.unwrap(model.expression_offset(coeffs[1]) / maps.scale)
    assert np.abs(maps.identity_map(coeffs[0]) - neutral).max() < 2e-6
    assert np.abs(maps.expression_map(coeffs[1]) - offset).max() < 2e-6
    assert not maps.identity_map(coeffs[0])[:, :, ~maps.chart.mask].any()


def test_a_map_gives_back_its_vertices(model, maps, coeffs):
    mean_error, _ = round_trip_error(model, maps.chart)
    vertices = maps.vertices(maps.identity_map(coeffs[0]) + maps.expression_map(coeffs[1]))
    error = np.linalg.norm(vertices - model.shape(*coeffs), axis=-1)
    assert error.mean() < 2 * mean_error + 1e-3  # the modes are as smooth as the mean
    assert mean_error < 0.5


def test_sampling_is_the_charts(maps):
    values = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    assert np.abs(maps.sample(values) - maps.chart.sample(values)).max() < 1e-6


def test_flipping_the_map_of_a_symmetric_face_negates_x(maps):
    symmetric = np.zeros((1, 5), np.float32)
    symmetric[0, ::2] = 1.5  # the toy's even modes are mirror-symmetric
    identity = maps.identity_map(symmetric)
    mirrored = identity[..., ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]
    assert np.abs(identity - mirrored).max() < 1e-5
    assert np.abs(identity[:, 0]).max() > 0.3  # which the literal eq. (6) would force to 0


def test_three_sigma_stays_inside_tanh(model):
    centre, scale = map_normalization(model)
    spread = np.sqrt((model.id_basis.astype(float) ** 2).sum(0) + (model.exp_basis.astype(float) ** 2).sum(0))
    reach = np.abs(model.mean_shape - centre) + 3 * spread
    assert centre[0] == 0
    np.testing.assert_array_equal(centre[1:], (model.mean_shape.min(0) + model.mean_shape.max(0))[1:] / 2)
    assert scale == np.ceil(1000 * reach.max()) / 1000


def test_torch_gives_the_same_maps(maps, coeffs):
    torch = pytest.importorskip("torch")
    there = maps.to("cpu")
    identity, expression = (
        there.identity_map(torch.tensor(coeffs[0])), there.expression_map(torch.tensor(coeffs[1]))
    )
    assert np.abs(identity.numpy() - maps.identity_map(coeffs[0])).max() < 1e-6
    vertices = there.vertices(identity + expression).numpy()
    expected = maps.vertices(maps.identity_map(coeffs[0]) + maps.expression_map(coeffs[1]))
    assert np.abs(vertices - expected).max() < 1e-3


def test_wrong_coefficient_counts_are_refused(maps):
    with pytest.raises(ValueError, match=r"coefficients must have shape \(B, 5\), got \(2, 4\)"):
        maps.identity_map(np.zeros((2, 4), np.float32))
