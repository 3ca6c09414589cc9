"""Tables of what a dataset holds: lines of a name and a text."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from asmgen.asmd import face_box
from asmgen.pipeline import count_reasons
from asmgen.shards import ShardSet

Line = tuple[str, str]
_OF_A_DISTRIBUTION = ("mean", "std", "least", "5 %", "median", "95 %", "most")


def overview_lines(shards: ShardSet) -> list[Line]:
    """Return counts, rejections by reason, and the face model of shards, where they have one."""
    attributes, size = shards.attributes, sum(path.stat().st_size for path in shards.paths)
    return [
        ("samples", f"{len(shards)} in {len(shards.paths)} shards, {size / 1e6:.1f} MB"),
        ("rejected", f"{len(shards.rejected)}"),
        *((f"  {kind}", f"{count}") for kind, count in count_reasons(shards.rejected).items()),
        *(("face model", f"{attributes[name]} ({attributes['face_model_sha256'][:12]})")
          for name in ("face_model",) if name in attributes),
    ]


def face_columns(shards: ShardSet) -> dict[str, np.ndarray]:
    """Return the numbers that all kinds measure of a face, (N,) or (N, K), by what they are called in a table."""
    pose, error = np.degrees(shards.column("pose")), shards.column("landmark_error")
    columns = {f"{name}, degrees": pose[:, axis] for axis, name in enumerate(("pitch", "yaw", "roll"))}
    columns["scale, px/mm"] = shards.column("position")[:, 2]
    for name in ("id", "exp", "albedo"):
        columns[f"{name} coefficients"] = shards.column(f"{name}_coeffs")
    columns["landmark error, px"] = error
    columns["landmark error, % of box"] = 100 * error / face_box(shards.column("landmarks"))
    columns["light residual"] = shards.column("light_residual")
    return columns


def distribution(values: np.ndarray) -> dict[str, float] | None:
    """Return mean and quantiles of an array of any shape; numbers that are not finite don't count, None without any."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    numbers = [values.mean(), values.std(), *np.quantile(values, (0, 0.05, 0.5, 0.95, 1))]
    return dict(zip(_OF_A_DISTRIBUTION, map(float, numbers)))


def distribution_lines(columns: dict[str, np.ndarray]) -> list[Line]:
    """Return a line with the `distribution` of each array that has one."""
    found = {name: distribution(values) for name, values in columns.items()}
    return [
        ("", "".join(f"{name:>10}" for name in _OF_A_DISTRIBUTION)),
        *((name, "".join(f"{number:10.3f}" for number in line.values())) for name, line in found.items() if line),
    ]


def facts(shards: ShardSet) -> dict:
    """Return what shards of any kind hold, for programs.

    Parameters
    ----------
    shards : ShardSet
        All their fields.

    Returns
    -------
    dict
        Counts, ``rejected`` by kind of reason, ``attributes``, the `distribution` of each number of a sample, of each
        component of two or three, and the bytes that each field takes a sample. Units are those of docs/shards.md.
    """
    first = shards[0] if len(shards) else {}
    short = [key for key, value in first.items() if not isinstance(value, (bytes, str)) and np.size(value) <= 3]
    numbers = {key: np.asarray(shards.column(key)) for key in sorted(short)}
    return {
        "samples": len(shards), "shards": len(shards.paths), "bytes": sum(path.stat().st_size for path in shards.paths),
        "rejected": count_reasons(shards.rejected), "attributes": dict(shards.attributes),
        "numbers": {
            key: distribution(values) if values.ndim == 1 else [distribution(part) for part in values.T]
            for key, values in numbers.items()
        },
        "bytes_a_sample": {key: size / len(shards) for key, size in shards.stored_bytes().items()} if first else {},
    }


def size_lines(shards: ShardSet) -> list[Line]:
    """Return the bytes that each field takes a sample."""
    return [
        ("bytes a sample", ""),
        *((f"  {name}", f"{size / len(shards):,.0f}") for name, size in shards.stored_bytes().items()),
    ]


def as_text(lines: Iterable[Line]) -> str:
    """Return lines with the names in one column."""
    lines = list(lines)
    wide = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:<{wide}}{text}".rstrip() for name, text in lines)
