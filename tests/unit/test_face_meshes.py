import numpy as np
import pytest
from PIL import Image
from toy import toy_model

from model.evaluation.face_meshes import Photographed, mesh_in
from model.evaluation.predict import PredictedFace
from model.evaluation.videos import Frame

MODEL = toy_model()
SHAPE = MODEL.mean_shape.shape


class Faces:
    model = MODEL


class Locator:
    """Finds the face in every picture but the blue ones."""

    def square(self, path, image):
        if tuple(image[0, 0]) == (0, 0, 255):
            raise ValueError(f"no face in {path.name}")
        return 0, 0, 8


@pytest.fixture
def frames(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in ("red", "blue", "green", "broken")]
    for path in paths[:-1]:
        Image.new("RGB", (8, 8), path.stem).save(path)
    paths[-1].write_bytes(b"nothing")
    return [Frame(path) for path in paths]


@pytest.fixture(params=[True, False])
def decoupled(request, monkeypatch):
    """Whether the network is; red gives a neutral face of 1s, green of 0s, both with an expression of 10s."""
    def predict_faces(faces, photos, batch_size=16):
        for image, square in photos:
            neutral = np.full(SHAPE, image[0, 0, 0] / 255)
            yield PredictedFace(neutral, np.full(SHAPE, 10.0), np.zeros(3), np.ones(3), np.inf, request.param)

    monkeypatch.setattr("model.evaluation.face_meshes.predict_faces", predict_faces)
    return request.param


def test_the_mean_neutral_face_of_the_frames_that_show_one(frames, decoupled):
    mesh, told = Photographed(Faces, Locator()).neutral(frames, "a person")
    np.testing.assert_array_equal(mesh.vertices, np.full(SHAPE, 0.5 if decoupled else 10.5))
    np.testing.assert_array_equal(mesh.triangles, MODEL.triangles)
    assert sorted(mesh.landmarks) == list(range(68)) and mesh.name == "a person"
    assert told["frames"] == 2 and list(told["skipped"]) == ["blue.png", "broken.png"]
    assert told["skipped"]["blue.png"] == "no face in blue.png"


def test_the_whole_face_has_its_expression(frames, decoupled):
    mesh = Photographed(Faces, Locator()).whole(frames[0].path, "red")
    np.testing.assert_array_equal(mesh.vertices, np.full(SHAPE, 11.0))


def test_no_frame_with_a_face(frames, decoupled):
    with pytest.raises(ValueError, match=r"a person: no frame shows a face \(no face in blue.png\)"):
        Photographed(Faces, Locator()).neutral(frames[1:2], "a person")
    with pytest.raises(ValueError, match="no frame shows a face"):
        Photographed(Faces, Locator()).neutral([], "a person")


def test_meshes_of_other_methods(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert len(mesh_in(tmp_path, "a").vertices) == 3
    with pytest.raises(ValueError, match="b has neither .obj nor .ply"):
        mesh_in(tmp_path, "b")
