"""Photos: what must hold for any pixels, any encoding of them, and any tree of files."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from asmgen.images import decode_image, encode_image, read_photo
from asmgen.w300lp import IGNORED_FOLDERS, IMAGE_SUFFIXES, find_samples
from model.photos import find_photos

pictures = hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)))
TURNS = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


def read(data: bytes) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jpg")
        path.write_bytes(data)
        return read_photo(path)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@given(pictures, st.sampled_from(["PNG", "BMP", "TIFF"]), st.sampled_from(list(TURNS)))
def test_lossless_photos_come_back_upright(pixels, form, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    data = encoded(Image.fromarray(pixels), form, **({} if form == "BMP" else {"exif": exif}))
    np.testing.assert_array_equal(read(data), pixels if form == "BMP" else TURNS[tag](pixels))


@given(
    pictures, st.sampled_from(["RGB", "L", "CMYK"]), st.sampled_from(list(TURNS)), st.integers(1, 100),
    st.integers(0, 2), st.booleans(), st.integers(0, 3),
)
def test_jpegs_are_as_pillow_reads_them_whatever_their_coding(pixels, mode, tag, quality, sampling, progressive, rows):
    exif = Image.Exif()
    exif[0x0112] = tag
    data = encoded(
        Image.fromarray(pixels).convert(mode), "JPEG", quality=quality, subsampling=sampling, progressive=progressive,
        restart_marker_rows=rows, **({"exif": exif} if tag > 1 else {}),
    )
    with Image.open(io.BytesIO(data)) as opened:
        wanted = TURNS[tag](np.asarray(opened.convert("RGB")))
    np.testing.assert_array_equal(read(data), wanted)


@given(pictures)
def test_crops_are_jpegs_that_everyone_reads_alike(pixels):
    data = encode_image(pixels)
    assert data == encode_image(pixels.copy())
    decoded = decode_image(data)
    assert decoded.shape == pixels.shape
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decoded, read(data))


names = st.one_of(
    st.sampled_from(["a", "a.jpg", "a.b", "AFW", "A_Flip", "landmarks", "Code", ".hidden", "a_pts", "b\\n", "b\n"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=4),
).filter(lambda name: name not in (".", ".."))
suffixes = st.sampled_from([".jpg", ".JPG", ".jpeg", ".png", ".bmp", ".mat", ".txt", ""])
folders = st.lists(names, max_size=3)


def photos_by_definition(folder: Path) -> set[Path]:
    """The photos below a folder, found by looking into one folder after the other."""
    found = set()
    for path in folder.iterdir():
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            if path.name.lower() not in IGNORED_FOLDERS:
                found |= photos_by_definition(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            found.add(path)
    return found


@settings(max_examples=60)
@given(
    st.lists(st.tuples(folders, names, suffixes), min_size=1, max_size=9),
    st.lists(st.tuples(folders, names, folders), max_size=3),
)
def test_any_tree_is_listed_once_and_in_the_same_order(files, links):
    """Whatever the names, and with links from any folder to any other: loops, and two ways to one folder."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "root")
        root.mkdir()
        for parts, name, suffix in [*files, ([], "one", ".jpg")]:
            try:
                root.joinpath(*parts).mkdir(parents=True, exist_ok=True)
                root.joinpath(*parts, name + suffix).touch(exist_ok=True)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):  # a file and a folder of one name
                continue
        for parts, name, target in links:
            here, there = root.joinpath(*parts), root.joinpath(*target)
            if here.is_dir() and there.is_dir() and not here.joinpath(name).exists():
                here.joinpath(name).symlink_to(there)
        samples = find_samples(root)
        wanted = {path for path in photos_by_definition(root) if "landmarks" not in path.relative_to(root).parts[:-1]}
        listed = [entry.image_path for entry in samples]
        by_name = [path for path in listed if not any(part.is_symlink() for part in (path, *path.parents))]
        assert set(by_name) == wanted and len(by_name) == len(wanted)
        folders_seen = [os.path.realpath(path) for path in listed]
        assert len(set(folders_seen)) == len(folders_seen)
        sources = [entry.source for entry in samples]
        assert len(set(sources)) == len(sources)
        assert not any("\n" in source for source in sources)
        assert find_samples(root) == samples and listed == sorted(listed, key=lambda path: path.parts)
        for entry in samples:
            assert all(path is None or path.is_file() for path in (entry.parameters_path, entry.landmarks_path))
        try:
            photos = find_photos([root], Path(place, "out"))
        except ValueError as error:
            assert "would both write" in str(error)
        else:
            assert {photo.path for photo in photos} >= set(listed)
