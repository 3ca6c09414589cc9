"""The table of the geometry stream and the figure of the expression stress, in small."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from expression_figure import curves
from expression_figure import main as draw_main
from geometry_measures import HeldOut, Stress
from geometry_table import VARIANTS, main
from toy_asmd import write_toy_asmd
from toy_stress import MODEL, write_stress

from bfm.model_file import save_model
from bfm.pose import project
from model.config import GeometryConfig
from model.data import FaceDataset
from model.dual_stream import load_dual_stream
from model.evaluation.dense import dense_nme
from model.evaluation.expression_curves import group_mean
from model.evaluation.expression_errors import ExpressionPhotos
from model.geometry import denormalise_position
from model.train_geometry import GeometryTask, map_space

SMALL = (
    "--steps", 3, "--parameter-steps", 1, "--width", 0.06, "--batch-size", 2, "--log-every", 1, "--icp-photos", 2,
    "--validation-fraction", 0.4, "--device", "cpu",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    save_model(MODEL, folder / "toy.h5")
    write_toy_asmd(folder / "shards", MODEL, 10)
    write_stress(folder / "stress")
    return folder


def run_table(data, folder, *options):
    arguments = (data / "shards", folder / "runs", "--face-model", data / "toy.h5", *SMALL, "-o", folder / "t.json")
    return CliRunner().invoke(main, [str(each) for each in (*arguments, *options)])


@pytest.fixture(scope="module")
def report(data, tmp_path_factory):
    """Of two variants, two seeds."""
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        result = run_table(
            data, folder, "--variants", "full,single", "--seeds", 2, "--stress", data / "stress"
        )
    assert result.exit_code == 0, result.output
    return folder, json.loads((folder / "t.json").read_text()), result.stdout


def test_the_table_has_what_each_shape_has(report):
    _, kept, printed = report
    lines = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in printed.splitlines()}
    headings = [heading.strip() for heading in lines["variant"]]
    cells = {name: dict(zip(headings, map(str.strip, row))) for name, row in lines.items()}
    assert [cells["single"][heading] for heading in ("identity, mm", "expression, mm")] == ["-", "-"]
    assert "-" not in cells["full"].values()
    start, row = cells["mean face"], kept["results"]["full"]["1"]
    for heading, key in (("full, mm", "mean_full_mm"), ("dense NME, ICP, %", "mean_icp_percent")):
        assert start[heading] == f"{row[key]:.3f}"
    assert cells["single"]["seeds"] == "2" and cells["single"]["steps"] == "3"
    parameters = [kept["results"][name]["0"]["geometry_parameters"] for name in ("single", "full")]
    assert [cells[name]["parameters"] for name in ("single", "full")] == list(map(str, parameters))
    assert parameters[0] < parameters[1]


def test_every_variant_is_a_config():
    configs = {name: GeometryConfig(**fields) for name, fields in VARIANTS.items()}
    assert len({json.dumps(config.to_dict()) for config in configs.values()}) == len(VARIANTS) == 8
    assert configs["full"] == GeometryConfig()


@torch.no_grad()
def test_held_out_errors_are_those_of_the_protocols(data, report):
    """Photo by photo, from the checkpoint, through the numpy side."""
    folder, kept, _ = report
    row = kept["results"]["full"]["1"]
    faces = load_dual_stream(folder / "runs" / "full" / "seed-1", model=MODEL, device="cpu")
    dataset = FaceDataset(data / "shards")
    config = GeometryConfig(width=0.06, batch_size=2, validation_fraction=0.4)  # seed 0 holds out for all
    task = GeometryTask(dataset, faces.model, faces.maps, config, torch.device("cpu"))
    assert len(task.held_out) == row["held_out"] == 4
    dense, icp, nme, identity, mean = ([] for _ in range(5))
    for index in task.held_out:
        sample = {key: value.numpy() for key, value in dataset[index].items()}
        predicted = faces.network.geometry(torch.tensor(sample["image"][None] / np.float32(255)))
        found = faces.maps.vertices((predicted.identity_map + predicted.expression_map)[0].numpy())
        neutral, true = (
            faces.maps.vertices(faces.maps.identity_map(sample["id_coeffs"][None])[0] + offset)
            for offset in (0, faces.maps.expression_map(sample["exp_coeffs"][None])[0])
        )
        dense.append(dense_nme(found, true, faces.model.landmarks, "correspondence"))
        icp.append(dense_nme(found, true, faces.model.landmarks, "icp"))
        position = denormalise_position(predicted.parameters.position, 32)[0].numpy()
        points = project(found[faces.model.landmarks], predicted.parameters.pose[0].numpy(), position)[:, :2]
        truth = sample["landmarks"]
        nme.append(100 * np.linalg.norm(points - truth, axis=1).mean() / np.sqrt(np.ptp(truth, axis=0).prod()))
        identity.append(np.linalg.norm(
            faces.maps.vertices(predicted.identity_map[0].numpy()) - neutral, axis=1
        ).mean())
        mean.append(np.linalg.norm(faces.maps.vertices(faces.maps.mean_map) - true, axis=1).mean())
    for key, values in {
        "correspondence_percent": dense, "icp_percent": [icp[0], icp[-1]], "landmark_percent": nme,
        "identity_mm": identity, "mean_full_mm": mean,
    }.items():
        assert row[key] == pytest.approx(np.mean(values), rel=1e-4), key


def test_the_stress_is_that_of_the_evaluation(data, report):
    folder, kept, _ = report
    photos = ExpressionPhotos(data / "stress", MODEL)
    for variant in ("full", "single"):
        faces = load_dual_stream(folder / "runs" / variant / "seed-0", model=MODEL, device="cpu")
        errors = photos.measure(photos.predictor(faces))
        row = kept["results"][variant]["0"]
        group = [k for k, (unit, s) in enumerate(zip(photos.units, photos.strengths)) if (unit, s) == ("smile", 100)]
        for name in ("full_mm", "region_mm", "recovered", "identity_mm"):
            wanted = group_mean(photos, name, errors[name], group)
            assert row["stress"]["smile"]["100 %"][name] == pytest.approx(wanted, abs=2e-5), name
            wanted = group_mean(photos, name, errors[name], range(len(photos.faces)))
            assert row[f"stress_{name}"] == pytest.approx(wanted, abs=2e-5), name
    known = kept["same"]["stress"]["smile"]["100 %"]
    assert known["photos"] == 2 and known["full_mm"] == pytest.approx(known["magnitude_mm"], abs=1e-5)
    assert kept["results"]["single"]["0"]["stress_identity_mm"] is None


def test_curves_are_means_over_seeds_with_their_spread(report):
    _, kept, _ = report
    found = curves(kept, "region_mm", ("full", "mse"))
    assert list(found) == ["expression ignored", "full"]  # there is no run of mse
    values = [kept["results"]["full"][seed]["stress"]["smile"]["50 %"]["region_mm"] for seed in "01"]
    curve = found["full"]["smile"]
    assert curve.mean[0] == pytest.approx(np.mean(values))  # at rest there is no region
    assert curve.band[0] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2)) and curve.band[0] > 0
    assert not found["expression ignored"]["smile"].band.any()


def test_the_figure_is_drawn_from_the_file(report, tmp_path, monkeypatch):
    folder, kept, _ = report
    drawn = []
    monkeypatch.setattr("expression_figure.draw_expression_curves", lambda *given: drawn.append(given) or given[0])
    result = CliRunner().invoke(draw_main, [str(folder / "t.json"), "-o", str(tmp_path / "e.png")])
    assert result.exit_code == 0 and result.output == f"wrote {tmp_path / 'e.png'}\n"
    (path, rows, baseline), = drawn
    assert path == tmp_path / "e.png" and list(rows) == ["moved region, mm", "full face, mm", "recovered, share"]
    assert list(rows["full face, mm"]) == [baseline, "full", "single"]
    kept["same"]["stress"] = None
    (tmp_path / "without.json").write_text(json.dumps(kept))
    result = CliRunner().invoke(draw_main, [str(tmp_path / "without.json"), "-o", str(tmp_path / "f.png")])
    assert (result.exit_code, result.output) == (
        1, f"Error: {tmp_path / 'without.json'} holds no expression stress; make the table with --stress\n"
    )


def test_mistakes(data, tmp_path):
    result = run_table(data, tmp_path, "--steps", 1)
    assert result.exit_code == 2 and "--steps must be above --parameter-steps, 1, got 1" in result.output
    bad = tmp_path / "bad"
    write_stress(bad)
    (bad / "smile" / "smile_000003_000.mat").write_bytes(b"")
    with pytest.raises(ValueError, match="1 photos cannot be measured, such as smile/smile_000003_000"):
        Stress(bad, MODEL, map_space_of(data), torch.device("cpu"))


def map_space_of(data):
    dataset = FaceDataset(data / "shards")
    return map_space(dataset.attributes, MODEL, dataset.chart_uv)[1]


def test_the_mean_face_is_measured_once(data, monkeypatch):
    dataset = FaceDataset(data / "shards")
    face, maps = map_space(dataset.attributes, MODEL, dataset.chart_uv)
    config = GeometryConfig(width=0.06, batch_size=2, validation_fraction=0.4)
    task = GeometryTask(dataset, face, maps, config, torch.device("cpu"))
    calls, measure = [], HeldOut(1)
    monkeypatch.setattr("geometry_measures.dense_errors", lambda *_: calls.append(1) or {"icp_percent": 1.0})
    rows = [measure(task), measure(task)]
    assert rows[0] == rows[1] and len(calls) == 3
