"""Photos read and crops written without pillow are what pillow reads and writes."""

from base64 import b85decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, UnidentifiedImageError

from asmgen import images
from asmgen.images import decode_image, encode_image, read_photo
from asmgen.rejection import SampleError

ROWS, COLUMNS = np.mgrid[:61, :94]
PIXELS = np.stack([
    127 + 100 * np.sin(COLUMNS / 7), 127 + 100 * np.cos(ROWS / 5), 127 + 90 * np.sin((ROWS + COLUMNS) / 4)
], -1).astype(np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 6
PLAIN = {
    "4:4:4": {"subsampling": 0}, "4:2:0": {"subsampling": 2}, "4:2:2": {"subsampling": 1},
    "progressive": {"progressive": True}, "comment": {"comment": b"of a camera"},
    "restarts": {"restart_marker_rows": 1},
    "profile": {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
}
ARITHMETIC = (
    b"|JeWF01!$>Nk#wx0RR9200961|JwjV00RO70|EjA0|NsD0|NvF2n7WM1O*BQ2L=cX3JeSj3JVJj4iXRz4iOFu3lJ6%5fc;@6%`B*"
    b"7Z?^47!ni}6#v@*LjeN>1O)^I2?YfS6b%av6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6cqo-"
    b"01*fP5C9kh0TBQK5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0Ns8VEg(!tp6}Y=Ge;^xV5xB7X!|%u@BaY*0KJ3)Vym~Y"
    b"+pnQm07l357;;PMET$@!&vAZCT?|RqRdohtvJO0`AivnJ0p`Gfh=f{L7(@R6a94*)Ib>k}*#"
)
"""A JPEG of 24 x 16 pixels in the coding that hardly anything writes, in base 85."""


def by_pillow(path):
    with Image.open(path) as photo:
        return np.asarray(photo.convert("RGB"))


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN.keys())
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_jpegs_have_the_pixels_of_pillow_without_it(tmp_path, monkeypatch, options, mode):
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).convert(mode).save(path, **options)
    wanted = by_pillow(path)
    monkeypatch.setattr(images, "_any_photo", None)
    photo = read_photo(path)
    assert (photo.shape, photo.dtype) == ((61, 94, 3), np.uint8)
    np.testing.assert_array_equal(photo, wanted)


@pytest.mark.parametrize("name, mode, options", [
    ("a.jpg", "CMYK", {}), ("a.png", "RGBA", {}), ("a.bmp", "RGB", {}), ("a.png", "P", {}),
    ("a.jpg", "RGB", {"keep_rgb": True, "subsampling": 0}),
])
def test_other_photos_are_read_by_pillow(tmp_path, name, mode, options):
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / name, **options)
    np.testing.assert_array_equal(read_photo(tmp_path / name), by_pillow(tmp_path / name))


def test_arithmetic_coding(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b85decode(ARITHMETIC))
    rows, columns = np.mgrid[:16, :24]
    drawn = np.stack([10 * columns, 15 * rows, 255 - 5 * (rows + columns)], -1)
    assert np.abs(read_photo(tmp_path / "a.jpg") - drawn).max() <= 4


def test_a_turned_jpeg_is_upright(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=TURNED)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.jpg"), np.rot90(by_pillow(tmp_path / "a.jpg"), -1))


def test_damaged_jpegs_get_the_sentence_of_pillow_or_its_pixels(tmp_path):
    path, file = tmp_path / "a.jpg", BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG")
    whole = file.getvalue()
    for size in (0, 2, 3, 25, 300, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(SampleError) as raised:
            read_photo(path)
        with pytest.raises((OSError, SyntaxError)) as pillows:
            by_pillow(path)
        detail = "a.jpg must be a picture (JPEG, PNG, BMP, GIF, WEBP, TIFF), and is none; replace or remove it"
        if not isinstance(pillows.value, UnidentifiedImageError):
            detail = f"a.jpg cannot be decoded ({pillows.value}); replace or remove it"
        assert (raised.value.kind, raised.value.detail) == ("unreadable image", detail)
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(2, len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            wanted = images._any_photo(bytes(damaged), path.name)
        except SampleError as error:
            with pytest.raises(SampleError) as raised:
                read_photo(path)
            assert str(raised.value) == str(error)
        else:
            np.testing.assert_array_equal(read_photo(path), wanted)
    with pytest.raises(SampleError, match=r"none.jpg: it cannot be read \(No such file or directory\); make"):
        read_photo(tmp_path / "none.jpg")


def many_scans(progressive: bool) -> bytearray:
    """A JPEG of 70 scans, of which the first has all channels or, where the file is not progressive, one."""
    file = BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", progressive=progressive, subsampling=0)
    data = bytearray(file.getvalue())
    if progressive:
        return data[:-2] + 70 * data[data.rindex(b"\xff\xda"):]
    start = data.index(b"\xff\xda")
    one_channel = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[start + 14:-2]
    return data[:start] + 70 * one_channel + b"\xff\xd9"


@pytest.mark.parametrize("progressive", [True, False])
@pytest.mark.parametrize("gap", [b"", b"\0\0\0\0\3"])  # decoders pass over bytes between segments
def test_many_scans_are_refused_wherever_they_are_declared(tmp_path, monkeypatch, progressive, gap):
    data = many_scans(progressive)
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    (tmp_path / "a.jpg").write_bytes(data[:frame] + gap + data[frame:])
    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", None)
    with pytest.raises(SampleError, match="a.jpg must have at most 64 scans, and has [78][0-9]; save it anew"):
        read_photo(tmp_path / "a.jpg")


def test_scans_after_one_of_all_channels_are_refused(tmp_path):
    file = BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG")
    data = file.getvalue()
    (tmp_path / "a.jpg").write_bytes(data[:-2] + 70 * data[data.index(b"\xff\xda"):])
    with pytest.raises(SampleError, match="a.jpg must have at most 64 scans, and has 71; save it anew"):
        read_photo(tmp_path / "a.jpg")


def test_crops_are_jpegs_of_quality_96_with_full_colour():
    data, file = encode_image(PIXELS), BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", quality=96, subsampling=0)
    with Image.open(BytesIO(data)) as ours, Image.open(file) as pillows:
        assert ours.quantization == pillows.quantization
        assert [layer[1:3] for layer in ours.layer] == 3 * [(1, 1)]
        np.testing.assert_array_equal(decode_image(data), np.asarray(ours))
        lost, usual = (np.square(np.asarray(image).astype(float) - PIXELS).mean() for image in (ours, pillows))
    assert lost < 1.01 * usual
    assert encode_image(PIXELS[:, ::-1][:, ::-1]) == encode_image(np.asfortranarray(PIXELS)) == data


def test_a_stored_image_that_says_it_is_huge():
    """Nothing is taken for its pixels; one that is cut short is told as it is."""
    data = encode_image(PIXELS)
    frame = data.index(b"\xff\xc0") + 5
    with pytest.raises(ValueError, match="a stored image must have at most 89478485 pixels, got 65000x65000"):
        decode_image(data[:frame] + (65000).to_bytes(2, "big") * 2 + data[frame + 4:])
    with pytest.raises(ValueError, match="Premature end of JPEG"):
        decode_image(data[:len(data) // 2])
