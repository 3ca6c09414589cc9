"""Annotations: what must hold for any numbers in them, and any damage to their files."""

import io
import tempfile
from pathlib import Path

import numpy as np
import scipy.io
from bad_photos import ARRAYS, PICTURE
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from toy_tree import MODEL

from asmgen.landmark_files import read_landmarks, read_list
from asmgen.matfile import read_mat
from asmgen.rejection import SampleError
from asmgen.w300lp import (
    SampleEntry, placement_from_pose_para, pose_para_from_placement, read_annotation, read_placement,
)

TYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
values = st.one_of(
    hnp.arrays(st.sampled_from(TYPES), hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4)),
    st.text(st.characters(max_codepoint=0xffff, exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
)
names = st.from_regex("[a-zA-Z][a-zA-Z_0-9]{0,19}", fullmatch=True)


def saved(arrays: dict, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, do_compression=compressed)
    return file.getvalue()


def read(data: bytes, keys: tuple[str, ...]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.mat").write_bytes(data)
        return read_mat(Path(folder, "a.mat"), keys)


def same(found: dict, wanted: dict) -> None:
    for name, value in found.items():
        np.testing.assert_array_equal(value, wanted[name], strict=not isinstance(value, str))


@settings(max_examples=40)
@given(st.dictionaries(names, values, max_size=4), st.booleans(), st.floats(0, 1), st.integers(0, 255))
def test_any_arrays_and_texts_come_back_and_a_damaged_file_gives_no_others_of_another_shape(
    arrays, compressed, place, byte,
):
    data = saved(arrays, compressed)
    keys = tuple(arrays)
    found = read(data, keys)
    assert found.keys() == arrays.keys()
    same(found, arrays)
    for size in range(0, len(data), 12):
        try:
            found = read(data[:size], keys)
        except ValueError:
            continue
        assert found.keys() <= arrays.keys()  # cut between two arrays
        same(found, arrays)
    damaged = bytearray(data)
    damaged[int(place * (len(data) - 1))] = byte
    try:
        found = read(bytes(damaged), keys)
    except ValueError:
        pass
    else:
        assert found.keys() <= arrays.keys() and all(isinstance(value, (str, np.ndarray)) for value in found.values())


@given(
    st.tuples(*3 * [st.floats(-3, 3)]).map(np.array),
    st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000), st.floats(1e-4, 100)).map(np.array), st.integers(1, 9000),
)
def test_pose_para_and_placement_are_inverse(pose, position, height):
    pose_para = pose_para_from_placement(pose, position, height)
    assert pose_para.shape == (1, 7) and pose_para.dtype == np.float32
    for back, wanted in zip(placement_from_pose_para(pose_para, height), (pose, position)):
        np.testing.assert_allclose(back, wanted, rtol=2e-7, atol=2e-7 * 14_000)


odd = st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e300, 1e11, 1e-300, 0.0, -1.0])


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from(["Shape_Para", "Exp_Para", "Tex_Para", "Pose_Para", "pt3d_68", "Light_SH"]),
        st.tuples(st.integers(0, 300), odd, st.sampled_from(["f8", "f4", "i4", "u1"]), st.booleans()), min_size=1,
    ),
)
def test_no_number_gets_through_that_is_not_sensible(changes):
    """An annotation with any of its numbers replaced is rejected, or all is finite and of a usable size."""
    arrays = ARRAYS | {"Light_SH": np.arange(9.0)[None]}
    for key, (place, value, dtype, turned) in changes.items():
        array = np.array(arrays[key], np.float64)
        array.ravel()[place % array.size] = value
        with np.errstate(all="ignore"):
            arrays[key] = (array.T if turned else array).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mat")
        path.write_bytes(saved(arrays))
        entry = SampleEntry("a", Path(folder, "a.jpg"), path, None, "set", False)
        try:
            sample = read_annotation(entry, PICTURE, MODEL)
        except SampleError as error:
            assert str(error).isprintable() and ("; get the annotation anew" in str(error) or "; give " in str(error))
            return
        again = read_placement(entry, len(PICTURE))
    np.testing.assert_array_equal(again, (sample.pose, sample.position))
    for numbers, largest in (
        (sample.id_coeffs, 50), (sample.exp_coeffs, 50), (sample.pose, 7), (sample.position, 1e15),
        (sample.albedo_coeffs, 1e12), (sample.light, 1e12), (sample.landmarks, 1e12),
    ):
        assert numbers.dtype == np.float32 and np.abs(numbers).max() <= largest
    assert sample.position[2] > 0


points = hnp.arrays(np.float32, (68, 2), elements=st.floats(-999, 999, width=16))


@settings(max_examples=40)
@given(points)
def test_landmarks_are_the_same_from_every_kind_of_file(points):
    with tempfile.TemporaryDirectory() as folder:
        contents = {
            "a.pts": ("n_points: 68\n{\n" + "\n".join(f"{x} {y}" for x, y in points + 1) + "\n}\n").encode(),
            "a.txt": "\n".join(f"{x}, {y}" for x, y in points).encode(),
            "a_pts.mat": saved({"pts_3d": points + 1}),
            "a.mat": saved({"pt3d_68": np.vstack([points.T + 1, points[:, 0]])}),
        }
        for name, content in contents.items():
            Path(folder, name).write_bytes(content)
        np.save(Path(folder, "a.npy"), points)
        Path(folder, "list.csv").write_text("photo," + ",".join(map(str, points.ravel())) + "\n")
        for name in (*contents, "a.npy"):
            np.testing.assert_allclose(read_landmarks(Path(folder, name)), points, atol=1e-3, err_msg=name)
        assert read_list(Path(folder, "list.csv"), (136,))[0] == ["photo"]
        np.testing.assert_array_equal(read_list(Path(folder, "list.csv"), (136,))[1], points.reshape(1, 136))
