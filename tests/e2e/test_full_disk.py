"""Builds onto disks that are full, or cannot be written: one sentence, nothing half, and on when there is room."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from toy_tree import MODEL, hashes, write_tree

from asmgen.folder_lock import LOCK_FILE
from asmgen.shards import write_shard
from bfm.model_file import save_model
from cli.main import main


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A folder with photos, the model of their annotations, and both sets made of them."""
    folder = tmp_path_factory.mktemp("inputs")
    write_tree(folder / "photos", {"AFW": 6})
    save_model(MODEL, folder / "model.h5")
    assert CliRunner().invoke(main, arguments(folder, folder)).exit_code == 0
    return folder


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a disk of so many kB, or gives the one that is mounted other options."""
    folder = tmp_path / "disk"

    def mount(options: str) -> Path:
        if not folder.exists():
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options, "none", folder]
        else:
            command = ["mount", "-o", f"remount,{options}", folder]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no disk can be mounted here ({error}); run as root")
        return folder

    yield mount
    # workers that idle have the last job open
    subprocess.run(["umount", "-l", folder], capture_output=True)


def arguments(inputs: Path, out: Path) -> list[str]:
    """Of the command that makes both sets."""
    return [
        "build", "ftd", str(inputs / "photos"), str(out / "ftd"), "--with-asm", str(out / "asmd"), "--size", "64",
        "--shard-size", "3", "--face-model", str(inputs / "model.h5"),
    ]


def test_a_shard_that_may_not_grow(tmp_path):
    """Wherever HDF5 is stopped, also where it closes the file: the same sentence, no file, and the process can go on.
    Needs no disk, so it runs without root."""
    resource = pytest.importorskip("resource")  # not on Windows
    rng, told = np.random.default_rng(0), []
    samples = [
        {"map": rng.integers(0, 9, (3, 64, 64)).astype(np.int16), "image": rng.bytes(3000), "number": 1.0, "name": "é"}
        for _ in range(20)
    ]
    write_shard(tmp_path / "whole.h5", samples, {"kind": "test"}, {"uv": np.arange(9000.0)})
    size = (tmp_path / "whole.h5").stat().st_size
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (*range(1, size, size // 40), size - 1, size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        try:
            write_shard(tmp_path / "shard.h5", samples, {"kind": "test"}, {"uv": np.arange(9000.0)})
            told.append("")
        except OSError as error:
            told.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert {path.name for path in tmp_path.iterdir()} == {"whole.h5"} | (set() if told[-1] else {"shard.h5"})
    sentence = "shard.h5 cannot be written: File too large; mend that and run again, what is finished is kept"
    assert told == [f"{tmp_path}/{sentence}"] * (len(told) - 1) + [""]


def test_a_build_onto_a_disk_that_is_full_again_and_again(inputs, disk):
    """The disk grows until all has room; whatever lacks it first, what is there is whole and stays."""
    wanted = {name: hashes(inputs / name) for name in ("ftd", "asmd")}
    failed, size, kept = set(), 4, {}
    while True:
        out = disk(f"size={size}k")
        told = CliRunner().invoke(main, arguments(inputs, out))
        for path, when in kept.items():
            assert path.stat().st_mtime_ns == when
        kept = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
        assert {path.name for path in kept} <= wanted["ftd"].keys()
        for path in kept:
            assert hashes(path.parent)[path.name] == wanted[path.parent.name][path.name]
        if told.exit_code == 0:
            break
        assert told.exit_code == 1, told.output
        sentence = told.output.splitlines()[-1]
        start, middle, end = sentence.partition(" cannot be written: ")
        assert middle, (told.output, told.exception)
        assert end == "No space left on device; mend that and run again, what is finished is kept"
        assert start.startswith(f"Error: {out}") and told.output.count("Error") == 1
        failed.add(Path(start).name.split("-")[0])
        size = int((1.5 if size < 1000 else 1.1) * size) // 4 * 4 + 4
    assert {name: hashes(out / name) for name in wanted} == wanted
    assert failed >= {LOCK_FILE, "build.json", "job", "shard"}


def test_what_the_processes_print_on_a_full_disk(inputs, disk):
    """Neither a traceback nor HDF5's own account of itself."""
    out = disk("size=4096k")
    (out / "filler").write_bytes(bytes(3_600_000))
    told = subprocess.run(
        [sys.executable, "-m", "cli", *arguments(inputs, out)], cwd=Path(__file__).parents[2], capture_output=True,
        text=True,
    )
    assert told.returncode == 1 and not told.stdout
    bar, sentence = told.stderr.splitlines()[:-1], told.stderr.splitlines()[-1]
    assert sentence.startswith("Error: ") and "No space left" in sentence
    assert all("photo" in line or not line for line in bar)


def test_a_disk_that_cannot_be_written(inputs, disk):
    """Into a folder that is there, and one that is not."""
    out = disk("size=20m")
    (out / "ftd").mkdir(), (out / "asmd").mkdir()
    disk("ro")
    for folder, name in ((out, f"asmd/{LOCK_FILE}"), (out / "new", "new/ftd")):
        told = CliRunner().invoke(main, arguments(inputs, folder))
        assert told.exit_code == 1, told.output
        wanted = f"Error: {out / name} cannot be written: Read-only file system; mend that and run again, what is "
        assert told.output == f"{wanted}finished is kept\n"
    disk("rw")
    assert CliRunner().invoke(main, arguments(inputs, out)).exit_code == 0
    assert hashes(out / "ftd") == hashes(inputs / "ftd") and hashes(out / "asmd") == hashes(inputs / "asmd")
