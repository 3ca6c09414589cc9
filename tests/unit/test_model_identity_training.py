import math

import numpy as np
import pytest
import torch
from toy import toy_model
from toy_asmd import draw_face

from model.config import NO_AUGMENTATION, Augmentation
from model.data import step_generator
from model.identity import face_crop
from model.train_identity import arcface_loss, identity_crops, verification


def defined_loss(features, centres, people, margin, scale):
    """Eq. (3) of ArcFace, a face at a time, by the angles."""
    total = 0.0
    for face, person in zip(features.tolist(), people.tolist()):
        angles = []
        for centre in centres.tolist():
            cosine = sum(a * b for a, b in zip(face, centre)) / math.hypot(*face) / math.hypot(*centre)
            angles.append(math.acos(cosine))
        own = math.exp(scale * math.cos(angles[person] + margin))
        others = sum(math.exp(scale * math.cos(angle)) for other, angle in enumerate(angles) if other != person)
        total -= math.log(own / (own + others))
    return total / len(people)


@pytest.mark.parametrize("margin, scale", ((0.5, 16.0), (0.0, 8.0), (0.2, 64.0)))
def test_the_loss_is_that_of_arcface(margin, scale):
    generator = torch.Generator().manual_seed(1)
    features, centres = torch.randn(6, 9, generator=generator).double(), torch.randn(4, 9, generator=generator).double()
    people = torch.tensor([0, 3, 1, 1, 2, 0])
    features += 0.7 * centres[people]  # no angle beyond pi - margin
    found = arcface_loss(3 * features, centres, people, margin, scale)
    assert float(found) == pytest.approx(defined_loss(features, centres, people, margin, scale), rel=1e-9)
    features.requires_grad_(), centres.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, c: arcface_loss(f, c, people, margin, scale), (features, centres))


def test_the_loss_falls_all_the_way_to_ones_own_centre():
    """Also beyond pi - margin, where cos(angle + margin) alone would rise; without a jump, and finite at both ends."""
    angle = torch.linspace(math.pi, 0, 400, dtype=torch.float64, requires_grad=True)
    features = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], 1)
    centres = torch.eye(3, dtype=torch.float64)[[0, 2]]
    loss = torch.stack([
        arcface_loss(face[None], centres, torch.tensor([0]), 0.5, 8.0) for face in features
    ])
    assert (loss.diff() < 0).all()
    assert loss.diff().abs().max() < 0.1
    loss.sum().backward()
    assert angle.grad.isfinite().all()


def defined_verification(features, people):
    """Closer pair by comparing each with each; errors at every threshold there is."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(len(people)) for j in range(i)]
    same = [float(unit[i] @ unit[j]) for i, j in pairs if people[i] == people[j]]
    other = [float(unit[i] @ unit[j]) for i, j in pairs if people[i] != people[j]]
    wins = sum((a > b) + 0.5 * (a == b) for a in same for b in other)
    gaps = [
        (abs(missed - mistaken), (missed + mistaken) / 2)
        for threshold in sorted(same + other)
        for missed, mistaken in [(np.mean([a < threshold for a in same]), np.mean([b >= threshold for b in other]))]
    ]
    return wins / len(same) / len(other), 100 * min(gaps)[1]


def test_verification_is_what_it_says():
    rng = np.random.default_rng(0)
    people = rng.integers(0, 6, 40)
    features = rng.normal(size=(6, 5))[people] + rng.normal(size=(40, 5))
    found = verification(torch.tensor(features), people)
    auc, error = defined_verification(features, people)
    assert found["verification_auc"] == pytest.approx(auc, abs=1e-12) and 0.6 < auc < 0.95
    assert found["equal_error_percent"] == pytest.approx(error, abs=0.2)  # between two pairs


def test_verification_by_hand():
    def turned(*degrees):
        angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        return 5 * torch.stack([angle.cos(), angle.sin()], 1)

    perfect = {"verification_auc": 1.0, "equal_error_percent": 0.0}
    assert verification(turned(0, 10, 90, 100), np.array([0, 0, 1, 1])) == perfect
    # pairs of one person at 90 and 90 degrees, of two at 10, 100, 80 and 10: each of the former is closer than one
    found = verification(turned(0, 10, 90, 100), np.array([0, 1, 0, 1]))
    assert found["verification_auc"] == pytest.approx(1 / 4)
    assert found["equal_error_percent"] == pytest.approx(75)
    same = torch.ones(4, 3)
    chance = {"verification_auc": 0.5, "equal_error_percent": 50.0}
    assert verification(same, np.array([0, 0, 1, 1])) == verification(same, np.array([0, 0, 0, 1])) == chance
    assert verification(same, np.arange(4)) == verification(same, np.zeros(4, int)) == {}


@pytest.fixture(scope="module")
def raw():
    faces = [draw_face(toy_model(), 128, seed) for seed in range(8)]
    return {
        "image": torch.tensor(np.stack([face["image"] for face in faces])).permute(0, 3, 1, 2),
        "landmarks": torch.tensor(np.stack([face["landmarks"] for face in faces])),
    }


def test_crops_are_placed_by_the_landmarks(raw):
    crops = identity_crops(raw, torch.device("cpu"))
    assert torch.equal(crops, face_crop(raw["image"].float() / 255, raw["landmarks"]))
    same = identity_crops(raw, torch.device("cpu"), NO_AUGMENTATION, step_generator(0, 0))
    torch.testing.assert_close(same, crops, rtol=0, atol=1e-4)


def test_half_of_the_crops_are_mirrored(raw):
    crops = identity_crops(raw, torch.device("cpu"))
    found = identity_crops(raw, torch.device("cpu"), Augmentation(0, 0, 0, 0.5, 0, 0, 0), step_generator(0, 0))
    mirrored = [bool((face - crop.flip(-1)).abs().max() < 1e-4) for face, crop in zip(found, crops)]
    straight = [bool((face - crop).abs().max() < 1e-4) for face, crop in zip(found, crops)]
    assert [a != b for a, b in zip(mirrored, straight)] == [True] * 8 and 0 < sum(mirrored) < 8


def test_what_turns_a_crop_moves_it_over_the_photo(raw):
    """A shift moves the crop, and the face in it the other way; colours change, and nothing leaves [0, 1]."""
    small = raw | {"landmarks": raw["landmarks"].mean(1, keepdim=True) + (raw["landmarks"][:1] - 64) / 4}
    places = torch.arange(128, dtype=torch.uint8).expand(8, 3, 128, 128)  # colour is the column
    crops = [
        identity_crops(small | {"image": places}, torch.device("cpu"), augmentation, step_generator(0, 1))
        for augmentation in (NO_AUGMENTATION, Augmentation(0, 0, 0.05, 0, 0, 0, 0))
    ]
    shift = 255 * (crops[1] - crops[0])[..., 30:80, 30:80].flatten(1)
    assert (shift.std(1) < 0.01).all() and (shift.abs() < 0.05 * 128).all() and shift.mean(1).abs().max() > 2
    coloured = identity_crops(raw, torch.device("cpu"), Augmentation(0, 0, 0, 0, 0.9, 0.05, 0.2), step_generator(0, 1))
    assert coloured.min() == 0 and coloured.max() == 1
