"""Maps in steps, straight from the product, against maps that are made and then rounded."""

from types import SimpleNamespace

import numpy as np
import pytest
from toy import toy_model

from asmgen.asmd import QUANTUM, quantize_maps
from asmgen.build import AsmdMaker
from asmgen.maps import AttributeMaps
from asmgen.shards import ShardSet, ShardWriter, shard_path
from asmgen.steps import MapSteps, MapStepsOnDevice
from bfm.charts import make_chart

ROUNDING = 0.02  # of a step: 0.5 on each side less what float32 keeps of values near 1


SIZE = 70
"""Of maps: two strips, and the last part of the second is no whole one."""


@pytest.fixture(scope="module")
def maps():
    model = toy_model()
    return AttributeMaps.from_model(model, make_chart(model, size=SIZE))


@pytest.fixture(scope="module")
def map_steps(maps):
    return MapSteps(toy_model(), maps)


@pytest.fixture(scope="module")
def coeffs():
    rng = np.random.default_rng(3)
    return tuple(rng.standard_normal((7, count)).astype(np.float32) for count in (5, 3))


def assert_steps(found: np.ndarray, values: np.ndarray) -> None:
    """Steps of the values, which may round to either side only where they lie between two steps."""
    exact = values.astype(np.float64) / QUANTUM
    assert found.dtype == np.int16 and found.shape == values.shape
    assert np.abs(found - exact).max() < 0.5 + ROUNDING
    differ = found != quantize_maps(values)
    assert np.abs(np.abs(exact - np.floor(exact)) - 0.5)[differ].max(initial=0) < ROUNDING
    assert differ.mean() < 0.01


def test_steps_are_the_rounded_maps(maps, map_steps, coeffs):
    identity_steps, expression_steps = map_steps(*coeffs)
    assert_steps(identity_steps, maps.identity_map(coeffs[0]))
    assert_steps(expression_steps, maps.expression_map(coeffs[1]))
    assert not identity_steps[..., ~maps.chart.mask].any() and not expression_steps[..., ~maps.chart.mask].any()
    assert np.abs(identity_steps).max() > 10_000  # so that a wrong step would show


def test_coefficients_are_left_alone(map_steps, coeffs):
    before = [part.copy() for part in coeffs]
    map_steps(*coeffs)
    for part, kept in zip(coeffs, before):
        np.testing.assert_array_equal(part, kept)


def test_memory_that_is_given_is_used(map_steps, coeffs):
    """And no more of it than these faces need."""
    memory = np.full((2, 9, 3 * SIZE**2 + 5), 77, np.int16)[..., :-5]
    steps = map_steps(*coeffs, memory[:, 1:8])
    np.testing.assert_array_equal(steps, map_steps(*coeffs))
    np.testing.assert_array_equal(memory[:, 1:8].reshape(steps.shape), steps)
    assert np.shares_memory(steps, memory) and (memory[:, [0, 8]] == 77).all() and (memory.base[..., -5:] == 77).all()


@pytest.mark.parametrize("size", [32, 64])
def test_batches_of_a_shard_keep_their_maps(tmp_path, size):
    """Their memory is used again; small maps are gathered, large ones are written at once."""
    model = toy_model()
    chart, rng = make_chart(model, size=size), np.random.default_rng(8)
    maps = AttributeMaps.from_model(model, chart)
    faces = [
        SimpleNamespace(fields={"source": str(index), "id_coeffs": rng.standard_normal(5).astype(np.float32) / 2,
                                "exp_coeffs": rng.standard_normal(3).astype(np.float32) / 2})
        for index in range(6)
    ]
    maker = AsmdMaker(model, chart, "dense")
    with ShardWriter(shard_path(tmp_path, 0, 1), {}) as writer:
        for batch in (faces[:3], faces[3:4], faces[4:]):
            maker.fill(writer, batch)
    shards = ShardSet(tmp_path)
    for key, made in (("identity", maps.identity_map), ("expression", maps.expression_map)):
        coeffs = np.stack([face.fields["id_coeffs" if key == "identity" else "exp_coeffs"] for face in faces])
        assert_steps(np.stack(shards.column(f"{key}_map")), made(coeffs))


def test_a_device_of_torch_makes_the_same_steps(maps, map_steps, coeffs):
    pytest.importorskip("torch")
    for found, wanted in zip(MapStepsOnDevice(maps, "cpu")(*coeffs), map_steps(*coeffs)):
        assert type(found) is np.ndarray and found.dtype == np.int16
        assert np.abs(found.astype(int) - wanted).max() <= 1
        assert (found != wanted).mean() < 0.01


def test_the_reach_of_16_bits(maps, map_steps):
    """A face at the limit of what can be stored does not wrap around."""
    coeffs = np.zeros((2, 5), np.float32)
    direction = maps.id_basis_map[0].ravel()
    texel = np.abs(direction).argmax()
    for row, side in enumerate((1.25, -1.25)):
        coeffs[row, 0] = (side - maps.mean_map.ravel()[texel]) / direction[texel]
    steps = map_steps(coeffs, np.zeros((2, 3), np.float32))[0].reshape(2, -1)[:, texel]
    assert np.abs(steps - [32767, -32767]).max() <= 1
