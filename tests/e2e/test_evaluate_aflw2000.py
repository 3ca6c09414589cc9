"""`dualface evaluate aflw2000` on drawn faces in 300W-LP's layout, whose truth is known, and on given landmarks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
from click.testing import CliRunner
from PIL import Image
from toy_asmd import write_toy_asmd
from toy_tree import MODEL, truth, write_tree

from asmgen.images import read_photo
from asmgen.refit import LandmarkFitter
from bfm.model_file import save_model
from bfm.pose import project, rotation_matrix
from cli.main import main
from model.config import GeometryConfig
from model.dual_stream import load_dual_stream
from model.evaluation.annotations import read_annotations
from model.evaluation.dense import dense_nme
from model.evaluation.nme import landmark_nme
from model.evaluation.predict import predict_faces
from model.evaluation.scores import FITTED_MEAN_FACE, MEAN_FACE, score_network
from model.photos import PhotoLocator, find_photos
from model.reconstruct import Reconstructor
from model.train_geometry import train_geometry

GOOD = [f"AFW/AFW_{number}_0" for number in (0, 1, 2, 4)] + [f"HELEN/HELEN_{number}_0" for number in (0, 1)]
FAILED = {
    "AFW/AFW_3_0": "unreadable image", "AFW/AFW_5_0": "damaged annotation", "HELEN/HELEN_2_0": "no annotation",
    "HELEN/HELEN_3_0": "no landmarks", "HELEN/HELEN_4_0": "no landmarks",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos") / "TOY"
    write_tree(root, {"AFW": 6, "HELEN": 5})
    return root


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_toy_asmd(tmp_path_factory.mktemp("shards"), MODEL, 4)


def trained(shards, run_dir, **settings):
    config = GeometryConfig(
        width=0.06, batch_size=4, parameter_steps=2, stream_steps=8, validation_fraction=0, learning_rate=2e-3,
        **settings,
    )
    train_geometry(shards, run_dir, config, MODEL, device="cpu")
    return run_dir


@pytest.fixture(scope="module")
def checkpoint(shards, tmp_path_factory):
    return trained(shards, tmp_path_factory.mktemp("trained") / "dual")


@pytest.fixture(scope="module")
def face_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "toy.h5"
    save_model(MODEL, path)
    return path


def evaluate(root, out, face_model, *arguments):
    """Run the command; return its result and the numbers it wrote."""
    result = CliRunner().invoke(main, [
        "evaluate", "aflw2000", str(root), "-o", str(out), "--face-model", str(face_model), "--device", "cpu",
        *map(str, arguments),
    ])
    written = out / "results.json"
    return result, json.loads(written.read_text()) if written.is_file() else None


def true_landmarks(root, model=MODEL):
    return read_annotations(root, model.face_only()).landmarks


@pytest.fixture(scope="module")
def measured(root, checkpoint, face_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("measured") / "out"
    return out, *evaluate(root, out, face_model, "--checkpoint", checkpoint, "--most", 3)


def test_photos_that_cannot_be_measured_are_named_and_the_rest_is(measured):
    out, result, numbers = measured
    assert result.exit_code == 1
    assert [photo["name"] for photo in numbers["photos"]] == GOOD
    assert len(numbers["failed"]) == len(FAILED)
    for reason, (name, kind) in zip(numbers["failed"], FAILED.items()):
        assert reason.startswith(f"{name}: {kind}: ") and reason in result.stderr
    assert "5 photos could not be measured" in result.stderr
    assert "6 photos, labelled in TOY." in result.stdout
    assert "labelled on the visible outline, not on the face: 1." in result.stdout
    assert (out / "table.md").read_text() in result.stdout
    with Image.open(out / "sheet.png") as sheet, Image.open(out / "curve.png") as curve:
        assert sheet.width > 900 and sheet.height > 3 * 224 and curve.width > 300


def test_the_network_is_measured_as_reconstruct_places_its_faces(measured, root, checkpoint):
    """The same photos by the other way from a photo to a placed mesh, and the errors from their definitions."""
    _, _, numbers = measured
    faces = load_dual_stream(checkpoint, model=MODEL, device="cpu")
    annotated = read_annotations(root, MODEL.face_only())
    reconstructor = Reconstructor(faces)
    for number, face, source in zip(numbers["photos"], annotated.faces, GOOD):
        locator = PhotoLocator(find_photos([face.photo], root / "out"))
        maps = reconstructor([reconstructor.crop(face.photo, locator)])[0][0].maps
        neutral = faces.maps.vertices(maps.identity_map)
        shape = faces.maps.vertices(maps.identity_map + maps.expression_map)
        landmarks = project(shape[faces.model.landmarks], maps.pose, maps.position)[:, :2]
        known = truth(int(source.split("_")[1]) + 6 * source.startswith("HELEN"))
        true_neutral = faces.model.shape(known["id_coeffs"])
        true_shape = faces.model.shape(known["id_coeffs"], known["exp_coeffs"])
        off = (shape - neutral) - (true_shape - true_neutral)
        turn = rotation_matrix(maps.pose.astype(float)).T @ rotation_matrix(known["pose"])
        expected = {
            "nme_percent": landmark_nme(landmarks[None], face.landmarks[None])[0],
            "full_mm": np.linalg.norm(shape - true_shape, axis=1).mean(),
            "identity_mm": np.linalg.norm(neutral - true_neutral, axis=1).mean(),
            "expression_mm": np.linalg.norm(off, axis=1).mean(),
            "pose_degrees": np.degrees(np.arccos((np.trace(turn) - 1) / 2)),
            "dense_icp_percent": dense_nme(shape, true_shape, faces.model.landmarks, "icp"),
            "dense_correspondence_percent": dense_nme(shape, true_shape, faces.model.landmarks, "correspondence"),
        }
        assert number["methods"]["dual"] == pytest.approx(expected, rel=2e-4, abs=1e-4)
        assert number["yaw_degrees"] == pytest.approx(np.degrees(known["pose"][1]), abs=1e-4)
        assert number["yaw_annotated"] is True


def test_the_mean_face_stands_as_annotated(measured, root):
    _, _, numbers = measured
    for number, landmarks, source in zip(numbers["photos"], true_landmarks(root), GOOD):
        known = truth(int(source.split("_")[1]) + 6 * source.startswith("HELEN"))
        face = MODEL.face_only()
        placed = project(face.mean_shape[face.landmarks], known["pose"], known["position"])[:, :2]
        off = face.shape(known["id_coeffs"], known["exp_coeffs"]) - face.mean_shape
        assert number["methods"][MEAN_FACE]["nme_percent"] == pytest.approx(
            landmark_nme(placed[None], landmarks[None])[0], rel=1e-4
        )
        assert number["methods"][MEAN_FACE]["full_mm"] == pytest.approx(np.linalg.norm(off, axis=1).mean(), rel=1e-4)
        assert "pose_degrees" not in number["methods"][MEAN_FACE]


def test_the_means_are_those_of_the_photos(measured):
    _, result, numbers = measured
    for method in numbers["methods"]:
        values = [photo["methods"][method["label"]] for photo in numbers["photos"]]
        yaw = np.abs([photo["yaw_degrees"] for photo in numbers["photos"]])
        nme = np.array([value["nme_percent"] for value in values])
        groups = [nme[yaw <= 30], nme[(yaw > 30) & (yaw <= 60)], nme[yaw > 60]]
        assert method["nme_percent"]["counts"] == [len(group) for group in groups]
        assert method["nme_percent"]["bins"] == [pytest.approx(g.mean()) if len(g) else None for g in groups]
        assert method["nme_percent"]["mean"] == pytest.approx(nme.mean())
        assert f" {nme.mean():.3f} " in result.stdout
        for name, mean in method["means"].items():
            assert mean == pytest.approx(np.mean([value[name] for value in values]))
            assert f" {mean:.3f} " in result.stdout
    assert len(numbers["methods"][0]["means"]) == 6 and len(numbers["methods"][0]["weights_sha256"]) == 64


def test_the_same_measurement_gives_the_same_bytes(measured, root, checkpoint, face_model, tmp_path):
    out, *_ = measured
    again = tmp_path / "again"
    evaluate(root, again, face_model, "--checkpoint", checkpoint, "--most", 3, "--batch-size", 2)
    assert (again / "table.md").read_bytes() == (out / "table.md").read_bytes()
    for photo, before in zip(*(json.loads((path / "results.json").read_text())["photos"] for path in (again, out))):
        assert photo["methods"]["dual"] == pytest.approx(before["methods"]["dual"], rel=1e-4)


def test_given_landmarks_are_scored_beside_a_network(root, checkpoint, face_model, tmp_path):
    landmarks = true_landmarks(root)
    rows = np.full((11, 68, 2), 7.0)  # also for the photos that cannot be measured
    rows[[0, 1, 2, 4, 6, 7]] = landmarks
    np.save(tmp_path / "perfect.npy", rows + 1)
    np.save(tmp_path / "off.npy", (rows + [4, -2]).transpose(0, 2, 1))
    given = ["--predictions", tmp_path / "perfect.npy", "--predictions", tmp_path / "off.npy", "--most", 0]
    result, numbers = evaluate(
        root, tmp_path / "out", face_model, "--checkpoint", checkpoint, *given, "--index-base", 1,
        "--label", "net", "--label", "perfect", "--label", "off",
    )
    assert result.exit_code == 1 and not (tmp_path / "out" / "sheet.png").exists()
    assert [method["label"] for method in numbers["methods"]] == ["net", "perfect", "off", MEAN_FACE]
    net, perfect, off, _ = numbers["methods"]
    assert perfect["nme_percent"]["mean"] < 1e-5 and perfect["auc"] == pytest.approx(1) and perfect["means"] == {}
    assert perfect["predictions"] == "perfect.npy"
    side = np.sqrt(np.ptp(landmarks, axis=1).prod(1))
    assert off["nme_percent"]["mean"] == pytest.approx((100 * np.hypot(3, 3) / side).mean(), rel=1e-6)


def test_landmark_files_alone_leave_the_yaw_to_a_fit_and_the_shape_unknown(root, checkpoint, face_model, tmp_path):
    for name, landmarks in zip(GOOD[:3], true_landmarks(root)):
        photo = tmp_path / "photos" / f"{name.split('/')[1]}.png"
        photo.parent.mkdir(exist_ok=True)
        Image.fromarray(read_photo(root / f"{name}.jpg")).save(photo)
        scipy.io.savemat(photo.with_name(f"{photo.stem}_pts.mat"), {"pts_3d": landmarks + 1})
    result, numbers = evaluate(tmp_path / "photos", tmp_path / "out", face_model, "--checkpoint", checkpoint)
    assert result.exit_code == 0, result.output
    fitter = LandmarkFitter(MODEL.face_only())
    for index in (0, 2):  # the labels of photo 1 are moved
        photo = numbers["photos"][index]
        fitted = fitter.fit(true_landmarks(root)[index], "3d").pose[1]
        assert photo["yaw_degrees"] == pytest.approx(np.degrees(fitted), abs=1e-3)
        assert photo["yaw_degrees"] == pytest.approx(np.degrees(truth(index)["pose"][1]), abs=3)
        assert photo["yaw_annotated"] is False and list(photo["methods"]["dual"]) == ["nme_percent"]
        assert photo["methods"][FITTED_MEAN_FACE]["nme_percent"] < 5
    assert "of the face model fitted to the landmarks for 3 of 3 photos." in result.stdout
    assert "without a true shape to compare with, as landmarks alone are annotated: 3." in result.stdout
    assert "## Shape" not in result.stdout


def test_foreign_coefficients_leave_pose_and_yaw(root, checkpoint):
    """A face model in another coefficient space, whose pose still means the same."""
    other = replace(MODEL, coefficients="other")
    truth_of = read_annotations(root, other.face_only())
    assert {face.no_shape for face in truth_of.faces} == {"foreign coefficients"}
    faces = load_dual_stream(checkpoint, model=MODEL, device="cpu")
    scores = score_network("net", faces, truth_of)
    own = score_network("net", faces, read_annotations(root, MODEL.face_only()))
    assert set(scores.errors) == {"pose_degrees"} and len(own.errors) == 6
    measured = np.isin([face.name for face in truth_of.faces], GOOD)  # and one whose expression is damaged
    assert measured.sum() == len(GOOD) == len(measured) - 1
    np.testing.assert_array_equal(scores.errors["pose_degrees"][measured], own.errors["pose_degrees"])
    np.testing.assert_array_equal(scores.nme[measured], own.nme)
    assert scores.mean("full_mm") is None and own.mean("full_mm") is not None


def test_a_network_of_one_map_has_no_identity_or_expression(shards, root, face_model, tmp_path):
    run = trained(shards, tmp_path / "single", shape="single", eta_s=0)
    result, numbers = evaluate(root, tmp_path / "out", face_model, "--checkpoint", run, "--most", 0)
    errors = numbers["photos"][0]["methods"]["single"]
    assert "full_mm" in errors and not {"identity_mm", "expression_mm"} & set(errors)
    row = next(line for line in result.stdout.split("## Shape")[1].splitlines() if "| single" in line)
    assert [cell.strip() for cell in row.split("|")[4:6]] == ["-", "-"]


def test_a_predicted_face_adds_up_and_batches_do_not_matter(root, checkpoint):
    faces = load_dual_stream(checkpoint, model=MODEL, device="cpu")
    annotated = read_annotations(root, MODEL.face_only()).faces[:3]
    photos = [(read_photo(face.photo), (10, 5, 130)) for face in annotated]
    single, batch = (list(predict_faces(faces, iter(photos), size)) for size in (1, 2))
    assert len(batch) == 3 and all(face.decoupled and face.camera_distance == np.inf for face in batch)
    for ours, theirs in zip(single, batch):
        np.testing.assert_allclose(ours.shape, theirs.shape, atol=1e-3)
        np.testing.assert_array_equal(ours.shape, ours.neutral + ours.expression)
        np.testing.assert_allclose(
            ours.project(ours.shape), project(theirs.shape, theirs.pose, theirs.position), atol=1e-2
        )


@pytest.mark.parametrize("arguments, message", [
    ([], "nothing to score; give a checkpoint or predictions"),
    (["--predictions", "{points}"], "must hold a row for each of the 11 photos, sorted by name, got 2"),
    (["--predictions", "{points}", "--label", "a", "--label", "b"], "labels must be one for each of the 1 runs"),
    (["--predictions", "{points}", "--annotation", "reannotated"], "'reannotated' is one of the arrays"),
    (["--checkpoint", "{points}"], "points.npy"),
])
def test_a_mistake_gets_one_sentence(root, face_model, tmp_path, arguments, message):
    points = tmp_path / "points.npy"
    np.save(points, np.zeros((2, 68, 2)))
    result, numbers = evaluate(
        root, tmp_path / "out", face_model, *(argument.format(points=points) for argument in arguments)
    )
    assert result.exit_code == 1 and numbers is None
    assert result.stderr.startswith("Error: ") and message in result.stderr and result.stderr.count("\n") == 1


def test_arrays_hold_no_photos_for_a_network(checkpoint, face_model, tmp_path):
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "AFLW2000-3D.pts68.npy", np.zeros((2, 3, 68)))
    result, _ = evaluate(tmp_path / "arrays", tmp_path / "out", face_model, "--checkpoint", checkpoint)
    assert result.exit_code == 1 and "holds the benchmark's arrays without photos" in result.stderr
