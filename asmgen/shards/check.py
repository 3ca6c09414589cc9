"""Rereading everything in shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from asmgen.shards.files import Differences, Ragged, columns_of, digest, items, large_chunks, open_shard
from asmgen.shards.folders import find_shards
from asmgen.shards.heads import Head
from asmgen.shards.reader import ShardSet

_ROWS = 256  # of small values, read at once


@dataclass(frozen=True)
class Problem:
    """Something wrong in a shard: its file, the sample (None: the shard as a whole), and what."""

    path: Path
    sample: int | None
    text: str


@dataclass
class VerifyReport:
    """What `verify_shards` found: samples and bytes read, sources rejected, and problems (none is good)."""

    shards: int = 0
    samples: int = 0
    rejected: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.samples} samples read from {self.shards} shard{'s' * (self.shards != 1)}, "
            f"{self.bytes / 1e6:.1f} MB, {self.rejected} sources rejected; {len(self.problems) or 'no'} "
            f"problem{'s' * (len(self.problems) != 1)}"
        ]
        for problem in self.problems:
            row = "" if problem.sample is None else f" sample {problem.sample}"
            lines.append(f"{problem.path.name}{row}: {problem.text}")
        return "\n".join(lines)


def check_shard(path: str | Path, large: bool = True) -> list[Problem]:
    """Read one shard and return what is wrong with it; checksums are compared on the way.

    Parameters
    ----------
    path : str | Path
        File.
    large : bool
        Read all. False leaves the values of arrays with a chunk a sample on the disk, and counts their chunks.

    Returns
    -------
    list[Problem]
        None is good.
    """
    path, problems = Path(path), []
    try:
        head = Head.read(path)
        with open_shard(path) as file:
            constants = {key: dataset[()] for key, dataset in items(file["constants"])}
            if digest(constants) != head.constants_sha256:
                problems.append(Problem(path, None, "the constants do not match their digest"))
            rejected, columns = columns_of(file["rejected"]), columns_of(file["samples"])
            lengths = {len(column) for column in rejected.values()}
            if len(lengths) != 1:
                problems.append(Problem(path, None, f"the rejected columns differ in length: {sorted(lengths)}"))
            for group in (rejected, columns):
                for key, column in group.items():
                    if group is columns and len(column) != head.count:
                        problems.append(
                            Problem(path, None, f"field {key!r} has {len(column)} samples instead of {head.count}")
                        )
                    chunks = None if large else large_chunks(column)
                    if chunks is not None:
                        if chunks != len(column):
                            problems.append(Problem(path, None, f"field {key!r} is stored for {chunks} samples only"))
                        continue
                    for row, error in _unreadable(column):
                        place = (row, f"field {key!r}") if group is columns else (None, f"rejected {key} {row}")
                        problems.append(Problem(path, place[0], f"{place[1]} cannot be read: {error}"))
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        problems.append(Problem(path, None, str(error)))
    return problems


def _unreadable(column: h5py.Dataset | Differences | Ragged) -> Iterator[tuple[int, Exception]]:
    """Read a column, some rows at a time, and yield the rows that fail."""
    step = _ROWS if large_chunks(column) is None else 1
    for start in range(0, len(column), step):
        try:
            column[start:start + step]
        except (OSError, UnicodeDecodeError):
            for row in range(start, min(start + step, len(column))):
                try:
                    column[row]
                except (OSError, UnicodeDecodeError) as error:
                    yield row, error


def verify_shards(source: str | Path | Sequence) -> VerifyReport:
    """Reread everything in a set of shards, and check that they belong together.

    Parameters
    ----------
    source : str | Path | Sequence
        Folder of shards, one shard, or a list of them.

    Returns
    -------
    VerifyReport
        What was read; `problems` names shard, sample and what is wrong. Missing shards raise, as in `find_shards`.
    """
    report = VerifyReport()
    paths = find_shards(source)
    for path in paths:
        found = check_shard(path)
        report.problems += found
        report.shards += 1
        report.bytes += path.stat().st_size
    damaged = {problem.path for problem in report.problems}
    whole = [path for path in paths if path not in damaged]
    heads = {path: Head.read(path) for path in whole}
    for path, head in heads.items():
        difference = next(iter(heads.values())).difference(head)
        if difference:
            report.problems.append(Problem(path, None, f"does not belong with {whole[0].name}: {difference}"))
        report.samples += head.count
        report.rejected += len(ShardSet(path).rejected)
    return report
