import dataclasses
import json
from threading import Event

import numpy as np
import pytest
import torch
import trimesh
from click.testing import CliRunner
from PIL import Image
from toy import toy_model
from toy_asmd import draw_face, write_toy_asmd

import bfm.rasterize
from asmgen.crop import square_transform
from asmgen.locate import Placement
from bfm.model_file import save_model
from bfm.pose import project, rotation_matrix, transform_points
from bfm.render import vertex_normals
from cli.main import main
from model.checkpoint import load_checkpoint
from model.config import GeometryConfig
from model.dual_stream import load_dual_stream
from model.face_files import FaceWriter, name_variants
from model.geometry import GeometryStream
from model.landmarks import landmark_heatmaps
from model.photos import PhotoLocator, find_photos
from model.reconstruct import Reconstructor, face_in, reconstruct
from model.refine import refine
from model.train_geometry import train_geometry
from model.views import PlacedFace

ENDINGS = (
    ".glb", ".mtl", ".obj", ".ply", "_albedo.png", "_depth.png", "_lit.glb", "_maps.png", "_normals.png",
    "_overlay.png", "_parameters.json",
)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    config = GeometryConfig(
        width=0.06, batch_size=4, parameter_steps=2, stream_steps=30, validation_fraction=0, learning_rate=2e-3,
        eta_a=1, eta_s=0.05, eta_r=1e-3,  # in so few steps the pose is learned, and faces look out of the picture
    )
    return train_geometry(write_toy_asmd(folder / "shards", model, 4), folder / "run", config, model, device="cpu")


@pytest.fixture(scope="module")
def faces(model, checkpoint):
    return load_dual_stream(checkpoint, model=model, device="cpu")


@pytest.fixture
def photo(model, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(draw_face(model, 96, 0)["image"]).save(path)
    return path


def run(paths, faces, out, batch_size=8, refine_steps=0, files={}, **placing):
    """Reconstruct as the command does, to the end."""
    photos = find_photos(paths, out)
    reconstructor = Reconstructor(faces, refine_steps)
    locator = PhotoLocator(photos, **(placing or {"whole": True}))
    return list(reconstruct(photos, locator, reconstructor, FaceWriter(faces, **files), out, batch_size))


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def shape_of(path):
    return trimesh.load(path, process=False).vertices


def apart(shown, points, model):
    """Pixels in which a mask differs from the triangles between (V, 2) points; a few may, as files round vertices."""
    triangles, _ = bfm.rasterize.rasterize(points, np.zeros(len(points)), model.triangles, *shown.shape)
    return ((triangles >= 0) != shown).sum()


def test_every_file_of_a_photo(model, faces, photo, tmp_path):
    out = tmp_path / "out"
    (outcome,) = run([photo], faces, out)
    assert outcome.error == "" and outcome.photo == photo
    assert sorted(path.name for path in out.iterdir()) == [f"photo{ending}" for ending in ENDINGS]
    assert sorted(outcome.files) == sorted(out.iterdir())
    vertices = shape_of(out / "photo.ply")
    assert len(vertices) == len(model.mean_shape)
    for name in ("photo.glb", "photo_lit.glb"):
        (in_metres,) = trimesh.load(out / name).geometry.values()
        np.testing.assert_allclose(in_metres.vertices * 1000, vertices, atol=1e-3)
    described = json.loads((out / "photo_parameters.json").read_text())
    assert described["face_model_sha256"] == model.sha256
    assert [len(described[key]) for key in ("pose", "position", "light", "albedo_coeffs", "landmarks")] == [
        3, 3, 9, 4, 68
    ]
    assert (described["checkpoint"], described["camera_distance"]) == ("geometry", None)
    assert described["placed_by"] == "whole photo" and described["square"] == [0, 0, 96]
    assert all(f"{key}_units" in described for key in ("pose", "position", "light", "normals", "depth", "pictures"))
    # photo, rendering, clay; both differ from the photo where the JSON says that the face is
    overlay = pixels(out / "photo_overlay.png")
    assert overlay.shape == (96, 288, 3)
    np.testing.assert_array_equal(overlay[:, :96], pixels(photo))
    placed = project(vertices, np.array(described["pose"]), np.array(described["position"]))
    np.testing.assert_allclose(placed[model.landmarks, :2], described["landmarks"], atol=2e-3)
    shown = pixels(out / "photo_depth.png") > 0
    assert apart(shown, placed[:, :2], model) <= 3 < 0.1 * shown.sum()
    for panel in (overlay[:, 96:192], overlay[:, 192:]):
        changed = (overlay[:, :96] != panel).any(-1)
        assert changed[shown].mean() > 0.99 and not changed[~shown].any()
    difference = np.abs(overlay[:, :96].astype(float) - overlay[:, 96:192])[shown].mean() / 255
    assert described["photometric_error"] == pytest.approx(difference, abs=1e-6)
    # the depth of the vertices, along the axis that the pose turns to the camera
    inside = ((placed[:, :2] > 1) & (placed[:, :2] < 94)).all(1)
    columns, rows = np.round(placed[inside, :2]).astype(int).T
    depth = pixels(out / "photo_depth.png").astype(float)
    frontmost = placed[inside, 2].argmax()
    found = (depth[rows[frontmost], columns[frontmost]] - 32768) / 100
    assert found == pytest.approx(placed[inside, 2].max() / described["position"][2], abs=3)
    normals = pixels(out / "photo_normals.png")
    assert (normals[~shown] == 0).all()
    length = np.linalg.norm(normals[shown] / 127.5 - 1, axis=-1)
    np.testing.assert_allclose(length, 1, atol=0.01)
    assert pixels(out / "photo_maps.png").shape == (32, 96, 3)


def test_the_face_is_where_its_crop_was(model, faces, tmp_path):
    reconstructor = Reconstructor(faces)

    def place(photo, square):
        Image.fromarray(photo).save(tmp_path / "placed.png")

        class Given:
            def place(self, path, image):
                return Placement(square, "box")

        (face, _), = reconstructor([reconstructor.crop(tmp_path / "placed.png", Given())])
        shape = faces.maps.vertices(face.maps.identity_map + face.maps.expression_map)
        return shape, project(shape.astype(np.float64), face.maps.pose, face.maps.position)[:, :2]

    # the same pixels elsewhere in a larger photo
    crop = draw_face(model, 32, 1)["image"]
    here, ours = place(crop, (0, 0, 32))
    large = np.full((200, 300, 3), 128, np.uint8)
    large[70:102, 100:132] = crop
    there, theirs = place(large, (100, 70, 32))
    np.testing.assert_array_equal(there, here)
    np.testing.assert_allclose(theirs, ours + [100, 70], atol=1e-4)
    # a grey square looks the same at any size; a point of the crop lies at the middle of its doubled pixels
    grey = np.full((200, 300, 3), 128, np.uint8)
    (_, ours), (_, theirs) = place(grey, (0, 0, 32)), place(grey, (100, 70, 64))
    np.testing.assert_allclose(theirs, ours * 2 + 0.5 + [100, 70], atol=1e-4)


def test_vertices_and_colours_are_those_of_the_maps(model, checkpoint, faces, tmp_path):
    crop = draw_face(model, 32, 1)["image"]
    Image.fromarray(crop).save(tmp_path / "crop.png")
    run([tmp_path / "crop.png"], faces, tmp_path / "out")
    state = load_checkpoint(checkpoint, "geometry")
    network = GeometryStream(4, 32, 0.06, batch_norm=True).eval()
    network.load_state_dict(state["networks"]["geometry"])
    with torch.no_grad():
        predicted = network(torch.tensor(crop).permute(2, 0, 1)[None] / 255)
    full_map = (predicted.identity_map + predicted.expression_map)[0].numpy()
    np.testing.assert_allclose(shape_of(tmp_path / "out" / "crop.ply"), faces.maps.vertices(full_map), atol=1e-4)
    assert predicted.expression_map.abs().max() > 1e-3
    described = json.loads((tmp_path / "out" / "crop_parameters.json").read_text())
    np.testing.assert_allclose(described["albedo_coeffs"], predicted.parameters.albedo[0], atol=1e-6)
    # the texture is the albedo map itself
    chart = faces.maps.chart
    wanted = np.clip(chart.unwrap(faces.model.albedo(predicted.parameters.albedo[0].numpy())), 0, 1).transpose(1, 2, 0)
    texture = pixels(tmp_path / "out" / "crop_albedo.png") / 255
    np.testing.assert_allclose(texture[chart.mask], wanted[chart.mask], atol=0.502 / 255)


def test_batches_do_not_change_what_is_written(model, faces, tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name, seed in (("b", 1), ("a", 0), ("deep/a", 2)):
        Image.fromarray(draw_face(model, 32, seed)["image"]).save(folder / f"{name}.png")
    for batch_size in (1, 8):
        outcomes = run([folder], faces, tmp_path / str(batch_size), batch_size)
        assert [str(outcome.photo.relative_to(folder)) for outcome in outcomes] == ["a.png", "b.png", "deep/a.png"]
    alone, together = (tmp_path / name for name in "18")
    for name in ("a", "b", "deep/a"):
        np.testing.assert_allclose(shape_of(alone / f"{name}.ply"), shape_of(together / f"{name}.ply"), atol=1e-3)
    assert np.abs(shape_of(alone / "a.ply") - shape_of(alone / "deep/a.ply")).max() > 0.01


def test_what_is_read_ahead_and_written_behind_is_in_order_and_stops_with_an_error(model, faces, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abcdefghij":
        Image.fromarray(draw_face(model, 32, ord(name))["image"]).save(folder / f"{name}.png")
    photos, written = find_photos([folder], tmp_path / "out"), []
    reconstructor, locator = Reconstructor(faces), PhotoLocator(photos, whole=True)
    first_may_end = Event()

    class Writer(FaceWriter):
        def write(self, face, stem):
            if stem.name == "a":  # the first to begin is the last of its batch to end
                assert first_may_end.wait(60)
            written.append(stem.name)
            first_may_end.set()
            if stem.name == "c":
                raise OSError(28, "No space left on device")
            return super().write(face, stem)

    outcomes = reconstruct(photos, locator, reconstructor, Writer(faces), tmp_path / "out", 2)
    names = []
    with pytest.raises(OSError, match="No space left"):
        for outcome in outcomes:
            names.append(outcome.photo.stem)
    assert names == list("ab") and written[:2] == list("ba")
    assert not set("ghij") & set(written)  # their batches were never begun


def test_the_landmarks_of_a_file_beside_the_photo_place_it(model, faces, photo, tmp_path):
    face = draw_face(model, 96, 0)
    np.save(photo.with_suffix(".npy"), face["landmarks"])
    (beside,) = run([photo], faces, tmp_path / "beside", landmarks=())
    assert beside.error == ""
    low, high = face["landmarks"].min(0), face["landmarks"].max(0)
    (boxed,) = run([photo], faces, tmp_path / "boxed", boxes=[(*low, *high)])
    assert (tmp_path / "boxed" / "photo.ply").read_bytes() == (tmp_path / "beside" / "photo.ply").read_bytes()
    (whole,) = run([photo], faces, tmp_path / "whole")
    assert (tmp_path / "whole" / "photo.ply").read_bytes() != (tmp_path / "beside" / "photo.ply").read_bytes()


def test_a_photo_that_fails_does_not_stop_the_rest(model, faces, photo, tmp_path):
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    broken.write_bytes(b"no picture")
    outside = tmp_path / "outside.png"
    outside.write_bytes(photo.read_bytes())
    boxes = [(10, 10, 90, 90), (10, 10, 90, 90), (500, 500, 600, 600), (10, 10, 90, 90)]
    for batch_size in (1, 3, 4):
        first, second, third, fourth = run(
            [broken, missing, outside, photo], faces, tmp_path / "out", batch_size, boxes=boxes
        )
        assert "unreadable image" in first.error and first.files == ()
        assert "missing.jpg" in second.error
        assert "lies outside the 96x96 image" in third.error
        assert fourth.error == "" and fourth.files[0].exists()


def test_a_face_that_cannot_be_refined_or_written_does_not_stop_the_rest(model, faces, tmp_path, monkeypatch):
    def picky(face, image, renderer, steps, **networks):
        if (image > 0.99).all((1, 2, 3)).any():
            raise ValueError("the light needs unsaturated texels")
        return refine(face, image, renderer, steps, **networks)

    class Writer(FaceWriter):
        def write(self, face, stem):
            if stem.name == "b":
                raise ValueError("points must be finite")
            return super().write(face, stem)

    monkeypatch.setattr("model.reconstruct.refine", picky)
    for name, seed in (("a", 0), ("b", 1), ("d", 2)):
        Image.fromarray(draw_face(model, 32, seed)["image"]).save(tmp_path / f"{name}.png")
    Image.new("RGB", (32, 32), "white").save(tmp_path / "c.png")
    photos = find_photos([tmp_path], tmp_path / "out")
    outcomes = list(reconstruct(
        photos, PhotoLocator(photos, whole=True), Reconstructor(faces, 1), Writer(faces), tmp_path / "out"
    ))
    assert [outcome.photo.stem for outcome in outcomes] == list("abcd")
    errors = [outcome.error for outcome in outcomes]
    assert errors == ["", "points must be finite", "the light needs unsaturated texels", ""]
    assert [len(outcome.photometric) for outcome in outcomes] == [2, 0, 0, 2]
    with pytest.raises(ValueError, match=r"c\.png: the light needs"):
        face_in(tmp_path / "c.png", Reconstructor(faces, 1), PhotoLocator([], whole=True))


def test_files_appear_only_when_all_are_whole(faces, photo, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "photo.obj").write_text("of an earlier run")

    def full(path, frames):
        path.write_bytes(b"GIF89a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.face_files.write_gif", full)
    with pytest.raises(OSError, match="No space left"):
        run([photo], faces, out, files={"turning": True})
    assert [path.name for path in out.iterdir()] == ["photo.obj"]
    assert (out / "photo.obj").read_text() == "of an earlier run"


def test_expression_is_moved_between_faces(model, faces, photo, tmp_path):
    other = tmp_path / "other.png"
    Image.fromarray(draw_face(model, 64, 3)["image"]).save(other)
    reconstructor, locator = Reconstructor(faces), PhotoLocator((), whole=True)
    ours, theirs = (face_in(path, reconstructor, locator) for path in (photo, other))
    (outcome,) = run([photo], faces, tmp_path / "out", files={"neutral": True, "other": theirs, "meshes": ("ply",)})
    written = {path.name for path in outcome.files}
    assert {"photo.ply", "photo_neutral.ply", "photo_swapped.ply", "photo_expressions.png"} <= written
    assert not any(name.endswith((".obj", ".glb")) for name in written)
    meshes = {f"photo{variant}.ply" for variant in name_variants(True, True)} - {"photo_lit.ply"}  # a GLB only
    assert {name for name in written if name.endswith(".ply")} == meshes
    assert name_variants() == ("", "_lit")
    vertices, maps = faces.maps.vertices, ours.maps
    for name, full_map in (
        ("photo_neutral", maps.identity_map), ("photo_swapped", maps.identity_map + theirs.maps.expression_map)
    ):
        np.testing.assert_allclose(shape_of(tmp_path / "out" / f"{name}.ply"), vertices(full_map), atol=1e-3)
    assert np.abs(theirs.maps.expression_map - maps.expression_map).max() > 1e-3
    # photo, face, neutral, the other's photo, swapped; clay below
    strip = pixels(tmp_path / "out" / "photo_expressions.png")
    assert strip.shape == (192, 3 * 96 + 192 // 2 + 96, 3)
    np.testing.assert_array_equal(strip[:96, :96], pixels(photo))
    (outcome,) = run([photo], faces, tmp_path / "self", files={"other": ours, "meshes": ("ply",)})
    np.testing.assert_allclose(
        shape_of(tmp_path / "self" / "photo_swapped.ply"), shape_of(tmp_path / "self" / "photo.ply"), atol=1e-4
    )


def test_refinement_comes_nearer_to_the_photo(model, faces, photo, tmp_path):
    np.save(photo.with_suffix(".npy"), draw_face(model, 96, 0)["landmarks"])
    (plain,) = run([photo], faces, tmp_path / "plain", landmarks=())
    (refined,) = run([photo], faces, tmp_path / "refined", refine_steps=20, landmarks=())
    before, after = refined.photometric
    assert plain.photometric == () and after < 0.7 * before
    errors = [json.loads((tmp_path / name / "photo_parameters.json").read_text())["photometric_error"]
              for name in ("plain", "refined")]
    assert errors[1] < 0.8 * errors[0]
    assert f"photometric error {before:.4f}, refined {after:.4f}" in str(refined)


def test_refinement_is_given_the_landmarks_of_the_file(model, faces, photo, tmp_path, monkeypatch):
    def watched(face, image, renderer, steps, *, landmarks, **networks):
        seen.append(landmarks.clone())
        return refine(face, image, renderer, steps, landmarks=landmarks, **networks)

    seen = []
    monkeypatch.setattr("model.reconstruct.refine", watched)
    face, other = draw_face(model, 96, 0), tmp_path / "other.png"
    np.save(photo.with_suffix(".npy"), face["landmarks"])
    other.write_bytes(photo.read_bytes())
    locator = PhotoLocator([], landmarks=())
    crop = Reconstructor(faces).crop(photo, locator)
    to_crop = square_transform(crop.placement.square, 32)

    class Both:  # one whose file is beside it, and one of which nothing is known but where the network puts the face
        def place(self, path, image):
            return locator.place(path, image) if path == photo else crop.placement._replace(landmarks=None)

    reconstructor = Reconstructor(faces, 1)
    reconstructor([reconstructor.crop(path, Both()) for path in (photo, other)])
    points = transform_points(face["landmarks"].astype(np.float64), to_crop)
    np.testing.assert_allclose(seen[0][0], points, atol=1e-4)
    plain = Reconstructor(faces)([crop])[0][0].maps
    shape = faces.maps.vertices(plain.identity_map + plain.expression_map)[model.landmarks].astype(np.float64)
    found = transform_points(project(shape, plain.pose, plain.position)[:, :2], to_crop)
    np.testing.assert_allclose(seen[0][1], found, atol=1e-3)
    # with a landmark network those that it finds, but for the known ones
    there = torch.rand(2, 68, 2) * 20 + 5

    class Finds(torch.nn.Module):
        def forward(self, image):
            return [None, landmark_heatmaps(there, 32)]

    monkeypatch.setattr(faces.network, "landmarks", Finds())
    reconstructor([reconstructor.crop(path, Both()) for path in (photo, other)])
    np.testing.assert_allclose(seen[1][0], points, atol=1e-4)
    np.testing.assert_allclose(seen[1][1], there[1], atol=0.05)


def test_pictures_show_the_part_of_the_photo_where_the_face_is(model, faces, tmp_path):
    face, large = draw_face(model, 450, 0), np.full((900, 1200, 3), 128, np.uint8)
    large[400:850, 650:1100] = face["image"]
    path = tmp_path / "large.png"
    Image.fromarray(large).save(path)
    (low, high) = (bound(face["landmarks"], 0) + [650, 400] for bound in (np.min, np.max))
    run([path], faces, tmp_path, boxes=[(*low, *high)])
    described = json.loads((tmp_path / "large_parameters.json").read_text())
    transform = np.array(described["pictures"])
    shown = pixels(tmp_path / "large_depth.png") > 0
    picture = pixels(tmp_path / "large_overlay.png")[:, :shown.shape[1]]
    assert max(shown.shape) <= 512 and transform[0, 0] < 1
    # the same pixels, and the face over them
    rows, columns = 700, 850
    column, row = np.rint(transform_points(np.array([[columns, rows]], float), transform)[0]).astype(int)
    assert np.abs(picture[row, column].astype(int) - large[rows, columns]).max() < 12
    placed = project(shape_of(tmp_path / "large.ply"), np.array(described["pose"]), np.array(described["position"]))
    points = transform_points(placed[:, :2], transform)
    assert apart(shown, points, model) <= 3 < 0.2 * shown.sum()


def test_the_shading_is_of_unit_normals_in_camera_axes(model, faces):
    writer = FaceWriter(faces)
    pose = np.array([0.3, -0.5, 0.2])
    shading = [
        writer.shading_map(PlacedFace(model.mean_shape, model.mean_albedo, np.eye(9)[band], pose, np.ones(3)))
        for band in (3, 1, 2)
    ]
    normals = np.stack(shading, -1)[faces.maps.chart.mask] / np.sqrt(3 / (4 * np.pi))  # x, y, z
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    at_vertices = vertex_normals(model.mean_shape, model.triangles) @ rotation_matrix(pose).T
    np.testing.assert_allclose(normals.mean(0), at_vertices.mean(0), atol=0.1)


def test_the_camera_of_the_network_draws_and_is_told(model, checkpoint, faces, photo, tmp_path):
    near = load_dual_stream(checkpoint, model=model, device="cpu", camera_distance=400.0)
    for name, trained in (("far", faces), ("near", near)):
        run([photo], trained, tmp_path / name)
    described = json.loads((tmp_path / "near" / "photo_parameters.json").read_text())
    assert described["camera_distance"] == 400
    vertices = shape_of(tmp_path / "near" / "photo.ply")
    np.testing.assert_array_equal(vertices, shape_of(tmp_path / "far" / "photo.ply"))
    placed = project(vertices, np.array(described["pose"]), np.array(described["position"]), 400.0)
    np.testing.assert_allclose(placed[model.landmarks, :2], described["landmarks"], atol=2e-3)
    shown = pixels(tmp_path / "near" / "photo_depth.png") > 0
    for distance, fits in ((400.0, True), (np.inf, False)):
        placed = project(vertices, np.array(described["pose"]), np.array(described["position"]), distance)
        assert (apart(shown, transform_points(placed[:, :2], np.array(described["pictures"])), model) <= 3) == fits


def test_a_checkpoint_of_the_first_phase_has_no_face(model, checkpoint, tmp_path):
    state = load_checkpoint(checkpoint, "geometry")
    torch.save({**state, "step": 2}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="has 2 steps done, but its decoders are trained only after step 2"):
        load_dual_stream(tmp_path, model=model, device="cpu")


def test_the_face_model_must_be_the_network_s(model, checkpoint):
    with pytest.raises(ValueError, match="the face model must be 'toy'"):
        other = dataclasses.replace(model, mean_shape=model.mean_shape * 1.01)
        load_dual_stream(checkpoint, model=other, device="cpu")


def test_the_command(model, checkpoint, tmp_path):
    save_model(model, tmp_path / "toy.h5")
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for seed in range(2):
        face = draw_face(model, 64, seed)
        Image.fromarray(face["image"]).save(folder / f"face{seed}.png")
        np.save(folder / f"face{seed}.npy", face["landmarks"])
    (folder / "broken.jpg").write_bytes(b"")
    result = CliRunner().invoke(main, [
        "reconstruct", str(folder), "--checkpoint", str(checkpoint), "-o", str(out), "--mesh", "glb", "--turntable",
        "--neutral", "--swap-expression", str(folder / "face1.png"), "--refine", "2", "--camera-distance", "inf",
        "--face-model", str(tmp_path / "toy.h5"), "--device", "cpu",
    ])
    assert result.exit_code == 1, result.output
    assert "broken.jpg: unreadable image" in result.stderr and "1 of 3 photos failed" in result.stderr
    assert result.stdout.count("photometric error") == 2 and "broken" not in result.stdout
    endings = (
        ".glb", "_depth.png", "_expressions.png", "_lit.glb", "_maps.png", "_neutral.glb", "_normals.png",
        "_overlay.png", "_parameters.json", "_swapped.glb", "_turntable.gif",
    )
    assert sorted(path.name for path in out.iterdir()) == [
        "command.toml", *(f"face{k}{ending}" for k in range(2) for ending in endings)
    ]
    with Image.open(out / "face0_turntable.gif") as turning:
        assert (turning.n_frames, turning.info["loop"]) == (24, 0)
    alone = CliRunner().invoke(main, [
        "reconstruct", str(folder / "face0.png"), "--checkpoint", str(checkpoint), "-o", str(out),
        "--face-model", str(tmp_path / "toy.h5"), "--parsing", str(folder / "broken.jpg"),
    ])
    assert alone.exit_code == 2 and "--refine" in alone.output
