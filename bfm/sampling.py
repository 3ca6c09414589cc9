"""Bilinear sampling of images and maps at points, as four texels and four weights a point.

Pixels are 0-based with centres at whole numbers; points beyond the border read the border.
"""

from __future__ import annotations

import cv2
import numpy as np


def bilinear_taps(points: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where and how strongly a bilinear read at each point touches an image.

    Parameters
    ----------
    points : np.ndarray
        (N, 2) x, y in pixels.
    height : int
        Rows of the image.
    width : int
        Columns of the image.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (N, 4) int64 flat indices ``row * width + column`` and (N, 4) float32 weights, each row summing to 1.
    """
    x = np.clip(points[:, 0], 0, width - 1)
    y = np.clip(points[:, 1], 0, height - 1)
    left = np.minimum(x.astype(np.int64), max(width - 2, 0))
    top = np.minimum(y.astype(np.int64), max(height - 2, 0))
    fx, fy = x - left, y - top
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    texels = np.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right], 1)
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], 1)
    return texels, weights.astype(np.float32)


def sample_image(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the bilinear values, (N, C) float32, of an (H, W, C) image, C up to 4, at (N, 2) points in pixels."""
    height, width, channels = image.shape
    if not len(points):
        return np.empty((0, channels), np.float32)  # of which OpenCV makes an error
    if channels == 3:  # four channels are gathered as one word
        image = cv2.cvtColor(image if image.dtype == np.uint8 else image.astype(np.float32), cv2.COLOR_RGB2RGBA)
    pixels = image.reshape(height * width, -1)
    x, y = (np.clip(points[:, axis], 0, last) for axis, last in ((0, width - 1), (1, height - 1)))
    left, top = np.minimum(x.astype(np.int32), max(width - 2, 0)), np.minimum(y.astype(np.int32), max(height - 2, 0))
    to_right, to_bottom = (
        cv2.merge([(part - whole).astype(np.float32)] * pixels.shape[1]).reshape(len(points), -1)
        for part, whole in ((x, left), (y, top))
    )
    right, below = int(width > 1), width * int(height > 1)
    first = top.astype(np.intp) * width + left

    def along_row(start):
        near, far = (pixels.take(start + step, axis=0).astype(np.float32) for step in (0, right))
        return _between(near, far, to_right)

    return _between(along_row(first), along_row(first + below), to_bottom)[:, :channels]


def _between(near, far, share):
    """Linear interpolation; overwrites `far`."""
    far -= near
    far *= share
    far += near
    return far
