"""Shards: their samples in pages, the pictures of one, and its face in 3D.

Dimension key: V vertices, F triangles, S side of the maps and of the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from asmgen.sheets import evenly
from model.mesh_files import picture_uv
from model.viewer.answers import Answer, NotFound, Route, array_answer, json_answer, png_answer
from model.viewer.samples import OpenedCrop, OpenedFace, open_samples

PAGE = 48
"""Samples of a page."""

AVERAGED = 64
"""Samples, evenly spread, whose neutral faces make the average from which identity is scaled."""

_NO_SHAPE = "these shards hold photos and no faces"


class ShardsView:
    """The page of shards.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards, one shard, or a list of them.
    face_model : str | None
        File of their face model, where it is needed; None is the open model.

    Attributes
    ----------
    routes : dict
        See `View`.
    """

    def __init__(self, source: str | Path | Sequence, face_model: str | None = None):
        self._samples, self._name = open_samples(source, face_model), str(source)
        self._sources = self._samples.shards.column("source") if len(self._samples.shards) else []
        self._lock = Lock()  # HDF5 is read, and what is read last is kept, by one thread at a time
        self._opened, self._mean = lru_cache(4)(self._samples.open), lru_cache(1)(self._mean_face)
        self.routes: dict[str, Route] = {
            "api/view": self._view, "api/samples": self._page, r"api/samples/(\d{1,9})": self._sample,
            r"api/samples/(\d{1,9})/photo\.jpg": self._photo,
            r"api/samples/(\d{1,9})/([a-z]+)(?:-([xyz]))?\.png": self._picture,
            r"api/samples/(\d{1,9})/shape": self._shape, "api/mesh": self._mesh, "api/statistics": self._statistics,
        }

    def _view(self, query: dict) -> Answer:
        shards, samples = self._samples.shards, self._samples
        mesh = None
        if samples.has_shape and len(shards):
            constants = self._constants()
            mesh = {"vertices": len(constants["uv"]), "triangles": len(constants["triangles"])}
        return json_answer({
            "kind": "shards", "name": self._name, "dataset": shards.attributes["kind"], "samples": len(shards),
            "mesh": mesh, "rows": samples.rows, "textures": samples.textures, "averaged": min(AVERAGED, len(shards)),
        })

    def _page(self, query: dict) -> Answer:
        """The samples, of those whose source has a text in it, that are on a page."""
        wanted = query.get("search", "").casefold()
        found = [index for index, source in enumerate(self._sources) if wanted in source.casefold()]
        pages = max(1, -(-len(found) // PAGE))
        page = min(int(query["page"]) if query.get("page", "").isdecimal() else 0, pages - 1)
        shown = [{"index": index, "source": self._sources[index]} for index in found[page * PAGE:(page + 1) * PAGE]]
        return json_answer({"found": len(found), "page": page, "pages": pages, "samples": shown})

    def _sample(self, query: dict, index: str) -> Answer:
        sample = self._open(index).sample
        return json_answer({"source": sample["source"], "facts": self._samples.facts(sample)})

    def _photo(self, query: dict, index: str) -> Answer:
        return Answer("image/jpeg", self._open(index).sample["image"])

    def _picture(self, query: dict, index: str, name: str, channel: str | None) -> Answer:
        opened = self._open(index)
        with self._lock:
            picture = opened.picture(name, channel)
        if picture is None:
            raise NotFound(f"samples of this kind have no picture {name}")
        return png_answer(picture)

    def _shape(self, query: dict, index: str) -> Answer:
        """Of V vertices: the neutral face, mm; the expression's offsets, mm; where the crop shows them, as texture
        coordinates; and 1 where it does, 0 where another part of the face hides them. All float32.
        """
        opened = self._open(index)
        if not isinstance(opened, OpenedFace):
            raise NotFound(_NO_SHAPE)
        with self._lock:
            return array_answer(opened.neutral, opened.offsets, *opened.in_photo())

    def _mesh(self, query: dict) -> Answer:
        """The triangles, (F, 3) uint32, the texture coordinates of the chart, (V, 2), and the average, (V, 3)."""
        if not self._samples.has_shape:
            raise NotFound(_NO_SHAPE)
        constants = self._constants()
        uv = picture_uv(constants["uv"], self._samples.shards.attributes["size"])
        with self._lock:
            return array_answer(constants["triangles"].astype(np.uint32), uv, self._mean())

    def _statistics(self, query: dict) -> Answer:
        with self._lock:
            return Answer("text/plain; charset=utf-8", self._samples.statistics().encode())

    def _open(self, index: str) -> OpenedCrop:
        """An opened sample."""
        count = len(self._samples.shards)
        if int(index) >= count:
            raise NotFound(f"no sample {index}: there are {count}")
        with self._lock:
            return self._opened(int(index))

    def _constants(self) -> dict[str, np.ndarray]:
        with self._lock:
            return self._samples.constants

    def _mean_face(self) -> np.ndarray:
        """(V, 3) float32 mm: the average of the neutral faces of some samples."""
        indices = evenly(len(self._samples.shards), AVERAGED)
        opened = (self._samples.open(int(index)) for index in indices)
        neutrals = [face.neutral for face in opened if isinstance(face, OpenedFace)]
        return np.asarray(np.mean(neutrals, axis=0), np.float32)
