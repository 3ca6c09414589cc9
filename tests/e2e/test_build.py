"""Annotated photos to ASMD shards and back."""

import json
import re
import shutil
from contextlib import contextmanager
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from toy import toy_model
from toy_tree import BAD, BACKGROUND, FACE, FAR, LIGHT, MODEL, SHIFTED, UNLABELLED, hashes, write_tree
from tqdm import tqdm

from asmgen.asmd import MAP_RANGE, QUANTUM, AsmdReader, dequantize_maps, face_box, quantize_maps
from asmgen.build import build_asmd
from asmgen.crop import crop_image, face_square, square_transform
from asmgen.images import decode_image
from asmgen.inspect import inspect_sheet, open_reader, statistics_table
from asmgen.shards import ShardSet, verify_shards, write_shard
from asmgen.sheets import GAP, HEADING, TILE
from bfm.charts import make_chart, round_trip_error
from bfm.light import sh_basis
from bfm.model_file import save_model
from bfm.pose import project, transform_points
from bfm.render import camera_vertices, vertex_normals


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("tree")
    return root, write_tree(root, {"AFW": 6, "HELEN": 5})


build = partial(build_asmd, model=MODEL, size=64, shard_size=4, progress=partial(tqdm, disable=True))


@pytest.fixture(scope="module")
def dense(tree, tmp_path_factory):
    """A build in three shards, and its summary."""
    out_dir = tmp_path_factory.mktemp("dense")
    return out_dir, build(tree[0], out_dir)


def test_samples_are_the_annotated_ones(tree, dense):
    """Every field against the truth; the placement in the crop projects as the one in the photo."""
    root, faces = tree
    shards = ShardSet(dense[0])
    assert [sample["source"] for sample in shards] == list(faces)
    for sample, (source, face) in zip(shards, faces.items()):
        for key in ("id_coeffs", "exp_coeffs", "albedo_coeffs"):
            np.testing.assert_array_equal(sample[key], face[key])
        shape = MODEL.shape(face["id_coeffs"], face["exp_coeffs"])[MODEL.landmarks]
        in_photo = project(shape, face["pose"], face["position"])[:, :2]
        square = face_square(in_photo)
        transform = square_transform(square, 64)
        np.testing.assert_allclose(sample["crop_transform"], transform, rtol=1e-6, atol=2e-5)
        np.testing.assert_allclose(sample["landmarks"], transform_points(in_photo, transform), atol=2e-5)
        again = project(shape, sample["pose"], sample["position"])[:, :2]
        np.testing.assert_allclose(again, sample["landmarks"], atol=2e-4)
        shift = 5 * 17 / 68 * 64 / square[2] if source == f"AFW/AFW_{SHIFTED}_0" else 0  # 2-D jaws do not count
        if source == f"HELEN/HELEN_{UNLABELLED - 6}_0":
            shift = np.nan
        np.testing.assert_allclose(sample["landmark_error"], shift, atol=3e-5)
        with Image.open(root / f"{source}.jpg") as photo:
            crop = crop_image(np.asarray(photo.convert("RGB")), square, 64)
        assert np.abs(decode_image(sample["image"]) - crop.astype(int)).mean() < 1.5
        posed = project(FACE.mean_shape, face["pose"], face["position"])
        normals = vertex_normals(camera_vertices(posed), FACE.triangles)
        basis = sh_basis(normals[normals[:, 2] > 0.4])
        difference = np.abs(basis @ sample["light"] - basis @ LIGHT)
        assert difference.max() < 0.1 and difference.mean() < 0.02
        assert 0 < sample["light_residual"] < 0.02


def test_numbers_are_float32_and_maps_int16(dense):
    for key, value in ShardSet(dense[0])[0].items():
        if key in ("image", "source"):
            assert isinstance(value, bytes if key == "image" else str)
        else:
            wanted = {"identity_map": np.int16, "expression_map": np.int16, "map_out_of_range": np.int32}
            assert value.dtype == wanted.get(key, np.float32), key


def test_rejections_are_recorded_and_the_rest_goes_on(tree, dense):
    (out_dir, summary), faces = dense, tree[1]
    rejected = dict(ShardSet(out_dir).rejected)
    assert {source: reason.split(":")[0] for source, reason in rejected.items()} == {
        source: kind for source, (kind, _) in BAD.items()
    }
    assert summary.rejected == dict.fromkeys((kind for kind, _ in BAD.values()), 1)
    assert (summary.samples, summary.written, summary.photos, summary.replaced) == (7, 7, 11, ())
    shards = ShardSet(out_dir)
    errors, box = shards.column("landmark_error"), face_box(shards.column("landmarks"))
    assert summary.landmark_error == pytest.approx(errors[1] / 6, abs=1e-4)
    assert summary.landmark_percent == pytest.approx(100 * errors[1] / box[1] / 6, abs=1e-3)
    assert summary.out_of_range == 1 and np.flatnonzero(shards.column("map_out_of_range")) == [list(faces).index(
        f"HELEN/HELEN_{FAR - 6}_0")]
    assert re.search(r"built 7 ASMD samples, rejected 4\n(  1 .*\n){4}", str(summary))
    assert verify_shards(out_dir).problems == []


def test_map_identities(dense):
    """A_id + A_exp is the map of the full shape, and holds its vertices, to the quantum and the chart's error."""
    reader = AsmdReader(dense[0])
    chart = make_chart(FACE, reader.shards.attributes["chart"], 64)
    centre, scale = reader.shards.attributes["centre"], reader.shards.attributes["scale"]
    _, worst_of_mean = round_trip_error(FACE, chart)
    for sample in reader.shards:
        identity_map, expression_map = reader.maps(sample)
        full = FACE.shape(sample["id_coeffs"], sample["exp_coeffs"])
        wanted = chart.unwrap(((full - centre) / scale).astype(np.float32))
        np.testing.assert_allclose(identity_map + expression_map, wanted, atol=QUANTUM + 1e-6)
        assert not identity_map[:, ~chart.mask].any() and not expression_map[:, ~chart.mask].any()
        exact = chart.sample(wanted) * scale + centre
        np.testing.assert_allclose(reader.vertices(identity_map + expression_map), exact, atol=QUANTUM * scale + 1e-3)
        assert np.linalg.norm(exact - full, axis=1).max() < 2 * worst_of_mean + 0.1
        magnitude = np.abs([identity_map, expression_map])
        assert sample["map_peak"] == pytest.approx(magnitude.max(), abs=QUANTUM)
        assert abs(sample["map_out_of_range"] - np.count_nonzero(magnitude > 1)) <= 2


def test_dense_equals_params(tree, dense, tmp_path):
    """Both encodings hold the same samples and give the same maps, to half a step."""
    build(tree[0], tmp_path, encoding="params")
    reader, other = AsmdReader(dense[0]), AsmdReader(tmp_path, MODEL)
    assert len(reader) == len(other) == 7
    for sample, without in zip(reader.shards, other.shards):
        assert without.keys() == sample.keys() - {"identity_map", "expression_map"}
        for key, value in without.items():
            np.testing.assert_array_equal(value, sample[key])
        for ours, theirs in zip(reader.maps(sample), other.maps(without)):
            assert ours.dtype == theirs.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, atol=0.5 * QUANTUM + 2e-7)
            np.testing.assert_allclose(reader.vertices(ours), other.vertices(theirs), atol=0.01)  # mm
    assert other.shards.rejected == reader.shards.rejected
    for model in (None, toy_model(seed=1)):
        with pytest.raises(ValueError, match="give the face model they were built with, 'toy'"):
            AsmdReader(tmp_path, model)


def test_small_dense_shards_hold_the_same(tree, dense, tmp_path):
    """In another form; by default the maps are stored as they are."""
    build(tree[0], tmp_path, compression="small")
    reader, other = AsmdReader(dense[0]), AsmdReader(tmp_path)
    assert len(reader) == len(other) == 7
    for sample, same in zip(reader.shards, other.shards):
        assert sample.keys() == same.keys()
        for key, value in sample.items():
            np.testing.assert_array_equal(value, same[key])
    assert [one.shards.attributes["map_compression"] for one in (reader, other)] == ["none", "small"]
    sizes = [shards.stored_bytes()["identity_map"] for shards in (reader.shards, other.shards)]
    assert sizes[0] == 7 * (3 * 64 * 64 * 2 + 4) and sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("options, message", [
    ({"encoding": "params", "compression": "small"}, "are for the maps of dense shards; leave them out with 'params'"),
    ({"encoding": "params", "device": "cuda"}, "are for the maps of dense shards; leave them out with 'params'"),
    ({"compression": "zip"}, r"compression must be one of \('none', 'small'\), got 'zip'"),
    ({"device": "tpu"}, "device must be 'cpu' or 'cuda', got 'tpu'"),
])
def test_options_that_do_not_fit(tree, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build(tree[0], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_not_there(tree, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' needs a GPU that torch can use, and there is none"):
        build(tree[0], tmp_path / "out", device="cuda")


def test_a_rerun_mends_and_gives_the_same_bytes(tree, dense, tmp_path):
    """Two workers; then one shard lost, one cut short, one left half written: only these are made again."""
    out_dir, _ = dense
    build(tree[0], tmp_path, jobs=2)
    wanted = hashes(out_dir)
    assert hashes(tmp_path) == wanted and len(wanted) == 5
    first, second, third = sorted(tmp_path.glob("*.h5"))
    first.unlink()
    (tmp_path / f"{first.name}.0123.partial").write_bytes(b"half")
    third.write_bytes(third.read_bytes()[:5000])
    (tmp_path / "scratch-old").mkdir()
    kept = second.stat().st_mtime_ns
    summary = build(tree[0], tmp_path)
    assert hashes(tmp_path) == wanted
    assert {path.name for path in tmp_path.iterdir()} == wanted.keys()
    assert second.stat().st_mtime_ns == kept
    assert (summary.samples, summary.written, summary.replaced) == (7, 4, (third.name,))  # the first was lost
    assert build(tree[0], tmp_path).written == 0


def test_another_builder_that_begins_and_ends_while_the_settings_are_looked_for(tree, dense, tmp_path, monkeypatch):
    """Its shards once seemed to lack settings, where several began at the same moment."""
    exists, out_dir = Path.exists, tmp_path / "out"

    def late(path: Path, **options) -> bool:
        found = exists(path, **options)
        if path == out_dir / "build.json" and not found:
            shutil.copytree(dense[0], out_dir)
        return found

    monkeypatch.setattr(Path, "exists", late)
    assert build(tree[0], out_dir).written == 0
    assert hashes(out_dir) == hashes(dense[0])


def test_another_builder_with_other_settings_that_ends_before_the_lock_is_had(tree, dense, tmp_path, monkeypatch):
    """Both found the folder empty."""
    @contextmanager
    def late(folder: Path):
        shutil.copytree(dense[0], folder, dirs_exist_ok=True)
        yield

    monkeypatch.setattr("asmgen.build_folder.locked", late)
    with pytest.raises(ValueError, match="holds a build with size 64, and this one has 32"):
        build(tree[0], tmp_path, size=32)
    assert hashes(tmp_path) == hashes(dense[0])


@pytest.mark.parametrize("changed, message", [
    ({"size": 32}, "holds a build with size 64, and this one has 32"),
    ({"encoding": "params"}, "with encoding 'dense', and this one has 'params'"),
    ({"compression": "small"}, "map_compression 'none', and this one has 'small'"),
    ({"shard_size": 5}, "shard_size 4, .* has 5"),
    ({"count": 3}, "photos 11, .* has 3"),
    ({"model": toy_model(seed=3)}, "face_model_sha256"),
    ({"refit": True}, "refit False, .* has True"),
])
def test_other_settings_are_refused(tree, dense, changed, message):
    before = hashes(dense[0])
    with pytest.raises(ValueError, match=message):
        build(tree[0], dense[0], **changed)
    assert hashes(dense[0]) == before


def test_foreign_shards_and_bad_options_are_refused(tree, tmp_path):
    (tmp_path / "shard-00000-of-00001.h5").write_bytes(b"")
    with pytest.raises(FileExistsError, match="holds shards but no build.json"):
        build(tree[0], tmp_path)
    for options, message in (
        ({"encoding": "jpeg"}, "encoding must be one of"), ({"shard_size": 0}, "at least 1"),
        ({"jobs": 0}, "at least 1"), ({"count": 12}, "count must be at most the 11 photos"),
    ):
        with pytest.raises(ValueError, match=message):
            build(tree[0], tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()


def test_a_seeded_draw(tree, tmp_path):
    """`count` draws photos, in their order; the seed decides which."""
    drawn = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        summary = build(tree[0], tmp_path / name, count=5, seed=seed, encoding="params")
        shards = ShardSet(tmp_path / name)
        assert summary.samples + sum(summary.rejected.values()) == 5
        drawn.append([*shards.column("source"), *(source for source, _ in shards.rejected)])
        assert shards.column("source") == sorted(shards.column("source"))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert sorted(drawn[0]) != sorted(drawn[2])


def test_refit_meets_the_labels(tree, tmp_path):
    """Fitted parameters are not the annotated ones, but their landmarks are near; a damaged annotation is no bar."""
    summary = build(tree[0], tmp_path, refit=True)
    assert summary.rejected == {"no landmarks": 2, "unreadable image": 1, "no annotation": 1}
    assert "AFW/AFW_5_0" in ShardSet(tmp_path).column("source")
    assert summary.landmark_percent < 3


def test_albedo_that_is_not_annotated(tmp_path):
    """Without Tex_Para the albedo is fitted; a model without texture has none, and its light is fitted all the same."""
    (face,) = write_tree(tmp_path / "photos", {"AFW": 1}).values()
    path = tmp_path / "photos/AFW/AFW_0_0.mat"
    arrays = scipy.io.loadmat(path)
    scipy.io.savemat(path, {key: value for key, value in arrays.items() if key[0].isupper() and key != "Tex_Para"})
    build(tmp_path / "photos", tmp_path / "fitted")
    build(tmp_path / "photos", tmp_path / "grey", model=toy_model(albedo_modes=0))
    (fitted,), (grey,) = ShardSet(tmp_path / "fitted"), ShardSet(tmp_path / "grey")
    assert fitted["albedo_coeffs"].shape == (4,) and grey["albedo_coeffs"].shape == (0,)
    assert fitted["light_residual"] < grey["light_residual"] < 0.2
    seen = FACE.albedo(fitted["albedo_coeffs"]) - FACE.albedo(face["albedo_coeffs"])
    assert np.abs(seen).mean() < np.abs(FACE.mean_albedo - FACE.albedo(face["albedo_coeffs"])).mean()
    assert "albedo coefficients" not in statistics_table(tmp_path / "grey")


def test_other_shards_are_refused(tmp_path):
    write_shard(tmp_path / "shard-00000-of-00001.h5", [{"x": 1.0}], {"kind": "other", "schema_version": 1})
    for read in (AsmdReader, statistics_table, inspect_sheet):
        with pytest.raises(ValueError, match=r"must be 'asmd' of schema 1, got \('other', 1\)"):
            read(tmp_path)
    with pytest.raises(ValueError, match=r"field must be among \['x'\], got 'y'"):
        ShardSet(tmp_path).column("y")


def test_all_rejected(tree, tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(2):
        Image.new("RGB", (50, 50)).save(root / f"{number}.jpg")
    summary = build(root, tmp_path / "out")
    assert (summary.samples, summary.rejected) == (0, {"no annotation": 2})
    assert "no annotation" in str(summary)
    assert "rejected" in statistics_table(tmp_path / "out")
    with pytest.raises(ValueError, match="no sample to draw"):
        inspect_sheet(tmp_path / "out")


def test_progress_counts_every_photo(tree, tmp_path):
    seen = []

    class Bar(tqdm):
        def update(self, n=1):
            seen.append(n)
            return super().update(n)

        def close(self):
            seen.append(("total", self.total, self.n))
            super().close()

    build(tree[0], tmp_path, progress=partial(Bar, file=StringIO()), encoding="params")
    assert ("total", 11, 11) in seen


@pytest.mark.parametrize("compression", ["none", "small"])
def test_the_documented_reading_works(tree, dense, compression, tmp_path, monkeypatch):
    """The ASMD example of docs/shards.md, run as it stands, gives the stored landmarks."""
    folder = dense[0]
    if compression == "small":
        build(tree[0], tmp_path, compression=compression)
        folder = tmp_path
    page = (Path(__file__).parents[2] / "docs/shards.md").read_text()
    example, _ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(folder.parent)
    example = example.replace("shards/shard-00000-of-00001.h5", str(folder / "shard-00000-of-00003.h5"))
    found = {}
    exec(example, found)
    sample = ShardSet(folder)[0]
    assert found["crop"].size == (64, 64)
    _, worst = round_trip_error(FACE, make_chart(FACE, "default", 64))
    distance = np.abs(np.stack([found["x"], found["y"]], 1)[FACE.landmarks] - sample["landmarks"])
    assert distance.max() < 2 * worst * sample["position"][2] + 0.05


def test_attributes_and_constants_tell_all(dense):
    shards = ShardSet(dense[0])
    settings = json.loads((dense[0] / "build.json").read_text())
    assert settings.items() <= shards.attributes.items()
    assert shards.attributes["face_model_sha256"] == MODEL.sha256 and shards.attributes["quantum"] == QUANTUM
    for key in ("triangles", "mouth_triangles", "landmarks", "mirror", "regions"):
        np.testing.assert_array_equal(shards.constants[key], getattr(FACE, key))
    assert QUANTUM * shards.attributes["scale"] < 0.01  # mm


def test_face_box():
    landmarks = np.random.default_rng(0).uniform(0, 1, (2, 68, 2)) * [3, 12] + 5
    landmarks[:, 0], landmarks[:, 9] = (5, 5), (8, 17)
    np.testing.assert_allclose(face_box(landmarks), [6, 6])  # sqrt(3 * 12)


def test_quantization():
    maps = np.linspace(-MAP_RANGE, MAP_RANGE, 100_001, dtype=np.float32)
    np.testing.assert_allclose(dequantize_maps(quantize_maps(maps)), maps, atol=QUANTUM / 2 + 1e-7)
    assert quantize_maps(maps).min() == -32767 and quantize_maps(maps).max() == 32767
    for wrong in (1.2501, np.nan):
        with pytest.raises(ValueError, match="within"):
            quantize_maps(np.array([0, wrong]))


def test_sheet_and_table(tree, dense, tmp_path):
    """The sheet shows the mesh where the face is; dense and params draw alike."""
    sheet = inspect_sheet(dense[0], [0, 6])
    build(tree[0], tmp_path, encoding="params")
    save_model(MODEL, tmp_path / "model.h5")
    other = inspect_sheet(tmp_path, [0, -1], face_model=str(tmp_path / "model.h5"))
    assert sheet.size == other.size
    assert np.abs(np.asarray(sheet, int) - np.asarray(other, int)).mean() < 0.1
    with pytest.raises(ValueError, match="among the 7 there are, got 7"):
        inspect_sheet(dense[0], [7])
    with pytest.raises(ValueError, match="give the face model"):
        open_reader(tmp_path, toy_model(seed=2))
    picture = np.asarray(inspect_sheet(dense[0], [3]), int)[HEADING:HEADING + TILE]
    crop, overlay, identity, expression, full = (
        picture[:, GAP + column * (TILE + GAP):][:, :TILE] for column in range(5)
    )
    in_photo = np.abs(crop - BACKGROUND).max(axis=-1) > 40
    in_mesh = np.abs(overlay - crop).max(axis=-1) > 8
    assert (in_photo & in_mesh).sum() > 0.93 * (in_photo | in_mesh).sum()
    reader = AsmdReader(dense[0])
    identity_map, expression_map = reader.maps(reader.shards[3])
    full_map = identity_map + expression_map
    for tile, maps in ((identity, identity_map), (expression, 4 * expression_map), (full, full_map)):
        wanted = (maps[:, 30:34, 40:44].mean(axis=(1, 2)) + 1) * 127.5
        np.testing.assert_allclose(tile[120:136, 160:176].mean(axis=(0, 1)), wanted, atol=3)
    table = statistics_table(dense[0])
    assert re.search(r"^samples +7 in 3 shards", table, re.MULTILINE)
    assert re.search(r"^  map out of range +1$", table, re.MULTILINE)
    assert re.search(r"^  identity_map +\d", table, re.MULTILINE)
    assert re.search(r"^yaw, degrees( +-?\d+\.\d{3}){7}$", table, re.MULTILINE)
    assert "identity_map" not in statistics_table(tmp_path) and "nan" not in table
