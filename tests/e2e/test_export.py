"""Shards for other programs, read back by those programs or from the definition of their formats."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from click.testing import CliRunner
from toy import toy_model
from toy_ftd import write_toy_ftd
from toy_tree import FACE, MODEL, write_tree
from webdataset.autodecode import Decoder, imagehandler
from webdataset.tariterators import group_by_keys, tar_file_expander

from asmgen.asmd import AsmdReader, quantize_maps
from asmgen.build import build_asmd
from asmgen.position_maps import landmarks_in_crop, read_landmark_texels, read_position_map, vertices_in_crop
from asmgen.shards import ShardSet
from bfm.model_file import save_model
from bfm.pose import project
from cli.main import main
from texgen import export
from texgen.export import export_position_maps, export_webdataset
from texgen.ftd import FtdReader, quantize_albedo

SIZE, COUNT = 64, 3


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    write_tree(folder / "photos", {"AFW": COUNT})
    for encoding in ("dense", "params"):
        build_asmd(folder / "photos", folder / encoding, MODEL, size=SIZE, encoding=encoding)
    save_model(MODEL, folder / "toy.h5")
    save_model(toy_model(seed=1), folder / "other.h5")
    write_toy_ftd(folder / "ftd_dense", MODEL, COUNT, 32, "dense")
    write_toy_ftd(folder / "ftd_params", MODEL, COUNT, 32, "params")
    return folder


def files(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }


def streamed(paths):
    """What the WebDataset library makes of tar files."""
    decode, samples = Decoder([imagehandler("rgb8")]), []
    for path in paths:
        with open(path, "rb") as file:  # `webdataset.WebDataset` does so, and leaves it open
            samples += map(decode, group_by_keys(tar_file_expander([{"url": str(path), "stream": file}])))
    return samples


@pytest.mark.parametrize("encoding", ("dense", "params"))
def test_webdataset_reads_the_maps_that_the_shards_hold(trees, tmp_path, encoding):
    paths = export_webdataset(trees / encoding, tmp_path / "out", MODEL, tar_size=2)
    assert [path.name for path in paths] == ["faces-00000.tar", "faces-00001.tar"]
    samples, reader = streamed(paths), AsmdReader(trees / encoding, MODEL)
    assert [sample["__key__"] for sample in samples] == [f"{index:08d}" for index in range(COUNT)]
    for index, found in enumerate(samples):
        wanted = reader.shards[index]
        for key, steps in zip(("identity_map.npy", "expression_map.npy"), map(quantize_maps, reader.maps(wanted))):
            assert found[key].dtype == np.int16
            np.testing.assert_array_equal(found[key], steps)
        assert found["jpg"].shape == (SIZE, SIZE, 3)
        numbers = found["json"]
        for key in ("id_coeffs", "exp_coeffs", "albedo_coeffs", "pose", "position", "light", "crop_transform"):
            np.testing.assert_array_equal(np.float32(numbers[key]), wanted[key])
        assert numbers["source"] == wanted["source"] == f"AFW/AFW_{index}_0"
        assert numbers["quantum"] == reader.shards.attributes["quantum"]
        # the vertices, from the sample alone
        full_map = (found["identity_map.npy"].astype(np.float32) + found["expression_map.npy"]) * numbers["quantum"]
        inside = reader.shards.constants["mask"] > 0
        points = full_map[:, inside].T * numbers["scale"] + numbers["centre"]
        ours = sum(reader.maps(wanted))[:, inside].T * numbers["scale"] + numbers["centre"]
        np.testing.assert_allclose(points, ours, atol=0.02)


@pytest.mark.parametrize("encoding", ("dense", "params"))
def test_webdataset_reads_textures(trees, tmp_path, encoding):
    samples = streamed(export_webdataset(trees / f"ftd_{encoding}", tmp_path / "out", MODEL))
    reader = FtdReader(trees / f"ftd_{encoding}", MODEL)
    for index, found in enumerate(samples):
        wanted = reader.shards[index]
        np.testing.assert_array_equal(found["linear_albedo_map.npy"], quantize_albedo(reader.linear_albedo(wanted)))
        np.testing.assert_array_equal(found["mask.npy"], wanted["mask"])
        assert found["albedo_map.jpg"].shape == (32, 32, 3)
    with tarfile.open(tmp_path / "out" / "faces-00000.tar") as tar:
        assert tar.extractfile("00000002.albedo_map.jpg").read() == reader.shards[2]["albedo_map"]
    assert len(samples) == COUNT


def test_what_all_samples_share_lies_beside(trees, tmp_path):
    export_webdataset(trees / "dense", tmp_path / "out")
    described = json.loads((tmp_path / "out" / "dataset.json").read_text())
    shards = ShardSet(trees / "dense")
    assert described["samples"] == COUNT and described["tars"] == ["faces-00000.tar"]
    assert described["attributes"]["face_model_sha256"] == MODEL.sha256
    assert described["attributes"]["licence"] == MODEL.licence
    with np.load(tmp_path / "out" / "constants.npz") as constants:
        assert set(constants) == set(shards.constants)
        for key, value in shards.constants.items():
            np.testing.assert_array_equal(constants[key], value)


@pytest.mark.parametrize("write", (export_webdataset, export_position_maps))
def test_the_same_bytes_again_also_after_a_stop(trees, tmp_path, monkeypatch, write):
    write(trees / "dense", tmp_path / "whole")
    real, calls = export.write_whole, []

    def stopping(path, data):
        calls.append(path)
        if path.name == "dataset.json" and len(calls) < 20:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(export, "write_whole", stopping)
    with pytest.raises(KeyboardInterrupt):
        write(trees / "dense", tmp_path / "stopped")
    assert (tmp_path / "stopped" / "unfinished").exists()
    monkeypatch.undo()
    write(trees / "dense", tmp_path / "stopped")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    with pytest.raises(FileExistsError, match="already holds files"):
        write(trees / "dense", tmp_path / "whole")


def test_a_tar_under_its_name_is_whole(trees, tmp_path, monkeypatch):
    def cut_short(shards, face_model):
        yield shards[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "dense_samples", cut_short)
    with pytest.raises(KeyboardInterrupt):
        export_webdataset(trees / "dense", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.parametrize("encoding", ("dense", "params"))
def test_position_maps_place_the_face_in_the_crop(trees, tmp_path, encoding):
    """Against the projection of the model's own vertices, which no map lies between."""
    assert export_position_maps(trees / encoding, tmp_path / "out", MODEL) == COUNT
    shards, texels = ShardSet(trees / encoding), read_landmark_texels(tmp_path / "out" / "uv_kpt_ind.txt")
    constants = shards.constants
    for index in range(COUNT):
        sample = shards[index]
        folder = tmp_path / "out" / "AFW" / f"AFW_{index}_0"
        assert (folder / f"AFW_{index}_0_cropped.jpg").read_bytes() == sample["image"]
        placed = np.load(folder / f"AFW_{index}_0_cropped_uv_posmap.npy")
        assert placed.shape == (SIZE, SIZE, 3) and placed.dtype == np.float32
        inside = constants["mask"] > 0
        assert placed[inside, 2].min() == 0 and not placed[~inside].any()
        points = project(FACE.shape(sample["id_coeffs"], sample["exp_coeffs"]), sample["pose"], sample["position"])
        found = vertices_in_crop(placed, constants["uv"])
        distances = np.linalg.norm((found - points)[:, :2], axis=1)
        assert np.median(distances) < 0.05 and distances.max() < 0.8
        depth = (found - points)[:, 2]  # but for the shift of the least to 0; larger is nearer
        away = np.abs(depth - np.median(depth))
        assert np.median(away) < 0.05 and away.max() < 0.8
        np.testing.assert_allclose(landmarks_in_crop(placed, texels), sample["landmarks"], atol=1.0)


def test_landmarks_of_position_maps_become_training_data(trees, tmp_path):
    """Out to PRNet's folders, and in again through --refit."""
    export_position_maps(trees / "dense", tmp_path / "maps")
    result = CliRunner().invoke(main, [
        "annotate", str(tmp_path / "maps"), str(tmp_path / "photos"), "--position-maps",
        str(tmp_path / "maps" / "uv_kpt_ind.txt"),
    ])
    assert result.exit_code == 0, result.output
    summary = build_asmd(tmp_path / "photos", tmp_path / "again", MODEL, size=SIZE, refit=True)
    assert summary.samples == COUNT and summary.landmark_error < 1.0
    truth, again = ShardSet(trees / "dense"), ShardSet(tmp_path / "again")
    for index in range(COUNT):
        assert again[index]["source"].endswith(f"AFW_{index}_0_cropped")
        back = np.linalg.inv(np.vstack([again[index]["crop_transform"], [0, 0, 1]]))[:2]
        in_crop = again[index]["landmarks"] @ back[:, :2].T + back[:, 2]
        assert np.linalg.norm(in_crop - truth[index]["landmarks"], axis=1).mean() < 1.0


@pytest.mark.parametrize("arguments, message", [
    (["{params}", "{out}", "--to", "webdataset", "--face-model", "{other}"],
     "give the face model they were built with"),
    (["{ftd}", "{out}", "--to", "prnet"], "must be 'asmd' of schema 1"),
    (["{dense}", "{dense}", "--to", "webdataset"], "already holds files; choose an empty folder"),
    (["{dense}", "{out}", "--to", "onnx"], "checkpoint.pt does not exist"),
    (["{dense}", "{out}", "--to", "prnet", "--tar-size", "3"], "--tar-size is for --to webdataset"),
    (["{dense}", "{out}", "--to", "prnet", "--texture", "{dense}"], "--texture is for --to onnx"),
])
def test_mistakes_get_one_sentence(trees, tmp_path, arguments, message):
    places = {name: trees / name for name in ("params", "dense")}
    places |= {"ftd": trees / "ftd_dense", "other": trees / "other.h5", "out": tmp_path / "out"}
    result = CliRunner().invoke(main, ["export", *(argument.format(**places) for argument in arguments)])
    assert result.exit_code in (1, 2) and message in result.output
    assert "Traceback" not in result.output


def test_the_command_takes_a_face_model_file(trees, tmp_path):
    for form, out in (("webdataset", "wrote 1 tar file(s)"), ("prnet", f"wrote {COUNT} faces")):
        result = CliRunner().invoke(main, [
            "export", str(trees / "params"), str(tmp_path / form), "--to", form, "--face-model", str(trees / "toy.h5"),
        ])
        assert result.exit_code == 0 and out in result.output


@pytest.mark.parametrize("source", ("../AFW_0", "/etc/AFW_0", "A//B", "C:/AFW", "A/./B", ""))
def test_a_source_cannot_lead_out_of_the_output(source):
    with pytest.raises(ValueError, match="must be a path below a folder"):
        export._parts(source)


def test_a_position_map_must_be_one(tmp_path):
    path = tmp_path / "a.npy"
    for array, message in (
        (np.zeros((4, 5, 3), np.float32), r"of shape \(S, S, 3\)"), (np.zeros((3, 4, 4), np.float32), "channels last"),
        (np.full((4, 4, 3), np.nan, np.float32), "finite floats"), (np.zeros((4, 4, 3), np.uint8), "finite floats"),
    ):
        np.save(path, array)
        with pytest.raises(ValueError, match=message):
            read_position_map(path)
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match="cannot be read"):
        read_position_map(path)
    texels = tmp_path / "uv_kpt_ind.txt"
    for text in ("1 2 3\n4 5 6\n", "one two\n", f"{'-1 ' * 68}\n" * 2, ""):
        texels.write_text(text)
        with pytest.raises(ValueError, match="must hold two lines of 68"):
            read_landmark_texels(texels)
    with pytest.raises(ValueError, match="in the map of side 4, got 9"):
        landmarks_in_crop(np.zeros((4, 4, 3)), np.full((2, 68), 9))


def test_numbers_that_json_lacks_are_null():
    from asmgen.tar_files import sample_files

    found = sample_files({"image": b"x", "landmark_error": np.float32(np.nan), "source": "Jürgen"}, {"scale": np.inf})
    assert set(found) == {"jpg", "json"}
    assert json.load(io.BytesIO(found["json"])) == {"landmark_error": None, "source": "Jürgen", "scale": None}
