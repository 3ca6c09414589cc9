import numpy as np
import pytest
import scipy.io

from asmgen.landmark_files import read_landmarks, read_list


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(0, 200, (68, 2)).round(3)


def test_every_format_gives_the_same_points(points, tmp_path):
    lines = "\n".join(f"{x} {y}" for x, y in points + 1)
    (tmp_path / "a.pts").write_text(f"version: 1\nn_points:  68\n{{\n{lines}\n}}\n")
    scipy.io.savemat(tmp_path / "a_pts.mat", {"pts_3d": points + 1, "pts_2d": points + 50})
    in_depth = np.vstack([(points + 1).T, np.zeros(68)])
    scipy.io.savemat(tmp_path / "pt3d.mat", {"pt3d_68": in_depth, "pt2d": np.zeros((2, 21))})
    scipy.io.savemat(tmp_path / "pt2d.mat", {"pt2d": (points + 1).T, "pts_2d": points + 50})
    scipy.io.savemat(tmp_path / "pts_2d.mat", {"pt2d": np.zeros((2, 21)), "pts_2d": points + 1})
    np.save(tmp_path / "a.npy", points)
    np.savetxt(tmp_path / "a.txt", points)
    np.savetxt(tmp_path / "a.csv", points, delimiter=",")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_allclose(read_landmarks(path), points, atol=1e-9, err_msg=path.name)


def test_what_is_not_68_points(points, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_landmarks(tmp_path / "none.pts")
    np.save(tmp_path / "a.npy", points[:5])
    with pytest.raises(ValueError, match=r"68 finite points \(68, 2\), got shape \(5, 2\)"):
        read_landmarks(tmp_path / "a.npy")
    np.savetxt(tmp_path / "a.txt", np.where(np.arange(68)[:, None] == 3, np.nan, points))
    with pytest.raises(ValueError, match="68 finite points"):
        read_landmarks(tmp_path / "a.txt")
    for name, content in (("a.pts", "68 points"), ("b.pts", "{ 1 two }"), ("a.mat", "matlab"), ("b.txt", "1 2\n3\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match="must hold 68 landmarks, but cannot be read"):
            read_landmarks(tmp_path / name)
    (tmp_path / "empty.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="empty.npy must hold 68 landmarks, but cannot be read"):
        read_landmarks(tmp_path / "empty.npy")
    scipy.io.savemat(tmp_path / "c.mat", {"pts_2d": points[:67]})
    with pytest.raises(ValueError, match="none of pts_3d"):
        read_landmarks(tmp_path / "c.mat")


@pytest.mark.parametrize("comma", [False, True])
def test_lists_are_read_as_any_program_writes_them(tmp_path, comma):
    """With a byte order mark, other ends of lines, empty lines, a header or none; names are those in the file."""
    numbers = np.array([[1, 2, 3.5, -4], [5, 6, 7, 8e2]], np.float32)
    rows = [["é.jpg", "1", "2", "3.5", "-4"], ["b b.jpg" if comma else "b.jpg", "5", "6", "7", "8e2"]]
    lines = [(" , " if comma else "  ").join(row) for row in rows]
    path = tmp_path / "list.txt"
    for first in ([], ["2"], ["2", "name,a,b,c,d" if comma else "name a b c d"]):
        for mark in (b"", b"\xef\xbb\xbf"):
            path.write_bytes(mark + "\r\n".join([*first, lines[0], "", lines[1], " ", ""]).encode())
            names, found = read_list(path, (4, 10))
            assert names == [row[0] for row in rows] and found.dtype == np.float32
            np.testing.assert_array_equal(found, numbers)
