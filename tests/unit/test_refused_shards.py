"""What every reader says of shards that it must not read."""

from functools import partial

import h5py
import pytest
from toy import toy_model

from asmgen.asmd import AsmdReader
from asmgen.face_crops import open_faces
from asmgen.inspect import inspect_sheet, statistics_table
from asmgen.inspect_face_crops import faces_sheet, faces_statistics
from asmgen.shards import shard_path, verify_shards, write_shard
from asmgen.sheets import rejected_sheet
from model.data import FUSION, GEOMETRY, LANDMARKS, TEXTURE, FaceDataset
from texgen.ftd import FtdReader
from texgen.inspect import ftd_sheet, ftd_statistics, inspector

READERS = {
    "asmd": (AsmdReader, statistics_table, inspect_sheet, partial(FaceDataset, wanted=GEOMETRY)),
    "ftd": (FtdReader, ftd_statistics, partial(ftd_sheet, face_model=toy_model()), partial(FaceDataset, wanted=TEXTURE),
            partial(FaceDataset, wanted=LANDMARKS)),
    "faces": (open_faces, faces_statistics, faces_sheet, partial(FaceDataset, wanted=FUSION)),
}
ANY = (rejected_sheet, inspector)
CASES = [(kind, read) for kind, readers in READERS.items() for read in readers]


def write(folder, kind: str, version: int = 1) -> None:
    """Two shards of a kind, with little in them: readers look at what they are first."""
    for index in range(2):
        write_shard(
            shard_path(folder, index, 2), [{"x": index}], {"kind": kind, "schema_version": version, "size": 16},
        )


@pytest.mark.parametrize("kind, read", CASES)
def test_a_newer_schema(tmp_path, kind, read):
    write(tmp_path, kind, version=2)
    with pytest.raises(ValueError, match=rf"version 1, got '{kind}', version 2|schema 1, got \('{kind}', 2\); take"):
        read(tmp_path)


def lose(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-400])


def renew(path):
    with h5py.File(path, "r+") as file:
        file["samples"].attrs["format"] = 3


def swap(path):
    write_shard(path, [{"x": 1}], {"kind": "asmd", "schema_version": 1, "size": 17})


def copy(path):
    path.write_bytes(path.with_name(path.name.replace("00001-", "00000-")).read_bytes())


@pytest.mark.parametrize("kind, read", [*CASES, *(("asmd", read) for read in (*ANY, verify_shards))])
@pytest.mark.parametrize("change, message", [
    (lose, "00001-of-00002.h5 is missing; run the build again"),
    (cut, "00001-of-00002.h5 (cannot be opened as a shard|is damaged) .*build again with --repair"),
    (renew, "00001-of-00002.h5 is HDF5 but no shard of format 1 or 2"),
    (swap, "00001-of-00002.h5.* does not belong with shard-00000-of-00002.h5: attribute '(kind|size)' is"),
    (copy, "00001-of-00002.h5 was written as shard-00000-of-00002.h5"),
])
def test_a_set_that_is_not_whole(tmp_path, kind, read, change, message):
    """`verify` tells it as a problem, or raises as the others where a shard is missing."""
    write(tmp_path, kind)
    change(shard_path(tmp_path, 1, 2))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        if read is verify_shards:
            raise ValueError("\n".join(f"{one.path.name} {one.text}" for one in verify_shards(tmp_path).problems))
        read(tmp_path)
