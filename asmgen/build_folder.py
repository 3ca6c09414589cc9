"""The folders of a build: for one set of settings, and for one builder at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from asmgen.dataset_files import write_whole
from asmgen.folder_lock import locked
from asmgen.shard_job import ShardPlan
from asmgen.shards import SETTINGS_FILE, settings_text, shard_matches
from asmgen.writing import sync, writing

SCRATCH = "scratch-"
"""What the names of folders begin with that last as long as the build."""


@contextmanager
def claimed(plans: Sequence[ShardPlan], repair: bool = False) -> Iterator[None]:
    """Hold the folders of some sets for one build; what a killed one has left is removed, and what this one leaves.

    Parameters
    ----------
    plans : Sequence[ShardPlan]
        The sets; their folders and settings are made if they are not there.
    repair : bool
        Write settings again that are damaged or missing, where a shard tells that the build is the same.

    Raises
    ------
    ValueError
        If two sets share a folder, or one holds a build with other settings; FileExistsError if one holds shards of
        unknown settings. Nothing is changed then. BlockingIOError if another process builds into one; OSError if one
        cannot be written into.
    """
    if len({plan.out_dir.resolve() for plan in plans}) < len(plans):
        raise ValueError(f"every set needs a folder of its own, got {plans[0].out_dir} for two")
    _check_settings(plans, repair)
    for plan in plans:
        with writing(plan.out_dir):
            plan.out_dir.mkdir(parents=True, exist_ok=True)
    with locked(*(plan.out_dir for plan in plans)):
        _check_settings(plans, repair)  # another build may have begun and ended since
        try:
            for plan in plans:
                _remove_leftovers(plan.out_dir)
                _write_settings(plan.out_dir / SETTINGS_FILE, plan.settings, repair)
            yield
        finally:
            for plan in plans:
                _remove_leftovers(plan.out_dir)


def _check_settings(plans: Sequence[ShardPlan], repair: bool) -> None:
    """Raise if a folder holds a build with other settings, or with none."""
    for plan in plans:
        path, settings = plan.out_dir / SETTINGS_FILE, plan.settings
        shards = sorted(plan.out_dir.glob("*.h5"))  # before the settings, which another builder writes first
        if repair and any(shard_matches(shard, settings | plan.attributes) for shard in shards):
            continue
        if not path.exists():
            if shards:
                raise FileExistsError(
                    f"{plan.out_dir} holds shards but no {SETTINGS_FILE}; build with --repair, which writes it for "
                    "shards of this build, or into an empty folder"
                )
            continue
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(
                f"{path} must be a JSON file of settings ({error}); build with --repair, or into an empty "
                "folder"
            ) from error
        for key in sorted(settings.keys() | found.keys()):
            if settings.get(key) != found.get(key):
                raise ValueError(
                    f"{plan.out_dir} holds a build with {key} {found.get(key)!r}, and this one has "
                    f"{settings.get(key)!r}; use the same settings to continue it, or build into an empty folder"
                )


def _write_settings(path: Path, settings: dict, repair: bool) -> None:
    """Write the settings, once, unless they are to be repaired."""
    content = settings_text(settings).encode()
    if not path.exists() or repair and path.read_bytes() != content:
        write_whole(path, content)
        sync(path)
        sync(path.parent)


def _remove_leftovers(folder: Path) -> None:
    """Remove what was being written when its writer died. A network file system keeps what a worker of a cluster still
    has open; the next run removes it."""
    for left in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in folder.glob("*.partial"):
        left.unlink(missing_ok=True)
