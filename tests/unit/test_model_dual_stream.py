import dataclasses
import math

import numpy as np
import pytest
import torch
from toy import toy_model
from toy_asmd import draw_face, write_toy_asmd
from toy_ftd import write_toy_ftd

from bfm.pose import project
from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import GeometryConfig, TextureConfig
from model.dual_stream import draw_face as draw
from model.dual_stream import load_dual_stream
from model.geometry import GeometryStream, denormalise_position
from model.train_geometry import load_geometry_stream, train_geometry
from model.train_texture import load_texture_stream, train_texture

pytestmark = pytest.mark.usefixtures("without_curves")
SIZE = 32


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def runs(model, tmp_path_factory):
    """Hardly trained streams of one face model."""
    folder = tmp_path_factory.mktemp("runs")
    geometry = GeometryConfig(
        width=0.06, batch_size=4, parameter_steps=1, stream_steps=4, validation_fraction=0, learning_rate=2e-3,
        eta_a=1, eta_s=0.05, eta_r=1e-3,  # faces stay about the mean one, whose relief the sizes are compared with
    )
    texture = TextureConfig(
        width=0.06, batch_size=4, steps=2, regions=4, validation_fraction=0, landmark_branch=False, omega_c=0.0
    )
    train_geometry(write_toy_asmd(folder / "asmd", model, 4, SIZE), folder / "geometry", geometry, model, "cpu")
    train_texture(write_toy_ftd(folder / "ftd", model, 4, SIZE), folder / "texture", texture, model, "cpu")
    return {"geometry": folder / "geometry", "texture": folder / "texture"}


@pytest.fixture
def photo(model):
    return torch.tensor(draw_face(model, SIZE, 5)["image"]).permute(2, 0, 1)[None] / 255


def load(runs, model, *names, **options):
    return load_dual_stream(runs["geometry"], *(runs[name] for name in names), model=model, device="cpu", **options)


def test_a_geometry_run_alone_has_the_linear_albedo(runs, model, photo):
    trained = load(runs, model)
    face = trained.network(photo)
    predicted = load_geometry_stream(runs["geometry"]).network(photo)
    assert torch.equal(face.identity_map, predicted.identity_map)
    assert torch.equal(face.expression_map, predicted.expression_map)
    assert all(map(torch.equal, face.parameters, predicted.parameters))
    albedo = model.albedo(predicted.parameters.albedo[0].numpy())
    np.testing.assert_allclose(face.albedo_map[0], np.clip(trained.maps.chart.unwrap(albedo), 0, 1), atol=1e-6)
    assert trained.has_texture and trained.metadata["kind"] == "geometry"
    assert trained.metadata["camera_distance"] == trained.renderer.camera_distance == math.inf
    assert not trained.network.training and not any(p.requires_grad for p in trained.network.parameters())


def test_the_generator_is_given_the_predicted_linear_albedo(runs, model, photo):
    trained = load(runs, model, "texture")
    face = trained.network(photo)
    stylised = load_texture_stream(runs["texture"]).stylise(load(runs, model).network(photo).albedo_map, photo)
    assert torch.equal(face.albedo_map, stylised.albedo_map)
    assert (face.albedo_map[..., torch.tensor(~trained.maps.chart.mask)] == 0).all()
    assert trained.metadata["kind"] == "geometry+texture"


@pytest.mark.parametrize("names", ((), ("texture",)))
def test_the_albedo_map_has_gradient_to_the_coefficients(runs, model, photo, names):
    network = load(runs, model, *names).network
    network.geometry.requires_grad_(True)
    face = network(photo)
    gradient, = torch.autograd.grad(face.albedo_map.sum(), face.parameters.albedo)
    assert (gradient != 0).all()


def test_faces_are_drawn_by_their_camera(runs, model, photo):
    for distance in (math.inf, 600.0):
        trained = load(runs, model, camera_distance=distance)
        face = trained.network(photo)
        rendered = draw(trained.renderer, face)
        vertices = trained.maps.vertices((face.identity_map + face.expression_map)[0].numpy())
        position = denormalise_position(face.parameters.position, SIZE)[0].numpy()
        wanted = project(vertices, face.parameters.pose[0].numpy(), position, distance)[model.landmarks, :2]
        np.testing.assert_allclose(rendered.landmarks[0], wanted, atol=1e-3)
        assert rendered.image.shape == (1, 3, SIZE, SIZE) and rendered.mask.any()
        assert trained.metadata["camera_distance"] == distance


def test_faces_keep_their_size_under_another_camera(runs, model, photo):
    far, near = (load(runs, model, camera_distance=distance) for distance in (math.inf, 600.0))
    middle = model.mean_shape[:, 2].mean()
    ours, theirs = (trained.network(photo).parameters.position[0] for trained in (near, far))
    np.testing.assert_allclose(ours[:2], theirs[:2])
    assert float(ours[2] - theirs[2]) == pytest.approx(math.log(1 - middle / 600), abs=1e-6)
    # a face that looks at the camera is drawn as large as before, but for what its relief changes
    face = far.network(photo)
    upright = face.parameters._replace(pose=torch.zeros(1, 3))
    areas = [
        draw(trained.renderer, face._replace(parameters=upright._replace(position=position[None]))).mask.sum()
        for trained, position in ((near, ours), (far, theirs))
    ]
    assert abs(areas[0] / areas[1] - 1) < 0.06
    with pytest.raises(ValueError, match="must be above 96 mm, where the face is, got 50"):
        load(runs, model, camera_distance=50.0)


def test_a_model_without_texture_has_its_mean(runs, photo, tmp_path):
    grey = toy_model(albedo_modes=0)
    state = load_checkpoint(runs["geometry"], "geometry")
    network = GeometryStream(0, SIZE, 0.06, batch_norm=True)
    metadata = {**state["metadata"], "albedo_modes": 0, "face_model_sha256": grey.sha256}
    save_checkpoint(tmp_path, "geometry", 5, state["config"], metadata, {"geometry": network}, {})
    trained = load_dual_stream(tmp_path, model=grey, device="cpu")
    albedo_map = trained.network(photo).albedo_map[0]
    np.testing.assert_allclose(albedo_map, trained.maps.chart.unwrap(grey.mean_albedo), atol=1e-6)
    assert not trained.has_texture


def altered(run, kind, folder, config=None, **metadata):
    """A copy of a run whose checkpoint says something else of itself."""
    folder.mkdir()
    state = load_checkpoint(run, kind)
    save_checkpoint(folder, kind, state["step"], config or state["config"], {**state["metadata"], **metadata}, {}, {})
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save({**saved, "networks": state["networks"]}, folder / "checkpoint.pt")
    return folder


def test_runs_that_do_not_fit(runs, model, tmp_path):
    for name, change, wanted in (
        ("model", {"face_model_sha256": "0123456789abcdef"}, f"same face model as .*, {model.sha256[:12]}, got 012345"),
        ("chart", {"chart": "harmonic"}, "of the same chart as .*, cylindrical, got harmonic; train both on shards"),
        ("lit", {"lit": True}, r"hold the light of their photos \(build ftd --lit\)"),
    ):
        texture = altered(runs["texture"], "texture", tmp_path / name, **change)
        with pytest.raises(ValueError, match=wanted):
            load_dual_stream(runs["geometry"], texture, model, "cpu")
    early = load_checkpoint(runs["geometry"], "geometry")["config"] | {"parameter_steps": 5}
    unfinished = altered(runs["geometry"], "geometry", tmp_path / "early", early)
    with pytest.raises(ValueError, match="has 5 steps done, but its decoders are trained only after step 5"):
        load_dual_stream(unfinished, model=model)
    with pytest.raises(ValueError, match="of kind 'fusion' or 'geometry', got version 1, of kind 'texture'; give a run "
                                         "of `dualface train fusion` or `dualface train geometry`"):
        load_dual_stream(runs["texture"], model=model)
    with pytest.raises(ValueError, match="the face model must be 'toy'"):
        load_dual_stream(runs["geometry"], model=dataclasses.replace(model, mean_shape=model.mean_shape * 1.01))
