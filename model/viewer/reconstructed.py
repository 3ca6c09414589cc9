"""What `reconstruct` wrote: faces with their meshes, pictures and parameters.

Dimension key: V vertices of the face.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from asmgen.inspect import given_model
from bfm.morphable_model import MorphableModel
from model.viewer.answers import Answer, NotFound, Route, array_answer, file_answer, json_answer, png_answer

PARAMETERS, DEPTH = "_parameters.json", "_depth.png"

ROWS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Photo, the face over it, its mesh", {"_overlay.png": ""}),
    ("Photo, the face, and what has its expression taken away or swapped", {"_expressions.png": ""}),
    ("Identity map, expression map, their sum", {"_maps.png": ""}),
    ("Texture, and what the camera sees", {
        "_albedo.png": "albedo I_a", "_normals.png": "normals", DEPTH: "depth, near is bright",
    }),
    ("Turntable", {"_turntable.gif": ""}),
)
"""A face's pictures in the order of the page: title of the row, and captions by ending."""

PICTURES = tuple(ending for _, captions in ROWS for ending in captions)

FILES = (".glb", "_lit.glb", "_neutral.glb", "_swapped.glb", ".obj", ".mtl", ".ply", PARAMETERS)
"""Endings of what else there is of a face."""


def find_faces(folder: Path) -> list[str]:
    """Return the faces below a folder, sorted: paths from there, with slashes, of their files without endings."""
    found = Path(folder).rglob(f"*{PARAMETERS}")
    return sorted(path.relative_to(folder).as_posix().removesuffix(PARAMETERS) for path in found)


class ReconstructedView:
    """The page of reconstructed faces; those that are there when it is loaded.

    Parameters
    ----------
    folder : Path
        What `reconstruct` wrote.
    face_model : str | MorphableModel | None
        The face model or its file, from whose mean the identity is scaled; None is the open model.

    Attributes
    ----------
    routes : dict
        See `View`.
    """

    def __init__(self, folder: Path, face_model: str | MorphableModel | None = None):
        self._folder, self._faces = folder, find_faces(folder)
        self._model = given_model(face_model)
        self.routes: dict[str, Route] = {
            "api/view": self._view, "api/average": self._average, r"api/faces/(\d{1,9})": self._face,
            r"api/faces/(\d{1,9})/depth\.png": self._depth, r"files/(\d{1,9})(_?[a-z]*\.[a-z]{3,4})": self._file,
        }

    def _view(self, query: dict) -> Answer:
        self._faces = find_faces(self._folder)
        return json_answer({"kind": "reconstructed", "name": str(self._folder), "faces": self._faces})

    def _face(self, query: dict, number: str) -> Answer:
        name = self._named(number)
        parameters = json.loads(file_answer(self._folder, name + PARAMETERS).body)
        there = [ending for ending in (*PICTURES, *FILES) if Path(self._folder, name + ending).is_file()]
        at = {ending: f"files/{number}{ending}" for ending in PICTURES} | {DEPTH: f"api/faces/{number}/depth.png"}
        rows = [{"title": title, "pictures": [
            {"url": at[ending], "caption": caption} for ending, caption in captions.items() if ending in there
        ]} for title, captions in ROWS]
        return json_answer({
            "facts": _facts(parameters), "files": [ending for ending in FILES if ending in there],
            "rows": [row for row in rows if row["pictures"]],
            "face_model": parameters.get("face_model"),
            "has_average": self._model.sha256 == parameters.get("face_model_sha256"),
        })

    def _average(self, query: dict) -> Answer:
        """The mean face of the face model, (V, 3) float32 metres, as a GLB has them."""
        return array_answer(self._model.face_only().mean_shape.astype(np.float32) / np.float32(1000))

    def _depth(self, query: dict, number: str) -> Answer:
        """The depth file stretched to what a screen shows: white is the nearest of the face, dark grey the farthest."""
        steps = np.asarray(Image.open(io.BytesIO(file_answer(self._folder, self._named(number) + DEPTH).body)))
        face = steps[steps > 0].astype(np.float64)
        shades = np.zeros(steps.shape, np.uint8)
        if face.size:
            shades[steps > 0] = np.rint(np.interp(face, (face.min(), face.max()), (32, 255)))
        return png_answer(Image.fromarray(shades))

    def _file(self, query: dict, number: str, ending: str) -> Answer:
        if ending not in (*PICTURES, *FILES):
            raise NotFound(f"no file *{ending}")
        return file_answer(self._folder, self._named(number) + ending)

    def _named(self, number: str) -> str:
        if int(number) >= len(self._faces):
            raise NotFound(f"no face {number}: there are {len(self._faces)}")
        return self._faces[int(number)]


def _facts(parameters: dict) -> list[tuple[str, str]]:
    """What the parameters tell in a line each."""
    facts = []
    if "pose" in parameters:
        angles = ", ".join(f"{math.degrees(angle):.0f}°" for angle in parameters["pose"])
        facts.append(("pitch, yaw, roll", angles))
    if parameters.get("photometric_error") is not None:
        facts.append(("photometric error", f"{parameters['photometric_error']:.3f}"))
    for key, name in (("placed_by", "placed by"), ("checkpoint", "network"), ("face_model", "face model")):
        if key in parameters:
            facts.append((name, str(parameters[key])))
    return facts
