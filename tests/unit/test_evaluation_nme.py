import numpy as np
import pytest

from model.evaluation.curves import draw_error_curves
from model.evaluation.nme import YAW_BINS, area_under_curve, by_yaw, failure_rate, landmark_nme
from model.evaluation.peers import DENSE_PEERS, LANDMARK_PEERS


@pytest.fixture
def truth():
    """Two faces of 68 points."""
    return np.random.default_rng(0).uniform(0, 200, (2, 68, 2))


def test_the_formula(truth):
    truth[0, :2] = [[10, 20], [110, 60]]
    truth[0, 2:] = [50, 50]  # a box of 100 x 40
    predicted = truth.copy()
    predicted[0, 5] += [3, 4]
    predicted[0, 6] += [-6, 8]
    nme = landmark_nme(predicted, truth)
    assert nme[0] == pytest.approx(100 * 15 / 68 / np.sqrt(100 * 40), rel=1e-12)
    assert nme[1] == 0


def test_a_shift_of_both_changes_nothing_and_depth_is_not_compared(truth):
    predicted = truth + np.random.default_rng(1).normal(0, 5, truth.shape)
    expected = landmark_nme(predicted, truth)
    np.testing.assert_allclose(landmark_nme(predicted + [17, -40], truth + [17, -40]), expected, rtol=1e-12)
    np.testing.assert_allclose(landmark_nme(3 * predicted, 3 * truth), expected, rtol=1e-12)
    deep = [np.concatenate([points, np.full((2, 68, 1), depth)], 2) for points, depth in ((predicted, 1), (truth, 90))]
    np.testing.assert_array_equal(landmark_nme(*deep), expected)
    assert landmark_nme(truth + 1, truth)[0] == pytest.approx(
        100 * np.sqrt(2) / np.sqrt(np.ptp(truth[0], axis=0).prod())
    )


@pytest.mark.parametrize("shape", [(68, 2), (2, 67, 2), (3, 68, 2), (2, 2, 68)])
def test_landmarks_of_another_shape_are_refused(truth, shape):
    with pytest.raises(ValueError, match=r"must have shape \(N, 68, 2\)"):
        landmark_nme(np.zeros(shape), truth)
    with pytest.raises(ValueError, match=r"must have shape \(N, 68, 2\)"):
        landmark_nme(np.zeros(shape), np.zeros((*shape[:1], 67, 2)))


def test_the_edges_of_the_bins_belong_below():
    yaw = np.array([0, 30, -30, 30.001, -60, 60, 60.001, -95])
    means = by_yaw(np.array([1, 2, 3, 4, 5, 6, 7, 8.0]), yaw)
    assert len(YAW_BINS) == 3
    assert means.bins == (2, 5, 7.5) and means.counts == (3, 3, 2)
    assert means.mean_of_bins == pytest.approx((2 + 5 + 7.5) / 3)
    assert means.mean == 4.5


def test_an_empty_bin_has_no_mean():
    means = by_yaw(np.array([1.0, 3]), np.array([10, 70]))
    assert means == ((1, None, 3), None, 2, (1, 0, 1))


def test_the_area_is_that_below_the_curve():
    nme = np.random.default_rng(2).gamma(4, 1.2, 500)
    steps = np.linspace(0, 10, 100001)
    share = np.searchsorted(np.sort(nme), steps, side="right") / len(nme)
    assert area_under_curve(nme) == pytest.approx(np.trapezoid(share, steps) / 10, abs=1e-5)
    assert area_under_curve(np.zeros(3)) == 1 and area_under_curve(np.array([10, 11.0])) == 0
    assert failure_rate(np.array([9.9, 10, 10.1, 50])) == 0.5


def test_the_curve_rises_where_the_errors_are(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = {}
    step = Axes.step

    def spy(self, x, y, where, label):
        drawn[label] = (x, y, where)
        return step(self, x, y, where=where, label=label)

    monkeypatch.setattr(Axes, "step", spy)
    path = draw_error_curves(tmp_path / "curve.png", {"a": np.array([4.0, 2, 12])})
    x, y, where = drawn["a (AUC 46.7 %)"]
    assert path.read_bytes()[:4] == b"\x89PNG" and where == "post"
    np.testing.assert_allclose(x, [0, 2, 4, 10])
    np.testing.assert_allclose(y, [0, 100 / 3, 200 / 3, 200 / 3])


def test_published_means_are_the_means_of_their_bins():
    for peer in LANDMARK_PEERS:
        assert peer.source and (peer.bins is None or peer.mean_of_bins == pytest.approx(np.mean(peer.bins), abs=0.0075))
    assert all(peer.source and 3 < peer.nme < 5 for peer in DENSE_PEERS)
