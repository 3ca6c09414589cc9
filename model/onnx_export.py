"""A trained network as an ONNX file: a crop to everything that a face is drawn from, checked against torch.

Dimension key: B batch, S side of the crop and of the maps in pixels, K albedo modes.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from asmgen.asmd import CONVENTIONS
from asmgen.dataset_files import write_whole
from model.dual_stream import DualStream, TrainedFaces
from model.geometry import denormalise_position

INPUT = "image"
OUTPUTS = {
    "identity_map": "(B, 3, S, S) A_id, map units: (vertex - centre) / scale at each texel, the neutral face",
    "expression_map": "(B, 3, S, S) A_exp, map units; vertices = (identity + expression) scale + centre, mm",
    "albedo_map": "(B, 3, S, S) texture, RGB in [0, 1], 0 outside the chart",
    "albedo_coeffs": "(B, K) coefficients of the linear albedo, standard deviations",
    "light": "(B, 9) spherical harmonics: 1, y, z, x, xy, yz, 3z^2-1, xz, x^2-y^2 of the normal in camera axes",
    "pose": "(B, 3) pitch, yaw, roll, radians",
    "position": "(B, 3) t_x, t_y in crop pixels, scale in crop pixels a millimetre",
}
"""Names and units."""

TOLERANCE = 1e-3
"""Largest difference of torch and ONNX Runtime, over the largest value of an output (or 1): both sum in float32."""

LARGEST = 2**31 - 2**20
"""Bytes of weights and fixed maps that one file can hold: a protobuf message ends at 2 GiB."""

PACKAGES = ("onnx", "onnxruntime", "onnxscript")


class Exported(NamedTuple):
    """An ONNX file.

    Attributes
    ----------
    path : Path
        The file.
    difference : float
        Largest difference from torch of any output, over the largest value of that output (or 1).
    """

    path: Path
    difference: float


class OnnxFace(nn.Module):
    """The network with its outputs in a row, `OUTPUTS`, the position in pixels.

    Parameters
    ----------
    network : DualStream
        In evaluation mode.
    size : int
        S, pixels.
    """

    def __init__(self, network: DualStream, size: int):
        super().__init__()
        self.network, self.size = network, size

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what `OUTPUTS` names of (B, 3, S, S) RGB crops in [0, 1]."""
        face = self.network(image)
        albedo, light, pose, position = face.parameters
        position = denormalise_position(position, self.size)
        return face.identity_map, face.expression_map, face.albedo_map, albedo, light, pose, position


def export_onnx(faces: TrainedFaces, path: Path) -> Exported:
    """Write a network as one ONNX file for any batch, and compare what it gives with torch.

    Parameters
    ----------
    faces : TrainedFaces
        The network, on the CPU.
    path : Path
        The file, made only if it agrees.

    Returns
    -------
    Exported
        The file, and how well it agrees on batches of one and of three.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``onnx`` is not installed.
    ValueError
        If the network is larger than `LARGEST`, or an output differs by more than `TOLERANCE`.
    """
    if not all(importlib.util.find_spec(name) for name in PACKAGES):
        raise ModuleNotFoundError("writing ONNX files needs the extra `onnx`: pip install 'dualface[onnx]'")
    import onnx

    size = faces.metadata["size"]
    network = OnnxFace(faces.network, size).eval()
    held = sum(values.nbytes for values in (*network.parameters(), *network.buffers()))
    if held > LARGEST:
        raise ValueError(
            f"the network must have at most {LARGEST / 1e9:.3g} GB of weights, as an ONNX file ends at 2 GiB, and has "
            f"{held / 1e9:.3g} GB; train one of a smaller --width"
        )
    images = torch.rand((3, 3, size, size), generator=torch.Generator().manual_seed(0))
    model = onnx.load_from_string(_program(network, images))
    for text, value in describe(faces).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = text, value
    data = model.SerializeToString(deterministic=True)
    difference = max(_difference(network, data, images[:count]) for count in (1, 3))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the ONNX file must give what torch gives to {TOLERANCE:g}, and differs by {difference:.2g}; export with "
            "other versions of torch and onnxruntime"
        )
    write_whole(Path(path), data)
    return Exported(Path(path), difference)


def describe(faces: TrainedFaces) -> dict[str, str]:
    """Return the metadata of the file: names and texts, numbers as JSON."""
    metadata, maps = faces.metadata, faces.maps
    numbers = {
        "centre": maps.centre.tolist(), "scale": maps.scale, "size": metadata["size"],
        "camera_distance": None if math.isinf(metadata["camera_distance"]) else metadata["camera_distance"],
    }
    named = ("face_model", "face_model_sha256", "licence", "chart")
    texts = {key: str(metadata[key]) for key in named if key in metadata}
    return {
        "program": "dualface", "network": metadata["kind"], "shape": metadata["shape"], **texts,
        "input": "image (B, 3, S, S) float32, RGB in [0, 1], the square crop of a face; normalised within",
        **{f"output {name}": text for name, text in OUTPUTS.items()},
        **{key: CONVENTIONS[key] for key in ("space", "pixels", "placement")},
        **{key: json.dumps(value) for key, value in numbers.items()},
    }


def _program(network: nn.Module, images: torch.Tensor) -> bytes:
    """The network as an ONNX file without metadata."""
    file = io.BytesIO()
    with _quiet():
        torch.onnx.export(
            network, (images,), dynamo=True, input_names=[INPUT], output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), verbose=False,
        ).save(file)
    return file.getvalue()


def _difference(network: nn.Module, data: bytes, images: torch.Tensor) -> float:
    """The largest difference of ONNX Runtime from torch, relative to each output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = [value.numpy() for value in network(images)]
    found = session.run(list(OUTPUTS), {INPUT: images.numpy()})
    return max(
        float(np.abs(ours - theirs).max() / max(1, np.abs(ours).max()))
        for ours, theirs in zip(wanted, found) if ours.size
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of its own workings to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
