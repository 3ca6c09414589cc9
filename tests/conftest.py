"""What all tests share: Hypothesis draws the same examples in every run, and gives no example a deadline."""

import pytest
from hypothesis import settings

settings.register_profile("dualface", derandomize=True, deadline=None)
settings.load_profile("dualface")


@pytest.fixture
def without_curves(monkeypatch):
    """Tests do not draw the curves of their runs, which takes longer than the steps; fixtures' runs have them."""
    monkeypatch.setattr("model.trainer.draw_curves", lambda run_dir: None)
