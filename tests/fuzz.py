"""Damage files of every kind that is read from users, again and again: a reader gives a value or a ValueError, soon and
in little memory.

``python tests/fuzz.py KIND COUNT SEED`` ends with a traceback and the damaged file on the standard error otherwise.
"""

import base64
import io
import os
import signal
import struct
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

MEMORY = 1_500_000_000
"""Bytes that reading may take."""
SECONDS = 10
"""That one file may take."""

EXTREMES = (0, 1, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 26, 1 << 40)


def pictures() -> list[bytes]:
    """A small one of every coding."""
    rows, columns = np.mgrid[:24, :33]
    pixels = np.stack([8 * columns - 9, 9 * rows, 255 - 4 * (rows + columns)], -1).astype(np.uint8)
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "maker" * 9
    found = [cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes()]
    for mode, form, options in (
        ("RGB", "JPEG", {}), ("RGB", "JPEG", {"progressive": True, "exif": tags}), ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}), ("RGB", "JPEG", {"restart_marker_rows": 1, "comment": b"x" * 99}),
        ("RGB", "PNG", {"exif": tags}), ("P", "PNG", {}), ("RGBA", "PNG", {}), ("RGB", "BMP", {}), ("P", "GIF", {}),
        ("RGB", "WEBP", {}), ("RGBA", "WEBP", {"lossless": True}), ("RGB", "TIFF", {"exif": tags}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("L", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("1", "TIFF", {"compression": "group4"}),
    ):
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, form, **options)
        found.append(file.getvalue())
    return found


def annotations() -> list[bytes]:
    """Matlab files of both codings and orders."""
    rng, found = np.random.default_rng(0), []
    arrays = {
        "Pose_Para": rng.normal(size=(1, 7)).astype(np.float32), "Shape_Para": rng.normal(size=(5, 1)),
        "pt2d": rng.normal(size=(2, 68)), "Face_Model": "of a text", "Light_SH": np.arange(9, dtype=np.uint8)[None],
        "roi": np.zeros((1, 4), np.int16), "cell": np.array([[1, "a"]], object), "struct": {"a": 1.0},
    }
    for compressed in (False, True):
        file = io.BytesIO()
        scipy.io.savemat(file, arrays, do_compression=compressed)
        found.append(file.getvalue())
    header = b"".ljust(124) + b"\x01\x00MI"
    element = struct.pack(
        ">IIIIIIiiII8sII", 6, 8, 6, 0, 5, 8, 1, 7, 1, 8, b"pt2d\0\0\0\0", 9, 56
    ) + np.arange(7.0).astype(">f8").tobytes()
    return [*found, header + struct.pack(">II", 14, len(element)) + element]


def point_files() -> dict[str, list[bytes]]:
    """Landmarks as text and arrays, by the endings of their names."""
    points, file = np.random.default_rng(0).normal(size=(68, 2)), io.BytesIO()
    np.save(file, points)
    text = "\n".join(f"{x} {y}" for x, y in points)
    return {
        ".npy": [file.getvalue()], ".txt": [text.encode()], ".pts": [f"n_points: 68\n{{\n{text}\n}}\n".encode()],
        ".mat": annotations(),
    }


def meshes() -> dict[str, list[bytes]]:
    """Scans, by the endings of their names."""
    import trimesh

    from asmgen.scan_files import obj_bytes, wrl_bytes

    vertices, triangles = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12).reshape(4, 3)
    mesh = trimesh.Trimesh(vertices, triangles, process=False)
    return {
        ".obj": [obj_bytes(vertices, triangles, vertices[:, :2], "a.mtl")],
        ".wrl": [wrl_bytes(vertices, triangles, vertices[:, :2], "a.png")],
        ".ply": [mesh.export(file_type="ply"), mesh.export(file_type="ply", encoding="ascii")],
    }


def face_models() -> list[bytes]:
    """Small face models of this program, as HDF5: with their digest, without, and as older versions wrote them."""
    from face_files import write_as_before
    from toy import toy_model

    from bfm.model_file import save_model

    model = toy_model(rows=15, columns=13, id_modes=2, exp_modes=2, albedo_modes=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.h5")
        save_model(model, path)
        whole = path.read_bytes()
        write_as_before(path, model)
        return [whole, whole[:whole.rindex(b"\nsha256 of")], *3 * [path.read_bytes()]]


def basel_models() -> list[bytes]:
    """A small Basel Face Model 2009, raw, compressed, and as a struct."""
    from face_files import RawFace, write_face3d, write_raw

    rng, found = np.random.default_rng(0), []
    face = RawFace(**{
        **{key: rng.normal(size=15).astype("f4") for key in ("mu", "mu_exp", "mu_tex")},
        **{key: rng.normal(size=(15, 2)).astype("f4") for key in ("w", "w_exp", "w_tex")},
        **{key: rng.normal(size=2) for key in ("sigma", "sigma_exp", "sigma_tex")},
        "triangles": np.array([[0, 1, 2], [2, 3, 4]]), "landmarks": np.arange(68) % 5, "pairs": np.zeros((2, 3)),
        "trim": np.arange(5), "raw_count": 7,
    })
    with tempfile.TemporaryDirectory() as folder:
        for path in (write_raw(Path(folder), face), write_face3d(Path(folder), face, face.triangles)):
            found.append(path.read_bytes())
            content = scipy.io.loadmat(path)
            scipy.io.savemat(path, {key: content[key] for key in content if key[0] != "_"}, do_compression=True)
            found.append(path.read_bytes())
    return found


def damaged(whole: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A file with a few damages of any kind."""
    data = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(data) + 1) if rng.random() < 0.6 else rng.integers(min(len(data), 200) + 1))
        size = int(rng.integers(1, 40))
        kind = rng.integers(7)
        if kind == 0:
            data[place:place + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            data[place:place + 4] = struct.pack(rng.choice(["<Q", ">Q"]), rng.choice(EXTREMES))[:4]
        elif kind == 2:
            data[place:place + 8] = struct.pack(rng.choice(["<Q", ">Q"]), rng.choice(EXTREMES))
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            del data[place:place + size]
        elif kind == 5:
            other = others[rng.integers(len(others))]
            start = int(rng.integers(len(other)))
            data[place:place + (size if rng.random() < 0.5 else 0)] = other[start:start + size]
        else:
            data[place:place] = data[place:place + size] * int(rng.integers(1, 50))
    return bytes(data)


def damaged_within(whole: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A Matlab file whose arrays are damaged and then compressed."""
    inner = damaged(whole[128:], others, rng)
    stream = zlib.compress(inner, 1)
    return whole[:128] + struct.pack("<II", 15, len(stream)) + stream


def prepared(kind: str) -> tuple[dict[str, list[bytes]], Callable[[Path], object]]:
    """Whole files by the endings of their names, and what reads them."""
    if kind == "photo":
        from asmgen.images import read_photo

        return {".jpg": pictures()}, read_photo
    if kind == "mat":
        from asmgen.matfile import read_mat

        keys = ("Pose_Para", "Shape_Para", "pt2d", "Face_Model", "Light_SH", "roi", "cell", "struct")
        return {".mat": annotations()}, lambda path: read_mat(path, keys)
    if kind == "landmarks":
        from asmgen.landmark_files import read_landmarks

        return point_files(), read_landmarks
    if kind == "mesh":
        from model.evaluation.scans import read_scan

        return meshes(), read_scan
    if kind == "basel":
        from bfm.readers.sources import open_source

        return {".mat": basel_models()}, open_source
    from bfm.model_file import load_model

    return {".h5": face_models()}, load_model


def too_long(*_) -> None:
    raise TimeoutError(f"one file takes more than {SECONDS} s")


def main(kind: str, count: int, seed: int) -> None:
    """Read so many damaged files."""
    if sys.platform == "linux":
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    signal.signal(signal.SIGALRM, too_long)
    warnings.simplefilter("error")
    files, read = prepared(kind)
    outcomes, rng = Counter(), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(count):
            ending = rng.choice(list(files))
            wholes, path = files[ending], Path(folder, f"a{ending}")
            damage = damaged_within if ending == ".mat" and rng.random() < 0.4 else damaged
            data = damage(wholes[rng.integers(len(wholes))], wholes, rng)
            path.write_bytes(data)
            signal.alarm(SECONDS)
            try:
                read(path)
                outcomes["read"] += 1
            except ValueError as error:
                outcomes["refused"] += 1
                assert str(error), "no reason"
            except BaseException:
                sys.stderr.write(f"{path.name}: {base64.b85encode(data).decode()}\n")
                raise
            finally:
                signal.alarm(0)
            os.unlink(path)
    print(outcomes["read"], outcomes["refused"])


if __name__ == "__main__":
    sys.path[:0] = map(str, Path(__file__).parents[:2])
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
