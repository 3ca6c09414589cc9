"""The face model file: exact, reproducible, whole or absent, and clear about what it is not."""

import os
import struct
import time
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest

from bfm.model_file import KIND, load_model, save_model
from bfm.seal import seal
from face_files import write_as_before
from toy import toy_model

SEAL = len("\nsha256 of the crc32 of each MiB: ") + 65
"""Bytes of the digest at the end."""


@pytest.fixture
def model():
    return toy_model()


def test_every_field_survives_exactly(tmp_path, model):
    uv = np.random.default_rng(0).uniform(size=(len(model.mean_shape), 2)).astype(np.float32)
    for saved in (model, replace(model, uv=uv)):
        save_model(saved, tmp_path / "model.h5")
        loaded = load_model(tmp_path / "model.h5")
        for field in fields(saved):
            before, after = getattr(saved, field.name), getattr(loaded, field.name)
            if isinstance(before, np.ndarray):
                assert before.dtype == after.dtype, field.name
                np.testing.assert_array_equal(before, after, err_msg=field.name)
            else:
                assert before == after, field.name
        assert loaded.sha256 == saved.sha256


def test_a_model_without_texture_survives(tmp_path, model):
    count = len(model.mean_shape)
    bare = replace(model, albedo_basis=np.zeros((0, count, 3), np.float32), albedo_stddev=np.zeros(0, np.float32),
                   mouth_triangles=np.zeros((0, 3), np.int32))
    save_model(bare, tmp_path / "model.h5")
    loaded = load_model(str(tmp_path / "model.h5"))
    assert not loaded.has_albedo
    assert loaded.mouth_triangles.shape == (0, 3)
    assert loaded.sha256 == bare.sha256


def test_saving_again_gives_the_same_bytes(tmp_path, model):
    first, second = tmp_path / "a.h5", tmp_path / "b.h5"
    save_model(model, first)
    time.sleep(1.1)  # HDF5 stores whole seconds where it stores times
    save_model(load_model(first), second)
    assert first.read_bytes() == second.read_bytes()


def test_the_hash_is_readable_without_the_arrays(tmp_path, model):
    save_model(model, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5") as file:
        assert [file.attrs[key].decode() for key in ("kind", "sha256")] == [KIND, model.sha256]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, model, monkeypatch):
    path = tmp_path / "model.h5"
    save_model(model, path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_model(toy_model(seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_basis_is_compressed_a_mode_a_chunk(tmp_path, model):
    save_model(model, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5") as file:
        assert file["id_basis"].chunks == (1, *model.id_basis.shape[1:])
        assert file["triangles"].id.get_storage_size() < model.triangles.nbytes


def altered(path, **attributes):
    """Write attributes, and the digest of what there is then."""
    cut_seal(path)
    with h5py.File(path, "a") as file:
        for key, value in attributes.items():
            file.attrs[key] = value
    seal(path)


def cut_seal(path):
    content = path.read_bytes()
    assert content[-SEAL:].startswith(b"\nsha256 of ") and content.endswith(b"\n")
    path.write_bytes(content[:-SEAL])


def test_another_file_is_refused_with_its_kind(tmp_path, model):
    path = tmp_path / "model.h5"
    with pytest.raises(FileNotFoundError, match="no face model file .*model.h5; give a converted model, or 'open'"):
        load_model(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="is not HDF5; make one with `dualface face-model convert`"):
        load_model(path)
    with h5py.File(path, "w") as file:
        file["shape/model/mean"] = np.zeros(3)
    with pytest.raises(ValueError, match="an HDF5 file of another kind; make one with `dualface face-model convert`"):
        load_model(path)
    save_model(model, path)
    altered(path, kind="asmd")
    with pytest.raises(ValueError, match="and is a 'asmd'; make one"):
        load_model(path)
    save_model(model, path)
    altered(path, schema_version=2)
    with pytest.raises(ValueError, match="must have schema version 1, got 2; convert the model again"):
        load_model(path)
    save_model(model, path)
    cut_seal(path)
    with h5py.File(path, "a") as file:
        del file["mirror"]
    with pytest.raises(ValueError, match="must hold the array mirror, and does not; convert the model again"):
        load_model(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_named(tmp_path, model, part):
    path = tmp_path / "model.h5"
    save_model(model, path)
    content = path.read_bytes()
    path.write_bytes(content[:int(part * len(content))])
    with pytest.raises(ValueError, match="model.h5 is damaged or cut short .*; convert the model again"):
        load_model(path)


def flipped(content, place, bit=1):
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1:]


def test_any_flipped_bit_is_noticed_before_hdf5_sees_it(tmp_path, model, monkeypatch):
    path = tmp_path / "model.h5"
    save_model(model, path)
    content, hdf5 = path.read_bytes(), h5py.File
    monkeypatch.setattr("bfm.model_file.h5py.File", None)
    places = np.random.default_rng(0).integers(8, len(content) - SEAL, 200)  # HDF5's signature, and then
    for place in [*places.tolist(), len(content) - SEAL - 1, len(content) - 2, len(content) - 60]:
        path.write_bytes(flipped(content, place, 1 << place % 8))
        with pytest.raises(ValueError, match=r"model.h5 is damaged or cut short \(the bytes are not those that were"):
            load_model(path)
    monkeypatch.setattr("bfm.model_file.h5py.File", hdf5)
    for place in range(8):
        path.write_bytes(flipped(content, place))
        with pytest.raises(ValueError, match="is not HDF5; make one with"):
            load_model(path)


def test_a_flipped_bit_in_a_basis_of_an_older_version_is_noticed(tmp_path, model):
    path = tmp_path / "model.h5"
    save_model(model, path)
    cut_seal(path)
    with h5py.File(path) as file:
        chunk = file["id_basis"].id.get_chunk_info(2)
    path.write_bytes(flipped(path.read_bytes(), chunk.byte_offset + chunk.size // 2))
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_model(path)


def test_a_file_of_an_older_version_is_read(tmp_path, model):
    """Texts of any length, the format of 2010, and no digest."""
    write_as_before(tmp_path / "model.h5", model)
    loaded = load_model(tmp_path / "model.h5")
    assert loaded.sha256 == model.sha256
    assert [getattr(loaded, key) for key in ("name", "layout", "coefficients", "licence")] == [
        model.name, model.layout, model.coefficients, model.licence
    ]


def test_texts_lie_where_hdf5_has_checksums(tmp_path, model):
    texts = {"name": "née 顔", "licence": ""}
    save_model(replace(model, **texts), tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5") as file:
        ids = {key: file.attrs.get_id(key).get_type() for key in file.attrs}
        assert {key for key, kind in ids.items() if isinstance(kind, h5py.h5t.TypeStringID)} == ids.keys() - {
            "schema_version"
        }
        assert not any(isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str() for kind in ids.values())
        assert struct.unpack("<B", (tmp_path / "model.h5").read_bytes()[8:9]) == (3,)  # superblock
    loaded = load_model(tmp_path / "model.h5")
    assert {key: getattr(loaded, key) for key in texts} == texts


def linked(file):
    file["mirror"] = h5py.SoftLink("/landmarks")


def outside(file):
    file.create_dataset("mirror", (357,), "i4", external=[("of_others", 0, 1428)])


def virtual(file):
    layout = h5py.VirtualLayout((357,), "i4")
    layout[:] = h5py.VirtualSource("of_others", "x", (357,))
    file.create_virtual_dataset("mirror", layout)


def huge(file):
    file.create_dataset("mirror", (1 << 40,), "i4")


def with_holes(file):
    file.create_dataset("mirror", (1 << 40,), "i4", chunks=(1 << 20,), compression="gzip")[:1] = 0


def of_texts(file):
    file["mirror"] = ["a"]


def a_group(file):
    file.create_group("mirror")


@pytest.mark.parametrize("write, message", [
    (linked, "/mirror is elsewhere"), (outside, "mirror has 1428 bytes, of which the file holds "),
    (virtual, "mirror has 1428 bytes, of which the file holds 0"),
    (huge, "mirror has 4398046511104 bytes, of which the file holds 0"),
    (with_holes, "mirror is stored with 1 chunks instead of 1048576"),
    (of_texts, "mirror is no array of numbers as in a face model"),
    (a_group, "mirror is no array of numbers as in a face model"),
])
def test_what_the_file_does_not_hold_is_not_read(tmp_path, model, write, message):
    path = tmp_path / "model.h5"
    (tmp_path / "of_others").write_bytes(bytes(1428))
    save_model(model, path)
    cut_seal(path)
    with h5py.File(path, "a") as file:
        del file["mirror"]
        write(file)
    seal(path)
    with pytest.raises(ValueError, match=rf"model.h5 is damaged or cut short \({message}.*\); convert the model again"):
        load_model(path)
