"""Open the files a face model is given in, and tell from their content what they are."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from bfm.mat_file import Value, parse_mat
from bfm.npy_file import read_npy

# kind -> (variables that a .mat file of the kind has, all of them; what it is, for people); first match counts
MAT_KINDS = {
    "face3d": (("model",), "face3d BFM.mat"),
    "bfm2009": (("shapeMU", "shapePC", "shapeEV"), "BFM 2009 01_MorphableModel.mat"),
    "3ddfa": (("mu_shape", "w"), "3DDFA Model_Shape.mat"),
    "3ddfa-expression": (("mu_exp", "w_exp"), "3DDFA Model_Exp.mat"),
    "3ddfa-sigma": (("sigma_exp",), "3DDFA sigma_exp.mat"),
    "trim": (("trimIndex",), "3DDFA Model_info.mat"),
    "uv": (("UV",), "BFM_UV.mat"),
    "front-53215": (("idx",), "Deep3D BFM_front_idx.mat"),
    "front-53490": (("select_id",), "Deep3D select_vertex_id.mat"),
}
NAMES = {
    **{kind: name for kind, (_, name) in MAT_KINDS.items()},
    "bfm2017": "BFM 2017 or 2019 .h5",
    "ict": "ICT-FaceKit folder",
    "guo-expression": "Guo et al. Exp_Pca.bin",
    "guo-stddev": "Guo et al. std_exp.txt",
    "landmarks": "list of 68 landmark vertices",
    "vertices": "3DDFA_V2 indices .npy",
}
LAYOUT_KINDS = {"trim", "front-53215", "front-53490", "vertices"}
"""Lists of the vertices that a layout keeps; see `bfm.layouts`."""

MAX_BYTES = 1 << 30
"""Of a .mat file, and of all its arrays decompressed; the largest that is published has a quarter of it."""


@dataclass(frozen=True)
class Source:
    """A file or folder whose kind is known.

    Attributes
    ----------
    path : Path
        Where it is.
    kind : str
        A key of `NAMES`.
    variables : dict[str, Value]
        What a .mat file holds; empty for others.
    """

    path: Path
    kind: str
    variables: dict[str, Value] = field(default_factory=dict, repr=False)

    def mat(self, *names: str) -> list[np.ndarray]:
        """Return arrays of a .mat file; ValueError if one is missing or is no array of numbers."""
        missing = [name for name in names if name not in self.variables]
        if missing:
            raise ValueError(
                f"{self.path} must hold the variable '{missing[0]}' as {NAMES[self.kind]} does, "
                f"and holds {_listed(self.variables)}; get a complete copy"
            )
        found = [self.variables[name] for name in names]
        arrays = [value for value in found if isinstance(value, np.ndarray)]
        if len(arrays) < len(found):
            wrong = next(name for name in names if not isinstance(self.variables[name], np.ndarray))
            raise ValueError(
                f"'{wrong}' of {self.path} must be an array of real numbers, and is something else; get a complete copy"
            )
        return arrays

    def numbers(self) -> np.ndarray:
        """Return the numbers of a text or .npy file."""
        return _npy(self.path) if self.path.suffix == ".npy" else _text_numbers(self.path.read_bytes())


def open_source(path: Path) -> Source:
    """Look into a file (or folder) and tell what it is; its name plays no part, except for a .npy suffix.

    Parameters
    ----------
    path : Path
        File or folder.

    Returns
    -------
    Source
        The file with its kind.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    ValueError
        If it is none of the known kinds, with what was found instead.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "generic_neutral_mesh.obj").is_file():
            raise ValueError(
                f"{path} must be an ICT-FaceKit folder with generic_neutral_mesh.obj, and has none; "
                "give its FaceXModel folder, or the files of another model"
            )
        return Source(path, "ict")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with open(path, "rb") as file:
        head = file.read(4096)
    if not head:
        raise ValueError(f"{path} is empty; get a complete copy")
    if head.startswith(b"MATLAB 7.3"):
        raise ValueError(
            f"{path} is a Matlab v7.3 file, and v7 or older is expected; in Matlab load it and save it again with "
            "save(..., '-v7')"
        )
    if head[126:128] in (b"IM", b"MI") and len(head) >= 128:
        return _mat_source(path)
    if h5py.is_hdf5(path):
        return _hdf5_source(path)
    if head.startswith(b"\x93NUMPY"):
        values = _npy(path)
        if values.ndim == 1 and np.issubdtype(values.dtype, np.integer):
            return Source(path, "landmarks" if len(values) == 68 else "vertices")
        raise ValueError(f"{path} must hold one list of vertex numbers, got {values.dtype} of shape {values.shape}")
    if len(head) >= 4 and _is_guo_binary(head, path.stat().st_size):
        return Source(path, "guo-expression")
    try:
        numbers = _text_numbers(path.read_bytes() if path.stat().st_size < 1 << 20 else head)
    except ValueError:
        shown = head[:40].split(b"\n")[0].decode("ascii", "replace")
        raise ValueError(
            f"{path} is no part of a face model that is known here: it starts with {shown!r}; expected one of: "
            + "; ".join(NAMES.values())
        ) from None
    whole = len(numbers) == 68 and (numbers == np.round(numbers)).all()
    return Source(path, "landmarks" if whole else "guo-stddev")


def _mat_source(path: Path) -> Source:
    """Tell what a Matlab v5-v7 file is from the names of its variables."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} must have at most {MAX_BYTES} bytes, as face models do, and has {size}")
    try:
        variables = parse_mat(path.read_bytes(), MAX_BYTES)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for kind, (needed, _) in MAT_KINDS.items():
        if set(needed) <= set(variables):
            return Source(path, kind, variables)
    raise ValueError(
        f"{path} is no part of a face model that is known here: it holds {_listed(variables)}; expected one of: "
        + "; ".join(f"{name} ({', '.join(needed)})" for needed, name in MAT_KINDS.values())
    )


def _hdf5_source(path: Path) -> Source:
    """Tell what an HDF5 file is."""
    try:
        with h5py.File(path, "r") as file:
            if "shape/model/mean" in file:
                return Source(path, "bfm2017")
            found = _listed(tuple(file)) if "kind" not in file.attrs else f"a {file.attrs['kind']!r}"
    except (OSError, RuntimeError) as error:
        raise ValueError(damage(path, error)) from error
    raise ValueError(f"{path} must hold shape/model/mean as {NAMES['bfm2017']} does, and holds {found}")


def _npy(path: Path) -> np.ndarray:
    """The numbers of a .npy file."""
    try:
        return read_npy(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _is_guo_binary(head: bytes, size: int) -> bool:
    """An int32 count of modes K, then K + 1 float32 vectors of xyz."""
    modes = struct.unpack("<i", head[:4])[0]
    return 0 < modes < 10_000 and size > 4 and (size - 4) % (12 * (modes + 1)) == 0


def _text_numbers(content: bytes) -> np.ndarray:
    """(N,) numbers of a text, separated by blanks or commas; ValueError if it is anything else."""
    numbers = [float(word) for word in content.decode("ascii").replace(",", " ").split()]
    if not numbers:
        raise ValueError("no numbers")
    return np.array(numbers)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:12]) or "nothing"


def damage(path: Path, error: Exception | str) -> str:
    """Return the sentence for a file that its own library cannot read."""
    return f"{path} is truncated or damaged ({error}); get a complete copy"
