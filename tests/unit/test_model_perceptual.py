import pytest
import torch
import torch.nn.functional as F

from model.checkpoint import save_checkpoint
from model.config import GeometryConfig
from model.geometry import GeometryStream, MultiTaskEncoder
from model.perceptual import from_encoder, load_perceptual, load_vgg19

CHANNELS = [3, 64, 64, 128, 128, *(256,) * 4, *(512,) * 8]
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)


@pytest.fixture(scope="module")
def vgg19():
    """The convolutions of a VGG-19 under torchvision's names, random, of a scale that keeps activations alive."""
    generator = torch.Generator().manual_seed(1)
    state = {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}
    for index, incoming, outgoing in zip(TORCHVISION, CHANNELS, CHANNELS[1:]):
        scale = (2 / (9 * incoming)) ** 0.5
        state[f"features.{index}.weight"] = torch.randn(outgoing, incoming, 3, 3, generator=generator) * scale
        state[f"features.{index}.bias"] = torch.randn(outgoing, generator=generator) * 0.1
    return state


def reference(state, image):
    """relu2_2, relu3_2, relu4_2, relu5_2 of VGG-19 by its definition."""
    mean, stddev = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    image = (image - mean.view(3, 1, 1)) / stddev.view(3, 1, 1)
    layers, features = iter(TORCHVISION), []
    for block, count in enumerate((2, 2, 4, 4, 4)):
        image = F.max_pool2d(image, 2) if block else image
        for layer in range(count):
            index = next(layers)
            weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            image = F.relu(F.conv2d(image, weight, bias, padding=1))
            if block and layer == 1:
                features.append(image)
    return features


def test_vgg19_features_are_those_of_the_published_network(vgg19, tmp_path):
    torch.save(vgg19, tmp_path / "vgg19.pth")
    phi = load_perceptual(vgg19=tmp_path / "vgg19.pth", geometry=tmp_path / "not looked at")
    image = torch.rand(2, 3, 32, 32)
    found, expected = phi(image), reference(vgg19, image)
    assert [tuple(values.shape[1:]) for values in found] == [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert phi.description == "VGG-19 of ImageNet"


def test_files_that_are_no_vgg19(vgg19, tmp_path):
    path = tmp_path / "vgg19.pth"
    with pytest.raises(FileNotFoundError, match="does not exist; give torchvision's VGG-19 state dict"):
        load_vgg19(path)
    path.write_bytes(b"TORCH7 binary")
    with pytest.raises(ValueError, match="must be a PyTorch file of tensors"):
        load_vgg19(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match="must hold torchvision's VGG-19, whose features.0.weight"):
        load_vgg19(path)
    cut = {key: value for key, value in vgg19.items() if not key.startswith("features.16.")}  # as vgg16's names are
    torch.save(cut, path)
    with pytest.raises(ValueError, match=r"features.16.weight has shape \(256, 256, 3, 3\), got none; it is another"):
        load_vgg19(path)
    torch.save({**vgg19, "features.36.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"features.36.weight has shape none, got \(2,\)"):
        load_vgg19(path)


@pytest.mark.parametrize("batch_norm", (False, True))
def test_layers_of_an_encoder(batch_norm):
    torch.manual_seed(0)
    encoder = MultiTaskEncoder(0.1, batch_norm)
    if batch_norm:
        encoder.train()(torch.rand(8, 3, 32, 32))  # running statistics that are not 0 and 1
    encoder.eval()
    image, taps = torch.rand(2, 3, 32, 32), []
    convolutions, values = 0, (image - encoder.mean) / encoder.stddev
    for layer in encoder.features:
        convolutions += isinstance(layer, torch.nn.Conv2d)
        values = layer(values.clone())
        if isinstance(layer, torch.nn.ReLU) and convolutions in (4, 6, 9, 12):  # VGG-16's x_2
            taps.append(values.clone())
    phi = from_encoder(encoder)
    for ours, theirs in zip(phi.train()(image), taps, strict=True):
        assert torch.equal(ours, theirs)


def test_frozen_but_passing_gradients():
    encoder = MultiTaskEncoder(0.1, batch_norm=True)
    phi = from_encoder(encoder)
    before = {key: value.clone() for key, value in phi.state_dict().items()}
    image = torch.rand(2, 3, 32, 32, requires_grad=True)
    phi.train()
    phi(image)[-1].sum().backward()
    assert image.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in phi.parameters())
    assert all(torch.equal(value, before[key]) for key, value in phi.state_dict().items())  # running means too


def test_a_geometry_run_in_its_place(tmp_path):
    config = GeometryConfig(width=0.1)
    torch.manual_seed(0)
    stream = GeometryStream(4, 32, 0.1, batch_norm=True)
    stream.train()(torch.rand(4, 3, 32, 32))
    metadata = {"albedo_modes": 4, "size": 32}
    save_checkpoint(tmp_path, "geometry", 12, config.to_dict(), metadata, {"geometry": stream}, {})
    phi = load_perceptual(geometry=tmp_path)
    image = torch.rand(1, 3, 32, 32)
    for ours, theirs in zip(phi(image), from_encoder(stream.eval().encoder)(image), strict=True):
        assert torch.equal(ours, theirs)
    assert phi.description == "the encoder of a geometry run (width 0.1, 12 steps), for want of VGG-19's weights"


def test_there_are_no_random_features():
    with pytest.raises(ValueError, match=r"\(--perceptual vgg19.pth\) or a geometry run \(--geometry RUN\), or turn "
                                         r"the loss off \(--no-contextual\)"):
        load_perceptual()
