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
from model.geometry import Parameters, normalise_position
from model.refine import refine
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
