import numpy as np
import pytest
import torch
from toy import toy_model

from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from model.geometry import GeometryStream, MultiTaskEncoder, denormalise_position, normalise_position


def test_shapes_and_names_of_the_paper():
    network = GeometryStream(size=256, width=1.0)
    assert network.encoder.channels == 512
    # VGG-16's convolutions have 14,714,688 numbers
    assert sum(p.numel() for p in network.encoder.parameters()) == 14_714_688
    convolutions = [m for m in network.identity_decoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [512, 512, 512, 512, 512, 256, 128, 64, 3]
    linear = [m for m in network.psn if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in linear] == [512, 199 + 9 + 3 + 3]


@pytest.mark.parametrize("size", (32, 128))
def test_forward(size):
    network = GeometryStream(albedo_modes=5, size=size, width=0.05, batch_norm=True)
    geometry = network(torch.rand(3, 3, size, size))
    assert geometry.identity_map.shape == geometry.expression_map.shape == (3, 3, size, size)
    assert geometry.identity_map.abs().max() < 1
    assert [values.shape[1] for values in geometry.parameters] == [5, 9, 3, 3]
    assert not torch.equal(geometry.identity_map, geometry.expression_map)


def test_parameters_alone_equal_those_of_the_whole():
    network = GeometryStream(albedo_modes=0, size=32, width=0.05).eval()
    image = torch.rand(2, 3, 32, 32)
    for alone, whole in zip(network.predict_parameters(image), network(image).parameters):
        assert torch.equal(alone, whole)


def test_an_untrained_decoder_gives_the_map_to_start_from():
    torch.manual_seed(0)
    network = GeometryStream(albedo_modes=4, size=32, width=0.2, batch_norm=True)
    start = torch.rand(3, 32, 32) * 1.8 - 0.9
    network.identity_decoder.start_from_(start)
    geometry = network(torch.rand(4, 3, 32, 32))
    assert (geometry.identity_map - start).abs().max() < 0.1
    assert geometry.expression_map.abs().max() < 0.1
    again = GeometryStream(albedo_modes=4, size=32, width=0.2, batch_norm=True)
    again.load_state_dict(network.state_dict())  # it is part of the weights
    assert torch.equal(again.identity_decoder.start, network.identity_decoder.start)


@pytest.fixture(scope="module")
def maps():
    model = toy_model()
    return AttributeMaps.from_model(model, make_chart(model, "cylindrical", 32))


@pytest.mark.parametrize("shape", ("dual", "single", "linear"))
def test_an_untrained_stream_gives_the_mean_face(maps, shape):
    torch.manual_seed(0)
    network = GeometryStream(albedo_modes=4, size=32, width=0.2, batch_norm=True, shape=shape, modes=(5, 3))
    network.start_from_(maps)
    geometry = network(torch.rand(4, 3, 32, 32))
    mean = torch.tensor(maps.mean_map)
    assert 0 < (geometry.identity_map - mean).abs().max() < 0.1
    assert geometry.expression_map.abs().max() < 0.1


def test_a_single_map_is_the_whole_face():
    network = GeometryStream(albedo_modes=4, size=32, width=0.05, shape="single")
    assert not any("expression" in name for name in network.state_dict())
    assert not network(torch.rand(1, 3, 32, 32)).expression_map.any()


def test_linear_maps_are_those_of_the_coefficients(maps):
    network = GeometryStream(albedo_modes=0, size=32, width=0.05, shape="linear", modes=(5, 3)).eval()
    network.start_from_(maps)
    again = GeometryStream(albedo_modes=0, size=32, width=0.05, shape="linear", modes=(5, 3)).eval()
    again.load_state_dict(network.state_dict())  # mean and bases are part of the weights
    seen, image = [], torch.rand(2, 3, 32, 32)
    again.linear_shape.layers[-1].weight.data.mul_(1000)
    again.linear_shape.layers.register_forward_hook(lambda _, __, coeffs: seen.append(coeffs.numpy()))
    with torch.no_grad():
        geometry = again(image)
    id_coeffs, exp_coeffs = np.split(seen[0], [5], 1)
    assert np.abs(seen[0]).max() > 0.5
    np.testing.assert_allclose(geometry.identity_map, maps.identity_map(id_coeffs), atol=1e-6)
    np.testing.assert_allclose(geometry.expression_map, maps.expression_map(exp_coeffs), atol=1e-6)


def test_a_wider_single_decoder_has_the_weights_of_two():
    def decoder_weights(**options) -> int:
        network = GeometryStream(albedo_modes=4, size=64, width=0.25, **options)
        return sum(p.numel() for name, p in network.named_parameters() if "decoder" in name)

    dual, single = decoder_weights(), decoder_weights(shape="single")
    assert single == dual / 2
    # not quite: the first layer's inputs are the features of the encoder, which stay as many
    assert 0.9 < decoder_weights(shape="single", decoder_width=2**0.5) / dual < 1


@pytest.mark.parametrize("shape", ("dual", "single", "linear"))
def test_every_weight_is_trained(maps, shape):
    network = GeometryStream(albedo_modes=4, size=32, width=0.05, batch_norm=True, shape=shape, modes=(5, 3))
    network.start_from_(maps)
    geometry = network(torch.rand(2, 3, 32, 32))
    outputs = (geometry.identity_map, geometry.expression_map, *geometry.parameters)
    sum((values * torch.randn_like(values)).sum() for values in outputs).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_wrong_sizes():
    with pytest.raises(ValueError, match="power of two from 16 to 256, got 100"):
        GeometryStream(size=100)
    with pytest.raises(ValueError, match=r"shape \(B, 3, 32, 32\), got \(1, 3, 64, 64\)"):
        GeometryStream(size=32, width=0.05)(torch.rand(1, 3, 64, 64))


def test_he_initialisation_keeps_the_scale_through_thirteen_layers():
    torch.manual_seed(0)
    encoder = MultiTaskEncoder(0.25)
    features = encoder.features(torch.randn(2, 3, 64, 64))
    assert 0.2 < features.square().mean().sqrt() < 5


def test_position_units():
    middle = torch.tensor([[63.5, 63.5, 128 / 200]])  # in the middle of a 128 px crop, 200 mm fill it
    assert torch.allclose(normalise_position(middle, 128), torch.zeros(1, 3), atol=1e-6)
    corner = torch.tensor([[-0.5, 127.5, 0.3]])
    assert torch.allclose(normalise_position(corner, 128)[0, :2], torch.tensor([-1.0, 1.0]))
    assert torch.allclose(denormalise_position(normalise_position(corner, 128), 128), corner)
    # the same face in a crop of twice the resolution
    double = torch.tensor([[-0.5, 255.5, 0.6]])
    assert torch.allclose(normalise_position(double, 256), normalise_position(corner, 128))


def test_maps_keep_full_precision_under_autocast():
    network = GeometryStream(albedo_modes=4, size=32, width=0.05)
    seen = {}
    for name, layer in {
        "first": network.encoder.features[0], "decoder": network.expression_decoder.layers[1],
        "map": network.expression_decoder.output, "psn": network.psn[-1],
    }.items():
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        geometry = network(torch.rand(2, 3, 32, 32))
    half, full = torch.bfloat16, torch.float32
    assert seen == {"first": half, "decoder": half, "map": full, "psn": full}
    assert geometry.identity_map.dtype == geometry.parameters.pose.dtype == full
