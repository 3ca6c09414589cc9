"""Constants that others published: a slip in one changes results, and nothing else would tell."""

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
