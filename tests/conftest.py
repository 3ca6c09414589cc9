"""What all tests share: Hypothesis draws the same examples in every run, and gives no example a deadline."""

import pytest
from hypothesis import settings

from bfm.charts import Chart, make_chart
from bfm.open_face import open_face_model

settings.register_profile("dualface", derandomize=True, deadline=None)
settings.load_profile("dualface")


@pytest.fixture(scope="session")
def open_chart() -> Chart:
    """The chart of the open face model, 256 x 256, which takes seconds to make."""
    return make_chart(open_face_model())


@pytest.fixture
def without_curves(monkeypatch):
    """Tests do not draw the curves of their runs, which takes longer than the steps; fixtures' runs have them."""
    monkeypatch.setattr("model.trainer.draw_curves", lambda run_dir: None)
