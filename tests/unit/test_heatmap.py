import numpy as np
import pytest

from bfm.similarity import Similarity
from model.evaluation.alignment import Alignment
from model.evaluation.heatmap import OUTSIDE, clay_picture, error_colours, heatmap, with_scale
from model.evaluation.scan_errors import ScanErrors, error_cells
from model.evaluation.scans import Scan
from model.picture_sheet import TILE

IN_PLACE = Alignment(Similarity(1.0, np.eye(3), np.zeros(3)), 1.0, 0.5, None)


def plane(half=60.0, count=41):
    """A square before the viewer, and the errors 0 to 5 mm from its left to its right."""
    places = np.linspace(-half, half, count)
    x, y = np.meshgrid(places, places)
    index = np.arange(count**2).reshape(count, count)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    return Scan(vertices, triangles, {30: np.zeros(3)}, "plane"), 5 * (x.ravel() + half) / (2 * half)


def test_colours_run_from_blue_to_red_and_stay_at_the_limit():
    colours = error_colours(np.array([0, 1.0, 5, 50, np.nan]), limit=5)
    assert colours.shape == (5, 3)
    assert colours[1, 2] > colours[1, 0] and colours[2, 0] > colours[2, 2]
    np.testing.assert_array_equal(colours[2], colours[3])
    np.testing.assert_array_equal(colours[4], OUTSIDE)


def test_errors_are_drawn_where_they_are_and_grey_where_none_are_measured():
    scan, errors = plane()
    common = scan.vertices[:, 1] > 0
    picture = np.asarray(heatmap(ScanErrors(scan, scan, IN_PLACE, errors, np.ones(len(errors), bool), common)))
    assert picture.shape == (TILE, TILE, 3)
    upper, lower = picture[TILE // 2 - 20].astype(int), picture[TILE // 2 + 20].astype(int)
    on = np.flatnonzero(upper.min(1) < 250)
    assert len(on) == pytest.approx(120 / 230 * TILE, abs=4)  # 120 mm of the 230 that are drawn
    low, high = upper[on[10]], upper[on[-10]]
    assert low[2] > low[0] and high[0] > high[2]
    np.testing.assert_allclose(lower[on] - lower[on][:, :1], 0, atol=1)
    assert np.ptp(lower[on[3:-3]]) <= 1 and lower[on[5], 0] < 240


def test_far_parts_of_a_scan_do_not_change_its_picture():
    scan, _ = plane()
    far = Scan(np.concatenate([scan.vertices, [[900, 0, 0], [900, 1, 0], [901, 0, 0]]]),
               np.concatenate([scan.triangles, len(scan.vertices) + np.array([[0, 1, 2]])]), scan.landmarks)
    np.testing.assert_array_equal(np.asarray(clay_picture(far, far)), np.asarray(clay_picture(scan, scan)))


def test_the_scale_stands_below_the_sheet():
    scan, _ = plane()
    sheet = clay_picture(scan, scan)
    scaled = np.asarray(with_scale(sheet)).astype(int)
    assert scaled.shape[1] == TILE and scaled.shape[0] > TILE + 20
    bar = scaled[TILE + 10]
    assert bar[20, 2] > bar[20, 0] and bar[-20, 0] > bar[-20, 2]


def test_numbers_of_a_region_and_of_the_crop():
    scan, _ = plane(count=3)
    distances = np.array([0, 1, 2, 3, 4, 5, 6, 7, 90], float)
    cropped, common = distances < 50, distances < 4
    numbers = ScanErrors(scan, scan, IN_PLACE, distances, cropped, common).numbers
    assert numbers["mean_mm"] == 1.5 and numbers["rmse_mm"] == pytest.approx(np.sqrt(3.5), abs=1e-5)
    assert numbers["crop_mean_mm"] == 3.5 and numbers["crop_rmse_mm"] == pytest.approx(np.sqrt(17.5), abs=1e-5)
    assert numbers["common_percent"] == 50 and numbers["scale"] == 1 and numbers["landmark_distance_mm"] is None
    cells = error_cells([numbers, {**numbers, "mean_mm": 2.5, "common_percent": 60}])
    assert cells[0] == "2.00 +- 0.71" and cells[4:7] == ["55.0", "1.0000", None]
