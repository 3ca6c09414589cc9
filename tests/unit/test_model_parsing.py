import pytest
import torch
import torch.nn.functional as F

from model.parsing import CLASSES, FaceParsing, load_parsing_network

FACE_CLASSES = (1, 2, 3, 4, 5, 10, 12, 13)  # CelebAMask-HQ: skin, brows, eyes, nose, lips


def bisenet_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the published file, from the description of the network."""
    shapes = {}

    def norm(name, channels):
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    def convolution(name, incoming, outgoing, side):
        shapes[f"{name}.weight"] = (outgoing, incoming, side, side)

    def block(name, incoming, outgoing, side):
        convolution(f"{name}.conv", incoming, outgoing, side)
        norm(f"{name}.bn", outgoing)

    convolution("cp.resnet.conv1", 3, 64, 7)
    norm("cp.resnet.bn1", 64)
    incoming = 64
    for layer, outgoing in enumerate((64, 128, 256, 512), 1):
        for index in range(2):
            name = f"cp.resnet.layer{layer}.{index}"
            for number, channels in ((1, incoming), (2, outgoing)):
                convolution(f"{name}.conv{number}", channels, outgoing, 3)
                norm(f"{name}.bn{number}", outgoing)
            if incoming != outgoing:
                convolution(f"{name}.downsample.0", incoming, outgoing, 1)
                norm(f"{name}.downsample.1", outgoing)
            incoming = outgoing
    for name, channels in (("cp.arm16", 256), ("cp.arm32", 512)):
        block(f"{name}.conv", channels, 128, 3)
        convolution(f"{name}.conv_atten", 128, 128, 1)
        norm(f"{name}.bn_atten", 128)
    block("cp.conv_head32", 128, 128, 3)
    block("cp.conv_head16", 128, 128, 3)
    block("cp.conv_avg", 512, 128, 1)
    block("ffm.convblk", 256, 256, 1)
    convolution("ffm.conv1", 256, 64, 1)
    convolution("ffm.conv2", 64, 256, 1)
    for name, channels, inner in (("conv_out", 256, 256), ("conv_out16", 128, 64), ("conv_out32", 128, 64)):
        block(f"{name}.conv", channels, inner, 3)
        convolution(f"{name}.conv_out", inner, 19, 1)
    return shapes


@pytest.fixture(scope="module")
def tensors():
    """Random tensors under the published names, of scales that keep activations alive."""
    generator = torch.Generator().manual_seed(1)

    def drawn(name, shape):
        if not shape:
            return torch.tensor(7)
        if len(shape) == 4:
            return torch.randn(shape, generator=generator) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        positive = name.endswith(("weight", "var"))
        return torch.rand(shape, generator=generator) + 0.5 if positive else torch.randn(shape, generator=generator) / 5

    return {name: drawn(name, shape) for name, shape in bisenet_shapes().items()}


@pytest.fixture(scope="module")
def network(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("bisenet") / "79999_iter.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)  # as PyTorch 1.0 wrote it
    return load_parsing_network(path)


def reference(state, image):
    """(B, 19, 512, 512) scores of (B, 3, 512, 512) by the definition of the network."""

    def norm(name, values):
        mean, variance, weight, bias = (
            state[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (values - mean) / (variance + 1e-5).sqrt() * weight + bias

    def convolution(name, values, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(values, weight, stride=stride, padding=weight.shape[-1] // 2)

    def block(name, values):
        return norm(f"{name}.bn", convolution(f"{name}.conv", values)).relu()

    def mean(values):
        return F.adaptive_avg_pool2d(values, 1)

    def refined(name, values):
        values = block(f"{name}.conv", values)
        return values * norm(f"{name}.bn_atten", convolution(f"{name}.conv_atten", mean(values))).sigmoid()

    centre, spread = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    values = norm("cp.resnet.bn1", convolution("cp.resnet.conv1", (image - centre) / spread, 2)).relu()
    values, layers = F.max_pool2d(values, 3, 2, 1), []
    for layer in range(1, 5):
        for index in range(2):
            name, stride = f"cp.resnet.layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1
            inner = norm(f"{name}.bn1", convolution(f"{name}.conv1", values, stride)).relu()
            inner = norm(f"{name}.bn2", convolution(f"{name}.conv2", inner))
            if stride > 1:
                values = norm(f"{name}.downsample.1", convolution(f"{name}.downsample.0", values, 2))
            values = (inner + values).relu()
        layers.append(values)
    eighth, sixteenth, coarsest = layers[1:]
    context = refined("cp.arm32", coarsest) + block("cp.conv_avg", mean(coarsest))
    context = block("cp.conv_head32", F.interpolate(context, (32, 32), mode="nearest"))
    context = refined("cp.arm16", sixteenth) + context
    context = block("cp.conv_head16", F.interpolate(context, (64, 64), mode="nearest"))
    fused = block("ffm.convblk", torch.cat([eighth, context], 1))
    fused = fused + fused * convolution("ffm.conv2", convolution("ffm.conv1", mean(fused)).relu()).sigmoid()
    scores = convolution("conv_out.conv_out", block("conv_out.conv", fused))
    return F.interpolate(scores, (512, 512), mode="bilinear", align_corners=True)


def test_the_published_file_loads_strictly(network, tensors):
    state = network.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], value) for name, value in tensors.items() if value.ndim)
    assert not network.training and not any(value.requires_grad for value in network.parameters())
    assert sum(value.numel() for value in tensors.values()) * 4 == pytest.approx(53.29e6, rel=1e-3)  # the file's size


def test_scores_are_those_of_the_published_network(network, tensors):
    image = F.interpolate(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)), (512, 512))
    expected, found = reference(tensors, image), network(image)
    assert expected.std(dim=(2, 3)).min() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def with_labels(network, monkeypatch, labels):
    """The network, its last layer replaced by one that is sure of (64, 64) labels; and a list of what it has seen."""
    scores, seen = F.one_hot(labels, len(CLASSES)).permute(2, 0, 1).float()[None], []
    monkeypatch.setattr(network.cp, "forward", lambda image: (seen.append(image), image)[1:] * 2)
    monkeypatch.setattr(network.ffm, "forward", lambda detail, context: detail)
    monkeypatch.setattr(network.conv_out, "forward", lambda image: scores.expand(len(image), -1, -1, -1))
    return network, seen


@pytest.mark.parametrize("label", range(19))
def test_what_is_face(network, monkeypatch, label):
    network, _ = with_labels(network, monkeypatch, torch.full((64, 64), label))
    mask = network.face_mask(torch.rand(2, 3, 16, 16))
    assert mask.shape == (2, 1, 16, 16) and mask.dtype == torch.bool
    assert mask.all() if label in FACE_CLASSES else not mask.any()
    mask = network.face_mask(torch.rand(2, 3, 16, 16), ("hair", "glasses"))
    assert mask.all() if label in (6, 17) else not mask.any()


@pytest.mark.parametrize("size", (256, 512, 700))
def test_where_it_is(network, monkeypatch, size):
    """Skin above and left of hair: the border is that of the grid's cells, at any size."""
    labels = torch.full((64, 64), CLASSES.index("hair"))
    labels[:16, :40] = CLASSES.index("skin")
    network, _ = with_labels(network, monkeypatch, labels)
    mask = network.face_mask(torch.rand(1, 3, size, size))[0, 0]
    # cell i lies at pixel i 511 / 63 of 512; the scores of two neighbours are equal halfway
    right, bottom = ((((cell - 0.5) * 511 / 63) + 0.5) * size / 512 - 0.5 for cell in (40, 16))
    places = torch.arange(size)
    clear = (places - right).abs() > 0.01
    assert torch.equal(mask[0, clear], places[clear] < right)
    clear = (places - bottom).abs() > 0.01
    assert torch.equal(mask[clear, 0], places[clear] < bottom)


def test_photos_are_resized_without_aliasing(network, monkeypatch):
    network, seen = with_labels(network, monkeypatch, torch.zeros(64, 64, dtype=torch.int64))
    network((torch.arange(1536) % 2).float().expand(1, 3, 1536, 1536))
    mean, stddev = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    assert seen[0].shape == (1, 3, 512, 512)
    stripes = (seen[0] * stddev + mean)[..., 1:-1]
    assert stripes.min() == pytest.approx(4 / 9) and stripes.max() == pytest.approx(5 / 9)  # of six pixels


@pytest.mark.parametrize("change, message", (
    (lambda state: state.pop("conv_out32.conv_out.weight"),
     r"looks like BiSeNet, but its conv_out32.conv_out.weight must have shape \(19, 64, 1, 1\), got none; it is"),
    (lambda state: state.update({"conv_out.conv_out.weight": torch.zeros(11, 256, 1, 1)}), r"got \(11, 256, 1, 1\)"),
    (lambda state: state.update({"sp.conv1.conv.weight": torch.zeros(2)}), "sp.conv1.conv.weight .* shape none"),
    (lambda state: (state.clear(), state.update({"conv1.weight": torch.zeros(2)})),
     "must hold BiSeNet under the names of face-parsing.PyTorch, .* its first entry is conv1.weight"),
))
def test_weights_of_another_network(tensors, tmp_path, change, message):
    state = {name: torch.zeros(1).expand(value.shape) if value.ndim else value for name, value in tensors.items()}
    change(state)
    torch.save(state, tmp_path / "bisenet.pth")
    with pytest.raises(ValueError, match=message):
        load_parsing_network(tmp_path / "bisenet.pth")


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist; give BiSeNet's weights file \(79999_iter.pth\)"):
        load_parsing_network(tmp_path / "bisenet.pth")
    torch.save([1], tmp_path / "bisenet.pth")
    with pytest.raises(ValueError, match="its first entry is nothing"):
        load_parsing_network(tmp_path / "bisenet.pth")


def test_wrapped(tensors, tmp_path):
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, tmp_path / "bisenet.pth")
    loaded = load_parsing_network(tmp_path / "bisenet.pth").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items() if value.ndim)
    assert FaceParsing().state_dict().keys() == tensors.keys()
