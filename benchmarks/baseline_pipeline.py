"""The common way to make attribute maps, for comparison: photo by photo, a mesh is computed and rasterised twice.

As PRNet's generator of position maps and those after it: pillow reads and warps the photo, scipy the annotation, one
matrix-vector product gives the vertices, compiled code rasterises their coordinates into the chart, and every map is
saved as a float32 ``.npy``. The mesh has the size of the BFM's: triangles of the open model are split at their centres
until there are 105,840.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from asmgen.crop import face_square
from asmgen.w300lp import placement_from_pose_para
from bfm.charts import make_chart
from bfm.morphable_model import MorphableModel
from bfm.pose import project

TRIANGLES = 105_840
"""Of the BFM as 300W-LP cuts it; it has 53,215 vertices."""

_SOURCE = Path(__file__).with_name("rasterize_baseline.c")


def compiled_rasterizer(folder: Path) -> ctypes.CDLL:
    """Compile the rasteriser into a folder; FileNotFoundError where there is no C compiler."""
    if shutil.which("cc") is None:
        raise FileNotFoundError("the baseline rasterises in compiled code: a C compiler named `cc` is needed, got none")
    library = Path(folder, "rasterize_baseline.so")
    command = ["cc", "-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-shared", "-fPIC"]
    subprocess.run([*command, str(_SOURCE), "-o", str(library), "-lm"], check=True)
    return ctypes.CDLL(str(library))


class BaselinePipeline:
    """The pipeline, for photos annotated as 300W-LP's.

    Parameters
    ----------
    model : MorphableModel
        Face part.
    size : int
        Side of maps and crops, pixels.
    folder : Path
        For the compiled rasteriser.
    """

    def __init__(self, model: MorphableModel, size: int, folder: Path):
        self._model, self._size, self._library = model, size, compiled_rasterizer(folder)
        uv = make_chart(model, size=size).vertex_pixels
        flat = np.column_stack([uv, model.mean_shape[:, 2]])
        self.triangles, (shape, flat, *bases) = split_triangles(
            model.triangles, TRIANGLES, [model.mean_shape, flat, *model.id_basis, *model.exp_basis]
        )
        self._points = np.ascontiguousarray(flat, np.float32)
        self.mean = shape.astype(np.float32)
        modes = np.stack([basis.ravel() for basis in bases], 1).astype(np.float32)
        self.id_basis, self.exp_basis = (
            np.ascontiguousarray(part) for part in np.split(modes, [len(model.id_basis)], axis=1)
        )

    def __call__(self, photo: Path, out: Path) -> None:
        """Read a photo and its ``.mat``, and save crop, identity and expression map under a stem."""
        image = Image.open(photo).convert("RGB")
        annotation = scipy.io.loadmat(photo.with_suffix(".mat"))
        id_coeffs, exp_coeffs = (
            (annotation[key].ravel() / stddev).astype(np.float32)
            for key, stddev in (("Shape_Para", self._model.id_stddev), ("Exp_Para", self._model.exp_stddev))
        )
        neutral = self.mean + (self.id_basis @ id_coeffs).reshape(-1, 3)
        offset = (self.exp_basis @ exp_coeffs).reshape(-1, 3)
        pose, position = placement_from_pose_para(annotation["Pose_Para"], image.height)
        at = self._model.landmarks
        left, top, side = face_square(project(neutral[at] + offset[at], pose, position)[:, :2])
        factor = side / self._size
        crop = image.transform(
            (self._size, self._size), Image.Transform.AFFINE, (factor, 0, left, 0, factor, top),
            Image.Resampling.BILINEAR,
        )
        crop.save(out.with_suffix(".jpg"), quality=95)
        np.save(out.with_name(f"{out.name}_identity.npy"), self.rasterized(neutral))
        np.save(out.with_name(f"{out.name}_expression.npy"), self.rasterized(offset))

    def rasterized(self, attributes: np.ndarray) -> np.ndarray:
        """Return the (S, S, 3) float32 map of (V, 3) float32 attributes."""
        depths, image = np.empty((self._size,) * 2, np.float32), np.zeros((self._size, self._size, 3), np.float32)
        arrays = (self._points, np.ascontiguousarray(attributes), self.triangles)
        self._library.rasterize(
            *(array.ctypes.data_as(ctypes.c_void_p) for array in arrays), len(self.triangles), 3, self._size,
            self._size, *(array.ctypes.data_as(ctypes.c_void_p) for array in (depths, image)),
        )
        return image


def split_triangles(
    triangles: np.ndarray, wanted: int, fields: list[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Split the first triangles at their centres, each into three, until there are so many; fields get the centres."""
    count = max(0, (wanted - len(triangles)) // 2)
    split, centres = triangles[:count], len(fields[0]) + np.arange(count, dtype=np.int32)
    thirds = [np.stack([split[:, k], split[:, (k + 1) % 3], centres], 1) for k in range(3)]
    grown = [np.concatenate([field, field[split].mean(axis=1)]) for field in fields]
    return np.ascontiguousarray(np.concatenate([*thirds, triangles[count:]]), np.int32), grown
