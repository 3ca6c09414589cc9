"""Readers: every format gives the same face in our conventions, and a wrong file one clear sentence."""

import pickle
import re

import h5py
import numpy as np
import pytest
import scipy.io

from bfm.landmarks import NAMED
from bfm.morphable_model import BFM_COEFFICIENTS, REGIONS
from bfm.mouth import boundary_loops
from bfm.readers import read_face_model
from bfm.readers import texture_coordinates
from bfm.readers.ict import EXPRESSION_STDDEV
from bfm.readers.texture_coordinates import read_uv
from face_files import (
    REAL_DATA, made_face, real_face, write_3ddfa, write_bfm2017, write_expressions, write_face3d, write_guo, write_ict,
    write_info, write_raw,
)

MODEL_MOUTH = np.array([[0, 1, 2], [2, 1, 3]])


def raw_sources(folder, face):
    return [write_expressions(folder, face), write_info(folder, face), write_raw(folder, face)]


def raw_guo_sources(folder, face):
    return [*write_guo(folder, face), write_raw(folder, face), write_info(folder, face)]


def ddfa_sources(folder, face):
    return [write_3ddfa(folder, face), write_expressions(folder, face)]


def ddfa_tex_sources(folder, face):
    return [write_expressions(folder, face), write_3ddfa(folder, face, "tex")]


def face3d_sources(folder, face):
    return [write_face3d(folder, face, MODEL_MOUTH)]


FORMATS = {"raw": raw_sources, "3ddfa": ddfa_sources, "3ddfa-tex": ddfa_tex_sources, "face3d": face3d_sources}


@pytest.fixture(params=[
    "made", pytest.param("real", marks=[
        pytest.mark.real, pytest.mark.skipif(REAL_DATA is None, reason="DUALFACE_REAL_DATA is not set"),
    ]),
])
def face(request):
    return made_face() if request.param == "made" else real_face()


@pytest.fixture
def made():
    return made_face()


@pytest.mark.parametrize("sources", FORMATS.values(), ids=FORMATS)
def test_standardised_coefficients_give_the_official_formula(tmp_path, face, sources):
    model = read_face_model(sources(tmp_path, face))
    rng = np.random.default_rng(1)
    shape_para, tex_para = (rng.normal(size=4) * stddev for stddev in (face.sigma, face.sigma_tex))
    exp_para = rng.normal(size=3) * face.sigma_exp
    id_coeffs = (shape_para / model.id_stddev).astype(np.float32)
    exp_coeffs = (exp_para / model.exp_stddev).astype(np.float32)
    shape = model.shape(id_coeffs, exp_coeffs)
    assert shape.dtype == np.float32
    np.testing.assert_allclose(shape * 1000, face.shape(shape_para, exp_para), rtol=0, atol=0.06)  # micrometres
    neutral = model.shape(np.zeros(4, np.float32))
    np.testing.assert_allclose(neutral * 1000, (face.mu + face.mu_exp).reshape(-1, 3), rtol=0, atol=0.02)
    albedo = model.albedo((tex_para / model.albedo_stddev).astype(np.float32))
    np.testing.assert_allclose(albedo * 255, face.texture(tex_para), rtol=0, atol=1e-3)
    assert model.layout == f"bfm-{len(face.trim)}"
    assert model.coefficients == "bfm2009-4+3ddfa-3"
    np.testing.assert_array_equal(model.landmarks, face.landmarks)


def test_triangles_point_outward_and_keep_their_corners(tmp_path, face):
    model = read_face_model(ddfa_sources(tmp_path, face))
    np.testing.assert_array_equal(np.sort(model.triangles), np.sort(face.triangles))
    a, b, c = (model.mean_shape[corner].astype(np.float64) for corner in model.triangles.T)
    normals = np.cross(b - a, c - a)
    outward = (normals * ((a + b + c) / 3 - model.mean_shape.mean(axis=0))).sum(axis=1) > 0
    assert outward.mean() > 0.95  # inside ears and nostrils it cannot hold
    at_nose = (model.triangles == model.landmarks[30]).any(axis=1)
    assert (normals[at_nose][:, 2] > 0).all()


def test_raw_3ddfa_and_face3d_give_one_model(tmp_path, face):
    raw, ddfa, face3d = (read_face_model(FORMATS[name](tmp_path, face)) for name in ("raw", "3ddfa", "face3d"))
    assert raw.sha256 == ddfa.sha256
    for key in ("mean_shape", "id_basis", "exp_basis", "albedo_basis", "mean_albedo", "id_stddev", "exp_stddev",
                "albedo_stddev", "triangles", "landmarks", "regions"):
        np.testing.assert_array_equal(getattr(face3d, key), getattr(ddfa, key), err_msg=key)
    np.testing.assert_array_equal(face3d.mouth_triangles, MODEL_MOUTH)
    # each vertex has a partner of the list; the real one has 14 vertices in two pairs
    both_ways = np.concatenate([face.pairs, face.pairs[::-1]], axis=1)
    partners = set(zip(*both_ways.tolist()))
    assert all(pair in partners for pair in enumerate(ddfa.mirror.tolist()))


def test_order_of_sources_does_not_matter(tmp_path, made):
    sources = raw_sources(tmp_path, made)
    assert read_face_model(sources).sha256 == read_face_model(sources[::-1]).sha256


def test_names_of_files_do_not_matter(tmp_path, made):
    sources = raw_sources(tmp_path, made)
    expected = read_face_model(sources).sha256
    renamed = [path.rename(tmp_path / f"download ({place})") for place, path in enumerate(sources)]
    assert read_face_model(renamed).sha256 == expected


def test_guo_expressions_leave_out_their_mean(tmp_path, made):
    model = read_face_model(raw_guo_sources(tmp_path, made))
    assert model.coefficients == "bfm2009-4+guo-3"
    np.testing.assert_allclose(model.mean_shape * 1000, made.mu.reshape(-1, 3), atol=0.02)
    np.testing.assert_allclose(model.exp_stddev, made.sigma_exp, rtol=1e-6)
    raw = np.array([0.5, -1.0, 0.3])
    offset = model.expression_offset((raw / made.sigma_exp).astype(np.float32))
    np.testing.assert_allclose(offset * 1000, (made.w_exp @ raw).reshape(-1, 3), atol=0.02)


def test_full_mode_counts_carry_the_coefficient_space_of_300wlp(tmp_path):
    face = made_face(id_modes=199, exp_modes=29)
    assert read_face_model(ddfa_sources(tmp_path, face)).coefficients == BFM_COEFFICIENTS
    assert read_face_model(face3d_sources(tmp_path, face)).coefficients == BFM_COEFFICIENTS
    assert read_face_model(raw_guo_sources(tmp_path, face)).coefficients != BFM_COEFFICIENTS


def test_raw_alone_keeps_its_layout_and_has_no_expressions(tmp_path, made):
    landmarks = tmp_path / "landmarks.txt"
    landmarks.write_text("\n".join(str(vertex) for vertex in made.trim[made.landmarks]))
    model = read_face_model([write_raw(tmp_path, made), landmarks])
    assert (model.layout, model.coefficients) == (f"bfm-{made.raw_count}", "bfm2009-4")
    assert model.exp_basis.shape == (0, made.raw_count, 3)
    np.testing.assert_array_equal(model.mean_shape[made.trim], (made.mu.reshape(-1, 3) * np.float64(1e-3)).astype("f4"))


def test_texture_may_be_absent(tmp_path, made):
    model = read_face_model([write_3ddfa(tmp_path, made, ""), write_expressions(tmp_path, made)])
    assert not model.has_albedo
    assert (model.mean_albedo == 0.5).all()


def test_sigma_exp_may_come_in_its_own_file(tmp_path, made):
    sigma = tmp_path / "sigma.mat"
    scipy.io.savemat(sigma, {"sigma_exp": made.sigma_exp[:, None]})
    sources = [write_3ddfa(tmp_path, made), write_expressions(tmp_path, made, with_sigma=False)]
    with pytest.raises(ValueError, match="'sigma_exp' beside 'w_exp', and does not; add the sigma_exp.mat"):
        read_face_model(sources)
    np.testing.assert_allclose(read_face_model([*sources, sigma]).exp_stddev, made.sigma_exp, rtol=1e-6)


def test_uv_follows_the_vertices(tmp_path, made):
    raw_uv = np.random.default_rng(0).uniform(size=(made.raw_count, 2))
    path = tmp_path / "uv.mat"
    scipy.io.savemat(path, {"UV": raw_uv})
    np.testing.assert_allclose(read_uv(path), raw_uv, atol=1e-7)
    with pytest.raises(ValueError, match="3728 vertices and the model has 3721; add the Model_info.mat"):
        read_face_model([*ddfa_sources(tmp_path, made), path])
    model = read_face_model([*ddfa_sources(tmp_path, made), write_info(tmp_path, made), path])
    np.testing.assert_allclose(model.uv, raw_uv[made.trim], atol=1e-7)
    scipy.io.savemat(path, {"UV": raw_uv * 256})
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        read_uv(path)


def test_slipped_uv_is_put_amid_its_neighbours(tmp_path, made, monkeypatch):
    flat = np.stack([np.arctan2(made.mu[::3], made.mu[2::3] - 2e4) / 4.4 + 0.5, made.mu[1::3] / 3e5 + 0.5], 1)
    slipped = (1500, 1501, 1502)
    monkeypatch.setitem(texture_coordinates._SLIPPED, len(flat), slipped)
    path = tmp_path / "uv.mat"
    moved = flat.copy()
    moved[list(slipped)] = (0.05, 0.9)
    scipy.io.savemat(path, {"UV": moved})
    model = read_face_model([*ddfa_sources(tmp_path, made), path])
    np.testing.assert_allclose(model.uv, flat, atol=1e-3)
    scipy.io.savemat(path, {"UV": flat})
    np.testing.assert_array_equal(
        read_face_model([*ddfa_sources(tmp_path, made), path]).uv, flat.astype(np.float32)
    )


def test_bfm2017_is_in_millimetres_with_variances(tmp_path, face):
    listed = tmp_path / "landmarks.npy"
    np.save(listed, face.landmarks)
    model = read_face_model([write_bfm2017(tmp_path, face), listed])
    rng = np.random.default_rng(2)
    id_coeffs, exp_coeffs = rng.normal(size=4).astype(np.float32), rng.normal(size=3).astype(np.float32)
    expected = face.shape(id_coeffs * face.sigma, exp_coeffs * face.sigma_exp)
    np.testing.assert_allclose(model.shape(id_coeffs, exp_coeffs) * 1000, expected, rtol=0, atol=0.06)
    np.testing.assert_allclose(
        model.albedo(id_coeffs) * 255, face.texture(id_coeffs * face.sigma_tex), rtol=0, atol=0.02
    )
    np.testing.assert_array_equal(model.landmarks, face.landmarks)
    assert model.coefficients.startswith("bfm2017")


def test_bfm2017_landmarks_follow_from_the_named_ones(tmp_path, face):
    names = {name: face.landmarks[number] for name, number in NAMED.items()}
    model = read_face_model([write_bfm2017(tmp_path, face, names)])
    anchors = np.array(list(NAMED.values()))
    mean = face.mu.reshape(-1, 3) / 1000
    off = np.linalg.norm(mean[model.landmarks] - mean[face.landmarks], axis=1)
    assert off[anchors].max() < 1e-3
    if len(face.trim) == 53215:
        assert off.mean() < 2.2
        assert off.max() < 6
    few = dict(list(names.items())[:3])
    with pytest.raises(ValueError, match="names 3 of the 12 used; add a text of 68 vertex numbers"):
        read_face_model([write_bfm2017(tmp_path, face, few)])


@pytest.mark.parametrize("stored", [
    lambda text: text, lambda text: np.array([text], h5py.string_dtype()), lambda text: np.bytes_(text),
    lambda text: np.array([[text]], "S99999"), lambda text: np.frombuffer(text, np.int8),
], ids=["string", "one string", "bytes", "one bytes", "numbers"])
def test_bfm2017_names_landmarks_in_every_way_that_hdf5_keeps_a_text(tmp_path, made, stored):
    path = write_bfm2017(tmp_path, made, {name: made.landmarks[number] for name, number in NAMED.items()})
    expected = read_face_model([path]).landmarks
    np.testing.assert_array_equal(expected[list(NAMED.values())], made.landmarks[list(NAMED.values())])
    with h5py.File(path, "a") as file:
        text = file["metadata/landmarks/json"][()]
        del file["metadata/landmarks/json"]
        file["metadata/landmarks/json"] = stored(text)
    np.testing.assert_array_equal(read_face_model([path]).landmarks, expected)


@pytest.mark.parametrize("text", [
    '[{"id": "a"', "7", "[7]", '[{"coordinates": [1, 2, 3]}]', '[{"id": "a", "coordinates": [1, 2]}]',
    '[{"id": "a", "coordinates": ["x", 2, 3]}]', '[{"id": [], "coordinates": [1, 2, 3]}]', b"\xff\xff", 9999 * "[",
])
def test_bfm2017_landmarks_that_are_no_list_of_points_are_named(tmp_path, made, text):
    path = write_bfm2017(tmp_path, made)
    with h5py.File(path, "a") as file:
        file["metadata/landmarks/json"] = text
    with pytest.raises(ValueError, match="json of .*nomouth.h5 must list landmarks with 'id' and three 'coordinates'"):
        read_face_model([path])


@pytest.fixture(scope="module")
def ict(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ict") / "FaceXModel"
    return folder, write_ict(folder)


def test_ict_modes_are_offsets_from_the_neutral_mesh(ict):
    folder, written = ict
    model = read_face_model([folder])
    meshes = {name: vertices[:9409] for name, vertices in written["meshes"].items()}
    neutral = meshes["generic_neutral_mesh"]
    w, e = np.array([1.5, -0.5]), np.array([0.7, 0.2])
    expected = neutral + sum(
        weight * (meshes[name] - neutral)
        for weight, name in zip([*w, *e], ("identity000", "identity001", "browDown_L", "jawOpen"))
    )
    shape = model.shape((w / model.id_stddev).astype("f4"), (e / model.exp_stddev).astype("f4"))
    np.testing.assert_allclose(shape, 10 * expected, rtol=0, atol=1e-4)
    assert (model.layout, model.coefficients, model.has_albedo) == ("ict-9409", "ict-2+2", False)
    np.testing.assert_array_equal(model.exp_stddev, np.float32(EXPRESSION_STDDEV))


def test_ict_quads_are_cut_and_the_narrow_face_is_the_face(ict):
    folder, written = ict
    model = read_face_model([folder])
    polygons = written["polygons"]
    assert len(model.triangles) == sum(len(polygon) - 2 for polygon in polygons)
    cut = {frozenset(triangle) for triangle in model.triangles.tolist()}
    for polygon in polygons:
        assert all(frozenset((polygon[0], b, c)) in cut for b, c in zip(polygon[1:], polygon[2:]))
    assert ((model.regions == REGIONS.index("outside")) == (np.arange(9409) >= 6706)).all()
    face = model.face_only()
    assert len(boundary_loops(face.triangles)) == 4  # rim, mouth, two eyes
    assert len(boundary_loops(np.concatenate([face.triangles, face.mouth_triangles]))) == 1


def test_ict_vertices_on_a_seam_take_the_uv_of_the_front_tile(ict):
    folder, written = ict
    np.testing.assert_allclose(read_face_model([folder]).uv, written["uv"], atol=1e-6)


def test_ict_folder_must_be_whole(tmp_path, ict):
    folder, _ = ict
    with pytest.raises(ValueError, match="generic_neutral_mesh.obj, and has none; give its FaceXModel folder"):
        read_face_model([tmp_path])
    broken = tmp_path / "broken"
    broken.mkdir()
    neutral = (folder / "generic_neutral_mesh.obj").read_text()
    (broken / "generic_neutral_mesh.obj").write_text(neutral)
    with pytest.raises(ValueError, match="must hold identity000.obj"):
        read_face_model([broken])
    (broken / "identity000.obj").write_text("v 1 2 3\n" * 9409)
    with pytest.raises(ValueError, match="must have the 26719 vertices of the neutral mesh, got 9409"):
        read_face_model([broken])
    (broken / "identity000.obj").write_text("v 1 x 3\n" * 26719)
    with pytest.raises(ValueError, match="three numbers a vertex"):
        read_face_model([broken])
    (broken / "generic_neutral_mesh.obj").write_text(neutral.replace("f ", "g ", 9000))
    with pytest.raises(ValueError, match="26719 vertices and at least 9230 faces"):
        read_face_model([broken])
    (broken / "generic_neutral_mesh.obj").write_text("v 1 2\nf 1//2 a\n")
    with pytest.raises(ValueError, match="must be an OBJ mesh"):
        read_face_model([broken])


def savemat(path, **content):
    scipy.io.savemat(path, content)


def not_mat(path):
    path.write_text("<!DOCTYPE html> please log in")


def v73(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["shapeMU"] = np.zeros(9)
    with open(path, "rb+") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)


def pickled(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def matrix_npy(path):
    np.save(path, np.zeros((2, 3)))


@pytest.mark.parametrize(("write", "message"), [
    (not_mat, "no part of a face model that is known here: it starts with '<!DOCTYPE html>"),
    (v73, r"Matlab v7.3 file, and v7 or older is expected; in Matlab .* save\(..., '-v7'\)"),
    (other_hdf5, "must hold shape/model/mean as BFM 2017 or 2019 .h5 does, and holds weights"),
    (pickled, "must be a whole .npy file without objects, and is none; get a complete copy"),
    (matrix_npy, r"must hold one list of vertex numbers, got float64 of shape \(2, 3\)"),
    (lambda path: path.write_bytes(b""), "is empty; get a complete copy"),
    (lambda path: savemat(path, weights=np.zeros(3)), "it holds weights; expected one of: face3d BFM.mat"),
    (lambda path: path.write_bytes(pickle.dumps({"shapeMU": 1})), "no part of a face model"),
], ids=["text", "v7.3", "hdf5", "pickle-in-npy", "matrix", "empty", "mat", "pickle"])
def test_a_file_of_another_kind_is_named(tmp_path, write, message):
    path = tmp_path / "01_MorphableModel.mat"
    if write in (pickled, matrix_npy):
        path = tmp_path / "list.npy"
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        read_face_model([path])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.mat"):
        read_face_model([tmp_path / "absent.mat"])


@pytest.mark.parametrize("write", [write_raw, write_3ddfa, write_bfm2017], ids=["raw", "3ddfa", "bfm2017"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.97])
def test_a_file_cut_short_is_named(tmp_path, made, write, part):
    path = write(tmp_path, made)
    content = path.read_bytes()
    path.write_bytes(content[:int(part * len(content))])
    with pytest.raises(ValueError, match="is truncated or damaged .*; get a complete copy") as error:
        read_face_model([path, write_expressions(tmp_path, made), write_info(tmp_path, made)]
                        if write is not write_bfm2017 else [path])
    assert str(path) in str(error.value)


def without(path, *names, **changed):
    content = {key: value for key, value in scipy.io.loadmat(path).items() if key[0] != "_" and key not in names}
    scipy.io.savemat(path, {**content, **changed})
    return path


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, made, value):
    """A variance below 0 has no standard deviation; no model of it would say so later."""
    path = write_bfm2017(tmp_path, made)
    with h5py.File(path, "a") as file:
        file["shape/model/pcaVariance"][1] = value
    (tmp_path / "landmarks.txt").write_text(" ".join(map(str, made.landmarks)))
    with pytest.raises(ValueError, match="id_basis must hold finite numbers, and holds NaN or infinity; get a"):
        read_face_model([path, tmp_path / "landmarks.txt"])


def test_a_missing_variable_is_named(tmp_path, made):
    with pytest.raises(ValueError, match="must hold the variable 'tl' as BFM 2009 .* does, and holds shapeEV"):
        read_face_model([without(write_raw(tmp_path, made), "tl")])
    with pytest.raises(ValueError, match="standard deviations 'sigma' beside 'w', and does not; convert from 01_"):
        read_face_model([without(write_3ddfa(tmp_path, made), "sigma"), write_expressions(tmp_path, made)])
    with pytest.raises(ValueError, match="'sigma_tex' beside 'w_tex', and does not"):
        read_face_model([without(write_3ddfa(tmp_path, made), "sigma_tex"), write_expressions(tmp_path, made)])
    with pytest.raises(ValueError, match="no 'keypoints', so its 68 landmarks are unknown; add a Model_info.mat"):
        read_face_model([without(write_3ddfa(tmp_path, made), "keypoints"), write_expressions(tmp_path, made)])
    path = write_bfm2017(tmp_path, made)
    with h5py.File(path, "a") as file:
        del file["shape/model/pcaVariance"]
    with pytest.raises(ValueError, match="must hold shape/model/pcaVariance as the published Basel Face Model does"):
        read_face_model([path])
    path = write_face3d(tmp_path, made, MODEL_MOUTH)
    struct = scipy.io.loadmat(path)["model"][0, 0]
    scipy.io.savemat(path, {"model": {name: struct[name] for name in struct.dtype.names if name != "expEV"}})
    with pytest.raises(ValueError, match="must have the field 'expEV' as in face3d's BFM.mat"):
        read_face_model([path])


def test_a_variable_of_another_type_is_named(tmp_path, made):
    exp = write_expressions(tmp_path, made)
    with pytest.raises(ValueError, match="'w' of .*Model_Shape.mat must be an array of real numbers, and is something"):
        read_face_model([without(write_3ddfa(tmp_path, made), w="text"), exp])
    path = write_face3d(tmp_path, made, MODEL_MOUTH)
    scipy.io.savemat(path, {"model": made.w})
    with pytest.raises(ValueError, match="'model' of .*BFM.mat must be one struct as in face3d's BFM.mat, and is some"):
        read_face_model([path])


def test_a_file_larger_than_any_face_model_is_not_read(tmp_path):
    path = tmp_path / "01_MorphableModel.mat"
    savemat(path, shapeMU=np.ones(3))
    with open(path, "rb+") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(ValueError, match="must have at most 1073741824 bytes, as face models do, and has 1073741825"):
        read_face_model([path])


def test_a_mesh_that_no_face_has_is_refused(tmp_path, made):
    exp, far = write_expressions(tmp_path, made), made.mu.copy()
    far[7] = 1.2e8  # micrometres
    with pytest.raises(ValueError, match=r"mean_shape must lie within 100000 mm of its origin, and reaches 1.2e\+05"):
        read_face_model([without(write_3ddfa(tmp_path, made), mu_shape=far[:, None]), exp])
    for mesh in (made.triangles[(made.triangles < 200).all(axis=1)], [[0, 1, 2]] * 2):  # far from the landmarks
        with pytest.raises(ValueError, match="the 68 landmarks must lie on one face sheet, landmark 1 does not; check"):
            read_face_model([without(write_3ddfa(tmp_path, made), tri=np.transpose(mesh) + 1.0), exp])


def test_a_rim_may_end_where_an_edge_has_three_triangles():
    fan, third = [[0, 4, 1], [1, 4, 2], [2, 4, 0]], [[5, 4, 1]]
    loops = boundary_loops(np.array(fan + third))
    assert [sorted(loop.tolist()) for loop in loops] == [[0, 1, 2]]


def test_files_that_do_not_fit_say_which_is_missing(tmp_path, made):
    with pytest.raises(ValueError, match="3728 vertices and the expressions of .*Model_Exp.mat have 3721; add Model_i"):
        read_face_model([write_raw(tmp_path, made), write_expressions(tmp_path, made)])
    with pytest.raises(ValueError, match="comes without standard deviations; add its std_exp.txt"):
        read_face_model([write_3ddfa(tmp_path, made), write_guo(tmp_path, made)[0]])
    with pytest.raises(ValueError, match="exactly one file .* holds a face model .*, got .*Model_Exp.mat"):
        read_face_model([write_expressions(tmp_path, made)])
    with pytest.raises(ValueError, match="got nothing"):
        read_face_model([])
    with pytest.raises(ValueError, match="exactly one file"):
        read_face_model([write_3ddfa(tmp_path, made), write_raw(tmp_path, made)])
    twice = tmp_path / "again.mat"
    twice.write_bytes(write_3ddfa(tmp_path, made).read_bytes())
    with pytest.raises(ValueError, match="are both 3DDFA Model_Shape.mat; give one of them"):
        read_face_model([write_3ddfa(tmp_path, made), twice])
    with pytest.raises(ValueError, match="Model_Exp.mat.* does not go with face3d BFM.mat; leave it out"):
        read_face_model([write_face3d(tmp_path, made, MODEL_MOUTH), write_expressions(tmp_path, made)])


def test_a_struct_whose_expressions_do_not_fit_names_itself(tmp_path, made):
    path = write_face3d(tmp_path, made, MODEL_MOUTH)
    struct = scipy.io.loadmat(path)["model"][0, 0]
    fields = {name: struct[name] for name in struct.dtype.names}
    scipy.io.savemat(path, {"model": {**fields, "expMU": fields["expMU"][:-3]}})
    with pytest.raises(ValueError, match=r"BFM.mat has 3721 vertices and the expressions of .*BFM.mat have 3720; they "
                                         "are of different models: take both from one distribution"):
        read_face_model([path])


def test_arrays_of_a_wrong_shape_are_named(tmp_path, made):
    exp = write_expressions(tmp_path, made)
    path = without(write_3ddfa(tmp_path, made), w=made.w[:-3])
    with pytest.raises(ValueError, match=r"shape basis of .* must have shape \(11163, K\) .* got \(11160, 4\)"):
        read_face_model([path, exp])
    path = without(write_3ddfa(tmp_path, made), sigma=made.sigma[:2, None])
    with pytest.raises(ValueError, match=r"standard deviations of the shape basis .* must be 4, one a mode, got .*2"):
        read_face_model([path, exp])
    path = without(write_3ddfa(tmp_path, made), tri=made.triangles.T)  # counts from 0
    with pytest.raises(ValueError, match="tri of .* must hold vertex numbers 1 to 3721, got 0 to"):
        read_face_model([path, exp])
    path = without(write_3ddfa(tmp_path, made), keypoints=made.landmarks[:21] + 1)
    with pytest.raises(ValueError, match="landmarks must be 68 vertices, got 21"):
        read_face_model([path, exp])
    path = without(write_3ddfa(tmp_path, made), mu_shape=made.mu[:-1])
    with pytest.raises(ValueError, match="tri of .* must hold|x, y, z of each vertex"):
        read_face_model([path, exp])


def test_pairs_may_stand_in_rows_or_columns(tmp_path, made):
    exp = write_expressions(tmp_path, made)
    expected = read_face_model([write_3ddfa(tmp_path, made), exp]).mirror
    turned = without(write_3ddfa(tmp_path, made), symlist=made.pairs.T + 1)
    np.testing.assert_array_equal(read_face_model([turned, exp]).mirror, expected)


def test_triangles_of_the_raw_model_serve_where_model_info_has_none(tmp_path, made):
    sources = raw_sources(tmp_path, made)
    expected = read_face_model(sources).triangles
    without(sources[1], "tri")
    np.testing.assert_array_equal(read_face_model(sources).triangles, expected)


def test_texture_modes_without_a_mean_are_no_texture(tmp_path, made):
    path = without(write_3ddfa(tmp_path, made), "mu_tex")
    assert not read_face_model([path, write_expressions(tmp_path, made)]).has_albedo


def test_an_expression_basis_of_other_rows_is_named(tmp_path, made):
    exp = without(write_expressions(tmp_path, made), w_exp=made.w_exp[3:])
    with pytest.raises(ValueError, match=r"the expression basis must have shape \(11163, K\) .*, got \(11160, 3\)"):
        read_face_model([write_3ddfa(tmp_path, made), exp])


def test_uv_reaches_from_0_to_1(tmp_path, made):
    uv = np.random.default_rng(0).uniform(size=(len(made.trim), 2))
    uv[:2] = (0, 0), (1, 1)
    scipy.io.savemat(tmp_path / "uv.mat", {"UV": uv})
    np.testing.assert_array_equal(read_uv(tmp_path / "uv.mat"), uv.astype(np.float32))
    model = read_face_model([*face3d_sources(tmp_path, made), tmp_path / "uv.mat"])
    np.testing.assert_array_equal(model.uv, uv.astype(np.float32))
    for column, value in ((0, -1e-6), (1, 1.000001)):
        scipy.io.savemat(tmp_path / "uv.mat", {"UV": np.where(np.arange(2) == column, value, uv)})
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got "):
            read_uv(tmp_path / "uv.mat")
    scipy.io.savemat(tmp_path / "uv.mat", {"UV": uv.T})
    with pytest.raises(ValueError, match=r"must have shape \(N, 2\), got \(2, 3721\)"):
        read_uv(tmp_path / "uv.mat")


@pytest.mark.parametrize("values, message", [
    ({"color/model/mean": np.full(11163, 1.01)}, r"must be RGB in \[0, 1\], got 1.01 to 1.01; get the published file"),
    ({"color/model/mean": np.full(11163, -0.01)}, r"must be RGB in \[0, 1\], got -0.01 to -0.01"),
    ({"expression/model/mean": np.zeros(11160)}, "must match the shape's 3721 vertices, got 3720$"),
])
def test_parts_of_a_bfm2017_that_do_not_fit_are_named(tmp_path, made, values, message):
    path = write_bfm2017(tmp_path, made)
    np.save(tmp_path / "list.npy", made.landmarks)
    with h5py.File(path, "a") as file:
        for key, value in values.items():
            del file[key]
            file[key] = value
    with pytest.raises(ValueError, match=message):
        read_face_model([path, tmp_path / "list.npy"])


def test_eight_of_the_named_landmarks_are_enough(tmp_path, made):
    names = {name: made.landmarks[number] for name, number in NAMED.items()}
    seven, eight = ({name: names[name] for name in list(names)[:count]} for count in (7, 8))
    with pytest.raises(ValueError, match="names 7 of the 12 used"):
        read_face_model([write_bfm2017(tmp_path, made, seven)])
    model = read_face_model([write_bfm2017(tmp_path, made, eight)])
    np.testing.assert_array_equal(model.landmarks[[NAMED[name] for name in eight]], list(eight.values()))


def test_every_model_says_what_may_be_done_with_it(tmp_path, made, ict):
    np.save(tmp_path / "list.npy", made.landmarks)
    for sources, licence in (
        (raw_sources(tmp_path, made), "Basel Face Model 2009, University of Basel: non-commercial research"),
        ([write_bfm2017(tmp_path, made), tmp_path / "list.npy"], "Basel Face Model 2017/2019, University of Basel: "),
        ([ict[0]], "ICT-FaceKit .* MIT licence"),
    ):
        assert re.match(licence, read_face_model(sources).licence)
