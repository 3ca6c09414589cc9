"""What befalls training crops: each harm alone, by hand; chance; devices."""

import pytest
import torch

from model.augment import draw_changes
from model.config import Augmentation
from model.corrupt import COVERS, Corruption, draw_corruption


def harmless(count: int = 2, **changed) -> Corruption:
    """A corruption that does nothing but what is `changed`."""
    none = torch.zeros(count, 1, 1, 1)
    return Corruption(**{
        "covers": torch.zeros(count, COVERS, 7), "probability": 0.0, "grey": none, "gamma": none + 1, "blur": none,
        "noise": none, "noise_seed": 0, **changed,
    })


def crops(count: int = 2, size: int = 32) -> torch.Tensor:
    return 0.1 + 0.8 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_nothing_happens_with_probability_0():
    image = crops()
    kept = image.clone()
    drawn = draw_corruption(2, 0.0, torch.Generator().manual_seed(1), image.device)
    torch.testing.assert_close(drawn.apply(image), image)
    torch.testing.assert_close(image, kept, rtol=0, atol=0)


def test_grey_is_the_luminance_in_every_channel():
    image = crops()
    grey = harmless(grey=torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)).apply(image)
    luminance = 0.299 * image[0, 0] + 0.587 * image[0, 1] + 0.114 * image[0, 2]
    torch.testing.assert_close(grey[0], luminance.expand(3, -1, -1))
    torch.testing.assert_close(grey[1], image[1])


def test_gamma_blur_and_noise_have_their_amounts():
    image = crops()
    torch.testing.assert_close(harmless(gamma=torch.full((2, 1, 1, 1), 1.4)).apply(image), image**1.4)
    flat = torch.full((2, 3, 32, 32), 0.5)
    torch.testing.assert_close(harmless(blur=torch.ones(2, 1, 1, 1)).apply(flat), flat)
    sharp = crops()
    assert harmless(blur=torch.ones(2, 1, 1, 1)).apply(sharp).std() < 0.3 * sharp.std()
    noisy = harmless(noise=torch.tensor([0.05, 0.0]).view(2, 1, 1, 1)).apply(flat)
    assert noisy[0].sub(0.5).std() == pytest.approx(0.05, rel=0.1)
    assert (noisy[0, 0] == noisy[0, 1]).all(), "noise is grey"
    torch.testing.assert_close(noisy[1], flat[1])


def test_a_cover_is_an_ellipse_of_the_other_crop_upside_down():
    image = crops(size=64)
    covers = torch.zeros(2, COVERS, 7)
    covers[:, :, 0] = 0.9  # absent
    covers[0, 0] = torch.tensor([0.0, 0.5, 0.5, 0.4, 0.4, 0.0, 0.999])  # radii 0.19 and 0.15 of the side
    shown = harmless(covers=covers, probability=0.5).apply(image)
    torch.testing.assert_close(shown[1], image[1])
    torch.testing.assert_close(shown[0, :, 32, 32], image[1].flip(-2)[:, 32, 32], rtol=0, atol=1e-3)
    torch.testing.assert_close(shown[0, :, 2, 2], image[0, :, 2, 2], rtol=0, atol=1e-3)
    changed = ((shown[0] - image[0]).abs().amax(0) > 0.5 * (image[1].flip(-2) - image[0]).abs().amax(0)).sum()
    assert changed == pytest.approx(torch.pi * 0.19 * 0.15 * 64**2, rel=0.05)


def test_each_harm_comes_as_often_as_it_should_and_alone():
    drawn = draw_corruption(40_000, 0.3, torch.Generator().manual_seed(0), torch.device("cpu"))
    happened = torch.stack([drawn.grey, drawn.gamma - 1, drawn.blur, drawn.noise]).flatten(1) != 0
    torch.testing.assert_close(happened.float().mean(1), torch.full((4,), 0.3), rtol=0, atol=0.01)
    torch.testing.assert_close(torch.corrcoef(happened.float()), torch.eye(4), rtol=0, atol=0.02)
    assert 0.6 < drawn.gamma.min() < 0.62 and 1.63 < drawn.gamma.max() < 1.65


def test_the_same_numbers_make_the_same_picture_and_leave_the_other_changes_alone():
    image = crops()
    first, again = (
        draw_changes(image, Augmentation(corruption=0.9), torch.Generator().manual_seed(5)).image(image)
        for _ in range(2)
    )
    assert torch.equal(first, again)
    assert first.min() >= 0 and first.max() <= 1
    plain = draw_changes(image, Augmentation(), torch.Generator().manual_seed(5))
    corrupted = draw_changes(image, Augmentation(corruption=0.9), torch.Generator().manual_seed(5))
    assert torch.equal(plain.transform, corrupted.transform) and torch.equal(plain.tint, corrupted.tint)
    assert not torch.allclose(plain.image(image), first)
