"""Shards that were made to mislead: their checksums are good, and what they say of themselves is not."""

import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from isal import isal_zlib
from reading_with_little_memory import what_is_said

from asmgen.shards import ShardSet, ShardWriter, shard_path
from asmgen.shards.packing import checked
from bfm.seal import seal


def write(path: Path) -> Path:
    """A shard of three samples with every kind of column."""
    with ShardWriter(
        path, {"kind": "test"}, {"uv": np.arange(40.0), "mask": np.eye(200) > 0}, packing={"steps": "small"}
    ) as writer:
        for index in range(3):
            writer.add({
                "map": np.full((3, 64, 64), index, np.float32), "mask": np.full((128, 128), index, np.uint8),
                "steps": np.full((3, 64, 64), index, np.int16), "image": b"jpeg" * index, "source": f"é{index}",
                "number": index,
            })
        writer.reject("bad", "dark", b"preview")
    return path


def replaced(key: str, *args, **options):
    """Make a dataset anew, in another way."""
    def change(file: h5py.File):
        del file[key]
        file.create_dataset(key, *args, **options)
    return change


def linked(key: str, link):
    """Put a link in place of what was there."""
    def change(file: h5py.File):
        if key in file:
            del file[key]
        file[key] = link
    return change


def virtual(file: h5py.File):
    layout = h5py.VirtualLayout((3,), np.int64)
    layout[:] = h5py.VirtualSource("absent.h5", "x", (3,))
    del file["samples/number"]
    file.create_virtual_dataset("samples/number", layout)


def bomb(file: h5py.File):
    """A chunk of 16 kB that unpacks to 300 MB."""
    packed = isal_zlib.compress(bytes(300_000_000), 1)
    file["samples/mask"].id.write_direct_chunk((1, 0, 0), checked(packed))


def large_chunks(file: h5py.File):
    del file["samples/mask"]
    stored = file.create_dataset(
        "samples/mask", (3, 2**15, 2**14), np.uint8, chunks=(1, 2**15, 2**14), compression="gzip", shuffle=True,
        fletcher32=True,
    )
    for row in range(3):
        stored.id.write_direct_chunk((row, 0, 0), checked(isal_zlib.compress(bytes(2**20))))


def hole(file: h5py.File):
    """The middle one of three maps is not there; HDF5 reads it as zeros."""
    values = file["samples/map"][:]
    replaced("samples/map", (3, 3, 64, 64), np.float32, chunks=(1, 3, 64, 64), fletcher32=True)(file)
    file["samples/map"][0], file["samples/map"][2] = values[0], values[2]


def offsets(*values, dtype=np.int64):
    """Offsets of the images, 12 bytes."""
    return replaced("samples/image/offsets", data=np.array(values, dtype))


def attribute(key: str, name: str, value):
    def change(file: h5py.File):
        file[key].attrs[name] = value
    return change


def without(key: str):
    def change(file: h5py.File):
        del file[key]
    return change


CRAFTED = {
    "hole": (hole, "map is stored with 2 chunks instead of 3"),
    "nothing stored": (
        replaced("samples/number", (3,), np.int64, chunks=(3,), fletcher32=True),
        "number is stored with 0 chunks instead of 1",
    ),
    "nothing stored, no chunks": (replaced("samples/number", (3,), np.int64), "stored with 0 bytes instead of 24"),
    "huge": (
        replaced("samples/map", (3, 2**20, 2**20), np.float32, chunks=(1, 64, 64), fletcher32=True),
        "map is stored in another way than shards are",
    ),
    "huge, not in chunks": (
        replaced("constants/uv", (2**40,), np.uint8), "stored with 0 bytes instead of 1099511627776"
    ),
    "huge chunks": (large_chunks, "mask has chunks of 536870912 bytes, more than 268435456"),
    "deflate bomb": (bomb, "a chunk does not unpack to its 16384 bytes"),
    "count": (attribute("samples", "count", 2**62), "the number of samples is 4611686018427387904"),
    "count below 0": (attribute("samples", "count", -1), "the number of samples is -1"),
    "count of another type": (attribute("samples", "count", np.arange(3)), "the number of samples is [0 1 2]"),
    "another count": (attribute("samples", "count", 2), "samples/image has 3 rows instead of 2"),
    "offsets fall": (offsets(0, 8, 4, 12), "offsets of /samples/image do not rise from 0"),
    "offsets below 0": (offsets(-4, 0, 4, 12), "offsets of /samples/image do not rise from 0"),
    "offsets past the end": (offsets(0, 0, 4, 2**40), "offsets of /samples/image do not rise from 0"),
    "no offsets": (offsets(), "offsets of /samples/image do not rise from 0"),
    "broken offsets": (offsets(0, 0, 4, 12, dtype=np.float64), "image does not hold bytes and their offsets"),
    "another file's bytes": (
        replaced("samples/number", (3,), np.uint8, external=[("/proc/version", 0, 3)]),
        "number is stored outside the file",
    ),
    "virtual": (virtual, "number is stored outside the file"),
    "link to a file": (linked("samples/number", h5py.ExternalLink("/etc/x.h5", "x")), "samples/number is elsewhere"),
    "link": (linked("samples/more", h5py.SoftLink("/constants/uv")), "samples/more is elsewhere"),
    "samples elsewhere": (linked("samples", h5py.ExternalLink("/etc/x.h5", "samples")), "/samples is elsewhere"),
    "objects": (replaced("samples/number", data=["a", "b", "c"]), "number is no array of numbers"),
    "compounds": (replaced("samples/number", (3,), [("a", int), ("b", int)]), "number is no array of numbers"),
    "foreign filter": (
        replaced("samples/number", data=np.arange(3), chunks=(3,), compression="lzf", fletcher32=True),
        "number is stored in another way than shards are",
    ),
    "without checksums": (
        replaced("samples/number", data=np.arange(3), chunks=(3,)), "number is stored in another way than shards are"
    ),
    "group in constants": (linked("constants/more/deep", 1), "constants/more is no array of numbers"),
    "samples are an array": (replaced("samples", data=1), "/samples is no group"),
    "newer format": (attribute("samples", "format", 3), "is HDF5 but no shard of format 1 or 2"),
    "attribute of objects": (attribute("/", "kind", ["a", "b"]), "attribute 'kind' is no text, number or array of"),
    "no constants": (without("constants"), "/constants is missing"),
    "nothing of what was rejected": (without("rejected"), "/rejected is missing"),
    "no bytes of reasons": (without("rejected/reason/bytes"), "/rejected/reason/bytes is missing"),
    "no reasons": (without("rejected/reason"), "/rejected/reason is missing"),
    "sources of another kind": (replaced("rejected/source", data=[1]), "/rejected/source is no group"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, tuple[str, list[str]]]:
    """What a process with little memory says of each."""
    paths = {name: tmp_path_factory.mktemp("crafted") / "shard.h5" for name in ["whole", *CRAFTED]}
    for name, path in paths.items():
        write(path)
        if name in CRAFTED:
            with h5py.File(path, "r+") as file:
                CRAFTED[name][0](file)
            seal(path)
    return dict(zip(paths, what_is_said(paths.values()), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("name", CRAFTED)
def test_what_a_crafted_shard_says_is_checked_first(said, name):
    """Readers and `verify` say the same in one sentence, and take no memory for it."""
    sentence, problems = said[name]
    assert CRAFTED[name][1] in sentence and "\n" not in sentence and "shard.h5" in sentence
    assert CRAFTED[name][1] in problems[0]


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_whole_shard_says_nothing(said):
    digest, problems = said["whole"]
    assert re.fullmatch("[0-9a-f]{64}", digest) and problems == []


def test_what_is_lacking_is_named(tmp_path):
    """Of a shard of another program, whose kind and version are the same."""
    shards = ShardSet(write(shard_path(tmp_path, 0, 1)))
    for found, key in ((shards.attributes, "size"), (shards.constants, "triangles"), (shards[0], "pose")):
        with pytest.raises(ValueError, match=rf"shard-00000-of-00001.h5 holds no '{key}', only \["):
            found[key]


def test_a_shard_under_another_name(tmp_path):
    """As one of the same set, which would be read twice; alone, under any name, it may be read."""
    path = write(shard_path(tmp_path, 0, 2))
    other = shard_path(tmp_path, 1, 2)
    other.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="00001-of-00002.h5 was written as shard-00000-of-00002.h5; give it that name"):
        ShardSet(tmp_path)
    assert len(ShardSet(other.rename(tmp_path / "copy.h5"))) == 3
