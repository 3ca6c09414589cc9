import math

import numpy as np
import pytest
import torch

from model.fusion_losses import (
    alignment_loss, compose, identity_loss, keep_loss, photometric_error, pixel_loss, spread,
)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    rendered = rng.uniform(-0.2, 1.3, (3, 3, 6, 5)).astype(np.float32)
    image, mask = rng.uniform(0, 1, (3, 3, 6, 5)).astype(np.float32), rng.uniform(size=(3, 1, 6, 5)) < 0.4
    return tuple(torch.tensor(array) for array in (rendered, image, mask))


def test_pixel_loss_from_its_definition(pictures):
    rendered, image, mask = (array.numpy().astype(np.float64) for array in pictures)
    total = 0.0
    for sample in range(3):
        for row in range(6):
            for column in range(5):
                difference = np.abs(rendered[sample, :, row, column] - image[sample, :, row, column]).sum()
                total += difference * mask[sample, 0, row, column]
    assert float(pixel_loss(*pictures)) == pytest.approx(255 * total / (3 * 3 * 6 * 5), rel=1e-5)


def test_pixel_loss_has_gradient_where_the_picture_is_too_bright(pictures):
    rendered, image, mask = pictures
    rendered.requires_grad_()
    pixel_loss(rendered, image, mask).backward()
    wanted = 255 / rendered.numel() * (rendered > image).float().mul(2).sub(1) * mask
    torch.testing.assert_close(rendered.grad, wanted.detach())
    assert (rendered > 1)[mask.expand_as(rendered)].any()


def test_photos_that_show_nothing_count_nothing(pictures):
    rendered, image, mask = pictures
    nowhere = torch.zeros_like(mask)
    assert pixel_loss(rendered, image, nowhere) == 0
    assert photometric_error(rendered, image, nowhere).isnan().all()
    nowhere[1] = mask[1]
    assert photometric_error(rendered, image, nowhere)[1] == photometric_error(rendered, image, mask)[1]


def test_photometric_error_is_of_the_picture_as_it_is_shown(pictures):
    rendered, image, mask = pictures
    found = photometric_error(*pictures)
    for sample in range(3):
        shown = rendered[sample].clip(0, 1).permute(1, 2, 0)[mask[sample, 0]]
        wanted = (shown - image[sample].permute(1, 2, 0)[mask[sample, 0]]).abs().mean()
        assert float(found[sample]) == pytest.approx(float(wanted), rel=1e-6)


def test_identity_loss_is_of_angles():
    a, b = torch.tensor([[3.0, 0, 0], [0, 2, 0]]), torch.tensor([[1.0, 1, 0], [0, -5, 0]])
    assert float(identity_loss(a, b)) == pytest.approx(((1 - math.cos(math.pi / 4)) + 2) / 2)
    assert float(identity_loss(a, 7 * a)) == pytest.approx(0, abs=1e-6)


def test_alignment_loss_counts_pixels_of_the_papers_images():
    points = torch.rand(2, 68, 2) * 64
    moved = points + torch.tensor([3.0, -4.0])
    assert float(alignment_loss(points, moved, 256)) == pytest.approx(5, rel=1e-5)
    assert float(alignment_loss(points, moved, 64)) == pytest.approx(20, rel=1e-5)
    moved[0] = points[0]
    assert float(alignment_loss(points, moved, 256)) == pytest.approx(2.5, rel=1e-5)


def test_keep_loss_is_the_mean_squared_distance():
    start = torch.zeros(2, 4, 3)
    vertices = start.clone()
    vertices[0, 1] = torch.tensor([1.0, 2, 2])
    assert float(keep_loss(vertices, start)) == pytest.approx(9 / 8)


def test_the_face_in_its_photo(pictures):
    rendered, image, mask = pictures
    found, inside = compose(rendered, image, mask), mask.expand_as(image)
    assert torch.equal(found[inside], rendered.clamp(0, 1)[inside]) and torch.equal(found[~inside], image[~inside])


def test_spread_is_the_distance_from_the_mean_face():
    points = torch.rand(5, 7, 3, dtype=torch.float64)
    squared = [(face - points.mean(0)).norm(dim=-1).square().mean() for face in points]
    assert float(spread(points)) == pytest.approx(math.sqrt(sum(squared) / 5))
    assert spread(points[:1].expand(4, -1, -1)) == 0


@pytest.mark.parametrize("loss, shape", (
    (lambda ours, theirs: pixel_loss(ours, theirs, torch.tensor([True, False]).view(1, 1, 1, 2)), (2, 3, 4, 2)),
    (identity_loss, (2, 5)), (lambda ours, theirs: alignment_loss(ours, theirs, 128), (2, 68, 2)),
    (keep_loss, (2, 4, 3)),
))
def test_gradients(monkeypatch, loss, shape):
    torch.manual_seed(0)
    ours, theirs = torch.rand(shape, dtype=torch.float64, requires_grad=True), torch.rand(shape, dtype=torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", lambda values: values)  # float32 is too coarse for finite differences
    assert torch.autograd.gradcheck(lambda values: loss(values, theirs), ours)
