"""What a step of fusion makes of the networks that it does not train."""

import pytest
import torch
from torch import nn

from model.geometry import GeometryStream
from model.identity import IdentityNetwork
from model.landmarks import LandmarkNetwork
from model.train_fusion import rounded

NETWORKS = {
    "start": (lambda: GeometryStream(5, 32, 0.1, batch_norm=True), 32, lambda made: made.identity_map),
    "landmarks": (lambda: LandmarkNetwork(2, 0.1), 64, lambda made: made[-1]),
    "identity": (lambda: IdentityNetwork((1, 1, 1, 1), 0.1), 112, lambda made: made),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rounded_network_gives_under_autocast_what_the_network_does(name):
    make, size, result = NETWORKS[name]
    torch.manual_seed(0)
    network = make().eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    photo, ours, gradients = torch.rand(2, 3, size, size), [], []
    with torch.autocast("cpu", torch.bfloat16):
        for one in (network, rounded(network)):
            image = photo.clone().requires_grad_()
            ours.append(result(one(image)))
            gradients.append(torch.autograd.grad(ours[-1].float().square().sum(), image)[0])
    assert torch.equal(*ours) and torch.equal(*gradients)
    assert not torch.equal(ours[0], result(network(photo)))  # autocast matters
    assert gradients[0].any()
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) and value.dtype == after[key].dtype for key, value in before.items())


def test_what_is_rounded_is_rounded_once():
    """Autocast has nothing left to do but for the layers whose weights are mixed first."""
    plain = [layer for layer in rounded(LandmarkNetwork(1, 0.1)).modules() if isinstance(layer, nn.Conv2d)]
    assert {layer.weight.dtype for layer in plain} == {torch.bfloat16}
    norms = [layer for layer in rounded(LandmarkNetwork(1, 0.1)).modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {layer.weight.dtype for layer in norms} == {torch.float32}
