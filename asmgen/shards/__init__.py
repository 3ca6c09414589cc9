"""Sharded HDF5: many samples of one kind in a few files. Knows nothing of faces; docs/shards.md is the format.

A sample is a dict of arrays (or numbers), bytes and text; the keys, and the shape and dtype of each array, are
the same for every sample. A shard also holds attributes and constants, equal in all shards of a set, and the
list of sources that gave no sample, with reasons.
"""

from asmgen.shards.check import Problem, VerifyReport, check_shard, verify_shards
from asmgen.shards.folders import find_shards, shard_path
from asmgen.shards.heads import shard_matches
from asmgen.shards.reader import ShardSet, open_kind
from asmgen.shards.settings import SETTINGS_FILE, settings_text
from asmgen.shards.writer import ShardWriter, write_shard

__all__ = [
    "SETTINGS_FILE", "Problem", "ShardSet", "ShardWriter", "VerifyReport", "check_shard", "find_shards", "open_kind",
    "settings_text", "shard_matches", "shard_path", "verify_shards", "write_shard",
]
