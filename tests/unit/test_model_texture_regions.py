"""SSRPM and SRSM against the formulas written out, with an n-fold copy of the features."""

import pytest
import torch
import torch.nn.functional as F

from model.regions import (
    EPSILON, RegionModulation, SharedRegions, adaptive_instance_norm, region_statistics, region_stylise
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(count=2, channels=3, regions=4, height=5, width=6):
    """Content, region maps, alpha, beta, in float64 and with gradients."""
    tensors = (
        draw(count, channels, height, width) * 2 + 1, (2 * draw(count, regions, height, width, seed=1)).softmax(1),
        draw(count, regions, channels, seed=2), draw(count, regions, channels, seed=3),
    )
    return [tensor.requires_grad_() for tensor in tensors]


def direct_statistics(features, regions, whole_map):
    """mu and sigma as written: from the n-fold copy of the features, (B, n, C, h, w)."""
    copies = features[:, None].expand(-1, regions.shape[1], -1, -1, -1)
    if whole_map:
        masked = copies * regions[:, :, None]  # Eq. (13)
        return masked.mean((3, 4)), (masked.var((3, 4), correction=0) + EPSILON).sqrt()
    weights = (regions / regions.sum((2, 3), keepdim=True))[:, :, None]
    mean = (weights * copies).sum((3, 4))
    variance = (weights * (copies - mean[..., None, None]).square()).sum((3, 4))
    return mean, (variance + EPSILON).sqrt()


def direct_stylise(content, regions, alpha, beta, whole_map):
    mean, stddev = (part[..., None, None] for part in direct_statistics(content, regions, whole_map))
    alpha, beta = alpha[..., None, None], beta[..., None, None]
    return (((content[:, None] - mean) / stddev * beta + alpha) * regions[:, :, None]).sum(1)


@pytest.mark.parametrize("whole_map", (False, True))
def test_stylisation_and_its_gradients_are_those_of_equations_13_and_14(whole_map):
    tensors = inputs()
    fast, direct = (function(*tensors, whole_map) for function in (region_stylise, direct_stylise))
    assert torch.allclose(fast, direct, rtol=0, atol=1e-12)
    weights = draw(*fast.shape, seed=4)
    pairs = zip(*(torch.autograd.grad((result * weights).sum(), tensors) for result in (fast, direct)))
    for mine, theirs in pairs:
        assert theirs.abs().max() > 0.01
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("whole_map", (False, True))
def test_gradcheck(whole_map):
    assert torch.autograd.gradcheck(lambda *tensors: region_stylise(*tensors, whole_map), inputs(1, 2, 3, 3, 2))


@pytest.mark.parametrize("whole_map", (False, True))
def test_modulation_averages_two_convolutions_of_the_masked_style_features(whole_map):
    style, regions, _, _ = inputs()
    modulation = RegionModulation(3).double()
    torch.manual_seed(0)
    for parameter in modulation.parameters():
        torch.nn.init.normal_(parameter)
    weights = regions if whole_map else regions / regions.mean((2, 3), keepdim=True)
    for values, layer in zip(modulation(style, regions, whole_map), (modulation.alpha, modulation.beta)):
        for region in range(regions.shape[1]):
            masked = style * weights[:, region, None]
            convolved = F.conv2d(masked, layer.weight[:, :, None, None], layer.bias)
            assert torch.allclose(values[:, region], convolved.mean((2, 3)), rtol=0, atol=1e-12)


def test_modulation_starts_from_the_style_of_each_region():
    style, regions, _, _ = inputs(channels=64)
    alpha, beta = RegionModulation(64).double()(style, regions)
    assert torch.allclose(alpha, region_statistics(style, regions)[0])
    assert (beta - 1).abs().max() < 0.8 and beta.std() > 0.01


def test_hard_regions_get_the_mean_and_deviation_asked_for():
    content, _, alpha, beta = inputs(height=20, width=20)
    regions = F.one_hot(torch.arange(400).reshape(20, 20) % 4).permute(2, 0, 1).expand(2, 4, 20, 20).double()
    result = region_stylise(content, regions, alpha, beta)
    for region in range(4):
        values = result[:, :, regions[0, region] == 1]
        assert torch.allclose(values.mean(2), alpha[:, region], atol=1e-9)
        assert torch.allclose(values.std(2, correction=0), beta[:, region].abs(), rtol=1e-4)


def test_adain_gives_the_content_the_mean_and_deviation_of_the_style():
    content, style = draw(2, 3, 8, 8) * 3 - 1, draw(2, 3, 8, 8, seed=1) * 0.5 + 4
    result = adaptive_instance_norm(content, style)
    assert torch.allclose(result.mean((2, 3)), style.mean((2, 3)), atol=1e-9)
    assert torch.allclose(result.std((2, 3)), style.std((2, 3)), rtol=1e-3)
    normal = F.instance_norm(content, eps=EPSILON)
    stddev = (style.var((2, 3), correction=0, keepdim=True) + EPSILON).sqrt()
    assert torch.allclose(result, normal * stddev + style.mean((2, 3), keepdim=True), atol=1e-12)


def test_a_region_that_vanishes_and_a_flat_map_give_no_nan():
    torch.manual_seed(0)
    values = torch.logspace(-2, 4, 40).view(1, 40, 1, 1)  # squares that don't cancel exactly
    content = values.expand(1, 40, 4, 4).clone().requires_grad_()
    regions = torch.stack([torch.zeros(4, 4), *torch.rand(3, 4, 4)])[None].requires_grad_()
    for whole_map in (False, True):
        result = region_stylise(content, regions, torch.ones(1, 4, 40), torch.ones(1, 4, 40), whole_map)
        assert result.isfinite().all()
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(result.sum(), (content, regions)))


@pytest.mark.parametrize("whole_map", (False, True))
def test_statistics_keep_full_precision_under_autocast(whole_map):
    features = 50 + draw(2, 8, 16, 16).float()  # in bfloat16 the variance would be lost between the squares
    regions = draw(2, 4, 16, 16, seed=1).float().softmax(1)
    alpha, beta = draw(2, 4, 8).float(), draw(2, 4, 8, seed=2).float()
    modulation = RegionModulation(8)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = (
            *region_statistics(features, regions, whole_map), *modulation(features, regions, whole_map),
            region_stylise(features, regions, alpha, beta, whole_map),
        )
    full = (
        *region_statistics(features, regions, whole_map), *modulation(features, regions, whole_map),
        region_stylise(features, regions, alpha, beta, whole_map),
    )
    for one, other in zip(mixed, full):
        assert one.dtype == torch.float32 and torch.equal(one, other)
    exact = direct_statistics(features.double(), regions.double(), whole_map)[1]
    assert torch.allclose(full[1].double(), exact, rtol=1e-2)
    half = region_stylise(features.bfloat16(), regions, alpha, beta, whole_map)
    assert half.dtype == torch.bfloat16
    rounded = region_stylise(features.bfloat16().float(), regions, alpha, beta, whole_map).bfloat16()
    assert torch.equal(half, rounded)


def test_nothing_that_backward_keeps_is_an_n_fold_copy():
    channels, regions = 24, 16
    tensors = inputs(1, channels, regions, 8, 8)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()), lambda _: None):
        region_stylise(*tensors)
    assert max(kept) == channels * 64


def shared_regions(**options):
    torch.manual_seed(0)
    return SharedRegions(6, 5, width=0.1, **options)


def test_regions_sum_to_one_and_differ():
    regions = shared_regions()(
        torch.randn(2, 6, 8, 8), torch.randn(2, 6, 8, 8), torch.rand(2, 3, 64, 64), torch.rand(2, 68, 16, 16)
    )
    assert regions.shape == (2, 5, 8, 8) and regions.min() > 0
    assert torch.allclose(regions.sum(1), torch.ones(2, 8, 8))
    assert regions.std(1).mean() > 0.05


def test_regions_are_equations_9_to_11():
    module = shared_regions().double()
    content, style = draw(2, 6, 8, 8), draw(2, 6, 8, 8, seed=1)
    image, heatmaps = draw(2, 3, 64, 64, seed=2), draw(2, 68, 16, 16, seed=3)
    assert module.guide_scale.item() == pytest.approx(1e-2)
    fused = F.relu(module.align_content(content) + module.align_style(style))
    guide = module.guide(torch.cat([heatmaps, F.avg_pool2d(image, 4)], 1))
    for k in (1e-2, 3.0):
        module.guide_scale.data.fill_(k)
        wanted = F.softmax(module.segment[1](fused) + k * guide, 1)
        assert torch.allclose(module(content, style, image, heatmaps), wanted.float(), atol=1e-6)


def test_k_and_the_landmark_branch_are_trained():
    module = shared_regions()
    regions = module(
        torch.randn(2, 6, 8, 8), torch.randn(2, 6, 8, 8), torch.rand(2, 3, 64, 64), torch.rand(2, 68, 16, 16)
    )
    (regions * torch.randn_like(regions)).sum().backward()
    assert [name for name, parameter in module.named_parameters() if not parameter.grad.any()] == []
    assert "guide_scale" in dict(module.named_parameters())


def test_without_the_landmark_branch_no_heatmaps_are_needed():
    module = shared_regions(landmark_branch=False)
    content, style, image = torch.randn(1, 6, 8, 8), torch.randn(1, 6, 8, 8), torch.rand(1, 3, 64, 64)
    assert torch.equal(module(content, style, image), module(content, style, image, torch.rand(1, 68, 16, 16)))
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"align_content", "align_style", "segment"}


@pytest.mark.parametrize("heatmaps", (None, torch.rand(1, 68, 8, 8)))
def test_missing_or_wrong_heatmaps(heatmaps):
    shape = None if heatmaps is None else (1, 68, 8, 8)
    with pytest.raises(ValueError) as error:
        shared_regions()(torch.randn(1, 6, 8, 8), torch.randn(1, 6, 8, 8), torch.rand(1, 3, 64, 64), heatmaps)
    assert f"heatmaps must have shape (1, 68, 16, 16), got {shape}; " in str(error.value)
