"""Analysis by synthesis on real photos, from the face model fitted to their landmarks."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from asmgen.crop import crop_image, face_square, square_transform
from asmgen.maps import AttributeMaps
from asmgen.refit import Refitter
from asmgen.w300lp import find_samples, read_sample
from bfm.charts import make_chart
from bfm.open_face import open_face_model
from bfm.pose import transform_placement, transform_points
from model.dual_stream import Face, draw_face
from model.geometry import Parameters, denormalise_position, normalise_position
from model.refine import placed_by_landmarks, refine
from model.render import FaceRenderer

SIZE = 64
ROOT = Path(os.environ.get("DUALFACE_REAL_DATA", "."))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("DUALFACE_REAL_DATA" not in os.environ, reason="DUALFACE_REAL_DATA names no real files"),
]


def test_photos_come_nearer_and_the_landmarks_stay():
    """A cap, a spotlight and sunglasses, which a weak alignment loss lets pull the face away."""
    model = open_face_model()
    face_model = model.face_only()
    maps = AttributeMaps.from_model(face_model, make_chart(face_model, size=SIZE))
    renderer, refitter = FaceRenderer(face_model, maps), Refitter(model)
    rows = []
    for entry in find_samples(ROOT / "aflw2000_3d")[6:9]:
        sample = read_sample(entry, None)
        fit, square = refitter.fit(sample.image, sample.landmarks, sample.landmark_kind), face_square(sample.landmarks)
        transform = square_transform(square, SIZE)
        pose, position = transform_placement(fit.pose.astype(float), fit.position.astype(float), transform)
        rows.append((
            crop_image(sample.image, square, SIZE).transpose(2, 0, 1) / 255,
            transform_points(sample.landmarks, transform),
            maps.identity_map(fit.id_coeffs[None])[0], maps.expression_map(fit.exp_coeffs[None])[0],
            maps.chart.unwrap(face_model.albedo(fit.albedo_coeffs)).clip(0, 1), fit.albedo_coeffs, fit.light, pose,
            position,
        ))
    image, labels, *parts = (torch.tensor(np.stack(part), dtype=torch.float32) for part in zip(*rows))
    start = Face(*parts[:3], Parameters(*parts[3:6], normalise_position(parts[6], SIZE)))
    refined = refine(start, image, renderer, 20, maps=maps, landmarks=labels)
    inner = [
        (draw_face(renderer, face).landmarks - labels)[:, 17:].norm(dim=-1).mean(1) for face in (start, refined.face)
    ]
    print(refined.before, refined.after, *inner)
    assert (refined.after < 0.9 * refined.before).all()
    assert inner[1].max() < 0.5  # pixels of 64


def test_a_frontal_mean_face_is_turned_to_photos_of_every_yaw():
    face_model = open_face_model().face_only()
    maps = AttributeMaps.from_model(face_model, make_chart(face_model, size=SIZE))
    samples = [read_sample(entry, None) for entry in find_samples(ROOT / "aflw2000_3d")]
    labels = torch.tensor(np.stack([
        transform_points(sample.landmarks, square_transform(face_square(sample.landmarks), SIZE)) for sample in samples
    ]), dtype=torch.float32)
    count = len(samples)
    zeros = [torch.zeros(count, size) for size in (0, 9, 3)]
    place = normalise_position(torch.tensor([[SIZE / 2, SIZE / 2, 0.2]]).repeat(count, 1), SIZE)
    start = Face(
        torch.tensor(maps.identity_map(np.zeros((count, len(face_model.id_basis)), np.float32))),
        *torch.zeros(2, count, 3, SIZE, SIZE), Parameters(*zeros, place),
    )
    renderer = FaceRenderer(face_model, maps, 1000.0)
    placed = placed_by_landmarks(start, labels, renderer)
    vertices = renderer.vertices(placed.identity_map)
    pose, position = placed.parameters.pose, denormalise_position(placed.parameters.position, SIZE)
    found = renderer.project_landmarks(vertices, pose, position)
    side = (labels.amax(1) - labels.amin(1)).prod(1).sqrt()
    errors = (found - labels).norm(dim=-1).mean(1) / side
    print(errors, pose[:, 1])
    assert errors.max() < 0.042 and errors.mean() < 0.03 and pose[:, 1].abs().max() > 1.2
