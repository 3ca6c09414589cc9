"""Sheets and tables of textures, and of what was left out: what is drawn where."""

import re
from dataclasses import asdict, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import binary_erosion
from toy import toy_model
from toy_tree import MODEL, write_tree
from tqdm import tqdm

from asmgen.images import decode_image, encode_image
from asmgen.shards import ShardSet, ShardWriter
from asmgen.sheets import GAP, HEADING, STRIP, THUMBNAIL, TILE, rejected_sheet
from bfm.model_file import save_model
from cli.main import main
from texgen.build import build_ftd
from texgen.ftd import FtdReader
from texgen.inspect import ftd_sheet, ftd_statistics, inspector
from texgen.thresholds import Selection

ALL = Selection(**dict.fromkeys(asdict(Selection())))
UNREAD = ("unreadable image", "damaged annotation", "no annotation")  # photos without a crop
QUIET = {"size": 64, "progress": partial(tqdm, disable=True)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Textures of all photos, of those that look ahead, ASMD beside them, and the model's file."""
    root = tmp_path_factory.mktemp("inspect")
    write_tree(root / "tree", {"AFW": 6, "HELEN": 5})
    save_model(MODEL, root / "model.h5")
    build_ftd(root / "tree", root / "all", MODEL, selection=ALL, asmd_dir=root / "asmd", **QUIET)
    build_ftd(root / "tree", root / "lit", MODEL, selection=ALL, lit=True, encoding="params", **QUIET)
    build_ftd(root / "tree", root / "some", MODEL, selection=replace(ALL, max_yaw=20.0), **QUIET)
    return {name: root / name for name in ("tree", "all", "lit", "some", "asmd", "model.h5")}


def pictures(sheet: Image.Image, row: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Tiles and strips of a row, in [0, 1]."""
    pixels = np.asarray(sheet, float) / 255
    top = HEADING + row * (TILE + STRIP + 2 * GAP)
    below = top + TILE + GAP // 2
    lefts = [GAP + column * (TILE + GAP) for column in range(6)]
    return (
        [pixels[top:top + TILE, left:left + TILE] for left in lefts],
        [pixels[below:below + STRIP, left:left + TILE] for left in lefts],
    )


def thumbnails(strip: np.ndarray) -> list[np.ndarray]:
    """The three pictures of a strip."""
    return [strip[:, left:left + STRIP] for left in (0, (TILE - STRIP) // 2, TILE - STRIP)]


def enlarged(texels: np.ndarray, side: int = TILE) -> np.ndarray:
    """(S, S, 3) or (S, S) values as the sheet shows them."""
    texels = np.clip(texels if texels.ndim == 3 else texels[..., None].repeat(3, -1), 0, 1)
    return np.asarray(Image.fromarray(np.rint(texels * 255).astype(np.uint8)).resize((side, side)), float) / 255


def test_sheet_shows_the_triplet_the_mask_and_the_light(folders):
    """Every tile against the maps; a filled texel is blue; I_a lit and drawn into the crop is the photo's face."""
    reader = FtdReader(folders["all"])
    sheet = ftd_sheet(folders["all"], [2, -1], MODEL)
    assert sheet.size == (6 * (TILE + GAP) + GAP, HEADING + 2 * (TILE + STRIP + 2 * GAP))
    for row, index in enumerate((2, len(reader) - 1)):
        sample = reader.shards[index]
        tiles, strips = pictures(sheet, row)
        crop, mask = decode_image(sample["image"]) / 255, reader.mask(sample)
        linear, albedo = reader.linear_albedo(sample), reader.albedo(sample)
        assert np.abs(tiles[0] - enlarged(crop)).mean() < 0.01
        for tile, wanted in ((tiles[1], linear), (tiles[2], albedo)):
            np.testing.assert_allclose(tile, enlarged(wanted), atol=1.01 / 255)
        chart = reader.shards.constants["mask"]
        filled, seen = (binary_erosion(area, iterations=3).repeat(4, 0).repeat(4, 1) for area in (chart & ~mask, mask))
        assert np.abs(tiles[3] - tiles[2])[seen].max() < 0.01
        blueness = (tiles[3] - tiles[2])[filled]
        assert (blueness[:, 2] - blueness[:, 0]).min() > 0.1
        difference = thumbnails(strips[3])[2]
        assert np.abs(difference - enlarged((albedo - linear) * mask[..., None] + 0.5, STRIP)).mean() < 0.02
        _, lit_linear, lit = thumbnails(strips[4])
        shading = tiles[4][..., 0] * 1.5
        for thumbnail, texels in ((lit_linear, linear), (lit, albedo)):
            assert np.abs(thumbnail - enlarged(enlarged(texels) * shading[..., None], STRIP)).mean() < 0.02
        relit, photo = thumbnails(strips[5])[2], enlarged(crop, STRIP)
        drawn = np.abs(relit - photo).max(axis=-1)
        assert drawn.mean() < 0.02
    assert np.abs(pictures(sheet, 0)[0][2] - pictures(sheet, 1)[0][2]).mean() > 0.01


RED, BLUE = np.array([0.8, 0.1, 0.1]), np.array([0.2, 0.3, 0.9])


def painted_sheet(folders, path, linear, albedo, lit=False) -> tuple[dict, list, list]:
    """A sample whose I_u and I_a are given, (64, 64, 3), and the pictures of its sheet."""
    shards = ShardSet(folders["all"])
    sample, chart = shards[0], shards.constants["mask"]
    with ShardWriter(path, shards.attributes | {"lit": lit}, shards.constants) as writer:
        writer.add(sample | {
            "linear_albedo_map": np.rint(255 * linear * chart[..., None]).astype(np.uint8),
            "albedo_map": encode_image(np.rint(255 * np.broadcast_to(albedo, (64, 64, 3))).astype(np.uint8)),
        })
    return sample, *pictures(ftd_sheet(path, [0], MODEL), 0)


def test_the_mesh_wears_the_texture_upright(folders, tmp_path):
    """I_a blue above and red below: so is the face from the front, and in the photo."""
    albedo = np.where(np.arange(64)[:, None, None] < 32, BLUE, RED)
    _, tiles, strips = painted_sheet(folders, tmp_path / "painted.h5", RED, albedo)
    for view in (tiles[5], thumbnails(strips[5])[2]):
        column, third = view[:, len(view) // 2], len(view) // 3
        above, below = column[third - 5:third + 5].mean(axis=0), column[-third - 5:-third + 5].mean(axis=0)
        assert above[2] > 2 * above[0] and below[0] > 2 * below[2]


@pytest.mark.parametrize("lit", [False, True])
def test_each_map_is_in_its_place(folders, tmp_path, lit):
    """A red I_u and a blue I_a: the maps, the faces that wear them from three sides, and the face in the photo."""
    sample, tiles, strips = painted_sheet(folders, tmp_path / "painted.h5", RED, BLUE, lit)

    def colour(picture, where=None):
        """Median over what is drawn on white."""
        where = picture.min(axis=-1) < 0.95 if where is None else where
        return np.median(picture[where], axis=0)

    middle = np.s_[100:156, 100:156]
    for picture, wanted in ((tiles[1][middle], RED), (tiles[2][middle], BLUE)):
        np.testing.assert_allclose(picture.mean(axis=(0, 1)), wanted, atol=0.01)
    worn = [*((view, RED) for view in thumbnails(strips[1])), (tiles[5], BLUE),
            *((view, BLUE) for view in thumbnails(strips[5])[:2])]
    for view, wanted in worn:
        np.testing.assert_allclose(colour(view), wanted, atol=0.02)
        assert 0.2 < (view.min(axis=-1) < 0.95).mean() < 0.9
    seen = enlarged(sample["mask"].astype(float), STRIP)[..., 0] == 1
    np.testing.assert_allclose(colour(thumbnails(strips[3])[1], seen), BLUE, atol=0.02)
    np.testing.assert_allclose(colour(thumbnails(strips[3])[2], seen), np.clip(BLUE - RED + 0.5, 0, 1), atol=0.02)

    def lean(view):  # how far the face is from its own mirror image
        drawn = view.min(axis=-1) < 0.95
        return (drawn != drawn[:, ::-1]).mean()

    front, *sides = thumbnails(strips[1])
    sides += thumbnails(strips[5])[:2]
    assert max(lean(tiles[5]), lean(front)) < 0.5 * min(lean(side) for side in sides)
    assert (sides[0][:, ::-1].min(axis=-1) < 0.95)[sides[1].min(axis=-1) < 0.95].mean() > 0.9  # the other side
    drawn = np.abs(thumbnails(strips[5])[2] - enlarged(tiles[0], STRIP)).max(axis=-1) > 0.25
    assert drawn.mean() > 0.15
    in_photo = thumbnails(strips[5])[2][drawn]
    shade = in_photo @ BLUE / (BLUE @ BLUE)
    assert np.quantile(np.abs(in_photo - shade[:, None] * BLUE), 0.8) < 0.03
    assert (np.quantile(shade, 0.9) - np.quantile(shade, 0.1) < 0.05) == lit


def test_lit_textures_are_not_lit_again(folders):
    """Where I_a keeps the light, its lit picture is I_a itself, and the face in the photo is still the photo's."""
    reader = FtdReader(folders["lit"], MODEL)
    tiles, strips = pictures(ftd_sheet(folders["lit"], [1], str(folders["model.h5"])), 0)
    albedo = reader.albedo(reader.shards[1])
    assert np.abs(thumbnails(strips[4])[2] - enlarged(albedo, STRIP)).mean() < 0.01
    assert np.abs(thumbnails(strips[5])[2] - enlarged(tiles[0], STRIP)).mean() < 0.02


def test_the_ball_shows_where_light_comes_from(folders):
    """The toy light comes from above and the right."""
    ball = thumbnails(pictures(ftd_sheet(folders["all"], [0], MODEL), 0)[1][4])[0][..., 0]
    quarter, middle, far = STRIP // 4, STRIP // 2, STRIP * 3 // 4
    assert ball[quarter, middle] > ball[far, middle] and ball[middle, far] > ball[middle, quarter]
    assert ball[0, 0] == 0


def test_only_the_right_model_draws(folders):
    with pytest.raises(ValueError, match="built with, 'toy'"):
        ftd_sheet(folders["all"], [0], toy_model(seed=1))
    with pytest.raises(ValueError, match="among the 7 there are, got 7"):
        ftd_sheet(folders["all"], [7], MODEL)


def test_statistics_tell_scores_thresholds_and_reasons(folders):
    table = ftd_statistics(folders["some"])
    shards = ShardSet(folders["some"])
    turned = sum(reason.startswith("turned too far") for _, reason in shards.rejected)
    assert turned and re.search(rf"^  turned too far +{turned}$", table, re.MULTILINE)
    assert re.search(r"^  max_yaw +20$", table, re.MULTILINE)
    assert re.search(r"^  min_skin +off$", table, re.MULTILINE)
    assert re.search(r"^textures +dense, 64 x 64, chart 'harmonic', without the photo's light$", table, re.MULTILINE)
    numbers = [float(number) for number in re.search(r"^yaw  +(.*)$", table, re.MULTILINE)[1].split()]
    yaw = shards.column("yaw")
    np.testing.assert_allclose(
        numbers, [yaw.mean(), yaw.std(), *np.quantile(yaw, (0, 0.05, 0.5, 0.95, 1))], atol=6e-4
    )
    assert "with the photo's light" in ftd_statistics(folders["lit"])
    assert re.search(r"^  albedo_map +\d", table, re.MULTILINE)
    with pytest.raises(ValueError, match="must be 'ftd'"):
        ftd_statistics(folders["asmd"])


def test_rejected_sheet_shows_the_pictures_kind_by_kind(folders, tmp_path):
    """Every rejected photo once, a preview where there is one; then too many for a sheet are thinned evenly."""
    shards = ShardSet(folders["some"])
    order = sorted(range(len(shards.rejected)), key=lambda index: shards.rejected[index][1].split(":")[0])
    sheet = np.asarray(rejected_sheet(folders["some"]), float)
    width, height = THUMBNAIL + 2 * GAP, THUMBNAIL + 64 + 2 * GAP
    assert sheet.shape == (height, len(order) * width, 3)
    for place, index in enumerate(order):
        tile = sheet[GAP:GAP + THUMBNAIL, place * width + GAP:place * width + GAP + THUMBNAIL]
        preview = shards.rejected_previews[index]
        wanted = decode_image(preview) if preview else np.full((THUMBNAIL, THUMBNAIL, 3), 211)
        np.testing.assert_array_equal(tile, wanted)
        assert bool(preview) != shards.rejected[index][1].startswith(UNREAD)
        assert (sheet[GAP + THUMBNAIL:, place * width:(place + 1) * width] < 128).any()  # the reason
    with ShardWriter(tmp_path / "many.h5", {}) as writer:
        for shade in range(30):
            writer.reject(f"photo {shade}", f"kind {shade % 2}: {shade}", png(shade * 8))
    sheet = np.asarray(rejected_sheet(tmp_path / "many.h5", 12), int)
    assert sheet.shape == (2 * height, 10 * width, 3)
    drawn = [sheet[GAP + height * (place // 10), GAP + width * (place % 10), 0] // 8 for place in range(12)]
    assert len(set(drawn)) == 12 and [shade % 2 for shade in drawn] == [0] * 6 + [1] * 6
    assert drawn[0] == 0 and drawn[-1] == 29


def png(shade: int) -> bytes:
    """A grey picture."""
    file = BytesIO()
    Image.new("RGB", (20, 20), (shade,) * 3).save(file, "PNG")
    return file.getvalue()


def test_nothing_rejected_is_said(folders, tmp_path):
    with ShardWriter(tmp_path / "good.h5", {}) as writer:
        writer.add({"x": 1})
    with pytest.raises(ValueError, match="no rejected photo to draw; all gave samples"):
        rejected_sheet(tmp_path / "good.h5")


def test_inspect_knows_its_kinds_and_says_so_of_others(folders, tmp_path):
    run = partial(CliRunner().invoke, main)
    for name, words in (("all", "skin_fraction"), ("asmd", "maps beyond")):
        result = run(["inspect", str(folders[name])])
        assert result.exit_code == 0 and words in result.output
        png_path = tmp_path / f"{name}.png"
        result = run(["inspect", str(folders[name]), "--sample", "1", "-o", str(png_path),
                      "--face-model", str(folders["model.h5"])])
        assert result.exit_code == 0 and f"wrote {png_path}" in result.output
        statistics, draw = inspector(folders[name])
        np.testing.assert_array_equal(np.asarray(Image.open(png_path)), np.asarray(draw(folders[name], [1], MODEL)))
        result = run(["inspect", str(folders[name]), "--rejected", "-o", str(png_path)])
        assert result.exit_code == 0
        np.testing.assert_array_equal(np.asarray(Image.open(png_path)), np.asarray(rejected_sheet(folders[name])))
    result = run(["inspect", str(folders["all"]), "-o", str(tmp_path / "x.png")])
    assert result.exit_code == 1 and "Error: shards hold no meshes" in result.output.splitlines()[-1]
    assert "built with, 'toy'" in result.output and "got 'dualface open face" in result.output
    with ShardWriter(tmp_path / "other.h5", {"kind": "scans"}) as writer:
        writer.add({"x": 1})
    result = run(["inspect", str(tmp_path / "other.h5")])
    assert result.exit_code == 1
    assert "must be of kind 'asmd' or 'ftd' or 'faces' to be inspected, got 'scans'" in result.output
    for options, words in ((["--rejected"], "name its PNG with -o"), (["--sample", "0"], "name its PNG with -o"),
                           (["--rejected", "--sample", "0", "-o", "x.png"], "choose one of")):
        result = run(["inspect", str(folders["all"]), *options])
        assert result.exit_code == 2 and words in result.output
