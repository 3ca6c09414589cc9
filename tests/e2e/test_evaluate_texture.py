"""Toy shards and hardly trained runs -> `dualface evaluate texture` -> table, numbers and sheet."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from toy import toy_model
from toy_asmd import write_toy_asmd
from toy_ftd import write_toy_ftd

from asmgen import face_crops
from asmgen.shards import ShardSet, write_shard
from bfm.model_file import save_model
from cli.main import main
from model.config import FusionConfig, GeometryConfig, TextureConfig
from model.data import FUSION, FaceDataset, samples_with_truth, split_identities
from model.dual_stream import draw_face, load_dual_stream
from model.render import FaceRenderer
from model.train_fusion import train_fusion
from model.train_geometry import train_geometry
from model.train_texture import train_texture

SIZE = 32


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Shards ``ftd`` and ``faces``, runs ``geometry``, ``texture`` and ``fusion``, and the face model."""
    folder = tmp_path_factory.mktemp("given")
    common = {"width": 0.06, "batch_size": 4}
    geometry = GeometryConfig(parameter_steps=0, stream_steps=8, learning_rate=2e-3, validation_fraction=0, **common)
    texture = TextureConfig(
        steps=2, regions=4, landmark_branch=False, omega_c=0.0, validation_fraction=0.5, learning_rate=0.02, **common
    )
    fusion = FusionConfig(
        steps=1, batch_size=2, lambda_identity=0.0, lambda_alignment=0.0, validation_fraction=0.3, learning_rate=1e-2,
        warm_up_steps=0,
    )
    ftd = write_toy_ftd(folder / "ftd", model, 8, SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        train_geometry(write_toy_asmd(folder / "asmd", model, 4, SIZE), folder / "geometry", geometry, model, "cpu")
        train_texture(ftd, folder / "texture", texture, model, "cpu")
        streams = {name: folder / name for name in ("geometry", "texture")}
        train_fusion(ftd, folder / "fusion", fusion, model, "cpu", **streams)
    samples = ({"image": sample["image"], "source": sample["source"], "crop_transform": np.eye(2, 3, dtype=np.float32)}
               for sample in map(ShardSet(ftd).__getitem__, range(8)))
    attributes = {"kind": face_crops.KIND, "schema_version": face_crops.SCHEMA_VERSION, "size": SIZE}
    (folder / "faces").mkdir()
    write_shard(folder / "faces" / "shard-00000-of-00001.h5", samples, attributes, {})
    save_model(model, folder / "toy.h5")
    return folder


def evaluate(folder, out, shards, *options):
    chosen = [str(folder / option) if (folder / option).exists() else option for option in options]
    common = ["--face-model", str(folder / "toy.h5"), "--device", "cpu", "--batch-size", "3", "-o", str(out)]
    return CliRunner().invoke(main, ["evaluate", "texture", *(str(folder / name) for name in shards), *chosen, *common])


def test_runs_are_compared_on_the_photos_that_all_held_out(folder, model, tmp_path):
    result = evaluate(
        folder, tmp_path, ["ftd"], "--checkpoint", "geometry", "--texture", "texture", "--checkpoint", "fusion"
    )
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "table.md").read_text().strip() in result.output
    dataset = FaceDataset(folder / "ftd", FUSION)
    held_out = [split_identities(dataset.sources, fraction, 0)[1] for fraction in (0.5, 0.3)]
    assert [photo["sample"] for photo in results["photos"]] == np.intersect1d(*held_out).tolist()
    labels = ["geometry", "fusion"]
    runs = {
        labels[0]: load_dual_stream(folder / "geometry", folder / "texture", model, "cpu"),
        labels[1]: load_dual_stream(folder / "fusion", None, model, "cpu"),
    }
    names = [f"{label}: {method}" for label in labels for method in (
        "linear", "linear on the true face", "this method", "this method on the true face"
    )]
    assert list(results["means"]) == [*names, "I_a of the shards on the true face"]
    # the numbers of one photo, drawn one by one
    photo = results["photos"][0]
    (samples,), _ = samples_with_truth(dataset, runs[labels[0]].metadata)
    raw = samples[photo["sample"]]
    image, drawn = raw["image"][None] / 255, {}
    for label, run in runs.items():
        face = run.network(image)
        linear = face._replace(albedo_map=run.network.linear_albedo(face.parameters.albedo))
        drawn[f"{label}: linear"] = draw_face(run.renderer, linear)
        drawn[f"{label}: this method"] = draw_face(run.renderer, face)
        maps, true_renderer = run.maps, FaceRenderer(run.model, run.maps)
        full_map = torch.tensor(
            maps.identity_map(raw["id_coeffs"][None].numpy()) + maps.expression_map(raw["exp_coeffs"][None].numpy())
        )
        where = [raw[key][None].float() for key in ("light", "pose", "position")]
        for method, albedo in (("linear", linear.albedo_map), ("this method", face.albedo_map)):
            drawn[f"{label}: {method} on the true face"] = true_renderer(full_map.float(), albedo, *where)
    region = torch.stack([one.mask for one in drawn.values()]).all(0)[0, 0]
    assert photo["region_pixels"] == region.sum() > 50
    for name, one in drawn.items():
        difference = (one.image.clamp(0, 1) - image)[0][:, region]
        found = photo["methods"][name]
        assert found["mae"] == pytest.approx(difference.abs().mean().item(), abs=1e-6)
        assert found["e_pho"] == pytest.approx(difference.square().sum().item() / region.sum().item(), abs=1e-6)
    assert len({round(errors["mae"], 6) for errors in photo["methods"].values()}) == 9
    rows = len(results["photos"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 6 + 10 * 230 and sheet.height > rows * 2 * 224


def test_photos_alone_have_no_true_face(folder, tmp_path):
    result = evaluate(folder, tmp_path, ["faces"], "--checkpoint", "fusion")
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert {name: means["photos"] for name, means in results["means"].items()} == {"linear": 8, "this method": 8}
    assert all(means.keys() == {"photos", "mae", "e_pho", "ssim"} for means in results["means"].values())
    assert "fusion was trained on other shards, or on these before they changed" in result.output


def test_a_geometry_run_alone_is_linear(folder, tmp_path):
    result = evaluate(folder, tmp_path, ["ftd", "faces"], "--checkpoint", "geometry")
    means = json.loads((tmp_path / "results.json").read_text())["means"]
    assert {name: mean["photos"] for name, mean in means.items()} == {
        "linear": 16, "linear on the true face": 8, "I_a of the shards on the true face": 8
    }
    assert result.exit_code == 0 and "albedo map MAE" in result.output


def test_what_cannot_be_evaluated(folder, model, tmp_path):
    result = evaluate(folder, tmp_path, ["ftd"], "--checkpoint", "fusion", "--texture", "texture")
    assert result.exit_code == 1 and "goes with a geometry run, and there is none" in result.output
    write_toy_ftd(tmp_path / "other", model, 2, 64)
    result = evaluate(folder, tmp_path, [tmp_path / "other"], "--checkpoint", "fusion")
    assert result.exit_code == 1 and "fusion must have the size of the shards" in result.output
    result = evaluate(folder, tmp_path, ["ftd"], "--checkpoint", "fusion", "--label", "a", "--label", "b")
    assert result.exit_code == 1 and "labels must be one for each of the 1 runs" in result.output
