import dataclasses
import json
import math

import numpy as np
import pytest
import texture_table
import torch
from click.testing import CliRunner
from PIL import Image
from toy import toy_model
from toy_ftd import write_toy_ftd
from training_runs import PowerCut, cut_at, same_tensors, without_times

from cli.main import main
from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import NO_AUGMENTATION, GeometryConfig, LandmarkConfig, TextureConfig
from model.data import TEXTURE, FaceDataset, face_in_chart, step_generator
from model.geometry import GeometryStream
from model.landmarks import LandmarkNetwork, load_landmark_network
from model.perceptual import load_perceptual
from model.train_geometry import load_geometry_stream
from model.train_texture import TextureTask, albedo_predictor, load_texture_stream, train_texture
from model.trainer import read_log, run_training

pytestmark = pytest.mark.usefixtures("without_curves")
SIZE = 64  # K halves a quarter of it four times
CONFIG = TextureConfig(
    seed=3, width=0.06, batch_size=3, steps=6, regions=4, log_every=1, validate_every=3, checkpoint_every=2,
    validation_fraction=0.3, learning_rate=1e-3,
)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory):
    return write_toy_ftd(tmp_path_factory.mktemp("shards"), model, 8, SIZE)


def write_geometry(folder, seed, size=SIZE):
    torch.manual_seed(seed)
    stream = GeometryStream(4, size, 0.1, batch_norm=True)
    metadata = {"albedo_modes": 4, "size": size, "face_model_sha256": toy_model().sha256}
    save_checkpoint(folder, "geometry", 1, GeometryConfig(width=0.1).to_dict(), metadata, {"geometry": stream}, {})
    return folder


def write_landmarks(folder, seed):
    torch.manual_seed(seed)
    config = LandmarkConfig(width=0.05, stacks=1)
    network = LandmarkNetwork(1, 0.05)
    torch.nn.init.normal_(network.l0.weight)  # it starts empty
    save_checkpoint(folder, "landmarks", 1, config.to_dict(), {}, {"landmarks": network}, {})
    return folder


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Stand-ins for trained networks."""
    return {
        "geometry": write_geometry(tmp_path_factory.mktemp("geometry"), 0),
        "landmarks": write_landmarks(tmp_path_factory.mktemp("landmarks"), 0),
    }


@pytest.fixture(scope="module")
def whole_run(model, shards, frozen, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train_texture(shards, folder, CONFIG, model, "cpu", **frozen)
    return folder


def task_of(model, shards, config, frozen):
    dataset = FaceDataset(shards, TEXTURE)
    face, chart = face_in_chart(dataset.attributes, model, dataset.chart_uv)
    return TextureTask(
        dataset, face, chart, config, torch.device("cpu"),
        phi=load_perceptual(geometry=frozen["geometry"]) if config.omega_c else None,
        landmarks=load_landmark_network(frozen["landmarks"]) if config.landmark_branch else None,
        geometry=albedo_predictor(frozen["geometry"], dataset.attributes) if config.predicted_albedo else None,
    )


def test_losses_of_eq_18(whole_run):
    note, *records = (record for record in read_log(whole_run) if "validation" not in record)
    assert note == {"step": 0, "note": "the contextual loss compares features of the encoder of a geometry run (width "
                                       "0.1, 1 steps), for want of VGG-19's weights"}
    assert [record["step"] for record in records] == list(range(1, 7))
    for record in records:
        assert record["loss"] == pytest.approx(
            0.1 * record["reconstruction"] + 3 * record["contextual"] + 0.2 * record["adversarial"], rel=1e-5
        )
        # logits of an untrained discriminator are small
        assert abs(record["discriminator"] - math.log(2)) < 0.4 and abs(record["adversarial"] - math.log(2)) < 0.5


def test_what_a_run_leaves(whole_run, model, shards):
    assert sorted(path.relative_to(whole_run).as_posix() for path in whole_run.rglob("*.*")) == [
        "README.md", "checkpoint.pt", "config.json", "curves.png", "log.jsonl",
        *(f"samples/step-00000{step}.png" for step in (3, 6)),
    ]
    described = json.loads((whole_run / "config.json").read_text())
    assert TextureConfig.from_dict(described["config"]) == CONFIG
    assert described["metadata"]["face_model_sha256"] == model.sha256
    assert described["metadata"]["perceptual"].startswith("the encoder of a geometry run")
    validations = [record for record in read_log(whole_run) if "validation" in record]
    assert [record["step"] for record in validations] == [3, 6]
    assert validations[0]["validation"].keys() == {"albedo_mae", "linear_mae", "albedo_ssim", "linear_ssim"}
    state = load_checkpoint(whole_run, "texture")
    assert state["networks"].keys() == {"generator", "discriminator", "landmarks"}
    for name in ("generator", "discriminator"):  # each updated once a step
        assert {int(entry["step"]) for entry in state["optimisers"][name]["state"].values()} == {6}
    assert state["optimisers"]["generator"]["param_groups"][0]["betas"] == (0.5, 0.999)


def test_sheet_shows_the_triplet_and_what_came_of_it(model, shards, whole_run, frozen):
    task = task_of(model, shards, CONFIG, frozen)
    sheet = np.asarray(Image.open(whole_run / "samples" / "step-000006.png"))
    assert len(task.held_out) == 2 and sheet.shape == (2 * SIZE, 5 * SIZE, 3)
    trained = load_texture_stream(whole_run)
    for row, index in enumerate(task.held_out):
        batch = task.preparer(torch.utils.data.default_collate([task.dataset[index]]))
        generated = trained.stylise(batch.linear_albedo, batch.image).albedo_map
        columns = (batch.image, batch.linear_albedo, generated, batch.albedo, batch.albedo * batch.visible)
        for column, expected in enumerate(columns):
            found = sheet[row * SIZE:(row + 1) * SIZE, column * SIZE:(column + 1) * SIZE]
            expected = expected[0].numpy().transpose(1, 2, 0) * 255
            assert np.abs(found - expected).max() <= 0.51


def test_a_step_is_a_function_of_its_number_and_the_seed(model, shards, frozen):
    losses = []
    for seed in (3, 3, 4):  # of the order and the augmentation; the weights are those of 3
        task = task_of(model, shards, CONFIG, frozen)
        task.config = dataclasses.replace(CONFIG, seed=seed)
        torch.rand(len(losses))  # the global generator is elsewhere
        losses.append(task.step(next(iter(task.batches(1, 2))), 1))
    assert same_tensors(losses[0], losses[1]) and not same_tensors(losses[0], losses[2])


def test_the_discriminator_learns_which_are_real(model, shards, frozen):
    task = task_of(model, shards, dataclasses.replace(CONFIG, learning_rate=5e-3), frozen)
    batch = task.preparer(next(iter(task.batches(0, 1))))
    generated = batch.linear_albedo
    losses = [float(task.update_discriminator(generated, batch.albedo).detach()) for _ in range(15)]
    assert losses[-1] < losses[0] / 2
    assert task.discriminator(batch.albedo).mean() > task.discriminator(generated).mean() + 1


def test_measuring_between_steps_changes_nothing(model, shards, frozen):
    for measure in (lambda: task.errors(raw), lambda: task.pictures()):
        task = task_of(model, shards, CONFIG, frozen)
        raw = next(iter(task.batches(0, 1)))
        task.step(raw, 0)
        before = {key: value.clone() for key, value in task.generator.state_dict().items()}
        with torch.no_grad():
            measure()
        assert same_tensors(before, dict(task.generator.state_dict()))


def test_learning_rate_is_a_function_of_the_step(model, shards, frozen):
    config = dataclasses.replace(CONFIG, steps=8, learning_rate=1e-3)
    assert [config.learning_rate_at(step) for step in range(8)] == pytest.approx(
        [1e-3] * 5 + [0.75e-3, 0.5e-3, 0.25e-3]
    )
    task = task_of(model, shards, config, frozen)
    for step in (6, 2):
        task.step(next(iter(task.batches(step, step + 1))), step)
        for optimiser in task.optimisers.values():
            assert [group["lr"] for group in optimiser.param_groups] == [config.learning_rate_at(step)]


def test_a_resumed_run_equals_one_never_stopped(model, shards, frozen, whole_run, tmp_path):
    with pytest.raises(PowerCut):
        train_texture(shards, tmp_path, CONFIG, model, "cpu", on_log=cut_at(5), **frozen)
    assert load_checkpoint(tmp_path, "texture")["step"] == 4  # in the half where the learning rate falls
    torch.rand(17)  # the global generator has moved on since
    train_texture(shards, tmp_path, CONFIG, model, "cpu", resume=True, **frozen)
    assert same_tensors(*(load_checkpoint(folder, "texture") for folder in (tmp_path, whole_run)))
    assert without_times(read_log(tmp_path)) == without_times(read_log(whole_run))
    last = "samples/step-000006.png"
    assert (tmp_path / last).read_bytes() == (whole_run / last).read_bytes()


def test_frozen_networks_stay(whole_run, frozen, model, shards):
    state = load_checkpoint(whole_run, "texture")
    given = load_landmark_network(frozen["landmarks"]).state_dict()
    assert same_tensors(dict(state["networks"]["landmarks"]), dict(given))
    task = task_of(model, shards, CONFIG, frozen)
    before = {key: value.clone() for key, value in task.phi.state_dict().items()}
    task.step(next(iter(task.batches(0, 1))), 0)
    assert same_tensors(before, dict(task.phi.state_dict()))


def test_the_geometry_run_is_part_of_the_run(model, shards, frozen, tmp_path):
    config = dataclasses.replace(CONFIG, steps=1, omega_c=0.0, landmark_branch=False, predicted_albedo=True)
    train_texture(shards, tmp_path / "run", config, model, "cpu", geometry=frozen["geometry"])
    (tmp_path / "geometry").mkdir()
    other = write_geometry(tmp_path / "geometry", 1)
    with pytest.raises(ValueError, match="with these data: geometry_sha256 is"):
        train_texture(shards, tmp_path / "run", config, model, "cpu", resume=True, geometry=other)


def test_runs_that_cannot_go_on(model, shards, frozen, whole_run, tmp_path):
    with pytest.raises(ValueError, match="steps is 8, the run was started with 6"):
        longer = dataclasses.replace(CONFIG, steps=8)  # its learning rate would have been another from the start
        train_texture(shards, whole_run, longer, model, "cpu", resume=True, **frozen)
    for name, write in (("geometry", write_geometry), ("landmarks", write_landmarks)):
        (tmp_path / name).mkdir()
        others = {**frozen, name: write(tmp_path / name, 1)}
        with pytest.raises(ValueError, match=f"with these data: {name.replace('geometry', 'perceptual')}_sha256 is"):
            train_texture(shards, whole_run, CONFIG, model, "cpu", resume=True, **others)


def test_networks_that_were_not_given(model, shards, frozen, tmp_path):
    with pytest.raises(ValueError, match=r"needs trained features: .*\(--perceptual vgg19.pth\) .*\(--geometry RUN\), "
                                         r"or turn the loss off \(--no-contextual\)"):
        train_texture(shards, tmp_path, CONFIG, model, "cpu", landmarks=frozen["landmarks"])
    with pytest.raises(ValueError, match=r"needs a trained landmark network: .*\(--landmarks\), or leave the branch "
                                         r"out \(--no-landmark-branch\)"):
        train_texture(shards, tmp_path, CONFIG, model, "cpu", geometry=frozen["geometry"])
    with pytest.raises(ValueError, match="there is no loss to train on"):
        dataclasses.replace(CONFIG, omega_r=0, omega_c=0, omega_a=0)
    assert not list(tmp_path.iterdir())


def test_linear_albedo_as_predicted_from_the_photo(model, shards, frozen, tmp_path):
    task = task_of(model, shards, dataclasses.replace(CONFIG, predicted_albedo=True), frozen)
    raw = next(iter(task.batches(0, 1)))
    batch, plain = task.prepare(raw), task.preparer(raw)
    coeffs = load_geometry_stream(frozen["geometry"]).network.predict_parameters(plain.image).albedo
    face, chart = face_in_chart(task.dataset.attributes, model, task.dataset.chart_uv)
    expected = np.clip(chart.unwrap(face.albedo(coeffs.numpy())), 0, 1)
    np.testing.assert_allclose(batch.linear_albedo, expected, atol=1e-5)
    assert (batch.linear_albedo - plain.linear_albedo).abs().max() > 0.01
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(batch[2:], plain[2:]))
    # of the photo as it was augmented
    seen = task.prepare(raw, CONFIG.augmentation, step_generator(0, 0))
    coeffs = task.geometry.predict_parameters(seen.image).albedo
    torch.testing.assert_close(seen.linear_albedo, task.preparer.linear_albedo(coeffs) * seen.inside)
    # in mixed precision in training alone
    task.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    assert torch.equal(task.prepare(raw).linear_albedo, batch.linear_albedo)
    assert not torch.equal(
        task.prepare(raw, CONFIG.augmentation, step_generator(0, 0)).linear_albedo, seen.linear_albedo
    )
    with pytest.raises(ValueError, match=f"on shards of the same size, {SIZE}, got 32"):
        albedo_predictor(write_geometry(tmp_path, 0, 32), task.dataset.attributes)
    with pytest.raises(ValueError, match=f"of the same face model, 0123456789ab, got {model.sha256[:12]}; train one"):
        albedo_predictor(frozen["geometry"], {"face_model_sha256": "0123456789abcdef", "size": SIZE})
    with pytest.raises(ValueError, match=r"needs a trained geometry stream: .*\(--annotated-albedo\)"):
        config = dataclasses.replace(CONFIG, predicted_albedo=True, omega_c=0.0)
        train_texture(shards, tmp_path / "run", config, model, "cpu", landmarks=frozen["landmarks"])


@pytest.mark.parametrize("off, term, network", (
    ("omega_r", "reconstruction", None), ("omega_c", "contextual", None), ("omega_a", "adversarial", "discriminator"),
))
def test_a_loss_that_is_off_is_not_made(model, shards, frozen, off, term, network):
    config = dataclasses.replace(CONFIG, landmark_branch=False, **{off: 0.0})
    task = task_of(model, shards, config, frozen)
    losses = task.step(next(iter(task.batches(0, 1))), 0)
    left = {"reconstruction", "contextual", "adversarial"} - {term}
    assert losses.keys() - {"discriminator"} == left | {"loss"}
    assert ("discriminator" in losses) == ("discriminator" in task.networks) == (network is None)
    assert float(losses["loss"]) == pytest.approx(sum(
        {"reconstruction": 0.1, "contextual": 3, "adversarial": 0.2}[key] * float(losses[key]) for key in left
    ), rel=1e-5)


@pytest.mark.parametrize("options", (
    {"stylisation": "adain"}, {"stylisation": "transform"}, {"skips": False}, {"regions": 2},
))
def test_variants_train_and_come_back(model, shards, frozen, tmp_path, options):
    config = dataclasses.replace(CONFIG, steps=1, validation_fraction=0, omega_c=0.0, landmark_branch=False, **options)
    train_texture(shards, tmp_path, config, model, "cpu")
    trained = load_texture_stream(tmp_path)
    assert trained.landmarks is None and trained.config == config
    assert not trained.generator.training and not any(p.requires_grad for p in trained.generator.parameters())
    picture = torch.rand(1, 3, SIZE, SIZE)
    stylised = trained.stylise(picture, picture)
    assert (stylised.albedo_map[..., ~trained.mask] == 0).all() and stylised.albedo_map.max() > 0


def test_overfitting_three_photos(model, tmp_path):
    """The generator finds what I_u lacks: detail that is in the photographed albedo alone."""
    shards = write_toy_ftd(tmp_path / "shards", model, 3, 32)
    config = dataclasses.replace(
        CONFIG, width=0.12, batch_size=3, steps=60, log_every=20, validate_every=200, checkpoint_every=200,
        omega_c=0.0, omega_a=0.02, validation_fraction=0, landmark_branch=False, augmentation=NO_AUGMENTATION,
        learning_rate=4e-3,
    )
    task = task_of(model, shards, config, {})
    before = task.evaluate(np.arange(3))
    run_training(task, tmp_path / "run", config)
    after = task.evaluate(np.arange(3))
    assert before["linear_mae"] == after["linear_mae"] > 0.03
    assert after["albedo_mae"] < after["linear_mae"] / 3, (before, after)
    assert after["albedo_ssim"] > after["linear_ssim"] + 0.05
    losses = [record["reconstruction"] for record in read_log(tmp_path / "run") if "reconstruction" in record]
    assert losses[2] < losses[1] < losses[0] / 2


def test_from_the_command_line(shards, tmp_path, model, frozen):
    from bfm.model_file import save_model

    save_model(model, tmp_path / "toy.h5")
    arguments = [
        "train", "texture", str(shards), "-o", str(tmp_path / "run"), "--face-model", str(tmp_path / "toy.h5"),
        "--width", "0.05", "--steps", "2", "--batch-size", "2", "--log-every", "1", "--validation-fraction", "0",
    ]
    failed = CliRunner().invoke(main, arguments)
    assert failed.exit_code == 1 and failed.output.startswith("Error: the contextual loss needs trained features")
    arguments += ["--geometry", str(frozen["geometry"]), "--no-adversarial", "--stylisation", "adain", "--no-skips"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    first, *steps, last = done.output.splitlines()
    assert first == read_log(tmp_path / "run")[0]["note"]
    assert steps[0].startswith("step 1  reconstruction") and last == f"wrote {tmp_path / 'run' / 'checkpoint.pt'}"
    config = load_texture_stream(tmp_path / "run").config
    assert (config.omega_a, config.omega_c, config.stylisation, config.skips) == (0, 3, "adain", False)
    assert (config.learning_rate, config.steps, config.augmentation.flip) == (1e-4, 2, 0.5)


def test_table_of_the_variants(shards, tmp_path, model, frozen):
    from bfm.model_file import save_model

    save_model(model, tmp_path / "toy.h5")
    arguments = [
        str(shards), str(tmp_path / "runs"), "--face-model", str(tmp_path / "toy.h5"), "--width", "0.05",
        "--steps", "2", "--batch-size", "2", "--log-every", "1", "--validation-fraction", "0.3", "--predicted-albedo",
        "--variants", "adain,n8", "--seeds", "2", "--device", "cpu", "--geometry", str(frozen["geometry"]),
        "-o", str(tmp_path / "table.json"),
    ]
    failed = CliRunner().invoke(texture_table.main, arguments)
    assert failed.exit_code == 2 and failed.output.endswith("n8 needs --landmarks\n")
    arguments += ["--landmarks", str(frozen["landmarks"])]
    done = CliRunner().invoke(texture_table.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)
    alike = TextureConfig(
        width=0.05, steps=2, batch_size=2, log_every=1, validate_every=2, checkpoint_every=2, validation_fraction=0.3,
        predicted_albedo=True, regions=8,
    )
    train_texture(shards, tmp_path / "alone", alike, model, "cpu", **frozen)
    ours, alone = (load_checkpoint(tmp_path / path, "texture") for path in ("runs/n8/seed-0", "alone"))
    assert same_tensors(ours["networks"], alone["networks"])  # the runs before it left nothing behind
    held_out = task_of(model, shards, alike, frozen).held_out
    for name, options in (("adain", {"stylisation": "adain"}), ("n8", {"regions": 8})):
        for seed, row in report["results"][name].items():
            state = load_checkpoint(tmp_path / "runs" / name / f"seed-{seed}", "texture")
            assert TextureConfig.from_dict(state["config"]).seed == int(seed)
            task = task_of(model, shards, dataclasses.replace(alike, **{"regions": 16, **options}), frozen)
            task.generator.load_state_dict(state["networks"]["generator"])
            for key, value in task.evaluate(held_out).items():
                assert row[key] == pytest.approx(value, rel=1e-5), (name, seed, key)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.output.splitlines()[-3:]]
    assert [line[:2] for line in lines] == [["linear p_t", "-"], ["adain", "2"], ["n8", "2"]]
    assert lines[0][2] == f"{row['linear_mae']:.4f}"


def test_a_table_needs_people_held_out(shards, tmp_path, model, frozen):
    from bfm.model_file import save_model

    save_model(model, tmp_path / "toy.h5")
    arguments = [str(shards), str(tmp_path / "runs"), "--face-model", str(tmp_path / "toy.h5"), "--variants", "adain"]
    arguments += ["--geometry", str(frozen["geometry"]), "--width", "0.05", "--validation-fraction", "0"]
    failed = CliRunner().invoke(texture_table.main, [*arguments, "--device", "cpu"])
    assert failed.exit_code == 1 and not (tmp_path / "runs").exists()
    assert failed.output == "Error: no sample is held out to measure on; --validation-fraction must be above 0\n"
