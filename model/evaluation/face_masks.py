"""Where a photo shows a face, as others have marked it: mask files, CelebAMask-HQ's parts, or a parsing network.

Pixels are 0-based with centres at whole numbers. Dimension key: H/W pixels of a mask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from asmgen.crop import Square, crop_image, square_transform
from model.parsing import INPUT_SIZE, FaceParsing
from model.photos import Photo

PARTS = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
"""CelebAMask-HQ's names of what lies within a face's outline: no ears, neck or hair, but glasses and an open mouth."""

PARSED = (
    "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow", "mouth", "upper lip", "lower lip",
)
"""The same among `model.parsing.CLASSES`."""

_PART = re.compile(rf"(.+)_({'|'.join(PARTS)})")


@dataclass(frozen=True, eq=False)
class FaceMask:
    """A marked face.

    Attributes
    ----------
    inside : np.ndarray
        (H, W) bool, at least one pixel of it true.
    transform : np.ndarray
        (2, 3) from pixels of the photo to those of the mask, which it shifts and scales, and does not turn.
    """

    inside: np.ndarray
    transform: np.ndarray

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest x, y of the face, (2,) each, pixels of the photo."""
        rows, columns = np.flatnonzero(self.inside.any(1)), np.flatnonzero(self.inside.any(0))
        corners = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], np.float64)
        low, high = (corners - self.transform[:, 2]) / self.transform[[0, 1], [0, 1]]
        return low, high

    def sample(self, to_picture: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return the mask in a picture of the photo, by the nearest pixel; nothing is marked beyond its border.

        Parameters
        ----------
        to_picture : np.ndarray
            (2, 3) from pixels of the photo to those of the picture, as `transform`.
        height : int
            Of the picture, pixels.
        width : int
            Of the picture, pixels.

        Returns
        -------
        np.ndarray
            (height, width) bool.
        """
        ends = []
        for axis, count in enumerate((width, height)):
            in_photo = (np.arange(count) - to_picture[axis, 2]) / to_picture[axis, axis]
            ends.append(np.floor(in_photo * self.transform[axis, axis] + self.transform[axis, 2] + 0.5).astype(int))
        columns, rows = ends
        padded = np.pad(self.inside, 1)
        return padded[np.ix_(*(np.clip(at + 1, 0, size + 1) for at, size in zip((rows, columns), self.inside.shape)))]


class MaskFolder:
    """Mask files of photos, found by their names.

    The mask of the photo ``a/b.jpg`` is ``a/b.png``, in which whatever is not 0 is face; or, as in CelebAMask-HQ, the
    union of `PARTS` in ``a/b_skin.png``, ``a/b_nose.png``, ... Masks of a photo whose name is a number may also have it
    with leading zeros, and lie in any folder: ``CelebAMask-HQ-mask-anno/0/00012_skin.png`` of
    ``CelebA-HQ-img/12.jpg``. A mask may have another resolution than its photo.

    Parameters
    ----------
    folder : Path
        With the masks, or with folders of them.

    Raises
    ------
    ValueError
        If there is no PNG file.
    """

    def __init__(self, folder: Path):
        self.folder, self._whole, self._parts, self._numbered = Path(folder), {}, {}, {}
        for path in sorted(self.folder.rglob("*.png")):
            name = path.relative_to(self.folder).with_suffix("").as_posix()
            self._whole[name] = path
            if match := _PART.fullmatch(name):
                name, part = match.groups()
                self._parts.setdefault(name, {})[part] = path
            if (number := name.split("/")[-1]).isdecimal():
                self._numbered.setdefault(int(number), name)
        if not self._whole:
            raise ValueError(f"{folder} must hold masks (.png) named as their photos, got none")

    def mask(self, photo: Photo, size: tuple[int, int]) -> FaceMask:
        """Read the mask of a photo.

        Parameters
        ----------
        photo : Photo
            As `find_photos` names it.
        size : tuple[int, int]
            Width and height of the photo, upright, pixels.

        Returns
        -------
        FaceMask
            Of all its files.

        Raises
        ------
        ValueError
            If there is none, it cannot be read, marks nothing, or has not the shape of the photo.
        """
        last = photo.name.split("/")[-1]
        numbered = self._numbered.get(int(last)) if last.isdecimal() else None
        for name in (photo.name, numbered):
            parts = self._parts.get(name, {})
            paths = [self._whole[name]] if name in self._whole else [parts[part] for part in PARTS if part in parts]
            if paths:
                break
        else:
            raise ValueError(f"{self.folder} has no mask {photo.name}.png or {photo.name}_skin.png, ...")
        masks = [_read(path) for path in paths]
        for path, mask in zip(paths, masks):
            if mask.shape != masks[0].shape:
                raise ValueError(f"{path} must be as large as {paths[0]}, {masks[0].shape}, got {mask.shape}")
        inside = np.logical_or.reduce(masks)
        height, width = inside.shape
        if abs(width * size[1] - height * size[0]) > max(width, height) + max(size):  # a pixel of either
            raise ValueError(f"{paths[0]} must have the shape of its photo, {size[0]}x{size[1]}, got {width}x{height}")
        if not inside.any():
            raise ValueError(f"{paths[0]} marks no face")
        factors = np.array([width, height]) / size
        return FaceMask(inside, np.column_stack([np.diag(factors), (factors - 1) / 2]))


def _read(path: Path) -> np.ndarray:
    """(H, W) bool: where a picture is not 0; ValueError if it is none."""
    try:
        with Image.open(path) as image:
            # a palette's numbers are what counts, an alpha channel is not
            pixels = np.asarray(image if image.mode in ("1", "P", "L", "I", "I;16") else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} must be a picture, but cannot be read ({error})") from error
    return np.any(pixels.reshape(*pixels.shape[:2], -1), -1)


def parsed_mask(parsing: FaceParsing, photo: np.ndarray, square: Square) -> FaceMask:
    """Return what a network takes for face (`PARSED`) in the square about a face; beyond it nothing is.

    Parameters
    ----------
    parsing : FaceParsing
        From `load_parsing_network`.
    photo : np.ndarray
        (H, W, 3) uint8 RGB.
    square : Square
        See `asmgen.crop`.

    Returns
    -------
    FaceMask
        Of the network's resolution.

    Raises
    ------
    ValueError
        If it finds no face.
    """
    crop = torch.tensor(crop_image(photo, square, INPUT_SIZE), device=parsing.mean.device)
    inside = parsing.face_mask(crop.permute(2, 0, 1)[None].float() / 255, PARSED)[0, 0].cpu().numpy()
    if not inside.any():
        raise ValueError("face parsing finds no face")
    return FaceMask(inside, square_transform(square, INPUT_SIZE))
