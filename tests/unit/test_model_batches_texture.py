import dataclasses

import numpy as np
import pytest
import torch
from toy import toy_model
from toy_asmd import write_toy_asmd
from toy_ftd import write_toy_ftd

from bfm.charts import make_chart
from model.batches import TextureBatch, TexturePreparer, augment_texture, chart_asymmetry, prepare_landmarks
from model.config import NO_AUGMENTATION, Augmentation
from model.data import LANDMARKS, TEXTURE, FaceDataset, face_in_chart, step_generator
from texgen.ftd import FtdReader

SIZE = 32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    return {
        encoding: write_toy_ftd(tmp_path_factory.mktemp(encoding), model, 5, SIZE, encoding)
        for encoding in ("dense", "params")
    }


def prepared(folder, model, *augmented):
    dataset = FaceDataset(folder, TEXTURE)
    preparer = TexturePreparer(*face_in_chart(dataset.attributes, model, dataset.chart_uv), dataset.attributes, CPU)
    return preparer(torch.utils.data.default_collate([dataset[index] for index in range(len(dataset))]), *augmented)


def random_batch(seed=0, count=6, size=16):
    generator = torch.Generator().manual_seed(seed)
    inside = torch.zeros(1, 1, size, size, dtype=torch.bool)
    inside[..., 1:-1, 2:-2] = True
    inside = inside.expand(count, -1, -1, -1)
    pictures = torch.rand(3, count, 3, size, size, generator=generator) * 0.5 + 0.2
    visible = (torch.rand(count, 1, size, size, generator=generator) < 0.5) & inside
    return TextureBatch(pictures[0], pictures[1] * inside, pictures[2] * inside, visible, inside)


def only(**amounts):
    return dataclasses.replace(NO_AUGMENTATION, **amounts)


@pytest.mark.parametrize("encoding", ("dense", "params"))
def test_batches_hold_what_the_reader_gives(model, folders, encoding):
    batch, reader = prepared(folders[encoding], model), FtdReader(folders[encoding], model)
    for index in range(len(reader)):
        sample = reader.shards[index]
        for found, expected in (
            (batch.linear_albedo, reader.linear_albedo(sample)), (batch.albedo, reader.albedo(sample)),
        ):
            np.testing.assert_allclose(found[index].numpy().transpose(1, 2, 0), expected, atol=1e-6)
        np.testing.assert_array_equal(batch.visible[index, 0], reader.mask(sample))
        np.testing.assert_array_equal(batch.inside[index, 0], reader.shards.constants["mask"])
    assert batch.albedo.min() == 0 and batch.albedo.max() <= 1 and not batch.inside.all()


def test_dense_and_params_give_the_same_linear_albedo(model, folders):
    dense, params = (prepared(folders[encoding], model) for encoding in ("dense", "params"))
    difference = (dense.linear_albedo - params.linear_albedo).abs()
    assert 0 < difference.max() <= 0.5 / 255 + 1e-6
    assert torch.equal(dense.albedo, params.albedo) and torch.equal(dense.image, params.image)


def test_a_model_without_texture_has_its_mean(model, tmp_path):
    count = len(model.mean_shape)
    grey = dataclasses.replace(
        model, albedo_basis=np.zeros((0, count, 3), np.float32), albedo_stddev=np.zeros(0, np.float32)
    )
    chart = make_chart(grey, "cylindrical", SIZE)
    preparer = TexturePreparer(grey.face_only(), chart, {"encoding": "params", "lit": False}, CPU)
    raw = {
        "image": torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8), "mask": torch.zeros(2, SIZE, SIZE),
        "albedo_map": torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8), "albedo_coeffs": torch.zeros(2, 0),
    }
    expected = torch.tensor([0.7, 0.5, 0.4]).view(3, 1, 1) * torch.tensor(chart.mask)
    torch.testing.assert_close(preparer(raw).linear_albedo, expected.expand(2, -1, -1, -1))


def test_extreme_coefficients_stay_colours(model, folders):
    dataset = FaceDataset(folders["params"], TEXTURE)
    preparer = TexturePreparer(*face_in_chart(dataset.attributes, model, dataset.chart_uv), dataset.attributes, CPU)
    raw = torch.utils.data.default_collate([dataset[0], dataset[1]])
    linear = preparer({**raw, "albedo_coeffs": raw["albedo_coeffs"] * 100}).linear_albedo
    assert linear.min() == 0 and linear.max() == 1


def test_all_of_a_triplet_is_mirrored_together():
    batch = random_batch()
    seen = augment_texture(batch, only(flip=0.5), step_generator(0, 0))
    flipped = 0
    for index in range(len(batch.image)):
        is_flipped = torch.allclose(seen.image[index], batch.image[index].flip(-1), atol=1e-4)
        flipped += is_flipped
        for ours, theirs in zip(seen, batch):
            expected = theirs[index].flip(-1) if is_flipped else theirs[index]
            torch.testing.assert_close(ours[index], expected, atol=1e-4, rtol=0)
    assert 0 < flipped < len(batch.image)


def test_where_the_face_lies_does_not_change_its_albedo():
    batch = random_batch()
    seen = augment_texture(batch, only(rotation=30, scale=0.2, shift=0.1), step_generator(0, 1))
    assert all((seen.image - batch.image).abs().amax((1, 2, 3)) > 0.1)
    for ours, theirs in zip(seen[1:], batch[1:]):
        torch.testing.assert_close(ours, theirs)


def test_brightness_is_of_the_light_and_tint_of_the_skin():
    batch = random_batch()
    seen = augment_texture(batch, only(brightness=0.2), step_generator(0, 2))
    gain = (seen.image / batch.image).mean((1, 2, 3))
    torch.testing.assert_close(seen.image, batch.image * gain.view(-1, 1, 1, 1), atol=1e-4, rtol=1e-4)
    assert (gain - 1).abs().max() > 0.05
    torch.testing.assert_close(seen.albedo, batch.albedo)
    torch.testing.assert_close(seen.linear_albedo, batch.linear_albedo)
    # I_a that was not divided by the light is as bright as the photo
    seen = augment_texture(batch, only(brightness=0.2), step_generator(0, 2), lit=True)
    torch.testing.assert_close(seen.albedo, batch.albedo * gain.view(-1, 1, 1, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen.linear_albedo, batch.linear_albedo)
    # light times albedo stays the photo, whatever the skin's colour becomes
    shading = torch.rand(6, 1, 16, 16) * 0.5 + 0.5
    lit = batch._replace(image=batch.albedo * shading, linear_albedo=batch.albedo)
    seen = augment_texture(lit, only(tint=0.1, saturation=0.3), step_generator(0, 3))
    torch.testing.assert_close(seen.image, seen.albedo * shading, atol=1e-4, rtol=1e-4)
    assert (seen.albedo - lit.albedo).abs().max() > 0.03
    assert torch.equal(seen.linear_albedo, seen.albedo)


def test_shards_with_the_photos_light(model, folders):
    dataset = FaceDataset(folders["params"], TEXTURE)
    face, chart = face_in_chart(dataset.attributes, model, dataset.chart_uv)
    raw = torch.utils.data.default_collate([dataset[0], dataset[1]])
    for lit in (False, True):
        preparer = TexturePreparer(face, chart, {**dataset.attributes, "lit": lit}, CPU)
        plain, seen = preparer(raw), preparer(raw, only(brightness=0.2), step_generator(0, 2))
        assert torch.equal(seen.albedo, plain.albedo) is not lit
        torch.testing.assert_close(seen.linear_albedo, plain.linear_albedo)


def test_outside_the_chart_stays_empty():
    seen = augment_texture(random_batch(), Augmentation(), step_generator(0, 4))
    for maps in (seen.linear_albedo, seen.albedo):
        assert (maps[~seen.inside.expand_as(maps)] == 0).all()
    assert not (seen.visible & ~seen.inside).any()


def test_no_change_is_the_identity():
    batch = random_batch()
    for ours, theirs in zip(augment_texture(batch, NO_AUGMENTATION, step_generator(0, 5)), batch):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_chart_that_is_not_symmetric_is_not_mirrored(model, folders):
    dataset = FaceDataset(folders["params"], TEXTURE)
    face, chart = face_in_chart(dataset.attributes, model, dataset.chart_uv)
    assert chart_asymmetry(chart, face.mirror) < 1e-3
    shifted = dataclasses.replace(chart, uv=chart.uv + np.float32([0.75 / (SIZE - 1), 0]))
    assert chart_asymmetry(shifted, face.mirror) == pytest.approx(1.5, abs=1e-4)  # a vertex one way, its twin the other
    raw = torch.utils.data.default_collate([dataset[index] for index in range(5)])
    for used, mirrors in ((chart, True), (shifted, False)):
        preparer = TexturePreparer(face, used, dataset.attributes, CPU)
        assert preparer.mirrors is mirrors
        plain, seen = preparer(raw), preparer(raw, only(flip=1.0), step_generator(0, 6))
        torch.testing.assert_close(seen.albedo, plain.albedo.flip(-1) if mirrors else plain.albedo)


def test_what_is_read(folders, model, tmp_path):
    assert FaceDataset(folders["dense"], TEXTURE)[0].keys() == {"image", "albedo_map", "mask", "linear_albedo_map"}
    assert FaceDataset(folders["params"], TEXTURE)[0].keys() == {"image", "albedo_map", "mask", "albedo_coeffs"}
    with pytest.raises(ValueError, match="encoding is params and not dense"):
        FaceDataset([folders["dense"], folders["params"]], TEXTURE)
    with pytest.raises(ValueError, match="of kind 'ftd', version 1, got 'asmd', version 1; make them with `dualface "
                                         "build ftd`"):
        FaceDataset(write_toy_asmd(tmp_path, model, 2), TEXTURE)


def test_landmarks_are_read_from_either_kind(folders, model, tmp_path):
    asmd = write_toy_asmd(tmp_path, model, 3, SIZE)
    both = FaceDataset([asmd, folders["dense"], folders["params"]], LANDMARKS)
    assert len(both) == 13
    for index in range(3):  # the same faces, drawn by the same seeds
        assert both[index].keys() == {"image", "landmarks"}
        for other in (index + 3, index + 8):
            assert all(torch.equal(both[index][key], both[other][key]) for key in both[index])
    raw = torch.utils.data.default_collate([both[index] for index in range(3)])
    plain, seen = prepare_landmarks(raw, CPU), prepare_landmarks(raw, CPU, only(flip=1.0), step_generator(0, 7))
    torch.testing.assert_close(seen.image, plain.image.flip(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.landmarks[:, 27, 0], SIZE - 1 - plain.landmarks[:, 27, 0], atol=1e-4, rtol=0)
