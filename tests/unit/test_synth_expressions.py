"""The expression stress set: what each photo shows, exactly, and the same bytes from the same seed."""

import numpy as np
import pytest
from bars import Bars
from test_synth import contents
from toy import toy_model

import asmgen.synth_expressions
from asmgen.faces import FacePlacer
from asmgen.synth import synthesize_300wlp
from asmgen.synth_expressions import STRENGTHS, UNITS, synthesize_expressions
from asmgen.w300lp import find_samples, read_sample
from bfm.open_face.acts import ACTS, HELD_OUT_PAIRS, STRESS_UNITS, act_coefficients
from bfm.pose import project

MODEL = toy_model(exp_modes=29)  # as many as the open model has
SIZE = 96


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The photos of two people; the model in place of the open one is small."""
    folder = tmp_path_factory.mktemp("stress") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asmgen.synth_expressions, "open_face_model", lambda: MODEL)
        paths = synthesize_expressions(folder, 2, seed=4, image_size=SIZE)
    assert len(paths) == 2 * len(UNITS) * len(STRENGTHS) == 72
    return folder


@pytest.fixture(scope="module")
def samples(root):
    """(unit, person, strength) to the photo as the reader reads it."""
    read = {}
    for entry in find_samples(root):
        unit, person, strength = entry.name.rsplit("_", 2)
        assert entry.set_name == unit and entry.photo == f"{unit}_{person}"
        read[unit, int(person), int(strength)] = read_sample(entry, MODEL)
    return read


def test_each_photo_makes_its_movement_and_no_other(samples):
    assert set(samples) == {(unit, person, strength) for unit in UNITS for person in (0, 1) for strength in STRENGTHS}
    for (unit, _, strength), sample in samples.items():
        if unit in STRESS_UNITS:
            wanted = strength / 100 * act_coefficients(**STRESS_UNITS[unit])
            np.testing.assert_allclose(sample.exp_coeffs, wanted, atol=1e-5)


def test_combined_makes_both_acts_of_one_held_out_pair(samples):
    full = [act_coefficients(**ACTS[first]) + act_coefficients(**ACTS[second]) for first, second in HELD_OUT_PAIRS]
    for person in (0, 1):
        made = samples["combined", person, 100].exp_coeffs
        pair = next(pair for pair in full if np.allclose(pair, made, atol=1e-5))
        for strength in STRENGTHS:
            coeffs = samples["combined", person, strength].exp_coeffs
            np.testing.assert_allclose(coeffs, strength / 100 * pair, atol=1e-5)


def test_people_keep_their_face_and_photos_differ(samples, tmp_path):
    for key in ("id_coeffs", "albedo_coeffs"):
        faces = [
            {getattr(sample, key).tobytes() for (_, person, _), sample in samples.items() if person == wanted}
            for wanted in (0, 1)
        ]
        assert len(faces[0]) == len(faces[1]) == 1 and faces[0] != faces[1]
    assert len({sample.pose.tobytes() for sample in samples.values()}) == len(samples)
    assert len({sample.light.tobytes() for sample in samples.values()}) == len(samples)
    yaw = np.degrees([sample.pose[1] for sample in samples.values()])
    assert 15 < yaw.std() < 30 and abs(yaw.mean()) < 8
    # and they are not those of the training set of the same seed
    synthesize_300wlp(tmp_path / "training", MODEL, 8, seed=4, image_size=64)
    trained = {read_sample(entry, MODEL).id_coeffs.tobytes() for entry in find_samples(tmp_path / "training")}
    assert not trained & {sample.id_coeffs.tobytes() for sample in samples.values()}


def test_landmarks_are_the_projection_of_the_parameters(root, samples):
    for sample in samples.values():
        shape = MODEL.shape(sample.id_coeffs, sample.exp_coeffs)[MODEL.landmarks]
        np.testing.assert_allclose(project(shape, sample.pose, sample.position)[:, :2], sample.landmarks, atol=2e-4)
    placer = FacePlacer(MODEL, 64, refit=False)
    for face in placer.place_batch(find_samples(root)[::20]):
        assert face.fields["landmark_error"] < 1e-4


def test_same_seed_gives_the_same_bytes_for_any_jobs_and_people(root, tmp_path, monkeypatch):
    monkeypatch.setattr(asmgen.synth_expressions, "open_face_model", lambda: MODEL)
    bars = Bars()
    synthesize_expressions(tmp_path / "a", 1, seed=4, jobs=2, image_size=SIZE, progress=bars)
    assert bars.counts() == [("photo", 0, 36, 36)]
    fewer = contents(tmp_path / "a")
    assert len(fewer) == 3 * 36 and fewer.items() < contents(root).items()


def test_what_cannot_be_done_is_named(root, tmp_path):
    with pytest.raises(FileExistsError, match="already holds files; choose an empty folder"):
        synthesize_expressions(root, 1)
    with pytest.raises(ValueError, match="people must be at least 1, got 0"):
        synthesize_expressions(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()
