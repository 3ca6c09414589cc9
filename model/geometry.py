"""The geometry stream (Sec. III-A): multi-task encoder, parametric sub-network and two attribute decoders.

Dimension key: B batch, S side of the crop and of the maps in pixels, K albedo modes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from asmgen.maps import AttributeMaps
from model.layers import FullPrecisionConv2d, UpsampledConv2d, full_precision, he_initialise, scaled
from model.linear_shape import LinearShape

VGG16_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of VGG-16's thirteen convolutions; a 2x2 maximum pooling lies between the blocks."""

DECODER_CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64)
"""Output channels of Pix2pix's eight decoder layers."""

FACE_MM = 200.0
"""Height of a face in round numbers: the unit of scale in `normalise_position`."""


class Parameters(NamedTuple):
    """The parameter set P of Eq. (3), and the position (see `GeometryStream`).

    Attributes
    ----------
    albedo : torch.Tensor
        (B, K) albedo coefficients p_t, in standard deviations.
    light : torch.Tensor
        (B, 9) spherical harmonics p_l.
    pose : torch.Tensor
        (B, 3) pitch, yaw, roll p_h, radians.
    position : torch.Tensor
        (B, 3) normalised, see `normalise_position`.
    """

    albedo: torch.Tensor
    light: torch.Tensor
    pose: torch.Tensor
    position: torch.Tensor


class Geometry(NamedTuple):
    """What the stream predicts for a batch of crops.

    Attributes
    ----------
    identity_map, expression_map : torch.Tensor
        (B, 3, S, S) A_id and A_exp in [-1, 1]; their sum is I_g (Eq. 2). A stream of shape ``single`` gives I_g as
        the first, and zeros as the second.
    parameters : Parameters
        Float32.
    """

    identity_map: torch.Tensor
    expression_map: torch.Tensor
    parameters: Parameters


def normalise_position(position: torch.Tensor, size: int) -> torch.Tensor:
    """Return positions as numbers about [-1, 1], the units in which the network predicts them.

    Parameters
    ----------
    position : torch.Tensor
        (B, 3) t_x, t_y in crop pixels, scale in pixels a millimetre.
    size : int
        Side of the crop, pixels.

    Returns
    -------
    torch.Tensor
        (B, 3) t_x and t_y from the middle of the crop in half sides, and the logarithm of the height of a
        200 mm face in sides; so the same whatever the crop's resolution.
    """
    shift = (position[:, :2] - (size - 1) / 2) / (size / 2)
    return torch.cat([shift, torch.log(position[:, 2:] * FACE_MM / size)], 1)


def denormalise_position(position: torch.Tensor, size: int) -> torch.Tensor:
    """Return (B, 3) t_x, t_y, scale in pixels from what `normalise_position` gave."""
    shift = position[:, :2] * (size / 2) + (size - 1) / 2
    return torch.cat([shift, torch.exp(position[:, 2:]) * size / FACE_MM], 1)


class MultiTaskEncoder(nn.Module):
    """MTE, Eq. (1): the convolutions of VGG-16, averaged over the image into f_L.

    Parameters
    ----------
    width : float
        Factor on every channel count; 1 is VGG-16.
    batch_norm : bool
        Whether batch normalisation follows each convolution. VGG-Face has none, and its weights fit only an
        encoder without.
    """

    def __init__(self, width: float = 1.0, batch_norm: bool = False):
        super().__init__()
        self.width, self.batch_norm = width, batch_norm
        # what the images are normalised by, RGB in [0, 1]; a weights file brings its own
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("stddev", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        layers, incoming = [], 3
        for block in VGG16_CHANNELS:
            layers += [nn.MaxPool2d(2)] if layers else []
            for channels in block:
                outgoing = scaled(channels, width)
                layers.append(nn.Conv2d(incoming, outgoing, 3, padding=1, bias=not batch_norm))
                layers += [nn.BatchNorm2d(outgoing)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
                incoming = outgoing
        self.features = nn.Sequential(*layers)
        self.channels = incoming
        he_initialise(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return f_L, (B, 512 width), of (B, 3, S, S) RGB images in [0, 1]."""
        features = self.features((image - self.mean) / self.stddev)  # (B, 512 width, S/16, S/16)
        return features.float().mean((2, 3))


class AttributeDecoder(nn.Module):
    """AD, Eq. (2): f_L to one attribute spatial map.

    Pix2pix's decoder with bilinear upsampling in place of the transposed convolutions. The output layer starts
    small, and `start_from` adds a fixed map before tanh: the mean face, so that it need not be painted anew.

    Parameters
    ----------
    incoming : int
        Length of f_L.
    width : float
        Factor on every channel count.
    size : int
        Side of the map, a power of two; log2(size) layers, eight for the paper's 256.

    Raises
    ------
    ValueError
        If the size is not one that the layers can make.
    """

    def __init__(self, incoming: int, width: float = 1.0, size: int = 256):
        super().__init__()
        count = int(math.log2(size))
        if 2**count != size or not 1 <= count <= len(DECODER_CHANNELS) or size < 16:
            raise ValueError(f"size must be a power of two from 16 to {2 ** len(DECODER_CHANNELS)}, got {size}")
        layers = []
        for channels in DECODER_CHANNELS[-count:]:
            outgoing = scaled(channels, width)
            layers += [UpsampledConv2d(incoming, outgoing), nn.BatchNorm2d(outgoing), nn.ReLU(inplace=True)]
            incoming = outgoing
        self.layers = nn.Sequential(*layers)
        self.output = FullPrecisionConv2d(incoming, 3)
        self.register_buffer("start", torch.zeros(3, size, size))
        he_initialise(self)
        with torch.no_grad():
            self.output.weight.mul_(0.01)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, S, S) maps in [-1, 1] for (B, C) features."""
        features = self.layers(features[:, :, None, None])  # (B, 64 width, S, S)
        return torch.tanh(self.output(features) + self.start)  # in bfloat16, next to 1, steps would be of a millimetre

    def start_from_(self, start: torch.Tensor):
        """Make the untrained decoder give about this (3, S, S) map, inside (-1, 1), for every input."""
        self.start.copy_(torch.atanh(start))


class GeometryStream(nn.Module):
    """A face crop to its identity map, expression map and parameters.

    PSN predicts three numbers beside the paper's 199 + 9 + 3: where the face stands in the crop, which
    the renderer needs ("position parameters are also computed in the pipeline").

    Parameters
    ----------
    albedo_modes : int
        K, the albedo coefficients to predict; 0 for a face model without texture.
    size : int
        Side of the crop and of the maps, a power of two.
    width : float
        Factor on every channel count; 1 is the paper.
    batch_norm : bool
        Whether the encoder has batch normalisation; see `MultiTaskEncoder`.
    shape : str
        ``dual``, ``single`` or ``linear``: see `GeometryConfig`.
    decoder_width : float
        Further factor on the channel counts of the decoders.
    modes : tuple[int, int]
        Identity and expression coefficients to predict, if the shape is ``linear``.
    """

    def __init__(
        self, albedo_modes: int = 199, size: int = 256, width: float = 1.0, batch_norm: bool = False,
        shape: str = "dual", decoder_width: float = 1.0, modes: tuple[int, int] = (0, 0),
    ):
        super().__init__()
        self.albedo_modes, self.size, self.shape = albedo_modes, size, shape
        self.encoder = MultiTaskEncoder(width, batch_norm)
        self.psn = nn.Sequential(  # Eq. (3)
            nn.Linear(self.encoder.channels, scaled(512, width)),
            nn.ReLU(inplace=True),
            nn.Linear(scaled(512, width), albedo_modes + 15),
        )
        if shape == "linear":
            self.linear_shape = LinearShape(self.encoder.channels, scaled(512, width), modes, size)
        else:
            self.identity_decoder = AttributeDecoder(self.encoder.channels, width * decoder_width, size)
        if shape == "dual":
            self.expression_decoder = AttributeDecoder(self.encoder.channels, width * decoder_width, size)

    def start_from_(self, maps: AttributeMaps):
        """Make the untrained stream give about the mean face of a map space, numpy, which it keeps what it needs of."""
        if self.shape == "linear":
            self.linear_shape.start_from_(maps)
        else:
            self.identity_decoder.start_from_(torch.tensor(maps.mean_map))

    def forward(self, image: torch.Tensor) -> Geometry:
        """Return the maps and parameters of (B, 3, S, S) RGB crops in [0, 1]."""
        features = self.encoder(self._checked(image))
        return Geometry(*self._maps(features), self._predicted(features))

    def predict_parameters(self, image: torch.Tensor) -> Parameters:
        """Return only the parameters of (B, 3, S, S) crops; the decoders are not run."""
        return self._predicted(self.encoder(self._checked(image)))

    def _checked(self, image: torch.Tensor) -> torch.Tensor:
        if tuple(image.shape[1:]) != (3, self.size, self.size):
            raise ValueError(f"image must have shape (B, 3, {self.size}, {self.size}), got {tuple(image.shape)}")
        return image

    def _maps(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.shape == "linear":
            with full_precision(features):
                return self.linear_shape(features)
        first = self.identity_decoder(features)
        return first, self.expression_decoder(features) if self.shape == "dual" else torch.zeros_like(first)

    def _predicted(self, features: torch.Tensor) -> Parameters:
        with full_precision(features):
            return Parameters(*self.psn(features).split((self.albedo_modes, 9, 3, 3), 1))
