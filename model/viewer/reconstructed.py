"""What `reconstruct` wrote: faces with their meshes, pictures and parameters."""

from __future__ import annotations

import json
import math
from pathlib import Path

from model.viewer.answers import Answer, NotFound, Route, file_answer, json_answer

PARAMETERS = "_parameters.json"

PICTURES = {
    "_overlay.png": "Photo, the face over it, its mesh", "_expressions.png": "Expression taken away, or swapped",
    "_maps.png": "Identity map, expression map, their sum", "_normals.png": "Normals", "_depth.png": "Depth",
    "_turntable.gif": "Turntable",
}
"""Endings of a face's pictures, in the order of the page, and what they show."""

MESHES = (".glb", "_lit.glb", "_neutral.glb", "_swapped.glb", ".obj", ".ply")
"""Endings of a face's meshes."""


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

    Attributes
    ----------
    routes : dict
        See `View`.
    """

    def __init__(self, folder: Path):
        self._folder, self._faces = folder, find_faces(folder)
        self.routes: dict[str, Route] = {
            "api/view": self._view, r"api/faces/(\d{1,9})": self._face,
            r"files/(\d{1,9})(_?[a-z]*\.[a-z]{3,4})": self._file,
        }

    def _view(self, query: dict) -> Answer:
        self._faces = find_faces(self._folder)
        return json_answer({"kind": "reconstructed", "name": str(self._folder), "faces": self._faces})

    def _face(self, query: dict, number: str) -> Answer:
        name = self._named(number)
        parameters = json.loads(file_answer(self._folder, name + PARAMETERS).body)
        there = [ending for ending in (*PICTURES, *MESHES) if Path(self._folder, name + ending).is_file()]
        return json_answer({
            "facts": _facts(parameters), "meshes": [ending for ending in MESHES if ending in there],
            "pictures": [{"ending": ending, "title": PICTURES[ending]} for ending in PICTURES if ending in there],
        })

    def _file(self, query: dict, number: str, ending: str) -> Answer:
        if ending not in (*PICTURES, *MESHES, PARAMETERS):
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
