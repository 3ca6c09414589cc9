import pytest
import torch

from model.regions import adaptive_instance_norm, region_stylise
from model.texture import MID_LEVEL, STYLISATIONS, PatchDiscriminator, TextureStream


def inputs(size: int, count: int = 2):
    """I_u, I_o and heatmaps."""
    generator = torch.Generator().manual_seed(0)
    shapes = (count, 3, size, size), (count, 3, size, size), (count, 68, size // 4, size // 4)
    return [torch.rand(shape, generator=generator) for shape in shapes]


def stream(size: int = 32, width: float = 0.05, **options) -> TextureStream:
    torch.manual_seed(0)
    return TextureStream(size=size, width=width, **options)


def convolutions(module: torch.nn.Module) -> list[torch.nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]


def test_layers_of_the_paper():
    network = TextureStream()
    down, style, up = (
        [layer.out_channels for layer in convolutions(part)]
        for part in (network.content_encoder, network.style_encoder, network.decoder)
    )
    assert down == [64, 128, 256, 512, 512, 512, 512, 512] and style == [64, 128, 256]
    assert up == [512, 512, 512, 512, 256, 128, 64, 64]
    assert all(c.kernel_size == (4, 4) and c.stride == (2, 2) for c in convolutions(network.content_encoder))
    # batch normalisation follows all but the first layer down and the one that ends in a single texel
    for part, normalised in ((network.content_encoder, range(1, 7)), (network.style_encoder, range(1, 3))):
        last = [type(layer[-1]) for layer in part]
        assert [place for place, kind in enumerate(last) if kind is torch.nn.BatchNorm2d] == [*normalised]
    assert network.shared_regions.segment[1].out_channels == 16
    made = network.eval().stylise(*inputs(256, 1))
    assert made.albedo_map.shape == (1, 3, 256, 256) and made.regions.shape == (1, 16, 32, 32)
    assert made.features.shape == made.content.shape == made.style.shape == (1, 256, 32, 32)


@pytest.mark.parametrize("size", (16, 32, 64, 128))
@pytest.mark.parametrize("options", (
    {"width": 0.1}, {"width": 0.02, "regions": 3}, {"stylisation": "adain"}, {"stylisation": "transform"},
    {"skips": False, "whole_map": True},
), ids=str)
def test_forward(size, options):
    network, given = stream(size, **options), inputs(size)
    made = network.stylise(*given)
    assert made.albedo_map.shape == (2, 3, size, size) and made.albedo_map.dtype == torch.float32
    assert made.albedo_map.min() > 0 and made.albedo_map.max() < 1
    if network.stylisation == "srsm":
        assert made.regions.shape == (2, options.get("regions", 16), size // 8, size // 8)
        assert torch.allclose(made.regions.sum(1), torch.ones(2, size // 8, size // 8))
    else:
        assert made.regions is None
    assert torch.equal(network.eval()(*given), network.stylise(*given).albedo_map)


def test_the_untrained_stream_returns_the_linear_albedo():
    linear_albedo, image, heatmaps = inputs(64)
    for stylisation in STYLISATIONS:
        albedo_map = stream(64, stylisation=stylisation)(linear_albedo, image, heatmaps)
        assert (albedo_map - linear_albedo).abs().mean() < 0.01
    assert (stream(64, skips=False)(linear_albedo, image, heatmaps) - 0.5).abs().max() < 0.1
    # also at texels that are black, where it is not stuck
    black = torch.zeros_like(linear_albedo).requires_grad_()
    network = stream(64)
    albedo_map = network(black, image, heatmaps)
    assert albedo_map.max() < 0.03
    (gradient,) = torch.autograd.grad(albedo_map.sum(), network.output[1].bias)
    assert gradient.min() > 0.01 * 2 * 64 * 64


@pytest.mark.parametrize("skips", (True, False))
@pytest.mark.parametrize("size", (32, 64))
def test_each_skip_adds_level_l_to_level_h_minus_l(size, skips):
    network, seen = stream(size, skips=skips).eval(), {}
    for place, layer in enumerate(network.content_encoder):
        layer.register_forward_hook(lambda _, __, output, place=place: seen.update({("down", place): output}))
    for place, layer in enumerate([*network.decoder, network.output]):
        layer.register_forward_hook(
            lambda _, given, output, place=place: seen.update({("into", place): given[0], ("up", place): output})
        )
    given = inputs(size)
    with torch.no_grad():
        made = network.stylise(*given)
    seen["down", MID_LEVEL - 1] = made.features  # the stylised features are the skip of their level
    depth = len(network.content_encoder)
    assert torch.equal(seen["into", 0], seen["down", depth - 1])
    for place in range(1, depth):
        skipped = seen["down", depth - 1 - place] if skips else 0
        assert torch.equal(seen["into", place], seen["up", place - 1] + skipped)
        assert not skips or skipped.abs().max() > 0.1
    assert torch.equal(seen["into", depth], seen["up", depth - 1])
    start = torch.logit(given[0], 0.02) if skips else 0
    assert torch.allclose(made.albedo_map, torch.sigmoid(seen["up", depth] + start))


@pytest.mark.parametrize("stylisation, whole_map", [("srsm", True), *((name, False) for name in STYLISATIONS)])
def test_the_middle_is_stylised(stylisation, whole_map):
    network = stream(stylisation=stylisation, whole_map=whole_map).eval()
    linear_albedo, image, heatmaps = inputs(32)
    made = network.stylise(linear_albedo, image, heatmaps)
    if stylisation == "srsm":
        assert torch.equal(made.regions, network.shared_regions(made.content, made.style, 2 * image - 1, heatmaps))
        alpha, beta = network.modulation(made.style, made.regions, whole_map)
        wanted = region_stylise(made.content, made.regions, alpha, beta, whole_map)
    elif stylisation == "adain":
        wanted = adaptive_instance_norm(made.content, made.style)
    else:
        wanted = network.transform(torch.cat([made.content, made.style], 1))
    assert torch.allclose(made.features, wanted, atol=1e-6)
    assert hasattr(network, "shared_regions") == (stylisation == "srsm")
    assert torch.equal(made.content, torch.nn.Sequential(*network.content_encoder[:3])(2 * linear_albedo - 1))
    assert torch.equal(made.style, network.style_encoder(2 * image - 1))
    assert not {*network.style_encoder.parameters()} & {*network.content_encoder.parameters()}


@pytest.mark.parametrize("options", (
    {}, {"stylisation": "adain"}, {"stylisation": "transform"}, {"skips": False}, {"landmark_branch": False},
    {"whole_map": True},
), ids=str)
def test_every_weight_is_trained(options):
    network = stream(64, 0.1, **options)
    albedo_map = network(*inputs(64))
    (albedo_map * torch.randn_like(albedo_map)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_heatmaps_are_needed_by_the_landmark_branch_only():
    linear_albedo, image, heatmaps = inputs(32)
    network = stream()
    assert network.uses_heatmaps
    with pytest.raises(ValueError, match=r"heatmaps must have shape \(2, 68, 8, 8\), got None"):
        network(linear_albedo, image)
    for options in ({"landmark_branch": False}, {"stylisation": "adain"}, {"stylisation": "transform"}):
        network = stream(**options).eval()
        assert not network.uses_heatmaps
        assert torch.equal(network(linear_albedo, image), network(linear_albedo, image, heatmaps))


def test_wrong_arguments():
    for size in (8, 48, 512):
        with pytest.raises(ValueError, match=f"size must be a power of two from 16 to 256, got {size}"):
            TextureStream(size=size)
    with pytest.raises(ValueError, match="stylisation must be one of srsm, adain, transform, got 'spade'"):
        TextureStream(stylisation="spade")
    linear_albedo, image, heatmaps = inputs(32)
    with pytest.raises(ValueError, match=r"image must have shape \(B, 3, 32, 32\), got \(2, 3, 16, 16\)"):
        stream()(linear_albedo, image[..., ::2, ::2], heatmaps)
    with pytest.raises(ValueError, match=r"linear_albedo must have shape \(B, 3, 32, 32\), got \(2, 1, 32, 32\)"):
        stream()(linear_albedo[:, :1], image, heatmaps)


def test_output_keeps_full_precision_under_autocast():
    network, seen = stream(64), {}
    for name, layer in {"down": network.content_encoder[1], "up": network.decoder[-1], "out": network.output}.items():
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.dtype}))
    given = inputs(64)
    with torch.autocast("cpu", torch.bfloat16):
        made = network.stylise(*given)
    assert seen["down"] == made.features.dtype == torch.bfloat16
    assert seen["out"] == made.albedo_map.dtype == made.regions.dtype == torch.float32
    assert (made.albedo_map - network(*given)).abs().max() < 0.05


def kept_bytes(network: TextureStream, given) -> int:
    """What the forward pass keeps for backward, each storage once."""
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = network(*given)
        assert made.requires_grad
    return sum(storages.values())


def test_sixteen_regions_keep_at_most_1_3_times_what_adain_keeps():
    given = inputs(128)
    adain, srsm = (
        kept_bytes(stream(128, 0.5, stylisation=name), given) for name in ("adain", "srsm")
    )
    assert adain < srsm < 1.3 * adain


def test_discriminator_judges_patches_of_70_texels():
    torch.manual_seed(0)
    network = PatchDiscriminator(0.1).eval()
    albedo_map = torch.rand(1, 3, 256, 256, requires_grad=True)
    logits = network(albedo_map)
    assert logits.shape == (1, 1, 30, 30)
    (gradient,) = torch.autograd.grad(logits[0, 0, 15, 12], albedo_map)
    rows, columns = gradient.abs().sum((0, 1)).nonzero().T
    # the patch of logit 15, 12 begins 8 texels a logit further on, 23 before the padding
    assert (rows.min(), rows.max()) == (15 * 8 - 23, 15 * 8 - 23 + 69)
    assert (columns.min(), columns.max()) == (12 * 8 - 23, 12 * 8 - 23 + 69)


def test_discriminator_of_pix2pix():
    network = PatchDiscriminator()
    assert [c.out_channels for c in convolutions(network)] == [64, 128, 256, 512, 1]
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.layers) == 3
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []
