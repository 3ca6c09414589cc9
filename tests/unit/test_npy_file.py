"""Arrays of others: what is one is read, all else is refused before memory is taken."""

import io

import numpy as np
import pytest

from bfm.npy_file import read_npy


def npy(array, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def with_shape(text: str) -> bytes:
    """A file of 68 points whose header says another shape."""
    data = npy(np.ones((68, 2)))
    header = data[10:128].replace(b"(68, 2)", text.encode()).rstrip()
    return data[:10] + header.ljust(117) + b"\n" + data[128:]


@pytest.mark.parametrize("array", [
    np.ones((68, 2)), np.arange(6, dtype=">i2").reshape(3, 2), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.float32(3), np.ones((0, 2)), np.arange(200, 256, dtype=np.uint8),
], ids=["plain", "big-endian", "columns first", "number", "empty", "bytes"])
def test_arrays_come_back_in_memory(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    found = read_npy(tmp_path / "a.npy")
    assert type(found) is np.ndarray and found.dtype == np.asarray(array).dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("data", [
    b"", b"text", npy(np.ones((68, 2)))[:60], npy(np.ones((68, 2)))[:500],
    npy(np.array([{}], object), allow_pickle=True),
    *map(with_shape, ("(68000000000000, 2)", "(-68, 2)", "(68.0, 2)", 50 * "(", "(9" + 40 * "9" + ", 2)")),
])
def test_what_is_no_whole_array(tmp_path, data):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match="must be a whole .npy file without objects, and is none; get a complete copy"):
        read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("array", [np.ones(3, complex), np.zeros(3, "f4,i4"), np.array(["a"])])
def test_what_are_no_real_numbers(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="must hold one array of real numbers, and holds something else"):
        read_npy(tmp_path / "a.npy")


def test_several_arrays_are_not_one(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="must hold one array of real numbers, and holds something else; save the"):
        read_npy(tmp_path / "a.npz")
