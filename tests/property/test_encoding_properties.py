"""Maps and textures as whole numbers, and how these are packed: what must hold for any values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asmgen.asmd import MAP_RANGE, QUANTUM, dequantize_maps, quantize_maps
from asmgen.shards.packing import deflated_differences, fletcher32, inflated, undo_differences
from texgen.ftd import quantize_albedo

shapes = hnp.array_shapes(min_dims=2, max_dims=3, max_side=40)
whole = hnp.arrays(st.sampled_from([np.int16, np.uint8, np.int32]), shapes)


@given(hnp.arrays(np.float32, shapes, elements=st.floats(-1.25, 1.25, width=32)))
def test_maps_come_back_to_half_a_step_and_steps_to_themselves(maps):
    steps = quantize_maps(maps)
    assert steps.dtype == np.int16
    np.testing.assert_allclose(dequantize_maps(steps), maps, atol=QUANTUM / 2 + 1e-7)
    np.testing.assert_array_equal(quantize_maps(dequantize_maps(steps)), steps)


@given(st.one_of(st.floats(1.251953125, width=32), st.floats(None, -1.251953125, width=32), st.just(np.nan)))
def test_what_maps_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match=f"{MAP_RANGE}"):
        quantize_maps(np.array([[0, value]], np.float32))


@given(hnp.arrays(np.float32, shapes, elements=st.floats(-9, 9, width=32)))
def test_albedo_comes_back_to_half_a_step_within_its_range(albedo):
    steps = quantize_albedo(albedo)
    assert steps.dtype == np.uint8
    np.testing.assert_allclose(steps / 255, np.clip(albedo, 0, 1), atol=0.5 / 255 + 1e-6)


@given(whole)
def test_differences_and_streams_give_the_values_back(values):
    """Also where a difference leaves the range of the type."""
    differences = np.diff(values, axis=-2, prepend=values.dtype.type(0))
    np.testing.assert_array_equal(undo_differences(differences), values, strict=True)
    packed = deflated_differences(values)
    stream, checksum = packed[:-4], int.from_bytes(packed[-4:], "little")
    assert fletcher32(stream) == checksum
    unpacked = inflated(stream, values.shape, values.dtype, True)
    np.testing.assert_array_equal(undo_differences(unpacked), values, strict=True)


@given(whole, st.floats(0, 1), st.integers(1, 255))
def test_a_changed_stream_is_another_or_an_error(values, place, change):
    packed = bytearray(deflated_differences(values))
    place = int(place * (len(packed) - 5))
    packed[place] ^= change
    assert fletcher32(bytes(packed[:-4])) != int.from_bytes(packed[-4:], "little")
