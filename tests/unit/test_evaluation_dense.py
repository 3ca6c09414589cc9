import numpy as np
import pytest
from scipy.spatial import cKDTree
from toy import toy_model

from bfm.pose import rotation_matrix
from bfm.similarity import Similarity, fit_similarity
from model.evaluation import dense
from model.evaluation.dense import ALIGNMENTS, closest_point_similarity, dense_nme, interocular

MODEL = toy_model()
RNG = np.random.default_rng(5)
TRUTH = MODEL.shape(RNG.normal(size=5), RNG.normal(size=3)).astype(np.float64)
OTHER = MODEL.shape(RNG.normal(size=5), RNG.normal(size=3)).astype(np.float64)


def moved(points, scale=1.3, angles=(2, 1, 3), shift=(30, -20, 50)):
    return Similarity(scale, rotation_matrix(np.array(angles)), np.array(shift, float)).apply(points)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_similarity_of_the_truth_has_no_error(alignment):
    assert dense_nme(moved(TRUTH), TRUTH, MODEL.landmarks, alignment) < 1e-9
    before = dense_nme(OTHER, TRUTH, MODEL.landmarks, alignment)
    assert before > 0.1
    assert dense_nme(moved(OTHER), TRUTH, MODEL.landmarks, alignment) == pytest.approx(before)


def test_the_numbers_from_their_definition():
    right, left = TRUTH[MODEL.landmarks[36]], TRUTH[MODEL.landmarks[45]]
    eyes = np.sqrt(((right - left) ** 2).sum())
    assert interocular(TRUTH, MODEL.landmarks) == pytest.approx(eyes)
    motion = fit_similarity(OTHER, TRUTH)
    expected = np.mean([np.linalg.norm(a - b) for a, b in zip(motion.apply(OTHER), TRUTH)])
    assert dense_nme(OTHER, TRUTH, MODEL.landmarks, "correspondence") == pytest.approx(100 * expected / eyes)

    placed, before = motion.apply(OTHER), None
    while True:  # without a tree, and the motion found anew from where the points are
        nearest = ((placed[:, None] - TRUTH[None]) ** 2).sum(2).argmin(1)
        if before is not None and (nearest == before).all():
            break
        placed, before = fit_similarity(placed, TRUTH[nearest]).apply(placed), nearest
    expected = np.linalg.norm(placed[:, None] - TRUTH[None], axis=2).min(1).mean()
    assert dense_nme(OTHER, TRUTH, MODEL.landmarks, "icp") == pytest.approx(100 * expected / eyes, rel=1e-9)


def test_points_that_slid_along_the_surface_cost_more_with_correspondence():
    grid = np.arange(len(TRUTH)).reshape(21, 17)
    slid = TRUTH[grid[:, [1, 0, *range(2, 15), 16, 15]].ravel()]  # neighbours at both sides have changed places
    assert dense_nme(slid, TRUTH, MODEL.landmarks, "icp") < 1e-9
    assert dense_nme(slid, TRUTH, MODEL.landmarks, "correspondence") > 1


def test_few_vertices_find_the_motion_of_all(monkeypatch):
    monkeypatch.setattr(dense, "ICP_VERTICES", (40, 100))
    found = closest_point_similarity(moved(TRUTH), cKDTree(TRUTH))
    np.testing.assert_allclose(found.apply(moved(TRUTH)), TRUTH, atol=1e-9)


def test_mistakes():
    with pytest.raises(ValueError, match="alignment must be one of correspondence, icp, got 'rigid'"):
        dense_nme(TRUTH, TRUTH, MODEL.landmarks, "rigid")
    with pytest.raises(ValueError, match=r"the shape of truth, \(357, 3\), got \(356, 3\)"):
        dense_nme(TRUTH[1:], TRUTH, MODEL.landmarks, "icp")
