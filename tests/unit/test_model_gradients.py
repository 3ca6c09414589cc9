"""Gradients that are not finite change nothing, in either way that optimisers are made."""

import math

import pytest
import torch
from training_runs import same_tensors

from model.gradients import GradientWatch


def networks(fused):
    torch.manual_seed(0)
    first, second = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    return {"a": first, "b": second}, {
        name: torch.optim.Adam(network.parameters(), 0.1, fused=fused)
        for name, network in (("a", first), ("b", second))
    }


def step(networks, optimisers, factor):
    for name, network in networks.items():
        optimisers[name].zero_grad(set_to_none=True)
        (factor * network(torch.ones(1, 2)).sum()).backward()
        optimisers[name].step()


def state(networks, optimisers):
    return {name: {
        "network": {key: value.clone() for key, value in networks[name].state_dict().items()},
        "moments": [{key: value.clone() for key, value in kept.items()} for kept in optimisers[name].state.values()],
    } for name in networks}


@pytest.mark.parametrize("fused", (False, True))
def test_norms_and_steps_are_those_without_a_watch(fused):
    watched, alone = networks(fused), networks(fused)
    with GradientWatch(watched[1]) as watch:
        for factor in (1.0, 3.0):
            step(*watched, factor)
            norms = watch.taken_norms()
            assert norms.keys() == {"a_gradient_norm", "b_gradient_norm"} and not watch.taken_norms()
            for norm in norms.values():  # the gradients of two weights and a bias are the factor
                assert float(norm) == pytest.approx(factor * math.sqrt(3), rel=1e-6)
            step(*alone, factor)
    assert same_tensors(state(*watched), state(*alone)) and not watch.broken


@pytest.mark.parametrize("fused", (False, True))
@pytest.mark.parametrize("bad", (math.nan, math.inf))
def test_nothing_changes_from_the_first_bad_gradient_on(fused, bad):
    both = networks(fused)
    with GradientWatch(both[1]) as watch:
        step(*both, 1.0)
        before = state(*both)
        for factor in (bad, 1.0):  # the second would be a good step
            step(*both, factor)
            assert same_tensors(state(*both), before)
            assert all(math.isfinite(norm) == (factor == 1) for norm in watch.taken_norms().values())
        assert watch.broken is not fused  # without waiting for the device it is not known
    step(*both, 1.0)
    assert not same_tensors(state(*both), before)  # it is over with the run


def test_one_optimiser_has_no_name():
    both, optimisers = networks(False)
    with GradientWatch({"adam": optimisers["a"]}) as watch:
        step({"a": both["a"]}, optimisers, 2.0)
        assert watch.taken_norms().keys() == {"gradient_norm"}
