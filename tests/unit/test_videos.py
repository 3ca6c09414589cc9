from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from model.evaluation.videos import video_frames


def jpeg(shade, thumbnail=b"", progressive=False):
    data = BytesIO()
    exif = Image.Exif()
    if thumbnail:
        exif[0x9286] = thumbnail  # a JPEG in a segment of a JPEG
    noise = np.random.default_rng(shade).integers(0, 30, (24, 32, 3)) + shade
    Image.fromarray(noise.astype(np.uint8)).save(data, "JPEG", quality=95, exif=exif, progressive=progressive)
    return data.getvalue()


def shades(frames):
    return [round(np.asarray(frame.read()).mean() - 14.5) for frame in frames]


@pytest.mark.parametrize("between", [b"", b"\r\n--next\r\nContent-Type: image/jpeg\r\n\r\n"])
@pytest.mark.parametrize("most, expected", [(9, [0, 40, 80, 120, 160]), (3, [0, 80, 160]), (1, [0])])
def test_motion_jpeg_is_split_at_its_markers(tmp_path, between, most, expected):
    pictures = [jpeg(40 * k, thumbnail=jpeg(200) if k == 1 else b"", progressive=k == 3) for k in range(5)]
    path = tmp_path / "PTZ-Indoor.mjpg"
    path.write_bytes(between + between.join(pictures) + between)
    frames = video_frames(path, most)
    np.testing.assert_allclose(shades(frames), expected, atol=1)
    assert [frame.path for frame in frames] == [
        tmp_path / "PTZ-Indoor" / f"{shade // 40:04d}.jpg" for shade in expected
    ]


def test_a_video_cut_short_loses_its_last_frame(tmp_path):
    path = tmp_path / "a.mjpeg"
    path.write_bytes(jpeg(0) + jpeg(80) + jpeg(160)[:-200])
    np.testing.assert_allclose(shades(video_frames(path, 9)), [0, 80], atol=1)


def test_a_damaged_frame_says_so_when_read(tmp_path):
    good, bad = jpeg(0), bytearray(jpeg(80))
    bad[bad.index(b"\xff\xc0") + 4] = 99  # bits a sample
    path = tmp_path / "a.mjpg"
    path.write_bytes(good + bytes(bad))
    first, second = video_frames(path, 2)
    first.read()
    with pytest.raises(ValueError, match="^unreadable image: frame 0001 must be a picture .* and is none; "):
        second.read()


def test_a_folder_of_frames(tmp_path):
    for k in (3, 0, 2, 1):
        (tmp_path / f"{k:04d}.jpg").write_bytes(jpeg(40 * k))
        (tmp_path / f"{k:04d}.pts").write_text("")
    frames = video_frames(tmp_path, 2)
    assert [frame.path.name for frame in frames] == ["0000.jpg", "0003.jpg"]
    np.testing.assert_allclose(shades(frames), [0, 120], atol=1)


@pytest.mark.parametrize("data, message", [(b"", "is empty"), (b"RIFF no jpeg", "holds none")])
def test_what_is_no_video(tmp_path, data, message):
    (tmp_path / "a.mjpg").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        video_frames(tmp_path / "a.mjpg", 2)
    with pytest.raises(ValueError, match="holds no picture"):
        (tmp_path / "empty").mkdir()
        video_frames(tmp_path / "empty", 2)
