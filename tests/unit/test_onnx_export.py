"""The network as an ONNX file, run by ONNX Runtime."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from toy import toy_model
from toy_asmd import draw_face, write_toy_asmd

from bfm.model_file import save_model
from cli.main import main
from model import onnx_export
from model.config import GeometryConfig
from model.dual_stream import load_dual_stream
from model.geometry import denormalise_position
from model.onnx_export import INPUT, OUTPUTS, export_onnx
from model.train_geometry import train_geometry

SIZE = 32


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = GeometryConfig(width=0.06, batch_size=4, parameter_steps=1, stream_steps=2, validation_fraction=0)
    save_model(model, folder / "toy.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        train_geometry(write_toy_asmd(folder / "shards", model, 4, SIZE), folder / "run", config, model, "cpu")
    return folder


@pytest.fixture(scope="module")
def faces(model, run):
    return load_dual_stream(run / "run", model=model, device="cpu")


@pytest.fixture(scope="module")
def exported(run):
    result = CliRunner().invoke(main, [
        "export", str(run / "run"), str(run / "face.onnx"), "--to", "onnx", "--face-model", str(run / "toy.h5"),
        "--json",
    ])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["files"] == [str(run / "face.onnx")] and 0 <= told["difference"] < 1e-4
    assert '\nout = "face.onnx"\nto = "onnx"\n' in (run / "face.onnx.toml").read_text()
    return run / "face.onnx"


@pytest.mark.parametrize("count", (1, 2, 5))
def test_it_gives_what_the_network_gives_for_any_batch(faces, model, exported, count):
    images = np.stack([draw_face(model, SIZE, seed)["image"] for seed in range(count)])
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) / np.float32(255)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == list(OUTPUTS)
    found = dict(zip(OUTPUTS, session.run(None, {INPUT: images})))
    with torch.no_grad():
        face = faces.network(torch.tensor(images))
    albedo, light, pose, position = face.parameters
    wanted = {
        "identity_map": face.identity_map, "expression_map": face.expression_map, "albedo_map": face.albedo_map,
        "albedo_coeffs": albedo, "light": light, "pose": pose, "position": denormalise_position(position, SIZE),
    }
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_the_file_tells_units_and_face_model(faces, model, exported):
    file = onnx.load(exported)
    onnx.checker.check_model(file)
    found = {entry.key: entry.value for entry in file.metadata_props}
    assert found["face_model_sha256"] == model.sha256 and found["licence"] == model.licence
    assert json.loads(found["scale"]) == faces.maps.scale
    assert json.loads(found["centre"]) == faces.maps.centre.tolist()
    assert json.loads(found["size"]) == SIZE and json.loads(found["camera_distance"]) is None
    assert {f"output {name}" for name in OUTPUTS} <= set(found) and "pixel" in found["output position"]
    assert file.graph.input[0].type.tensor_type.shape.dim[0].dim_param  # any batch


def test_a_file_that_differs_is_not_written(faces, tmp_path, monkeypatch):
    """As if the runtime computed something else; the graph itself is not made again, which takes seconds."""
    monkeypatch.setattr(onnx_export, "_program", lambda network, images: b"")
    monkeypatch.setattr(onnx_export, "_difference", lambda network, data, images: 0.01 * (len(images) == 3))
    with pytest.raises(ValueError, match="must give what torch gives to 0.001, and differs by 0.01"):
        export_onnx(faces, tmp_path / "face.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_no_file_can_hold(faces, tmp_path, monkeypatch):
    """Each weight and each fixed map, among them the albedo modes, has 4 bytes; counters of batches have 8."""
    sizes = {torch.float32: 4, torch.int64: 8, torch.bool: 1}
    state = (*faces.network.parameters(), *faces.network.buffers())
    held = sum(values.numel() * sizes[values.dtype] for values in state)
    monkeypatch.setattr(onnx_export, "_program", lambda network, images: b"")
    monkeypatch.setattr(onnx_export, "_difference", lambda network, data, images: 0)
    monkeypatch.setattr(onnx_export, "LARGEST", held)
    export_onnx(faces, tmp_path / "face.onnx")
    monkeypatch.setattr(onnx_export, "LARGEST", held - 1)
    with pytest.raises(ValueError, match="ends at 2 GiB, and has .* GB; train one of a smaller --width"):
        export_onnx(faces, tmp_path / "large.onnx")
    assert not (tmp_path / "large.onnx").exists()


def test_the_comparison_sees_what_differs(faces, exported):
    images = torch.zeros((2, 3, SIZE, SIZE))
    network, data = onnx_export.OnnxFace(faces.network, SIZE), exported.read_bytes()
    assert onnx_export._difference(network, data, images) < 1e-5
    with torch.no_grad():
        network.network.geometry.psn[-1].bias[-2] += 0.1
        try:
            assert onnx_export._difference(network, data, images) == pytest.approx(0.1, rel=0.5)
        finally:
            network.network.geometry.psn[-1].bias[-2] -= 0.1


def test_without_the_extra_it_says_what_to_install(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'dualface\[onnx\]'"):
        export_onnx(faces, tmp_path / "face.onnx")
