"""Expressions with pairs of acts held out."""

import numpy as np
import pytest

from bfm.open_face import expression_units, open_face_model
from bfm.open_face.acts import ACTS, HELD_OUT_PAIRS, STRESS_UNITS, act_coefficients, random_expressions


class ActsOnly:
    """A source of chance whose normal numbers are 0, so that faces hold nothing but acts."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.choice, self.integers, self.uniform = rng.choice, rng.integers, rng.uniform

    def normal(self, mean, deviation, shape):
        return np.zeros(shape)


def movements(count, without):
    """(B, 29) strength of each movement of random expressions."""
    full = np.array([row.sum() for row in expression_units().values()])
    return random_expressions(ActsOnly(7), count, without) / full


def makes_both(strengths, pair):
    """(B,) whether a face makes every movement of both acts, each in its direction."""
    names = list(expression_units())
    wanted = [(names.index(name), np.sign(value)) for act in pair for name, value in ACTS[act].items()]
    return np.all([strengths[:, column] * sign > 1e-6 for column, sign in wanted], axis=0)


def test_held_out_pairs_are_never_made():
    free, kept = movements(4000, ()), movements(4000, HELD_OUT_PAIRS)
    for pair in HELD_OUT_PAIRS:
        assert makes_both(free, pair).sum() > 5
        assert not makes_both(kept, pair).any()
    for act in {act for pair in HELD_OUT_PAIRS for act in pair}:  # each alone is learned
        assert makes_both(kept, (act,)).sum() > 100
    assert makes_both(kept, ("jaw right", "disgust")).any()  # another movement than "jaw left"


def test_no_pair_holds_out_nothing_and_draws_as_ever():
    first = random_expressions(np.random.default_rng(3), 2)
    np.testing.assert_allclose(
        first[:, :4], [[2.398297, -0.38335, 0.062715, -3.387654], [0.150347, -0.132969, -0.043758, 0.132381]], atol=1e-5
    )
    np.testing.assert_array_equal(first, random_expressions(np.random.default_rng(3), 2, ()))


def test_held_out_acts_share_no_movement():
    assert len(set(map(frozenset, HELD_OUT_PAIRS))) == 6
    for first, second in HELD_OUT_PAIRS:
        assert not set(ACTS[first]) & set(ACTS[second])


def test_stress_units_move_the_face_and_do_not_tear_it():
    model = open_face_model()
    units = [act_coefficients(**movements) for movements in STRESS_UNITS.values()]
    units += [act_coefficients(**ACTS[a]) + act_coefficients(**ACTS[b]) for a, b in HELD_OUT_PAIRS]

    def sides(vertices):
        return np.linalg.norm(vertices[model.triangles] - vertices[model.triangles[:, [1, 2, 0]]], axis=2)

    for full in units:
        offset = model.expression_offset(1.25 * full)
        assert np.linalg.norm(offset, axis=1).max() > 8
        # the skin of a gaping mouth is the most stretched: 4.5 fold
        assert (sides(model.mean_shape + offset) / sides(model.mean_shape)).max() < 5


def test_unknown_act_is_named():
    with pytest.raises(ValueError, match="an act must be one of smile, laugh.*; got dance"):
        random_expressions(np.random.default_rng(0), 1, (("gape", "dance"),))
