"""The shard layer: what is written is read, by any process; what is wrong is said."""

import hashlib
import multiprocessing
import os
import pickle
import re
import time
import weakref
from pathlib import Path

import h5py
import numpy as np
import pytest

from asmgen.shards import (
    ShardSet, ShardWriter, check_shard, find_shards, shard_matches, shard_path, verify_shards, write_shard,
)

ATTRIBUTES = {"kind": "test", "version": 1, "scale": 0.5, "centre": np.arange(3.0), "flag": True}
CONSTANTS = {"uv": np.linspace(0, 1, 20, dtype=np.float32).reshape(10, 2), "mask": np.eye(200) > 0}


def sample(index: int) -> dict:
    """A sample that tells its index in every field."""
    return {
        "map": (np.arange(3 * 64 * 64).reshape(3, 64, 64) % 1000 + index).astype(np.int16),
        "vector": np.full(7, index / 3, np.float32),
        "nothing": np.zeros(0, np.float32),
        "number": float(index),
        "image": bytes([index % 256]) * (index * 37 % 5000),
        "source": f"face-é-{index}",
    }


def write_set(folder: Path, counts: tuple = (5, 0, 7), **changed) -> Path:
    folder.mkdir(exist_ok=True)
    start = 0
    for index, count in enumerate(counts):
        write_shard(
            shard_path(folder, index, len(counts)), (sample(start + row) for row in range(count)),
            {**ATTRIBUTES, **changed}, CONSTANTS, [(f"bad{index}", "no face")] * index,
        )
        start += count
    return folder


def assert_sample(found: dict, index: int) -> None:
    for key, value in sample(index).items():
        assert type(found[key]) is (type(value) if isinstance(value, (bytes, str, np.ndarray)) else np.float64)
        np.testing.assert_array_equal(found[key], value)
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_written_is_read(tmp_path):
    shards = ShardSet(write_set(tmp_path))
    assert len(shards) == 12
    for index in (0, 4, 5, 11, 3):
        assert_sample(shards[index], index)
        assert_sample(shards[index - 12], index)
        assert_sample(shards[np.int64(index)], index)
    for wrong in (12, -13):
        with pytest.raises(IndexError, match="out of range for 12 samples"):
            shards[wrong]
    with pytest.raises(TypeError):
        shards[0.5]
    assert [shards.location(index) for index in (4, 5, -1)] == [
        (shard_path(tmp_path, 0, 3), 4), (shard_path(tmp_path, 2, 3), 0), (shard_path(tmp_path, 2, 3), 6)
    ]
    assert shards.rejected == [("bad1", "no face"), ("bad2", "no face"), ("bad2", "no face")]
    assert shards.attributes.keys() == ATTRIBUTES.keys()
    for key, value in ATTRIBUTES.items():
        assert type(shards.attributes[key]) is type(value)
        np.testing.assert_array_equal(shards.attributes[key], value)
    for key, value in CONSTANTS.items():
        np.testing.assert_array_equal(shards.constants[key], value)
        assert shards.constants[key].dtype == value.dtype


@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (0, 0, 1)])
def test_a_set_of_one_sample(tmp_path, counts):
    """Whichever of its shards holds it."""
    shards = ShardSet(write_set(tmp_path, counts))
    assert shards.fields == tuple(sorted(sample(0))) and len(shards) == 1
    assert_sample(shards[0], 0)
    with pytest.raises(ValueError, match=r"fields must be among \['image', .*\], got \['pose'\]"):
        ShardSet(tmp_path, fields=["pose"])


def test_iterating_ends(tmp_path):
    assert [found["number"] for found in ShardSet(write_set(tmp_path))] == list(range(12))


def test_fields_and_columns(tmp_path):
    shards = ShardSet(write_set(tmp_path), fields=("source", "vector"))
    assert shards[3].keys() == {"source", "vector"}
    assert shards.column("source") == [f"face-é-{index}" for index in range(12)]
    np.testing.assert_array_equal(shards.column("vector")[:, 0], np.arange(12, dtype=np.float32) / np.float32(3))
    with pytest.raises(ValueError, match=r"fields must be among \['image', .*\], got \['pose'\]"):
        ShardSet(tmp_path, fields=["pose"])


def test_stored_bytes(tmp_path):
    sizes = ShardSet(write_set(tmp_path)).stored_bytes()
    assert sizes["vector"] == 12 * 28 + 2 * 4  # two chunks, each with its checksum
    assert sizes["map"] < 12 * 3 * 64 * 64 * 2 and sizes["nothing"] == 0


def test_readable_without_this_program(tmp_path):
    """The layout that docs/shards.md promises, with built-in filters, checksums and one large sample a chunk."""
    write_set(tmp_path)
    with h5py.File(shard_path(tmp_path, 2, 3)) as file:
        image, row = file["samples/image"], 3
        start, stop = image["offsets"][row:row + 2]
        assert image["offsets"].dtype == np.int64  # a shard may hold over 4 GB
        assert (image.attrs["type"], file["samples/source"].attrs["type"]) == (b"bytes", b"text")
        assert image["bytes"][start:stop].tobytes() == sample(8)["image"]
        assert file["samples/map"].chunks == (1, 3, 64, 64)
        assert (file["samples/map"].compression, file["samples/map"].shuffle) == ("gzip", True)
        assert file["samples/vector"].compression is None
        assert file.attrs["kind"] == b"test"
        assert file["samples"].attrs["count"] == 7
        datasets = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) and item.size else None)
        assert len(datasets) == 13
        assert all(item.fletcher32 for item in datasets)


def test_same_input_same_bytes(tmp_path):
    write_set(tmp_path / "a")
    time.sleep(1.1)  # HDF5 counts time in seconds
    write_set(tmp_path / "b")
    for index in range(3):
        assert sha(shard_path(tmp_path / "a", index, 3)) == sha(shard_path(tmp_path / "b", index, 3))


def test_large_arrays_are_not_gathered(tmp_path):
    """A large array is let go before the next is asked for, but for the one in hand."""
    references = []

    def samples():
        for _ in range(20):
            array = np.zeros((200, 200), np.int16)
            references.append(weakref.ref(array))
            yield {"map": array}
            del array
            assert sum(reference() is not None for reference in references) <= 1

    assert write_shard(tmp_path / "a.h5", samples(), {}) == 20


def test_bytes_go_to_the_file_as_they_come(tmp_path, monkeypatch):
    """Memory does not grow with the photos: what is left to write stays below the buffer and one value."""
    monkeypatch.setattr("asmgen.shards.columns._BUFFER", 3 * 16384)
    rng = np.random.default_rng(0)
    blobs = [rng.bytes(int(size)) for size in (*rng.integers(0, 30_000, 20), 0, 100_000, 16384, 0)]
    with ShardWriter(shard_path(tmp_path, 0, 1), ATTRIBUTES, CONSTANTS) as writer:
        for index, blob in enumerate(blobs):
            writer.add({"image": blob, "source": f"face-é-{index}"})
            assert sum(map(len, writer._streamed["image"]._left)) < 3 * 16384
        assert sum(map(len, writer._streamed["source"]._left)) < 3 * 16384
    shards = ShardSet(tmp_path)
    assert [found["image"] for found in shards] == shards.column("image") == blobs
    assert shards.column("source") == [f"face-é-{index}" for index in range(len(blobs))]
    assert verify_shards(tmp_path).problems == []
    with h5py.File(shard_path(tmp_path, 0, 1)) as file:
        stored = file["samples/image/bytes"]
        assert stored.fletcher32 and stored.chunks == (16384,) and stored[:].tobytes() == b"".join(blobs)


def test_a_shard_that_lacks_a_large_array_is_not_published(tmp_path, monkeypatch):
    """What is not read back is seen to be there."""
    monkeypatch.setattr("asmgen.shards.columns.ArrayColumn.append", lambda column, value: column._dataset.resize(
        len(column._dataset) + 1, axis=0
    ))
    with pytest.raises(OSError, match="does not read back .*samples.map is stored with 0 chunks instead of 2"):
        write_shard(shard_path(tmp_path, 0, 1), [sample(0), sample(1)], ATTRIBUTES)
    assert not list(tmp_path.iterdir())


def test_memory_of_a_sample_may_be_used_again(tmp_path):
    """Nothing that is added is kept, large or small; views of any strides are taken."""
    arrays = {key: value for key, value in sample(0).items() if isinstance(value, np.ndarray)}
    held = {key: np.empty((3, *value.shape), value.dtype, order="F") for key, value in arrays.items()}
    with ShardWriter(shard_path(tmp_path, 0, 1), ATTRIBUTES, packing={"map": "none"}) as writer:
        for index in range(4):
            for key, memory in held.items():
                memory[1] = sample(index)[key]
            writer.add(sample(index) | {key: memory[1] for key, memory in held.items()})
    for index, found in enumerate(ShardSet(tmp_path)):
        assert_sample(found, index)
    assert verify_shards(tmp_path).problems == []


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folders")
def test_a_shard_gets_its_name_between_two_syncs(tmp_path, monkeypatch):
    """Of its bytes, and of the name: when the power fails, there is a whole one or none."""
    done, path, sync, replace = [], shard_path(tmp_path, 0, 1), os.fsync, os.replace

    def synced(descriptor: int) -> None:
        at = os.fstat(descriptor)
        done.append("names" if os.path.samestat(at, tmp_path.stat()) else at.st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("named"), replace(*paths)))
    write_shard(path, [sample(1)], ATTRIBUTES)
    assert done == [path.stat().st_size, "named", "names"]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="a call of Linux")
def test_the_disk_is_kept_busy(tmp_path, monkeypatch):
    """Each part of a growing file is handed to the disk once, in order, from the start."""
    parts, given = [], os.posix_fadvise
    monkeypatch.setattr("asmgen.shards.writer._SYNCED_AT_ONCE", 100_000)
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, start, length, advice: (
        parts.append((start, start + length)), given(descriptor, start, length, advice)
    ))
    with ShardWriter(shard_path(tmp_path, 0, 1), ATTRIBUTES, packing={"map": "none"}) as writer:
        for index in range(20):
            writer.add(sample(index))
    starts, ends = zip(*parts)
    assert starts == (0, *ends[:-1]) and len(parts) == 4
    assert all(100_000 <= end - start < 150_000 for start, end in parts)
    assert shard_path(tmp_path, 0, 1).stat().st_size - ends[-1] < 150_000
    assert [found["number"] for found in ShardSet(tmp_path)] == list(range(20))


def test_a_sample_may_be_changed(tmp_path):
    """What a reader gets is its own."""
    shards = ShardSet(write_set(tmp_path))
    for index in (3, 3):
        found = shards[index]
        assert_sample(found, index)
        for value in found.values():
            if isinstance(value, np.ndarray):
                value[...] = 0


@pytest.mark.parametrize("wrong, message", [
    ({"vector": np.zeros(8, np.float32)}, r"'vector' of sample 1 must be \('<f4', \(7,\)\) .* got \('<f4', \(8,\)\)"),
    ({"vector": np.zeros(7)}, r"'vector' of sample 1 must be \('<f4', \(7,\)\) .* got \('<f8', \(7,\)\)"),
    ({"image": "text"}, r"'image' of sample 1 must be \('bytes',\) .* got \('str',\)"),
    ({"more": 1}, r"sample 1 must have the fields \['image', .* got .*'more'"),
    ({"source": None}, "field 'source' must be a numeric array, bytes or text, got NoneType"),
])
def test_uneven_samples_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        write_shard(shard_path(tmp_path, 0, 1), [sample(0), {**sample(1), **wrong}], ATTRIBUTES)
    assert not shard_path(tmp_path, 0, 1).exists()
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        ShardSet(tmp_path)


def test_bad_attribute_is_refused(tmp_path):
    with pytest.raises(ValueError, match="attribute 'model' must be text, a number or an array, got NoneType"):
        write_shard(shard_path(tmp_path, 0, 1), [sample(0)], {"model": None})


def test_all_rejected(tmp_path):
    write_shard(shard_path(tmp_path, 0, 1), iter(()), ATTRIBUTES, CONSTANTS, [("a", "dark"), ("b", "")])
    shards = ShardSet(tmp_path, fields=["map"])
    assert (len(shards), list(shards), shards.rejected) == (0, [], [("a", "dark"), ("b", "")])
    assert verify_shards(tmp_path).problems == []


def test_rejections_may_come_while_writing(tmp_path):
    rejected = []

    def samples():
        yield sample(0)
        rejected.append(("later", "reason"))

    write_shard(shard_path(tmp_path, 0, 1), samples(), {}, rejected=rejected)
    assert ShardSet(tmp_path).rejected == rejected


def test_previews_of_what_was_rejected(tmp_path):
    """Pictures are kept in a column that is there only where a shard has any; reasons and pictures stay in order."""
    with ShardWriter(shard_path(tmp_path, 0, 2), ATTRIBUTES, CONSTANTS) as writer:
        writer.reject("a", "dark", b"JPEG a")
        writer.add(sample(0))
        writer.reject("b", "no face")
        writer.reject("c", "dark", b"JPEG c")
    assert writer.count == 1
    write_shard(shard_path(tmp_path, 1, 2), [sample(1)], ATTRIBUTES, CONSTANTS, [("d", "no file")])
    shards = ShardSet(tmp_path)
    assert shards.rejected == [("a", "dark"), ("b", "no face"), ("c", "dark"), ("d", "no file")]
    assert shards.rejected_previews == [b"JPEG a", b"", b"JPEG c", b""]
    with h5py.File(shard_path(tmp_path, 1, 2)) as file:
        assert file["rejected"].keys() == {"source", "reason"}
    report = verify_shards(tmp_path)
    assert (report.rejected, report.problems) == (4, [])
    with h5py.File(shard_path(tmp_path, 0, 2), "r+") as file:
        del file["rejected/preview/offsets"]
        file["rejected/preview/offsets"] = np.array([0, 6, 12])
    (problem,) = verify_shards(tmp_path).problems
    assert re.search(r"is damaged \(rejected/reason has 3 rows instead of 2\)", problem.text)


def test_a_writer_left_by_an_error_leaves_no_shard(tmp_path):
    path = shard_path(tmp_path, 0, 1)
    with pytest.raises(KeyError, match="a bug"), ShardWriter(path, ATTRIBUTES) as writer:
        writer.add(sample(0))
        raise KeyError("a bug")
    assert not list(tmp_path.iterdir()) and writer.count == 1


def test_a_shard_that_another_writer_has_begun_can_be_written(tmp_path):
    """As by a run that was killed a moment ago, whose worker still holds its file; either may end first."""
    path = shard_path(tmp_path, 0, 1)
    with ShardWriter(path, ATTRIBUTES) as killed:
        killed.add(sample(0))
        with ShardWriter(path, ATTRIBUTES) as writer:
            writer.add(sample(0))
        whole = sha(path)
    assert sha(path) == whole and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("change, message", [
    (lambda folder: shard_path(folder, 1, 3).unlink(), "shard-00001-of-00003.h5 is missing"),
    (lambda folder: shard_path(folder, 2, 3).unlink(), "shard-00002-of-00003.h5 is missing"),
    (lambda folder: write_shard(shard_path(folder, 0, 4), [sample(0)], ATTRIBUTES), r"sets of \[3, 4\] shards"),
    (lambda folder: write_shard(shard_path(folder, 2, 3), [sample(0)], {**ATTRIBUTES, "scale": 0.25}, CONSTANTS),
     "00002-of-00003.h5 does not belong with shard-00000-of-00003.h5: attribute 'scale' is 0.25 and not 0.5"),
    (lambda folder: write_shard(shard_path(folder, 2, 3), [sample(0)], {**ATTRIBUTES, "more": 1}, CONSTANTS),
     "attribute 'more' is 1 and not None"),
    (lambda folder: write_shard(shard_path(folder, 2, 3), [sample(0)], {**ATTRIBUTES, "centre": np.ones(3)}, CONSTANTS),
     "attribute 'centre' is"),
    (lambda folder: write_shard(shard_path(folder, 2, 3), [sample(0)], ATTRIBUTES, {"uv": np.zeros(3)}),
     "the constants differ"),
    *[
        (lambda folder, constants=constants: write_shard(shard_path(folder, 2, 3), [sample(0)], ATTRIBUTES, constants),
         "the constants differ")
        for constants in (  # of the same bytes
            {"uv": CONSTANTS["uv"].reshape(2, 10), "mask": CONSTANTS["mask"]},
            {"uv": CONSTANTS["uv"].view(np.int32), "mask": CONSTANTS["mask"]},
            {"uw": CONSTANTS["uv"], "mask": CONSTANTS["mask"]},
        )
    ],
    (lambda folder: write_shard(shard_path(folder, 2, 3), [{"number": 1}], ATTRIBUTES, CONSTANTS),
     "the fields are"),
])
def test_mixed_or_missing_shards_are_refused(tmp_path, change, message):
    write_set(tmp_path)
    change(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        ShardSet(tmp_path)
    if "does not belong" in str(raised.value):
        (problem,) = verify_shards(tmp_path).problems
        assert (problem.path, problem.sample) == (shard_path(tmp_path, 2, 3), None)
        assert f"{shard_path(tmp_path, 2, 3)} {problem.text}; build both in one run" == str(raised.value)


def test_named_shards_need_not_be_all(tmp_path):
    write_set(tmp_path)
    assert len(ShardSet([shard_path(tmp_path, 2, 3)])) == 7
    assert len(ShardSet(shard_path(tmp_path, 0, 3))) == 5
    with pytest.raises(FileNotFoundError, match="the list of shards is empty"):
        find_shards([])
    with pytest.raises(FileNotFoundError, match="no shard or folder"):
        find_shards(tmp_path / "absent")


def test_not_a_shard(tmp_path):
    shard_path(tmp_path, 0, 1).write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match="00000-of-00001.h5 cannot be opened as a shard"):
        ShardSet(tmp_path)
    with h5py.File(shard_path(tmp_path, 0, 1), "w") as file:
        file["samples/map"] = 1
    with pytest.raises(ValueError, match="is HDF5 but no shard of format 1"):
        ShardSet(tmp_path)
    assert not shard_matches(shard_path(tmp_path, 0, 1), {})


def test_matching_attributes(tmp_path):
    """What a rerun asks before it keeps a shard."""
    path = shard_path(write_set(tmp_path), 0, 3)
    assert shard_matches(path, {**ATTRIBUTES, "scale": np.float64(0.5)})
    for wrong in ({"scale": 0.25}, {"scale": "0.5"}, {"more": 1}, {"centre": np.zeros(3)}):
        assert not shard_matches(path, {**ATTRIBUTES, **wrong})
    assert not shard_matches(path, {"kind": "test"})
    assert not shard_matches(tmp_path / "absent.h5", ATTRIBUTES)
    path.write_bytes(path.read_bytes()[:-1])
    assert not shard_matches(path, ATTRIBUTES)


def test_partial_files_are_ignored(tmp_path):
    write_set(tmp_path)
    Path(f"{shard_path(tmp_path, 3, 4)}.partial").write_bytes(b"half")
    assert len(ShardSet(tmp_path)) == 12


def test_verify_reports(tmp_path):
    report = verify_shards(write_set(tmp_path))
    assert (report.shards, report.samples, report.rejected, report.problems) == (3, 12, 3, [])
    assert str(report).startswith("12 samples read from 3 shards, 0.") and str(report).endswith("; no problems")
    assert report.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize("key, wanted", [
    ("map", [4]), ("vector", range(7)), ("image/bytes", range(7)), ("image/offsets", [None]),
])
def test_verify_finds_damage(tmp_path, key, wanted):
    path = shard_path(write_set(tmp_path), 2, 3)
    with h5py.File(path) as file:
        dataset = file["samples"][key]
        chunk = dataset.id.get_chunk_info(min(4, dataset.id.get_num_chunks() - 1))
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 16
    path.write_bytes(content)
    report = verify_shards(tmp_path)
    problems = report.problems
    assert f"\n{path.name}" in str(report)
    assert {problem.path for problem in problems} == {path}
    assert {problem.sample for problem in problems} <= {*wanted} and problems
    if key == "map":
        assert re.match("field 'map' cannot be read: ", problems[0].text)
        with pytest.raises(ValueError, match="row 4 of .*shard-00002-of-00003.h5 is damaged .*build again"):
            ShardSet(tmp_path)[9]
        with pytest.raises(ValueError, match="field 'map' of .*shard-00002-of-00003.h5 is damaged .*build again"):
            ShardSet(tmp_path).column("map")
        assert_sample(ShardSet(tmp_path)[8], 8)


def flip_a_bit(path: Path, key: str, group: str = "samples") -> None:
    """Of the first chunk of a column."""
    with h5py.File(path) as file:
        chunk = file[group][key].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 16
    path.write_bytes(content)


def test_verify_names_every_damaged_shard(tmp_path):
    write_set(tmp_path)
    damaged = [shard_path(tmp_path, index, 3) for index in (0, 2)]
    for path in damaged:
        flip_a_bit(path, "map")
    report = verify_shards(tmp_path)
    assert [(problem.path, problem.sample) for problem in report.problems] == [(path, 0) for path in damaged]
    assert (report.shards, report.samples, report.rejected) == (3, 0, 1)  # of what is whole


def test_damage_to_a_reason_is_no_damage_to_a_sample(tmp_path):
    path = shard_path(write_set(tmp_path), 2, 3)
    flip_a_bit(path, "reason/bytes", "rejected")
    found = [(problem.sample, problem.text.split(":")[0]) for problem in verify_shards(tmp_path).problems]
    assert found == [(None, f"rejected reason {row} cannot be read") for row in range(2)]


def test_large_values_may_be_left_on_the_disk(tmp_path):
    """As when a shard was just written: small ones are read, of large ones only that they are there is seen."""
    path = shard_path(write_set(tmp_path), 0, 3)
    flip_a_bit(path, "map")
    flip_a_bit(path, "image/bytes")
    assert check_shard(path, large=False) == []
    assert {problem.text.split(":")[0] for problem in check_shard(path)} == {
        "field 'image' cannot be read", "field 'map' cannot be read"
    }
    flip_a_bit(path, "vector")
    flip_a_bit(path, "source/bytes")
    assert {problem.text.split(":")[0] for problem in check_shard(path, large=False)} == {
        "field 'source' cannot be read", "field 'vector' cannot be read"
    }


def test_verify_compares_constants_and_counts(tmp_path):
    """What is changed through HDF5 has good checksums."""
    path = shard_path(write_set(tmp_path), 0, 3)
    with h5py.File(path, "r+") as file:
        file["constants/uv"][3] = 7
    assert [problem.text for problem in verify_shards(tmp_path).problems] == ["the constants do not match their digest"]
    with h5py.File(path, "r+") as file:
        del file["samples/number"]
        file["samples/number"] = np.arange(4.0)
    (problem,) = verify_shards(tmp_path).problems
    assert re.search(r"is damaged \(samples/number has 4 rows instead of 5\)", problem.text)
    with pytest.raises(ValueError, match="samples/number has 4 rows instead of 5"):
        ShardSet(tmp_path)


def test_verify_finds_any_flipped_or_missing_byte(tmp_path):
    """Every part of the file is under some checksum, but for gaps and chunk padding that nobody reads."""
    path = shard_path(tmp_path, 0, 1)
    write_shard(path, [sample(1), sample(2)], ATTRIBUTES, CONSTANTS)
    whole = path.read_bytes()
    rng, missed = np.random.default_rng(0), 0
    for place in rng.integers(len(whole), size=60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        if not check_shard(path):
            missed += 1
            assert_sample(ShardSet(path)[1], 2)  # an unused byte
    assert missed < 30
    path.write_bytes(whole[:-100])
    assert check_shard(path)


def read_many(shards: ShardSet, seed: int, queue) -> None:
    """Worker: read at random, and say what was wrong."""
    try:
        inherited = set(map(id, shards._handles.values()))
        for index in np.random.default_rng(seed).integers(len(shards), size=100):
            assert_sample(shards[index], index)
        assert inherited.isdisjoint(map(id, shards._handles.values()))
        queue.put("good")
    except BaseException as error:
        queue.put(repr(error))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(tmp_path, method):
    """Workers that inherit a set in use read the right samples, while the parent goes on."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    shards = ShardSet(write_set(tmp_path))
    assert_sample(shards[7], 7)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=read_many, args=(shards, seed, queue)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for index in np.random.default_rng(9).integers(12, size=100):
        assert_sample(shards[index], index)
    assert [queue.get(timeout=60) for _ in workers] == ["good", "good"]
    for worker in workers:
        worker.join()


def test_pickling_leaves_handles_behind(tmp_path):
    shards = ShardSet(write_set(tmp_path))
    shards[0]
    copy = pickle.loads(pickle.dumps(shards))
    assert len(copy._handles) == 0 and len(shards._handles) == 1
    assert_sample(copy[11], 11)
    assert len(pickle.dumps(shards)) < 5000


def test_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("asmgen.shards.reader._OPEN_FILES", 2)
    shards = ShardSet(write_set(tmp_path, (2, 2, 2, 2)))
    for index in (0, 2, 1, 4, 0, 7, 3):
        assert_sample(shards[index], index)
        assert len(shards._handles) <= 2
