"""Toy shards and hardly trained streams -> training of both on photos alone -> checkpoint -> faces."""

import copy
import dataclasses
import json
import math
from functools import cache

import fusion_table
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from toy import toy_model
from toy_asmd import write_toy_asmd
from toy_ftd import write_toy_ftd
from training_runs import PowerCut, cut_at, same_tensors, without_times

from asmgen import face_crops
from asmgen.shards import ShardSet, write_shard
from cli.main import main
from model.batches import prepare_photos
from model.checkpoint import load_checkpoint, save_checkpoint, weights_sha256
from model.config import NO_AUGMENTATION, FusionConfig, GeometryConfig, IdentityConfig, LandmarkConfig, TextureConfig
from model.data import FUSION, FaceDataset, step_generator
from model.dual_stream import draw_face, load_dual_stream
from model.figures.fusion import fusion_figure
from model.fusion_losses import photometric_error
from model.identity import LAYERS, IdentityNetwork, face_crop, load_identity_network
from model.landmarks import LandmarkNetwork, landmarks_from_heatmaps, load_landmark_network
from model.train_fusion import FusionTask, train_fusion
from model.train_geometry import train_geometry
from model.train_texture import train_texture
from model.trainer import read_log, run_training

pytestmark = pytest.mark.usefixtures("without_curves")
SIZE = 64  # the landmark networks halve a quarter of it four times
CONFIG = FusionConfig(
    seed=3, batch_size=3, steps=6, log_every=1, validate_every=3, checkpoint_every=2, validation_fraction=0.3,
    learning_rate=1e-3, warm_up_steps=4, camera_distance=900.0, lambda_symmetry=0.05, lambda_smoothness=0.01,
)
TERMS = ("pixel", "identity", "alignment", "symmetry", "smoothness", "keep")


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory):
    return write_toy_ftd(tmp_path_factory.mktemp("shards"), model, 8, SIZE)


def write_photos(folder, shards):
    """The photos of other shards, and nothing else."""
    source = ShardSet(shards)
    samples = (
        {"image": sample["image"], "source": sample["source"], "crop_transform": np.eye(2, 3, dtype=np.float32)}
        for sample in (source[index] for index in range(len(source)))
    )
    attributes = {"kind": face_crops.KIND, "schema_version": face_crops.SCHEMA_VERSION, "size": SIZE}
    folder.mkdir()
    write_shard(folder / "shard-00000-of-00001.h5", samples, attributes, {})
    return folder


def write_landmarks(folder, seed):
    torch.manual_seed(seed)
    network = LandmarkNetwork(1, 0.05)
    torch.nn.init.normal_(network.l0.weight)  # it starts empty
    config = LandmarkConfig(width=0.05, stacks=1).to_dict()
    save_checkpoint(folder, "landmarks", 1, config, {}, {"landmarks": network}, {})
    return folder


def write_identity(folder, seed):
    torch.manual_seed(seed)
    network = IdentityNetwork(LAYERS[18], 0.05)
    config = IdentityConfig(width=0.05).to_dict()
    save_checkpoint(folder, "identity", 1, config, {}, {"identity": network}, {})
    return folder


@pytest.fixture(scope="module")
def given(model, shards, tmp_path_factory):
    """Hardly trained streams, and stand-ins for trained networks."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "landmarks").mkdir()
    (folder / "identity").mkdir()
    common = {"width": 0.06, "batch_size": 4, "validation_fraction": 0}
    geometry = GeometryConfig(parameter_steps=0, stream_steps=20, learning_rate=2e-3, **common)
    texture = TextureConfig(steps=2, regions=4, omega_c=0.0, **common)
    write_landmarks(folder / "landmarks", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        train_geometry(write_toy_asmd(folder / "asmd", model, 4, SIZE), folder / "geometry", geometry, model, "cpu")
        train_texture(shards, folder / "texture", texture, model, "cpu", landmarks=folder / "landmarks")
    write_identity(folder / "identity", 0)
    return {name: folder / name for name in ("geometry", "texture", "identity")}


@pytest.fixture(scope="module")
def whole_run(model, shards, given, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train_fusion(shards, folder, CONFIG, model, "cpu", **given)
    return folder


@cache
def loaded(checkpoint, texture=None, distance=None):
    """What is not changed is loaded once."""
    return load_dual_stream(checkpoint, texture, toy_model(), "cpu", distance)


def start_of(given, distance=900.0):
    """A copy of what fusion starts from."""
    start = loaded(given["geometry"], given["texture"], distance)
    return start._replace(network=copy.deepcopy(start.network))


@cache
def identity_of(path):
    return load_identity_network(path)


def task_of(model, shards, config, given):
    trained = start_of(given, config.camera_distance)
    needed = config.lambda_identity or config.lambda_alignment
    return FusionTask(
        FaceDataset(shards, FUSION), trained, config, torch.device("cpu"),
        identity=identity_of(given["identity"]) if config.lambda_identity else None,
        aligner=trained.network.landmarks if needed else None,
    )


def test_what_a_run_leaves(whole_run, model, shards, given):
    assert sorted(path.relative_to(whole_run).as_posix() for path in whole_run.rglob("*.*")) == [
        "README.md", "checkpoint.pt", "config.json", "curves.png", "log.jsonl",
        *(f"samples/step-00000{step}.png" for step in (0, 3, 6)),
    ]
    described = json.loads((whole_run / "config.json").read_text())
    assert FusionConfig.from_dict(described["config"]) == CONFIG
    start = start_of(given)
    wanted = {
        "kind": "fusion", "camera_distance": 900.0, "face_model_sha256": model.sha256, "parsing_sha256": "",
        "samples_sha256": FaceDataset(shards, FUSION).samples_sha256,
        "start_geometry_sha256": weights_sha256(start.network.geometry),
        "start_generator_sha256": weights_sha256(start.network.generator),
        "start_landmarks_sha256": weights_sha256(start.network.landmarks),
        "aligner_sha256": weights_sha256(start.network.landmarks),
        "identity_sha256": weights_sha256(load_identity_network(given["identity"])),
    }
    assert wanted.items() <= described["metadata"].items()
    state = load_checkpoint(whole_run, "fusion")
    assert state["networks"].keys() == {"geometry", "generator", "landmarks"}
    for name in ("geometry", "generator"):  # each updated once a step
        assert {int(entry["step"]) for entry in state["optimisers"][name]["state"].values()} == {6}
    (note,) = (record["note"] for record in read_log(whole_run) if "note" in record)
    assert note == "the pixel loss compares all that is drawn"


def test_losses_of_eq_23(whole_run):
    records = [record for record in read_log(whole_run) if "loss" in record]
    assert [record["step"] for record in records] == list(range(1, 7))
    for record in records:
        total = sum(getattr(CONFIG, f"lambda_{term}") * record[term] for term in TERMS)
        assert record["loss"] == pytest.approx(total, rel=1e-5)
    assert all(record[term] > 0 for record in records for term in TERMS if record["step"] > 1)
    # the first step is that of the start
    assert [records[0][key] for key in ("smoothness", "keep", "from_start_mm")] == [0, 0, 0]
    assert [records[0][f"{key}_spread_percent"] for key in ("identity", "expression")] == [100, 100]


def test_validation_is_of_the_faces_as_they_are_loaded(whole_run, model, shards, given):
    """Before the first step of the start, then of what the checkpoint holds; on the held-out photos as they are."""
    records = [record for record in read_log(whole_run) if "validation" in record]
    assert [record["step"] for record in records] == [0, 3, 6]
    assert records[0]["validation"].keys() == {
        "photometric_mae", "identity_mm", "expression_mm", "full_mm", "pose_degrees", "landmark_pixels",
        "albedo_stddevs", "albedo_mae", "linear_mae", "albedo_ssim", "linear_ssim",
    }
    dataset = FaceDataset(shards, FUSION)
    held_out = task_of(model, shards, CONFIG, given).held_out
    assert len(held_out) == 2
    photo = torch.stack([dataset[index]["image"] for index in held_out]) / 255
    source = ShardSet(shards)
    start = start_of(given)
    for record, trained in ((records[0], start), (records[2], loaded(whole_run))):
        face = trained.network(photo)
        rendered = draw_face(trained.renderer, face)
        found = record["validation"]
        assert float(photometric_error(rendered.image, photo, rendered.mask).mean()) == pytest.approx(
            found["photometric_mae"], rel=1e-4
        )
        truth = [source[int(index)] for index in held_out]
        away = np.linalg.norm(rendered.landmarks.numpy() - [sample["landmarks"] for sample in truth], axis=-1)
        assert away.mean() == pytest.approx(found["landmark_pixels"], rel=1e-4)
        neutral = trained.maps.identity_map(np.stack([sample["id_coeffs"] for sample in truth]))
        away = trained.maps.sample(face.identity_map.numpy() - neutral) * trained.maps.scale
        assert np.linalg.norm(away, axis=-1).mean() == pytest.approx(found["identity_mm"], rel=1e-4)
    assert records[0]["validation"] != records[2]["validation"]


def test_a_run_is_loaded_as_it_was_trained(whole_run, model, given):
    trained = load_dual_stream(whole_run, model=model)
    state = load_checkpoint(whole_run, "fusion")["networks"]
    for name in ("geometry", "generator", "landmarks"):
        assert same_tensors(dict(getattr(trained.network, name).state_dict()), dict(state[name]))
    assert trained.renderer.camera_distance == trained.metadata["camera_distance"] == 900
    assert trained.has_texture and trained.metadata["kind"] == "fusion"
    assert load_dual_stream(whole_run, model=model, camera_distance=math.inf).renderer.camera_distance == math.inf
    with pytest.raises(ValueError, match="is a fusion run, which holds a texture stream; leave out the texture run"):
        load_dual_stream(whole_run, given["texture"], model)


def test_only_the_photos_are_trained_on(model, shards, given, tmp_path):
    alone = write_photos(tmp_path / "faces", shards)
    tasks = [task_of(model, source, CONFIG, given) for source in (shards, alone)]
    for _ in range(2):
        losses = [task.step(next(iter(task.batches(0, 1))), 0) for task in tasks]
    assert same_tensors(*losses)
    assert tasks[1].note.endswith(f"nothing but photos is known of the samples in {alone}")
    found = [task.validate() for task in tasks]
    assert found[1] == {"photometric_mae": found[0]["photometric_mae"]}


def test_shards_of_all_kinds_are_measured_by_what_they_know(model, shards, given, tmp_path):
    folders = [shards, write_toy_asmd(tmp_path / "asmd", model, 4, SIZE, "dense"), write_photos(tmp_path / "p", shards)]
    apart = [task_of(model, folder, CONFIG, given) for folder in folders]
    task = task_of(model, folders, CONFIG, given)
    indices = [np.array([1, 6]), np.array([0, 2, 3]), np.array([4])]
    starts = np.cumsum([0, 8, 4])
    found = task.evaluate(np.concatenate([chosen + start for chosen, start in zip(indices, starts)]))
    alone = [one.evaluate(chosen) for one, chosen in zip(apart, indices)]
    for key, value in found.items():
        counts = [len(chosen) if key in one else 0 for one, chosen in zip(alone, indices)]
        wanted = np.average([one.get(key, 0) for one in alone], weights=counts)
        assert value == pytest.approx(wanted, rel=1e-5), key
    assert "albedo_mae" not in alone[1] and "identity_mm" in alone[1]


def test_truth_of_another_face_model_is_not_compared_with(model, given, tmp_path):
    other = write_toy_ftd(tmp_path / "other", toy_model(seed=1), 4, SIZE)
    task = task_of(model, other, CONFIG, given)
    assert task.validate().keys() == {"photometric_mae"} and task.note.endswith(f"in {other}")


def test_the_learning_rate_rises(model, shards, given):
    assert [CONFIG.learning_rate_at(step) for step in range(6)] == pytest.approx(
        [0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3], rel=1e-12
    )
    assert dataclasses.replace(CONFIG, warm_up_steps=0).learning_rate_at(0) == 1e-3
    task = task_of(model, shards, CONFIG, given)
    (raw,) = task.batches(0, 1)
    for step in (1, 5):
        task.step(raw, step)
        for optimiser in task.optimisers.values():
            assert [group["lr"] for group in optimiser.param_groups] == [CONFIG.learning_rate_at(step)]


def test_the_streams_are_trained_and_nothing_else(model, shards, given):
    task = task_of(model, shards, CONFIG, given)
    others = {"start": task.start, "identity": task.identity, "aligner": task.aligner}
    before = {name: weights_sha256(network) for name, network in others.items()}
    parameters = {
        name: {key: value.clone() for key, value in task.networks[name].named_parameters()}
        for name in ("geometry", "generator")
    }
    task.step(next(iter(task.batches(0, 1))), 0)
    assert before == {name: weights_sha256(network) for name, network in others.items()}
    for name, values in parameters.items():
        still = [key for key, value in task.networks[name].named_parameters() if torch.equal(value, values[key])]
        assert not still, name


def test_what_the_networks_that_compare_are_shown(model, shards, given, monkeypatch):
    task, seen, crops = task_of(model, shards, CONFIG, given), [], []
    raw, forward = next(iter(task.batches(0, 1))), LandmarkNetwork.forward
    monkeypatch.setattr(LandmarkNetwork, "forward", lambda self, image: seen.append(image) or forward(self, image))
    monkeypatch.setattr(
        "model.train_fusion.face_crop", lambda image, points: crops.append((image, points)) or face_crop(image, points)
    )
    photo = prepare_photos(raw, torch.device("cpu"), CONFIG.augmentation, step_generator(CONFIG.seed, 0))
    rendered = draw_face(task.renderer, task.network(photo))
    seen.clear()
    task.step(raw, 0)
    first, second = seen  # K and H, one network here, see I_o once, then I_R over I_o, which leads on to the streams
    assert torch.equal(first, photo) and not first.requires_grad
    assert second.requires_grad
    wanted = torch.where(rendered.mask, rendered.image.clamp(0, 1), photo)
    torch.testing.assert_close(second, wanted)
    # both crops are where the landmarks of I_o are
    found = landmarks_from_heatmaps(forward(task.aligner, photo)[-1])
    assert torch.equal(crops[0][0], second) and torch.equal(crops[1][0], photo)
    assert all(torch.equal(points, found) and not points.requires_grad for _, points in crops)


def test_the_same_landmark_network_from_another_file_runs_once(model, shards, given):
    trained = start_of(given)
    same = load_landmark_network(given["geometry"].parent / "landmarks")
    task = FusionTask(
        FaceDataset(shards, FUSION), trained, dataclasses.replace(CONFIG, lambda_identity=0.0), torch.device("cpu"),
        identity=None, aligner=same,
    )
    assert task.aligner is trained.network.landmarks


def test_a_step_is_a_function_of_its_number_and_the_seed(model, shards, given):
    losses = []
    for seed in (3, 3, 4):  # of the order and the augmentation
        task = task_of(model, shards, CONFIG, given)
        task.config = dataclasses.replace(CONFIG, seed=seed)
        torch.rand(len(losses))  # the global generator is elsewhere
        losses.append(task.step(next(iter(task.batches(1, 2))), 1))
    assert same_tensors(losses[0], losses[1]) and not same_tensors(losses[0], losses[2])


def test_a_resumed_run_equals_one_never_stopped(model, shards, given, whole_run, tmp_path):
    with pytest.raises(PowerCut):
        train_fusion(shards, tmp_path, CONFIG, model, "cpu", on_log=cut_at(5), **given)
    assert load_checkpoint(tmp_path, "fusion")["step"] == 4
    torch.rand(17)  # the global generator has moved on since
    train_fusion(shards, tmp_path, CONFIG, model, "cpu", resume=True, **given)
    assert same_tensors(*(load_checkpoint(folder, "fusion") for folder in (tmp_path, whole_run)))
    assert without_times(read_log(tmp_path)) == without_times(read_log(whole_run))
    last = "samples/step-000006.png"
    assert (tmp_path / last).read_bytes() == (whole_run / last).read_bytes()


def test_a_run_goes_on_from_the_same_start_only(model, shards, given, whole_run, tmp_path):
    for name, write, key in (("identity", write_identity, "identity"), ("landmarks", write_landmarks, "aligner")):
        (tmp_path / name).mkdir()
        others = {**given, name: write(tmp_path / name, 1)}
        with pytest.raises(ValueError, match=f"with these data: {key}_sha256 is"):
            train_fusion(shards, whole_run, CONFIG, model, "cpu", resume=True, **others)
    with pytest.raises(ValueError, match="camera_distance is 800.0, the run was started with 900.0"):
        nearer = dataclasses.replace(CONFIG, camera_distance=800.0)
        train_fusion(shards, whole_run, nearer, model, "cpu", resume=True, **given)


def test_a_fusion_run_is_gone_on_from(model, shards, given, whole_run, tmp_path):
    """On other photos: a run of its own that starts where the other ended."""
    config = dataclasses.replace(CONFIG, steps=1)
    train_fusion(shards, tmp_path, config, model, "cpu", geometry=whole_run, identity=given["identity"])
    before, after = (
        [record["validation"] for record in read_log(folder) if "validation" in record] for folder in
        (tmp_path, whole_run)
    )
    assert before[0] == after[-1]
    metadata = load_checkpoint(tmp_path, "fusion")["metadata"]
    assert metadata["start_geometry_sha256"] == weights_sha256(loaded(whole_run).network.geometry)
    assert load_dual_stream(tmp_path, model=model).metadata["fusion_config"]["steps"] == 1
    with pytest.raises(ValueError, match=r"fusion needs a texture stream; give a texture run \(--texture\)"):
        train_fusion(shards, tmp_path / "other", CONFIG, model, "cpu", **{**given, "texture": None}, landmarks=(
            given["geometry"].parent / "landmarks"
        ))


def test_a_loss_that_is_off_is_not_made(model, shards, given):
    task = task_of(model, shards, CONFIG, given)
    raw = next(iter(task.batches(0, 1)))
    for off in TERMS:
        task.config = config = dataclasses.replace(CONFIG, **{f"lambda_{off}": 0.0})
        losses = task.step(raw, 0)
        assert set(TERMS) & losses.keys() == set(TERMS) - {off}
        assert float(losses["loss"]) == pytest.approx(
            sum(getattr(config, f"lambda_{key}") * float(losses[key]) for key in set(TERMS) - {off}), rel=1e-5
        )


def test_networks_that_were_not_given(model, shards, given, tmp_path):
    with pytest.raises(ValueError, match=r"needs a trained face recognition network: .*\(--identity\), or turn the "
                                         r"loss off \(--no-identity\)"):
        train_fusion(shards, tmp_path, CONFIG, model, "cpu", **{**given, "identity": None})
    config = TextureConfig(
        width=0.06, batch_size=4, steps=1, omega_c=0.0, landmark_branch=False, validation_fraction=0
    )
    train_texture(shards, tmp_path / "texture", config, model, "cpu")
    unguided = {**given, "texture": tmp_path / "texture"}
    with pytest.raises(ValueError, match=r"need a trained landmark network: .*\(--landmarks\), or turn them off"):
        train_fusion(shards, tmp_path / "run", CONFIG, model, "cpu", **unguided)
    # what is not needed need not be there
    pixels = dataclasses.replace(CONFIG, steps=1, lambda_identity=0.0, lambda_alignment=0.0)
    train_fusion(shards, tmp_path / "run", pixels, model, "cpu", **{**unguided, "identity": None})
    assert load_dual_stream(tmp_path / "run", model=model).network.landmarks is None
    with pytest.raises(ValueError, match="there is no loss to train on"):
        dataclasses.replace(pixels, lambda_pixel=0.0)
    small = write_toy_ftd(tmp_path / "small", model, 2, 32)
    with pytest.raises(ValueError, match="crops of 64 pixels, as those that the runs were trained on, got 32"):
        train_fusion(small, tmp_path / "other", CONFIG, model, "cpu", **given)


def test_what_hides_the_face_does_not_count(model, shards, given):
    class LeftHalf(torch.nn.Module):
        def face_mask(self, image):
            return (torch.arange(SIZE) < SIZE // 2).expand(len(image), 1, SIZE, SIZE)

    config = dataclasses.replace(CONFIG, lambda_identity=0.0, lambda_alignment=0.0, augmentation=NO_AUGMENTATION)
    plain = task_of(model, shards, config, given)
    trained = start_of(given)
    task = FusionTask(
        plain.dataset, trained, config, torch.device("cpu"), identity=None, aligner=None, parsing=LeftHalf()
    )
    raw = next(iter(task.batches(0, 1)))
    photo = raw["image"] / 255
    rendered = draw_face(task.renderer, task.network(photo))
    half = rendered.mask & LeftHalf().face_mask(photo)
    wanted = 255 * ((rendered.image - photo).abs() * half).mean()
    torch.testing.assert_close(task.step(raw, 0)["pixel"], wanted.detach())
    wanted = photometric_error(rendered.image, photo, half)
    torch.testing.assert_close(plain.errors(raw)["photometric_mae"] != wanted, torch.ones(3, dtype=torch.bool))
    task.network.load_state_dict(plain.network.state_dict())
    torch.testing.assert_close(task.errors(raw)["photometric_mae"], wanted)
    assert task.note == "the pixel loss compares all that is drawn and that nothing hides (face parsing)"


def test_a_photo_without_face_has_no_photometric_error(model, shards, given, monkeypatch):
    task, visible = task_of(model, shards, CONFIG, given), FusionTask.visible
    (raw,) = task.batches(0, 1)
    errors = task.errors(raw)["photometric_mae"]
    hidden = torch.tensor([False, True, False]).view(3, 1, 1, 1)
    monkeypatch.setattr(FusionTask, "visible", lambda *given: visible(*given) & ~hidden)
    torch.testing.assert_close(task.errors(raw)["photometric_mae"], errors[[0, 2]])
    monkeypatch.setattr(FusionTask, "visible", lambda *given: visible(*given) & False)
    assert "photometric_mae" not in task.validate() and "identity_mm" in task.validate()


def test_collapse_ends_a_run(model, shards, given, tmp_path):
    task = task_of(model, shards, CONFIG, given)
    raw = next(iter(task.batches(0, 1)))
    losses = {key: float(value) for key, value in task.step(raw, 0).items()}
    task.check(losses)
    with torch.no_grad():  # everyone gets the same identity
        task.network.geometry.identity_decoder.output.weight.zero_()
    losses = {key: float(value.detach()) for key, value in task.losses(raw["image"] / 255).items()}
    assert losses["identity_spread_mm"] < 1e-3 and losses["expression_spread_percent"] > 20
    with pytest.raises(FloatingPointError, match="the identity maps collapse: .* by 0 % of .*; lower the learning"):
        run_training(task, tmp_path, CONFIG)
    (record,) = (record for record in read_log(tmp_path) if "loss" in record)
    assert record["step"] == 1 and not (tmp_path / "checkpoint.pt").exists()


def test_statistics_are_of_the_points_of_the_maps(model, shards, given):
    task = task_of(model, shards, CONFIG, given)
    photo = torch.rand(4, 3, SIZE, SIZE)
    with torch.no_grad():
        face, begun = task.network(photo), task.start(photo.flip(0))
    found = task.statistics(face, begun)
    inside, scale = task.trained.maps.chart.mask, task.trained.maps.scale
    maps = {name: (getattr(face, name).numpy() * scale)[..., inside] for name in ("identity_map", "expression_map")}
    away = maps["identity_map"] - maps["identity_map"].mean(0)
    assert float(found["identity_spread_mm"]) == pytest.approx(math.sqrt((away**2).sum(1).mean()), rel=1e-4)
    assert float(found["identity_spread_percent"]) == pytest.approx(100, rel=1e-4)  # of the same photos
    begun = ((begun.identity_map + begun.expression_map).numpy() * scale)[..., inside]
    moved = np.linalg.norm(sum(maps.values()) - begun, axis=1).mean()
    assert float(found["from_start_mm"]) == pytest.approx(moved, rel=1e-4)


def test_overfitting_two_photos(model, shards, given, tmp_path):
    config = dataclasses.replace(
        CONFIG, batch_size=2, steps=16, warm_up_steps=0, log_every=16, validate_every=200, checkpoint_every=200,
        validation_fraction=0, augmentation=NO_AUGMENTATION, lambda_identity=0.0, lambda_alignment=0.0,
        camera_distance=math.inf,
    )
    task = task_of(model, shards, config, given)
    task.training = np.array([2, 5])
    before = task.evaluate(task.training)
    run_training(task, tmp_path, config)
    after = task.evaluate(task.training)
    assert after["photometric_mae"] < before["photometric_mae"] / 2, (before, after)


def test_sheet_shows_the_photo_the_face_in_it_and_what_it_is_drawn_from(model, shards, given, whole_run):
    sheet = np.asarray(Image.open(whole_run / "samples" / "step-000006.png"))
    assert sheet.shape == (2 * SIZE, 5 * SIZE, 3)
    trained = loaded(whole_run)
    dataset = FaceDataset(shards, FUSION)
    held_out = task_of(model, shards, CONFIG, given).held_out
    photo = torch.stack([dataset[index]["image"] for index in held_out]) / 255
    face = trained.network(photo)
    rendered = draw_face(trained.renderer, face)
    shown = rendered.mask.expand_as(photo)
    for row in range(2):
        columns = [
            sheet[row * SIZE:(row + 1) * SIZE, start:start + SIZE].transpose(2, 0, 1) / 255
            for start in range(0, 5 * SIZE, SIZE)
        ]
        inside = shown[row].numpy()
        over = np.where(inside, rendered.image[row].clamp(0, 1), photo[row])
        for found, wanted in zip(columns, (photo[row], over, face.albedo_map[row])):
            np.testing.assert_allclose(found, wanted, atol=2.1e-3)
        light, clay = columns[3:]
        assert (light[~inside] == 0).all() and (clay[~inside] == 0).all() and clay[inside].min() > 0.1
        shading = rendered.image[row] / rendered.albedo[row].clamp(min=1e-3)
        np.testing.assert_allclose(light[inside], (0.7 * shading).clamp(0, 1)[inside], atol=0.01)


def test_from_the_command_line(shards, tmp_path, model, given):
    from bfm.model_file import save_model

    save_model(model, tmp_path / "toy.h5")
    arguments = [
        "train", "fusion", str(shards), "-o", str(tmp_path / "run"), "--face-model", str(tmp_path / "toy.h5"),
        "--steps", "2", "--batch-size", "2", "--log-every", "1", "--validation-fraction", "0",
        "--geometry", str(given["geometry"]), "--texture", str(given["texture"]), "--camera-distance", "inf",
    ]
    failed = CliRunner().invoke(main, arguments)
    assert failed.exit_code == 1 and failed.output.startswith("Error: the identity loss needs a trained face")
    done = CliRunner().invoke(main, [*arguments, "--no-identity", "--no-alignment"])
    assert done.exit_code == 0, done.output
    first, *steps, last = done.output.splitlines()
    assert first == read_log(tmp_path / "run")[0]["note"]
    assert steps[0].startswith("step 1  pixel") and last == f"wrote {tmp_path / 'run' / 'checkpoint.pt'}"
    config = FusionConfig.from_dict(load_checkpoint(tmp_path / "run", "fusion")["config"])
    assert (config.lambda_pixel, config.lambda_identity, config.lambda_alignment) == (0.1, 0, 0)
    assert (config.learning_rate, config.steps, config.camera_distance) == (5e-5, 2, math.inf)
    described = json.loads((tmp_path / "run" / "config.json").read_text(), parse_constant=pytest.fail)
    assert described["metadata"]["camera_distance"] is None and FusionConfig.from_dict(described["config"]) == config


def test_table_and_figure_of_the_losses_left_out(model, shards, given, tmp_path, monkeypatch):
    from bfm.model_file import save_model

    save_model(model, tmp_path / "toy.h5")
    monkeypatch.setitem(fusion_table.VARIANTS, "no-keep", {"learning_rate": 1e6})  # it collapses, and the rest goes on
    arguments = [
        str(shards), str(tmp_path / "runs"), "--face-model", str(tmp_path / "toy.h5"), "--steps", "3",
        "--batch-size", "2", "--log-every", "1", "--validation-fraction", "0.3", "--device", "cpu",
        "--seeds", "1", "--minutes", "1e-6",
        "-o", str(tmp_path / "table.json"), "--figure", str(tmp_path / "figure.png"),
        *(part for name, run in given.items() for part in (f"--{name}", str(run))), "--variants",
    ]
    for variants in ("full", "no-keep,no-pixel"):  # they are drawn though they had to stop
        done = CliRunner().invoke(fusion_table.main, [*arguments, variants], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)
    (collapsed,) = report["results"].pop("no-keep").values()
    said = "step 2 is not finite (the network's faces are not finite any more) on row "
    assert collapsed["steps"] == 1 and collapsed["collapsed"].startswith(said)
    rows = {name: rows["0"] for name, rows in report["results"].items()}
    assert {name: row["steps"] for name, row in rows.items()} == {"full": 2, "no-pixel": 2}
    for name, row in rows.items():
        task = task_of(model, shards, FusionConfig(seed=0, validation_fraction=0.3, camera_distance=math.inf), given)
        before = task.validate()["photometric_mae"]
        run = tmp_path / "runs" / name / "seed-0"
        task.network.load_state_dict(load_dual_stream(run, model=model).network.state_dict())
        assert row["photometric_mae"] == pytest.approx(task.validate()["photometric_mae"], rel=1e-4)
        assert row["start_photometric_mae"] == pytest.approx(before, rel=1e-4)
        last = [record for record in read_log(run) if "loss" in record][-1]
        assert (row["from_start_mm"], row["steps"]) == (last["from_start_mm"], last["step"])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.output.strip().splitlines()[-6:]]
    assert [line[:2] for line in lines] == [
        ["variant", "seeds"], lines[1][:2], ["start", "-"], ["full", "1"], ["no-keep", "0 (1 collapsed)"],
        ["no-pixel", "1"],
    ]
    place = lines[0].index("photometric error")
    assert [lines[row][place] for row in (2, 3)] == [f"{rows['full'][key]:.4f}" for key in (
        "start_photometric_mae", "photometric_mae")]
    with Image.open(tmp_path / "figure.png") as sheet:
        assert sheet.width == 4 * 230 + 6  # photo, start and both variants


def write_fusion(folder, trained, config):
    """A run with the networks of `trained`."""
    metadata = {**trained.metadata, "kind": "fusion", "samples_sha256": ""}
    networks = {name: getattr(trained.network, name) for name in ("geometry", "generator", "landmarks")}
    folder.mkdir()
    save_checkpoint(folder, "fusion", 1, config.to_dict(), metadata, networks, {})
    return folder


def test_fig_17_draws_the_face_in_its_photo(model, shards, given, tmp_path, monkeypatch):
    monkeypatch.setattr("bfm.model_file.load_model", lambda name: model)
    start, black = start_of(given), start_of(given)
    with torch.no_grad():
        black.network.generator.output[1].bias.fill_(-50)
    runs = [write_fusion(tmp_path / "black", black, dataclasses.replace(CONFIG, lambda_identity=0.0))]
    dataset = FaceDataset(shards, FUSION)
    for index in (4, 1):
        arguments = ["fusion", str(shards), "--checkpoint", str(runs[0]), "--sample", str(index)]
        arguments += ["--geometry", str(given["geometry"]), "--texture", str(given["texture"])]
        done = CliRunner().invoke(main, ["figure", *arguments, "-o", str(tmp_path / "figure.png")])
        assert done.exit_code == 0, done.output
        sheet = Image.open(tmp_path / "figure.png")
        places = [(6 + 230 * column, 23) for column in range(3)]  # below a line of headings
        tiles = [
            np.asarray(sheet.crop((left, top, left + 224, top + 224)).resize((SIZE, SIZE), Image.Resampling.BOX), float)
            for left, top in places
        ]
        photo = dataset[index]["image"][None] / 255
        rendered = draw_face(start.renderer, start.network(photo))
        mask, face = rendered.mask[0, 0].numpy(), rendered.image[0].permute(1, 2, 0).numpy().clip(0, 1) * 255
        inside, outside = binary_erosion(mask, iterations=3), ~binary_dilation(mask, iterations=3)
        picture = photo[0].permute(1, 2, 0).numpy() * 255
        assert all(np.abs(tile[outside] - picture[outside]).mean() < 6 for tile in tiles)
        assert np.abs(tiles[0][inside] - picture[inside]).mean() < 6
        assert np.abs(tiles[1][inside] - face[inside]).mean() < 6 and face[inside].mean() > 20
        assert tiles[2][inside].max() < 1


def test_fig_17_names_its_columns_and_draws_held_out_photos(model, shards, given, whole_run, tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr("model.figures.fusion.picture_sheet", lambda *sheet: sheets.append(sheet))
    config = dataclasses.replace(CONFIG, lambda_identity=0.0, lambda_pixel=0.0)
    other = write_fusion(tmp_path / "other", start_of(given), config)
    fusion_figure(shards, [whole_run, other], face_model=model)
    fusion_figure(shards, [other, whole_run, other], [4], model, labels=["a", "b", "c"])
    (headings, rows), (given_headings, _) = sheets
    assert headings == ["photo", "all losses", "no pixel loss, no identity loss"]
    assert given_headings == ["photo", "a", "b", "c"]
    held_out = task_of(model, shards, CONFIG, given).held_out
    assert [row[0].lines[0].split(":")[0] for row in rows] == [str(index) for index in held_out]
    images = torch.stack([FaceDataset(shards, FUSION)[index]["image"] for index in held_out]) / 255
    for column, path in ((1, whole_run), (2, other)):
        trained = loaded(path)
        rendered = draw_face(trained.renderer, trained.network(images))
        errors = photometric_error(rendered.image, images, rendered.mask)
        assert [row[column].lines for row in rows] == [(f"error {error:.4f}",) for error in errors]


def test_what_fig_17_cannot_draw(model, shards, given, whole_run, tmp_path):
    with pytest.raises(ValueError, match="samples must be among the 8 there are, got 8"):
        fusion_figure(shards, [whole_run], [8], model)
    with pytest.raises(ValueError, match="labels must be one for each of the 1 checkpoints, got 2"):
        fusion_figure(shards, [whole_run], [0], model, labels=["a", "b"])
    with pytest.raises(ValueError, match="geometry and texture must be given together"):
        fusion_figure(shards, [whole_run], [0], model, geometry=given["geometry"])
    with pytest.raises(ValueError, match="must be a run of `dualface train fusion`, got one of kind 'geometry'"):
        fusion_figure(shards, [given["geometry"]], [0], model)
    small = write_toy_ftd(tmp_path / "small", model, 2, 32)
    with pytest.raises(ValueError, match="trained on crops of 32 pixels, as those to draw, got 64; draw it from"):
        fusion_figure(small, [whole_run], [0], model)
