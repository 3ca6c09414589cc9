"""What a build draws, tells its photos by, and says at its end."""

from pathlib import Path

import numpy as np
import pytest
from toy_tree import MODEL, write_tree

from asmgen.build import build_asmd
from asmgen.build_folder import SCRATCH
from asmgen.pipeline import BuildSummary, PhotoPass, count_reasons, photo_settings, select
from asmgen.w300lp import SampleEntry


def entries(folder: Path, count: int = 6) -> list[SampleEntry]:
    """Photos of 5, 6, ... bytes, each with an annotation of 3; the first also with landmarks."""
    folder.mkdir(exist_ok=True)
    found = []
    for index in range(count):
        photo, parameters, points = (folder / f"{index}{ending}" for ending in (".jpg", ".mat", "_pts.mat"))
        photo.write_bytes(bytes(5 + index)), parameters.write_bytes(bytes(3)), points.write_bytes(bytes(2))
        found.append(SampleEntry(str(index), photo, parameters, None if index else points, "AFW", False))
    return found


def test_a_draw_is_of_its_seed_and_in_order():
    """Each photo is as likely as the others."""
    photos = list(range(20))
    assert select(photos, None, 3) == photos == select(photos, 20, 3)
    drawn = [select(photos, 5, seed) for seed in range(400)]
    assert drawn[7] == select(photos, 5, 7) and len({tuple(some) for some in drawn}) > 350
    assert all(some == sorted(set(some)) and len(some) == 5 for some in drawn)
    assert np.abs(np.bincount(np.ravel(drawn), minlength=20) - 100).max() < 35
    for count in (0, 21, -1):
        with pytest.raises(ValueError, match=f"count must be at most the 20 photos found, got {count}"):
            select(photos, count, 0)
    assert len(select(photos, 1, 0)) == 1


def test_photos_are_told_by_names_and_sizes_wherever_they_lie(tmp_path):
    known = photo_settings(entries(tmp_path / "a"))
    assert known["photos"] == 6 and known == photo_settings(entries(tmp_path / "b"))
    assert len(known["photos_sha256"]) == 64
    found = [known["photos_sha256"]]
    for number, name in enumerate(("0.jpg", "5.jpg", "3.mat", "0_pts.mat")):
        some = entries(tmp_path / f"c{number}")
        (tmp_path / f"c{number}" / name).write_bytes(bytes(99))
        found.append(photo_settings(some)["photos_sha256"])
    found.append(photo_settings(entries(tmp_path / "d")[::-1])["photos_sha256"])
    some = entries(tmp_path / "e")
    (tmp_path / "e/0.jpg").unlink()  # as of a link that leads nowhere
    found.append(photo_settings(some)["photos_sha256"])
    assert len(set(found)) == len(found)


def test_reasons_are_counted_the_most_frequent_first():
    rejected = [("a", "no light: 3"), ("b", "no crop: x: y"), ("c", "no crop"), ("d", "no crop: z"), ("e", "dark")]
    assert list(count_reasons(rejected).items()) == [("no crop", 3), ("no light", 1), ("dark", 1)]
    assert count_reasons([]) == {}


def test_the_summary_says_what_there_is_to_say():
    least = BuildSummary("asmd", 0, {}, 0, np.nan, np.nan, {}, 0, 0, (), 0.0)
    assert str(least) == "built 0 ASMD samples, rejected 0\n0 samples in 0.0 s, 0.0 images/s"
    most = BuildSummary(
        "ftd", 12, {"no light": 2, "no crop": 1}, 3, 1.234, 0.567, {"yaw": 12.345, "light": 0.1}, 8, 30,
        ("a.h5", "b.h5"), 4.0, (least,),
    )
    assert str(most) == (
        "built 12 FTD samples, rejected 3\n  2 no light\n  1 no crop\n3 samples have map values outside [-1, 1]\n"
        "mean yaw 12.3, light 0.1\nlandmarks 1.23 px from their labels in the crop, 0.57 % of the face box\n"
        f"made again, as they were damaged: a.h5, b.h5\n8 samples in 4.0 s, 7.5 images/s\n{least}"
    )


def test_texels_of_large_maps_have_room(tmp_path):
    """Their numbers leave the range of 16 bits."""
    write_tree(tmp_path, {"AFW": 1})
    photos = PhotoPass(
        tmp_path, MODEL, size=200, encoding="params", chart="default", shard_size=1, seed=0, count=None, refit=False
    )
    texels, weights = (photos.constants[f"vertex_{name}"] for name in ("texels", "weights"))
    assert (texels.dtype, weights.dtype) == (np.int32, np.float32) and 2**15 < texels.max() < 200**2
    columns, rows = (weights * [texels % 200, texels // 200]).sum(2)
    np.testing.assert_allclose(np.stack([columns, rows], 1), photos.chart.vertex_pixels, atol=1e-3)


def test_what_lasts_as_long_as_a_build_is_named_so_that_the_next_one_removes_it(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_, **__):
        left.extend(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
        raise Killed

    left = []
    write_tree(tmp_path / "photos", {"AFW": 1})
    monkeypatch.setattr("asmgen.pipeline.run_tasks", killed)
    with pytest.raises(Killed):
        build_asmd(tmp_path / "photos", tmp_path / "out", model=MODEL, size=16, encoding="params")
    (scratch,) = left
    assert scratch.startswith(SCRATCH) and [path.name for path in (tmp_path / "out").iterdir()] == ["build.json"]
