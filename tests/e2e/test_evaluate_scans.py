"""`dualface evaluate micc` and `bu3dfe` on tiny datasets of the toy model, in the real layouts."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from made_scans import made_scan
from PIL import Image
from scipy.spatial import cKDTree
from toy import toy_model
from toy_asmd import draw_face, write_toy_asmd

from asmgen.locate import FaceLocator
from asmgen.scan_files import bnd_bytes, ljson_bytes, obj_bytes, wrl_bytes
from bfm.model_file import save_model
from bfm.pose import rotation_matrix
from bfm.similarity import Similarity
from cli.main import main
from model.config import GeometryConfig
from model.dual_stream import load_dual_stream
from model.evaluation.micc_subjects import find_subjects
from model.evaluation.predict import predict_faces
from model.evaluation.videos import video_frames
from model.train_geometry import train_geometry

pytest.importorskip("open3d", reason="open3d does not import (on Linux it needs libusb-1.0)", exc_type=ImportError)

NOISE, SPACING = 0.1, 4.0  # mm
LEVEL = NOISE * np.sqrt(2 / np.pi)  # mean of |N(0, s)|
SCALES = {"indoor": 0.8, "outdoor": 1.25}
VIDEOS = {"cooperative": "Indoor-Cooperative", "indoor": "PTZ-Indoor", "outdoor": "PTZ-Outdoor"}
MOTION = Similarity(1.0, rotation_matrix(np.radians([3.0, -5, 2])), np.array([10.0, -20, 30]))


@pytest.fixture(scope="module")
def model():
    """The toy model with landmarks where a face has them, as far as .bnd files take them."""
    model = toy_model(rows=31, columns=25, id_modes=2, exp_modes=2)
    grid = model.mean_shape[:, :2]
    jaw = np.linspace(np.pi, 2 * np.pi, 17)
    outline = np.stack([60 * np.cos(jaw), 80 * np.sin(jaw)], 1)
    places = np.concatenate([outline, np.random.default_rng(0).uniform(-20, 20, (51, 2))])
    for number, place in {
        30: (0, 0), 36: (-45, 36), 37: (-35, 40), 38: (-25, 40), 39: (-17, 36), 40: (-25, 32), 41: (-35, 32),
        42: (17, 36), 43: (25, 40), 44: (35, 40), 45: (45, 36), 46: (35, 32), 47: (25, 32), 48: (-25, -50),
        54: (25, -50),
    }.items():
        places[number] = place
    for number in (*range(49, 54), *range(55, 60)):
        places[number] = (places[number][0] / 2, -50)
    return dataclasses.replace(model, landmarks=cKDTree(grid).query(places)[1].astype(np.int32))


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A geometry run that has hardly been trained, and the model's file."""
    folder = tmp_path_factory.mktemp("trained")
    config = GeometryConfig(width=0.06, batch_size=4, parameter_steps=1, stream_steps=2, validation_fraction=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        train_geometry(write_toy_asmd(folder / "shards", model, 4), folder / "run", config, model, device="cpu")
    save_model(model, folder / "toy.h5")
    return ["--checkpoint", str(folder / "run"), "--face-model", str(folder / "toy.h5"), "--device", "cpu"]


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def write_mesh(path, model, vertices):
    write(path, obj_bytes(vertices, model.triangles, np.zeros((len(vertices), 2)), "none.mtl"))
    write(path.with_suffix(".ljson"), ljson_bytes(vertices[model.landmarks]))


def write_photo(path, model, seed):
    face = draw_face(model, 48, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(face["image"]).save(path)
    np.save(path.with_suffix(".npy"), face["landmarks"])


def run_command(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def micc(model, tmp_path_factory):
    """Two subjects, one without a second scan, both without some videos; and predictions, exact but for scale, one of
    a condition without a video."""
    root = tmp_path_factory.mktemp("micc")
    rng = np.random.default_rng(0)
    for subject, scans, conditions in (("subject_01", 2, ("indoor", "outdoor")), ("subject_02", 1, ("indoor",))):
        face = model.shape(rng.standard_normal(2), np.zeros(2)).astype(float)
        for number in range(1, scans + 1):
            noise = NOISE * (4 - 3 * (number == scans))  # the last scan is the better one
            scan = made_scan(model, face, MOTION, SPACING, noise, seed=number)
            stem = root / subject / "Model" / f"frontal{number}" / "obj" / f"12{number}"
            write(stem.with_suffix(".obj"), obj_bytes(scan.vertices, scan.triangles, scan.vertices[:, :2], "a.mtl"))
            write(stem.with_suffix(".ljson"), ljson_bytes(np.array([*scan.landmarks.values()])))
        for condition in conditions:
            for frame in range(3):
                write_photo(root / subject / "Video" / VIDEOS[condition] / f"{frame:04d}.png", model, frame)
            write_mesh(root / "predictions" / subject / f"{condition}.obj", model, face * SCALES[condition])
    shutil.rmtree(root / "subject_01" / "Video" / VIDEOS["outdoor"])
    return root


@pytest.fixture(scope="module")
def micc_exact(micc, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "micc"
    return out, run_command("micc", micc, "--predictions", micc / "predictions", "-o", out)


def test_micc_of_exact_predictions_is_the_noise_and_the_scale(micc_exact):
    out, result = micc_exact
    assert result.exit_code == 1, result.output  # subject_02 has no outdoor prediction, subject_01 has
    results = results_of(out)
    assert len(results["problems"]) == 1 and "subject_02 outdoor: " in results["problems"][0]
    per_mesh, genova = (results["subjects"][name] for name in ("per-mesh", "genova"))
    assert results["global_scale"] == pytest.approx(np.cbrt(1 / 0.8), abs=0.003)
    for subject, conditions in per_mesh.items():
        for condition, numbers in conditions.items():
            assert numbers["mean_mm"] == pytest.approx(LEVEL, rel=0.1)
            assert numbers["scale"] == pytest.approx(1 / SCALES[condition], abs=0.003)
            assert numbers["scan"] == ("122" if subject == "subject_01" else "121")  # the one with less noise
    for condition, numbers in genova["subject_01"].items():
        assert numbers["scan"] == "121"
        assert numbers["scale"] == pytest.approx(results["global_scale"], abs=1e-5)
    # a scale that is not its own shows in the one protocol only
    assert genova["subject_02"]["indoor"]["mean_mm"] > 1.5 * per_mesh["subject_02"]["indoor"]["mean_mm"]
    assert "| indoor    | 2 " in result.output and "| outdoor   | 1 " in result.output


def test_micc_says_what_is_missing_and_draws_heatmaps(micc, micc_exact):
    out, result = micc_exact
    missing = ["subject_02 has no scan frontal2", "there is no prediction of cooperative"]
    assert results_of(out)["missing"] == missing
    assert all(f"Missing: {part}." in result.output for part in missing)
    assert sorted(path.name for path in (out / "heatmaps").iterdir()) == ["subject_01.png", "subject_02.png"]
    with Image.open(out / "heatmaps.png") as sheet, Image.open(out / "heatmaps" / "subject_01.png") as one:
        assert sheet.width == one.width and sheet.height > one.height


def test_micc_with_a_network_averages_frames_and_tells_what_fails(micc, run, tmp_path):
    root = tmp_path / "micc"
    shutil.copytree(micc, root, ignore=shutil.ignore_patterns("predictions", "subject_01"))
    video = root / "subject_02" / "Video" / "PTZ-Indoor"
    (video / "0002.png").write_bytes(b"no picture")
    shutil.copytree(root / "subject_02", root / "subject_03")
    write(root / "subject_03" / "Model" / "frontal1" / "obj" / "121.obj", "nothing")
    out = tmp_path / "out"
    result = run_command("micc", root, *run, "--frames", 3, "--protocol", "per-mesh", "-o", out)
    assert result.exit_code == 1
    results = results_of(out)
    assert list(results["subjects"]) == ["per-mesh"]
    numbers = results["subjects"]["per-mesh"]["subject_02"]["indoor"]
    assert numbers["frames"] == 2 and list(numbers["skipped"]) == ["0002.png"]
    assert [problem for problem in results["problems"] if "subject_03" in problem and "121.obj" in problem]
    assert "A prediction is the mean of 2 to 2 frames; 1 showed no face." in result.output
    assert results["missing"] == [
        "subject_02 has no scan frontal2", "subject_03 has no scan frontal2",
        "subject_02 has no video Indoor-Cooperative", "subject_02 has no video PTZ-Outdoor",
    ]
    assert results["settings"]["frames"] == 3 and len(results["settings"]["weights_sha256"]) == 64


def test_micc_measures_the_mean_neutral_face(model, micc, run, tmp_path):
    """What the command measures is what a prediction file with the mean of the frames' neutral faces gives."""
    root = tmp_path / "micc"
    shutil.copytree(micc, root, ignore=shutil.ignore_patterns("predictions", "subject_01"))
    (subject,), _ = find_subjects(root)
    faces, locator = load_dual_stream(run[1], model=model, device="cpu"), FaceLocator()
    frames = [(frame.read(), frame.path) for frame in video_frames(subject.videos["indoor"], 3)]
    predicted = predict_faces(faces, [(image, locator.square(path, image)) for image, path in frames])
    write_mesh(tmp_path / "given" / "subject_02" / "indoor.obj", model, np.mean([one.neutral for one in predicted], 0))
    for out, source in (
        ("network", run), *((out, ["--predictions", tmp_path / "given"]) for out in ("meshes", "again")),
    ):
        run_command("micc", root, *source, "--protocol", "genova", "-o", tmp_path / out)
    network, meshes = (
        results_of(tmp_path / name)["subjects"]["genova"]["subject_02"]["indoor"] for name in ("network", "meshes")
    )
    assert network["mean_mm"] == pytest.approx(meshes["mean_mm"], abs=1e-3) and network["mean_mm"] > 3 * LEVEL
    for name in ("results.json", "table.md", "heatmaps.png"):
        assert (tmp_path / "meshes" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.fixture(scope="module")
def bu3dfe(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("bu3dfe")
    rng = np.random.default_rng(1)
    identity = rng.standard_normal(2)
    for code in ("NE00", "HA02", "HA04", "SU04"):
        face = model.shape(identity, int(code[2:]) * np.array([0.8, -0.8])).astype(float)
        scan = made_scan(model, face, MOTION, SPACING, NOISE, seed=3)
        stem = root / "F0001" / f"F0001_{code}WH"
        scan_file = stem.with_name(f"{stem.name}_F3D.wrl")
        write(scan_file, wrl_bytes(scan.vertices, scan.triangles, scan.vertices[:, :2], "a"))
        write(scan_file.with_suffix(".bnd"), bnd_bytes(np.array([*scan.landmarks.values()]), scan.vertices))
        write_photo(stem.with_name(f"{stem.name}_F2D.bmp"), model, 7)
        write_mesh(root / "predictions" / "F0001" / f"{stem.name}.obj", model, face)
    return root


def test_bu3dfe_of_exact_predictions_is_the_noise(model, bu3dfe, tmp_path):
    result = run_command("bu3dfe", bu3dfe, "--predictions", bu3dfe / "predictions", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    scans = results_of(tmp_path)["scans"]
    assert sorted(scans) == [f"F0001_{code}WH" for code in ("HA02", "HA04", "NE00", "SU04")]
    for numbers in scans.values():
        assert numbers["mean_mm"] == pytest.approx(LEVEL, rel=0.1)
        assert numbers["nme_percent"] == pytest.approx(100 * numbers["mean_mm"] / numbers["interocular_mm"], abs=1e-4)
        assert numbers["interocular_mm"] == pytest.approx(90, abs=8)
        assert numbers["landmark_distance_mm"] < 2.5  # .bnd points are vertices of the scan
    assert "| HA happy    | 2 " in result.output and "F0001 has no scan" in result.output
    assert (tmp_path / "expressions.png").stat().st_size and (tmp_path / "heatmaps.png").stat().st_size


def test_bu3dfe_with_a_network_at_one_level(bu3dfe, run, tmp_path):
    root = tmp_path / "bu"
    shutil.copytree(bu3dfe, root, ignore=shutil.ignore_patterns("predictions"))
    (root / "F0001" / "F0001_SU04WH_F3D.bnd").unlink()
    (root / "F0001" / "F0001_NE00WH_F2D.bmp").write_bytes(b"no picture")
    result = run_command("bu3dfe", root, *run, "--level", 4, "-o", tmp_path / "out")
    assert result.exit_code == 1
    results = results_of(tmp_path / "out")
    assert list(results["scans"]) == ["F0001_HA04WH"] and results["levels"] == [4]
    assert len(results["problems"]) == 2
    assert "F0001_SU04WH: F0001_SU04WH_F3D has no outer eye corners" in result.output
    assert "F0001_NE00WH: " in result.output


@pytest.mark.parametrize("command, arguments, message", [
    ("micc", ["{empty}", "--predictions", "{empty}"], "holds no <subject>/<cooperative|indoor|outdoor>.obj or .ply"),
    ("micc", ["{empty}", "--predictions", "{given}"], "holds no subject_XX"),
    ("micc", ["{empty}"], "one of the two"),
    ("bu3dfe", ["{empty}", "--predictions", "{given}"], "holds no scan of the levels 1, 2, 3, 4"),
    ("bu3dfe", ["{empty}", "--predictions", "{given}", "--checkpoint", "{given}"], "one of the two"),
])
def test_mistakes_are_told_in_a_sentence(micc, tmp_path, command, arguments, message):
    (tmp_path / "empty").mkdir()
    known = {"empty": tmp_path / "empty", "given": micc / "predictions"}
    result = run_command(command, *(argument.format(**known) for argument in arguments), "-o", tmp_path / "out")
    assert result.exit_code in (1, 2) and message in result.output and "Traceback" not in result.output


def test_where_open3d_does_not_import_a_sentence_says_what_to_install(micc, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    result = run_command("micc", micc, "--predictions", micc / "predictions", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "install open3d, and on Linux the system library libusb-1.0" in result.output
    assert result.output.count("\n") < 4 and "Traceback" not in result.output
