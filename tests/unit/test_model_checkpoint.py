import json
import math

import pytest
import torch

from model.checkpoint import load_checkpoint, restore, save_checkpoint
from model.config import Augmentation, FusionConfig, GeometryConfig
from model.run_folder import json_text
from training_runs import same_tensors


def trained(seed):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    adam = torch.optim.Adam(network.parameters(), 0.1)
    for _ in range(3):
        network(torch.randn(5, 3)).square().sum().backward()
        adam.step()
    return {"net": network}, {"adam": adam}


def test_restores_everything(tmp_path):
    networks, optimisers = trained(0)
    save_checkpoint(tmp_path, "geometry", 7, {"width": 0.5}, {"uv": torch.arange(3)}, networks, optimisers)
    drawn = torch.rand(4)
    others, their_optimisers = trained(1)
    state = load_checkpoint(tmp_path, "geometry")
    assert restore(state, others, their_optimisers) == 7
    assert torch.equal(torch.rand(4), drawn)
    assert state["config"] == {"width": 0.5} and torch.equal(state["metadata"]["uv"], torch.arange(3))
    for key, value in networks["net"].state_dict().items():
        assert torch.equal(value, others["net"].state_dict()[key])
    # the next steps agree bit for bit: moments and step counts came back too
    for nets, optims in ((networks, optimisers), (others, their_optimisers)):
        optims["adam"].zero_grad()
        nets["net"](torch.ones(2, 3) + torch.eye(2, 3)).square().sum().backward()
        optims["adam"].step()
    assert torch.equal(networks["net"][0].weight, others["net"][0].weight)


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    networks, optimisers = trained(0)
    save_checkpoint(tmp_path, "geometry", 7, {}, {}, networks, optimisers)

    def full_disk(state, file):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError):
        save_checkpoint(tmp_path, "geometry", 8, {}, {}, networks, optimisers)
    assert load_checkpoint(tmp_path, "geometry")["step"] == 7


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder of a training run"):
        load_checkpoint(tmp_path / "none", "geometry")
    networks, optimisers = trained(0)
    path = save_checkpoint(tmp_path, "texture", 7, {}, {}, networks, optimisers)
    wanted = "of kind 'geometry', got version 1, of kind 'texture'; give a run of `dualface train geometry`"
    with pytest.raises(ValueError, match=wanted):
        load_checkpoint(path, "geometry")
    for other in (torch.zeros(3), {"kind": "geometry", "version": 1}):
        torch.save(other, path)
        with pytest.raises(ValueError, match="of kind 'geometry', got another file"):
            load_checkpoint(path, "geometry")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="it may be damaged"):
        load_checkpoint(path, "geometry")


def test_any_flipped_bit_is_noticed_before_pytorch_sees_it(tmp_path, monkeypatch):
    """PyTorch reads what is in an archive without a look at its checksums."""
    networks, optimisers = trained(0)
    path = save_checkpoint(tmp_path, "geometry", 7, {"width": 0.5}, {"uv": torch.arange(3)}, networks, optimisers)
    whole, wanted, load = path.read_bytes(), load_checkpoint(path, "geometry"), torch.load
    weight = whole.index(networks["net"][0].weight.detach().numpy().tobytes())
    end = whole.rindex(b"\nsha256 of the crc32 of each MiB: ")
    monkeypatch.setattr(torch, "load", None)
    for place in (*range(0, end, 97), weight, end - 1, len(whole) - 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1:])
        with pytest.raises(ValueError, match=r"checkpoint.pt is damaged \(the bytes are not those that were written"):
            load_checkpoint(path, "geometry")
    monkeypatch.setattr(torch, "load", load)
    path.write_bytes(whole[:end])  # as older versions wrote it
    assert same_tensors(load_checkpoint(path, "geometry"), wanted)
    path.write_bytes(whole)
    assert same_tensors(torch.load(path, weights_only=True), wanted)  # other programs need not know


def test_weights_that_do_not_fit(tmp_path):
    networks, optimisers = trained(0)
    state = load_checkpoint(save_checkpoint(tmp_path, "geometry", 7, {}, {}, networks, optimisers), "geometry")
    wider = {"net": torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))}
    with pytest.raises(ValueError, match="network 'net' must fit the checkpoint's own config, but does not .*shape"):
        restore(state, wider, optimisers)
    with pytest.raises(ValueError, match="network 'other' must fit"):
        restore(state, {"other": wider["net"]}, optimisers)


def test_config_survives_plain_values():
    config = GeometryConfig(width=0.25, augmentation=Augmentation(flip=0))
    assert GeometryConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"differs in \['width'\]"):
        GeometryConfig.from_dict({key: value for key, value in config.to_dict().items() if key != "width"})


def test_config_survives_json_that_every_reader_takes():
    config = FusionConfig(camera_distance=math.inf)
    text = json_text({"config": config.to_dict(), "sizes": (1, math.inf)})
    read = json.loads(text, parse_constant=pytest.fail)  # Infinity is not JSON
    assert FusionConfig.from_dict(read["config"]) == config
    assert read["config"]["camera_distance"] is None and read["sizes"] == [1, None]
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"loss": math.nan})


def test_what_may_change_on_resume():
    config = GeometryConfig()
    assert config.difference(GeometryConfig(stream_steps=3, log_every=1, checkpoint_every=2).to_dict()) is None
    assert config.difference(GeometryConfig(eta_r=0.5).to_dict()) == "eta_r is 0.01, the run was started with 0.5"
    assert "augmentation is" in config.difference(GeometryConfig(augmentation=Augmentation(flip=0)).to_dict())
