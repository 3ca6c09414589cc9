import numpy as np
import pytest

from bfm.pose import rotation_matrix
from bfm.similarity import Similarity, fit_similarity


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_a_known_motion_is_found(rng):
    source = rng.normal(size=(20, 3))
    motion = Similarity(2.5, rotation_matrix(np.array([0.4, -2.1, 1.0])), np.array([3.0, -7.0, 11.0]))
    target = np.stack([2.5 * motion.rotation @ point + motion.translation for point in source])
    found = fit_similarity(source.astype(np.float32), target)
    assert found.scale == pytest.approx(2.5, rel=1e-6)
    np.testing.assert_allclose(found.rotation, motion.rotation, atol=1e-6)
    np.testing.assert_allclose(found.apply(source), target, atol=1e-5)
    batch = source.reshape(4, 5, 3)
    np.testing.assert_array_equal(found.apply(batch), found.apply(source).reshape(4, 5, 3))


@pytest.mark.parametrize("scale", [True, False])
def test_no_other_motion_leaves_less(rng, scale):
    source, target = rng.normal(size=(2, 30, 3))
    best = fit_similarity(source, target, scale)
    assert scale or best.scale == 1

    def left(motion):
        return ((motion.apply(source) - target) ** 2).sum()

    for _ in range(200):
        turn = rotation_matrix(rng.normal(0, 0.05, 3))
        other = Similarity(
            best.scale * (np.exp(rng.normal(0, 0.05)) if scale else 1), turn @ best.rotation,
            best.translation + rng.normal(0, 0.05, 3),
        )
        assert left(best) < left(other)


def test_a_mirrored_or_flat_set_is_turned_and_not_mirrored(rng):
    source = rng.normal(size=(15, 3))
    assert np.linalg.det(fit_similarity(source, source * [-1, 1, 1]).rotation) == pytest.approx(1)
    flat = source * [1, 1, 0]
    turn = rotation_matrix(np.array([0.3, 0.2, 0.1]))
    found = fit_similarity(flat, flat @ turn.T)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-9)


@pytest.mark.parametrize("source, target, message", [
    (np.eye(3)[:2], np.eye(3)[:2], r"shape \(N, 3\) with N of at least 3, got \(2, 3\)"),
    (np.eye(3), np.ones((4, 3)), r"got \(3, 3\) and \(4, 3\)"),
    (np.eye(4)[:, :2], np.eye(4)[:, :2], r"got \(4, 2\) and \(4, 2\)"),
    (np.eye(9).reshape(27, 1, 3), np.eye(9).reshape(27, 1, 3), r"got \(27, 1, 3\) and \(27, 1, 3\)"),
    (np.arange(5)[:, None] * np.ones(3), np.random.default_rng(0).normal(size=(5, 3)), "not on a line, got 5 that are"),
    (np.ones((4, 3)), np.ones((4, 3)), "not on a line"),
    (np.eye(3), np.full((3, 3), np.nan), "finite"),
])
def test_what_no_motion_can_be_found_for(source, target, message):
    with pytest.raises(ValueError, match=message):
        fit_similarity(source, target)
