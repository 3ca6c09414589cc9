"""Rereading everything in shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asmgen.shards.files import digest, open_shard, subgroup
from asmgen.shards.folders import find_shards
from asmgen.shards.heads import Head
from asmgen.shards.reader import ShardSet
from asmgen.shards.settings import SETTINGS_FILE, settings_problem
from asmgen.shards.stored import Column, arrays_of, columns_of, is_bulk, is_large
from bfm.hdf5_file import DAMAGE
from bfm.seal import broken_seal

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
        if self.problems:
            lines.append("run the build again with --repair: it makes what is damaged again, and keeps the rest")
        return "\n".join(lines)


def check_shard(path: str | Path, large: bool = True) -> list[Problem]:
    """Read one shard and return what is wrong with it; checksums tell which samples are damaged.

    Parameters
    ----------
    path : str | Path
        File.
    large : bool
        Read all, and compare all bytes with their digest. False leaves what fills most of a shard on the disk, arrays
        with a chunk a sample and bytes such as JPEGs, and counts their chunks.

    Returns
    -------
    list[Problem]
        None is good.
    """
    path, problems, changed = Path(path), [], None
    try:
        changed = broken_seal(path) if large else None
        head = Head.read(path)
        with open_shard(path) as file:
            if digest(arrays_of(subgroup(file, "constants"))) != head.constants_sha256:
                problems.append(Problem(path, None, "the constants do not match their digest"))
            for group in ("rejected", "samples"):
                for key, column in columns_of(file, group).items():
                    for row, error in _unreadable(column) if large or not is_bulk(column) else ():
                        place = (row, f"field {key!r}") if group == "samples" else (None, f"rejected {key} {row}")
                        problems.append(Problem(path, place[0], f"{place[1]} cannot be read: {error}"))
    except (ValueError, *DAMAGE) as error:
        problems.append(Problem(path, None, str(error)))
    if changed and not problems:  # in what no sample is made of, or so that a checksum does not show it
        problems.append(Problem(path, None, changed))
    return problems


def _unreadable(column: Column) -> Iterator[tuple[int, Exception]]:
    """Read a column, some rows at a time, and yield the rows that fail."""
    step = 1 if is_large(column) else _ROWS
    for start in range(0, len(column), step):
        try:
            column[start:start + step]
        except DAMAGE:
            for row in range(start, min(start + step, len(column))):
                try:
                    column[row]
                except DAMAGE as error:
                    yield row, error


def verify_shards(source: str | Path | Sequence) -> VerifyReport:
    """Reread everything in a set of shards, and check that they belong together and to the settings beside them.

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
    if heads and isinstance(source, (str, Path)) and Path(source).is_dir():
        path = Path(source, SETTINGS_FILE)
        text = settings_problem(path, next(iter(heads.values())).attributes)
        if text:
            report.problems.append(Problem(path, None, text))
    return report
