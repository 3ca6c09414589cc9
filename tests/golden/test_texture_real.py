"""Textures of every real photo with 68 labels, with the open model fitted to them."""

import os
from pathlib import Path

import numpy as np
import pytest

from asmgen.refit import Refitter
from asmgen.w300lp import find_samples, read_sample
from bfm.charts import make_chart
from bfm.open_face import open_face_model
from texgen.texture import TextureMapper

ROOT = Path(os.environ.get("DUALFACE_REAL_DATA", "."))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("DUALFACE_REAL_DATA" not in os.environ, reason="DUALFACE_REAL_DATA names no real files"),
]


@pytest.fixture(scope="module")
def textures():
    """Name to (texture, I_u, |yaw| in degrees) of the 33 annotated photos."""
    model = open_face_model()
    refitter, mapper = Refitter(model), TextureMapper(model, make_chart(model))
    found = {}
    for entry in find_samples(ROOT / "aflw2000_3d") + find_samples(ROOT / "300w_lp"):
        if not (entry.parameters_path or entry.landmarks_path):
            continue
        sample = read_sample(entry, None)
        fit = refitter.fit(sample.image, sample.landmarks, sample.landmark_kind)
        vertices = mapper.vertices(fit.id_coeffs[None], fit.exp_coeffs[None])[0]
        texture = mapper.extract(np.asarray(sample.image), vertices, fit.pose, fit.position, fit.light)
        found[sample.name] = texture, mapper.linear_albedo(fit.albedo_coeffs[None])[0], abs(np.degrees(fit.pose[1]))
    return found


def test_every_photo_gives_a_whole_texture(textures):
    assert len(textures) == 33
    for texture, linear, yaw in textures.values():
        albedo, chart = texture.filled_albedo(), linear.any(axis=-1)
        assert np.isfinite(albedo).all() and 0 <= albedo.min() and albedo.max() <= 1
        share = texture.visible.sum() / chart.sum()
        assert (0.2 if yaw > 60 else 0.35) < share < 0.7
        half = chart.shape[1] // 2
        if yaw > 45:  # the far half of the face is not in the photo
            far, near = sorted(side.sum() for side in (texture.visible[:, :half], texture.visible[:, half:]))
            assert far < 0.25 * near
            # and is filled with the near half
            assert np.corrcoef(albedo[chart].ravel(), albedo[:, ::-1][chart].ravel())[0, 1] > 0.8


def test_colours_are_the_albedo_lit_again(textures):
    for texture, _, _ in textures.values():
        seen = texture.visible & (texture.shading > texture.least_shading) & (texture.albedo < 1).all(-1)
        again = texture.albedo[seen] * texture.shading[seen][:, None]
        np.testing.assert_allclose(again, texture.colours[seen], atol=1e-5)


def test_no_trees_behind_the_forehead(textures):
    """A profile before a green hedge, whose forehead the fitted mesh overlaps by a centimetre."""
    texture, _, _ = textures["image02420"]
    red, green, blue = np.moveaxis(texture.colours, -1, 0)
    leaves = (green > red + 0.05) & (green > blue + 0.05)
    assert leaves[~texture.visible].sum() > 300
    assert leaves[texture.visible].mean() < 0.002
