"""What goes wrong in the processes that decode, in one sentence that names the sample."""

import os
import re
import signal

import h5py
import numpy as np
import pytest
from toy import toy_model
from toy_asmd import write_toy_asmd

from model.data import FaceDataset
from model.loader import training_loader

SIZE = 64


@pytest.fixture
def folder(tmp_path):
    return write_toy_asmd(tmp_path, toy_model(), 6, SIZE)


class Deadly(FaceDataset):
    """Samples of which one is too much for the process that decodes it, as a lack of memory may be."""

    def sample(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(index)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_worker_that_is_killed_is_reported_with_its_sample(folder, capfd):
    handler = signal.getsignal(signal.SIGCHLD)
    batches = training_loader(Deadly(folder), np.array([2, 3]), 1, 0, 0, 8, workers=1)
    with pytest.raises(ChildProcessError) as error:
        list(batches)
    path = folder / "shard-00000-of-00001.h5"
    assert str(error.value) == (
        f"a process that decodes photos was killed by signal 9 at row 3 of {path} (TOY/TOY_1_1); if memory ran out, "
        "take fewer (--workers); then go on with --resume"
    )
    assert signal.getsignal(signal.SIGCHLD) is handler  # or it would be raised anywhere in a step
    assert capfd.readouterr().err == ""


def test_a_sample_that_cannot_be_decoded_is_named(folder):
    path = folder / "shard-00000-of-00001.h5"
    dataset = FaceDataset(folder)
    dataset.builds[0] = Damaged(dataset.builds[0])
    batches = training_loader(dataset, np.arange(6), 2, 0, 0, 3)
    said = f"row 3 of {path} (TOY/TOY_1_1) holds an image that cannot be decoded ("
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        list(batches)
    assert "`dualface verify`" in str(error.value) and "\n" not in str(error.value)


class Damaged:
    """A build of which one photo is cut short before it reaches the decoder."""

    def __init__(self, build):
        self.build, self.paths, self.location = build, build.paths, build.location

    def __getitem__(self, index):
        sample = self.build[index]
        return {**sample, "image": sample["image"][:200]} if index == 3 else sample


def test_a_shard_that_is_damaged_is_named(folder):
    path = folder / "shard-00000-of-00001.h5"
    with h5py.File(path, "r") as file:
        place = file["samples/pose"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        list(training_loader(FaceDataset(folder), np.arange(6), 2, 0, 0, 3))
    assert "\n" not in str(error.value)
