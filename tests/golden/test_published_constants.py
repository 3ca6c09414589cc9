"""Constants that others published: a slip in one changes results, and nothing else would tell."""

import numpy as np

from bfm.landmarks import BFM_53215, BFM_53490, ICT, NAMED, landmark_table
from model.config import FusionConfig, GeometryConfig, TextureConfig
from model.identity import TEMPLATE


def test_weights_and_learning_rates_of_the_paper():
    texture, fusion = TextureConfig(), FusionConfig()
    assert (texture.omega_r, texture.omega_c, texture.omega_a) == (1e-1, 3, 2e-1)  # below Eq. (18)
    assert (fusion.lambda_pixel, fusion.lambda_identity, fusion.lambda_alignment) == (1e-1, 2, 1e-2)  # below Eq. (23)
    # Sec. IV-B
    assert (GeometryConfig().learning_rate, texture.learning_rate, fusion.learning_rate) == (2e-4, 1e-4, 5e-5)


def test_arcface_s_crop():
    # insightface: right and left eye (image left and right), nose tip, mouth corners; pixels of 112 x 112
    assert TEMPLATE == (
        (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)
    )


def test_landmarks_of_the_two_bfm_2009_layouts_are_the_same_vertices():
    """3DDFA's layout leaves out 275 of the raw vertices: those before a vertex grow with its number."""
    trimmed, raw = landmark_table(53215), landmark_table(53490)
    assert trimmed.tolist() == list(BFM_53215) and raw.tolist() == list(BFM_53490) and landmark_table(53149) is None
    assert trimmed.dtype == raw.dtype == np.int32 and trimmed.shape == raw.shape == (68,)
    left_out = (raw - trimmed)[np.argsort(trimmed)]
    assert left_out[0] == 0 and left_out[-1] == 275 and (np.diff(left_out) >= 0).all()


def test_anatomical_names_are_those_of_multi_pie_s_points():
    # 300-W counts 1 to 68: nose 28-36, eyes 37-48 from the right one's outer corner, lips 49-68 from the right corner
    assert {name: number + 1 for name, number in NAMED.items()} == {
        "center.nose.tip": 31, "center.nose.attachement_to_philtrum": 34,
        "right.eye.corner_outer": 37, "right.eye.corner_inner": 40,
        "left.eye.corner_inner": 43, "left.eye.corner_outer": 46,
        "right.lips.corner": 49, "left.lips.corner": 55,
        "center.lips.upper.outer": 52, "center.lips.lower.outer": 58,
        "center.lips.upper.inner": 63, "center.lips.lower.inner": 67,
    }
    assert len(set(ICT)) == 68
