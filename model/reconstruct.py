"""Photos to textured meshes, with a fusion run or a geometry run.

Dimension key: B photos of a batch, S side of the crop and of the maps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from asmgen.crop import crop_image, placement_in_photo, square_transform
from asmgen.images import read_photo
from asmgen.locate import Placement
from asmgen.source_files import printable
from bfm.pose import transform_points
from model.dual_stream import Face, TrainedFaces, draw_face
from model.face_files import FaceWriter, FacialMaps, PhotoFace
from model.geometry import denormalise_position
from model.identity import IdentityNetwork
from model.landmarks import landmarks_from_heatmaps
from model.parsing import FaceParsing
from model.photos import Photo, PhotoLocator
from model.refine import refine
from model.views import Surroundings, surroundings

WRITERS = max(2, min(8, os.cpu_count() or 1))
"""Threads that write files; most of it is compressing and copying, which Python lets run side by side."""


@dataclass(frozen=True)
class Outcome:
    """What became of one photo.

    Attributes
    ----------
    photo : Path
        The photo.
    files : tuple[Path, ...]
        What was written.
    error : str
        Why nothing was; empty if all went well.
    photometric : tuple[float, ...]
        Mean difference of photo and rendering over the face, RGB in [0, 1]: before and after refinement, where
        there was one.
    """

    photo: Path
    files: tuple[Path, ...] = ()
    error: str = ""
    photometric: tuple[float, ...] = ()

    def __str__(self) -> str:
        if self.error:
            return printable(f"{self.photo}: {self.error}")
        wrote = printable(f"{self.photo}: wrote {len(self.files)} files, {self.files[-1]}")
        return wrote + (
            "; photometric error {:.4f}, refined {:.4f}".format(*self.photometric) if self.photometric else ""
        )


class Crop(NamedTuple):
    """A face cut out of its photo.

    Attributes
    ----------
    image : np.ndarray
        (S, S, 3) uint8, what the network sees.
    placement : Placement
        Where it was cut.
    around : Surroundings
        The photo there, as a picture.
    """

    image: np.ndarray
    placement: Placement
    around: Surroundings


class Reconstructor:
    """Crops to faces: the network, then the refinement if there is one.

    Parameters
    ----------
    faces : TrainedFaces
        The network.
    refine_steps : int
        Steps of analysis by synthesis on each photo (`refine`); 0 takes what the network gives.
    identity : IdentityNetwork | None
        F_id for the refinement.
    parsing : FaceParsing | None
        Face mask for the refinement.
    """

    def __init__(
        self, faces: TrainedFaces, refine_steps: int = 0, identity: IdentityNetwork | None = None,
        parsing: FaceParsing | None = None,
    ):
        self.faces, self.refine_steps = faces, refine_steps
        self.device = next(faces.network.parameters()).device
        self.identity, self.parsing = (network and network.to(self.device) for network in (identity, parsing))

    def crop(self, path: Path, locator: PhotoLocator) -> Crop:
        """Read a photo and cut its face out; errors are those of `read_photo`, `PhotoLocator` and `crop_image`."""
        photo, size = read_photo(path), self.faces.metadata["size"]
        placement = locator.place(path, photo)
        return Crop(crop_image(photo, placement.square, size), placement, surroundings(photo, placement.square))

    def __call__(self, crops: Sequence[Crop]) -> list[tuple[PhotoFace, tuple[float, ...]]]:
        """Return the face of each crop, and its photometric errors before and after refinement, where there was one."""
        image = torch.tensor(np.stack([crop.image for crop in crops]), device=self.device)
        image = image.permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            face = self.faces.network(image)
        errors = [()] * len(crops)
        if self.refine_steps:
            refined = refine(
                face, image, self.faces.renderer, self.refine_steps, maps=self.faces.maps,
                landmarks=self._landmarks(crops, image, face), identity=self.identity, parsing=self.parsing,
            )
            face, errors = refined.face, list(zip(refined.before.tolist(), refined.after.tolist()))
        position = denormalise_position(face.parameters.position, image.shape[-1])
        parts = (face.identity_map, face.expression_map, face.albedo_map, *face.parameters[:3], position)
        return [
            (PhotoFace(_in_photo(FacialMaps(*values), crop), crop.placement, crop.around), photo_errors)
            for crop, photo_errors, *values in zip(crops, errors, *(part.detach().cpu().numpy() for part in parts))
        ]

    @torch.no_grad()
    def _landmarks(self, crops: Sequence[Crop], image: torch.Tensor, face: Face) -> torch.Tensor:
        """(B, 68, 2) crop pixels: as given with the photo, else as K finds them, else where the network put them."""
        if self.faces.network.landmarks:
            points = landmarks_from_heatmaps(self.faces.network.landmarks(image)[-1])
        else:
            points = draw_face(self.faces.renderer, face).landmarks
        for own, (_, placement, _) in zip(points, crops):
            if placement.landmarks is not None:
                given = transform_points(placement.landmarks, square_transform(placement.square, image.shape[-1]))
                own.copy_(torch.tensor(given))
        return points


def reconstruct(
    photos: Sequence[Photo], locator: PhotoLocator, reconstructor: Reconstructor, writer: FaceWriter, out_dir: Path,
    batch_size: int = 8,
) -> Iterator[Outcome]:
    """Reconstruct the face in each photo and write it out; a photo that fails does not stop the rest.

    Into `out_dir`, under the photo's name: its meshes ``.obj`` with ``.mtl`` and ``_albedo.png``, ``.ply``, ``.glb``
    and ``_lit.glb``, the last with the photo's light in the texture; ``_overlay.png`` (the photo, I_R over it, the
    shape as clay over it), ``_normals.png``, ``_depth.png``, ``_maps.png`` (identity, expression, sum) and
    ``_parameters.json``, which states every unit; ``_turntable.gif`` where wanted; ``_neutral`` and ``_swapped``
    meshes and ``_expressions.png`` where wanted. While a batch is in the network, the next one is read and the last one
    written, by threads; so three batches are held in memory, each photo cut down to its pictures.

    Parameters
    ----------
    photos : Sequence[Photo]
        Of one face each, as `find_photos` lists them.
    locator : PhotoLocator
        Where the faces are.
    reconstructor : Reconstructor
        The network.
    writer : FaceWriter
        What to write.
    out_dir : Path
        Made if need be; files of the same names are replaced.
    batch_size : int
        Photos that go through the network together.

    Yields
    ------
    Outcome
        One a photo, in order.
    """
    batches = [photos[start:start + batch_size] for start in range(0, len(photos), batch_size)]
    # one reader, as detectors are not made for several threads; results are in order, whoever finishes first
    with _Threads(1) as reader, _Threads(WRITERS) as writers:
        def read(batch: Sequence[Photo]) -> list[Future]:
            return [reader.submit(_cropped, photo, reconstructor, locator) for photo in batch]

        ahead, behind = read(batches[0] if batches else ()), []
        for batch, following in zip(batches, [*batches[1:], ()]):
            crops, ahead = {photo: crop.result() for photo, crop in zip(batch, ahead)}, read(following)
            faces = _faces({photo: crop for photo, crop in crops.items() if isinstance(crop, Crop)}, reconstructor)
            written, behind = behind, [
                writers.submit(_written, photo, faces.get(photo, crop), writer, Path(out_dir, photo.name))
                for photo, crop in crops.items()
            ]
            yield from (outcome.result() for outcome in written)
        yield from (outcome.result() for outcome in behind)


class _Threads(ThreadPoolExecutor):
    """Threads that begin nothing new once they are left, as by an error."""

    def __exit__(self, *error) -> None:
        self.shutdown(cancel_futures=True)


def _cropped(photo: Photo, reconstructor: Reconstructor, locator: PhotoLocator) -> Crop | OSError | ValueError:
    """The face cut out of a photo, or why there is none."""
    try:
        return reconstructor.crop(photo.path, locator)
    except (OSError, ValueError) as error:
        return error


def _faces(crops: dict[Photo, Crop], reconstructor: Reconstructor) -> dict[Photo, tuple | ValueError]:
    """The face of each crop with its errors, or why there is none; a batch that fails is tried one by one."""
    if not crops:
        return {}
    try:
        return dict(zip(crops, reconstructor(list(crops.values()))))
    except ValueError as error:
        if len(crops) == 1:
            return dict.fromkeys(crops, error)
    return {photo: face for one in crops.items() for photo, face in _faces(dict([one]), reconstructor).items()}


def _written(photo: Photo, face: tuple[PhotoFace, tuple] | Exception, writer: FaceWriter, stem: Path) -> Outcome:
    """What became of a photo once its face, if there is one, is written."""
    if isinstance(face, Exception):
        return Outcome(photo.path, error=str(face))
    try:
        files, _ = writer.write(face[0], stem)
        return Outcome(photo.path, tuple(files), photometric=face[1])
    except ValueError as error:
        return Outcome(photo.path, error=str(error))


def face_in(path: Path, reconstructor: Reconstructor, locator: PhotoLocator) -> PhotoFace:
    """Return the face in one photo; errors are ValueErrors that name it."""
    try:
        return reconstructor([reconstructor.crop(path, locator)])[0][0]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _in_photo(maps: FacialMaps, crop: Crop) -> FacialMaps:
    """A face placed in the crop, placed in its photo."""
    pose, position = placement_in_photo(maps.pose, maps.position, crop.placement.square, len(crop.image))
    return replace(maps, pose=pose, position=position)
