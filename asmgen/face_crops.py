"""Photos to shards of face crops and nothing else, kind ``faces``: what self-supervised training reads.

docs/shards.md lists the fields. Dimension key: S side of the crop in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from asmgen.asmd import CONVENTIONS
from asmgen.crop import crop_image, square_transform
from asmgen.images import BATCH_PIXELS, encode_image, read_photo
from asmgen.locate import FaceLocator
from asmgen.pipeline import BuildSummary, fill_shards, photo_settings, select
from asmgen.rejection import SampleError, rejecting
from asmgen.shard_job import ShardPlan
from asmgen.shards import ShardSet, ShardWriter, open_kind
from asmgen.w300lp import LANDMARK_FOLDER, SampleEntry, find_samples
from bfm.pose import transform_points

KIND = "faces"
SCHEMA_VERSION = 1

CELEBA_LISTS = ("list_landmarks_align_celeba.txt", "list_landmarks_align_celeba.csv")
"""CelebA's five points of its aligned photos; the second is Kaggle's copy."""

_PREVIEW = 128


@dataclass(frozen=True, eq=False)
class CroppedFace:
    """A photo and what is stored of its face."""

    photo: np.ndarray
    fields: dict


class FaceCropper:
    """Cuts the faces out of photos.

    Parameters
    ----------
    locator : FaceLocator
        Tells where they are.
    size : int
        Side of the crop, pixels.
    """

    def __init__(self, locator: FaceLocator, size: int):
        self._locator, self._size = locator, size

    def place_batch(self, entries: Sequence[SampleEntry]) -> list[CroppedFace | SampleError]:
        """Read photos and cut their faces out.

        Parameters
        ----------
        entries : Sequence[SampleEntry]
            From `asmgen.w300lp.find_samples`.

        Returns
        -------
        list[CroppedFace | SampleError]
            One an entry, in order: the face, or why the photo gives no sample: it cannot be read, no face can be placed
            in it, or the place lies outside. There are fewer if photos are too large to be held together
            (`asmgen.images.BATCH_PIXELS`), at least one. The same for the same files, bit for bit.
        """
        placed: list[CroppedFace | SampleError] = []
        pixels = 0
        for entry in entries:
            try:
                face = self._place(entry)
                placed.append(face)
                pixels += face.photo[..., 0].size
            except SampleError as error:
                placed.append(error)
            if pixels > BATCH_PIXELS:
                break
        return placed

    def _place(self, entry: SampleEntry) -> CroppedFace:
        """Read a photo and cut its face out."""
        photo = read_photo(entry.image_path)
        try:
            placement = self._locator.place(entry.image_path, photo)
            (left, top, side), (height, width) = placement.square, photo.shape[:2]
            if not (0 <= left + side / 2 <= width and 0 <= top + side / 2 <= height):
                raise SampleError(
                    "face outside the image",
                    f"{entry.image_path.name} has {width}x{height} pixels, and its face is said to be at "
                    f"({left + side / 2:.0f}, {top + side / 2:.0f}); give the place in this photo, not in another copy",
                )
            with rejecting("no crop"):
                crop = crop_image(photo, placement.square, self._size)
        except SampleError as error:
            raise SampleError(error.kind, error.detail, _preview(photo)) from error
        transform = square_transform(placement.square, self._size)
        five = np.full((5, 2), np.nan) if placement.five is None else transform_points(placement.five, transform)
        return CroppedFace(photo, {
            "source": entry.source, "image": encode_image(crop), "placed_by": placement.placed_by,
            "crop_transform": transform.astype(np.float32), "five_points": five.astype(np.float32),
        })


class _FacesMaker:
    """Writes the crops as they are."""

    def fill(self, writer: ShardWriter, faces: Sequence[CroppedFace]) -> None:
        for face in faces:
            writer.add(face.fields)


def build_faces(
    root: str | Path,
    out_dir: str | Path,
    *,
    landmarks: str | Path | None = None,
    boxes: str | Path | None = None,
    detect: bool = True,
    size: int = 256,
    shard_size: int = 8192,
    jobs: int = 1,
    seed: int = 0,
    count: int | None = None,
    repair: bool = False,
    progress: Callable[..., tqdm] = tqdm,
) -> BuildSummary:
    """Turn a tree of photos into shards of face crops; a run that was stopped continues.

    Parameters
    ----------
    root : str | Path
        Any tree of photos: CelebA's folder with its list (`CELEBA_LISTS`), 300W-LP, one's own.
    out_dir : str | Path
        Folder for the shards and their settings; made if it is not there.
    landmarks : str | Path | None
        List or folder that tells where the faces are, see `FaceLocator`. Without it and `boxes` it is CelebA's list or
        the folder ``landmarks`` in `root`, where there is one.
    boxes : str | Path | None
        List of boxes, see `FaceLocator`.
    detect : bool
        Whether to search where nothing else tells, if the extra ``detect`` is installed.
    size : int
        Side of the crop.
    shard_size : int
        Photos a shard; a shard holds fewer samples if some are rejected.
    jobs : int
        Worker processes; the shards do not depend on it.
    seed : int
        Of the draw of `count` photos.
    count : int | None
        Photos to draw; None takes all.
    repair : bool
        Compare every byte of the shards that are there with its digest, and make those again that are damaged.
    progress : Callable[..., tqdm]
        Makes the progress bar; called as tqdm is.

    Returns
    -------
    BuildSummary
        Of all shards, also those that were there before. `FaceLocator` and `fill_shards` say what may go wrong.
    """
    root = Path(root).absolute()  # workers may be elsewhere
    entries = select(find_samples(root), count, seed)
    if landmarks is None and boxes is None:
        known = (root / name for name in (*CELEBA_LISTS, LANDMARK_FOLDER))
        landmarks = next((path for path in known if path.exists()), None)
    landmarks, boxes = (Path(path).absolute() if path else None for path in (landmarks, boxes))
    locator = FaceLocator(landmarks, boxes, detect)
    entries = [
        replace(entry, parameters_path=None, landmarks_path=locator.beside(entry.image_path)) for entry in entries
    ]
    settings = {
        "kind": KIND, "schema_version": SCHEMA_VERSION, "size": size, "shard_size": shard_size, **locator.settings,
        **photo_settings(entries),
    }
    plan = ShardPlan(Path(out_dir), settings, {"pixels": CONVENTIONS["pixels"]}, _FacesMaker())
    return fill_shards(entries, shard_size, partial(FaceCropper, locator, size), [plan], {}, jobs, progress, repair)[0]


def open_faces(source: str | Path | Sequence) -> ShardSet:
    """Open shards of this kind and schema; ValueError for any other."""
    return open_kind(source, KIND, SCHEMA_VERSION)


def _preview(photo: np.ndarray) -> bytes:
    """A small JPEG of the whole photo."""
    file = BytesIO()
    ImageOps.pad(Image.fromarray(photo), (_PREVIEW, _PREVIEW), color="white").save(file, "JPEG")
    return file.getvalue()
