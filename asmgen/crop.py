"""The one way to place a face in a crop: a square from 68 landmarks, resized to the network's input.

Pixels of points are 0-based with centres at whole numbers; a square is given by its *edges*, so that the
square (0, 0, W) of a W x W image is the whole image and pixel 0 reaches from edge 0 to edge 1. Squares are of whole
pixels: what is stored of a face says where its crop was taken, and a resize is faster than a warp, and more exact.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from bfm.pose import transform_placement

MARGIN = 1.5
"""Side of the square over the longer side of the landmark box: holds the forehead, the ears' place, and a yaw of 90."""

RISE = 0.12
"""How far the centre of the square lies above that of the landmark box, over its longer side: the 68 landmarks
end at the eyebrows, the face model goes up to the hairline."""

LARGEST = 14_000
"""Side of a square that is cut out, pixels; with what it has of the photo it takes 0.6 GB."""

Square = tuple[int, int, int]
"""(left, top, side): edges in source pixels."""


def square_about(x: float, y: float, side: float) -> Square:
    """Return the square of whole pixels, at least one, of about this side about a centre (edges, source pixels)."""
    side = max(1, round(side))
    return round(x - side / 2), round(y - side / 2), side


def face_square(landmarks: np.ndarray) -> Square:
    """Return the square around a face.

    Parameters
    ----------
    landmarks : np.ndarray
        (N, 2) x, y in source pixels, the 68 landmarks or any points that span the same box.

    Returns
    -------
    Square
        (left, top, side), edges in source pixels; may reach outside the image.

    Raises
    ------
    ValueError
        If the landmarks are not finite or do not span a box.
    """
    if landmarks.ndim != 2 or landmarks.shape[1] != 2 or not np.isfinite(landmarks).all():
        raise ValueError(f"landmarks must be finite points of shape (N, 2), got shape {landmarks.shape}")
    (left, top), (right, bottom) = landmarks.min(axis=0).tolist(), landmarks.max(axis=0).tolist()
    extent = max(right - left, bottom - top)
    if extent < 1:
        raise ValueError(f"landmarks must span at least a pixel to place a crop, they span {extent:.2g}")
    # from pixel centres to edges
    return square_about((left + right) / 2 + 0.5, (top + bottom) / 2 + 0.5 - RISE * extent, MARGIN * extent)


def square_transform(square: Square, size: int) -> np.ndarray:
    """Return the (2, 3) similarity from source to crop pixels, both 0-based with centres at whole numbers."""
    left, top, side = square
    factor = size / side
    return np.array([[factor, 0, (0.5 - left) * factor - 0.5], [0, factor, (0.5 - top) * factor - 0.5]])


def placement_in_photo(
    pose: np.ndarray, position: np.ndarray, square: Square, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the placement in the photo of what is placed in a crop of it.

    Parameters
    ----------
    pose : np.ndarray
        (3,) radians.
    position : np.ndarray
        (3,) t_x, t_y, scale (`bfm.pose`) in pixels of the crop.
    square : Square
        What was cut out, edges in source pixels.
    size : int
        Side of the crop in pixels.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (3,) pose and (3,) position in source pixels, float64.
    """
    to_photo = np.linalg.inv(np.vstack([square_transform(square, size), [0, 0, 1]]))[:2]
    return transform_placement(pose.astype(np.float64), position.astype(np.float64), to_photo)


def crop_image(image: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Cut a square out of a photo and resize it, antialiased; outside the photo its edge pixels are repeated.

    Where the crop shrinks, bilinear reading alone would skip pixels. Whole pixels are averaged first, as many as fit
    into one of the crop, and three taps then widen the filter to the spread of a triangle as wide as two pixels of
    the crop, the filter of pillow's ``BILINEAR``. Where it grows, pixels beyond the square are not read. OpenCV's
    resize rounds down: colours are a tenth of a level too dark on average.

    Parameters
    ----------
    image : np.ndarray
        (H, W, 3) uint8 RGB photo.
    square : Square
        (left, top, side), edges in source pixels.
    size : int
        Side of the crop in pixels.

    Returns
    -------
    np.ndarray
        (size, size, 3) uint8.

    Raises
    ------
    ValueError
        If the square does not meet the image, is more than eight times as large, or wider than `LARGEST`.
    """
    left, top, side = square
    height, width = image.shape[:2]
    if left >= width or top >= height or left + side <= 0 or top + side <= 0:
        raise ValueError(f"the face square {_text(square)} lies outside the {width}x{height} image")
    if side > 8 * max(width, height):
        raise ValueError(f"the face square {_text(square)} is over eight times the {width}x{height} image")
    if side > LARGEST:
        raise ValueError(f"the face square {_text(square)} is over {LARGEST} pixels wide; make the photo smaller")
    step = max(1, (side - 1) // size)  # pixels that are averaged to one along each axis: one less where that were all
    count = math.ceil(side / step)
    # with what the taps reach, and a whole number of averages
    pixels = _cut(image, left - step, top - step, (count + 2) * step)
    pixels = _smoothed(pixels, step, side / size / step)[1:-1, 1:-1]
    factor = size * step / side  # of which the last average, where it is not whole, may give a row too much
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)[:size, :size]


def _cut(image: np.ndarray, x0: int, y0: int, side: int) -> np.ndarray:
    """The pixels of a square; those beyond the photo repeat its edge."""
    height, width = image.shape[:2]
    lacking = (max(-y0, 0), max(y0 + side - height, 0), max(-x0, 0), max(x0 + side - width, 0))
    image = image[max(y0, 0):y0 + side, max(x0, 0):x0 + side]
    return cv2.copyMakeBorder(image, *lacking, cv2.BORDER_REPLICATE) if any(lacking) else image


def _smoothed(image: np.ndarray, step: int, factor: float) -> np.ndarray:
    """The averages of step x step pixels, smoothed for reading by linear interpolation at every `factor`-th of them."""
    if step > 1:
        image = cv2.resize(image, (len(image) // step,) * 2, interpolation=cv2.INTER_AREA)
    # variances, in averages: factor^2 / 6 of the triangle; 1 / 6 of linear interpolation, and those of the averages
    outer = (factor**2 - 1 - (1 - 1 / step**2) / 2) / 12
    if outer <= 0:
        return image
    sigma = math.sqrt(-0.5 / math.log(outer / (1 - 2 * outer)))  # its samples at -1, 0, 1 are outer, the rest, outer
    return cv2.GaussianBlur(image, (3, 3), sigma, borderType=cv2.BORDER_REPLICATE)


def _text(square: Square) -> str:
    return "(left {}, top {}, side {})".format(*square)
