"""Own photos in the layout of 300W-LP: each with a file of its 68 landmarks beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asmgen.dataset_files import mat_bytes, write_whole
from asmgen.images import MAX_BYTES
from asmgen.source_files import read_file

KINDS = {"3d": "pts_3d", "2d": "pts_2d"}
"""Of landmarks, and their names in the files: hidden points where they are on the face, or on the visible outline."""


def write_annotated(photo: Path, landmarks: np.ndarray, kind: str, stem: Path) -> list[Path]:
    """Write a photo and its landmarks as `asmgen.w300lp.find_samples` finds them.

    Parameters
    ----------
    photo : Path
        Its file, which is copied as it is.
    landmarks : np.ndarray
        (68, 2) pixels of the upright photo, 0-based with centres at whole numbers.
    kind : str
        ``3d`` or ``2d``, see `KINDS`.
    stem : Path
        Path of the files without their endings; the folder is made if need be.

    Returns
    -------
    list[Path]
        ``<stem>_pts.mat``, which counts pixels from 1, and then the photo, each whole or absent.

    Raises
    ------
    ValueError
        If the landmarks are not 68 finite points, or there is no such kind.
    """
    if landmarks.shape != (68, 2) or not np.isfinite(landmarks).all():
        raise ValueError(f"landmarks must be 68 finite points (68, 2), got shape {landmarks.shape}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    annotation = stem.with_name(f"{stem.name}_pts.mat")
    copied = stem.with_name(stem.name + photo.suffix)
    write_whole(annotation, mat_bytes({KINDS[kind]: (landmarks + 1).astype(np.float32)}))
    write_whole(copied, read_file(photo, MAX_BYTES))
    return [annotation, copied]
