"""What a build is run by, where, and on which copy of the photos, does not change a byte."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from toy_tree import MODEL, hashes, write_tree
from tqdm import tqdm

from bfm.model_file import save_model
from texgen.build import build_ftd

PROJECT = Path(__file__).parents[2]


def test_bytes_do_not_depend_on_what_a_build_runs_in(tmp_path):
    """A command elsewhere: its folder, paths, seed of hashes, place for temporary files, threads of sums, language,
    hour and rights; on photos that were written in another order, at another time, and are found through a link."""
    root, here, there = tmp_path / "photos", tmp_path / "here", tmp_path / "there"
    write_tree(root, {"AFW": 4, "HELEN": 3})
    build_ftd(
        root, here / "ftd", MODEL, size=64, shard_size=3, asmd_dir=here / "asmd", progress=partial(tqdm, disable=True)
    )
    for path in sorted(root.rglob("*.*"), reverse=True):
        copy = tmp_path / "moved/to" / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        os.utime(copy, (1e9, 1e9))
    there.mkdir()
    (there / "link").symlink_to("../moved/to")
    (there / "temporary").mkdir()
    save_model(MODEL, there / "model.h5")
    told = subprocess.run(
        [sys.executable, "-m", "cli", "build", "ftd", "link", "./ftd", "--with-asm", "../there/asmd", "--size", "64",
         "--shard-size", "3", "--face-model", "model.h5", "--jobs", "3"],
        cwd=there, umask=0o077, capture_output=True, text=True, env={
            "PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "3",
            "TMPDIR": str(there / "temporary"), "LC_ALL": "C", "TZ": "Asia/Tokyo", "HOME": str(there), "COLUMNS": "20",
        },
    )
    assert told.returncode == 0, told.stderr
    for name in ("ftd", "asmd"):
        made = hashes(there / name)
        assert made.pop("command.toml") and made == hashes(here / name) and len(made) == 5
    assert not list((there / "temporary").iterdir())
