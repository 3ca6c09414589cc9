"""What is behind the face in a synthetic photo: things out of focus, and before them hair, neck and shoulders.

Dimension key: H = W pixels of a photo.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from bfm.light import sh_basis

_REDUCTION = 3


def draw_backdrop(
    landmarks: np.ndarray, skin: np.ndarray, hair: np.ndarray, scale: float, light: np.ndarray,
    rng: np.random.Generator, image_size: int,
) -> np.ndarray:
    """Draw a random background, and the head and shoulders of whoever is in front of it.

    Parameters
    ----------
    landmarks : np.ndarray
        (68, 2+) pixels.
    skin : np.ndarray
        (3,) albedo, RGB in [0, 1].
    hair : np.ndarray
        (3,) albedo.
    scale : float
        Pixels a millimetre.
    light : np.ndarray
        (9,) of `bfm.light`, camera axes.
    rng : np.random.Generator
        Source of chance.
    image_size : int
        Side of the photo, pixels.

    Returns
    -------
    np.ndarray
        (H, W, 3) uint8, writable.
    """
    size = image_size // _REDUCTION + 1
    ramp = np.linspace(0, 1, size)
    a, b, c = _muted(rng), _muted(rng), _muted(rng)
    picture = a + (b - a) * ramp[:, None, None] * 0.6 + (c - a) * ramp[None, :, None] * 0.4
    for cells in (5, 17):
        coarse = (rng.normal(0, 16, (cells, cells, 1)) + rng.normal(0, 5, (cells, cells, 3))).clip(-90, 90) + 128
        grown = Image.fromarray(coarse.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        picture += np.asarray(grown, np.float32) - 128
    picture = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(2, 9)):
        x, y, width, height = rng.uniform((-0.2, -0.2, 0.05, 0.05), (1, 1, 0.6, 0.6)) * size
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape((x, y, x + width, y + height), fill=_rgb(_muted(rng)))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4)))

    # a head behind the mask of the face: an ellipsoid about its bounds, seen from the front
    draw = ImageDraw.Draw(picture)
    unit = scale / _REDUCTION
    jaw = landmarks[:17] / _REDUCTION
    back = jaw[[0, 16]].mean(axis=0)[:2]
    chin = jaw[8, :2]
    brows = landmarks[17:27].mean(axis=0)[:2] / _REDUCTION
    up = brows - chin
    up = up / max(np.linalg.norm(up), 1e-6)
    exposure = float(np.clip(sh_basis(np.array([[0.0, 0.0, 1.0]]))[0] @ light, 0.1, 1.2))
    skin = skin * exposure * 0.75
    shirt = _muted(rng)
    neck = back - up * 70 * unit
    foot = np.array([neck[0], size + 60 * unit])
    _disc(draw, foot - [0, 30 * unit], (190 * unit, 100 * unit), shirt)
    draw.line([*back, *neck, *(foot - [0, 100 * unit])], fill=_rgb(255 * skin), width=int(95 * unit), joint="curve")
    _disc(draw, back + up * 30 * unit, (rng.uniform(88, 110) * unit, rng.uniform(100, 125) * unit),
          255 * hair * exposure)
    head = picture.filter(ImageFilter.GaussianBlur(1.5))
    return np.array(head.resize((image_size, image_size), Image.Resampling.BICUBIC))


def _muted(rng: np.random.Generator) -> np.ndarray:
    """A colour 0..255, seldom a vivid one."""
    return rng.uniform(15, 235) + rng.normal(0, 28, 3)


def _disc(draw: ImageDraw.ImageDraw, centre: np.ndarray, radii: tuple[float, float], colour: np.ndarray) -> None:
    """Fill an upright ellipse."""
    x, y = centre
    draw.ellipse((x - radii[0], y - radii[1], x + radii[0], y + radii[1]), fill=_rgb(colour))


def _rgb(colour: np.ndarray) -> tuple[int, ...]:
    """Colour 0..255 as pillow wants it."""
    return tuple(np.clip(colour, 0, 255).astype(int).tolist())
