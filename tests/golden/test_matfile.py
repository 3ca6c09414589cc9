"""The reader of `.mat` files against scipy's."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from asmgen.matfile import MAX_BYTES, read_mat
from bfm.mat_file import parse_mat


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


@pytest.mark.parametrize("compressed", [False, True])
def test_a_struct_equals_scipys(compressed):
    fields = {
        "basis": np.random.default_rng(0).normal(size=(6, 4)).astype("f4"),
        "tri": np.arange(9, dtype="i4").reshape(3, 3), "name": "of a face", "none": np.zeros((0, 0)),
        "deeper": {"a": 1.0}, "a_name_of_31_bytes_that_is_most": np.ones(3),
    }
    file = io.BytesIO()
    scipy.io.savemat(file, {"model": fields, "row": np.array([[(1,), (2,)]], [("a", "f8")])}, do_compression=compressed)
    found, wanted = parse_mat(file.getvalue(), MAX_BYTES), scipy.io.loadmat(file)["model"][0, 0]
    assert found.keys() == {"model", "row"} and found["row"] is None  # of several
    assert list(found["model"]) == list(wanted.dtype.names) == list(fields)
    assert found["model"].pop("deeper") is None and found["model"].pop("name") == "of a face"
    for name, array in found["model"].items():
        assert array.dtype == wanted[name].dtype, name
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)


def test_a_field_that_matlab_left_empty():
    """All of it is left out, its flags and shape, too."""
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    def of_struct(length: int) -> bytes:
        head = element(6, struct.pack("<II", 2, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"model")
        names = element(5, struct.pack("<i", length)) + element(1, b"a\0\0\0b\0\0\0")
        return b"".ljust(124) + b"\x00\x01IM" + element(14, head + names + element(14, b"") * 2)

    found = parse_mat(of_struct(4), MAX_BYTES)
    assert list(found["model"]) == ["a", "b"] and all(value.shape == (0, 0) for value in found["model"].values())
    for length in (0, -4, 3):
        with pytest.raises(ValueError, match=f"a struct whose names of 8 bytes are padded to {length}"):
            parse_mat(of_struct(length), MAX_BYTES)


def test_arrays_stored_in_fewer_bytes_have_room_together():
    """As Matlab stores doubles that are whole numbers."""
    def array(name: bytes) -> bytes:
        head = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, 1, 1000) + struct.pack("<II4s", 1, 4, name)
        content = head.ljust(48, b"\0") + struct.pack("<II", 2, 1000) + b"\x07" * 1000
        return struct.pack("<II", 14, len(content)) + content

    data = b"".ljust(124) + b"\x00\x01IM" + array(b"aaaa") + array(b"bbbb")
    found = parse_mat(data, 16000)
    assert found.keys() == {"aaaa", "bbbb"} and all((value == 7.0).all() for value in found.values())
    assert found["aaaa"].dtype == np.float64 and found["aaaa"].shape == (1, 1000)
    with pytest.raises(ValueError, match="all its arrays have more than 15999 bytes"):
        parse_mat(data, 15999)


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
    with pytest.raises(ValueError, match=r"it is truncated or damaged \(an array ends early\)"):
        read_mat(path, ("a",))
    zeros = np.zeros(MAX_BYTES // 16 - 99)
    scipy.io.savemat(path, {"a": zeros}, do_compression=True)
    assert read_mat(path, ("a",))["a"].size == zeros.size
    scipy.io.savemat(path, {"a": zeros, "b": zeros, "c": zeros[:200]}, do_compression=True)
    with pytest.raises(ValueError, match=f"all its arrays have more than {MAX_BYTES} bytes"):
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
