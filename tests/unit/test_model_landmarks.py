import pytest
import torch
import torch.nn.functional as F

from model.landmarks import LandmarkNetwork, landmark_heatmaps, landmarks_from_heatmaps
from model.metrics import landmark_errors
from model.train_landmarks import heatmap_loss


def reference_block(state, name, features):
    """FAN's residual block, from the paper's figure."""
    def norm(part, values):
        mean, var, weight, bias = (
            state[f"{name}.{part}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(values, mean, var, weight, bias))

    first = F.conv2d(norm("bn1", features), state[f"{name}.conv1.weight"], padding=1)
    second = F.conv2d(norm("bn2", first), state[f"{name}.conv2.weight"], padding=1)
    third = F.conv2d(norm("bn3", second), state[f"{name}.conv3.weight"], padding=1)
    if f"{name}.downsample.2.weight" in state:
        features = F.conv2d(norm("downsample.0", features), state[f"{name}.downsample.2.weight"])
    return torch.cat([first, second, third], 1) + features


def reference_hourglass(state, name, features, level=4):
    upper = reference_block(state, f"{name}.b1_{level}", features)
    lower = reference_block(state, f"{name}.b2_{level}", F.avg_pool2d(features, 2))
    if level > 1:
        lower = reference_hourglass(state, name, lower, level - 1)
    else:
        lower = reference_block(state, f"{name}.b2_plus_1", lower)
    lower = reference_block(state, f"{name}.b3_{level}", lower)
    return upper + lower.repeat_interleave(2, -1).repeat_interleave(2, -2)


def reference_fan(state, image, stacks):
    """FAN in evaluation mode, as a function of its published tensors."""
    def layer(name, values, **options):
        return F.conv2d(values, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def norm(name, values):
        parts = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(values, *parts))

    features = reference_block(state, "conv2", norm("bn1", layer("conv1", image, stride=2, padding=3)))
    features = reference_block(state, "conv3", F.avg_pool2d(features, 2))
    features = reference_block(state, "conv4", features)
    heatmaps = []
    for i in range(stacks):
        found = reference_block(state, f"top_m_{i}", reference_hourglass(state, f"m{i}", features))
        found = norm(f"bn_end{i}", layer(f"conv_last{i}", found))
        heatmaps.append(layer(f"l{i}", found))
        if i < stacks - 1:
            features = features + layer(f"bl{i}", found) + layer(f"al{i}", heatmaps[-1])
    return heatmaps


def shuffled(network, seed=0):
    """The network with every parameter and statistic drawn anew, so that none is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * (0.5 if value.ndim == 1 else 0.2) + (
                0.5 if key.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight")) else -0.1
            ))
    return network


def test_the_network_is_fan():
    network = shuffled(LandmarkNetwork(stacks=3, width=1 / 16)).double().eval()
    image = torch.rand(2, 3, 64, 128, dtype=torch.float64)
    found, wanted = network(image), reference_fan(network.state_dict(), image, 3)
    assert [heatmap.shape for heatmap in found] == [(2, 68, 16, 32)] * 3
    for mine, theirs in zip(found, wanted):
        assert theirs.std() > 1e-3
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


def test_sizes_of_fan():
    """Parameters counted by hand: each convolution's, and two a channel of each normalisation."""
    def block(i, o):
        own = i + o // 2 + o // 4  # normalised channels
        weights = 9 * (i * o // 2 + o // 2 * o // 4 + o // 4 * o // 4)
        return weights + 2 * own + (0 if i == o else i * o + 2 * i)

    stem = 3 * 64 * 49 + 64 + 2 * 64 + block(64, 128) + block(128, 128) + block(128, 256)
    stack = 13 * block(256, 256) + block(256, 256) + (256 * 256 + 256) + 2 * 256 + (256 * 68 + 68)
    between = (256 * 256 + 256) + (68 * 256 + 256)
    with torch.device("meta"):
        network = LandmarkNetwork()
    assert sum(value.numel() for value in network.parameters()) == stem + 4 * stack + 3 * between == 23_820_176


def test_every_parameter_has_a_gradient():
    network = LandmarkNetwork(stacks=2, width=1 / 16)
    heatmap_loss(network(torch.rand(2, 3, 64, 64)), torch.rand(2, 68, 16, 16)).backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in network.parameters())


@pytest.mark.parametrize("size", ((96, 96), (64, 100), (32, 64)))
def test_sides_that_cannot_be_halved_six_times(size):
    with pytest.raises(ValueError, match=rf"multiples of 64 pixels, got \({size[0]}, {size[1]}\)"):
        LandmarkNetwork(1, 1 / 16)(torch.zeros(1, 3, *size))
    with pytest.raises(ValueError, match="stacks must be from 1 to 16, got 0"):
        LandmarkNetwork(0)


def test_a_cell_is_the_mean_place_of_its_pixels():
    """Heatmaps are read where an image of the blob, reduced 4 x 4 by the mean, has it."""
    size, place = 64, torch.tensor([29.3, 40.6])
    pixels = torch.arange(size)
    across, down = (torch.exp(-(pixels - centre).square() / (2 * 16)) for centre in place)
    heatmap = F.avg_pool2d((down[:, None] * across)[None, None], 4)
    assert torch.allclose(landmarks_from_heatmaps(heatmap)[0, 0], place, atol=0.02)


def test_a_heatmap_is_a_gaussian_of_one_cell():
    heatmap = landmark_heatmaps(torch.tensor([[[4 * 5 + 1.5, 4 * 9 + 1.5 + 4]]]), 64)[0, 0]  # row 10, column 5
    assert heatmap.shape == (16, 16) and heatmap[10, 5] == 1
    assert heatmap[10, 6] == pytest.approx(2.718281828 ** -0.5)
    assert heatmap[8, 4] == pytest.approx(2.718281828 ** -2.5)


def test_places_between_the_cells_are_found():
    """A landmark moved by twentieths of a cell, over the whole crop and its border, comes back."""
    size = 64
    steps = torch.linspace(-0.499, size - 0.501, 321)
    landmarks = torch.stack([steps, steps.flip(0).roll(40)], -1)[None]
    assert torch.allclose(landmarks_from_heatmaps(landmark_heatmaps(landmarks, size)), landmarks, atol=1e-3)


def test_wider_blobs_and_low_ones_are_found_too():
    for deviation, height in ((0.7, 1), (1.75, 1), (1, 0.01), (1, 300)):
        across, down = (
            torch.exp(-(torch.arange(count) - place).square() / (2 * deviation**2))
            for count, place in ((40, 12.3), (24, 20.85))
        )
        found = landmarks_from_heatmaps(height * (down[:, None] * across)[None, None])[0, 0]
        assert torch.allclose(found, torch.tensor([12.3, 20.85]) * 4 + 1.5, atol=1e-3)


def test_noise_moves_a_landmark_little():
    """Less than half as far as with FAN's rule, a quarter of a cell toward the higher neighbour."""
    generator = torch.Generator().manual_seed(0)
    landmarks = torch.rand(200, 68, 2, generator=generator) * 100 + 14
    heatmaps = landmark_heatmaps(landmarks, 128)
    heatmaps += 0.05 * torch.randn(heatmaps.shape, generator=generator)
    assert (landmarks_from_heatmaps(heatmaps) - landmarks).norm(dim=-1).mean() < 0.28


def test_landmarks_outside_the_crop_have_no_heatmap():
    inside = torch.tensor([[-0.49, 5], [63.49, 5], [5, -0.49], [5, 63.49]])
    outside = torch.tensor([[-0.51, 5], [63.51, 5], [5, -0.51], [5, 63.51]])
    assert (landmark_heatmaps(inside[None], 64).amax((2, 3)) > 0.85).all()
    assert (landmark_heatmaps(outside[None], 64) == 0).all()


@pytest.mark.parametrize("value", (0.0, -1.0, 0.3))
def test_flat_heatmaps_give_finite_places_and_gradients(value):
    heatmaps = torch.full((1, 2, 8, 8), value, requires_grad=True)
    found = landmarks_from_heatmaps(heatmaps)
    found.sum().backward()
    assert found.isfinite().all() and heatmaps.grad.isfinite().all()
    assert (found >= -0.5).all() and (found <= 31.5).all()


def test_places_are_differentiable():
    landmarks = torch.tensor([[[13.3, 20.1], [-0.2, 31.4]]], dtype=torch.float64)
    heatmaps = landmark_heatmaps(landmarks, 32).requires_grad_()
    assert torch.autograd.gradcheck(landmarks_from_heatmaps, (heatmaps,))


def test_half_precision_is_read_in_single():
    landmarks = torch.tensor([[[101.3, 220.1]]])
    found = landmarks_from_heatmaps(landmark_heatmaps(landmarks, 256).bfloat16())
    assert found.dtype == torch.float32 and torch.allclose(found, landmarks, atol=0.1)


def test_the_loss_of_empty_heatmaps_is_one_a_stack():
    truth = landmark_heatmaps(torch.full((2, 68, 2), 60.3), 128)
    assert heatmap_loss([torch.zeros_like(truth)] * 3, truth).item() == pytest.approx(3, rel=1e-4)
    assert heatmap_loss([truth, truth], truth) == 0
    moved = truth.clone()
    moved[0, 5, 3, 4] += 2
    assert heatmap_loss([truth, moved], truth).item() == pytest.approx(4 / (2 * 68) / torch.pi)


def test_an_untrained_network_starts_near_empty_heatmaps():
    torch.manual_seed(0)
    heatmaps = LandmarkNetwork(2, 1 / 8)(torch.rand(2, 3, 64, 64))
    assert all(0 < heatmap.abs().max() < 0.2 for heatmap in heatmaps)


def test_errors_in_percent_of_the_box():
    truth = torch.zeros(2, 68, 2)
    truth[0, 0], truth[1, 3] = torch.tensor([40.0, 10.0]), torch.tensor([-9.0, 16.0])  # boxes of 40 x 10 and 9 x 16
    predicted = truth + torch.tensor([3.0, 4.0])
    predicted[1, 34:] = truth[1, 34:]
    errors = landmark_errors(predicted, truth)
    assert errors["landmark_pixels"].tolist() == [5, 2.5]
    assert errors["landmark_percent"].tolist() == pytest.approx([25, 100 * 2.5 / 12])
