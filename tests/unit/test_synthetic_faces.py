"""Photographs of synthetic faces: what each setting does."""

import numpy as np
import pytest
from toy import toy_model

from asmgen.synthetic_faces import random_face
from asmgen.synthetic_photos import centred_position, photograph
from bfm.pose import project
from bfm.render import vertex_normals

MODEL = toy_model()
FACE = random_face(MODEL, np.random.default_rng(0))
POSE = np.radians([5.0, 20.0, -10.0])
SIZE = 128


def taken(**settings):
    """A photograph from the same random numbers."""
    position = centred_position(MODEL, FACE, POSE, 0.5, SIZE, np.zeros(2))
    return photograph(MODEL, FACE, POSE, position, np.random.default_rng(1), SIZE, **settings)


def sharpness(photo):
    """Difference of neighbouring pixels at the strongest edges, grey levels; sensor noise is far less."""
    return np.percentile(np.abs(np.diff(np.asarray(photo.picture.convert("L"), float), axis=1)), 99.5)


def test_another_expression_changes_the_surface_only():
    coeffs = np.array([2.0, -1.0, 0.5])
    other = FACE.with_expression(MODEL, coeffs)
    np.testing.assert_array_equal(other.vertices, MODEL.shape(FACE.id_coeffs, coeffs.astype(np.float32)))
    np.testing.assert_array_equal(other.normals, vertex_normals(other.vertices, MODEL.triangles))
    assert other.exp_coeffs.dtype == np.float32 and (other.exp_coeffs == coeffs).all()
    for key in ("id_coeffs", "albedo_coeffs", "colours", "hair"):
        assert getattr(other, key) is getattr(FACE, key)


def test_landmarks_are_centred():
    position = centred_position(MODEL, FACE, POSE, 0.7, 200, np.array([3.0, -8.0]))
    points = project(FACE.vertices[MODEL.landmarks], POSE, position)[:, :2]
    np.testing.assert_allclose((points.min(axis=0) + points.max(axis=0)) / 2, [102.5, 91.5], atol=1e-4)
    assert position[2] == 0.7


def test_harsh_light_takes_the_ambient_and_adds_as_much_key_light():
    # ambient + 0.7 key is the exposure, the same in all; so shares are compared
    soft, harsh, harshest = (taken(harshness=harshness).illumination for harshness in (0, 0.5, 1))
    assert harshest[0] == pytest.approx(0, abs=1e-12)
    shares = [light[0] / (light[0] + light[3]) for light in (soft, harsh)]
    assert shares[1] == pytest.approx(shares[0] / 2)
    assert soft[0] + 0.7 * soft[3] == pytest.approx(harsh[0] + 0.7 * harsh[3])


def test_blur_takes_detail_only():
    sharp, blurred = taken(), taken(blur=3.0)
    assert sharpness(blurred) < 0.6 * sharpness(sharp)
    np.testing.assert_array_equal(sharp.light, blurred.light)
    means = [np.asarray(photo.picture, float).mean() for photo in (sharp, blurred)]
    assert abs(means[0] - means[1]) < 1
