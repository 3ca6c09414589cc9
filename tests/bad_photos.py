"""Photos as no dataset should have them, each broken or odd in one way, beside the photos of `toy_tree`.

`BROKEN` ones must be rejected with the sentence that stands beside them, `RIGHT` ones must give the face they show.
"""

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io
from PIL import Image
from toy_tree import annotation, draw, truth

FOLDER = "ODD"
FACE = truth(0)
PICTURE, LANDMARKS = draw(FACE)
ARRAYS = annotation(0, FACE, LANDMARKS)
GREY = np.asarray(Image.fromarray(PICTURE).convert("L"))
HUGE = 100 << 30
"""Bytes of files that have none on the disk."""

ANEW = "get the annotation anew"
NONE = r"{}.{} must be a picture \(JPEG, PNG, BMP, GIF, WEBP, TIFF\), and is none; replace or remove it"
LARGE = r"image too large: {}.{} must have at most 89478485 pixels, and has more; make it smaller"
DECODED = r"unreadable image: {}.{} cannot be decoded \(.+\); replace or remove it"
PIPE = r"it must be a file, and is a pipe or device; put the file itself there"
NO_LINK = r"it cannot be read \((No such file or directory|Too many levels of symbolic links)\); make it a "
DAMAGED_MAT = r"unreadable annotation: {}.mat: it is truncated or damaged \(.+\); get a complete copy"


def jpeg(pixels: np.ndarray = PICTURE, **options) -> bytes:
    return encoded("JPEG", pixels, quality=98, **({"subsampling": 0} if pixels.ndim == 3 else {}), **options)


def encoded(form: str, pixels: np.ndarray | Image.Image = PICTURE, **options) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, form, **options)
    return file.getvalue()


def mat(**changes) -> bytes:
    """The annotation with other arrays; None leaves one out."""
    file = io.BytesIO()
    scipy.io.savemat(file, {key: value for key, value in (ARRAYS | changes).items() if value is not None})
    return file.getvalue()


def write(stem: Path, photo: bytes | Callable, suffix: str = ".jpg", arrays: bytes | Callable | None = None) -> None:
    """Write a photo and its annotation; a function gets the path instead."""
    for path, content in ((f"{stem}{suffix}", photo), (f"{stem}.mat", mat() if arrays is None else arrays)):
        if callable(content):
            content(Path(path))
        else:
            Path(path).write_bytes(content)


def sized(data: bytes, marker: bytes, offset: int, layout: str, size: int) -> bytes:
    """A picture whose header tells another size: two numbers at an offset after a marker."""
    place = data.index(marker) + offset
    numbers = struct.pack(layout, size, size)
    data = data[:place] + numbers + data[place + len(numbers):]
    if marker == b"IHDR":
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    return data


def with_scans(count: int) -> bytes:
    """A progressive JPEG with its last scan so many times."""
    data = jpeg(progressive=True)
    last = data[data.rindex(b"\xff\xda"):-2]
    return data[:-2] + count * last + b"\xff\xd9"


def sparse(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, HUGE)


def v73(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["Pose_Para"] = np.zeros((7, 1))
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<HH", 0x200, 0x4D49))


def v4() -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"Pose_Para": ARRAYS["Pose_Para"]}, format="4")
    return file.getvalue()


def bomb(parts: int) -> bytes:
    """A small file of so many times 64 MiB of zeros: the same piece of a stream again and again."""
    packing = zlib.compressobj(9, wbits=-15)
    head = packing.compress(struct.pack("<II", 14, 0xFFFFFFFF)) + packing.flush(zlib.Z_FULL_FLUSH)
    piece = packing.compress(bytes(1 << 26)) + packing.flush(zlib.Z_FULL_FLUSH)
    stream = b"\x78\xda" + head + parts * piece
    return mat()[:128] + struct.pack("<II", 15, len(stream)) + stream


@dataclass(frozen=True)
class Broken:
    """What is written, and the sentence of the reason: also where only landmarks are wanted, None if they will do."""

    write: Callable[[Path], None]
    reason: str
    of_landmarks: str | None


def photo(content: bytes | Callable, reason: str, suffix: str = ".jpg") -> Broken:
    return Broken(partial(write, photo=content, suffix=suffix), reason, reason)


def file(content: bytes | Callable, reason: str) -> Broken:
    return Broken(partial(write, photo=jpeg(), arrays=content), reason, reason)


def labels(reason: str, points: np.ndarray) -> Broken:
    return file(mat(pt3d_68=points), reason)


def numbers(reason: str, **changes) -> Broken:
    return Broken(partial(write, photo=jpeg(), arrays=mat(**changes)), reason, None)


def pose(**changes) -> np.ndarray:
    names = ("pitch", "yaw", "roll", "x", "y", "z", "scale")
    return np.array([[changes.get(name, value) for name, value in zip(names, ARRAYS["Pose_Para"].ravel())]])


def magnified(factor: float) -> np.ndarray:
    """The face grown about the middle of its landmarks, as far as float32 can tell."""
    x, y = FACE["position"][:2] + (1 - factor) * (np.median(LANDMARKS, axis=0) - FACE["position"][:2])
    return pose(x=x + 1, y=len(PICTURE) - y, scale=factor * ARRAYS["Pose_Para"][0, 6])


POINTS = ARRAYS["pt3d_68"]
OUTSIDE = "landmarks outside the image: 68 of the 68 points of pt3d_68 lie outside the {} photo; give the "
SIGMAS = f"damaged annotation: {{}} reaches .+ standard deviations, at most 50 are sensible; {ANEW}"
SENSELESS = f"damaged annotation: {{}} holds NaN or values of no sensible size; {ANEW}"
RADIANS = rf"damaged annotation: Pose_Para must hold angles in radians and a positive scale, got \[.+\] and .+; {ANEW}"
LACKS = f"missing key: the annotation lacks {{}}; {ANEW}"
BROKEN = {
    "cut": photo(jpeg()[:900], DECODED.format("cut", "jpg")),
    "cut_png": photo(encoded("PNG")[:900], DECODED.format("cut_png", "png"), ".png"),
    "empty": photo(b"", "unreadable image: " + NONE.format("empty", "jpg")),
    "text": photo(b"not a photo", "unreadable image: " + NONE.format("text", "jpg")),
    "postscript": photo(encoded("EPS"), "unreadable image: " + NONE.format("postscript", "jpg")),
    "floats": photo(
        encoded("TIFF", GREY.astype(np.float32)),
        r"unreadable image: floats.jpg cannot be decoded \(channels must have 8 or 16 bits, got 32 \(mode F\)\); ",
    ),
    "wide": photo(sized(jpeg(), b"\xff\xc0", 5, ">HH", 30_000), LARGE.format("wide", "jpg")),
    "wide_png": photo(sized(encoded("PNG"), b"IHDR", 4, ">II", 30_000), LARGE.format("wide_png", "png"), ".png"),
    "twice": photo(sized(encoded("PNG"), b"IHDR", 4, ">II", 11_000), LARGE.format("twice", "png"), ".png"),
    "wide_gif": photo(sized(encoded("GIF"), b"GIF87a", 6, "<HH", 30_000), LARGE.format("wide_gif", "jpg")),
    "wide_bmp": photo(sized(encoded("BMP"), b"BM", 18, "<ii", 30_000), LARGE.format("wide_bmp", "bmp"), ".bmp"),
    "scans": photo(with_scans(60), "unreadable image: scans.jpg must have at most 64 scans, and has 70; save it anew"),
    "dot": photo(encoded("PNG", PICTURE[:1, :1]), OUTSIDE.format("1x1"), ".png"),
    "device": photo(lambda path: path.symlink_to("/dev/zero"), f"unreadable image: device.jpg: {PIPE}"),
    "nowhere": photo(lambda path: path.symlink_to("absent.jpg"), f"unreadable image: nowhere.jpg: {NO_LINK}"),
    "loop": photo(lambda path: path.symlink_to(path), f"unreadable image: loop.jpg: {NO_LINK}"),
    "sparse": photo(
        sparse, f"unreadable image: sparse.jpg: it must have at most {1 << 28} bytes, and has {HUGE}; make it smaller"
    ),
    "new\nline\x1b[2J": photo(b"", "unreadable image: " + NONE.format(r"new\\nline\\x1b\[2J", "jpg")),
    "alone": Broken(
        lambda stem: stem.with_suffix(".jpg").write_bytes(jpeg()),
        *2 * ["no annotation: alone.jpg has neither alone.mat nor alone_pts.mat; put one beside it"],
    ),
    "mat_empty": file(b"", r"unreadable annotation: mat_empty.mat: it is no Matlab v5-v7 file; save it with -v7"),
    "mat_v4": file(v4(), r"unreadable annotation: mat_v4.mat: it is no Matlab v5-v7 file; save it with -v7"),
    "mat_v73": file(v73, r"unreadable annotation: mat_v73.mat: it is a Matlab v7.3 file; save it with -v7"),
    "mat_cut": file(mat()[:-40], DAMAGED_MAT.format("mat_cut")),
    "mat_bomb": file(bomb(40), DAMAGED_MAT.format("mat_bomb")),
    "mat_sparse": file(
        sparse,
        f"unreadable annotation: mat_sparse.mat: it must have at most {1 << 24} bytes, and has {HUGE}; make it smaller",
    ),
    "mat_nowhere": file(
        lambda path: path.symlink_to("absent.mat"), f"unreadable annotation: mat_nowhere.mat: {NO_LINK}"
    ),
    "no_pose": numbers(LACKS.format("Pose_Para"), Pose_Para=None),
    "no_shape": numbers(LACKS.format("Shape_Para"), Shape_Para=None),
    "a_cell": numbers(LACKS.format("Exp_Para"), Exp_Para=np.array([["a", 1]], object)),
    "complex": numbers(LACKS.format("Exp_Para"), Exp_Para=ARRAYS["Exp_Para"] * 1j),
    "words": numbers(
        f"damaged annotation: Exp_Para must hold real numbers, and holds something else; {ANEW}", Exp_Para="text"
    ),
    "nan": numbers(SENSELESS.format("Exp_Para"), Exp_Para=np.full((3, 1), np.nan)),
    "infinite": numbers(SENSELESS.format("Shape_Para"), Shape_Para=np.full((5, 1), -np.inf)),
    "endless": numbers(SENSELESS.format("Exp_Para"), Exp_Para=np.full((3, 1), 1e30)),
    "far_out": numbers(SIGMAS.format("Shape_Para"), Shape_Para=np.full((5, 1), 1e10)),
    "wrong_count": numbers(
        rf"wrong shape: Exp_Para must hold 3 values, got shape \(4, 1\); {ANEW}", Exp_Para=np.zeros((4, 1))
    ),
    "degrees": numbers(RADIANS, Pose_Para=pose(yaw=30)), "no_scale": numbers(RADIANS, Pose_Para=pose(scale=0)),
    "elsewhere": numbers(
        r"face outside the image: Pose_Para puts a face of \d+ px at \[-\d+.0, \d+.0\] in a 150x150 photo; give ",
        Pose_Para=pose(x=-900),
    ),
    "gigantic": Broken(
        partial(write, photo=jpeg(), arrays=mat(Pose_Para=magnified(1e4), pt3d_68=None)),
        "no light: at least 60 surface samples must be in sight, neither black nor saturated, got 0; the face is ",
        "no landmarks: gigantic ",
    ),
    "cut_down": Broken(
        partial(write, photo=jpeg(PICTURE[20:130, 20:130]), arrays=mat(pt3d_68=POINTS * (110 / 150))),
        r"image size mismatch: parameters and landmarks are \d+ px apart in the 110x110 photo; give it as ", None,
    ),
    "labels_turned": labels(rf"wrong shape: pt3d_68 must have shape \(3, 68\), got \(68, 3\); {ANEW}", POINTS.T),
    "labels_nan": labels(SENSELESS.format("pt3d_68"), POINTS * np.nan),
    "labels_endless": labels(SENSELESS.format("pt3d_68"), POINTS * np.float32(1e30)),
    "labels_alike": labels(f"damaged annotation: the 68 points of pt3d_68 coincide; {ANEW}", POINTS * 0 + 9),
    "labels_outside": labels(OUTSIDE.format("150x150"), POINTS + 999),
}
if hasattr(os, "mkfifo"):
    BROKEN |= {
        "pipe": photo(os.mkfifo, f"unreadable image: pipe.jpg: {PIPE}"),
        "mat_pipe": file(os.mkfifo, f"unreadable annotation: mat_pipe.mat: {PIPE}"),
    }
if hasattr(os, "geteuid") and os.geteuid():
    BROKEN["forbidden"] = photo(
        lambda path: path.touch(0), r"unreadable image: forbidden.jpg: it cannot be read \(Permission denied\); make "
    )


@dataclass(frozen=True)
class Right:
    """What is written, the pixels that the photo has, and by how much they may differ, on average."""

    write: Callable[[Path], None]
    pixels: np.ndarray
    loss: float


def turned(form: str, orientation: int) -> bytes:
    """The picture stored as a camera held otherwise does, with the tag that says so."""
    stored = {
        2: PICTURE[:, ::-1], 3: PICTURE[::-1, ::-1], 4: PICTURE[::-1], 5: PICTURE.transpose(1, 0, 2),
        6: np.rot90(PICTURE), 7: PICTURE[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(PICTURE, -1),
    }[orientation]
    tag = Image.Exif()
    tag[0x0112] = orientation
    stored = np.ascontiguousarray(stored)
    return jpeg(stored, exif=tag) if form == "JPEG" else encoded(form, stored, exif=tag)


def ycck() -> bytes:
    """The inks as Adobe stores them: YCbCr of the inverted colours without their black, which is 255 - max here."""
    black = 255 - PICTURE.max(axis=-1)
    colours = PICTURE.astype(float) / np.maximum(PICTURE.max(axis=-1, keepdims=True), 1) * 255
    chroma = np.asarray(Image.fromarray(255 - np.round(colours).astype(np.uint8)).convert("YCbCr"))
    data = encoded("JPEG", Image.fromarray(255 - np.dstack([chroma, 255 - black]), "CMYK"), quality=98, subsampling=0)
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    return data[:place] + b"\x02" + data[place + 1:]


def deep(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, whose lower 8 say nothing."""
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape)
    return cv2.imencode(".png", (pixels.astype(np.uint16) << 8 | noise.astype(np.uint16))[..., ::-1])[1].tobytes()


def shown(content: bytes, suffix: str = ".jpg", pixels: np.ndarray = PICTURE, loss: float = 1.0) -> Right:
    return Right(partial(write, photo=content, suffix=suffix), pixels, loss)


def linked(stem: Path) -> None:
    """Photo and annotation are links to files outside the tree."""
    elsewhere = stem.parent.parent.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    write(elsewhere / "original", jpeg())
    for suffix in (".jpg", ".mat"):
        Path(f"{stem}{suffix}").symlink_to(elsewhere / f"original{suffix}")


IN_GREY = np.dstack([GREY] * 3)
PALETTE = Image.fromarray(PICTURE).quantize(200)
RIGHT = {
    "plain": shown(jpeg()), "progressive": shown(jpeg(progressive=True)),
    "cmyk": shown(encoded("JPEG", Image.fromarray(PICTURE).convert("CMYK"), quality=98), loss=1.5),
    "ycck": shown(ycck(), loss=2.5),
    "grey": shown(jpeg(GREY), pixels=IN_GREY), "grey_png": shown(encoded("PNG", GREY), ".png", IN_GREY, 0),
    "grey16": shown(deep(GREY[..., None]), ".png", IN_GREY, 0), "rgb16": shown(deep(PICTURE), ".png", loss=0),
    "grey16_tiff": shown(encoded("TIFF", GREY.astype(np.uint16) << 8), pixels=IN_GREY, loss=0),
    "palette": shown(encoded("PNG", PALETTE), ".png", np.asarray(PALETTE.convert("RGB")), 0),
    "rgba": shown(encoded("PNG", np.dstack([PICTURE, GREY])), ".png", loss=0),
    **{f"exif{tag}": shown(turned("JPEG", tag)) for tag in range(2, 9)},
    "exif_png": shown(turned("PNG", 6), ".png", loss=0),
    "a_gif": shown(encoded("GIF", PALETTE), pixels=np.asarray(PALETTE.convert("RGB")), loss=0),
    "a_webp": shown(encoded("WEBP", lossless=True), loss=0), "a_bmp": shown(encoded("BMP"), loss=0),
    "a_jpeg": shown(jpeg(), ".png"), "UPPER": shown(jpeg(), ".JPEG"),
    "with spaces": shown(jpeg()), "caf\u00e9": shown(jpeg()), "cafe\u0301": shown(jpeg()), "a.dotted": shown(jpeg()),
    "two\nlines": shown(jpeg()), "linked": Right(linked, PICTURE, 1.0),
    "flat": Right(partial(write, photo=jpeg(), arrays=mat(Shape_Para=ARRAYS["Shape_Para"].T)), PICTURE, 1.0),
    "single": Right(
        partial(write, photo=jpeg(), arrays=mat(Tex_Para=ARRAYS["Tex_Para"].astype(np.float32))), PICTURE, 1.0
    ),
}
if sys.platform == "linux":
    RIGHT[os.fsdecode(b"caf\xe9")] = shown(jpeg())


def write_odd(root: Path, cases: dict[str, Broken | Right]) -> None:
    """Write photos into a folder of their own below the root."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, case in cases.items():
        case.write(folder / name)


def source(name: str) -> str:
    """What a photo is called in a shard."""
    return f"{FOLDER}/{ascii(name)[1:-1] if not name.isprintable() else name}"
