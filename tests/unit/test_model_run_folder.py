"""The files of a run: whole or as they were; what cannot be written is said in one sentence."""

import errno
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from model.checkpoint import CHECKPOINT_NAME, load_checkpoint, save_checkpoint
from model.run_folder import RunLog, describe_run, draw_curves, read_log, save_sheet

RECORDS = [{"step": 1, "loss": 0.5, "gradient_norm": 2.0}, {"step": 2, "loss": 0.25, "gradient_norm": 1.0}]


def test_what_is_logged_is_read(tmp_path):
    describe_run(tmp_path, {"kind": "x"}, RECORDS[:1])
    with RunLog(tmp_path / "log.jsonl") as log:
        log.add(RECORDS[1])
        assert read_log(tmp_path) == RECORDS  # while the run goes on
        log.synchronise()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 3, "lo')
    assert read_log(tmp_path) == RECORDS
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="line 3 of .*log.jsonl must be a record in JSON, but is damaged; delete it"):
        read_log(tmp_path)


def writers(folder: Path):
    """By the file they write, each file of a run."""
    network = torch.nn.Linear(1, 1)
    return {
        **dict.fromkeys(("config.json", "log.jsonl"), lambda: describe_run(folder, {"kind": "y"}, [])),
        "samples/step-000003.png": lambda: save_sheet(Image.new("RGB", (1, 1)), folder, 3),
        "curves.png": lambda: draw_curves(folder),
        CHECKPOINT_NAME: lambda: save_checkpoint(folder, "x", 1, {}, {}, {"net": network}, {}),
    }


@pytest.mark.parametrize("name", (
    "config.json", "log.jsonl", "samples/step-000003.png", "curves.png", CHECKPOINT_NAME,
))
def test_a_file_that_cannot_be_replaced_stays(tmp_path, monkeypatch, name):
    describe_run(tmp_path, {"kind": "x"}, RECORDS)
    write, replace = writers(tmp_path)[name], os.replace
    write()
    describe_run(tmp_path, {"kind": "x"}, RECORDS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if name == "log.jsonl":
        del before[tmp_path / "config.json"]  # it is replaced first

    def full(source, target):
        if Path(target) == tmp_path / name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=f"{name} cannot be written: No space left on device") as error:
        write()
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in before} == before


def test_a_log_on_a_full_disk(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a disk that is always full")
    with RunLog(Path("/dev/full")) as log:
        with pytest.raises(OSError, match="/dev/full cannot be written: No space left on device; mend that"):
            log.add(RECORDS[0])


def test_a_checkpoint_on_a_disk_that_fills_up(tmp_path):
    """A quota in place of a full disk: PyTorch's writer then fails in the middle of the file."""
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    save = writers(tmp_path)[CHECKPOINT_NAME]
    save()
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="checkpoint.pt cannot be written: File too large; mend that and run again"):
            save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]
    assert load_checkpoint(tmp_path, "x")["step"] == 1
    save()
