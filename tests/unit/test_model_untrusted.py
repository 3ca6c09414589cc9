"""Files of weights from anywhere: nothing in them runs, none takes more memory than it is large, one sentence each."""

import os
import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch

from model import torchscript
from model.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from model.config import GeometryConfig, IdentityConfig
from model.identity import load_identity_network
from model.landmarks import LandmarkNetwork, load_landmark_network
from model.parsing import load_parsing_network
from model.perceptual import load_vgg19
from model.torchscript import load_torchscript_tensors
from model.train_geometry import load_geometry_stream
from model.train_texture import load_texture_stream
from model.untrusted import LEAST_READ

READERS = (
    load_tensors, load_torchscript_tensors, load_landmark_network, load_identity_network, load_parsing_network,
    load_vgg19, load_geometry_stream, load_texture_stream,
)


class Command:
    """What a pickle runs that is read carelessly."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def rewritten(source, target, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def script_archive(path, pickled, **members):
    """A TorchScript archive of a pickle and the bytes of storages."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/data.pkl", pickled)
        for key, content in members.items():
            archive.writestr(f"a/data/{key}", content)


def scripted(module, path):
    """Save a module as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))


def refused(read, path, match=None):
    with pytest.raises(ValueError, match=match) as error:
        read(path)
    assert "\n" not in str(error.value) and str(path.name) in str(error.value)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_nothing_in_a_file_is_run(tmp_path, read):
    path, mark = tmp_path / "weights.pt", tmp_path / "it ran"
    command = Command(mark)
    for content in (command, {"format": "dualface checkpoint", "version": 1, "kind": "geometry", "step": command},
                    {"state_dict": {"conv1.weight": command}}):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            refused(read, path)
        for protocol in (0, 2, 4):
            path.write_bytes(pickle.dumps(content, protocol))
            refused(read, path)
            script_archive(path, pickle.dumps(content, protocol))
            refused(read, path)
    torch.save(LandmarkNetwork(1, 1 / 16), path)  # a whole module
    refused(read, path)
    assert not mark.exists()


def test_a_careless_reader_runs_it(tmp_path):
    """Or the test above shows nothing."""
    torch.save(Command(tmp_path / "it ran"), tmp_path / "weights.pt")
    torch.load(tmp_path / "weights.pt", weights_only=False)
    assert (tmp_path / "it ran").exists()


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_archives_that_are_larger_than_they_look(tmp_path, read):
    torch.save({"a": torch.zeros(3)}, tmp_path / "whole.pt")
    path = tmp_path / "weights.pt"
    rewritten(tmp_path / "whole.pt", path, lambda name, content: (
        content + bytes(LEAST_READ + 2**21) if name.endswith("data.pkl") else content
    ), zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("whole/constants.pkl", b"")
    assert path.stat().st_size < 2**18
    refused(read, path, r"but has 6920\d{4} bytes in a file of \d+; get it from a source that can be trusted")


def test_one_number_that_is_repeated(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1).expand(2**30)}, path)
    refused(load_tensors, path, r"one of shape \(1073741824,\) has more than there are; get it from a source")
    content = [torch.zeros(1).expand(2**10)]
    for _ in range(60):
        content = [content, content]  # 2^60 ways to the tensor
    torch.save(content, path)
    assert len(load_tensors(path)) == 2


def test_a_storage_that_is_not_there(tmp_path):
    torch.save({"a": torch.arange(10.)}, tmp_path / "whole.pt")
    path = tmp_path / "weights.pt"

    def change(name, content):
        """Say that ten numbers are a thousand million."""
        return content.replace(b"K\n", b"J" + struct.pack("<i", 10**9)) if name.endswith("data.pkl") else content

    rewritten(tmp_path / "whole.pt", path, change)
    refused(load_tensors, path, "it may be damaged, or of another program")


@pytest.fixture
def run(tmp_path):
    """A checkpoint of a landmark run, changed by a test."""
    def save(folder=tmp_path, **changes):
        network = LandmarkNetwork(1, 1 / 16)
        config = {"stacks": 1, "width": 1 / 16}
        path = save_checkpoint(folder, "landmarks", 5, config, {}, {"landmarks": network}, {})
        torch.save({**torch.load(path, weights_only=True), **changes}, path)
        return path

    return save


@pytest.mark.parametrize("changes, said", (
    ({"version": 2}, "version 1, of kind 'landmarks', got version 2, of kind 'landmarks'"),
    ({"version": "1"}, "got another file"),
    ({"kind": ["landmarks"]}, "got another file"),
    ({"kind": "geometry"}, "got version 1, of kind 'geometry'"),
    ({"config": 3}, "must have config as dict, got int; it is damaged"),
    ({"networks": []}, "must have networks as dict, got list"),
    ({"step": None}, "must have step as int, got NoneType"),
))
def test_checkpoints_that_are_none_of_ours(run, changes, said):
    refused(load_landmark_network, run(**changes), said)


@pytest.mark.parametrize("changes, said", (
    ({"config": {"stacks": 1, "width": 1e6}}, "network 'landmarks' must fit the checkpoint's own config"),
    ({"config": {"stacks": 10**9, "width": 1.0}}, "stacks must be from 1 to 16, got 1000000000"),
    ({"config": {"stacks": "1", "width": 1.0}}, "config must be one that networks can be built by"),
    ({"config": {}}, "config must be one that networks can be built by"),
    ({"networks": {"landmarks": 3}}, "network 'landmarks' must fit"),
    ({"networks": {"landmarks": {"conv1.weight": 3}}}, "network 'landmarks' must fit"),
    ({"networks": {}}, "network 'landmarks' must fit"),
))
def test_configs_that_ask_for_more_than_there_is(run, changes, said):
    with pytest.raises(ValueError, match=said) as error:
        load_landmark_network(run(**changes))
    assert "\n" not in str(error.value)


def test_values_of_a_config_have_their_types():
    saved = GeometryConfig().to_dict()
    for key, value in (("width", "1"), ("seed", 1.5), ("shape", 3), ("augmentation", [1])):
        with pytest.raises(ValueError, match=rf"differs in \['{key}'\]"):
            GeometryConfig.from_dict({**saved, key: value})
    with pytest.raises(ValueError, match=r"differs in \['flip', 'other'\]"):
        augmentation = {**saved["augmentation"], "flip": "often", "other": 1}
        GeometryConfig.from_dict({**saved, "augmentation": augmentation})
    with pytest.raises(ValueError, match=r"differs in \['decoder_width', 'depth', .*'width'\]"):
        IdentityConfig.from_dict({key: saved[key] for key in saved.keys() - {"width"}})


def opcodes(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


MODULE = b"c__torch__.M\nM\n)\x81"  # an object of a module's class


@pytest.mark.parametrize("pickled", (
    opcodes(b"cbuiltins\neval\nX\x01\x00\x00\x001\x85R"),
    opcodes(b"ctorch\nload\n)R"),
    opcodes(b"ccollections\nOrderedDict.fromkeys\n)R"),
    opcodes(b"\x82\x01"),  # of copyreg's registry
    opcodes(b"\x8e" + struct.pack("<Q", 2**40)),  # bytes, so many
    opcodes(b"\x96" + struct.pack("<Q", 2**40)),
    opcodes(b"ctorch._utils\n_rebuild_tensor_v2\n", b"}N}X\x01\x00\x00\x00aK\x01s\x86b"),  # sets an attribute of it
    opcodes(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x05tQ"),
    b"", b"\x80\x02", b".", b"(" * 1000,
), ids=str)
def test_pickles_that_are_no_network(tmp_path, pickled):
    path = tmp_path / "fan.zip"
    script_archive(path, pickled)
    try:
        assert load_torchscript_tensors(path) == {}
    except ValueError as error:
        assert "\n" not in str(error) and "fan.zip must be a TorchScript archive" in str(error)


def test_a_far_place_of_the_memo_takes_no_memory(tmp_path):
    """The unpickler in C makes room for all places before it, 32 GB here."""
    path = tmp_path / "fan.zip"
    script_archive(path, opcodes(b"N", b"r\xff\xff\xff\x7f"))
    assert load_torchscript_tensors(path) == {}


def test_modules_that_hold_themselves(tmp_path):
    path = tmp_path / "fan.zip"
    script_archive(path, opcodes(MODULE, b"q\x00}X\x01\x00\x00\x00ah\x00sb"))
    refused(load_torchscript_tensors, path, "its modules hold each other")


def test_what_a_pickle_sets_on_a_class_is_gone_with_it(tmp_path):
    path = tmp_path / "fan.zip"
    # a slot state sets attributes: the class of modules gets __init__
    script_archive(path, opcodes(b"c__torch__.M\nM\n", b"N}X\x08\x00\x00\x00__init__ccollections\nOrderedDict\ns\x86b"))
    assert load_torchscript_tensors(path) == {}
    assert "__init__" not in vars(torchscript._Module)
    scripted(torch.nn.Linear(2, 1), path)
    assert load_torchscript_tensors(path).keys() == {"weight", "bias"}


@pytest.mark.parametrize("seed", range(2))
def test_damaged_archives(tmp_path, seed):
    """Whatever bytes are changed, the tensors are read or the file is refused."""
    whole, path, rng = tmp_path / "whole.pt", tmp_path / "fan.zip", np.random.default_rng(seed)
    scripted(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)), whole)
    new, old = tmp_path / "new.pt", tmp_path / "old.pt"
    for place in (new, old):
        torch.save({"a": torch.arange(5.), "b": [1, {"c": "d"}]}, place, _use_new_zipfile_serialization=place == new)
    for source, read in ((whole, load_torchscript_tensors), (new, load_tensors), (old, load_tensors)):
        content = source.read_bytes()
        outcomes = set()
        for _ in range(100):
            changed = bytearray(content)
            for place in rng.integers(0, len(content), rng.integers(1, 8)):
                changed[place] = rng.integers(256)
            path.write_bytes(changed[:rng.integers(len(changed))] if rng.random() < 0.2 else changed)
            try:
                read(path)
                outcomes.add("read")
            except ValueError as error:
                assert "\n" not in str(error) and "fan.zip" in str(error)
                outcomes.add("refused")
        assert outcomes == {"read", "refused"}


def test_a_run_is_read(run):
    assert load_checkpoint(run(), "landmarks")["step"] == 5
