"""Synthetic MICC and BU-3DFE: scans that lie where the truth says, in files that their readers read."""

import io
import json

import numpy as np
import pytest
from bars import Bars
from PIL import Image
from test_synth import contents
from toy import toy_model

import asmgen.synth_bu3dfe
import asmgen.synth_micc
from asmgen.landmark_files import read_landmarks, read_list
from asmgen.locate import FaceLocator
from asmgen.scan_files import BND_FROM_68
from asmgen.synth_bu3dfe import synthesize_bu3dfe
from asmgen.synth_micc import synthesize_micc
from asmgen.synthetic_faces import random_face
from asmgen.synthetic_scans import random_motion, scan_face
from bfm.open_face.acts import ACTS, act_coefficients
from bfm.render import vertex_normals
from bfm.similarity import fit_similarity
from model.evaluation.scans import read_scan

MODEL = toy_model(exp_modes=29)  # as many as the open model has
SIZE, SPACING = 96, 3.0
SMALL = {"noise": 0, "spacing": SPACING, "seed": 1, "image_size": SIZE}


@pytest.fixture(scope="module", autouse=True)
def small():
    """A small model in place of the open one."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (asmgen.synth_micc, asmgen.synth_bu3dfe):
            patch.setattr(module, "open_face_model", lambda: MODEL)
        yield


@pytest.fixture(scope="module")
def micc(tmp_path_factory):
    """Two subjects, three frames a video."""
    folder = tmp_path_factory.mktemp("micc") / "data"
    assert synthesize_micc(folder, 2, frames=3, **SMALL) == ["subject_01", "subject_02"]
    return folder


@pytest.fixture(scope="module")
def bu3dfe(tmp_path_factory):
    """Two people, seven scans each."""
    folder = tmp_path_factory.mktemp("bu3dfe") / "data"
    assert synthesize_bu3dfe(folder, 2, levels=(3,), **SMALL) == ["F0001", "M0001"]
    return folder


def distance(points, corners):
    """(N,) distance of points from the nearest of (F, 3, 3) triangles whose prism they are in, from the definition."""
    a, u, v = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(u, v)
    area = np.linalg.norm(normal, axis=1)
    offset = points[:, None] - a
    second = np.einsum("nfk,fk->nf", np.cross(offset, v), normal) / area**2
    third = np.einsum("nfk,fk->nf", np.cross(u, offset), normal) / area**2
    height = np.abs(np.einsum("nfk,fk->nf", offset, normal)) / area
    inside = np.minimum(np.minimum(second, third), 1 - second - third) > -1e-4
    return np.where(inside, height, np.inf).min(axis=1)


def moved(vertices, motion):
    """Vertices under a (4, 4) motion."""
    return vertices @ motion[:3, :3].T + motion[:3, 3]


def test_scan_lies_on_the_moved_face():
    rng = np.random.default_rng(2)
    face, motion = random_face(MODEL, rng), random_motion(rng, 4, 20)
    scan = scan_face(MODEL, face, motion, rng, noise=0, spacing=1.5)
    corners = moved(face.vertices.astype(float), motion)[MODEL.triangles]
    some = rng.choice(np.flatnonzero(scan.on_face), 300, replace=False)
    assert distance(scan.vertices[some], corners).max() < 1e-6
    others = rng.choice(np.flatnonzero(~scan.on_face), 100, replace=False)
    assert np.median(distance(scan.vertices[others], corners)) > 1
    np.testing.assert_allclose(scan.landmarks, moved(face.vertices[MODEL.landmarks].astype(float), motion))


def test_scan_is_a_sound_mesh_of_another_topology():
    rng = np.random.default_rng(3)
    scan = scan_face(MODEL, random_face(MODEL, rng), np.eye(4), rng, noise=0, spacing=1.5)
    assert set(np.unique(scan.triangles)) == set(range(len(scan.vertices)))  # no loose vertex
    sides = scan.vertices[scan.triangles] - scan.vertices[scan.triangles[:, [1, 2, 0]]]
    assert np.linalg.norm(sides, axis=2).max() < 6 * 1.5
    assert np.ptp(sides[..., :2], axis=(0, 1)).max() < 2 * 1.5 + 1e-5  # neighbours of a grid, not across it
    normals = vertex_normals(scan.vertices, scan.triangles)
    assert (normals[:, 2] > 0).all()  # all of it is seen from the front
    # hair above and a neck below the face, in an order that tells nothing
    face = scan.vertices[scan.on_face]
    rest = scan.vertices[~scan.on_face]
    assert rest[:, 1].max() > face[:, 1].max() + 20 and rest[:, 1].min() < face[:, 1].min() - 40
    order = np.corrcoef(np.arange(len(scan.vertices)), scan.vertices[:, 1])[0, 1]
    assert abs(order) < 0.05


def test_noise_goes_along_the_normal():
    face = random_face(MODEL, np.random.default_rng(4))
    clean, noisy = (
        scan_face(MODEL, face, np.eye(4), np.random.default_rng(5), noise, spacing=1.5) for noise in (0, 0.4)
    )
    offset = noisy.vertices - clean.vertices
    along = (offset * vertex_normals(clean.vertices, clean.triangles)).sum(axis=1)
    np.testing.assert_allclose(np.linalg.norm(offset, axis=1), np.abs(along), atol=1e-9)
    assert along.std() == pytest.approx(0.4, rel=0.02) and abs(along.mean()) < 0.01


def test_motion_is_rigid_and_small():
    motions = [random_motion(np.random.default_rng(seed), 4, 20) for seed in range(200)]
    turns = [np.degrees(np.arccos((np.trace(motion[:3, :3]) - 1) / 2)) for motion in motions]
    assert 5 < np.mean(turns) < 8 and np.std([motion[:3, 3] for motion in motions]) == pytest.approx(20, rel=0.1)
    for motion in motions[:5]:
        np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-12)
        np.testing.assert_array_equal(motion[3], [0, 0, 0, 1])


def test_micc_has_its_layout_and_the_truth(micc):
    names = set(contents(micc))
    assert "subject_02/Model/frontal2/obj/1209000202.mtl" in names
    assert {f"subject_01/Video/PTZ-Indoor/{frame:04d}.{kind}" for frame in range(3) for kind in ("jpg", "pts")} < names
    assert len(names) == 2 * (2 * (4 + 2) + 1 + 3 * 3 * 2)
    for subject in ("subject_01", "subject_02"):
        neutral = np.load(micc / f"truth/{subject}_neutral.npy")
        for part in ("frontal1", "frontal2"):
            (path,) = (micc / subject / "Model" / part / "obj").glob("*.obj")
            assert path.stem.isdigit()
            motion = np.load(micc / f"truth/{subject}_{part}_motion.npy")
            scan, on_face = read_scan(path), np.load(micc / f"truth/{subject}_{part}_on_face.npy")
            assert len(scan.vertices) == len(on_face)
            corners = moved(neutral.astype(float), motion)[MODEL.triangles]
            some = np.random.default_rng(0).choice(np.flatnonzero(on_face), 100, replace=False)
            assert distance(scan.vertices[some], corners).max() < 1e-4
            landmarks = np.array([scan.landmarks[number] for number in range(68)])
            np.testing.assert_allclose(landmarks, moved(neutral[MODEL.landmarks], motion), atol=1e-4)


def test_neutral_face_has_no_expression(micc, bu3dfe):
    basis = MODEL.id_basis.reshape(len(MODEL.id_basis), -1).T.astype(float)
    for path in (micc / "truth/subject_01_neutral.npy", bu3dfe / "truth/F0001_neutral.npy"):
        offset = (np.load(path) - MODEL.mean_shape).ravel()
        coeffs = np.linalg.lstsq(basis, offset, rcond=None)[0]
        np.testing.assert_allclose(basis @ coeffs, offset, atol=1e-4)
        assert np.abs(coeffs).max() > 0.5


def test_scans_of_a_subject_are_moved_apart(micc):
    motions = [np.load(path) for path in sorted((micc / "truth").glob("*_motion.npy"))]
    assert len({motion.tobytes() for motion in motions}) == len(motions) == 4


def test_obj_names_its_material_and_texture(micc):
    (path,) = (micc / "subject_01/Model/frontal1/obj").glob("*.obj")
    lines = path.read_text().splitlines()
    assert lines[0] == f"mtllib {path.stem}.mtl"
    assert f"map_Kd {path.stem}.bmp" in path.with_suffix(".mtl").read_text()
    uv = np.array([line.split()[1:] for line in lines if line.startswith("vt ")], float)
    vertices = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    with Image.open(path.with_suffix(".bmp")) as texture:
        width, height = texture.size
        colours = np.asarray(texture)
    # the texture is the view from the front: coordinates are those of the scan but for scale and shift, v up
    sampled = np.stack([uv[:, 0] * width, uv[:, 1] * height], 1) * SPACING
    np.testing.assert_allclose(sampled - vertices[:, :2], (sampled - vertices[:, :2])[:1].repeat(len(uv), 0), atol=1e-3)
    texels = np.stack([uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5])
    column, row = np.rint(texels).astype(int)
    np.testing.assert_allclose(texels, [column, row], atol=1e-3)  # at the middle of one
    assert (colours[row, column] > 0).any(axis=1).all()


def test_frames_are_found_by_their_landmarks(micc):
    for video in ("Indoor-Cooperative", "PTZ-Indoor", "PTZ-Outdoor"):
        frames = sorted((micc / "subject_01/Video" / video).glob("*.jpg"))
        sides = []
        for path in frames:
            with Image.open(path) as frame:
                placement = FaceLocator(detect=False).place(path, np.asarray(frame))
            assert placement.placed_by == "landmarks"
            assert np.abs(placement.landmarks - (SIZE - 1) / 2).max() < 0.6 * SIZE
            sides.append(np.ptp(placement.landmarks[:, 1]))
        assert 0.2 * SIZE < min(sides)
        if video == "Indoor-Cooperative":
            largest = min(sides)
        else:
            assert max(sides) < largest


def test_mjpg_holds_the_same_frames(micc, tmp_path):
    synthesize_micc(tmp_path / "data", 1, frames=3, **SMALL, mjpg=True)
    names, numbers = read_list(tmp_path / "data/landmarks.txt", (136,))
    assert len(names) == 9
    for name, row in zip(names, numbers):
        np.testing.assert_allclose(row.reshape(68, 2), read_landmarks((micc / name).with_suffix(".pts")), atol=2e-3)
    video = (tmp_path / "data/subject_01/Video/PTZ-Outdoor.mjpg").read_bytes()
    frames = sorted((micc / "subject_01/Video/PTZ-Outdoor").glob("*.jpg"))
    assert video == b"".join(path.read_bytes() for path in frames)
    assert Image.open(io.BytesIO(video)).size == (SIZE, SIZE)
    same = {name: data for name, data in contents(tmp_path / "data").items() if "Video" not in name}
    assert same.pop("landmarks.txt") and same.items() < contents(micc).items()


def test_bu3dfe_has_its_layout_and_the_truth(bu3dfe):
    names = set(contents(bu3dfe))
    codes = ("NE00", "AN03", "DI03", "FE03", "HA03", "SA03", "SU03")
    endings = ("_F2D.bmp", "_F2D.pts", "_F3D.bmp", "_F3D.bnd", "_F3D.wrl")
    assert {f"{p}/{p}_{code}WH{end}" for p in ("F0001", "M0001") for code in codes for end in endings} < names
    assert len(names) == 2 * (7 * (5 + 3) + 1)
    neutral = np.load(bu3dfe / "truth/F0001_neutral.npy")
    np.testing.assert_array_equal(np.load(bu3dfe / "truth/F0001_NE00WH_full.npy"), neutral)
    for code, act in (("HA03", "laugh"), ("SU03", "surprise"), ("AN03", "anger")):
        full = np.load(bu3dfe / f"truth/F0001_{code}WH_full.npy")
        offset = MODEL.expression_offset(0.75 * act_coefficients(**ACTS[act]))
        np.testing.assert_allclose(full - neutral, offset, atol=1e-4)
        motion = np.load(bu3dfe / f"truth/F0001_{code}WH_motion.npy")
        on_face = np.load(bu3dfe / f"truth/F0001_{code}WH_on_face.npy")
        path = bu3dfe / f"F0001/F0001_{code}WH_F3D.wrl"
        assert f'url "{path.stem}.bmp"' in path.read_text() and path.read_text().startswith("#VRML V2.0 utf8\n")
        scan = read_scan(path)
        some = np.random.default_rng(0).choice(np.flatnonzero(on_face), 100, replace=False)
        assert distance(scan.vertices[some], moved(full.astype(float), motion)[MODEL.triangles]).max() < 1e-4


def test_bnd_names_vertices_next_to_the_landmarks(bu3dfe):
    path = bu3dfe / "M0001/M0001_DI03WH_F3D.bnd"
    rows = np.loadtxt(path)
    scan = read_scan(path.with_suffix(".wrl"))
    assert rows.shape == (83, 4) and b"\t" in path.read_bytes()
    np.testing.assert_allclose(scan.vertices[rows[:, 0].astype(int)], rows[:, 1:], atol=1e-4)
    full, motion = (np.load(bu3dfe / f"truth/M0001_DI03WH_{what}.npy") for what in ("full", "motion"))
    wanted = moved(full[MODEL.landmarks], motion)[np.array(BND_FROM_68)].mean(axis=1)
    nearest = np.linalg.norm(scan.vertices[None] - wanted[:, None], axis=2).min(axis=1)
    np.testing.assert_allclose(np.linalg.norm(rows[:, 1:] - wanted, axis=1), nearest, atol=1e-3)


def test_picture_shows_the_scan_from_the_front(bu3dfe):
    for code in ("NE00", "SU03"):
        full, motion = (np.load(bu3dfe / f"truth/M0001_{code}WH_{what}.npy") for what in ("full", "motion"))
        points = read_landmarks(bu3dfe / f"M0001/M0001_{code}WH_F2D.pts")
        scanned = moved(full[MODEL.landmarks].astype(float), motion)[:, :2] * [1, -1]
        flat = np.pad(scanned, ((0, 0), (0, 1))), np.pad(points, ((0, 0), (0, 1)))
        view = fit_similarity(*flat)
        np.testing.assert_allclose(view.apply(flat[0]), flat[1], atol=2e-3)
        assert view.scale == pytest.approx(SIZE / 300, rel=1e-5) and np.allclose(view.rotation, np.eye(3), atol=1e-4)
        with Image.open(bu3dfe / f"M0001/M0001_{code}WH_F2D.bmp") as picture:
            assert picture.size == (SIZE, SIZE)


def test_parts_of_bnd_follow_the_68_landmarks():
    pairs = np.array(BND_FROM_68)
    assert pairs.shape == (83, 2)
    single = {0: 39, 4: 36, 8: 42, 12: 45, 39: 31, 42: 33, 44: 35, 48: 48, 51: 51, 54: 54, 57: 57, 75: 8}
    assert {place: set(pairs[place]) for place in single} == {place: {number} for place, number in single.items()}


def test_same_seed_gives_the_same_bytes_for_any_jobs(micc, bu3dfe, tmp_path):
    bars = Bars()
    synthesize_micc(tmp_path / "micc", 1, frames=3, jobs=2, **SMALL, progress=bars)
    fewer = contents(tmp_path / "micc")
    assert fewer.items() < contents(micc).items() and len(fewer) == 31
    synthesize_bu3dfe(tmp_path / "bu", 1, levels=(3,), jobs=2, **SMALL, progress=bars)
    assert bars.counts() == [("part", 0, 4, 4), ("scan", 0, 7, 7)]
    fewer = contents(tmp_path / "bu")
    assert fewer.items() < contents(bu3dfe).items() and len(fewer) == 57


def test_what_cannot_be_done_is_named(micc, tmp_path):
    with pytest.raises(FileExistsError, match="already holds files"):
        synthesize_micc(micc, 1)
    with pytest.raises(ValueError, match="frames must be at least 1, got 0"):
        synthesize_micc(tmp_path / "a", 1, frames=0)
    with pytest.raises(ValueError, match="levels must be of 1, 2, 3, 4, got 3, 5"):
        synthesize_bu3dfe(tmp_path / "a", 1, levels=(3, 5))
    with pytest.raises(ValueError, match="spacing must be at least 0.2, got 0.1"):
        synthesize_micc(tmp_path / "a", 1, spacing=0.1)
    with pytest.raises(ValueError, match="people must be at least 1, got 0"):
        synthesize_bu3dfe(tmp_path / "a", 0)
    assert not (tmp_path / "a").exists()


def test_ljson_is_menpos(micc):
    (path,) = (micc / "subject_01/Model/frontal1/obj").glob("*.ljson")
    assert np.shape(json.loads(path.read_text())["groups"]["LJSON"]["landmarks"]["points"]) == (68, 3)
