"""The expression stress: what is measured of faces whose expressions grow, and the command that measures networks."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from toy_asmd import write_toy_asmd
from toy_stress import MODEL, PEOPLE, STRENGTHS, UNITS, write_stress

from asmgen.w300lp import find_samples, read_sample
from bfm.model_file import save_model
from cli.main import main
from model.config import GeometryConfig
from model.dual_stream import load_dual_stream
from model.evaluation.expression_curves import group_mean, magnitude_groups, unit_curves, unit_groups
from model.evaluation.expression_errors import MEASURES, ExpressionPhotos
from model.evaluation.predict import PredictedFace
from model.evaluation.scores import predicted_faces
from model.train_geometry import train_geometry


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_stress(tmp_path_factory.mktemp("stress"))


@pytest.fixture(scope="module")
def photos(root):
    return ExpressionPhotos(root, MODEL)


@pytest.fixture(scope="module")
def truths(root):
    """Neutral face, offset and placement of every photo, by its own reading."""
    samples = [read_sample(entry, MODEL) for entry in find_samples(root)]
    return [
        (MODEL.shape(sample.id_coeffs).astype(float), MODEL.expression_offset(sample.exp_coeffs).astype(float),
         sample.pose.astype(float), sample.position.astype(float)) for sample in samples
    ]


def predictor(truths, change):
    """A network that returns what `change` makes of the index, the neutral face and the offset."""

    def predict(indices):
        for index in indices:
            neutral, offset, pose, position = truths[index]
            found, decoupled = change(index, neutral, offset), True
            if len(found) == 1:
                found, decoupled = (*found, np.zeros_like(offset)), False
            yield PredictedFace(*found, pose, position, np.inf, decoupled)

    return predict


def lengths(vectors):
    return np.sqrt((vectors**2).sum(axis=1))


def test_names_tell_unit_person_and_strength(photos, truths):
    assert len(photos.faces) == 12 and photos.failed == []
    order = [(unit, person, strength) for unit in sorted(UNITS) for person in PEOPLE for strength in STRENGTHS]
    found = zip(photos.units, (int(person) for person in photos.people), photos.strengths)
    assert list(found) == order
    np.testing.assert_allclose(photos.magnitudes, [lengths(offset).mean() for _, offset, *_ in truths], rtol=1e-6)
    assert (photos.magnitudes[photos.strengths == 0] == 0).all() and photos.magnitudes.max() > 3


def test_the_truth_has_no_error_and_recovers_everything(photos, truths):
    errors = photos.measure(predictor(truths, lambda index, neutral, offset: (neutral, offset)))
    assert list(errors) == list(MEASURES)
    moved = photos.strengths > 0
    for name, values in errors.items():
        wanted = 1.0 if name == "recovered" else 0.0
        defined = moved if name in ("region_mm", "recovered", "leaked") else np.ones(12, bool)
        np.testing.assert_array_equal(np.isfinite(values), defined, name)
        np.testing.assert_allclose(values[defined], wanted, atol=2e-4, err_msg=name)


def test_without_expression_the_error_is_the_magnitude(photos, truths):
    ignoring = predictor(truths, lambda index, neutral, offset: (neutral, 0 * offset))
    errors, baseline = photos.measure(ignoring), photos.measure(photos.ignoring)
    for name in ("full_mm", "expression_mm"):
        np.testing.assert_allclose(errors[name], photos.magnitudes, rtol=1e-6, err_msg=name)
    parts = []
    for index in np.flatnonzero(photos.strengths):
        moved = lengths(truths[index][1])
        wanted = moved[moved > 0.2 * moved.max()]
        parts.append(len(wanted) / len(moved))
        assert errors["region_mm"][index] == pytest.approx(wanted.mean(), rel=1e-6)
        assert (errors["recovered"][index], errors["leaked"][index]) == (0, 0)
    assert max(parts) < 0.7
    for name, values in baseline.items():  # the same, but that it is nowhere in the photo
        np.testing.assert_array_equal(values, np.full(12, np.nan) if name == "nme_percent" else errors[name], name)
    assert errors["nme_percent"].max() > 1 and errors["identity_mm"].max() < 1e-9


def test_half_the_expression_is_recovered_whatever_the_identity_and_the_noise(photos, truths):
    rng = np.random.default_rng(0)

    def half(index, neutral, offset):
        bias = np.random.default_rng(int(photos.people[index])).normal(size=neutral.shape) * 4
        noise = rng.normal(size=neutral.shape) * 3 * (photos.strengths[index] > 0)
        along = (offset**2).sum()
        noise -= offset * ((noise * offset).sum() / along if along else 0)
        return neutral + bias, offset / 2 + noise

    errors = photos.measure(predictor(truths, half))
    moved = photos.strengths > 0
    np.testing.assert_allclose(errors["recovered"][moved], 0.5, atol=1e-9)
    np.testing.assert_allclose(errors["leaked"][moved], 0, atol=1e-9)
    assert errors["full_mm"].min() > 4  # which hides it
    plain = photos.measure(predictor(truths, lambda index, neutral, offset: (neutral, offset / 2)))
    np.testing.assert_allclose(plain["full_mm"], photos.magnitudes / 2, rtol=1e-6)


def test_an_expression_in_the_identity_map_is_leaked(photos, truths):
    moved = photos.strengths > 0
    errors = photos.measure(predictor(truths, lambda index, neutral, offset: (neutral + 0.7 * offset, 0.2 * offset)))
    np.testing.assert_allclose(errors["recovered"][moved], 0.9, atol=1e-9)
    np.testing.assert_allclose(errors["leaked"][moved], 0.7, atol=1e-9)
    np.testing.assert_allclose(errors["identity_mm"], 0.7 * photos.magnitudes, rtol=1e-6)


def test_one_map_has_no_parts_but_recovers(photos, truths):
    errors = photos.measure(predictor(truths, lambda index, neutral, offset: (neutral + 0.6 * offset,)))
    for name in ("identity_mm", "expression_mm", "leaked"):
        assert np.isnan(errors[name]).all()
    np.testing.assert_allclose(errors["recovered"][photos.strengths > 0], 0.6, atol=1e-9)
    np.testing.assert_allclose(errors["full_mm"], 0.4 * photos.magnitudes, rtol=1e-6)


def test_rest_is_the_mean_over_a_persons_photos_without_expression(photos, truths):
    at_rest = [index for index in range(12) if photos.strengths[index] == 0]
    rng = np.random.default_rng(1)
    shifts = {index: rng.normal(size=truths[0][0].shape) for index in at_rest}

    def change(index, neutral, offset):
        return neutral + shifts.get(index, 0), offset

    errors = photos.measure(predictor(truths, change))
    for index in np.flatnonzero(photos.strengths):
        own = [shifts[other] for other in at_rest if photos.people[other] == photos.people[index]]
        offset = truths[index][1]
        assert len(own) == len(UNITS)
        wanted = -(np.mean(own, axis=0) * offset).sum() / (offset**2).sum()
        assert errors["leaked"][index] == pytest.approx(wanted, abs=1e-9)
        assert errors["recovered"][index] == pytest.approx(1 + wanted, abs=1e-9)


def test_groups_and_curves(photos, truths):
    shares = {index: 0.1 * index for index in range(12)}
    errors = photos.measure(predictor(truths, lambda index, neutral, offset: (neutral, shares[index] * offset)))
    groups = unit_groups(photos)
    assert [list(groups[unit]) for unit in sorted(UNITS)] == [["0 %", "50 %", "100 %"]] * 2 and len(groups) == 2
    curves = unit_curves(photos, "full_mm", errors["full_mm"])
    slopes = unit_curves(photos, "recovered", errors["recovered"])
    for unit in UNITS:
        indices = [np.flatnonzero((np.array(photos.units) == unit) & (photos.strengths == each)) for each in STRENGTHS]
        for place, pair in enumerate(indices):
            np.testing.assert_array_equal(list(groups[unit].values())[place], pair)
            first, second = errors["full_mm"][pair]
            curve = [values[place] for values in curves[unit]]
            np.testing.assert_allclose(curve, [photos.magnitudes[pair].mean(), (first + second) / 2,
                                               abs(first - second) / 2], rtol=1e-9, atol=1e-12)
        assert len(slopes[unit].mean) == 2  # not of photos without expression
        assert slopes[unit].mean[1] == pytest.approx(np.mean([shares[index] for index in indices[2]]), rel=1e-6)
        mixed = [*indices[0], *indices[1], *indices[2]]  # a photo without expression has no slope
        ee = [(truths[index][1] ** 2).sum() for index in mixed]
        pe = [shares[index] * each for index, each in zip(mixed, ee)]
        pooled = group_mean(photos, "recovered", errors["recovered"], mixed)
        assert pooled == pytest.approx(sum(pe) / sum(ee), rel=1e-6)
    assert group_mean(photos, "recovered", errors["recovered"], indices[0]) is None


def test_magnitude_bins_begin_above_their_edge(photos):
    some = replaced(photos, magnitudes=np.array([0, 1e-9, 0.25, 0.2500001, 4, 4.1, 0, 30, 0.6, 1, 2, 0]))
    assert {name: list(group) for name, group in magnitude_groups(some).items()} == {
        "0 mm": [0, 6, 11], "0 to 0.25 mm": [1, 2], "0.25 to 0.5 mm": [3], "0.5 to 1 mm": [8, 9], "1 to 2 mm": [10],
        "2 to 4 mm": [4], "above 4 mm": [5, 7],
    }


def replaced(photos, **changed):
    """Like `photos` in what groups ask."""
    return type("Photos", (), {**vars(photos), **changed})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A hardly trained network."""
    folder = tmp_path_factory.mktemp("run")
    config = GeometryConfig(width=0.06, parameter_steps=0, stream_steps=3, batch_size=4, validation_fraction=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        train_geometry(write_toy_asmd(folder / "asmd", MODEL, 4, 64), folder / "dual", config, MODEL, "cpu")
        single = replace(config, shape="single", eta_s=0.0)
        train_geometry(folder / "asmd", folder / "single", single, MODEL, "cpu")
    save_model(MODEL, folder / "toy.h5")
    return folder


def test_a_network_sees_the_photos_as_in_the_other_protocols(photos, run):
    faces = load_dual_stream(run / "dual", model=MODEL, device="cpu")
    wanted = list(predicted_faces(faces, photos.faces))
    order = [5, 0, 11]
    for index, found in zip(order, photos.predictor(faces, batch_size=2)(order), strict=True):
        for name in ("neutral", "expression", "pose", "position"):
            ours, theirs = getattr(found, name), getattr(wanted[index], name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-4, err_msg=name)


def evaluate(run, root, out, *more):
    arguments = ["evaluate", "expressions", str(root), "--face-model", str(run / "toy.h5"), "--device", "cpu"]
    arguments += [part for name in ("dual", "single") for part in ("--checkpoint", str(run / name))]
    return CliRunner().invoke(main, [*arguments, "-o", str(out), *more])


def test_tables_of_two_networks(photos, run, root, tmp_path):
    done = evaluate(run, root, tmp_path, "--label", "two maps", "--label", "one map")
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    faces = load_dual_stream(run / "single", model=MODEL, device="cpu")
    errors = photos.measure(photos.predictor(faces))
    for name in MEASURES:
        found = results["all"]["one map"][name]
        wanted = group_mean(photos, name, errors[name], range(12))
        assert found == (None if wanted is None else pytest.approx(wanted, rel=1e-5)), name
    assert [name for name, value in results["all"]["one map"].items() if value is None] == [
        "identity_mm", "expression_mm", "leaked"]
    assert results["all"]["two maps"]["leaked"] is not None
    assert results["by_unit"]["smile"]["100 %"]["photos"] == 2
    smile = [row for row in results["photos"] if row["name"].startswith("smile/") and row["name"].endswith("100")]
    assert results["by_unit"]["smile"]["100 %"]["one map"]["full_mm"] == pytest.approx(
        np.mean([row["methods"]["one map"]["full_mm"] for row in smile]))
    text = (tmp_path / "table.md").read_text()
    assert text in done.output and "12 photos, expressions of up to" in text and "They are of 2 people" in text
    lines = [line for line in text.splitlines() if line.startswith("| one map")]
    assert lines[0].count("| - ") == 3
    with Image.open(tmp_path / "expressions.png") as figure:
        assert figure.size == (704, 924)  # two units, three measures


def test_other_photos_are_compared_by_magnitude_and_bad_ones_named(run, root, tmp_path):
    for number, name in enumerate(("eyes_closed_000003_100", "eyes_closed_000008_050", "eyes_closed_000003_000")):
        for path, ending in ((root / "eyes_closed", ".jpg"), (root / "eyes_closed", ".mat"),
                             (root / "landmarks" / "eyes_closed", "_pts.mat")):
            (tmp_path / "A").mkdir(exist_ok=True)
            shutil.copy(path / f"{name}{ending}", tmp_path / "A" / f"A_{number}_0{ending}")
    (tmp_path / "A" / "A_1_0.jpg").write_bytes(b"no photo")
    done = evaluate(run, tmp_path, tmp_path / "out")
    assert done.exit_code == 1 and "A/A_1_0: unreadable image" in done.output
    assert done.output.rstrip().endswith("1 photos could not be measured")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["name"] for row in results["photos"]] == ["A/A_0_0", "A/A_2_0"] and list(results["by_unit"]) == ["all"]
    assert results["all"]["dual"]["recovered"] is None and results["all"]["dual"]["full_mm"] > 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert "By magnitude: full face, mm" in text and "By unit" not in text and "people" not in text


def test_photos_of_another_face_model_have_no_expression_to_compare_with(root):
    model = replace(MODEL, coefficients="another")
    with pytest.raises(ValueError, match="holds no photo whose expression is known, the first because of eyes_closed/"):
        ExpressionPhotos(root, model)
