"""What faces do: random, plausible expressions of the open face model.

The movements behind its expression modes are mostly one-sided (a jaw opens, it does not open backward), so a
normal distribution is a rough description of them. This one is closer to life: a few acts at once, each to
some degree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bfm.open_face import expression_units

ACTS = {
    "smile": {"smile_left": 0.9, "smile_right": 0.9, "squint_left": 0.3, "squint_right": 0.3},
    "laugh": {"smile_left": 0.9, "smile_right": 0.9, "squint_left": 0.6, "squint_right": 0.6, "jaw_open": 0.35},
    "talk": {"jaw_open": 0.35, "lower_lip_down": 0.4},
    "gape": {"jaw_open": 1.0},
    "surprise": {
        "jaw_open": 0.5, "eyes_wide": 0.9, "brow_inner_up": 1.0, "brow_outer_up_left": 1.0, "brow_outer_up_right": 1.0,
    },
    "anger": {"brow_down": 1.0, "nose_sneer": 0.6, "lips_press": 0.5, "squint_left": 0.3, "squint_right": 0.3},
    "disgust": {"nose_sneer": 1.0, "upper_lip_up_left": 0.8, "upper_lip_up_right": 0.8, "brow_down": 0.5},
    "sadness": {"frown_left": 1.0, "frown_right": 1.0, "brow_inner_up": 0.9, "lips_shrug": 0.4},
    "fear": {"eyes_wide": 1.0, "brow_inner_up": 0.9, "stretch": 0.8, "jaw_open": 0.2},
    "kiss": {"pucker": 1.0},
    "oh": {"funnel": 0.8, "jaw_open": 0.25},
    "puff": {"cheek_puff": 0.8, "lips_press": 0.3},
    "pout": {"lips_shrug": 0.8, "pucker": 0.4},
    "fold lips": {"lips_roll": 0.8},
    "close eyes": {"blink_left": 1.0, "blink_right": 1.0},
    "wink left": {"blink_left": 1.0, "squint_left": 0.5, "smile_left": 0.2},
    "wink right": {"blink_right": 1.0, "squint_right": 0.5, "smile_right": 0.2},
    "smirk left": {"smile_left": 0.7, "dimple": 0.3},
    "smirk right": {"smile_right": 0.7, "dimple": 0.3},
    "raise brow left": {"brow_outer_up_left": 1.0},
    "raise brow right": {"brow_outer_up_right": 1.0},
    "jaw left": {"jaw_side": 0.8},
    "jaw right": {"jaw_side": -0.8},
    "jaw forward": {"jaw_forward": 0.7},
    "mouth left": {"mouth_side": 0.8},
    "mouth right": {"mouth_side": -0.8},
}
"""Full strength of each act, by the names of `expression_units`."""

HELD_OUT_PAIRS = (
    ("gape", "close eyes"), ("smile", "raise brow left"), ("kiss", "anger"), ("oh", "wink left"),
    ("jaw left", "disgust"), ("puff", "raise brow right"),
)
"""Acts that move different parts of the face, and are never drawn together for training."""

STRESS_UNITS = {
    "mouth_open": {"jaw_open": 1.0},
    "pout": ACTS["pout"],
    "smile": ACTS["smile"],
    "brows": {"brow_inner_up": 1.0, "brow_outer_up_left": 1.0, "brow_outer_up_right": 1.0},
    "eyes_closed": {"blink_left": 1.0, "blink_right": 1.0},
}
"""What the expression stress asks of a face one at a time, at full strength; with `COMBINED` these are its units."""

COMBINED = "combined"
"""The unit of the expression stress that makes both acts of one of `HELD_OUT_PAIRS`."""


def act_coefficients(**strengths: float) -> np.ndarray:
    """Return expression coefficients of named movements.

    Parameters
    ----------
    **strengths : float
        Strength of each movement of `expression_units`, 1 the full one; 0 where left out.

    Returns
    -------
    np.ndarray
        (29,) float32 coefficients in standard deviations.

    Raises
    ------
    ValueError
        If there is no movement of a name.
    """
    units = expression_units()
    unknown = sorted(set(strengths) - set(units))
    if unknown:
        raise ValueError(f"a movement must be one of {', '.join(units)}; got {unknown[0]}")
    return sum((strength * units[name] for name, strength in strengths.items()), np.zeros(len(units), np.float32))


def random_expressions(
    rng: np.random.Generator, count: int, without: Sequence[tuple[str, str]] = ()
) -> np.ndarray:
    """Return coefficients of random expressions: one to three acts and a little of everything.

    Parameters
    ----------
    rng : np.random.Generator
        Source of chance.
    count : int
        Number of faces B.
    without : Sequence[tuple[str, str]]
        Pairs of acts. No face makes all movements of both of a pair, be it by these or by other acts: without
        ("gape", "close eyes") none opens the jaw with both eyes closed, nor by talking while winking with each.

    Returns
    -------
    np.ndarray
        (B, 29) float32 coefficients in standard deviations.

    Raises
    ------
    ValueError
        If there is no act of a name.
    """
    unknown = sorted({name for pair in without for name in pair} - set(ACTS))
    if unknown:
        raise ValueError(f"an act must be one of {', '.join(ACTS)}; got {unknown[0]}")
    acts = [act_coefficients(**movements) for movements in ACTS.values()]
    movements = [_movements(name) for name in ACTS]
    held_out = [_movements(*pair) for pair in without]
    coefficients = rng.normal(0, 0.15, (count, len(acts[0])))
    for row in coefficients:
        while True:
            drawn = rng.choice(len(acts), rng.integers(1, 4), replace=False)
            made = set().union(*(movements[act] for act in drawn))
            if not any(pair <= made for pair in held_out):
                break
        for act in drawn:
            row += rng.uniform(0.1, 0.9) * acts[act]
    return coefficients.astype(np.float32)


def _movements(*names: str) -> set[tuple[str, bool]]:
    """What some acts move, and whether forward."""
    return {(movement, strength > 0) for name in names for movement, strength in ACTS[name].items()}
