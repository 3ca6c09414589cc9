"""The shard layer for any content."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from asmgen.shards import ShardSet, shard_path, verify_shards, write_shard

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ARRAYS = st_numpy.arrays(
    st.sampled_from([np.bool_, np.uint8, np.int16, np.int64, np.float32, np.float64]),
    st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@settings(max_examples=20)
@given(
    rows=st.lists(st.tuples(st.binary(max_size=50), TEXT), max_size=9),
    array=ARRAYS, cut=st.integers(0, 9), rejected=st.lists(st.tuples(TEXT, TEXT), max_size=4),
)
def test_any_content_comes_back(rows, array, cut, rejected):
    """Ragged bytes (empty ones, zeros at the end), any text, and arrays of any small shape, over two shards."""
    with tempfile.TemporaryDirectory() as folder:
        for index, part in enumerate((rows[:cut], rows[cut:])):
            write_shard(
                shard_path(folder, index, 2), ({"b": blob, "t": text, "a": array} for blob, text in part),
                {"shape": str(array.shape)}, {"a": array}, rejected[index::2],
            )
        shards = ShardSet(folder)
        assert [(found["b"], found["t"]) for found in shards] == rows
        for found in shards:
            np.testing.assert_array_equal(found["a"], array, strict=array.ndim > 0)
        np.testing.assert_array_equal(shards.constants["a"], array)
        assert shards.rejected == rejected[::2] + rejected[1::2]
        assert verify_shards(Path(folder)).problems == []
