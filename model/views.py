"""Pictures of a reconstructed face: over its photo, as clay, its normals and depth, and turning.

All are drawn by the renderer of Eq. (19), through the camera that the face was reconstructed for.
Dimension key: V vertices, H/W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from asmgen.crop import Square
from bfm.pose import project, transform_placement
from bfm.render import clay_colours
from model.render import FaceRenderer, Rendered

PICTURE_SIZE = 512
"""Longer side of a picture, pixels, at most."""

_SURROUNDINGS = 0.1
"""Of the face square's side: so much of the photo is shown around it."""

DEPTH_STEPS, DEPTH_ZERO = 100, 32768
"""A depth picture's steps a millimetre, and its value at the depth of the model's origin."""

TURNTABLE_FRAMES = 24
_TURNTABLE_REACH = np.radians(70)
_TURNTABLE_MS = 80
_BORDER = 1.08

BACKDROP = np.array([44, 46, 50], np.uint8)
"""Behind faces without a photo; dark, as an open mouth is."""


@dataclass(frozen=True, eq=False)
class PlacedFace:
    """A face, its colours, and where it stands in a picture; numpy.

    Attributes
    ----------
    vertices : np.ndarray
        (V, 3) mm, canonical: neutral pose.
    albedo : np.ndarray
        (V, 3) RGB in [0, 1].
    light : np.ndarray
        (9,) spherical harmonics (`bfm.light`).
    pose, position : np.ndarray
        (3,) radians, (3,) t_x, t_y, scale in pixels of the picture.
    """

    vertices: np.ndarray
    albedo: np.ndarray
    light: np.ndarray
    pose: np.ndarray
    position: np.ndarray

    def transformed(self, transform: np.ndarray) -> PlacedFace:
        """Return the face in the picture that a (2, 3) similarity makes of this one."""
        pose, position = transform_placement(self.pose, self.position, transform)
        return replace(self, pose=pose, position=position)


class Surroundings(NamedTuple):
    """The part of a photo around a face, at most `PICTURE_SIZE` pixels large.

    Attributes
    ----------
    picture : np.ndarray
        (H, W, 3) uint8.
    transform : np.ndarray
        (2, 3) from pixels of the photo to those of the picture.
    """

    picture: np.ndarray
    transform: np.ndarray


def surroundings(photo: np.ndarray, square: Square) -> Surroundings:
    """Return the part of an (H, W, 3) uint8 RGB photo around a face square that meets it (`asmgen.crop`)."""
    left, top, side = square
    around, (height, width) = _SURROUNDINGS * side, photo.shape[:2]
    box = (
        max(0, int(left - around)), max(0, int(top - around)),
        min(width, int(np.ceil(left + side + around))), min(height, int(np.ceil(top + side + around))),
    )
    factor = min(1.0, PICTURE_SIZE / max(box[2] - box[0], box[3] - box[1]))
    # whole pixels, of one size along both axes
    width, height = (max(1, int(factor * (box[k + 2] - box[k]) + 1e-6)) for k in (0, 1))
    box = (*box[:2], min(box[2], box[0] + width / factor), min(box[3], box[1] + height / factor))
    small = Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS, box=box)
    shift = (factor - 1) / 2  # pixel centres at whole numbers
    transform = np.array([[factor, 0, shift - factor * box[0]], [0, factor, shift - factor * box[1]]])
    return Surroundings(np.asarray(small), transform)


def draw(renderer: FaceRenderer, face: PlacedFace, height: int, width: int) -> Rendered:
    """Render one face into a picture.

    Parameters
    ----------
    renderer : FaceRenderer
        Of the face's model and camera.
    face : PlacedFace
        Placed in the picture.
    height : int
        Of the picture, pixels.
    width : int
        Of the picture, pixels.

    Returns
    -------
    Rendered
        A batch of one, cut to (height, width).
    """
    rendered = draw_turned(renderer, face, face.pose[None], max(height, width))
    pictures = {key: part[..., :height, :width] for key, part in rendered._asdict().items() if part.ndim == 4}
    return rendered._replace(**pictures)


@torch.no_grad()
def draw_turned(renderer: FaceRenderer, face: PlacedFace, poses: np.ndarray, size: int) -> Rendered:
    """Render one face in several (N, 3) poses into square pictures, a batch of them."""
    device = next(renderer.buffers()).device
    vertices, albedo, light, position = (
        torch.as_tensor(np.asarray(values, np.float32), device=device).expand(len(poses), *values.shape)
        for values in (face.vertices, face.albedo, face.light, face.position)
    )
    poses = torch.as_tensor(np.asarray(poses, np.float32), device=device)
    return renderer.render_vertices(vertices, albedo, light, poses, position, size)


def textured(rendered: Rendered, background: np.ndarray) -> np.ndarray:
    """Return I_R over an (H, W, 3) uint8 picture, as one."""
    return _over(_pixels(rendered.image), rendered, background)


def clay(rendered: Rendered, background: np.ndarray) -> np.ndarray:
    """Return the face as grey clay over an (H, W, 3) uint8 picture, as one."""
    return _over(clay_colours(_pixels(rendered.normals)), rendered, background)


def normal_picture(rendered: Rendered) -> np.ndarray:
    """Return (H, W, 3) uint8: 127.5 (n + 1) of the unit normals n, x right, y up, z toward the camera; 0 beside it."""
    return _over((_pixels(rendered.normals) + 1) / 2, rendered, np.uint8(0))


def depth_picture(rendered: Rendered) -> np.ndarray:
    """Return (H, W) uint16: `DEPTH_ZERO` + `DEPTH_STEPS` a millimetre toward the camera; 0 beside the face."""
    steps = np.rint(DEPTH_ZERO + DEPTH_STEPS * _pixels(rendered.depth)[..., 0])
    return np.where(_pixels(rendered.mask)[..., 0], np.clip(steps, 1, 65535), 0).astype(np.uint16)


def turntable(
    renderer: FaceRenderer, face: PlacedFace, frames: int = TURNTABLE_FRAMES, size: int = 256
) -> list[np.ndarray]:
    """Draw a face that swings about its vertical axis under its own light, as it looks and as clay.

    Parameters
    ----------
    renderer : FaceRenderer
        Of the face's model and camera.
    face : PlacedFace
        Its pose and position are not used.
    frames : int
        Pictures, an even number. The first and the middle one are frontal; after the last comes the first.
    size : int
        Side of one face, pixels.

    Returns
    -------
    list[np.ndarray]
        (size, 2 size, 3) uint8.
    """
    swing = np.sin(2 * np.pi * np.arange(frames) / frames)
    yaws, order = np.unique(np.round(_TURNTABLE_REACH * swing, 9), return_inverse=True)
    poses = np.stack([0 * yaws, yaws, 0 * yaws], 1)
    placed = project(face.vertices[None], poses, np.tile([0.0, 0, 1], (len(poses), 1)), renderer.camera_distance)
    low, high = placed[..., :2].min((0, 1)), placed[..., :2].max((0, 1))
    scale = size / (_BORDER * (high - low).max())
    shift = (size - 1) / 2 - scale * (low + high) / 2
    placed = replace(face, position=np.array([*shift, scale]))
    behind = np.broadcast_to(BACKDROP, (size, size, 3))
    views = map(Rendered._make, zip(*(part.split(1) for part in draw_turned(renderer, placed, poses, size))))
    pictures = [np.concatenate([textured(view, behind), clay(view, behind)], 1) for view in views]
    return [pictures[k] for k in order]


def write_gif(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """Write (H, W, 3) uint8 frames as an endless GIF and return the file."""
    pictures = [Image.fromarray(frame) for frame in frames]
    # one palette, so that colours do not flicker
    palette = Image.fromarray(np.concatenate(frames[::len(frames) // 4])).quantize(256, Image.Quantize.MEDIANCUT)
    first, *rest = (picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for picture in pictures)
    first.save(path, save_all=True, append_images=rest, duration=_TURNTABLE_MS, loop=0)
    return Path(path)


def _pixels(part: torch.Tensor) -> np.ndarray:
    """(H, W, C) of a (1, C, H, W) tensor."""
    return part[0].permute(1, 2, 0).cpu().numpy()


def _over(colours: np.ndarray, rendered: Rendered, background: np.ndarray | np.uint8) -> np.ndarray:
    """(H, W, 3) uint8: colours in [0, 1] where the face is, the background elsewhere."""
    return np.where(_pixels(rendered.mask), np.rint(np.clip(colours, 0, 1) * 255), background).astype(np.uint8)
