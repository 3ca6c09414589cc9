import pickle

import numpy as np
import pytest
import torch
from toy import toy_model
from toy_asmd import write_toy_asmd

from asmgen.images import decode_image
from model.data import FaceDataset, batch_indices, default_workers, split_identities, step_generator
from model.loader import training_loader

SIZE = 64


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return write_toy_asmd(tmp_path_factory.mktemp("params"), model, 6, SIZE, "params")


def test_refuses_other_shards(model, folder, tmp_path):
    from asmgen.shards import write_shard

    write_shard(tmp_path / "shard-00000-of-00001.h5", [{"x": np.zeros(3)}], {"kind": "ftd", "schema_version": 1})
    with pytest.raises(ValueError, match="of kind 'asmd', version 1, got 'ftd'"):
        FaceDataset(tmp_path)


def test_builds_are_trained_on_together(model, folder, tmp_path):
    second = tmp_path / "second"
    write_toy_asmd(second, model, 2, SIZE)
    both, alone, other = FaceDataset([folder, second]), FaceDataset(folder), FaceDataset(second)
    assert len(both) == len(alone) + 2
    assert both.sources == alone.sources + other.sources
    for index in range(len(both)):
        expected = alone[index] if index < len(alone) else other[index - len(alone)]
        assert all(torch.equal(both[index][key], expected[key]) for key in expected)
    assert both.samples_sha256 not in (alone.samples_sha256, other.samples_sha256)
    assert np.array_equal(both.chart_uv, alone.chart_uv)


def test_builds_that_differ_are_not_mixed(model, folder, tmp_path):
    write_toy_asmd(tmp_path, model, 2, 2 * SIZE)
    with pytest.raises(ValueError, match=f"cannot be trained on together .*: size is {2 * SIZE} and not {SIZE}"):
        FaceDataset([folder, tmp_path])
    with pytest.raises(ValueError, match="name at least one folder"):
        FaceDataset([])


def test_batches_do_not_depend_on_workers(folder):
    dataset = FaceDataset(folder)
    indices = np.array([0, 2, 3, 5])

    def batches(workers, start, stop):
        return list(training_loader(dataset, indices, 3, 7, start, stop, workers))

    alone, helped = batches(0, 0, 4), batches(2, 0, 4)
    assert len(alone) == len(helped) == 4
    for ours, theirs in zip(alone, helped):
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for ours, theirs in zip(alone[2:], batches(0, 2, 4)):  # as after a resume
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not torch.equal(alone[0]["pose"], alone[1]["pose"])


def test_workers_end_in_peace_where_their_last_batches_are_not_taken(model, tmp_path, capfd):
    dataset = FaceDataset(write_toy_asmd(tmp_path, model, 4, SIZE, "dense"))
    batches = training_loader(dataset, np.arange(4), 800, 7, 0, 9, workers=2)
    next(batches)
    batches.close()
    assert capfd.readouterr().err == ""


def test_a_batch_is_its_samples_collated(model, tmp_path):
    """Against the definition: each field as stored, images decoded, channels first."""
    for encoding in ("params", "dense"):
        dataset = FaceDataset(write_toy_asmd(tmp_path / encoding, model, 6, SIZE, encoding))
        indices = [4, 0, 3]
        stored = [dataset.builds[0][index] for index in indices]
        batch = dataset.batch(indices)
        assert batch.keys() == stored[0].keys()
        for key, values in batch.items():
            expected = np.stack([
                decode_image(sample[key]).transpose(2, 0, 1) if key == "image" else sample[key] for sample in stored
            ])
            assert values.shape == expected.shape and values.numpy().dtype == expected.dtype
            assert np.array_equal(values.numpy(), expected)
            alone = dataset[3][key]
            assert torch.equal(alone, values[2]) and alone.dtype == values.dtype
        assert len({values.untyped_storage().data_ptr() for values in batch.values()}) == 1  # travels in one piece


def test_who_decodes_where_nothing_is_said(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 16)
    assert default_workers(on_gpu=True) == 8 and default_workers(on_gpu=False) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # of torchrun
    assert default_workers(on_gpu=True) == 3
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    assert default_workers(on_gpu=True) == 0


def test_dataset_can_be_pickled(folder):
    dataset = FaceDataset(folder)
    first = dataset[1]  # has opened the file
    again = pickle.loads(pickle.dumps(dataset))[1]
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_an_epoch_takes_every_sample_once():
    drawn = [index for step in range(10) for index in batch_indices(step, 20, 6, seed=1)]
    assert sorted(drawn[:20]) == sorted(drawn[20:40]) == sorted(drawn[40:60]) == list(range(20))
    assert drawn[:20] != drawn[20:40] != list(range(20))
    assert batch_indices(7, 20, 6, seed=1) == drawn[42:48]
    assert batch_indices(7, 20, 6, seed=2) != drawn[42:48]
    assert batch_indices(0, 2, 5, seed=0)[:2] != batch_indices(0, 2, 5, seed=0)[0] * 2  # fewer samples than a batch


def test_step_generators_differ_and_repeat():
    draws = {tuple(torch.rand(3, generator=step_generator(seed, step)).tolist()) for seed in (0, 1) for step in (0, 1)}
    assert len(draws) == 4
    assert torch.equal(torch.rand(3, generator=step_generator(5, 9)), torch.rand(3, generator=step_generator(5, 9)))


def test_split_keeps_copies_of_a_photo_together():
    sources = [
        f"{folder}/AFW_{photo}_1_{copy}" for photo in range(20) for folder in ("AFW", "AFW_Flip") for copy in range(3)
    ] + [f"AFLW2000/image{number:05d}" for number in range(20)]
    training, held = split_identities(sources, 0.25, 0)
    assert sorted([*training, *held]) == list(range(140))

    def photos(indices):
        return {sources[index].partition("/")[2].rpartition("_")[0] or sources[index] for index in indices}

    assert not photos(training) & photos(held) and len(photos(held)) == 10
    assert split_identities(sources, 0.25, 0)[1].tolist() == held.tolist()
    assert split_identities(sources, 0.25, 1)[1].tolist() != held.tolist()
    # a photo stays on its side when others are added
    fewer = split_identities(sources[:60], 0.25, 0)[1]
    assert len(fewer) == 12 or len(fewer) == 18
    assert len(split_identities(sources, 0, 0)[1]) == 0
    with pytest.raises(ValueError, match="1 identities, too few to hold out"):
        split_identities(sources[:3], 0.5, 0)
