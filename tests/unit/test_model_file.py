"""The face model file: exact, reproducible, whole or absent, and clear about what it is not."""

import os
import time
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest

from bfm.model_file import KIND, load_model, save_model
from toy import toy_model


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
        assert (file.attrs["kind"], file.attrs["sha256"]) == (KIND, model.sha256)


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
    with h5py.File(path, "a") as file:
        for key, value in attributes.items():
            file.attrs[key] = value


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


def test_a_flipped_bit_in_a_basis_is_noticed(tmp_path, model):
    path = tmp_path / "model.h5"
    save_model(model, path)
    with h5py.File(path) as file:
        chunk = file["id_basis"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_model(path)
