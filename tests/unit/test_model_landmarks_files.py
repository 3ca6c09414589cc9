import os
import pickle
import shutil
import warnings
import zipfile

import pytest
import torch
from torch import nn

from model.checkpoint import save_checkpoint
from model.landmarks import LandmarkNetwork, load_landmark_network
from model.torchscript import is_torchscript, load_torchscript_tensors


def fan_shapes(stacks: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the published FAN, from its description."""
    shapes = {}

    def norm(name, channels):
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    def convolution(name, incoming, outgoing, side, bias=True):
        shapes[f"{name}.weight"] = (outgoing, incoming, side, side)
        if bias:
            shapes[f"{name}.bias"] = (outgoing,)

    def block(name, incoming, outgoing):
        sizes = (incoming, outgoing // 2, outgoing // 4, outgoing // 4)
        for index in (1, 2, 3):
            norm(f"{name}.bn{index}", sizes[index - 1])
            convolution(f"{name}.conv{index}", sizes[index - 1], sizes[index], 3, bias=False)
        if incoming != outgoing:
            norm(f"{name}.downsample.0", incoming)
            convolution(f"{name}.downsample.2", incoming, outgoing, 1, bias=False)

    convolution("conv1", 3, 64, 7)
    norm("bn1", 64)
    block("conv2", 64, 128)
    block("conv3", 128, 128)
    block("conv4", 128, 256)
    for stack in range(stacks):
        for part in "b1_4 b2_4 b1_3 b2_3 b1_2 b2_2 b1_1 b2_1 b2_plus_1 b3_1 b3_2 b3_3 b3_4".split():
            block(f"m{stack}.{part}", 256, 256)
        block(f"top_m_{stack}", 256, 256)
        convolution(f"conv_last{stack}", 256, 256, 1)
        norm(f"bn_end{stack}", 256)
        convolution(f"l{stack}", 256, 68, 1)
        if stack < stacks - 1:
            convolution(f"bl{stack}", 256, 256, 1)
            convolution(f"al{stack}", 68, 256, 1)
    return shapes


def fan_tensors(stacks=1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(shape, generator=generator) if shape else torch.tensor(7)
        for name, shape in fan_shapes(stacks).items()
    }


class Branch(nn.Module):
    def forward(self, image):
        return image


def module_of(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """A module whose state dict this is."""
    root = Branch()
    for name, value in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, Branch())
            module = module.get_submodule(part)
        if last.startswith(("running", "num")):
            module.register_buffer(last, value)
        else:
            module.register_parameter(last, nn.Parameter(value))
    return root


def script(module: nn.Module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def tensors():
    return fan_tensors()


@pytest.fixture(scope="module")
def archive(tensors, tmp_path_factory):
    return script(module_of(tensors), tmp_path_factory.mktemp("fan") / "3DFAN4-4a694010b9.zip")


def assert_holds(network, tensors):
    assert not network.training and not any(value.requires_grad for value in network.parameters())
    state = network.state_dict()
    for name, value in tensors.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(state.pop(name), value), name
    assert all(name.endswith("num_batches_tracked") for name in state)


def test_a_torchscript_archive(archive, tensors):
    assert_holds(load_landmark_network(archive), tensors)


def test_state_dicts(tensors, tmp_path):
    bare, packed, old = tmp_path / "bare.pth", tmp_path / "packed.pth.tar", tmp_path / "old.pth.tar"
    torch.save(tensors, bare)
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}, "epoch": 3}, packed)
    counted = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    torch.save(counted, old, _use_new_zipfile_serialization=False)  # as PyTorch 0.4 wrote it
    for path in (bare, packed, old):
        assert_holds(load_landmark_network(path), tensors)


def test_as_many_stacks_as_the_file_has(tmp_path):
    tensors = fan_tensors(2)
    torch.save(tensors, tmp_path / "fan.pth")
    network = load_landmark_network(tmp_path / "fan.pth")
    assert network.stacks == 2
    assert_holds(network, tensors)


def test_a_run(tmp_path):
    network = LandmarkNetwork(2, 1 / 16)
    config = {"stacks": 2, "width": 1 / 16}
    path = save_checkpoint(tmp_path, "landmarks", 5, config, {}, {"landmarks": network}, {})
    for place in (tmp_path, path):
        loaded = load_landmark_network(place)
        assert loaded.stacks == 2
        assert_holds(loaded, network.state_dict())
    save_checkpoint(tmp_path, "geometry", 5, config, {}, {"geometry": network}, {})
    with pytest.raises(ValueError, match="of kind 'landmarks', got .*'geometry'"):
        load_landmark_network(tmp_path)


@pytest.mark.parametrize("change, message", (
    (lambda state: state.pop("m0.b2_plus_1.conv2.weight"),
     r"its m0.b2_plus_1.conv2.weight must have shape \(64, 128, 3, 3\), got none; it is another network"),
    (lambda state: state.update({"l0.weight": torch.zeros(98, 256, 1, 1), "l0.bias": torch.zeros(98)}),
     r"its l0.weight must have shape \(68, 256, 1, 1\), got \(98, 256, 1, 1\)"),
    (lambda state: state.update({"conv1.weight": torch.zeros(64, 71, 7, 7)}),
     r"its conv1.weight must have shape \(64, 3, 7, 7\), got \(64, 71, 7, 7\)"),
    (lambda state: state.update({"fc.weight": torch.zeros(2, 3)}),
     r"its fc.weight must have shape none, got \(2, 3\)"),
    (lambda state: state.update({"l1.weight": torch.zeros(68, 256, 1, 1)}),
     r"FAN of 2 stack\(s\), but its .* got none"),
    (lambda state: state.update({"bn1.bias": 3.0}), r"its bn1.bias must have shape \(64,\), got none"),
    *((lambda state, first=first: (state.clear(), state.update({first: torch.zeros(2)})),
       f"must hold the weights of FAN, its heatmap layers named l0.weight, .* its first entry is {first}")
      for first in ("features.0.weight", "layer1.0.conv1.weight")),  # VGG, ResNet
    (lambda state: state.clear(), "its first entry is nothing"),
))
def test_weights_of_another_network(tensors, tmp_path, change, message):
    state = dict(tensors)
    change(state)
    torch.save(state, tmp_path / "fan.pth")
    with pytest.raises(ValueError, match=message) as error:
        load_landmark_network(tmp_path / "fan.pth")
    assert "\n" not in str(error.value)


def test_files_that_are_none(archive, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; give the folder of a run"):
        load_landmark_network(tmp_path / "none.zip")
    with pytest.raises(FileNotFoundError, match="checkpoint.pt does not exist"):
        load_landmark_network(tmp_path)
    path = tmp_path / "fan.zip"
    whole = archive.read_bytes()
    for content in (b"", b"<html>404</html>", whole[:len(whole) // 2], whole[-1000:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="fan.zip must be a .* it may be damaged, or of another program") as error:
            load_landmark_network(path)
        assert "\n" not in str(error.value)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="must hold the weights of FAN"):
        load_landmark_network(path)


def rewritten(archive, path, change):
    """The archive with `change` done to the bytes of a member (name, bytes); None leaves it out."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return path


@pytest.mark.parametrize("change", (
    lambda name, content: content[:40] if name.endswith("/data/0") else content,
    lambda name, content: None if name.endswith("/data/3") else content,
    lambda name, content: content[:500] if name.endswith("/data.pkl") else content,
    lambda name, content: None if name.endswith("/data.pkl") else content,
    lambda name, content: pickle.dumps([1, 2]) if name.endswith("/data.pkl") else content,
))
def test_archives_with_parts_missing(archive, tmp_path, change):
    with pytest.raises(ValueError, match="fan.zip must (be a TorchScript archive|hold the weights of FAN)"):
        load_landmark_network(rewritten(archive, tmp_path / "fan.zip", change))


def test_a_flipped_bit_is_noticed(archive, tmp_path):
    path = tmp_path / "fan.zip"
    shutil.copy(archive, path)
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ValueError, match="must be a TorchScript archive of tensors, .*Bad CRC-32"):
        load_landmark_network(path)


class Trap:
    """Pickled, it would make a folder when read."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_code_in_a_pickle_does_not_run(archive, tmp_path):
    target = tmp_path / "trapped"
    payload = pickle.dumps({"state_dict": Trap(target)})
    pickle.loads(payload)
    assert target.exists()  # the trap works
    target.rmdir()
    torch.save({"state_dict": Trap(target)}, tmp_path / "fan.pth")
    scripted = rewritten(archive, tmp_path / "fan.zip", lambda name, content: (
        payload if name.endswith("/data.pkl") else content
    ))
    for path, message in (
        (tmp_path / "fan.pth", "must be a PyTorch file of tensors"),
        (scripted, r"\.mkdir is no part of a network's weights"),
    ):
        with pytest.raises(ValueError, match=message):
            load_landmark_network(path)
        assert not target.exists()


class ScriptTrap(nn.Module):
    """Scripted, it writes a file when `torch.jit.load` reads it."""

    def __init__(self, target: str):
        super().__init__()
        self.weight, self.target = torch.ones(2), target

    def forward(self, image):
        return image

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.target, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]):
        self.weight, self.target, self.training = state[0], state[1], state[2]
        torch.save(state[0], state[1])


def test_code_in_an_archive_does_not_run(tmp_path):
    target = tmp_path / "trapped"
    path = script(ScriptTrap(str(target)), tmp_path / "fan.zip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.load(str(path))
    assert target.exists()  # the trap works
    target.unlink()
    with pytest.raises(ValueError, match="must be a TorchScript archive of tensors"):
        load_landmark_network(path)
    assert not target.exists()


class Mixed(nn.Module):
    """Tensors of several types and layouts, and attributes that are none."""

    def __init__(self):
        super().__init__()
        self.sizes, self.name, self.factor = [1, 2], "mixed", 0.5
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3).half(), nn.ReLU(), nn.BatchNorm2d(4))
        self.register_buffer("shared", torch.arange(12.0))
        self.register_buffer("part", self.shared.view(3, 4)[1:, ::2].t())
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("empty", torch.zeros(0))

    def forward(self, image):
        return image * self.factor


def test_tensors_are_those_of_the_state_dict(tmp_path):
    module = Mixed()
    path = script(module, tmp_path / "mixed.pt")
    assert is_torchscript(path)
    tensors, wanted = load_torchscript_tensors(path), module.state_dict()
    assert tensors.keys() == wanted.keys()
    for name, value in wanted.items():
        assert tensors[name].dtype == value.dtype and torch.equal(tensors[name], value), name
    tensors["shared"].zero_()  # each its own
    assert torch.equal(tensors["part"], wanted["part"])


def test_what_is_a_torchscript_archive(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "saved.pt")
    (tmp_path / "text.pt").write_text("no zip")
    assert not any(is_torchscript(tmp_path / name) for name in ("saved.pt", "text.pt"))
