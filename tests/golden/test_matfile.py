"""The reader of `.mat` files against scipy's."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from asmgen.matfile import MAX_BYTES, read_mat


@pytest.mark.parametrize("compressed", [False, True])
def test_equals_scipy_on_every_class_and_shape(tmp_path, compressed):
    rng = np.random.default_rng(0)
    arrays = {
        f"{dtype}_{'x'.join(map(str, shape))}": (rng.normal(size=shape) * 100).astype(dtype)
        for dtype in ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
        for shape in ((1, 1), (3, 1), (2, 5), (2, 3, 4), (0, 0))
    }
    skipped = {"cell": np.array([[1, "a"]], object), "struct": {"a": 1.0}, "complex": np.array([[1j]])}
    texts = {"short": "ab", "long": "open-face-1, née"}
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, arrays | skipped | texts, do_compression=compressed)
    found = read_mat(path, (*arrays, *skipped, *texts, "absent"))
    assert set(found) == {*arrays, *texts}
    for key, array in scipy.io.loadmat(path, variable_names=list(arrays)).items():
        if not key.startswith("__"):
            assert found[key].dtype == array.dtype and found[key].dtype.isnative, key
            np.testing.assert_array_equal(found[key], array, err_msg=key)
    assert {key: found[key] for key in texts} == texts
    assert set(read_mat(path, ("short",))) == {"short"}


def in_a_stream(stream: bytes) -> bytes:
    """A file of one compressed element."""
    return b"".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(stream)) + stream


def test_streams_are_whole_and_of_little_memory_together(tmp_path):
    file = io.BytesIO()
    scipy.io.savemat(file, {"a": np.arange(99.0)}, do_compression=True)
    whole, path = file.getvalue(), tmp_path / "a.mat"
    path.write_bytes(in_a_stream(whole[136:]))
    assert read_mat(path, ("a",))["a"].shape == (1, 99)
    path.write_bytes(in_a_stream(whole[136:-2]))  # all numbers are there, but not all of their checksum
    with pytest.raises(ValueError, match=r"it is truncated or damaged \(an array ends early, or all have more than"):
        read_mat(path, ("a",))
    zeros = np.zeros(MAX_BYTES // 16 - 99)
    scipy.io.savemat(path, {"a": zeros}, do_compression=True)
    assert read_mat(path, ("a",))["a"].size == zeros.size
    scipy.io.savemat(path, {"a": zeros, "b": zeros, "c": zeros[:200]}, do_compression=True)
    with pytest.raises(ValueError, match=f"an array ends early, or all have more than {MAX_BYTES} bytes"):
        read_mat(path, ("a",))


@pytest.mark.real
@pytest.mark.skipif("DUALFACE_REAL_DATA" not in os.environ, reason="DUALFACE_REAL_DATA names no real files")
def test_equals_scipy_on_real_annotations():
    paths = sorted(
        path for folder in ("aflw2000_3d", "300w_lp") for path in
        Path(os.environ["DUALFACE_REAL_DATA"], folder).rglob("*.mat")
    )
    assert len(paths) == 11 + 1 + 23
    for path in paths:
        wanted = {key: array for key, array in scipy.io.loadmat(path).items() if not key.startswith("__")}
        found = read_mat(path, tuple(wanted))
        assert set(found) == set(wanted)
        for key, array in wanted.items():
            # Matlab stores whole doubles in fewer bytes, and scipy leaves them so
            assert found[key].dtype == array.dtype or (found[key].dtype, array.dtype.kind) == (np.float64, "u")
            np.testing.assert_array_equal(found[key], array)
