"""One slice of the photos made into one shard of each set, in a worker process: the unit of work of a build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from asmgen.rejection import SampleError
from asmgen.shards import ShardWriter
from asmgen.w300lp import SampleEntry
from asmgen.workers import shared
from asmgen.writing import writing

BATCH = 128
"""Photos that are placed, and whose maps are made, by one matrix product, if memory allows."""


class Placed(Protocol):
    """A photo whose face is placed: the photo, for as long as its batch lasts, and what is stored of both."""

    @property
    def photo(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""

    @property
    def fields(self) -> dict:
        """Name to value."""


class Placer(Protocol):
    """Places faces in batches; made once a process."""

    def place_batch(self, entries: Sequence[SampleEntry]) -> Sequence[Placed | SampleError]:
        """Read the first photos, at least one: each one's face, or why it gives no sample."""


class StrictPlacer:
    """Places faces, and ends the build at the first photo of which that fails.

    Parameters
    ----------
    placer : Callable[[], Placer]
        Makes what places them.
    """

    def __init__(self, placer: Callable[[], Placer]):
        self._placer = placer()

    def place_batch(self, entries: Sequence[SampleEntry]) -> Sequence[Placed | SampleError]:
        """Read the first photos, at least one; ValueError if one gives no face."""
        placed = self._placer.place_batch(entries)
        for entry, face in zip(entries, placed):
            if isinstance(face, SampleError):
                raise ValueError(f"{entry.source}: {face}; or build without --strict, which leaves it out") from face
        return placed


class SampleMaker(Protocol):
    """Makes the samples of one set; read by every worker, so it holds what is computed once."""

    def fill(self, writer: ShardWriter, faces: Sequence[Any]) -> None:
        """Add a sample of each face, as the placer gives them, to the shard, or reject it."""


@dataclass(frozen=True, eq=False)
class ShardPlan:
    """One set of shards to be filled.

    Attributes
    ----------
    out_dir : Path
        Folder for the shards and `asmgen.shards.SETTINGS_FILE`; made if it is not there.
    settings : dict
        Name to number or text: what decides the bytes. In `asmgen.shards.SETTINGS_FILE`, and in every shard.
    attributes : dict
        What else a reader must know.
    maker : SampleMaker
        Makes the samples.
    scores : tuple[str, ...]
        Fields whose means the summary shows.
    packing : dict[str, str]
        How large fields are stored, see `ShardWriter`.
    """

    out_dir: Path
    settings: dict
    attributes: dict
    maker: SampleMaker
    scores: tuple[str, ...] = ()
    packing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Job:
    """What every worker needs."""

    placer: Callable[[], Placer]
    constants: dict
    plans: Sequence[ShardPlan]


@lru_cache(maxsize=1)
def _placer(job: str) -> Placer:
    """Set a worker process up; once, not once a shard."""
    return shared(job).placer()


def fill_slice(job: str, ticks_path: Path, entries: list[SampleEntry], paths: list[Path | None]) -> None:
    """Make the shards of one slice, one a set (None: it is there), in a worker process.

    Each photo adds a byte to the file that the progress bar follows.
    """
    given, placer = shared(job), _placer(job)
    with open(ticks_path, "ab", buffering=0) as ticks, ExitStack() as stack:
        outputs = [
            (plan.maker, stack.enter_context(
                ShardWriter(path, plan.settings | plan.attributes, given.constants, plan.packing)
            ))
            for plan, path in zip(given.plans, paths) if path
        ]
        while entries:
            placed = placer.place_batch(entries[:BATCH])
            for entry, face in zip(entries, placed):
                if isinstance(face, SampleError):
                    for _, writer in outputs:
                        writer.reject(entry.source, str(face), face.preview)
            faces = [face for face in placed if not isinstance(face, SampleError)]
            if faces:
                for maker, writer in outputs:
                    maker.fill(writer, faces)
            with writing(ticks_path):
                ticks.write(b"." * len(placed))
            entries = entries[len(placed):]
