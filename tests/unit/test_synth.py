"""The synthetic 300W-LP: layout, exact truth, and the same bytes from the same seed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from bars import Bars
from PIL import Image
from toy import toy_model

import asmgen.synthetic_faces
from asmgen.photometry import Photometry
from asmgen.synth import synthesize_300wlp
from asmgen.synthetic_faces import random_face
from asmgen.w300lp import find_samples, read_sample
from bfm.light import sh_basis
from bfm.open_face.acts import HELD_OUT_PAIRS
from bfm.pose import project, rotation_matrix

MODEL = toy_model(rows=41, columns=33)
SIZE = 160


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six photos of two faces, four poses of the first."""
    folder = tmp_path_factory.mktemp("synth") / "data"
    paths = synthesize_300wlp(folder, MODEL, 6, seed=5, image_size=SIZE)
    assert [path.stem for path in paths] == [f"SYNTH_{k // 4:06d}_{k % 4}" for k in range(6)]
    return folder


@pytest.fixture(scope="module")
def samples(root):
    """The photos as the reader reads them."""
    return [read_sample(entry, MODEL) for entry in find_samples(root)]


def contents(folder):
    """Name and bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_seed_gives_the_same_bytes_for_any_jobs(root, tmp_path):
    bars = Bars()
    synthesize_300wlp(tmp_path / "a", MODEL, 6, seed=5, jobs=2, image_size=SIZE, progress=bars)
    assert bars.counts() == [("photo", 0, 6, 6)]
    assert contents(tmp_path / "a") == contents(root)
    synthesize_300wlp(tmp_path / "b", MODEL, 5, seed=5, image_size=SIZE)
    fewer = contents(tmp_path / "b")
    assert len(fewer) == 15 and fewer.items() < contents(root).items()
    synthesize_300wlp(tmp_path / "c", MODEL, 1, seed=6, image_size=SIZE)
    for name, data in contents(tmp_path / "c").items():
        assert data != contents(root)[name]


def test_what_was_stopped_is_made_in_its_place(root, tmp_path, monkeypatch):
    """With the same options, to the same bytes; until then no photos are taken from there, nor others put there."""
    killed, options = tmp_path / "killed", {"seed": 5, "image_size": SIZE}

    def stop(write, out_dir, *_):
        (out_dir / ".scratch-old").mkdir()
        for name in ("SYNTH/SYNTH_000000_0.jpg", "landmarks/SYNTH/SYNTH_000000_0_pts.mat"):
            (out_dir / name).parent.mkdir(parents=True)
            (out_dir / name).write_bytes((root / name).read_bytes())
        (out_dir / "SYNTH/SYNTH_000000_0.mat.partial").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("asmgen.synth.run_on_model", stop)
        synthesize_300wlp(killed, MODEL, 6, **options)
    (killed / "writer.lock").touch()
    with pytest.raises(FileNotFoundError, match="lacks photos; run the `dualface synth` that makes them to its end"):
        find_samples(killed)
    for count, seed in ((5, 5), (6, 4)):
        with pytest.raises(FileExistsError, match="already holds files"):
            synthesize_300wlp(killed, MODEL, count, seed=seed, image_size=SIZE)
    synthesize_300wlp(killed, MODEL, 6, **options)
    assert contents(killed) == contents(root)
    assert {path.name for path in killed.iterdir()} == {path.name for path in root.iterdir()}
    with pytest.raises(FileExistsError, match="already holds files"):
        synthesize_300wlp(killed, MODEL, 6, **options)


def test_files_have_the_layout_of_300w_lp(root):
    found = contents(root)
    assert len(found) == 18 and "SYNTH/SYNTH_000001_1.jpg" in found
    assert "landmarks/SYNTH/SYNTH_000001_1_pts.mat" in found
    with Image.open(root / "SYNTH/SYNTH_000000_0.jpg") as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (SIZE, SIZE), "RGB")
    arrays = scipy.io.loadmat(root / "SYNTH/SYNTH_000000_0.mat")
    layout = {key: (value.shape, value.dtype) for key, value in arrays.items() if not key.startswith("__")}
    assert layout == {
        "Shape_Para": ((5, 1), "f8"), "Exp_Para": ((3, 1), "f8"), "Tex_Para": ((4, 1), "f8"),
        "Pose_Para": ((1, 7), "f4"), "Color_Para": ((1, 7), "f4"), "Illum_Para": ((1, 10), "f8"),
        "roi": ((1, 4), "i2"), "pt2d": ((2, 68), "f8"), "Face_Model": ((1,), "<U3"), "Light_SH": ((1, 9), "f8"),
    }
    points = scipy.io.loadmat(root / "landmarks/SYNTH/SYNTH_000000_0_pts.mat")
    assert points["pts_2d"].dtype == points["pts_3d"].dtype == np.float32
    np.testing.assert_array_equal(points["pts_3d"], arrays["pt2d"].T.astype(np.float32))


def test_landmarks_are_the_projection_of_the_parameters(samples):
    for sample in samples:
        shape = MODEL.shape(sample.id_coeffs, sample.exp_coeffs)[MODEL.landmarks]
        np.testing.assert_allclose(project(shape, sample.pose, sample.position)[:, :2], sample.landmarks, atol=2e-4)
        assert sample.landmark_kind == "3d"


def test_copies_share_the_face_and_turn_to_a_profile(samples):
    first, other = samples[:4], samples[4:]
    for key in ("id_coeffs", "exp_coeffs", "albedo_coeffs"):
        assert all((getattr(sample, key) == getattr(first[0], key)).all() for sample in first)
        assert (getattr(first[0], key) != getattr(other[0], key)).all()
    assert {sample.entry.photo for sample in first} == {"SYNTH_000000"} == {first[0].entry.photo}
    yaw = np.degrees([sample.pose[1] for sample in first])
    assert (np.diff(np.abs(yaw)) > 5).all() and 65 < abs(yaw[-1]) <= 90
    lights = np.array([sample.light for sample in samples])
    assert len(np.unique(lights[:, 0])) == 6


def test_photo_shows_the_face_under_the_recorded_light(samples):
    photometry = Photometry(MODEL)
    for sample in samples:
        look = photometry.look([sample.image], *(
            part[None] for part in (sample.id_coeffs, sample.exp_coeffs, sample.pose, sample.position)
        ))
        light, residual = photometry.light(look, sample.albedo_coeffs[None])
        assert residual < 0.08
        difference = sh_basis(look.normals[look.seen]) @ (light[0] - sample.light)
        assert np.abs(difference).mean() < 0.06


def test_illumination_is_that_of_the_light(root, samples):
    normals = np.random.default_rng(0).normal(size=(500, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for sample in samples:
        ambient, _, _, strength, _, _, theta, phi, _, _ = scipy.io.loadmat(
            sample.entry.parameters_path
        )["Illum_Para"][0]
        key = np.array([np.cos(theta) * np.sin(phi), np.sin(theta), np.cos(theta) * np.cos(phi)])
        shading = ambient + strength * np.clip(normals @ rotation_matrix(sample.pose.astype(float)) @ key, 0, None)
        # nine harmonics hold a clamped cosine to a few percent
        assert np.abs(sh_basis(normals) @ sample.light - shading).mean() < 0.05 * strength


def test_what_cannot_be_done_is_named(root, tmp_path):
    with pytest.raises(FileExistsError, match="already holds files; choose an empty folder"):
        synthesize_300wlp(root, MODEL, 1)
    for argument in ("count", "jobs", "copies"):
        with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
            synthesize_300wlp(tmp_path, MODEL, **{"count": 1} | {argument: 0})
    bare = replace(MODEL, albedo_basis=MODEL.albedo_basis[:0], albedo_stddev=MODEL.albedo_stddev[:0])
    with pytest.raises(ValueError, match="no texture"):
        synthesize_300wlp(tmp_path, bare, 1)
    assert not any(tmp_path.iterdir())


def test_acts_are_drawn_from_the_open_face_model_only(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="acts are movements of the open face model, .*'toy' has others"):
        synthesize_300wlp(tmp_path, MODEL, 1, expressions="acts")
    with pytest.raises(ValueError, match="expressions must be one of normal, acts, got sad"):
        synthesize_300wlp(tmp_path, MODEL, 1, expressions="sad")
    assert not any(tmp_path.iterdir())
    model = replace(toy_model(exp_modes=29), coefficients="open-face-1")
    faces = [random_face(model, np.random.default_rng(seed), "acts") for seed in range(3)]
    assert all(np.abs(face.exp_coeffs).max() > 1 for face in faces)  # acts are few and large, and the rest small
    assert all((np.abs(face.exp_coeffs) < 0.6).sum() > 14 for face in faces)
    drawn = []

    def record(rng, count, without):
        drawn.append((count, without))
        return np.zeros((count, 29), np.float32)

    monkeypatch.setattr(asmgen.synthetic_faces, "random_expressions", record)
    assert not random_face(model, np.random.default_rng(0), "acts").exp_coeffs.any()
    assert drawn == [(1, HELD_OUT_PAIRS)]
    synthesize_300wlp(tmp_path, model, 1, image_size=64, expressions="acts")


def test_the_folder_may_be_named_from_where_one_is(tmp_path, monkeypatch):
    """Workers outlive a call, and stay in the folder that they were started in."""
    trees = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        synthesize_300wlp(Path("faces"), MODEL, 1, image_size=SIZE)
        trees.append(contents(Path("faces")))
    assert trees[0] == trees[1] and trees[0]
