"""The people of MICC Florence: where their scans and videos are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.evaluation.alignment import CROP_RADIUS
from model.evaluation.videos import VIDEO_SUFFIXES

CONDITIONS = {"cooperative": "Indoor-Cooperative", "indoor": "PTZ-Indoor", "outdoor": "PTZ-Outdoor"}
"""Condition to the name of its video."""

SMALLER_CROPS = {"subject_28": 60.0}
"""Subjects whose scans are compared within another radius, mm."""

_SCANS, _VIDEO_FOLDERS = ("frontal1", "frontal2"), ("Video", "Videos")


@dataclass(frozen=True)
class Subject:
    """A person of the dataset.

    Attributes
    ----------
    name : str
        ``subject_01``, ...
    scans : tuple[Path, ...]
        The frontal scans there are, in order.
    videos : dict[str, Path]
        Condition to its video, those that there are.
    """

    name: str
    scans: tuple[Path, ...]
    videos: dict[str, Path]

    @property
    def radius(self) -> float:
        """Of the crop, mm."""
        return SMALLER_CROPS.get(self.name, CROP_RADIUS)


def find_subjects(root: Path) -> tuple[list[Subject], list[str]]:
    """List the subjects of MICC Florence, and the scans they lack.

    Parameters
    ----------
    root : Path
        With ``subject_XX/Model/frontal1/obj/*.obj`` (and ``frontal2``), and ``subject_XX/Video`` or ``Videos`` with the
        videos of `CONDITIONS`: ``.mjpg``, ``.mjpeg``, or a folder of frames or with one such file.

    Returns
    -------
    tuple[list[Subject], list[str]]
        Sorted; and a sentence for each frontal scan that is missing.

    Raises
    ------
    ValueError
        If there is no subject.
    """
    folders = sorted(folder for folder in Path(root).glob("subject_*") if folder.is_dir())
    if not folders:
        raise ValueError(f"{root} holds no subject_XX; give the folder of MICC Florence that does")
    subjects, missing = [], []
    for folder in folders:
        scans = {scan: next(iter(sorted(folder.glob(f"Model/{scan}/obj/*.obj"))), None) for scan in _SCANS}
        videos = {condition: _video(folder, name) for condition, name in CONDITIONS.items()}
        missing += [f"{folder.name} has no scan {name}" for name, path in scans.items() if path is None]
        subjects.append(Subject(
            folder.name, tuple(path for path in scans.values() if path),
            {condition: path for condition, path in videos.items() if path},
        ))
    return subjects, missing


def _video(folder: Path, name: str) -> Path | None:
    """The video of a subject: a file, a folder of frames, or the file in such a folder."""
    for parent in (folder / videos for videos in _VIDEO_FOLDERS):
        for suffix in VIDEO_SUFFIXES:
            if (parent / (name + suffix)).is_file():
                return parent / (name + suffix)
        if (parent / name).is_dir():
            files = sorted(path for path in (parent / name).iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
            return files[0] if files else parent / name
    return None
