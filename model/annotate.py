"""Landmarks for own photos, which make them training data: found by the landmark network, or read off position maps.

Dimension key: S side of the crop in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asmgen.annotations import write_annotated
from asmgen.crop import Square, crop_image, face_square, square_transform
from asmgen.images import read_photo
from asmgen.locate import FaceLocator
from asmgen.position_maps import landmarks_in_crop, position_map_beside, read_position_map
from asmgen.rejection import SampleError
from asmgen.source_files import printable
from bfm.pose import transform_points
from model.checkpoint import CHECKPOINT_NAME, checked_state, load_tensors
from model.landmarks import SIDE_MULTIPLE, LandmarkNetwork, landmarks_from_heatmaps
from model.photos import Photo
from model.torchscript import is_torchscript

FAN_SIZE = 256
"""Side of the crops, pixels, that published networks were trained on."""

PASSES = 2
"""The second crop is placed by the landmarks of the first, as those of the training were."""

MIN_PEAK = 0.1
"""Mean height of the heatmaps' peaks, which training draws to 1; where there is no face they stay near 0."""

Finder = Callable[[Path, np.ndarray], np.ndarray]
"""Path and (H, W, 3) uint8 RGB pixels of a photo to its (68, 2) landmarks, pixels."""


@dataclass(frozen=True)
class Annotated:
    """What became of one photo: what was written, or why nothing was.

    Attributes
    ----------
    photo : Path
        The photo.
    files : tuple[Path, ...]
        Annotation and copy of the photo.
    error : str
        Empty if all went well.
    """

    photo: Path
    files: tuple[Path, ...] = ()
    error: str = ""

    def __str__(self) -> str:
        return printable(f"{self.photo}: {self.error or f'wrote {self.files[0]}'}")


class LandmarkFinder:
    """Finds landmarks with a network.

    Parameters
    ----------
    network : LandmarkNetwork
        From `model.landmarks.load_landmark_network`, on its device.
    size : int
        S, as the network was trained (`landmark_crop_size`).
    locator : FaceLocator
        Where the faces are.
    min_peak : float
        Photos are refused below it, see `MIN_PEAK`.
    """

    def __init__(self, network: LandmarkNetwork, size: int, locator: FaceLocator, min_peak: float = MIN_PEAK):
        self._network, self._size, self._locator, self._min_peak = network, size, locator, min_peak
        self._device = next(network.parameters()).device

    def __call__(self, path: Path, image: np.ndarray) -> np.ndarray:
        """Return the (68, 2) landmarks, float64 pixels of the photo.

        Parameters
        ----------
        path : Path
            The photo, for the locator.
        image : np.ndarray
            (H, W, 3) uint8 RGB.

        Returns
        -------
        np.ndarray
            Hidden landmarks included. Errors are those of `FaceLocator.place` and `crop_image`.

        Raises
        ------
        SampleError
            If the network finds nothing that it takes for a face.
        """
        square = self._locator.place(path, image).square
        for _ in range(PASSES):
            points, peak = self._found(image, square)
            if peak < self._min_peak:
                raise SampleError(
                    "no landmarks", f"the network sees no face in {path.name} (its heatmaps reach {peak:.2f}, "
                    f"{self._min_peak:g} is wanted); give a box about the face, or leave the photo out"
                )
            square = face_square(points)
        return points

    @torch.no_grad()
    def _found(self, image: np.ndarray, square: Square) -> tuple[np.ndarray, float]:
        """Landmarks in pixels of the photo, and the mean height of the peaks they were read from."""
        crop = torch.tensor(crop_image(image, square, self._size), device=self._device)
        heatmaps = self._network(crop.permute(2, 0, 1)[None].float() / 255)[-1]
        points = landmarks_from_heatmaps(heatmaps)[0].double().cpu().numpy()
        to_crop = np.vstack([square_transform(square, self._size), [0, 0, 1]])
        return transform_points(points, np.linalg.inv(to_crop)[:2]), float(heatmaps.amax((2, 3)).mean())


class PositionMapLandmarks:
    """Reads landmarks off the position maps that lie beside photos, which are themselves the crops.

    Parameters
    ----------
    texels : np.ndarray
        (2, 68) where landmarks lie, from `asmgen.position_maps.read_landmark_texels`.
    """

    def __init__(self, texels: np.ndarray):
        self._texels = texels

    def __call__(self, path: Path, image: np.ndarray) -> np.ndarray:
        """Return the (68, 2) landmarks, float64 pixels of a photo; errors are those of `asmgen.position_maps`."""
        return landmarks_in_crop(read_position_map(position_map_beside(path)), self._texels)


def landmark_crop_size(path: Path) -> int:
    """Return S of what `model.landmarks.load_landmark_network` reads: of a run its own, else `FAN_SIZE`."""
    path = Path(path)
    path = path / CHECKPOINT_NAME if path.is_dir() else path
    state = {} if is_torchscript(path) else load_tensors(path)
    if not (isinstance(state, dict) and "networks" in state):
        return FAN_SIZE
    size = checked_state(state, path, "landmarks")["metadata"].get("size")
    if not isinstance(size, int) or size % SIDE_MULTIPLE:
        raise ValueError(
            f"{path} must tell the side of its crops, a multiple of {SIDE_MULTIPLE}, got {size}; it is damaged"
        )
    return size


def annotate(photos: Sequence[Photo], find: Finder, out_dir: Path, kind: str = "3d") -> Iterator[Annotated]:
    """Write each photo with its landmarks, in the layout of 300W-LP; a photo that fails does not stop the rest.

    Parameters
    ----------
    photos : Sequence[Photo]
        Of one face each, as `model.photos.find_photos` lists them.
    find : Finder
        `LandmarkFinder` or `PositionMapLandmarks`.
    out_dir : Path
        Made if need be; files of the same names are replaced.
    kind : str
        Of the landmarks, see `asmgen.annotations.KINDS`.

    Yields
    ------
    Annotated
        One a photo, in order.
    """
    for photo in photos:
        try:
            points = find(photo.path, read_photo(photo.path))
            yield Annotated(photo.path, tuple(write_annotated(photo.path, points, kind, Path(out_dir, photo.name))))
        except (OSError, ValueError) as error:
            yield Annotated(photo.path, error=str(error))
