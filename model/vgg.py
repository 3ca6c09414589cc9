"""VGG-16 weight files for the encoder: VGG-Face (Oxford) and ImageNet, by the names of their tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from model.checkpoint import load_tensors
from model.geometry import VGG16_CHANNELS, MultiTaskEncoder

_BLOCK_NAMES = [(block, layer) for block, sizes in enumerate(VGG16_CHANNELS, 1) for layer in range(1, len(sizes) + 1)]


@dataclass(frozen=True)
class _Format:
    """Names of the 13 convolutions, and how the images were given: order, and mean and deviation of RGB in 0..1."""

    names: tuple[str, ...]
    bgr: bool
    mean: tuple[float, float, float]
    stddev: tuple[float, float, float]


_FACE_MEAN = (129.1863 / 255, 104.7624 / 255, 93.5940 / 255)
_FACE_STDDEV = (1 / 255,) * 3  # 0..255 less the mean, undivided
_FORMATS = {
    "VGG-Face (conv1_1, RGB)": _Format(
        tuple(f"conv{block}_{layer}" for block, layer in _BLOCK_NAMES), False, _FACE_MEAN, _FACE_STDDEV
    ),
    "VGG-Face (conv_1_1, BGR as in Caffe)": _Format(
        tuple(f"conv_{block}_{layer}" for block, layer in _BLOCK_NAMES), True, _FACE_MEAN, _FACE_STDDEV
    ),
    "torchvision vgg16 (features.0)": _Format(
        tuple(f"features.{index}" for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)), False,
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
    ),
}
_CLASSIFIER = ("fc", "classifier.")


def load_vgg(encoder: MultiTaskEncoder, path: Path) -> str:
    """Load VGG-16 convolutions, and the image normalisation they were trained with, into the encoder.

    Fully connected layers in the file are left out; anything else that does not fit is an error.

    Parameters
    ----------
    encoder : MultiTaskEncoder
        Of width 1, without batch normalisation; changed in place, and only on success.
    path : Path
        State dict of a PyTorch port of VGG-Face, or of torchvision's ``vgg16``.

    Returns
    -------
    str
        Which of the known formats it was.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the encoder is not VGG-16 itself, or the file is damaged or of another network.
    """
    path = Path(path)
    if encoder.width != 1 or encoder.batch_norm:
        raise ValueError(
            f"VGG-16 weights fit only an encoder of width 1 without batch normalisation, got width {encoder.width:g}"
            f"{' with it' if encoder.batch_norm else ''}; train that one from scratch"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a VGG-Face or VGG-16 state dict (.pth)")
    state = load_tensors(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    name, layout = _recognise(path, state)
    convolutions = [layer for layer in encoder.features if isinstance(layer, nn.Conv2d)]
    loaded = {}
    for key, convolution in zip(layout.names, convolutions):
        for part in ("weight", "bias"):
            wanted, found = getattr(convolution, part).shape, getattr(state.get(f"{key}.{part}"), "shape", None)
            if found != wanted:
                raise ValueError(
                    f"{path} looks like {name}, but its {key}.{part} must have shape {tuple(wanted)}, "
                    f"got {'none' if found is None else tuple(found)}; it is another network, or cut short"
                )
            loaded[key, part] = state[f"{key}.{part}"].float()
    foreign = [
        key for key in state if key.rpartition(".")[0] not in layout.names and not key.startswith(_CLASSIFIER)
    ]
    if foreign:
        raise ValueError(f"{path} looks like {name}, but also holds {foreign[0]}; it is another network")
    if layout.bgr:
        loaded[layout.names[0], "weight"] = loaded[layout.names[0], "weight"].flip(1)
    with torch.no_grad():
        for key, convolution in zip(layout.names, convolutions):
            convolution.weight.copy_(loaded[key, "weight"])
            convolution.bias.copy_(loaded[key, "bias"])
        encoder.mean.copy_(torch.tensor(layout.mean).view(1, 3, 1, 1))
        encoder.stddev.copy_(torch.tensor(layout.stddev).view(1, 3, 1, 1))
    return name


def _recognise(path: Path, state: dict) -> tuple[str, _Format]:
    for name, layout in _FORMATS.items():
        if f"{layout.names[0]}.weight" in state:
            return name, layout
    first = next(iter(state), "nothing")
    raise ValueError(
        f"{path} must hold the convolutions of VGG-16 under the names of {' or '.join(_FORMATS)}; "
        f"its first entry is {str(first)[:60]}"
    )
