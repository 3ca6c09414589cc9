"""Faces placed in batches."""

import numpy as np
import pytest
import scipy.io
from PIL import Image
from toy_tree import BAD, FACE, write_tree

from asmgen import faces
from asmgen.faces import FacePlacer
from asmgen.photometry import Photometry
from asmgen.rejection import SampleError
from asmgen.w300lp import find_samples, read_sample

SETS = {"AFW": 6, "HELEN": 3}


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Nine photos, of which three are damaged."""
    root = tmp_path_factory.mktemp("photos")
    write_tree(root, SETS)
    return find_samples(root)


@pytest.mark.parametrize("refit", [False, True])
def test_a_batch_is_its_faces_one_by_one(entries, refit):
    """In order, with each damage in its place; but for rounding, which hangs on the size of a product."""
    placer = FacePlacer(FACE, 32, refit)
    together, alone = placer.place_batch(entries), [placer.place_batch([entry])[0] for entry in entries]
    assert len(together) == len(entries)
    damaged = 0
    for entry, ours, single in zip(entries, together, alone):
        if isinstance(single, SampleError):
            assert str(ours) == str(single) and (refit or single.kind == BAD[entry.source][0])
            damaged += 1
            continue
        assert ours.fields["source"] == entry.source and ours.fields["image"] == single.fields["image"]
        np.testing.assert_array_equal(ours.photo, single.photo)
        for key in single.fields.keys() - {"source", "image"}:
            np.testing.assert_allclose(ours.fields[key], single.fields[key], rtol=1e-4, atol=1e-4, err_msg=key)
    assert damaged == (2 if refit else 3)


def test_a_batch_ends_where_memory_does(entries, monkeypatch):
    placer = FacePlacer(FACE, 32, False)
    monkeypatch.setattr(faces, "BATCH_PIXELS", 0)
    assert len(placer.place_batch(entries)) == 1
    assert len(placer.place_batch(entries[3:])) == 2  # a photo that cannot be read holds nothing


def test_a_black_photo_is_left_out_of_its_batch(tmp_path):
    write_tree(tmp_path, {"AFW": 3})
    entries = find_samples(tmp_path)
    placer = FacePlacer(FACE, 32, False)
    before = placer.place_batch(entries)
    dark = next(row for row, face in enumerate(before) if not isinstance(face, SampleError))
    Image.fromarray(before[dark].photo * 0).save(entries[dark].image_path)
    for row, (face, now) in enumerate(zip(before, placer.place_batch(entries))):
        if row == dark:
            assert now.kind == "no light" and "got 0;" in now.detail
        elif not isinstance(face, SampleError):
            np.testing.assert_allclose(now.fields["light"], face.fields["light"], rtol=1e-4, atol=1e-4)
            assert now.fields["image"] == face.fields["image"]


def test_colours_are_annotated_or_fitted_whatever_the_others_of_a_batch_have(tmp_path):
    """The first photo's light is known, the second's albedo is not, the third has both to be found as usual."""
    write_tree(tmp_path, {"AFW": 3})
    entries = find_samples(tmp_path)
    given = np.linspace(2, -1, 9)
    for entry, changes in zip(entries, ({"Light_SH": given}, {"Tex_Para": None}, {})):
        arrays = scipy.io.loadmat(entry.parameters_path) | changes
        kept = {key: array for key, array in arrays.items() if key[0] != "_" and array is not None}
        scipy.io.savemat(entry.parameters_path, kept)
    placer, photometry = FacePlacer(FACE, 32, False), Photometry(FACE)
    fields = [face.fields for face in placer.place_batch(entries)]
    samples = [read_sample(entry, FACE) for entry in entries]
    np.testing.assert_array_equal(fields[0]["light"], given.astype(np.float32))
    for index in (0, 2):
        np.testing.assert_array_equal(fields[index]["albedo_coeffs"], samples[index].albedo_coeffs)
    for index, sample in enumerate(samples):
        geometry = sample.image, sample.id_coeffs, sample.exp_coeffs
        place = sample.pose, sample.position
        if index == 1:
            albedo_coeffs, light, residual = photometry.fit_albedo_and_light(*geometry, *place)
            np.testing.assert_allclose(fields[1]["albedo_coeffs"], albedo_coeffs, atol=1e-4)
        else:
            light, residual = photometry.fit_light(*geometry, sample.albedo_coeffs, *place)
        if index:
            np.testing.assert_allclose(fields[index]["light"], light, atol=1e-4)
        assert fields[index]["light_residual"] == pytest.approx(residual, rel=1e-3) and residual < 0.02
