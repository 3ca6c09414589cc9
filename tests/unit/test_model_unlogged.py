import math

import pytest
import torch

from model.unlogged import NotFinite, Unlogged


def losses(**values):
    return {key: torch.tensor(value) for key, value in values.items()}


def test_means_are_over_the_steps_that_have_a_loss():
    unlogged = Unlogged(4)
    unlogged.add(losses(loss=0.1))
    unlogged.add(losses(loss=0.3, asm=2.0))
    expected = (float(torch.tensor(0.1)) + float(torch.tensor(0.3))) / 2
    assert unlogged.means() == {"loss": expected, "asm": 2.0}
    unlogged.add(losses(loss=0.5))
    assert len(unlogged.steps()) == 3


def test_a_run_saved_between_two_lines_goes_on_alike():
    values = [0.1, 0.7, 0.13, 0.9, 1e-9]
    whole, begun = Unlogged(0), Unlogged(0)
    for value in values:
        whole.add(losses(loss=value))
    for value in values[:3]:
        begun.add(losses(loss=value))
    resumed = Unlogged(0, begun.steps())
    for value in values[3:]:
        resumed.add(losses(loss=value))
    assert resumed.means() == whole.means() and resumed.steps() == whole.steps()


@pytest.mark.parametrize("bad", (math.nan, math.inf, -math.inf))
def test_the_first_step_that_is_not_finite_is_named(bad):
    unlogged = Unlogged(7, [{"loss": 1.0}])
    unlogged.add(losses(loss=1.0, asm=2.0))
    unlogged.add(losses(loss=1.0, asm=bad))
    unlogged.add(losses(loss=math.nan))
    with pytest.raises(NotFinite) as found:
        unlogged.means()
    assert found.value.step == 9 and repr(found.value.losses) == repr({"loss": 1.0, "asm": bad})
