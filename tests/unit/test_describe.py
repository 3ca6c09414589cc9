"""The summary of a face model and its sheet of modes."""

from dataclasses import replace

import numpy as np
import pytest

from bfm.describe import describe_model, draw_modes
from bfm.morphable_model import BFM_COEFFICIENTS
from toy import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


def test_summary_says_what_the_model_is(model):
    lines = dict(line.split(maxsplit=1) for line in describe_model(model).splitlines())
    assert lines["layout"].startswith("toy: 357 vertices, ")
    assert lines["identity"].startswith("5 modes; the first moves a vertex by ")
    assert lines["identity"].endswith("a standard deviation 9e+05 to 1e+05")
    assert lines["expression"].startswith("3 modes")
    assert lines["albedo"].startswith("4 modes")
    assert lines["size"] == "140 x 180 x 96 mm"
    assert lines["symmetry"].startswith("100.0% of the vertices are in pairs; mirror images are 0.00 mm apart")
    assert lines["licence"] == model.licence
    assert lines["sha256"] == model.sha256
    rms = np.sqrt((model.id_basis[0] ** 2).sum(axis=1).mean())
    assert f" {rms:.3g} mm (rms)" in lines["identity"]


def test_summary_says_which_annotations_apply(model):
    assert "do not apply" in describe_model(model)
    assert "AFLW2000-3D apply)" in describe_model(replace(model, coefficients=BFM_COEFFICIENTS))


def test_sheet_shows_each_mode_both_ways(model):
    sheet = np.asarray(draw_modes(model, count=2, size=60))
    assert sheet.shape == (3 * (2 * 60 + 18), 3 * 60, 3)
    identity = sheet[18:138]
    mean, minus, plus = identity[30:90, :60], identity[:60, 60:120], identity[60:, 60:120]
    assert (mean != 255).any(axis=-1).mean() > 0.2
    for one, other in ((mean, minus), (mean, plus), (minus, plus)):
        assert np.abs(one.astype(int) - other).mean() > 1


def test_sheet_of_a_model_without_texture_has_two_rows(model):
    bare = replace(model, albedo_basis=model.albedo_basis[:0], albedo_stddev=model.albedo_stddev[:0])
    assert draw_modes(bare, count=2, size=60).size == (180, 2 * 138)
    assert "albedo        none" in describe_model(bare)
