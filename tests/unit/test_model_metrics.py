import math

import numpy as np
import pytest
import torch
from toy import toy_model

from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.pose import project
from model.batches import GeometryBatch
from model.geometry import Geometry, Parameters, normalise_position
from model.metrics import geometry_errors

SIZE = 64


@pytest.fixture(scope="module")
def face():
    """(model, maps, batch of two faces, the prediction that equals it)."""
    model = toy_model()
    maps = AttributeMaps.from_model(model, make_chart(model, "cylindrical", SIZE)).to("cpu")
    rng = np.random.default_rng(0)
    identity = maps.identity_map(torch.from_numpy(rng.standard_normal((2, 5)).astype(np.float32)))
    expression = maps.expression_map(torch.from_numpy(rng.standard_normal((2, 3)).astype(np.float32)))
    position = torch.tensor([[30.0, 33.0, 0.3], [28.0, 30.0, 0.35]])
    pose = torch.tensor([[0.2, -0.5, 0.1], [0.0, 0.9, -0.2]])
    parameters = Parameters(
        torch.from_numpy(rng.standard_normal((2, 4)).astype(np.float32)), torch.ones(2, 9), pose,
        normalise_position(position, SIZE),
    )
    landmarks = project(maps.vertices(identity + expression)[:, model.landmarks], pose, position)[..., :2]
    batch = GeometryBatch(torch.zeros(2, 3, SIZE, SIZE), identity, expression, parameters, position, landmarks)
    return torch.from_numpy(model.landmarks).long(), maps, batch, Geometry(identity, expression, parameters)


def test_the_truth_has_no_error(face):
    landmarks, maps, batch, predicted = face
    for key, value in geometry_errors(predicted, batch, maps, landmarks).items():
        assert value.shape == (2,) and (value.abs() < 1e-3).all(), key


def test_known_errors(face):
    landmarks, maps, batch, predicted = face
    moved = torch.tensor([3.0, 4.0, 0.0]).view(3, 1, 1) / maps.scale  # 5 mm
    roll = predicted.parameters.pose + torch.tensor([0, 0, math.radians(10)])  # applied first: 10 degrees in all
    wrong = Geometry(
        predicted.identity_map + moved, predicted.expression_map - 2 * moved,
        predicted.parameters._replace(albedo=predicted.parameters.albedo + 0.5, pose=roll),
    )
    errors = geometry_errors(wrong, batch, maps, landmarks)
    for key, expected in {
        "identity_mm": 5, "expression_mm": 10, "full_mm": 5, "pose_degrees": 10, "albedo_stddevs": 0.5
    }.items():
        torch.testing.assert_close(errors[key], torch.full((2,), float(expected)), rtol=1e-3, atol=1e-3)


def test_maps_that_are_not_decoupled_are_compared_as_a_whole(face):
    landmarks, maps, batch, predicted = face
    moved = torch.tensor([3.0, 4.0, 0.0]).view(3, 1, 1) / maps.scale
    whole = predicted._replace(
        identity_map=predicted.identity_map + predicted.expression_map + moved,
        expression_map=torch.zeros_like(predicted.expression_map),
    )
    errors = geometry_errors(whole, batch, maps, landmarks, decoupled=False)
    assert not {"identity_mm", "expression_mm"} & errors.keys()
    torch.testing.assert_close(errors["full_mm"], torch.full((2,), 5.0), rtol=1e-3, atol=1e-3)


def test_landmarks_are_compared_in_pixels_of_the_crop(face):
    landmarks, maps, batch, predicted = face
    position = normalise_position(batch.position + torch.tensor([3.0, -4.0, 0.0]), SIZE)
    wrong = predicted._replace(parameters=predicted.parameters._replace(position=position))
    errors = geometry_errors(wrong, batch, maps, landmarks)
    torch.testing.assert_close(errors["landmark_pixels"], torch.full((2,), 5.0), rtol=1e-3, atol=1e-3)
    assert (errors["pose_degrees"] < 1e-2).all()


def test_a_model_without_texture(face):
    landmarks, maps, batch, predicted = face
    bare = predicted.parameters._replace(albedo=torch.zeros(2, 0))
    errors = geometry_errors(predicted._replace(parameters=bare), batch._replace(parameters=bare), maps, landmarks)
    assert "albedo_stddevs" not in errors
