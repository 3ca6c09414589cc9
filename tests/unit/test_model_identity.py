import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.checkpoint import save_checkpoint
from model.identity import TEMPLATE, IdentityNetwork, face_crop, load_identity_network

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
PARAMETERS = {18: 24.03e6, 34: 34.14e6, 50: 43.59e6, 100: 65.16e6}  # as published


def iresnet_shapes(blocks, channels=(64, 128, 256, 512)) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of insightface's iResNet, from its description."""
    shapes = {}

    def norm(name, count):
        shapes.update({f"{name}.{part}": (count,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (channels[0], 3, 3, 3)
    norm("bn1", channels[0])
    shapes["prelu.weight"] = (channels[0],)
    incoming = channels[0]
    for layer, (count, outgoing) in enumerate(zip(blocks, channels), 1):
        for block in range(count):
            name = f"layer{layer}.{block}"
            norm(f"{name}.bn1", incoming)
            shapes[f"{name}.conv1.weight"] = (outgoing, incoming, 3, 3)
            norm(f"{name}.bn2", outgoing)
            shapes[f"{name}.prelu.weight"] = (outgoing,)
            shapes[f"{name}.conv2.weight"] = (outgoing, outgoing, 3, 3)
            norm(f"{name}.bn3", outgoing)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (outgoing, incoming, 1, 1)
                norm(f"{name}.downsample.1", outgoing)
            incoming = outgoing
    norm("bn2", channels[-1])
    shapes.update({"fc.weight": (512, channels[-1] * 49), "fc.bias": (512,)})
    norm("features", 512)
    return shapes


def one_number_each(shapes) -> dict[str, torch.Tensor]:
    """Tensors of these shapes, each of one random number, which a file holds in no space."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(1, generator=generator).expand(shape) if shape else torch.tensor(7)
        for name, shape in shapes.items()
    }


def assert_holds(network, tensors):
    assert not network.training and not any(value.requires_grad for value in network.parameters())
    state = network.state_dict()
    for name, value in tensors.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(state.pop(name), value), name
    assert all(name.endswith("num_batches_tracked") for name in state)


@pytest.mark.parametrize("depth", BLOCKS)
def test_insightface_files_of_any_depth(depth, tmp_path):
    tensors = one_number_each(iresnet_shapes(BLOCKS[depth]))
    torch.save(tensors, tmp_path / "backbone.pth")
    network = load_identity_network(tmp_path / "backbone.pth")
    assert_holds(network, tensors)
    assert sum(value.numel() for value in network.parameters()) == pytest.approx(PARAMETERS[depth], rel=5e-4)


def test_wrapped_state_dicts(tmp_path):
    tensors = one_number_each(iresnet_shapes(BLOCKS[18]))
    shared = {f"module.{name}": value for name, value in tensors.items()}
    uncounted = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    for packed in (shared, {"state_dict": shared, "epoch": 3}, {"global_step": 9, "state_dict_backbone": tensors},
                   uncounted):
        torch.save(packed, tmp_path / "packed.pt")
        assert_holds(load_identity_network(tmp_path / "packed.pt"), tensors)


@pytest.mark.parametrize("change, message", (
    (lambda state: state.pop("layer3.1.bn2.running_var"),
     r"an iResNet of 8 blocks, but its layer3.1.bn2.running_var must have shape \(256,\), got none; it is another"),
    (lambda state: state.update({"fc.weight": torch.zeros(256, 25088), "fc.bias": torch.zeros(256)}),
     r"its fc.weight must have shape \(512, 25088\), got \(256, 25088\)"),
    (lambda state: state.update({"layer1.0.se.weight": torch.zeros(2)}), r"must have shape none, got \(2,\)"),
    (lambda state: [state.pop(name) for name in list(state) if name.startswith("layer4")],
     "must hold ArcFace's iResNet under insightface's names, .*; its first entry is conv1.weight"),
    (lambda state: [state.pop(name) for name in list(state) if name.startswith("features")],  # torchvision's resnet18
     "must hold ArcFace's iResNet"),
    (lambda state: state.clear(), "its first entry is nothing"),
))
def test_weights_of_another_network(tmp_path, change, message):
    state = one_number_each(iresnet_shapes(BLOCKS[18]))
    change(state)
    torch.save(state, tmp_path / "backbone.pth")
    with pytest.raises(ValueError, match=message) as error:
        load_identity_network(tmp_path / "backbone.pth")
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint.pt does not exist; give an ArcFace file"):
        load_identity_network(tmp_path)
    path = tmp_path / "backbone.pth"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match="must be a PyTorch file of tensors"):
        load_identity_network(path)
    torch.save([torch.zeros(2)], path)
    with pytest.raises(ValueError, match="must hold ArcFace's iResNet"):
        load_identity_network(path)


def test_a_run(tmp_path):
    network = IdentityNetwork(BLOCKS[34], 1 / 32)
    config = {"depth": 34, "width": 1 / 32}
    save_checkpoint(tmp_path, "identity", 5, config, {}, {"identity": network}, {})
    assert_holds(load_identity_network(tmp_path), network.state_dict())
    save_checkpoint(tmp_path, "landmarks", 5, config, {}, {"identity": network}, {})
    with pytest.raises(ValueError, match="of kind 'identity', got .*'landmarks'"):
        load_identity_network(tmp_path)


def alive(network):
    """The network with normalisations and slopes that are not those of a start."""
    generator = torch.Generator().manual_seed(2)
    for name, value in network.state_dict().items():
        if value.ndim == 1:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return network.eval()


def reference(state, blocks, crop):
    """Features by the definition of iResNet: BN, convolution, BN, PReLU, convolution, BN; no ReLU after the sum."""

    def norm(name, values):
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        mean, variance, weight, bias = (part.view(-1, *[1] * (values.ndim - 2)) for part in parts)
        return (values - mean) / (variance + 1e-5).sqrt() * weight + bias

    def prelu(name, values):
        return torch.where(values > 0, values, values * state[f"{name}.weight"].view(-1, 1, 1))

    values = prelu("prelu", norm("bn1", F.conv2d((crop - 0.5) / 0.5, state["conv1.weight"], padding=1)))
    for layer, count in enumerate(blocks, 1):
        for block in range(count):
            name, stride = f"layer{layer}.{block}", 2 - (block > 0)
            inner = F.conv2d(norm(f"{name}.bn1", values), state[f"{name}.conv1.weight"], padding=1)
            inner = prelu(f"{name}.prelu", norm(f"{name}.bn2", inner))
            inner = norm(f"{name}.bn3", F.conv2d(inner, state[f"{name}.conv2.weight"], stride=stride, padding=1))
            if block == 0:
                values = F.conv2d(values, state[f"{name}.downsample.0.weight"], stride=2)
                values = norm(f"{name}.downsample.1", values)
            values = values + inner
    return norm("features", norm("bn2", values).flatten(1) @ state["fc.weight"].T + state["fc.bias"])


def test_features_are_those_of_the_published_network():
    blocks = (1, 2, 3, 2)
    torch.manual_seed(0)
    network = alive(IdentityNetwork(blocks, 1 / 16))
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == iresnet_shapes(
        blocks, (4, 8, 16, 32)
    )
    crop = torch.rand(2, 3, 112, 112)
    torch.testing.assert_close(network(crop), reference(network.state_dict(), blocks, crop), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"shape \(B, 3, 112, 112\), got \(2, 3, 128, 128\); make it by face_crop"):
        network(torch.rand(2, 3, 128, 128))


def test_angles_are_in_full_precision_under_autocast():
    network = alive(IdentityNetwork((1, 1, 1, 1), 1 / 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert network.conv1(torch.rand(1, 3, 8, 8)).dtype == torch.bfloat16
        assert network(torch.rand(2, 3, 112, 112)).dtype == torch.float32


def landmarks_at(points: torch.Tensor) -> torch.Tensor:
    """68 landmarks whose five points are (B, 5, 2); the eyes' six lie about their centres, all others nowhere."""
    landmarks = torch.full((len(points), 68, 2), 1e4, dtype=points.dtype)
    ring = torch.tensor([[math.cos(k * math.pi / 3), math.sin(k * math.pi / 3)] for k in range(6)], dtype=points.dtype)
    landmarks[:, 36:42] = points[:, :1] + 3 * ring
    landmarks[:, 42:48] = points[:, 1:2] + 3 * ring
    landmarks[:, 30], landmarks[:, 48], landmarks[:, 54] = points[:, 2], points[:, 3], points[:, 4]
    return landmarks


def coordinates(size: int, dtype=torch.float64) -> torch.Tensor:
    """(1, 3, S, S) image whose colour says where it is: x, y and 1."""
    places = torch.arange(size, dtype=dtype).expand(size, size)
    return torch.stack([places, places.T, torch.ones_like(places)])[None]


def similarity(angle, factor, x, y) -> np.ndarray:
    a, b = factor * math.cos(angle), factor * math.sin(angle)
    return np.array([[a, -b, x], [b, a, y]])


def places_in_crop() -> np.ndarray:
    """(112, 112, 3) x, y, 1 of the crop's pixels."""
    x, y = np.meshgrid(np.arange(112.0), np.arange(112.0))
    return np.stack([x, y, np.ones_like(x)], -1)


def test_a_crop_of_a_crop_is_itself():
    image = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    template = torch.tensor(TEMPLATE, dtype=torch.float64).expand(2, -1, -1)
    torch.testing.assert_close(face_crop(image, landmarks_at(template)), image, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size, placed", (
    (112, similarity(0.1, 0.6, 20, 22)), (256, similarity(-0.4, 1.6, 5, 75)), (350, similarity(0.0, 2.9, 8, 9)),
))
def test_landmarks_that_fit_the_template_exactly(size, placed):
    """Each pixel of the crop shows the place it came from, whatever the reduction."""
    points = torch.tensor(np.array(TEMPLATE) @ placed[:, :2].T + placed[:, 2])[None]
    crop = face_crop(coordinates(size), landmarks_at(points))[0].permute(1, 2, 0).numpy()
    expected = places_in_crop() @ placed.T
    inside = ((expected > 2) & (expected < size - 3)).all(-1)
    assert inside.mean() > 0.8
    assert np.abs(crop[..., :2] - expected)[inside].max() < 1e-9
    assert np.abs(crop[..., 2] - 1)[inside].max() < 1e-9


@pytest.mark.parametrize("mirrored", (False, True))
def test_landmarks_that_do_not_fit(mirrored):
    """The similarity is the least squares' in the crop's pixels; a mirrored face is not mirrored back."""
    rng = np.random.default_rng(4)
    points = np.array(TEMPLATE) * ([-2, 2] if mirrored else 2) + [240 * mirrored, 10] + rng.normal(0, 4, (5, 2))
    ones, zeros = np.ones(5), np.zeros(5)
    x, y = points.T  # u = a x - b y + c, v = b x + a y + d
    rows = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, c, d = np.linalg.lstsq(rows, np.array(TEMPLATE).T.ravel(), rcond=None)[0]
    back = np.linalg.inv([[a, -b, c], [b, a, d], [0, 0, 1]])[:2]
    size = 900 if mirrored else 260  # points that fit badly lie in a small part of a large crop
    shift = np.array([300.0, 300.0]) * mirrored
    crop = face_crop(coordinates(size), landmarks_at(torch.tensor(points + shift)[None]))[0].permute(1, 2, 0).numpy()
    expected = places_in_crop() @ back.T + shift
    inside = ((expected > 20) & (expected < size - 21)).all(-1)  # the means of some samples lie across the border
    assert inside.mean() > 0.5
    assert np.abs(crop[..., :2] - expected)[inside].max() < 1e-8


def test_fine_stripes_do_not_turn_into_coarse_ones():
    """Stripes a pixel wide, seen at 1 : 2, are grey."""
    stripes = (torch.arange(256) % 2).double().expand(1, 3, 256, 256)
    for offset in (0.0, 0.3, 0.5):
        points = torch.tensor(TEMPLATE, dtype=torch.float64)[None] * 2 + 10 + offset
        assert (face_crop(stripes, landmarks_at(points)) - 0.5).abs().max() < 0.06


def test_outside_the_image_it_is_black():
    points = torch.tensor(TEMPLATE)[None] - torch.tensor([56.0, 0.0])
    crop = face_crop(torch.ones(1, 3, 112, 112), landmarks_at(points))
    assert crop[..., :55].abs().max() == 0 and (crop[..., 57:] - 1).abs().max() < 1e-5


def test_landmarks_in_one_place_give_no_nan():
    image = torch.rand(1, 3, 130, 130)
    landmarks = torch.full((1, 68, 2), 40.0, requires_grad=True)
    crop = face_crop(image, landmarks)
    crop.sum().backward()
    assert torch.equal(crop, image[:, :, 40:41, 40:41].expand_as(crop)) and landmarks.grad.isfinite().all()


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    points = torch.tensor(TEMPLATE, dtype=torch.float64) / 8 + torch.rand(2, 5, 2, dtype=torch.float64,
                                                                          generator=generator)
    landmarks = landmarks_at(points).requires_grad_()
    assert torch.autograd.gradcheck(face_crop, (image, landmarks), fast_mode=True)
    weights = torch.rand(2, 3, 112, 112, dtype=torch.float64, generator=generator)
    used = [30, 36, 41, 47, 48, 54]

    def weighted(moved):
        return (weights * face_crop(image.detach(), landmarks.detach().index_copy(1, torch.tensor(used), moved))).sum()

    assert torch.autograd.gradcheck(weighted, landmarks.detach()[:, used].requires_grad_())
