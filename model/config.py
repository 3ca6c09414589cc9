"""Everything that changes the result of a training run, in frozen dataclasses saved beside the weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

_Config = TypeVar("_Config", bound="RunConfig")


@dataclass(frozen=True)
class Augmentation:
    """How far a training crop is changed at random; each amount is the largest, drawn uniformly either way.

    Attributes
    ----------
    rotation : float
        In-plane, degrees.
    scale : float
        Fraction of the size.
    shift : float
        Fraction of the side of the crop, along each axis.
    flip : float
        Probability of mirroring left and right.
    brightness : float
        Fraction, a change of the light: its coefficients follow.
    tint : float
        Fraction, a colour channel; albedo maps follow it, albedo coefficients do not.
    saturation : float
        Fraction; albedo maps follow it, albedo coefficients do not.
    corruption : float
        Probability of each of the harms of `model.corrupt`: covers, grey, harsh tones, blur, noise.
    """

    rotation: float = 20.0
    scale: float = 0.1
    shift: float = 0.05
    flip: float = 0.5
    brightness: float = 0.2
    tint: float = 0.05
    saturation: float = 0.2
    corruption: float = 0.0


NO_AUGMENTATION = Augmentation(*(0.0,) * len(fields(Augmentation)))
"""Crops as they are."""


@dataclass(frozen=True)
class RunConfig(ABC):
    """What every training run has; `GeometryConfig` shows its use.

    Attributes
    ----------
    seed : int
        Of the initial weights, the order of the samples, and the augmentation.
    batch_size : int
        Samples a step.
    log_every, validate_every, checkpoint_every : int
        Steps between log lines, validations and checkpoints; the last two also happen at the end.
    learning_rate : float
        Of Adam.
    augmentation : Augmentation
        Amounts of the random changes.
    validation_fraction : float
        Share of the identities held out; 0 holds none.
    validation_samples : int
        Most held-out samples to validate on.
    mixed_precision, channels_last : bool
        bfloat16 convolutions and channels-last memory; on a GPU only.
    compiled : bool
        Whether torch.compile fuses what lies between the convolutions, on a GPU only: a minute at the start, then less
        memory is read and written.
    """

    seed: int = 0
    batch_size: int = 8
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 1000
    learning_rate: float = 2e-4
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation_fraction: float = 0.05
    validation_samples: int = 512
    mixed_precision: bool = True
    channels_last: bool = True
    compiled: bool = False

    free: ClassVar[tuple[str, ...]] = ("log_every", "validate_every", "checkpoint_every")
    """Fields that may differ when a run is resumed."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps of the whole run."""

    def to_dict(self) -> dict:
        """Return the fields as plain values, for JSON and checkpoints."""
        return asdict(self)

    @classmethod
    def from_dict(cls: type[_Config], saved: dict) -> _Config:
        """Return the config that `to_dict` was called on.

        Parameters
        ----------
        saved : dict
            Plain values; None, as JSON files have it, is infinity.

        Returns
        -------
        RunConfig
            Equal to the original.

        Raises
        ------
        ValueError
            If fields are missing, unknown or of another type: another version of the program wrote it.
        """
        for kind, values in ((cls, saved), (Augmentation, saved.get("augmentation", {}))):
            difference = _difference(kind, values)
            if difference:
                raise ValueError(f"the config must have the fields of this version; it differs in {difference}")
        values = {key: math.inf if value is None else value for key, value in saved.items()}
        return cls(**{**values, "augmentation": Augmentation(**saved["augmentation"])})

    def difference(self, saved: dict) -> str | None:
        """Say how a saved config differs in a field that may not change, or return None."""
        mine = self.to_dict()
        for key in sorted(mine.keys() | saved.keys()):
            if key not in self.free and mine.get(key) != saved.get(key):
                return f"{key} is {mine.get(key)}, the run was started with {saved.get(key)}"
        return None


def _difference(kind: type, saved: dict) -> list[str]:
    """The fields of a dataclass that saved values lack, have beside them, or have of another type."""
    known = {f.name: _TYPES[f.type] for f in fields(kind)}
    return sorted(
        str(name) for name in known.keys() | saved.keys()
        if name not in known or name not in saved or not isinstance(saved[name], known[name])
    )


_TYPES: dict[Any, Any] = {
    "int": int, "float": (int, float, type(None)), "bool": bool, "str": str, "Augmentation": dict,
}
"""Of values in a saved config; None stands for infinity."""

SHAPES = ("dual", "single", "linear")


@dataclass(frozen=True)
class GeometryConfig(RunConfig):
    """Training step 1 of the paper (Sec. IV-B): parameters first, then the whole geometry stream.

    Attributes
    ----------
    width : float
        Factor on every channel count of the networks; 1 is the paper.
    parameter_steps : int
        Steps of the first phase: encoder and PSN alone, on Eq. (4).
    stream_steps : int
        Steps of the second phase: everything, on Eq. (8). May grow when a run is resumed.
    encoder_weights : str
        VGG-Face or VGG-16 file to start the encoder from (width 1 only); empty trains it from scratch, with
        batch normalisation.
    eta_p, eta_a, eta_s, eta_r : float
        Weights of Eq. (8): parameters, maps, symmetry, smoothness. Departs from Eq. (8) in eta_a and eta_r, 100 and
        0.01 for the paper's 1 and 0.001: Eq. (5) sums over texels what is a mean here, and with 1 the encoder follows
        the parameters alone. After 1,800 steps the identity was that of the mean face and 2 % of the expressions were
        recovered; with 100, 48 % (docs/results.md).
    tau : float
        Weight of the albedo regularisation in Eq. (4).
    shape : str
        What stands for the shape. ``dual``: identity map and expression map, the paper. For comparison ``single``: one
        map of the whole face (Fig. 12), without Eq. (6), which a face with its expression does not obey; or
        ``linear``: coefficients of the face model (`LinearShape`).
    weighted : bool
        Whether W of Eq. (5) weighs the regions of the face, or they all count alike (Table III); see `equal_weights`.
    expression_weighted : bool
        Whether these weights are on the expression map as well. Eq. (5) has them on the identity map alone, so that an
        expression counts 4 to 11 times as much in a single map, which has them all over, as in a map of its own.
    decoder_width : float
        Further factor on the channel counts of the map decoders alone: one decoder of sqrt(2) has about the weights
        of the paper's two.
    """

    width: float = 1.0
    parameter_steps: int = 20_000
    stream_steps: int = 180_000
    encoder_weights: str = ""
    eta_p: float = 0.5
    eta_a: float = 100.0
    eta_s: float = 0.5
    eta_r: float = 1e-2
    tau: float = 5e-2
    shape: str = "dual"
    weighted: bool = True
    expression_weighted: bool = False
    decoder_width: float = 1.0

    free = (*RunConfig.free, "stream_steps")

    def __post_init__(self):
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got '{self.shape}'")
        if self.shape == "linear" and self.decoder_width != 1:
            raise ValueError(
                f"decoder_width must be 1 with shape 'linear', got {self.decoder_width:g}: it has no decoder"
            )
        if self.shape == "single" and self.eta_s:
            raise ValueError(
                f"eta_s must be 0 with shape 'single', got {self.eta_s:g}: its map holds the expression too, and faces "
                "with an expression are not symmetric; turn the symmetry loss off"
            )

    @property
    def steps(self) -> int:
        """Steps of both phases."""
        return self.parameter_steps + self.stream_steps


@dataclass(frozen=True)
class TextureConfig(RunConfig):
    """Training step 2 of the paper (Sec. IV-B): the texture stream against its discriminator, in pix2pix's manner.

    Attributes
    ----------
    width : float
        Factor on every channel count of the networks; 1 is the paper.
    steps : int
        Of the whole run. The learning rate follows from it, so it may not change when a run is resumed.
    regions : int
        n, the soft regions of SSRPM.
    stylisation : str
        ``srsm``, or of the paper's comparisons ``adain`` or ``transform``; see `TextureStream`.
    skips, landmark_branch : bool
        Whether the generator has skip connections, and SSRPM its landmark-guided branch.
    omega_r, omega_c, omega_a : float
        Weights of Eq. (18): reconstruction, contextual and adversarial loss; 0 turns a loss off, and what only it
        needs is not made.
    fill_weight : float
        Weight in the reconstruction loss of texels that the photo does not show and that were filled in.
    predicted_albedo : bool
        Departs from Sec. IV-A: make I_u of the p_t that a frozen geometry stream predicts from the photo, as
        reconstruction does, in place of the annotated p_t.
    """

    width: float = 1.0
    steps: int = 200_000
    learning_rate: float = 1e-4
    regions: int = 16
    stylisation: str = "srsm"
    skips: bool = True
    landmark_branch: bool = True
    omega_r: float = 0.1
    omega_c: float = 3.0
    omega_a: float = 0.2
    fill_weight: float = 0.2
    predicted_albedo: bool = False

    def __post_init__(self):
        if not any((self.omega_r, self.omega_c, self.omega_a)):
            raise ValueError("one of omega_r, omega_c and omega_a must be above 0; there is no loss to train on")

    def learning_rate_at(self, step: int) -> float:
        """Return pix2pix's learning rate in a step, from 0: constant, then over the second half linearly to 0."""
        return self.learning_rate * min(1.0, 2 * (self.steps - step) / self.steps)


@dataclass(frozen=True)
class LandmarkConfig(RunConfig):
    """Training of K(.), the landmark network.

    Attributes
    ----------
    width : float
        Factor on every channel count of the networks; 1 is the paper.
    steps : int
        Of the whole run. May grow when a run is resumed.
    stacks : int
        Hourglasses.
    """

    width: float = 1.0
    steps: int = 100_000
    learning_rate: float = 2.5e-4
    stacks: int = 4

    free = (*RunConfig.free, "steps")


@dataclass(frozen=True)
class IdentityConfig(RunConfig):
    """Training of F_id, the network that tells people apart.

    Attributes
    ----------
    width : float
        Factor on every channel count of the networks; 1 is the paper.
    steps : int
        Of the whole run. May grow when a run is resumed.
    depth : int
        Of the iResNet: 18, 34, 50 or 100 layers.
    margin : float
        Radians that a face must be closer to its own person than to any other.
    scale : float
        Factor on the cosines, which are the logits.
    augmentation : Augmentation
        Of the crop; what turns, scales and shifts it is small, as both faces of Eq. (21) are placed alike.
    """

    width: float = 1.0
    steps: int = 40_000
    batch_size: int = 64
    learning_rate: float = 5e-4
    depth: int = 18
    margin: float = 0.5
    scale: float = 64.0
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(rotation=5.0, scale=0.05, shift=0.02))

    free = (*RunConfig.free, "steps")

    def __post_init__(self):
        if self.depth not in (18, 34, 50, 100):
            raise ValueError(f"depth must be 18, 34, 50 or 100, got {self.depth}; there is no other iResNet")


@dataclass(frozen=True)
class FusionConfig(RunConfig):
    """Training step 3 of the paper (Sec. IV-B): both streams together, on photos alone, from runs of steps 1 and 2.

    The networks have the widths of these runs.

    Attributes
    ----------
    steps : int
        Of the whole run. May grow when a run is resumed.
    camera_distance : float
        Of the camera from the face model's origin, mm; infinity is 300W-LP's scaled orthographic projection.
    warm_up_steps : int
        Over which the learning rate rises to its value. Adam's first steps are as long as its later ones in every
        direction, however uncertain: without a rise the pixel loss doubles in the first three steps.
    lambda_pixel, lambda_identity, lambda_alignment : float
        Weights of Eq. (23); 0 turns a loss off, and what only it needs is not made.
    lambda_keep, lambda_symmetry, lambda_smoothness : float
        Departs from Eq. (23), which holds the geometry by nothing: weights of the mean squared distance, mm^2, from the
        start, of Eq. (6), and of Eq. (7) for the change since the start. On rendered faces the first suffices: without
        it 50 steps took the expression's error from 1.4 to 2.2 mm, with it to 1.3 mm, for the same photometric error.
    """

    steps: int = 20_000
    learning_rate: float = 5e-5
    warm_up_steps: int = 500
    camera_distance: float = 1000.0
    lambda_pixel: float = 0.1
    lambda_identity: float = 2.0
    lambda_alignment: float = 0.01
    lambda_keep: float = 0.1
    lambda_symmetry: float = 0.0
    lambda_smoothness: float = 0.0

    free = (*RunConfig.free, "steps")

    def __post_init__(self):
        if not any((self.lambda_pixel, self.lambda_identity, self.lambda_alignment)):
            raise ValueError(
                "lambda_pixel, lambda_identity or lambda_alignment must be above 0; there is no loss to train on"
            )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate in a step, from 0."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warm_up_steps))
