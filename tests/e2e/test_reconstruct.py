import dataclasses
import json

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from toy import toy_model
from toy_asmd import draw_face, write_toy_asmd

from asmgen.crop import face_square, square_transform
from bfm.pose import project, transform_placement
from model.checkpoint import load_checkpoint
from model.config import GeometryConfig
from model.geometry import GeometryStream
from model.reconstruct import Reconstructor, box_square, reconstruct, whole_square
from model.train_geometry import train_geometry

ENDINGS = (".glb", ".mtl", ".obj", ".ply", "_albedo.png", "_maps.png", "_overlay.png", "_parameters.json")


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    config = GeometryConfig(
        width=0.06, batch_size=4, parameter_steps=2, stream_steps=30, validation_fraction=0, learning_rate=2e-3
    )
    return train_geometry(write_toy_asmd(folder / "shards", model, 4), folder / "run", config, model, device="cpu")


@pytest.fixture
def photo(model, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(draw_face(model, 96, 0)["image"]).save(path)
    return path


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_every_file_of_a_photo(model, checkpoint, photo, tmp_path):
    out = tmp_path / "out"
    (outcome,) = reconstruct([photo], checkpoint, out, model=model, device="cpu")
    assert outcome.error == "" and outcome.image == photo
    assert sorted(path.name for path in out.iterdir()) == [f"photo{ending}" for ending in ENDINGS]
    assert sorted(outcome.files) == sorted(out.iterdir())
    face = trimesh.load(out / "photo.ply", process=False)
    (in_metres,) = trimesh.load(out / "photo.glb").geometry.values()
    np.testing.assert_allclose(in_metres.vertices * 1000, face.vertices, atol=1e-3)
    assert len(face.vertices) == len(model.mean_shape)
    described = json.loads((out / "photo_parameters.json").read_text())
    assert described["face_model_sha256"] == model.sha256
    assert [len(described[key]) for key in ("pose", "position", "light", "albedo_coeffs")] == [3, 3, 9, 4]
    # the overlay differs from the photo where the JSON says that the face is
    overlay = pixels(out / "photo_overlay.png")
    assert overlay.shape == (96, 192, 3)
    np.testing.assert_array_equal(overlay[:, :96], pixels(photo))
    changed = (overlay[:, :96] != overlay[:, 96:]).any(-1)
    placed = project(face.vertices, np.array(described["pose"]), np.array(described["position"]))
    inside = ((placed[:, :2] > 1) & (placed[:, :2] < 94)).all(1)
    columns, rows = np.round(placed[inside, :2]).astype(int).T
    assert changed[rows, columns].mean() > 0.9 and changed.any()
    assert pixels(out / "photo_maps.png").shape == (32, 96, 3)


def test_the_face_is_where_its_crop_was(model, checkpoint):
    reconstructor = Reconstructor(checkpoint, model, "cpu")

    def place(photo, square):
        face = reconstructor(Image.fromarray(photo), square)
        return face, project(face.vertices.astype(np.float64), face.pose, face.position)[:, :2]

    # the same pixels elsewhere in a larger photo
    crop = draw_face(model, 32, 1)["image"]
    here, ours = place(crop, (0, 0, 32))
    large = np.full((200, 300, 3), 128, np.uint8)
    large[70:102, 100:132] = crop
    there, theirs = place(large, (100, 70, 32))
    np.testing.assert_array_equal(there.vertices, here.vertices)
    np.testing.assert_allclose(theirs, ours + [100, 70], atol=1e-4)
    # a grey square looks the same at any size; a point of the crop lies at the middle of its doubled pixels
    grey = np.full((200, 300, 3), 128, np.uint8)
    (_, ours), (_, theirs) = place(grey, (0, 0, 32)), place(grey, (100, 70, 64))
    np.testing.assert_allclose(theirs, ours * 2 + 0.5 + [100, 70], atol=1e-4)


def test_vertices_are_those_of_the_summed_maps(model, checkpoint):
    reconstructor = Reconstructor(checkpoint, model, "cpu")
    crop = draw_face(model, 32, 1)["image"]
    face = reconstructor(Image.fromarray(crop), (0, 0, 32))
    state = load_checkpoint(checkpoint, "geometry")
    network = GeometryStream(4, 32, 0.06, batch_norm=True).eval()
    network.load_state_dict(state["networks"]["geometry"])
    with torch.no_grad():
        predicted = network(torch.tensor(crop).permute(2, 0, 1)[None] / 255)
    full_map = (predicted.identity_map + predicted.expression_map)[0].numpy()
    np.testing.assert_allclose(face.vertices, reconstructor.maps.vertices(full_map), atol=1e-4)
    assert predicted.expression_map.abs().max() > 1e-3
    np.testing.assert_allclose(face.albedo_coeffs, predicted.parameters.albedo[0], atol=1e-6)


def test_a_small_overlay_is_the_large_one_reduced(model, checkpoint, photo, tmp_path, monkeypatch):
    centres = []
    for size in (96, 48):
        monkeypatch.setattr("model.reconstruct.OVERLAY_SIZE", size)
        list(reconstruct([photo], checkpoint, tmp_path / str(size), model=model, device="cpu"))
        overlay = pixels(tmp_path / str(size) / "photo_overlay.png").astype(int)
        covered = np.abs(overlay[:, :size] - overlay[:, size:]).max(-1) > 2
        centres.append((np.argwhere(covered).mean(0) + 0.5) / size)
    assert np.abs(centres[0] - centres[1]).max() * 48 < 0.12


def test_squares(model, tmp_path):
    landmarks = np.random.default_rng(0).uniform(50, 150, (68, 2))
    (left, top), (right, bottom) = landmarks.min(0), landmarks.max(0)
    assert box_square((left, top, right, bottom)) == pytest.approx(face_square(landmarks))
    with pytest.raises(ValueError, match="left < right"):
        box_square((10, 0, 5, 5))
    assert whole_square(Image.new("RGB", (100, 60))) == (0, -20, 100)
    # the transform of the whole photo puts its middle in the middle
    pose, position = transform_placement(np.zeros(3), np.array([49.5, 29.5, 1]), square_transform((0, -20, 100), 50))
    np.testing.assert_allclose(position, [24.5, 24.5, 0.5])


def test_a_photo_that_fails_does_not_stop_the_rest(model, checkpoint, photo, tmp_path):
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    broken.write_bytes(b"no picture")
    np.save(tmp_path / "marks.npy", draw_face(model, 96, 0)["landmarks"])
    marks = [tmp_path / "marks.npy"] * 3
    first, second, third = reconstruct(
        [broken, missing, photo], checkpoint, tmp_path / "out", landmarks=marks, model=model, device="cpu"
    )
    assert "unreadable image" in first.error and first.files == ()
    assert "missing.jpg" in second.error
    assert third.error == "" and third.files[0].exists()
    # the box of the landmarks gives the same crop as the landmarks
    low, high = np.load(marks[0]).min(0), np.load(marks[0]).max(0)
    (boxed,) = reconstruct(
        [photo], checkpoint, tmp_path / "boxed", boxes=[(*low, *high)], model=model, device="cpu"
    )
    assert (tmp_path / "boxed" / "photo.ply").read_bytes() == (tmp_path / "out" / "photo.ply").read_bytes()
    (whole,) = reconstruct([photo], checkpoint, tmp_path / "whole", model=model, device="cpu")
    assert (tmp_path / "whole" / "photo.ply").read_bytes() != (tmp_path / "out" / "photo.ply").read_bytes()
    (outside,) = reconstruct(
        [photo], checkpoint, tmp_path / "out", boxes=[(500, 500, 600, 600)], model=model, device="cpu"
    )
    assert "lies outside the 96x96 image" in outside.error


def test_a_checkpoint_of_the_first_phase_has_no_face(model, checkpoint, tmp_path):
    state = load_checkpoint(checkpoint, "geometry")
    torch.save({**state, "step": 2}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="has 2 steps done, but its decoders are trained only after step 2"):
        Reconstructor(tmp_path, model, "cpu")


def test_what_is_asked_for_must_fit(model, checkpoint, photo, tmp_path):
    def attempt(images, **options):
        return list(reconstruct(images, checkpoint, tmp_path / "out", model=model, device="cpu", **options))

    with pytest.raises(ValueError, match="one entry a photo, got 2 for 1 photos"):
        attempt([photo], boxes=[(0, 0, 1, 1)] * 2)
    with pytest.raises(ValueError, match="not both"):
        attempt([photo], boxes=[(0, 0, 1, 1)], landmarks=[photo])
    with pytest.raises(ValueError, match="two photos are called photo"):
        attempt([photo, tmp_path / "elsewhere" / "photo.jpg"])
    with pytest.raises(ValueError, match="the face model must be 'toy'"):
        Reconstructor(checkpoint, dataclasses.replace(model, mean_shape=model.mean_shape * 1.01), "cpu")
