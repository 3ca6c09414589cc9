"""Holes of a texture: the mirrored half joined without a seam, then diffusion."""

import numpy as np
import pytest

from texgen.fill import fill_map

S = 64
RNG = np.random.default_rng(0)
ROW, COLUMN = np.mgrid[:S, :S]
FLIPPED = (ROW * S + S - 1 - COLUMN).ravel()
SMOOTH = np.stack([COLUMN / S, ROW / S, 0.5 + 0.3 * np.sin(COLUMN / 9) * np.cos(ROW / 11)], -1).astype(np.float32)


def symmetric():
    """(S, S, 3) noise that equals its mirror image."""
    half = RNG.random((S, S // 2, 3), np.float32)
    return np.concatenate([half, half[:, ::-1]], axis=1)


def hole(rows, columns):
    """(S, S) bool with a hole."""
    valid = np.ones((S, S), bool)
    valid[rows, columns] = False
    return valid


def test_known_texels_stay_and_holes_do_not_matter():
    values, valid = RNG.random((S, S, 3), np.float32), RNG.random((S, S)) > 0.4
    kept = values.copy(), valid.copy()
    for mirrored in (None, FLIPPED):
        filled = fill_map(values, valid, mirrored)
        assert filled.dtype == np.float32 and np.array_equal(filled[valid], values[valid])
        other = np.where(valid[..., None], values, np.float32(np.nan))
        assert np.array_equal(filled, fill_map(other, valid, mirrored))
    assert np.array_equal(kept[0], values) and np.array_equal(kept[1], valid)
    assert np.array_equal(fill_map(values, np.ones((S, S), bool), FLIPPED), values)


def test_diffusion_stays_among_the_known_values_and_is_smooth():
    valid = hole(slice(20, 44), slice(24, 40))
    filled = fill_map(SMOOTH, valid)
    for channel in range(3):
        known = SMOOTH[valid][:, channel]
        assert known.min() <= filled[..., channel].min() and filled[..., channel].max() <= known.max()
    for axis in (0, 1):  # no jump beyond what the map has itself, and a little
        assert np.abs(np.diff(filled, axis=axis)).max() < 3 * np.abs(np.diff(SMOOTH, axis=axis)).max()
    assert np.abs(filled - SMOOTH)[~valid].mean() < 0.06
    constant = fill_map(np.full((S, S, 2), 0.37, np.float32), RNG.random((S, S)) > 0.98)
    np.testing.assert_allclose(constant, 0.37, rtol=1e-6)


def test_one_known_texel_fills_everything():
    valid = np.zeros((S, S), bool)
    valid[5, 7] = True
    assert np.array_equal(fill_map(SMOOTH, valid, FLIPPED), np.broadcast_to(SMOOTH[5, 7], SMOOTH.shape))


def test_diffusion_is_the_same_in_a_mirror_and_turned():
    valid = RNG.random((S, S)) > 0.8
    filled = fill_map(SMOOTH, valid)
    np.testing.assert_allclose(fill_map(SMOOTH[:, ::-1], valid[:, ::-1]), filled[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(
        fill_map(SMOOTH.swapaxes(0, 1), valid.T), filled.swapaxes(0, 1), atol=1e-6
    )


@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_a_hole_shows_the_other_half_at_its_own_brightness(offset):
    truth = symmetric()
    truth[:, S // 2:] += np.float32(offset)
    # everything right of the middle but a strip is hidden
    filled = fill_map(truth, hole(slice(None), slice(40, None)), FLIPPED)
    np.testing.assert_allclose(filled[:, 40:], truth[:, 40:], atol=1e-5)


def test_the_halves_join_without_a_seam():
    truth = symmetric() * 0.1 + SMOOTH  # light from one side
    valid = hole(slice(16, 48), slice(36, 52))
    filled = fill_map(truth, valid, FLIPPED)
    naive = np.where(valid[..., None], truth, truth[:, ::-1])
    wrong, naively = (np.abs(result - truth)[~valid] for result in (filled, naive))
    assert naively.mean() > 0.2 and wrong.mean() < 0.07
    border = [(np.s_[16, 36:52], np.s_[15, 36:52]), (np.s_[16:48, 36], np.s_[16:48, 35])]
    for inside, outside in border:
        jump = (filled - truth)[inside] - (filled - truth)[outside]
        assert np.abs(jump).mean() < 0.03 < 0.1 < np.abs((naive - truth)[inside]).mean()


def test_what_neither_half_shows_is_diffused():
    truth = symmetric()
    valid = hole(slice(20, 30), slice(24, 40))  # across the middle
    assert np.array_equal(fill_map(truth, valid, FLIPPED), fill_map(truth, valid))
    alone = np.zeros((S, S), bool)
    alone[:, :S // 4] = True  # nothing is seen on both sides: no difference to go by
    filled = fill_map(truth, alone, FLIPPED)
    assert np.array_equal(filled[:, -S // 4:], truth[:, -S // 4:])


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (33, 20)])
def test_any_size(shape):
    values = RNG.random((*shape, 3), np.float32)
    valid = np.zeros(shape, bool)
    valid[-1, -1] = True
    np.testing.assert_allclose(fill_map(values, valid), np.broadcast_to(values[-1, -1], values.shape), rtol=1e-6)


@pytest.mark.parametrize("mirrored", [None, FLIPPED])
def test_each_channel_is_filled_as_if_alone(mirrored):
    valid = RNG.random((S, S)) > 0.6
    filled = fill_map(SMOOTH, valid, mirrored)
    for channel in range(3):
        np.testing.assert_allclose(fill_map(SMOOTH[..., [channel]], valid, mirrored), filled[..., [channel]], atol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="filled from at least one valid texel, got none"):
        fill_map(SMOOTH, np.zeros((S, S), bool))
    with pytest.raises(ValueError, match=r"valid must have shape \(64, 64\) to match values, got \(64, 63\)"):
        fill_map(SMOOTH, np.ones((S, S - 1), bool))
