import math

import pytest
import torch
import torch.nn.functional as F

from model.texture_losses import (
    _BestSimilarity, adversarial_loss, contextual_loss, discriminator_loss, draw_points, layer_points,
    reconstruction_loss,
)


def every_point(features):
    return [torch.arange(values[0, 0].numel()) for values in features]


def plain_contextual(ours, theirs, h=0.5, eps=1e-3):
    """Mechrez et al., Eq. (1) to (5), one number at a time: (C, N) lists of points."""
    centre = theirs.mean(1)
    count_i, count_j = ours.shape[1], theirs.shape[1]
    distance = [[0.0] * count_j for _ in range(count_i)]
    for i in range(count_i):
        for j in range(count_j):
            a, b = ours[:, i] - centre, theirs[:, j] - centre
            distance[i][j] = 1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
    similarity = []
    for row in distance:
        w = [math.exp((1 - d / (min(row) + eps)) / h) for d in row]
        similarity.append([value / sum(w) for value in w])
    return -math.log(sum(max(similarity[i][j] for i in range(count_i)) for j in range(count_j)) / count_j)


def test_contextual_loss_is_that_of_its_definition():
    torch.manual_seed(0)
    ours = [torch.randn(3, 7, 4, 4), torch.randn(3, 5, 3, 3)]
    theirs = [torch.randn(3, 7, 4, 4) + 1, torch.randn(3, 5, 3, 3) * 4]
    points = [torch.tensor([0, 3, 4, 5, 9, 14]), torch.arange(9)]
    expected = [
        sum(plain_contextual(a.flatten(1)[:, chosen].double(), b.flatten(1)[:, chosen].double()) for a, b in zip(x, y))
        for x, y, chosen in zip(ours, theirs, points)
    ]
    assert float(contextual_loss(ours, theirs, points)) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_contextual_gradient():
    torch.manual_seed(1)
    theirs = [torch.randn(2, 4, 3, 3)]
    ours = [torch.randn(2, 4, 3, 3, requires_grad=True)]

    def loss_of(values):  # in float64, without the loss's own float32
        centre = theirs[0].double().flatten(2).mean(2, keepdim=True)
        x, y = values.flatten(2) - centre, theirs[0].double().flatten(2) - centre
        distance = 1 - F.normalize(x, dim=1).transpose(1, 2) @ F.normalize(y, dim=1)
        w = torch.exp((1 - distance / (distance.amin(2, keepdim=True) + 1e-3)) / 0.5)
        return -(w / w.sum(2, keepdim=True)).amax(1).mean(1).log().mean()

    contextual_loss(ours, theirs, every_point(ours)).backward()
    exact = ours[0].detach().double().requires_grad_()
    loss_of(exact).backward()
    torch.testing.assert_close(ours[0].grad.double(), exact.grad, rtol=1e-4, atol=1e-6)
    normal = [F.normalize(values.detach().flatten(2).mT, dim=2) for values in (exact, theirs[0].double())]
    assert torch.autograd.gradcheck(_BestSimilarity.apply, (normal[0].requires_grad_(), normal[1]))


def test_contextual_loss_in_chunks(monkeypatch):
    torch.manual_seed(2)
    ours, theirs = torch.randn(5, 4, 6, 6), torch.randn(5, 4, 6, 6)
    whole = contextual_loss([ours], [theirs], every_point([ours]))
    monkeypatch.setattr("model.texture_losses._CHUNK", 2 * 36**2)
    assert float(contextual_loss([ours], [theirs], every_point([ours]))) == pytest.approx(float(whole), rel=1e-6)


def test_contextual_loss_looks_for_the_same_things_anywhere():
    torch.manual_seed(3)
    theirs = torch.randn(1, 32, 8, 8)
    shuffled = theirs.flatten(2)[:, :, torch.randperm(64)].view(theirs.shape)
    points = every_point([theirs])
    assert float(contextual_loss([theirs], [theirs], points)) < 1e-4
    assert float(contextual_loss([shuffled], [theirs], points)) < 1e-4
    assert float(contextual_loss([torch.randn(1, 32, 8, 8)], [theirs], points)) > 1
    # of the same things twice and of the others none
    half = torch.cat([theirs[..., :4, :], theirs[..., :4, :]], 2)
    assert 0.5 < float(contextual_loss([half], [theirs], points)) < 1


def test_only_the_generated_map_has_a_gradient():
    ours, theirs = (torch.randn(1, 4, 4, 4, requires_grad=True) for _ in range(2))
    contextual_loss([ours], [theirs], every_point([ours])).backward()
    assert theirs.grad is None and ours.grad.abs().max() > 0


def test_bfloat16_features_do():
    """What mixed precision gives: the loss is off by less than a hundredth, its gradient points the same way."""
    torch.manual_seed(4)
    theirs = F.relu(torch.randn(2, 64, 16, 16))
    ours = (theirs + 0.3 * torch.randn_like(theirs)).relu()
    values, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        x = ours.clone().requires_grad_()
        loss = contextual_loss([x.to(dtype)], [theirs.to(dtype)], every_point([x]))
        loss.backward()
        values.append(loss.item())
        gradients.append(x.grad.flatten())
    assert values[1] == pytest.approx(values[0], rel=0.01)
    assert F.cosine_similarity(*gradients, dim=0) > 0.99


def test_points_lie_in_the_chart_and_repeat():
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[3:, 5:] = True
    whole, half, quarter = layer_points(mask, (16, 8, 4))
    assert torch.equal(whole, mask.flatten().nonzero()[:, 0])
    rows, columns = half // 8, half % 8
    # all but the corner, of whose four texels one is in the chart
    expected = {(r, c) for r in range(1, 8) for c in range(2, 8)} - {(1, 2)}
    assert set(zip(rows.tolist(), columns.tolist())) == expected
    # the places of the first row and column stand for 1 of 4 rows and 3 of 4 columns
    assert set(quarter.tolist()) == {4 * r + c for r in range(1, 4) for c in range(1, 4)}
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    drawn = [draw_points([whole, quarter], generator, most=20) for generator in generators]
    for chosen in drawn:
        assert len(set(chosen[0].tolist())) == 20 and set(chosen[0].tolist()) <= set(whole.tolist())
        assert torch.equal(chosen[1], quarter)
    assert torch.equal(drawn[0][0], drawn[1][0]) and not torch.equal(drawn[0][0], drawn[2][0])


def test_reconstruction_loss_by_hand():
    albedo = torch.full((2, 3, 2, 2), 0.5)
    generated = albedo.clone()
    visible = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    inside = torch.ones(2, 1, 2, 2, dtype=torch.bool)
    visible[:, :, 0] = True
    inside[:, :, 1, 1] = False
    generated[0, 0, 0, 0] += 3 / 255  # seen: weight 1
    generated[1, 2, 1, 0] -= 5 / 255  # filled: weight 0.2
    generated[1, :, 1, 1] = 0.9  # outside: nothing
    expected = (9 + 0.2 * 25) / 3 / (2 * (2 + 0.2))
    found = reconstruction_loss(generated, albedo, visible, inside, 0.2)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(reconstruction_loss(albedo, albedo, visible, inside, 0.2)) == 0
    # all levels off by ten, all texels seen: the mean square of Eq. (15) in 8-bit levels
    everything = torch.ones_like(visible)
    assert float(reconstruction_loss(albedo + 10 / 255, albedo, everything, everything, 0.2)) == pytest.approx(100)


def test_adversarial_losses_by_hand():
    real, generated = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    d_real, d_generated = torch.sigmoid(real), torch.sigmoid(generated)
    assert float(discriminator_loss(real, generated)) == pytest.approx(
        -(d_real.log().mean() + (1 - d_generated).log().mean()).item() / 2, rel=1e-6
    )
    assert float(adversarial_loss(generated)) == pytest.approx(-d_generated.log().mean().item(), rel=1e-6)
    assert float(discriminator_loss(torch.zeros(3), torch.zeros(3))) == pytest.approx(math.log(2))
    sure = torch.tensor([-40.0], requires_grad=True)  # does not saturate
    adversarial_loss(sure).backward()
    assert float(sure.grad) == pytest.approx(-1)


@pytest.mark.parametrize("dtype, wanted", ((torch.bfloat16, "high"), (torch.float32, "highest")))
def test_only_coarse_features_are_compared_on_tensor_cores(monkeypatch, dtype, wanted):
    """And the precision of what is computed next, such as vertices on the screen, is as before."""
    seen, before = [], torch.get_float32_matmul_precision()
    product = torch.Tensor.__matmul__

    def watched(a, b):
        seen.append(torch.get_float32_matmul_precision())
        return product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    layers = [torch.randn(1, 3, 4, 4, dtype=dtype) for _ in range(2)]
    contextual_loss(layers[:1], layers[1:], [torch.arange(16)])
    assert seen == [wanted] * 2 and torch.get_float32_matmul_precision() == before
