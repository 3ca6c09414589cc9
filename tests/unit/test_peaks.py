"""Peaks of maps against the maps themselves."""

import numpy as np
import pytest
from toy import toy_model

from asmgen.maps import AttributeMaps
from asmgen.peaks import MapPeaks
from bfm.charts import make_chart


def peaks_of_maps(maps: AttributeMaps, id_coeffs: np.ndarray, exp_coeffs: np.ndarray) -> tuple:
    """The slow twin: both maps are made."""
    both = np.stack([maps.identity_map(id_coeffs), maps.expression_map(exp_coeffs)], axis=1)
    magnitude = np.abs(both).reshape(len(id_coeffs), -1)
    return magnitude.max(axis=1), np.count_nonzero(magnitude > 1, axis=1)


@pytest.mark.parametrize("chart, size, kept", [("harmonic", 64, 512), ("cylindrical", 50, 3)])
def test_peaks_are_those_of_the_maps(chart, size, kept, monkeypatch):
    """Faces of all sizes together, so that some reach far, some have no value beyond 1, and one lies exactly on it;
    whichever faces were measured before, and however few tiles are kept of them."""
    monkeypatch.setattr("asmgen.peaks._KEPT", kept)
    model = toy_model()
    maps = AttributeMaps.from_model(model, make_chart(model, chart, size))
    rng = np.random.default_rng(0)
    id_coeffs, exp_coeffs = (rng.standard_normal((60, count)).astype(np.float32) for count in (5, 3))
    id_coeffs *= np.geomspace(0.1, 20, 60, dtype=np.float32)[:, None]
    exp_coeffs[::7] *= 60  # whose expression maps reach further than their identity maps
    id_coeffs[::7] *= 0.1
    id_coeffs[3], exp_coeffs[3] = 0, 0
    measure = MapPeaks(maps)
    measure(id_coeffs[::2], exp_coeffs[1::2])
    peaks, outside = measure(id_coeffs, exp_coeffs)
    wanted_peaks, wanted_outside = peaks_of_maps(maps, id_coeffs, exp_coeffs)
    assert (peaks.dtype, outside.dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(peaks, wanted_peaks, rtol=1e-6)
    np.testing.assert_array_equal(outside, wanted_outside)
    for row in range(60):  # alone, as in a batch
        alone = measure(id_coeffs[row:row + 1], exp_coeffs[row:row + 1])
        np.testing.assert_allclose(alone[0], wanted_peaks[row], rtol=1e-6)
        assert alone[1] == wanted_outside[row]
    assert (wanted_outside == 0).sum() > 10 and (wanted_outside > 100).sum() > 10
    assert (np.abs(maps.expression_map(exp_coeffs)).reshape(60, -1).max(1) == wanted_peaks).sum() > 3


def test_few_texels_are_evaluated(monkeypatch):
    """That is the point: of usual faces, well below a tenth of the products that make the maps."""
    model = toy_model(rows=61, columns=51)
    maps = AttributeMaps.from_model(model, make_chart(model, "harmonic", 128))
    rng = np.random.default_rng(1)
    coeffs = [rng.standard_normal((16, count)).astype(np.float32) for count in (5, 3)]
    measure, evaluated, count_nonzero = MapPeaks(maps), [], np.count_nonzero

    def counting(values, axis=None):
        if axis == 1:
            evaluated.append(values.size)
        return count_nonzero(values, axis=axis)

    monkeypatch.setattr(np, "count_nonzero", counting)
    measure(*coeffs)
    assert 0 < sum(evaluated) < 0.05 * 16 * 2 * maps.mean_map.size


def test_what_is_no_number_is_no_small_peak():
    model = toy_model()
    maps = AttributeMaps.from_model(model, make_chart(model, "harmonic", 32))
    id_coeffs = np.full((1, 5), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        assert not MapPeaks(maps)(id_coeffs, np.zeros((1, 3), np.float32))[0] <= 1.25
