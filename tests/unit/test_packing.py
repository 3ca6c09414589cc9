"""Packings of large arrays: what HDF5's own filters read, and what only they can tell."""

import h5py
import numpy as np
import pytest

from asmgen.shards import ShardSet, ShardWriter, check_shard, shard_path, verify_shards
from asmgen.shards.packing import PACKINGS, checked, fletcher32, undo_differences


def smooth_map(seed: int, dtype: type = np.int16) -> np.ndarray:
    """A (3, 120, 90) map with smooth columns, a jump, and the range of its type."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.linspace(0, 3, 120), np.linspace(0, 2, 90), indexing="ij")
    value = np.stack([np.sin(rows + phase) * np.cos(columns) for phase in rng.uniform(0, 6, 3)])
    limits = np.iinfo(dtype)
    value = limits.min + (value + 1) / 2 * (float(limits.max) - limits.min)
    value[:, 50:60, 20:30] = limits.max
    value[:, 70:75, 20:30] = limits.min
    return np.clip(value, limits.min, limits.max).astype(dtype)


def write_maps(folder, packing: str, dtype: type = np.int16, count: int = 4):
    path = shard_path(folder, 0, 1)
    with ShardWriter(path, {}, packing={"map": packing}) as writer:
        for seed in range(count):
            writer.add({"map": smooth_map(seed, dtype), "number": seed})
    return path


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32])
def test_what_is_packed_comes_back(tmp_path, packing, dtype):
    """Also where differences leave the range of the type."""
    path = write_maps(tmp_path, packing, dtype)
    shards = ShardSet(tmp_path)
    for seed in (2, 0, 3, 1):
        assert shards[seed]["map"].dtype == dtype
        np.testing.assert_array_equal(shards[seed]["map"], smooth_map(seed, dtype))
    np.testing.assert_array_equal(shards.column("map"), [smooth_map(seed, dtype) for seed in range(4)])
    assert check_shard(path) == []


@pytest.mark.parametrize("packing, version, filters", [
    ("none", 1, (None, False)), ("gzip", 1, ("gzip", True)), ("small", 2, ("gzip", True)),
])
def test_hdf5_alone_reads_it(tmp_path, packing, version, filters):
    with h5py.File(write_maps(tmp_path, packing)) as file:
        stored = file["samples/map"]
        assert (stored.compression, stored.shuffle) == filters and stored.fletcher32
        assert stored.chunks == (1, 3, 120, 90) and file["samples"].attrs["format"] == version
        values = stored[2]
        if "row_differences" in stored.attrs:
            values = np.cumsum(values, axis=1, dtype=np.int16)
        assert ("row_differences" in stored.attrs) == (packing == "small")
        np.testing.assert_array_equal(values, smooth_map(2))


def test_small_is_small(tmp_path):
    sizes = {}
    for packing in PACKINGS:
        (tmp_path / packing).mkdir()
        write_maps(tmp_path / packing, packing)
        sizes[packing] = ShardSet(tmp_path / packing).stored_bytes()["map"]
    assert sizes["none"] == 4 * (3 * 120 * 90 * 2 + 4)
    assert sizes["small"] < 0.75 * sizes["gzip"] < 0.75 * sizes["none"]


def test_same_input_same_bytes(tmp_path):
    first, second = ((tmp_path / name) for name in "ab")
    for folder in (first, second):
        folder.mkdir()
        write_maps(folder, "small")
    assert shard_path(first, 0, 1).read_bytes() == shard_path(second, 0, 1).read_bytes()


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_flipped_bit_of_a_map_is_found(tmp_path, packing):
    path = write_maps(tmp_path, packing)
    with h5py.File(path) as file:
        chunk = file["samples/map"].id.get_chunk_info(1)
    whole = path.read_bytes()
    for place in [*np.random.default_rng(0).integers(chunk.size, size=25), chunk.size - 1]:  # also of the checksum
        content = bytearray(whole)
        content[chunk.byte_offset + place] ^= 1 << int(place % 8)
        path.write_bytes(content)
        assert [(one.sample, one.text.split(":")[0]) for one in verify_shards(path).problems] == [
            (1, "field 'map' cannot be read")
        ]


@pytest.mark.parametrize("content", [
    b"\x01\x02", b"\x00\x00\x00\x00", b"\xff\xff" * 7, bytes(range(256)) * 9 + b"\x07\x09",
    np.random.default_rng(0).bytes(4_000_002), b"\xff" * 4_000_000,
], ids=["one word", "zeros", "ones", "many", "over the limit of float64", "most"])
def test_the_checksum_is_that_of_hdf5(tmp_path, content):
    """h5py writes it behind the chunk. Bytes of odd length come only from deflate; h5py reads those above."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = np.frombuffer(content, np.uint8)
        stored = file.create_dataset("x", data=data, chunks=data.shape, fletcher32=True)
        file.flush()
        chunk = stored.id.read_direct_chunk((0,))[1]
    assert chunk[:-4] == content and int.from_bytes(chunk[-4:], "little") == fletcher32(content)


def test_undoing_differences():
    values = np.random.default_rng(0).integers(-2**15, 2**15, (2, 5, 4)).astype(np.int16)
    differences = values.copy()
    differences[:, 1:] -= values[:, :-1]
    np.testing.assert_array_equal(undo_differences(differences), values)


def test_measured_numbers_are_not_packed(tmp_path):
    with ShardWriter(shard_path(tmp_path, 0, 1), {}, packing={"map": "small"}) as writer:
        writer.add({"map": np.linspace(0, 1, 6000, dtype=np.float32).reshape(60, 100)})
    with h5py.File(shard_path(tmp_path, 0, 1)) as file:
        assert file["samples/map"].compression is None and file["samples"].attrs["format"] == 1


def test_an_unknown_packing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"packing of 'map' must be one of \('none', 'gzip', 'small'\), got 'zip'"):
        ShardWriter(shard_path(tmp_path, 0, 1), {}, packing={"map": "zip"})


def test_what_was_written_before_is_read(tmp_path):
    """Shards of format 1 with gzip, as all were, beside new ones."""
    for index, packing in enumerate(({}, {"packing": {"map": "small"}})):
        with ShardWriter(shard_path(tmp_path, index, 2), {}, **packing) as writer:
            writer.add({"map": smooth_map(index)})
    for index, found in enumerate(ShardSet(tmp_path)):
        np.testing.assert_array_equal(found["map"], smooth_map(index))


def test_chunks_that_deflate_was_left_out_of(tmp_path):
    """As HDF5 may where a chunk would have grown; it marks them. No other filter is ever left out."""
    path, value = write_maps(tmp_path, "gzip", np.uint8), smooth_map(9, np.uint8)  # of one byte: nothing to shuffle
    with h5py.File(path, "r+") as file:
        stored = file["samples/map"]
        for row, mask in enumerate((0b010, 0b001, 0b100, 0b110)):
            stored.id.write_direct_chunk((row, 0, 0, 0), checked(value.tobytes()), filter_mask=mask)
        np.testing.assert_array_equal(stored[0], value)
    np.testing.assert_array_equal(ShardSet(tmp_path)[0]["map"], value)
    for row in (1, 2, 3):
        with pytest.raises(ValueError, match=rf"row {row} of .* is damaged .a chunk was stored in another way"):
            ShardSet(tmp_path)[row]
