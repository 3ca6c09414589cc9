"""Read 300W-LP and AFLW2000-3D: photos with their fitted parameters and landmarks.

Every convention of the annotation files ends here. Files hold raw coefficients, micrometres, y up and pixels
counted from 1; samples hold coefficients in standard deviations, millimetres, y down and pixels counted from 0,
with whole numbers at pixel centres.

Dimension key: K modes of a basis, H/W pixels of the photo.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import basename, splitext
from pathlib import Path

import numpy as np

from asmgen.images import read_photo
from asmgen.matfile import read_mat
from asmgen.rejection import SampleError
from asmgen.source_files import printable, walk_folders
from bfm.morphable_model import BFM_COEFFICIENTS, MorphableModel
from bfm.pose import project

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
UNFINISHED = "unfinished"
"""File in the root of a tree that is being made by `dualface synth`, or was when that was stopped."""
LANDMARK_FOLDER = "landmarks"
IGNORED_FOLDERS = ("code", "__macosx")
FLIP_SUFFIX = "_Flip"

MAX_COEFFICIENT = 50.0
"""Standard deviations; beyond this an annotation is damaged, not unusual."""
MAX_NUMBER = 1e12
"""No annotation of any kind holds a number as large."""
MAX_LANDMARK_MISMATCH = 0.2
"""Of the landmark box: median distance between the projected model and the labels of the inner landmarks. The
labels of the real files differ by up to 0.05; a photo resized after it was annotated differs by more."""

_ANEW = "get the annotation anew"
_PARAMETER_KEYS = ("Shape_Para", "Exp_Para", "Pose_Para", "Tex_Para", "Face_Model", "Light_SH", "pt3d_68", "pt2d")
_LANDMARK_KEYS = ("pts_3d", "pts_2d")

_Parts = tuple[str, ...]  # of a path below the root; `Path` would take most of the time of a long list


@dataclass(frozen=True)
class SampleEntry:
    """Where the files of one photo are; nothing has been opened yet.

    Attributes
    ----------
    source : str
        Path of the photo below the root, with ``/``: unique and stable. Without suffix, but for photos that
        differ in nothing else. What cannot be printed (`printable`), and the backslash, is escaped.
    image_path : Path
        The photo.
    parameters_path, landmarks_path : Path | None
        ``<name>.mat`` and ``<name>_pts.mat``, where they exist.
    set_name : str
        Folder of the photo without ``_Flip``: AFW, HELEN, IBUG, LFPW, AFLW2000, ...
    flipped : bool
        Whether the photo is a mirrored one (from a ``_Flip`` folder).
    """

    source: str
    image_path: Path
    parameters_path: Path | None
    landmarks_path: Path | None
    set_name: str
    flipped: bool

    @property
    def name(self) -> str:
        """File name of the photo without suffix."""
        return self.image_path.stem

    @property
    def photo(self) -> str:
        """Name shared by the re-posed copies of one photo (`AFW_134212_1_3` -> `AFW_134212_1`): one identity."""
        return re.sub(r"(?<=_)(\w+)_\d+$", r"\1", self.name)


@dataclass(frozen=True, eq=False)
class FaceSample:
    """One annotated photo in the program's conventions.

    Attributes
    ----------
    entry : SampleEntry
        Where it came from.
    image : np.ndarray
        (H, W, 3) uint8 RGB photo, EXIF orientation applied.
    landmarks : np.ndarray | None
        (68, 2) float32 labelled landmarks, pixels.
    landmark_kind : str | None
        ``3d``: projected points of the face surface, hidden ones included (``pts_3d``, ``pt3d_68``);
        ``2d``: the far jaw is labelled on the visible outline (``pt2d``, ``pts_2d``).
    id_coeffs, exp_coeffs : np.ndarray | None
        (K,) float32, standard deviations; None where no model was given.
    albedo_coeffs : np.ndarray | None
        (K,) float32, standard deviations; None without model, texture basis or matching ``Tex_Para``.
    pose, position : np.ndarray | None
        (3,) float32 placement (`bfm.pose`), pixels of the photo; None where no model was given.
    light : np.ndarray | None
        (9,) float32 spherical harmonics (`bfm.light`); only synthetic files know it.
    """

    entry: SampleEntry
    image: np.ndarray
    landmarks: np.ndarray | None
    landmark_kind: str | None
    id_coeffs: np.ndarray | None = None
    exp_coeffs: np.ndarray | None = None
    albedo_coeffs: np.ndarray | None = None
    pose: np.ndarray | None = None
    position: np.ndarray | None = None
    light: np.ndarray | None = None

    @property
    def name(self) -> str:
        """File name of the photo without suffix."""
        return self.entry.name

    @property
    def set_name(self) -> str:
        """Set the photo belongs to."""
        return self.entry.set_name

    @property
    def image_path(self) -> Path:
        """The photo's file."""
        return self.entry.image_path


def find_samples(root: Path) -> list[SampleEntry]:
    """List the photos of a 300W-LP or AFLW2000-3D tree, whole or partial, sorted by path.

    Landmark files lie beside the photo or in ``landmarks/<set>/``; one without a photo of its own serves
    the only unflipped photo of its name. Folders named ``Code``, and hidden files and folders, are left out. Links to
    files and folders are followed, also out of the tree, but each folder is read once (`walk_folders`).

    Parameters
    ----------
    root : Path
        Folder of sets (``AFW``, ``AFW_Flip``, ...), or one flat folder of photos.

    Returns
    -------
    list[SampleEntry]
        One a photo, annotated or not; `read_sample` says what is wrong with one.

    Raises
    ------
    FileNotFoundError
        If `root` is no folder, holds no photo, or not yet all that `dualface synth` makes there.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; give the one that holds AFW, HELEN, ... or the photos")
    if (root / UNFINISHED).exists():
        raise FileNotFoundError(f"{root} lacks photos; run the `dualface synth` that makes them to its end")
    images: list[_Parts] = []
    annotations: set[_Parts] = set()
    root_name = root.resolve().name
    for below, names in walk_folders(root, lambda path: basename(path).lower() in IGNORED_FOLDERS):
        found = [(splitext(name)[1].lower(), (*below, name)) for name in names]
        annotations.update(parts for suffix, parts in found if suffix == ".mat")
        if LANDMARK_FOLDER not in below:
            images += [parts for suffix, parts in found if suffix in IMAGE_SUFFIXES]
    if not images:
        raise FileNotFoundError(
            f"{root} holds no photo ({', '.join(IMAGE_SUFFIXES)}); give the folder that holds the photos"
        )
    images.sort()
    landmark_files = _match_landmark_files(root_name, images, annotations)
    alike = Counter([*map(_without_suffix, images), *images])
    entries = []
    for parts in images:
        unsuffixed, folder_name = _without_suffix(parts), (root_name, *parts)[-2]
        parameters, landmarks = (*parts[:-1], f"{unsuffixed[-1]}.mat"), landmark_files.get(parts)
        entries.append(SampleEntry(
            source=_written("/".join(unsuffixed if alike[unsuffixed] == 1 else parts)),
            image_path=Path(root, *parts),
            parameters_path=Path(root, *parameters) if parameters in annotations else None,
            landmarks_path=Path(root, *landmarks) if landmarks else None,
            set_name=folder_name.removesuffix(FLIP_SUFFIX),
            flipped=folder_name.endswith(FLIP_SUFFIX),
        ))
    return entries


def _written(name: str) -> str:
    """A name as it is stored and printed; different for different names."""
    return printable(name.replace("\\", "\\\\"))


def _without_suffix(parts: _Parts) -> _Parts:
    """The path of a file without its suffix."""
    return *parts[:-1], splitext(parts[-1])[0]


def _match_landmark_files(root_name: str, images: list[_Parts], annotations: set[_Parts]) -> dict[_Parts, _Parts]:
    """Give each photo its `_pts.mat`: beside it, in `landmarks/<set>/`, or a lone one of its name."""
    matched = {}
    for parts in images if annotations else ():
        below, file_name = parts[:-1], f"{_without_suffix(parts)[-1]}_pts.mat"
        for folder in (below, (LANDMARK_FOLDER, *below), (*below[:-1], LANDMARK_FOLDER, *below[-1:])):
            if (*folder, file_name) in annotations:
                matched[parts] = (*folder, file_name)
                break
    lone: dict[str, list[_Parts]] = {}
    for parts in sorted(annotations.difference(matched.values())):
        if parts[-1].endswith("_pts.mat"):
            lone.setdefault(parts[-1].removesuffix("_pts.mat"), []).append(parts)
    unmatched: dict[str, list[_Parts]] = {}
    for parts in images if lone else ():
        if parts not in matched and not (root_name, *parts)[-2].endswith(FLIP_SUFFIX):
            unmatched.setdefault(_without_suffix(parts)[-1], []).append(parts)
    for name, photos in unmatched.items():
        if len(photos) == len(lone.get(name, ())) == 1:
            matched[photos[0]] = lone[name][0]
    return matched


def read_sample(entry: SampleEntry, model: MorphableModel | None) -> FaceSample:
    """Read one photo and its annotation.

    Parameters
    ----------
    entry : SampleEntry
        From `find_samples`.
    model : MorphableModel | None
        The model whose coefficients the annotation must hold. None reads the photo and its landmarks
        only, for `asmgen.refit`.

    Returns
    -------
    FaceSample
        With parameters if a model was given, else with landmarks only.

    Raises
    ------
    SampleError
        If a file is missing, unreadable or damaged, or if they do not belong together.
    """
    sample = read_annotation(entry, read_photo(entry.image_path), model)
    if model is not None:
        at = model.landmarks
        assert sample.id_coeffs is not None and sample.exp_coeffs is not None  # what a model is given for
        assert sample.pose is not None and sample.position is not None
        shape = (
            model.mean_shape[at].astype(np.float64)
            + np.tensordot(sample.id_coeffs, model.id_basis[:, at], 1)
            + np.tensordot(sample.exp_coeffs, model.exp_basis[:, at], 1)
        )
        reasons = misplacements([sample], project(shape, sample.pose, sample.position)[None, :, :2])
        if reasons:
            raise SampleError(*reasons[0])
    return sample


@np.errstate(invalid="ignore")  # of what is no number, which `_numbers` finds
def read_annotation(entry: SampleEntry, image: np.ndarray, model: MorphableModel | None) -> FaceSample:
    """Read the annotation of a photo as `read_sample` does, but for `misplacements`."""
    height, width = image.shape[:2]
    parameters = _read_mat(entry.parameters_path, _PARAMETER_KEYS) if entry.parameters_path else {}
    points = _read_mat(entry.landmarks_path, _LANDMARK_KEYS) if entry.landmarks_path else {}
    if not parameters and not points:
        raise SampleError(
            "no annotation",
            f"{entry.image_path.name} has neither {entry.name}.mat nor {entry.name}_pts.mat; "
            "put one beside it",
        )
    landmarks, kind = _read_landmarks(parameters, points, (width, height))
    if model is None:
        if landmarks is None:
            raise SampleError(
                "no landmarks",
                f"{entry.name} holds none of pts_3d, pt3d_68, pt2d or pts_2d with 68 points; give it one of them",
            )
        return FaceSample(entry, image, landmarks, kind)
    if not parameters:
        raise SampleError("no parameters", f"{entry.name} has landmarks only; use --refit to fit the face model")
    return FaceSample(entry, image, landmarks, kind, **_convert_parameters(parameters, model, height))


@np.errstate(invalid="ignore")
def read_placement(entry: SampleEntry, height: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Read where an annotation puts the face, whichever face model its coefficients are of.

    Parameters
    ----------
    entry : SampleEntry
        From `find_samples`.
    height : int
        Of the photo, pixels.

    Returns
    -------
    tuple[np.ndarray, np.ndarray] | None
        (3,) pose and (3,) position of `bfm.pose`, float32; None if no ``Pose_Para`` is annotated. SampleError is
        raised for a file that is unreadable or damaged.
    """
    parameters = _read_mat(entry.parameters_path, ("Pose_Para",)) if entry.parameters_path else {}
    return _placement(parameters, height) if parameters else None


def placement_from_pose_para(pose_para: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Convert 300W-LP's ``Pose_Para`` to a placement.

    Parameters
    ----------
    pose_para : np.ndarray
        (7,) pitch, yaw, roll (radians), tx, ty (pixels from 1, y up), tz, f (pixels a micrometre).
    height : int
        Photo height, pixels.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (3,) pose and (3,) position of `bfm.pose`, float64: ``tx - 1``, ``height - ty``, ``1000 f``.
    """
    pitch, yaw, roll, tx, ty, _, f = np.asarray(pose_para, np.float64).ravel()
    return np.array([pitch, yaw, roll]), np.array([tx - 1, height - ty, 1000 * f])


def pose_para_from_placement(pose: np.ndarray, position: np.ndarray, height: int) -> np.ndarray:
    """Convert a placement to ``Pose_Para``, the inverse of `placement_from_pose_para`.

    Parameters
    ----------
    pose : np.ndarray
        (3,) radians.
    position : np.ndarray
        (3,) t_x, t_y (pixels), scale (pixels a millimetre).
    height : int
        Photo height, pixels.

    Returns
    -------
    np.ndarray
        (1, 7) float32, as in the files; tz is 0.
    """
    x, y, scale = position
    return np.array([[*pose, x + 1, height - y, 0, scale / 1000]], np.float32)


def _read_mat(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray | str]:
    """The wanted arrays of an annotation file."""
    try:
        return read_mat(path, keys)
    except (OSError, ValueError) as error:
        raise SampleError("unreadable annotation", f"{path.name}: {error}") from error


def _numbers(arrays: dict[str, np.ndarray | str], key: str, count: int) -> np.ndarray:
    """The `count` finite numbers under a key, flat float64."""
    if key not in arrays:
        raise SampleError("missing key", f"the annotation lacks {key}; {_ANEW}")
    array = arrays[key]
    if not (isinstance(array, np.ndarray) and array.dtype.kind in "fiu"):
        raise SampleError("damaged annotation", f"{key} must hold real numbers, and holds something else; {_ANEW}")
    if array.size != count:
        raise SampleError("wrong shape", f"{key} must hold {count} values, got shape {array.shape}; {_ANEW}")
    values = array.astype(np.float64).ravel()
    if not np.abs(values).max(initial=0) < MAX_NUMBER:  # NaN too
        raise SampleError("damaged annotation", f"{key} holds NaN or values of no sensible size; {_ANEW}")
    return values


def _read_landmarks(
    parameters: dict[str, np.ndarray | str], points: dict[str, np.ndarray | str], size: tuple[int, int]
) -> tuple[np.ndarray | None, str | None]:
    """The best landmarks on offer, counted from 0, and their kind; (None, None) if there are none."""
    for arrays, key, kind in (
        (points, "pts_3d", "3d"), (parameters, "pt3d_68", "3d"), (parameters, "pt2d", "2d"), (points, "pts_2d", "2d")
    ):
        if key not in arrays:
            continue
        shape = np.shape(arrays[key])
        if key == "pt2d" and shape == (2, 21):  # AFLW's own 21 points, -1 for the hidden ones
            continue
        wanted = {"pt3d_68": (3, 68), "pt2d": (2, 68)}.get(key, (68, 2))
        if shape != wanted:
            raise SampleError("wrong shape", f"{key} must have shape {wanted}, got {shape}; {_ANEW}")
        values = _numbers(arrays, key, wanted[0] * wanted[1]).reshape(wanted)
        landmarks = (values if wanted == (68, 2) else values[:2].T) - 1
        (left, top), (right, bottom) = landmarks.min(axis=0).tolist(), landmarks.max(axis=0).tolist()
        if min(left, top) < -0.5 or right >= size[0] - 0.5 or bottom >= size[1] - 0.5:
            inside = ((landmarks >= -0.5) & (landmarks < np.array(size) - 0.5)).all(axis=1).sum()
            if inside < 34:
                raise SampleError(
                    "landmarks outside the image",
                    f"{68 - inside} of the 68 points of {key} lie outside the {size[0]}x{size[1]} photo; "
                    "give the photo that was annotated",
                )
        if min(right - left, bottom - top) < 1:
            raise SampleError("damaged annotation", f"the 68 points of {key} coincide; {_ANEW}")
        return landmarks.astype(np.float32), kind
    return None, None


def _convert_parameters(parameters: dict[str, np.ndarray | str], model: MorphableModel, height: int) -> dict:
    """The `FaceSample` fields that a parameter file gives for a model."""
    space = parameters.get("Face_Model", BFM_COEFFICIENTS)
    if not isinstance(space, str):
        raise SampleError("damaged annotation", f"Face_Model must be text, got shape {space.shape}; {_ANEW}")
    if space != model.coefficients:
        raise SampleError(
            "foreign coefficients",
            f"the annotation is in the space '{space}' and the face model '{model.name}' in '{model.coefficients}'; "
            "use --refit to fit this model, or give the other one",
        )
    pose, position = _placement(parameters, height)
    fields = {"pose": pose, "position": position}
    for field, key, stddev in (
        ("id_coeffs", "Shape_Para", model.id_stddev), ("exp_coeffs", "Exp_Para", model.exp_stddev)
    ):
        # an array that is mapped, as a worker's are, is slow to calculate with
        fields[field] = (_numbers(parameters, key, len(stddev)) / np.asarray(stddev)).astype(np.float32)
        largest = np.abs(fields[field]).max()
        if largest > MAX_COEFFICIENT:
            raise SampleError(
                "damaged annotation",
                f"{key} reaches {largest:.0f} standard deviations, at most {MAX_COEFFICIENT:.0f} are sensible; {_ANEW}",
            )
    if model.has_albedo and np.size(parameters.get("Tex_Para", ())) == len(model.albedo_stddev):
        raw = _numbers(parameters, "Tex_Para", len(model.albedo_stddev))
        fields["albedo_coeffs"] = (raw / np.asarray(model.albedo_stddev)).astype(np.float32)
    if "Light_SH" in parameters:
        fields["light"] = _numbers(parameters, "Light_SH", 9).astype(np.float32)
    return fields


def _placement(parameters: dict[str, np.ndarray | str], height: int) -> tuple[np.ndarray, np.ndarray]:
    """(3,) pose and (3,) position, float32, of ``Pose_Para``."""
    pose_para = _numbers(parameters, "Pose_Para", 7)
    pose, position = placement_from_pose_para(pose_para, height)
    if np.abs(pose).max() > 2 * np.pi or position[2] <= 0:
        raise SampleError(
            "damaged annotation",
            f"Pose_Para must hold angles in radians and a positive scale, got {pose.round(2)} and {pose_para[6]:g}; "
            f"{_ANEW}",
        )
    return pose.astype(np.float32), position.astype(np.float32)


def misplacements(samples: Sequence[FaceSample], projected: np.ndarray) -> dict[int, tuple[str, str]]:
    """Find the parameters that put a face off its photo or away from its labels.

    Parameters
    ----------
    samples : Sequence[FaceSample]
        B of them, from `read_annotation`.
    projected : np.ndarray
        (B, 68, 2) landmarks of the model where the parameters put them, pixels.

    Returns
    -------
    dict[int, tuple[str, str]]
        Why a sample is to be rejected, kind and detail of its `SampleError`, by its place among the samples.
    """
    sizes = np.array([sample.image.shape[1::-1] for sample in samples])
    coordinates = np.ascontiguousarray(projected.swapaxes(1, 2))
    boxes = np.sqrt(np.ptp(coordinates, axis=2).prod(axis=1))
    centres = np.median(coordinates, axis=2)
    outside = (boxes < 1) | ((centres < 0) | (centres >= sizes)).any(axis=1)
    # of what has no labels NaN, which is no mismatch; the jaw of 2d labels slides
    mismatches = np.median(np.linalg.norm((projected - stacked_labels(samples))[:, 17:], axis=2), axis=1)
    reasons = {}
    for row in np.flatnonzero(outside | (mismatches > MAX_LANDMARK_MISMATCH * boxes)).tolist():
        size = "{}x{}".format(*sizes[row])
        reasons[row] = (
            "face outside the image",
            f"Pose_Para puts a face of {boxes[row]:.0f} px at {centres[row].round().tolist()} in a {size} photo; "
            "give the photo that was annotated",
        ) if outside[row] else (
            "image size mismatch",
            f"parameters and landmarks are {mismatches[row]:.0f} px apart in the {size} photo; "
            "give it as it was annotated, not resized or cropped since",
        )
    return reasons


def stacked_labels(samples: Sequence[FaceSample]) -> np.ndarray:
    """Return the (B, 68, 2) labelled landmarks of B samples, NaN where there are none."""
    none = np.full((68, 2), np.nan, np.float32)
    return np.stack([none if sample.landmarks is None else sample.landmarks for sample in samples])
