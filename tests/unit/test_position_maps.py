"""Position maps against what they are defined to be, texel by texel."""

import numpy as np
import pytest

from asmgen.position_maps import (
    MOST_TEXELS, landmark_texels, landmarks_in_crop, position_map, position_map_beside, read_landmark_texels,
    read_position_map, vertices_in_crop,
)
from bfm.pose import rotation_matrix

SIDE = 9


def test_each_texel_holds_its_place_in_the_crop():
    """x right, y down, z toward the camera from the least on; nothing outside the chart."""
    rng = np.random.default_rng(0)
    places, inside = rng.normal(0, 50, (3, SIDE, SIDE)).astype(np.float32), np.arange(SIDE**2).reshape(SIDE, -1) % 3 > 0
    pose, position = np.array([0.2, -0.7, 0.3], np.float32), np.array([30, 40, 0.5], np.float32)
    found = position_map(places, inside.astype(np.uint8), pose, position)
    assert (found.shape, found.dtype) == ((SIDE, SIDE, 3), np.float32)
    turned = np.einsum("ij,jrc->rci", 0.5 * rotation_matrix(pose.astype(np.float64)), places)
    wanted = turned * [1, -1, 1] + [30, 40, -turned[inside][:, 2].min()]
    np.testing.assert_allclose(found[inside], wanted[inside], rtol=1e-5, atol=1e-4)
    assert not found[~inside].any() and found[inside][:, 2].min() == 0


def test_vertices_are_read_between_texels():
    """A linear map is read exactly; v goes up, rows go down; corners are texels."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    placed = np.stack([columns, rows, 3 * columns - 2 * rows], -1)
    uv = np.array([[0, 0], [1, 1], [0.5, 0.25], [0.3, 0.9]])
    x, y = uv[:, 0] * (SIDE - 1), (1 - uv[:, 1]) * (SIDE - 1)
    np.testing.assert_allclose(vertices_in_crop(placed, uv), np.stack([x, y, 3 * x - 2 * y], 1), atol=1e-5)
    texels = landmark_texels(uv, np.array([3, 0, 1]), SIDE)
    assert texels.dtype.kind == "i"
    np.testing.assert_array_equal(texels, [[2, 0, 8], [1, 8, 0]])  # columns, rows
    found = landmarks_in_crop(placed, texels)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[2, 1], [0, 8], [8, 0]])
    with pytest.raises(ValueError, match=f"in the map of side {SIDE}, got {SIDE}"):
        landmarks_in_crop(placed, np.array([[SIDE], [0]]))


def test_maps_and_texels_are_read_as_they_are(tmp_path):
    placed = np.random.default_rng(0).normal(size=(4, 4, 3))
    for name in ("a.npy", "b_uv_posmap.npy", "b.npy"):
        np.save(tmp_path / name, placed if name[0] == "a" else placed.astype(np.float32))
    found = read_position_map(tmp_path / "a.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, placed.astype(np.float32))
    assert position_map_beside(tmp_path / "a.jpg") == tmp_path / "a.npy"
    assert position_map_beside(tmp_path / "b.jpg") == tmp_path / "b_uv_posmap.npy"
    with pytest.raises(FileNotFoundError, match="c.jpg has no position map; put c_uv_posmap.npy or c.npy beside it"):
        position_map_beside(tmp_path / "c.jpg")
    for wrong in (placed[..., 0], placed[..., :2], placed[:3], placed[None]):
        np.save(tmp_path / "a.npy", wrong)
        with pytest.raises(ValueError, match=r"must hold a position map of shape \(S, S, 3\)"):
            read_position_map(tmp_path / "a.npy")
    texels = np.arange(136).reshape(2, 68) * 30
    texels[1, 3] = MOST_TEXELS - 1
    path = tmp_path / "uv_kpt_ind.txt"
    path.write_text("\n".join(" ".join(map(str, row)) for row in texels) + "\n\n")
    assert read_landmark_texels(path).dtype.kind == "i"
    np.testing.assert_array_equal(read_landmark_texels(path), texels)
    texels[1, 3] = MOST_TEXELS
    path.write_text("\n".join(" ".join(map(str, row)) for row in texels))
    with pytest.raises(ValueError, match="two lines of 68 texels, columns and rows"):
        read_landmark_texels(path)
