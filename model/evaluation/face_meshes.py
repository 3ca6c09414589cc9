"""Where predicted faces come from: a trained network and photos, or files of another method; as meshes with landmarks.

Dimension key: V vertices of the face part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from asmgen.crop import Square
from asmgen.locate import FaceLocator
from bfm.morphable_model import MorphableModel
from model.checkpoint import weights_sha256
from model.dual_stream import TrainedFaces
from model.evaluation.predict import predict_faces
from model.evaluation.scans import Scan, read_scan
from model.evaluation.videos import Frame

MESHES = (".obj", ".ply")


def face_mesh(model: MorphableModel, vertices: np.ndarray, name: str) -> Scan:
    """Return (V, 3) vertices of a model, mm, as a mesh with its 68 landmarks."""
    return Scan(vertices, model.triangles, dict(enumerate(vertices[model.landmarks])), name)


class Photographed:
    """Faces that a network sees in photos.

    Parameters
    ----------
    faces : TrainedFaces
        The network.
    locator : FaceLocator
        Where the faces are.
    batch_size : int
        Photos that go through the network together.
    """

    def __init__(self, faces: TrainedFaces, locator: FaceLocator, batch_size: int = 16):
        self.faces, self.locator, self.batch_size = faces, locator, batch_size

    @property
    def settings(self) -> dict:
        """What a report says of the network and of how faces are placed."""
        return {
            "weights_sha256": weights_sha256(self.faces.network), "kind": self.faces.metadata["kind"],
            "decoupled": self.faces.metadata["shape"] != "single", **self.locator.settings,
        }

    def neutral(self, frames: Iterable[Frame], name: str) -> tuple[Scan, dict]:
        """Return the mean neutral face of several photos of a person; those without a face are left out.

        Parameters
        ----------
        frames : Iterable[Frame]
            The photos.
        name : str
            Of the mesh.

        Returns
        -------
        tuple[Scan, dict]
            The mesh; and ``frames``, how many it is the mean of, and ``skipped``, of those that are not, name and
            reason. Of a network that does not decouple expression, it is the mean of whole faces.

        Raises
        ------
        ValueError
            If no photo shows a face.
        """
        skipped = {}
        predicted = predict_faces(self.faces, self._placed(frames, skipped), self.batch_size)
        total: Any = 0
        count = 0
        for face in predicted:
            total, count = total + (face.neutral if face.decoupled else face.shape), count + 1
        if not count:
            raise ValueError(f"{name}: no frame shows a face ({next(iter(skipped.values()), 'there is none')})")
        return face_mesh(self.faces.model, total / count, name), {"frames": count, "skipped": skipped}

    def whole(self, photo: Path, name: str) -> Scan:
        """Return the face in one photo with its expression; ValueErrors say why there is none."""
        image = Frame(photo).read()
        (face,) = predict_faces(self.faces, [(image, self.locator.square(photo, image))])
        return face_mesh(self.faces.model, face.shape, name)

    def _placed(self, frames: Iterable[Frame], skipped: dict[str, str]) -> Iterator[tuple[np.ndarray, Square]]:
        """The frames that show a face, and where; the others' reasons go into `skipped`."""
        for frame in frames:
            try:
                image = frame.read()
                yield image, self.locator.square(frame.path, image)
            except ValueError as error:
                skipped[frame.path.name] = str(error)


def mesh_in(folder: Path, name: str) -> Scan:
    """Read another method's mesh, mm.

    Parameters
    ----------
    folder : Path
        With ``<name>.obj`` or ``<name>.ply``, and landmarks beside it (``.ljson``) or none.
    name : str
        Of the file.

    Returns
    -------
    Scan
        Any topology; errors of damaged files are those of `read_scan`.

    Raises
    ------
    ValueError
        If there is neither file.
    """
    for suffix in MESHES:
        path = Path(folder, name + suffix)
        if path.is_file():
            return read_scan(path)
    raise ValueError(f"{Path(folder, name)} has neither {' nor '.join(MESHES)}")
