"""Shards that rot: whatever happens to the bytes, `verify` finds it, and readers stop or read the truth."""

import hashlib
import re
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from reading_with_little_memory import what_is_said

from asmgen.shards import ShardWriter, check_shard
from bfm.seal import broken_seal, has_seal

DAMAGED = 120  # files


def write(path: Path) -> bytes:
    """A small shard with every kind of column, of values that rise, so that none is like another."""
    with ShardWriter(
        path, {"kind": "test", "text": "é" * 200, "centre": np.arange(3.0)},
        {"uv": np.arange(40.0), "mask": np.arange(4000).reshape(40, 100) % 7 == 0}, packing={"steps": "small"},
    ) as writer:
        for index in range(3):
            rising = np.arange(index, index + 96 * 96)
            writer.add({
                "map": np.sqrt(rising[:4096], dtype=np.float32), "mask": (rising % 251).astype(np.uint8)[:2**14],
                "steps": rising.reshape(96, 96).astype(np.int16), "nothing": np.zeros(0),
                "image": bytes(range(1, 90)) * index, "source": f"é{index}", "number": index,
            })
        writer.reject("bad", "dark", b"preview")
    return path.read_bytes()


def damaged(whole: bytes, seed: int) -> bytes:
    """What a disk, a copy or a person may make of a file."""
    rng = np.random.default_rng(seed)
    content, kind = bytearray(whole), seed % 8
    start, other = (int(place) for place in rng.integers(len(whole), size=2))
    length = int(2 ** rng.uniform(0, 13))
    if kind == 0:  # some bits
        for place in rng.integers(len(whole), size=1 + seed // 8 % 4):
            content[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # a run of bytes
        content[start:start + length] = rng.bytes(len(content[start:start + length]))
    elif kind == 2:
        content = content[:start]
    elif kind == 3:  # one place copied over another
        piece = content[other:other + length]
        content[start:start + len(piece)] = piece
    elif kind == 4:  # cut out
        del content[start:start + length]
    elif kind == 5:  # put in
        content[start:start] = rng.bytes(length)
    elif kind == 6:  # a lost page, as zeros or ones
        content[start:start + 512] = (b"\0", b"\xff")[seed // 8 % 2] * len(content[start:start + 512])
    else:  # more behind the end
        content += content[:length]
    return bytes(content)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_damage_is_found_and_never_read(tmp_path):
    """In a process with little memory and time: no crash, no hang."""
    whole = write(tmp_path / "whole.h5")
    assert b"GCOL" not in whole  # HDF5's heap of texts, which has no checksum, and in which it may search for ever
    paths = [tmp_path / "whole.h5"]
    for seed in range(DAMAGED):
        content = damaged(whole, seed)
        if content != whole:
            paths.append(tmp_path / f"{seed}.h5")
            paths[-1].write_bytes(content)
    (truth, problems), *others = what_is_said(paths)
    assert problems == [] and len(others) > 0.9 * DAMAGED
    refused = 0
    for path, (sentence, problems) in zip(paths[1:], others, strict=True):
        assert problems, path.name
        assert sentence == truth or re.search(rf"{path.name} (is damaged|cannot be opened|is HDF5 but)", sentence)
        refused += sentence != truth
    assert refused > 0.7 * len(others)


def test_the_digest_by_other_means(tmp_path):
    """Pieces of a MiB, the last one short, as docs/shards.md says."""
    path = tmp_path / "shard.h5"
    with ShardWriter(path, {}) as writer:
        writer.add({"image": np.random.default_rng(0).bytes(2**20 + 5)})
    *_, last = (whole := path.read_bytes()).splitlines(keepends=True)
    content = whole[:-len(last) - 1]
    pieces = [content[start:start + 2**20] for start in range(0, len(content), 2**20)]
    digest = hashlib.sha256(b"".join(zlib.crc32(piece).to_bytes(4, "little") for piece in pieces)).hexdigest()
    assert len(pieces) == 2 and last == f"sha256 of the crc32 of each MiB: {digest}\n".encode()


def test_every_byte_is_under_the_digest(tmp_path, monkeypatch):
    """One bit of each, in turn; a CRC tells all bits of a byte apart alike."""
    monkeypatch.setattr("bfm.seal.PIECE", 1000)
    path = tmp_path / "shard.h5"
    with ShardWriter(path, {"kind": "test"}) as writer:
        writer.add({"number": 1})
    whole = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for place, value in enumerate(whole):
            file.seek(place)
            file.write(bytes([value ^ 1 << place % 8]))
            assert broken_seal(path), place
            file.seek(place)
            file.write(bytes([value]))
    assert broken_seal(path) is None
    for content in (whole[:-1], whole + b"\n", whole[:-99], b"", whole[-99:]):
        path.write_bytes(content)
        assert broken_seal(path)
    assert has_seal(path)


@pytest.mark.parametrize("packing, sample, text", [
    ("none", None, "the bytes are not those that were written"),
    ("gzip", 0, "field 'steps' cannot be read: a chunk cannot be unpacked"),
    ("small", 0, "field 'steps' cannot be read: a chunk cannot be unpacked"),
])
def test_a_chunk_of_zeros(tmp_path, packing, sample, text):
    """As where a page was lost; its checksum, 0, is right."""
    path = tmp_path / "shard.h5"
    with ShardWriter(path, {}, packing={"steps": packing}) as writer:
        writer.add({"steps": np.arange(96 * 96, dtype=np.int16).reshape(96, 96)})
    with h5py.File(path) as file:
        chunk = file["samples/steps"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset:chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    (problem,) = check_shard(path)
    assert problem.sample == sample and problem.text.startswith(text)


def test_what_checksums_of_chunks_do_not_tell(tmp_path):
    """Fletcher's takes words of ones for words of zeros."""
    path = tmp_path / "shard.h5"
    with ShardWriter(path, {}, packing={"steps": "none"}) as writer:
        writer.add({"steps": np.full((96, 96), -1, np.int16)})
    with h5py.File(path) as file:
        place = file["samples/steps"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 100:place + 200] = bytes(100)
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert (file["samples/steps"][0] == 0).sum() == 50
    (problem,) = check_shard(path)
    assert problem.text == "the bytes are not those that were written: their digest is another one"
