"""Vertex numbers of the 68 Multi-PIE landmarks in known meshes; how others get theirs.

Order: 17 jaw (subject's right to left), 5 + 5 brows, 4 + 5 nose, 6 + 6 eyes, 12 outer and 8 inner lip points.
Vertex numbers are facts about a mesh and carry nothing of its shape.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from bfm.similarity import fit_similarity

BFM_53215 = (
    21873, 22149, 21653, 21036, 43236, 44918, 46166, 47135, 47914, 48695, 49667, 50924, 52613, 33678, 33005, 32469,
    32709, 38695, 39392, 39782, 39987, 40154, 40893, 41059, 41267, 41661, 42367, 8161, 8177, 8187, 8192, 6515, 7243,
    8204, 9163, 9883, 2215, 3886, 4920, 5828, 4801, 3640, 10455, 11353, 12383, 14066, 12653, 11492, 5522, 6025, 7495,
    8215, 8935, 10395, 10795, 9555, 8836, 8236, 7636, 6915, 5909, 7384, 8223, 9064, 10537, 8829, 8229, 7629,
)
"""In the 3DDFA layout: `keypoints` of 3DDFA's and HPEN's Model_info.mat (Zhu et al.), the same in DeFA and Deep3D."""

BFM_53490 = (
    22148, 22424, 21928, 21311, 43511, 45193, 46441, 47410, 48189, 48970, 49942, 51199, 52888, 33953, 33280, 32744,
    32984, 38970, 39667, 40057, 40262, 40429, 41168, 41334, 41542, 41936, 42642, 8290, 8306, 8316, 8321, 6525, 7300,
    8333, 9364, 10137, 2215, 3886, 4920, 5828, 4801, 3640, 10730, 11628, 12658, 14341, 12928, 11767, 5522, 6025, 7570,
    8344, 9118, 10669, 11070, 9792, 9019, 8374, 7729, 6954, 5909, 7450, 8352, 9256, 10812, 9012, 8367, 7722,
)
"""The same vertices in the raw Basel Face Model 2009."""

ICT = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443, 268, 493,
    1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360, 1507, 1542,
    1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461,
    5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)
"""In ICT-FaceKit, from its vertex_indices.json (MIT licence)."""


def landmark_table(vertex_count: int) -> np.ndarray | None:
    """Return the (68,) int32 landmark vertices of a BFM 2009 layout, or None for another vertex count."""
    known = {53215: BFM_53215, 53490: BFM_53490}.get(vertex_count)
    return None if known is None else np.array(known, np.int32)


# anatomical landmarks that the Basel Face Models 2017 and 2019 name, and their place among the 68
NAMED = {
    "center.nose.tip": 30,
    "center.nose.attachement_to_philtrum": 33,
    "right.eye.corner_outer": 36,
    "right.eye.corner_inner": 39,
    "left.eye.corner_inner": 42,
    "left.eye.corner_outer": 45,
    "right.lips.corner": 48,
    "center.lips.upper.outer": 51,
    "left.lips.corner": 54,
    "center.lips.lower.outer": 57,
    "center.lips.upper.inner": 62,
    "center.lips.lower.inner": 66,
}


def complete_landmarks(known: dict[int, np.ndarray], template: np.ndarray, mean_shape: np.ndarray) -> np.ndarray:
    """Find all 68 landmark vertices of a mesh from a few known points, by the landmarks of another face.

    The other face is laid onto the known points by a similarity, what remains there is spread over the face (linear
    radial basis functions), and each point goes to the nearest vertex. From the open model to the BFM 2009, the 12
    points of `NAMED` known: 1.8 mm from the true landmarks on average, 4.7 mm at most.

    Parameters
    ----------
    known : dict[int, np.ndarray]
        Landmark number from 0 to its (3,) position, mm; at least 4 that do not lie in a plane.
    template : np.ndarray
        (68, 3) landmarks of the other face, in the same axes.
    mean_shape : np.ndarray
        (V, 3) mm.

    Returns
    -------
    np.ndarray
        (68,) int32 vertices.
    """
    anchors = np.array(sorted(known))
    target = np.array([known[anchor] for anchor in anchors], np.float64)
    laid = fit_similarity(template[anchors], target).apply(template.astype(np.float64))
    spread = RBFInterpolator(laid[anchors], target - laid[anchors], kernel="linear", degree=0)
    return cKDTree(mean_shape).query(laid + spread(laid))[1].astype(np.int32)
