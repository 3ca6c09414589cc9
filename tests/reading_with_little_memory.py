"""Reads shards as a process that may take little memory and time: a line for each that is named, of what readers and
`verify` say. Run by the tests, since a file made to do so may end or fill a process.
"""

import faulthandler
import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from asmgen.shards import ShardSet, check_shard

MOST = 200 * 2**20  # bytes, beside what is taken by imports
LONGEST = 20  # seconds for a file


def what_is_said(paths: Iterable[Path]) -> list[tuple[str, list[str]]]:
    """Of each file: what `read` returns, and the problems that `verify` finds."""
    result = subprocess.run(
        [sys.executable, __file__], input="\n".join(map(str, paths)), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return [tuple(json.loads(line)) for line in result.stdout.splitlines()]


def read(path: str) -> str:
    """Read all of a shard, as any program may: the error's sentence, or a digest of what it holds."""
    try:
        shards = ShardSet(path)
        columns = {key: shards.column(key) for key in shards.fields}
        found = list(shards), columns, shards.attributes, shards.constants, shards.rejected, shards.rejected_previews
        assert shards.stored_bytes().keys() == columns.keys()
    except ValueError as error:
        return str(error)
    return hashlib.sha256(repr(plain(found)).encode()).hexdigest()


def plain(found: object) -> object:
    """The bytes of arrays in place of the arrays."""
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return list(map(plain, found))
    return found.tobytes() if hasattr(found, "tobytes") else found


if __name__ == "__main__":
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST, taken + MOST))
    for name in sys.stdin.read().splitlines():
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        print(json.dumps([read(name), [problem.text for problem in check_shard(name)]]), flush=True)
