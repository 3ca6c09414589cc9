"""Annotated photos to FTD shards and back, alone and beside ASMD shards."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import toy_model
from toy_tree import BAD, FACE, LIGHT, MODEL, hashes, write_tree
from tqdm import tqdm

from asmgen.build import build_asmd
from asmgen.images import decode_image
from asmgen.shards import ShardSet, verify_shards
from bfm.charts import make_chart
from bfm.light import sh_basis
from bfm.pose import project
from bfm.render import camera_vertices, vertex_normals
from texgen.build import SCORES, build_ftd
from texgen.ftd import FtdReader
from texgen.selection import ScoreTexels
from texgen.thresholds import Selection

ALL = Selection(**dict.fromkeys(asdict(Selection())))
SOME = replace(ALL, max_yaw=45.0)
NO_SHAPE = "HELEN/HELEN_4_0"  # rejected by its maps in ASMD, by its empty texture here
options = {"model": MODEL, "size": 64, "shard_size": 4, "progress": partial(tqdm, disable=True)}
build = partial(build_ftd, **options, selection=ALL)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("tree")
    return root, write_tree(root, {"AFW": 6, "HELEN": 5})


@pytest.fixture(scope="module")
def both(tree, tmp_path_factory) -> tuple[Path, Path, object]:
    """FTD shards of all photos and ASMD shards beside them, in three shards each, by two workers; and the summary."""
    folder = tmp_path_factory.mktemp("both")
    return folder / "ftd", folder / "asmd", build(tree[0], folder / "ftd", asmd_dir=folder / "asmd", jobs=2)


def true_albedo(sample: dict, face: dict) -> np.ndarray:
    """(S, S, 3) the albedo that a photo was drawn with."""
    return make_chart(FACE, "default", 64).unwrap(FACE.albedo(face["albedo_coeffs"])).transpose(1, 2, 0)


def test_a_pass_for_both_gives_the_shards_of_each_alone(tree, both, tmp_path):
    """ASMD and FTD shards, and their settings, byte for byte; each is also continued alone."""
    build_asmd(tree[0], tmp_path / "asmd", **options)
    build(tree[0], tmp_path / "ftd")
    assert hashes(both[1]) == hashes(tmp_path / "asmd") and len(hashes(both[1])) == 5
    assert hashes(both[0]) == hashes(tmp_path / "ftd") and len(hashes(both[0])) == 5
    wanted = hashes(both[0]) | {f"asmd {name}": digest for name, digest in hashes(both[1]).items()}
    sorted((tmp_path / "ftd").glob("*.h5"))[0].unlink()
    damaged = sorted((tmp_path / "asmd").glob("*.h5"))[1]
    damaged.write_bytes(damaged.read_bytes()[:3000])
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.h5")}
    summary = build(tree[0], tmp_path / "ftd", asmd_dir=tmp_path / "asmd")
    assert wanted == hashes(tmp_path / "ftd") | {
        f"asmd {name}": digest for name, digest in hashes(tmp_path / "asmd").items()
    }
    assert [path for path in kept if path.stat().st_mtime_ns != kept[path]] == [damaged]
    assert (summary.samples, summary.written, summary.photos) == (7, 3, 8)
    assert (summary.beside[0].kind, summary.beside[0].written) == ("asmd", 3)


def test_what_both_kinds_store_is_equal(both):
    ftd, asmd = ShardSet(both[0]), ShardSet(both[1])
    assert ftd.column("source") == asmd.column("source")
    own = {"albedo_map", "mask", "linear_albedo_map", *SCORES}
    for ours, theirs in zip(ftd, asmd):
        assert ours.keys() - theirs.keys() == own
        assert theirs.keys() - ours.keys() == {"identity_map", "expression_map", "map_peak", "map_out_of_range"}
        for key in ours.keys() - own:
            np.testing.assert_array_equal(ours[key], theirs[key])
        assert ours["mask"].dtype == ours["linear_albedo_map"].dtype == np.uint8
        assert {ours[name].dtype for name in SCORES} == {np.dtype(np.float32)}
    for key, value in ftd.constants.items():
        np.testing.assert_array_equal(value, asmd.constants[key])
    theirs = asmd.attributes
    differing = {key for key in ftd.attributes if key not in theirs or np.any(ftd.attributes[key] != theirs[key])}
    assert differing == {"kind", "lit", "maps"}
    assert theirs.keys() - ftd.attributes.keys() == {"quantum", "map_compression", "map_device"}
    assert (ftd.attributes["kind"], ftd.attributes["lit"]) == ("ftd", False)


def test_maps_are_the_true_ones(tree, both):
    """I_u exactly; I_a to the fit of the light and one JPEG; the mask tells where it is taken from the photo."""
    reader, chart = FtdReader(both[0]), make_chart(FACE, "default", 64)
    assert len(reader) == 7
    for sample in reader.shards:
        face = tree[1][sample["source"]]
        truth = true_albedo(sample, face)
        linear, albedo, mask = reader.linear_albedo(sample), reader.albedo(sample), reader.mask(sample)
        assert (linear.dtype, albedo.dtype, mask.dtype) == (np.float32, np.float32, bool)
        np.testing.assert_allclose(linear, truth, atol=0.5 / 255 + 1e-6)
        error = np.abs(albedo - truth)
        assert error[mask].mean() < 0.006 and error[chart.mask].mean() < 0.02
        for array in (linear, albedo, mask[..., None]):
            assert not array[~chart.mask].any()
        points = project(FACE.shape(face["id_coeffs"], face["exp_coeffs"]), face["pose"], face["position"])
        facing = chart.unwrap(vertex_normals(camera_vertices(points), FACE.triangles).astype(np.float32))[2]
        assert facing[mask].min() > 0.15
        in_sight = mask.ravel()[ScoreTexels.from_model(FACE, chart).surface]
        assert sample["visible_fraction"] == pytest.approx(in_sight.mean(), rel=1e-6)


def test_dense_equals_params(tree, both, tmp_path):
    build(tree[0], tmp_path, encoding="params")
    reader, other = FtdReader(both[0]), FtdReader(tmp_path, MODEL)
    assert len(other) == 7 and other.shards.rejected == reader.shards.rejected
    for sample, without in zip(reader.shards, other.shards):
        assert without.keys() == sample.keys() - {"linear_albedo_map"}
        for key, value in without.items():
            np.testing.assert_array_equal(value, sample[key])
        ours, theirs = reader.linear_albedo(sample), other.linear_albedo(without)
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=0.5 / 255 + 1e-6)
        np.testing.assert_array_equal(reader.albedo(sample), other.albedo(without))
    for model in (None, toy_model(seed=1)):
        with pytest.raises(ValueError, match="give the face model they were built with, 'toy'"):
            FtdReader(tmp_path, model)
    with pytest.raises(ValueError, match=r"must be 'ftd' of schema 1, got \('asmd', 1\)"):
        FtdReader(both[1])


def test_lit_textures_keep_the_light(tree, both, tmp_path):
    """Undivided, a texture is albedo times shading; the shards say which it is, and the two builds do not mix."""
    build(tree[0], tmp_path, lit=True)
    reader, chart = FtdReader(tmp_path), make_chart(FACE, "default", 64)
    assert reader.shards.attributes["lit"] is True
    for sample, unlit in zip(reader.shards, ShardSet(both[0])):
        face, mask = tree[1][sample["source"]], reader.mask(sample)
        points = project(FACE.shape(face["id_coeffs"], face["exp_coeffs"]), face["pose"], face["position"])
        normals = chart.unwrap(vertex_normals(camera_vertices(points), FACE.triangles).astype(np.float32))
        normals = np.moveaxis(normals / np.maximum(np.linalg.norm(normals, axis=0), 1e-6), 0, -1)
        wanted = true_albedo(sample, face) * (sh_basis(normals) @ LIGHT)[..., None]
        assert np.abs(reader.albedo(sample) - wanted)[mask].mean() < 0.006
        np.testing.assert_array_equal(sample["mask"], unlit["mask"])
    with pytest.raises(ValueError, match="lit False, and this one has True"):
        build(tree[0], both[0], lit=True)


def test_selection_is_recorded(tree, both, tmp_path):
    """What a threshold leaves out has a reason and a picture; ASMD keeps it; other thresholds are another build."""
    summary = build(tree[0], tmp_path / "ftd", selection=SOME, asmd_dir=tmp_path / "asmd")
    everything, shards = ShardSet(both[0]), ShardSet(tmp_path / "ftd")
    assert shards.attributes["select_max_yaw"] == 45.0 and "select_min_visible" not in shards.attributes
    turned = {sample["source"]: sample for sample in everything if sample["yaw"] > 45}
    assert len(turned) == 2
    assert shards.column("source") == [name for name in everything.column("source") if name not in turned]
    for sample, same in zip(shards, (sample for sample in everything if sample["source"] not in turned)):
        for key in sample:
            np.testing.assert_array_equal(sample[key], same[key])
    assert hashes(tmp_path / "asmd") == hashes(both[1])
    assert dict(shards.rejected).keys() == turned.keys() | BAD.keys()
    for (source, reason), preview in zip(shards.rejected, shards.rejected_previews):
        if source in turned:
            assert reason == f"turned too far: {turned[source]['yaw']:.3g}, at most 45 wanted"
            crop = Image.fromarray(decode_image(turned[source]["image"])).resize((128, 128), Image.Resampling.BILINEAR)
            with Image.open(BytesIO(preview)) as picture:
                assert (picture.format, picture.size) == ("JPEG", (128, 128))
                assert np.abs(np.asarray(picture, float) - np.asarray(crop, float)).mean() < 3
        else:
            assert reason.split(":")[0] == ("no texture" if source == NO_SHAPE else BAD[source][0])
            assert bool(preview) == (source == NO_SHAPE)
    assert summary.rejected["turned too far"] == 2 and list(summary.rejected)[0] == "turned too far"
    assert summary.scores == pytest.approx({name: shards.column(name).mean() for name in SCORES})
    text = str(summary)
    assert re.match(r"built 5 FTD samples, rejected 6\n  2 turned too far\n(  1 .*\n){4}mean visible_fraction 0.", text)
    assert "\nbuilt 7 ASMD samples, rejected 4\n" in text and text.count("images/s") == 2
    assert verify_shards(tmp_path / "ftd").problems == verify_shards(tmp_path / "asmd").problems == []
    assert ShardSet(tmp_path / "asmd").rejected_previews == [b""] * 4
    with pytest.raises(ValueError, match="select_max_yaw 45.0, and this one has None"):
        build(tree[0], tmp_path / "ftd")


def test_a_seeded_draw_and_refit(tree, tmp_path):
    """`count` draws the same photos as for ASMD; fitted faces keep their fields in both kinds."""
    for name, seed in (("a", 0), ("b", 1)):
        build(tree[0], tmp_path / name / "ftd", count=5, seed=seed, refit=True, asmd_dir=tmp_path / name / "asmd")
        build_asmd(tree[0], tmp_path / name / "alone", count=5, seed=seed, refit=True, **options)
        assert hashes(tmp_path / name / "alone") == hashes(tmp_path / name / "asmd")
    a, b = (ShardSet(tmp_path / name / "ftd") for name in "ab")
    assert len(a) + len(a.rejected) == 5
    assert {*a.column("source"), *dict(a.rejected)} != {*b.column("source"), *dict(b.rejected)}


def test_the_documented_reading_works(tree, both, monkeypatch):
    """The FTD example of docs/shards.md, run as it stands, gives the true colours of the vertices in sight."""
    page = (Path(__file__).parents[2] / "docs/shards.md").read_text()
    _, example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    example = example.replace("textures/shard-00000-of-00001.h5", str(both[0] / "shard-00000-of-00003.h5"))
    found, reader = {}, FtdReader(both[0])
    exec(example, found)
    sample = reader.shards[0]
    np.testing.assert_array_equal(found["albedo"].astype(np.float32), reader.albedo(sample))
    np.testing.assert_array_equal(found["linear"].astype(np.float32), reader.linear_albedo(sample))
    in_sight = make_chart(FACE, "default", 64).sample(reader.mask(sample)[None].astype(np.float32))[:, 0] == 1
    difference = found["colours"] - FACE.albedo(tree[1][sample["source"]]["albedo_coeffs"])
    assert in_sight.sum() > 200 and np.abs(difference[in_sight]).mean() < 0.006


def test_folders_are_checked_before_anything_is_written(tree, both, tmp_path):
    before = hashes(both[1])
    for asmd_dir, error, message in (
        (tmp_path / "ftd", ValueError, "a folder of its own"),
        (both[0], ValueError, "holds a build with kind 'ftd', and this one has 'asmd'"),
    ):
        with pytest.raises(error, match=message):
            build(tree[0], tmp_path / "ftd", asmd_dir=asmd_dir)
        assert not (tmp_path / "ftd").exists()
    with pytest.raises(ValueError, match="kind 'asmd', and this one has 'ftd'"):
        build(tree[0], both[1])
    assert hashes(both[1]) == before


def test_a_model_without_texture(tree, tmp_path):
    """I_u is grey then; the light, and so I_a, is relative to that."""
    root = tmp_path / "photos"
    write_tree(root, {"AFW": 1})
    build(root, tmp_path / "out", model=toy_model(albedo_modes=0))
    (sample,) = ShardSet(tmp_path / "out")
    reader = FtdReader(tmp_path / "out")
    linear = reader.linear_albedo(sample)[make_chart(FACE, "default", 64).mask]
    np.testing.assert_allclose(linear, np.broadcast_to(MODEL.mean_albedo[0], linear.shape), atol=0.5 / 255)
    assert sample["albedo_coeffs"].shape == (0,)


def test_a_killed_build_continues_to_the_same_bytes(tree, tmp_path):
    """kill -9 after the first of eleven shards: what was whole is kept, the rest is made."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys; from pathlib import Path\n"
        f"sys.path[:0] = {[str(Path(__file__).parents[1])]!r}\n"
        "from e2e.test_build_ftd import build\n"
        "if __name__ == '__main__':\n"
        "    build(Path(sys.argv[1]), Path(sys.argv[2]), asmd_dir=Path(sys.argv[3]), shard_size=1)\n"
    )
    build(tree[0], tmp_path / "whole/ftd", asmd_dir=tmp_path / "whole/asmd", shard_size=1)
    folders = tmp_path / "ftd", tmp_path / "asmd"
    run = subprocess.Popen(
        [sys.executable, program, tree[0], *folders], cwd=Path(__file__).parents[2], start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(folders[1].glob("*.h5")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGKILL)  # the workers too
    run.wait()
    done = {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("*.h5")}
    assert 1 <= len(done) < 22 and any(folders[0].glob("scratch-*"))
    summary = build(tree[0], folders[0], asmd_dir=folders[1], shard_size=1)
    assert 0 < summary.written
    for folder in folders:
        assert hashes(folder) == hashes(tmp_path / "whole" / folder.name)
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert {path.suffix for folder in folders for path in folder.iterdir()} == {".h5", ".json", ".md"}
