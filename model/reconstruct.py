"""Photos to textured meshes with a trained geometry stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from asmgen.crop import Square, crop_image, face_square, square_transform
from asmgen.landmark_files import read_landmarks
from asmgen.w300lp import read_photo
from bfm.model_file import load_model
from bfm.morphable_model import MorphableModel
from bfm.pose import project, transform_placement
from bfm.render import clay
from model.geometry import denormalise_position
from model.mesh_files import textured_mesh, write_glb, write_obj, write_ply
from model.train_geometry import load_geometry_stream, map_space

OVERLAY_SIZE = 768
"""Longer side of the overlay picture, pixels, at most."""

EXPRESSION_GAIN = 8
"""How much stronger the expression map is drawn in the picture of the maps."""


@dataclass(frozen=True)
class Outcome:
    """What became of one photo.

    Attributes
    ----------
    image : Path
        The photo.
    files : tuple[Path, ...]
        What was written.
    error : str
        Why nothing was; empty if all went well.
    """

    image: Path
    files: tuple[Path, ...] = ()
    error: str = ""


@dataclass(frozen=True, eq=False)
class FaceGeometry:
    """A reconstructed face, in numpy.

    Attributes
    ----------
    vertices : np.ndarray
        (V, 3) mm, canonical: neutral pose, with the photo's expression.
    identity_map, expression_map : np.ndarray
        (3, S, S).
    albedo_coeffs, light : np.ndarray
        (K,) in standard deviations, (9,).
    pose, position : np.ndarray
        (3,) radians, (3,) t_x, t_y, scale in pixels of the photo.
    """

    vertices: np.ndarray
    identity_map: np.ndarray
    expression_map: np.ndarray
    albedo_coeffs: np.ndarray
    light: np.ndarray
    pose: np.ndarray
    position: np.ndarray


class Reconstructor:
    """A trained geometry stream with its face model, ready for photos.

    Parameters
    ----------
    checkpoint : Path
        Checkpoint of a run, or the run's folder.
    model : MorphableModel | None
        The face model that it was trained on; None is the open model.
    device : str | None
        Torch device; None is the GPU if there is one.

    Attributes
    ----------
    model : MorphableModel
        Face part of the model, numpy.
    maps : AttributeMaps
        Its map space, numpy.
    metadata : dict
        Of the checkpoint.

    Raises
    ------
    ValueError
        If the checkpoint is from the first phase of training: its decoders would draw the mean face.
    """

    def __init__(self, checkpoint: Path, model: MorphableModel | None = None, device: str | None = None):
        trained = load_geometry_stream(checkpoint, device)
        self.network, self.metadata = trained.network, trained.metadata
        if trained.step <= trained.config.parameter_steps:
            raise ValueError(
                f"{checkpoint} has {trained.step} steps done, but its decoders are trained only after step "
                f"{trained.config.parameter_steps}; train on with --resume"
            )
        uv = self.metadata["chart_uv"].numpy()
        self.model, self.maps = map_space(self.metadata, model or load_model("open"), uv)
        self.device = next(self.network.parameters()).device

    @torch.no_grad()
    def __call__(self, photo: Image.Image, square: Square) -> FaceGeometry:
        """Return the face within a square of an RGB photo (`asmgen.crop`)."""
        size = self.metadata["size"]
        crop = torch.tensor(crop_image(photo, square, size), device=self.device)
        predicted = self.network(crop.permute(2, 0, 1)[None].float() / 255)
        identity, expression = predicted.identity_map[0].cpu().numpy(), predicted.expression_map[0].cpu().numpy()
        position = denormalise_position(predicted.parameters.position, size)[0].double().cpu().numpy()
        albedo, light, pose = (values[0].cpu().numpy() for values in predicted.parameters[:3])
        to_photo = np.linalg.inv(np.vstack([square_transform(square, size), [0, 0, 1]]))[:2]
        pose, position = transform_placement(pose.astype(np.float64), position, to_photo)
        return FaceGeometry(
            self.maps.vertices(identity + expression), identity, expression, albedo, light, pose, position
        )

    def albedo(self, face: FaceGeometry) -> np.ndarray:
        """Return the (V, 3) RGB albedo of a face: the model's mean where it has no texture to vary."""
        return self.model.albedo(face.albedo_coeffs) if self.model.has_albedo else self.model.mean_albedo


def reconstruct(
    images: Sequence[Path], checkpoint: Path, out_dir: Path,
    boxes: Sequence[tuple[float, float, float, float]] | None = None, landmarks: Sequence[Path] | None = None,
    model: MorphableModel | None = None, device: str | None = None,
) -> Iterator[Outcome]:
    """Reconstruct the face in each photo and write it out; a photo that fails does not stop the rest.

    Into `out_dir`, under the photo's name: ``.obj`` with ``.mtl`` and ``_albedo.png``, ``.ply``, ``.glb``,
    ``_overlay.png`` (the photo, and the mesh over it), ``_maps.png`` (identity, expression, sum) and
    ``_parameters.json``.

    Parameters
    ----------
    images : Sequence[Path]
        Photos of one face each.
    checkpoint : Path
        Checkpoint of a run, or the run's folder.
    out_dir : Path
        Made if need be; files of the same names are replaced.
    boxes : Sequence[tuple[float, float, float, float]] | None
        Left, top, right, bottom of each face from eyebrows to chin, pixels of its photo.
    landmarks : Sequence[Path] | None
        The file of 68 landmarks of each photo (`read_landmarks`). Without either the photo is itself the crop.
    model : MorphableModel | None
        The face model that the checkpoint was trained on; None is the open model.
    device : str | None
        Torch device; None is the GPU if there is one.

    Yields
    ------
    Outcome
        One a photo, in order.

    Raises
    ------
    ValueError
        If the numbers of photos and boxes or landmark files differ, or two photos have the same name.
    """
    images = [Path(image) for image in images]
    for name, given in (("boxes", boxes), ("landmarks", landmarks)):
        if given is not None and len(given) != len(images):
            raise ValueError(f"{name} must have one entry a photo, got {len(given)} for {len(images)} photos")
    if boxes is not None and landmarks is not None:
        raise ValueError("give boxes or landmarks, not both")
    names = [image.stem for image in images]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two photos are called {twice}; their meshes would overwrite each other: run them apart")
    reconstructor = Reconstructor(checkpoint, model, device)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        try:
            photo = read_photo(image)
            if landmarks is not None:
                square = face_square(read_landmarks(landmarks[index]))
            elif boxes is not None:
                square = box_square(boxes[index])
            else:
                square = whole_square(photo)
            files = write_face(reconstructor, photo, square, reconstructor(photo, square), out_dir / image.stem)
            yield Outcome(image, tuple(files))
        except (OSError, ValueError) as error:
            yield Outcome(image, error=str(error))


def box_square(box: tuple[float, float, float, float]) -> Square:
    """Return the square around a face whose box, left, top, right, bottom, reaches from eyebrows to chin."""
    left, top, right, bottom = box
    if not (right > left and bottom > top):
        raise ValueError(f"a box must be left, top, right, bottom with left < right and top < bottom, got {box}")
    return face_square(np.array([[left, top], [right, bottom]], np.float64))


def whole_square(photo: Image.Image) -> Square:
    """Return the smallest square that holds the whole photo."""
    side = max(photo.size)
    return (photo.width - side) / 2, (photo.height - side) / 2, float(side)


def write_face(
    reconstructor: Reconstructor, photo: Image.Image, square: Square, face: FaceGeometry, stem: Path
) -> list[Path]:
    """Write every file of one face (see `reconstruct`) and return them.

    Parameters
    ----------
    reconstructor : Reconstructor
        That made the face.
    photo : Image.Image
        Where the face was found.
    square : Square
        Where in the photo.
    face : FaceGeometry
        The face.
    stem : Path
        Path of the files without their endings.

    Returns
    -------
    list[Path]
        The files.
    """
    def ending(text: str) -> Path:
        return stem.with_name(stem.name + text)

    model, chart = reconstructor.model, reconstructor.maps.chart
    mesh = textured_mesh(face.vertices, model.triangles, reconstructor.albedo(face), chart)
    files = [*write_obj(ending(".obj"), mesh), write_ply(ending(".ply"), mesh), write_glb(ending(".glb"), mesh)]
    for name, picture in (("_overlay.png", _overlay(photo, face, model)), ("_maps.png", _maps_picture(face))):
        Image.fromarray(picture).save(ending(name))
        files.append(ending(name))
    metadata = reconstructor.metadata
    described = {
        "pose": face.pose.tolist(), "pose_units": "pitch, yaw, roll, radians (300W-LP's signs)",
        "position": face.position.tolist(), "position_units": "t_x, t_y, scale in photo pixels (a millimetre)",
        "light": face.light.tolist(), "albedo_coeffs": face.albedo_coeffs.tolist(),
        "square": list(square), "square_units": "left, top, side, photo pixels",
        **{key: metadata[key] for key in ("face_model", "face_model_sha256", "licence", "chart", "size")},
    }
    parameters = ending("_parameters.json")
    parameters.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return [*files, parameters]


def _overlay(photo: Image.Image, face: FaceGeometry, model: MorphableModel) -> np.ndarray:
    """The photo, and beside it the photo with the mesh over it."""
    factor = min(1.0, OVERLAY_SIZE / max(photo.size))
    size = tuple(max(1, round(side * factor)) for side in photo.size)
    small = np.asarray(photo.resize(size, Image.Resampling.LANCZOS))
    shift = (factor - 1) / 2  # pixel centres at whole numbers
    transform = np.array([[factor, 0, shift], [0, factor, shift]])
    points = project(face.vertices.astype(np.float64), *transform_placement(face.pose, face.position, transform))
    return np.concatenate([small, clay(points, model.triangles, small)], 1)


def _maps_picture(face: FaceGeometry) -> np.ndarray:
    """Identity map, expression map (stronger) and their sum, -1 to 1 as 0 to 255."""
    maps = (face.identity_map, EXPRESSION_GAIN * face.expression_map, face.identity_map + face.expression_map)
    pictures = [np.clip((values + 1) * 127.5, 0, 255).transpose(1, 2, 0) for values in maps]
    return np.rint(np.concatenate(pictures, 1)).astype(np.uint8)
