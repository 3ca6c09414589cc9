"""How long the command takes to start: `--help` of the program and of its commands, in a new process each.

The floor is the interpreter with click, which every start has to load; the baseline is what any start would take that
imports torch. All take turns.

    python benchmarks/bm_startup.py --starts 10 -o startup.json
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import click
from provenance import commit, machine
from timing import Timing, interleaved

from model.run_folder import json_text

FLOOR, BASELINE = "python with click", "python with torch"
COMMANDS = ("", "build asmd", "build ftd", "train geometry", "train fusion", "evaluate aflw2000", "reconstruct")


def starts(commands: tuple[str, ...], count: int) -> dict[str, Timing]:
    """Time starts, each to its end; the first of each is a warm-up."""
    arguments = {FLOOR: ["-c", "import click"], BASELINE: ["-c", "import torch"]}
    arguments |= {
        " ".join(f"dualface {words} --help".split()): ["-m", "cli", *words.split(), "--help"] for words in commands
    }
    run = partial(subprocess.run, stdout=subprocess.DEVNULL, check=True, cwd=Path(__file__).parents[1])
    return interleaved({name: partial(run, [sys.executable, *words]) for name, words in arguments.items()}, count)


def measure(quick: bool) -> list[dict]:
    """Time starts in turns: rows for ``bench.py``."""
    timed = starts(COMMANDS[:3] if quick else COMMANDS, 3 if quick else 10)
    floor, baseline = timed.pop(FLOOR).seconds, timed.pop(BASELINE).seconds
    return [
        {"operation": name, "baseline": f"{BASELINE}: {baseline:.2f} s",
         "ours": f"{timing.seconds:.3f} s ({FLOOR}: {floor:.3f} s)", "ratio": baseline / timing.seconds}
        for name, timing in timed.items()
    ]


@click.command()
@click.option("--starts", "count", type=int, default=10, show_default=True, help="Timed starts of each.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(count, output):
    """Time what it takes to see a command's help."""
    timed = starts(COMMANDS, count)
    for name, timing in timed.items():
        click.echo(f"{name:<36}{timing.seconds:>8.3f} s{timing.low:>10.3f} to {timing.high:.3f}")
    report = {"benchmark": "startup", "commit": commit(), "machine": machine(), "starts": count, "seconds": {
        name: {"median": timing.seconds, "10_to_90_percent": [timing.low, timing.high]}
        for name, timing in timed.items()
    }}
    if output:
        output.write_text(json_text(report), encoding="utf-8")


if __name__ == "__main__":
    main()
