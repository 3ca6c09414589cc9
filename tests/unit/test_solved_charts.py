"""The chart that was solved beforehand is the one that solving gives, and is taken for its own face alone."""

import dataclasses

import numpy as np
import pytest
from toy import toy_model

from bfm.charts import harmonic_uv, make_chart
from bfm.open_face import open_face_model
from bfm.solved_charts import GRID, save_solved, solved_uv


def test_the_stored_chart_of_the_open_model_is_the_solution():
    model = open_face_model()
    stored = solved_uv(model)
    np.testing.assert_array_equal(stored, harmonic_uv(model))
    np.testing.assert_array_equal(stored * GRID, np.rint(stored * GRID))
    chart = make_chart(model, size=32)
    assert chart.name == "harmonic"
    np.testing.assert_array_equal(chart.uv, stored)


@pytest.mark.parametrize("name", ["mean_shape", "triangles", "mouth_triangles", "mirror"])
def test_a_face_that_differs_is_solved(name, tmp_path):
    face, path = toy_model(), tmp_path / "chart.npz"
    solution = harmonic_uv(face)
    save_solved(face, solution, path)
    np.testing.assert_array_equal(solved_uv(face, path), solution)
    assert np.load(path)["steps"].dtype == np.int32
    values = getattr(face, name)
    other = values.copy() if len(values) else np.zeros((1, 3), np.int32)
    other[-1] = other[0]
    if np.array_equal(other, values):
        other[-1] += 1
    assert solved_uv(dataclasses.replace(face, **{name: other}), path) is None
    assert solved_uv(face) is None  # the stored one is the open model's
