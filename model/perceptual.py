"""phi of Eq. (17): frozen features in which generated and true albedo maps are compared.

Either ImageNet's VGG-19, from its published file, or the trained encoder of a geometry run, which is VGG-16.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from model.checkpoint import load_tensors
from model.geometry import MultiTaskEncoder
from model.train_geometry import load_geometry_stream

VGG19_CHANNELS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
"""Output channels of VGG-19's sixteen convolutions; a 2x2 maximum pooling lies between the blocks."""

STRIDES = (2, 4, 8, 16)
"""Texels a place of each feature map, along a side."""

_TAPPED_BLOCKS = (1, 2, 3, 4)  # from 0: the second convolution of each


class PerceptualFeatures(nn.Module):
    """Four layers of a VGG network, never trained: it stays in evaluation mode and has no gradients of its own.

    Parameters
    ----------
    layers : list[nn.Module]
        Of the network, in order, from the image to at least relu5_2; they are frozen, not copied.
    mean : torch.Tensor
        (1, 3, 1, 1) what images in [0, 1] are normalised by.
    stddev : torch.Tensor
        (1, 3, 1, 1) likewise.
    description : str
        What it is, for the log.

    Attributes
    ----------
    description : str
        As given.
    """

    def __init__(
        self, layers: list[nn.Module], mean: torch.Tensor, stddev: torch.Tensor, description: str
    ):
        super().__init__()
        ends = _ends(layers)
        self.description = description
        self.register_buffer("mean", mean)
        self.register_buffer("stddev", stddev)
        self.blocks = nn.ModuleList(
            nn.Sequential(*layers[start:end]) for start, end in zip([0, *ends], ends)
        )
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PerceptualFeatures:
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return relu2_2, relu3_2, relu4_2 and relu5_2, (B, C, S/2 ... S/16), of (B, 3, S, S) RGB in [0, 1]."""
        values, features = (image - self.mean) / self.stddev, []
        for block in self.blocks:
            values = block(values)
            features.append(values)
        return features


def load_perceptual(vgg19: Path | None = None, geometry: Path | None = None) -> PerceptualFeatures:
    """Return phi from whichever of the two is given.

    Parameters
    ----------
    vgg19 : Path | None
        Weights file, see `load_vgg19`; taken if both are given.
    geometry : Path | None
        Run of ``dualface train geometry``, see `from_encoder`.

    Returns
    -------
    PerceptualFeatures
        On the CPU.

    Raises
    ------
    ValueError
        If neither is given: there are no random features.
    """
    if vgg19 is not None:
        return load_vgg19(vgg19)
    if geometry is not None:
        network, config, _, steps = load_geometry_stream(geometry)
        trained = f"width {config.width:g}, {steps} steps"
        return from_encoder(network.encoder, f"the encoder of a geometry run ({trained}), for want of VGG-19's weights")
    raise ValueError(
        "the contextual loss needs trained features: give the ImageNet weights of VGG-19 (--perceptual vgg19.pth) or "
        "a geometry run (--geometry RUN), or turn the loss off (--no-contextual)"
    )


def from_encoder(
    encoder: MultiTaskEncoder, description: str = "the encoder of a geometry stream"
) -> PerceptualFeatures:
    """Return the layers of a multi-task encoder, which is VGG-16, with or without batch normalisation.

    Parameters
    ----------
    encoder : MultiTaskEncoder
        Trained; its layers are shared, not copied, and frozen.
    description : str
        For the log.

    Returns
    -------
    PerceptualFeatures
        VGG-16 has the same relu2_2, relu3_2, relu4_2 and relu5_2 as VGG-19, with one convolution less behind each
        of the last three.
    """
    return PerceptualFeatures(list(encoder.features), encoder.mean.clone(), encoder.stddev.clone(), description)


def load_vgg19(path: Path) -> PerceptualFeatures:
    """Read the weights of torchvision's ``vgg19``; fully connected layers in the file are left out.

    Parameters
    ----------
    path : Path
        State dict (.pth).

    Returns
    -------
    PerceptualFeatures
        With ImageNet's normalisation.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is damaged or of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give torchvision's VGG-19 state dict (vgg19-*.pth)")
    state = load_tensors(path)
    state = state if isinstance(state, dict) else {}
    layers = vgg19_layers()
    network = nn.ModuleDict({"features": nn.Sequential(*layers)})
    wanted = network.state_dict()
    for key in [*wanted, *(key for key in state if not str(key).startswith("classifier."))]:
        shapes = [
            tuple(tensors[key].shape) if isinstance(tensors.get(key), torch.Tensor) else "none"
            for tensors in (wanted, state)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{path} must hold torchvision's VGG-19, whose {key} has shape {shapes[0]}, got {shapes[1]}; it is "
                "another network, or cut short"
            )
    network.load_state_dict({key: state[key].float() for key in wanted})
    return PerceptualFeatures(layers, *imagenet_normalisation(), "VGG-19 of ImageNet")


def imagenet_normalisation() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (1, 3, 1, 1) mean and deviation of ImageNet's RGB in [0, 1]."""
    mean, stddev = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    return mean, stddev


def vgg19_layers() -> list[nn.Module]:
    """Return the convolutional layers of VGG-19 in torchvision's order, untrained."""
    layers, incoming = [], 3
    for block in VGG19_CHANNELS:
        layers += [nn.MaxPool2d(2)] if layers else []
        for outgoing in block:
            layers += [nn.Conv2d(incoming, outgoing, 3, padding=1), nn.ReLU(inplace=True)]
            incoming = outgoing
    return layers


def _ends(layers: list[nn.Module]) -> list[int]:
    """For each block tapped, the index after the ReLU of its second convolution."""
    ends, block, count = [], 0, 0
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.MaxPool2d):
            block, count = block + 1, 0
        elif isinstance(layer, nn.ReLU):
            count += 1
            if count == 2 and block in _TAPPED_BLOCKS:
                ends.append(index + 1)
    return ends
