"""Builds whose shards have rotted: what `verify` says, and what `--repair` makes again."""

import re
from functools import partial
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner
from toy_tree import MODEL, hashes, write_tree
from tqdm import tqdm

from asmgen.build import build_asmd
from asmgen.shards import ShardSet, verify_shards
from bfm.model_file import save_model
from cli.main import main

build = partial(build_asmd, model=MODEL, size=64, shard_size=3, progress=partial(tqdm, disable=True))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_tree(root, {"AFW": 9})
    save_model(MODEL, root / "model.h5")
    return root


@pytest.fixture
def built(tree, tmp_path) -> Path:
    build(tree, tmp_path / "shards")
    return tmp_path / "shards"


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_only_damaged_shards_are_made_again(tree, built):
    """One bit of a map, which a rerun does not see, and one of the digest itself; times tell what is kept."""
    wanted = hashes(built)
    first, second, third = sorted(built.glob("*.h5"))
    with h5py.File(second) as file:
        chunk = file["samples/identity_map"].id.get_chunk_info(0)
    flip(second, chunk.byte_offset + 700)
    flip(third, third.stat().st_size - 10)
    assert [(found.path.name, found.sample, found.text.split(":")[0]) for found in verify_shards(built).problems] == [
        (second.name, 0, "field 'identity_map' cannot be read"),
        (third.name, None, "the bytes are not those that were written"),
    ]
    assert build(tree, built).written == 0
    kept = first.stat().st_mtime_ns
    summary = build(tree, built, repair=True)
    assert hashes(built) == wanted and verify_shards(built).problems == []
    assert first.stat().st_mtime_ns == kept
    assert summary.replaced == (second.name, third.name)
    assert f"\nmade again, as they were damaged: {second.name}, {third.name}\n" in str(summary)
    again = build(tree, built, repair=True)
    assert (again.written, again.replaced) == (0, ()) and "made again" not in str(again)


def test_a_damaged_shard_stays_until_its_replacement_is_whole(tree, built, monkeypatch):
    shard = min(built.glob("*.h5"))
    flip(shard, 40000)
    damaged = shard.read_bytes()
    monkeypatch.setattr("asmgen.pipeline.run_tasks", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(tree, built, repair=True)
    assert shard.read_bytes() == damaged


@pytest.mark.parametrize("damage, said", [
    (lambda path: path.unlink(), None),
    (lambda path: path.write_bytes(path.read_bytes()[:40]), "is no JSON file of settings"),
    (lambda path: path.write_text(path.read_text().replace(": 64", ": 32")), "size is 32, and the shards 64"),
    (lambda path: path.write_text(path.read_text().replace("  ", " \t", 1)), "is not as it was written"),
], ids=["lost", "cut", "changed", "space"])
def test_settings_are_written_again(tree, built, damage, said):
    """Only where a shard tells that the build is the same."""
    wanted = hashes(built)
    damage(built / "build.json")
    problems = verify_shards(built).problems
    assert [problem.path.name for problem in problems] == ["build.json"] * bool(said)
    assert all(said in problem.text for problem in problems)
    if said != "is not as it was written":
        with pytest.raises((ValueError, FileExistsError), match="--repair|size 32, and this one has 64"):
            build(tree, built)
    with pytest.raises((ValueError, FileExistsError)):
        build(tree, built, repair=True, size=48)
    build(tree, built, repair=True)
    assert hashes(built) == wanted


def test_the_command(tree, built):
    """Verify ends in 1 and names the shard; a damaged number that the summary reads is no bar to the repair."""
    wanted, shard = hashes(built), max(built.glob("*.h5"))
    with h5py.File(shard) as file:
        chunk = file["samples/landmark_error"].id.get_chunk_info(0)
    flip(shard, chunk.byte_offset)
    with pytest.raises(ValueError, match=r"landmark_error.*00002-of-00003.h5 is damaged .*build again with --repair"):
        ShardSet(built).column("landmark_error")
    result = CliRunner().invoke(main, ["verify", str(built)])
    assert result.exit_code == 1 and re.search(rf"^{shard.name} sample 0: field 'landmark_error'", result.output, re.M)
    command = ["build", "asmd", str(tree), str(built), "--face-model", str(tree / "model.h5"), "--size", "64",
               "--shard-size", "3", "--repair"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0 and f"made again, as they were damaged: {shard.name}\n" in result.output
    again = hashes(built)
    assert again.pop("command.toml") and again == wanted
    assert CliRunner().invoke(main, ["verify", str(built)]).exit_code == 0
