import pytest
import torch
import torch.nn.functional as F

from model.geometry import MultiTaskEncoder
from model.vgg import load_vgg

BLOCKS = (2, 2, 3, 3, 3)
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
NAMES = {
    "dag": [f"conv{b}_{i}" for b, count in enumerate(BLOCKS, 1) for i in range(1, count + 1)],
    "caffe": [f"conv_{b}_{i}" for b, count in enumerate(BLOCKS, 1) for i in range(1, count + 1)],
    "torchvision": [f"features.{index}" for index in TORCHVISION],
}


@pytest.fixture(scope="module")
def weights():
    """(weight, bias) of VGG-16's convolutions, random, of a scale that keeps activations alive."""
    generator = torch.Generator().manual_seed(1)
    incoming, layers = 3, []
    for outgoing, count in zip((64, 128, 256, 512, 512), BLOCKS):
        for _ in range(count):
            scale = (2 / (9 * incoming)) ** 0.5
            layers.append((
                torch.randn(outgoing, incoming, 3, 3, generator=generator) * scale,
                torch.randn(outgoing, generator=generator) * 0.1,
            ))
            incoming = outgoing
    return layers


def reference(layers, image):
    """VGG-16 by its definition: thirteen 3x3 convolutions, pooling between the blocks."""
    layers = iter(layers)
    for block, count in enumerate(BLOCKS):
        for _ in range(count):
            image = F.relu(F.conv2d(image, *next(layers), padding=1))
        image = F.max_pool2d(image, 2) if block < 4 else image
    return image.mean((2, 3))


def write(path, layers, names, **more):
    state = {}
    for name, (weight, bias) in zip(names, layers):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    torch.save({**state, **more}, path)
    return path


def given_to(kind, image):
    """What each publisher's network is fed, for RGB in [0, 1]."""
    if kind == "torchvision":
        mean, stddev = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        return (image - mean.view(3, 1, 1)) / stddev.view(3, 1, 1)
    rgb = image * 255 - torch.tensor([129.1863, 104.7624, 93.5940]).view(3, 1, 1)
    return rgb.flip(1) if kind == "caffe" else rgb


@pytest.mark.parametrize("kind", NAMES)
def test_features_are_those_of_the_published_network(kind, weights, tmp_path):
    path = write(tmp_path / "vgg.pth", weights, NAMES[kind], **{
        "fc6.weight" if kind != "torchvision" else "classifier.0.weight": torch.zeros(2, 2)
    })
    encoder = MultiTaskEncoder()
    load_vgg(encoder, path)
    image = torch.rand(1, 3, 32, 32)
    assert torch.allclose(encoder(image), reference(weights, given_to(kind, image)), rtol=1e-3, atol=1e-3)


def test_files_that_do_not_fit(weights, tmp_path):
    encoder = MultiTaskEncoder()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    path = tmp_path / "vgg.pth"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_vgg(encoder, path)
    path.write_bytes(b"TORCH7 binary")
    with pytest.raises(ValueError, match="must be a PyTorch file of tensors"):
        load_vgg(encoder, path)
    torch.save({"layer1.0.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="first entry is layer1.0.weight"):
        load_vgg(encoder, path)
    with pytest.raises(ValueError, match=r"conv5_3.weight must have shape \(512, 512, 3, 3\), got none"):
        load_vgg(encoder, write(path, weights[:-1], NAMES["dag"]))
    wrong = [(weights[0][0][:, :1], weights[0][1]), *weights[1:]]
    with pytest.raises(ValueError, match=r"features.0.weight must have shape \(64, 3, 3, 3\), got \(64, 1, 3, 3\)"):
        load_vgg(encoder, write(path, wrong, NAMES["torchvision"]))
    # vgg19 has the names of vgg16 and more
    with pytest.raises(ValueError, match="also holds features.34.weight; it is another network"):
        load_vgg(encoder, write(path, weights, NAMES["torchvision"], **{"features.34.weight": torch.zeros(1)}))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("encoder", (MultiTaskEncoder(0.5), MultiTaskEncoder(1.0, batch_norm=True)))
def test_only_vgg_itself_takes_them(encoder, tmp_path):
    with pytest.raises(ValueError, match="fit only an encoder of width 1 without batch normalisation"):
        load_vgg(encoder, tmp_path / "vgg.pth")


class Trap:
    """Pickled, it would make a folder when read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os
        return os.mkdir, (str(self.target),)


def test_a_weights_file_cannot_run_code(tmp_path):
    path = tmp_path / "vgg.pth"
    torch.save({"conv1_1.weight": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(ValueError, match="must be a PyTorch file of tensors"):
        load_vgg(MultiTaskEncoder(), path)
    assert not (tmp_path / "sprung").exists()
