"""The cards that builds and trainings leave: what they say is what is there, and they say it alike each time."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy_tree import MODEL, write_tree

from asmgen.build import build_asmd
from asmgen.dataset_card import CARD_NAME, dataset_card
from asmgen.pipeline import BuildSummary
from asmgen.shards import ShardSet
from bfm.model_file import save_model
from model import model_card
from model.checkpoint import load_checkpoint
from model.config import GeometryConfig
from model.run_folder import read_log
from model.train_geometry import map_space, train_geometry

SIZE = 32


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """AFW_3_0 is an unreadable image, AFW_5_0 a damaged annotation."""
    folder = tmp_path_factory.mktemp("built")
    write_tree(folder / "photos", {"AFW": 6})
    build_asmd(folder / "photos", folder / "shards", MODEL, size=SIZE, encoding="params")
    return folder


@pytest.fixture(scope="module")
def run(built):
    config = GeometryConfig(
        width=0.06, batch_size=2, parameter_steps=1, stream_steps=2, validation_fraction=0.3, validate_every=2,
        checkpoint_every=1, log_every=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        train_geometry(built / "shards", built / "run", config, MODEL, "cpu")
    return built / "run"


def row(card, name):
    return re.search(rf"^\| {re.escape(name)} \| (.*) \|$", card, re.M)[1]


def test_the_card_of_a_build_tells_what_the_shards_hold(built):
    card, shards = (built / "shards" / CARD_NAME).read_text(), ShardSet(built / "shards")
    assert card.startswith("# ASMD: 4 faces\n") and len(shards) == 4
    assert row(card, "samples") == f"4, crops of {SIZE} x {SIZE} pixels" and row(card, "photos read") == "6"
    assert [row(card, name) for name in ("left out", "- unreadable image", "- damaged annotation")] == ["2", "1", "1"]
    assert MODEL.sha256 in row(card, "face model") and MODEL.licence in card
    assert "as annotated" in row(card, "coefficients") and "Maps are not stored" in card
    error = np.nanmean(shards.column("landmark_error"))
    assert row(card, "landmarks from their labels").startswith(f"{error:.2f} crop pixels")
    for key, value in json.loads((built / "shards" / "build.json").read_text()).items():
        assert f"\n{key}: {value}\n" in card


def test_the_card_of_a_build_is_the_same_again(built):
    card = built / "shards" / CARD_NAME
    before = card.read_bytes(), card.stat().st_mtime_ns
    build_asmd(built / "photos", built / "shards", MODEL, size=SIZE, encoding="params")
    assert (card.read_bytes(), card.stat().st_mtime_ns) == before
    card.write_text("cut")
    build_asmd(built / "photos", built / "shards", MODEL, size=SIZE, encoding="params")
    assert card.read_bytes() == before[0]


def test_the_code_in_the_card_of_a_build_runs(built):
    code = re.search(r"```python\n(.*?)```", (built / "shards" / CARD_NAME).read_text(), re.S)[1]
    save_model(MODEL, built / "shards" / "face_model.h5")
    try:
        script = code + f"\nassert vertices.shape == {MODEL.face_only().mean_shape.shape}"
        ran = subprocess.run(
            [sys.executable, "-c", script], cwd=built / "shards", capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert ran.returncode == 0, ran.stderr
    finally:
        (built / "shards" / "face_model.h5").unlink()


@pytest.mark.parametrize("kind", ("asmd", "ftd", "faces"))
@pytest.mark.parametrize("encoding", ("dense", "params"))
def test_every_kind_has_a_card(kind, encoding):
    settings = {"kind": kind, "size": 64, "photos": 3, "encoding": encoding, "chart": "harmonic", "refit": True,
                "face_model": "dualface open face 1", "face_model_sha256": "ab"}
    if kind == "faces":
        settings = {key: settings[key] for key in ("kind", "size", "photos")}
    counts = BuildSummary(kind, 2, {"too dark": 1}, 0, np.nan, np.nan, {"yaw": 12.345}, 2, 3, (), 1.0)
    card = dataset_card(settings, {"licence": "free", "coefficients": "open"}, counts)
    assert row(card, "mean yaw") == "12.3" and row(card, "- too dark") == "1"
    assert "landmarks from" not in card and "outside" not in card and "nan" not in card
    assert ("free" in card) == ("Fitted to landmarks" in card) == (kind != "faces")
    compile(re.search(r"```python\n(.*?)```", card, re.S)[1], "card", "exec")
    assert ("load_model" in card) == (encoding == "params" and kind != "faces")


def test_the_card_of_a_run_tells_what_its_checkpoint_holds(run):
    card, state = (run / model_card.CARD_NAME).read_text(), load_checkpoint(run, "geometry")
    assert row(card, "trained") == "3 of 3 steps" and state["step"] == 3
    assert row(card, "face model") == f"toy, SHA-256 {MODEL.sha256}" and MODEL.licence in card
    assert "holds the mean face of that model" in card  # as a map that its decoder starts from
    start = state["networks"]["geometry"]["identity_decoder.start"].tanh().numpy()
    _, maps = map_space(state["metadata"], MODEL, state["metadata"]["chart_uv"].numpy())
    np.testing.assert_allclose(start, maps.mean_map, atol=1e-6)
    assert row(card, "trained on samples with SHA-256") == state["metadata"]["samples_sha256"]
    last = [record for record in read_log(run) if "validation" in record][-1]
    assert f"After {last['step']} steps" in card and last["step"] == 3
    for name, value in last["validation"].items():
        assert row(card, name) == f"{value:.4g}"
    described = json.loads(re.search(r"```json\n(.*?)```", card, re.S)[1])
    assert GeometryConfig.from_dict(described) == GeometryConfig.from_dict(state["config"])


def test_the_card_of_a_run_that_is_not_finished_says_so(run):
    state, records = load_checkpoint(run, "geometry"), read_log(run)
    card = model_card.model_card("geometry", 2, 3, state["config"], state["metadata"], records)
    assert row(card, "trained") == "2 of 3 steps, not finished" and "After 2 steps" in card
    card = model_card.model_card("noise", 1, 3, {}, {}, [])
    landmarks = model_card.model_card("landmarks", 1, 3, {}, state["metadata"], [])
    assert MODEL.licence in landmarks and "mean face" not in landmarks
    assert "A network of kind noise." in card and "Nothing yet." in card and "None" not in card


def test_the_card_of_a_run_is_rewritten_only_if_it_differs(run):
    card, state = run / model_card.CARD_NAME, load_checkpoint(run, "geometry")
    before = card.read_bytes(), card.stat().st_mtime_ns
    model_card.write_model_card(run, "geometry", 3, 3, state["config"], state["metadata"])
    assert (card.read_bytes(), card.stat().st_mtime_ns) == before
