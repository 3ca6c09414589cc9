"""The card of a dataset, ``README.md`` beside its shards: what it is, for whoever is handed the folder.

It says what the shards and their counts say, and nothing of when and by whom: the same build has the same card.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from asmgen.dataset_files import write_whole

CARD_NAME = "README.md"

KINDS = {
    "asmd": "Face crops with their identity and expression attribute spatial maps, pose, light and coefficients.",
    "ftd": "Face crops with their textures: the linear albedo of the face model, and the albedo that the photo shows.",
    "faces": "Face crops without labels, for self-supervised training.",
}

LOADING = {
    "asmd": """from asmgen.asmd import AsmdReader

reader = AsmdReader("."{model})
sample = reader.shards[0]  # a dict of arrays; sample["image"] is a JPEG
identity_map, expression_map = reader.maps(sample)  # (3, S, S) each, their sum is the face
vertices = reader.vertices(identity_map + expression_map)  # (V, 3) mm""",
    "ftd": """from texgen.ftd import FtdReader

reader = FtdReader("."{model})
sample = reader.shards[0]  # a dict of arrays; sample["image"] is a JPEG
linear, albedo = reader.linear_albedo(sample), reader.albedo(sample)  # (S, S, 3) in [0, 1] each""",
    "faces": """from asmgen.shards import ShardSet

sample = ShardSet(".")[0]  # a dict; sample["image"] is a JPEG""",
}

LIMITS = {
    "asmd": [
        "The face is that of a linear face model: wrinkles, hair, glasses and what covers a face are not in its maps.",
        "Placement is scaled orthographic, as in 300W-LP; perspective of near cameras is not in it.",
    ],
    "ftd": [
        "Where the photo does not show the skin, the texture is mirrored or diffused; `mask` says where.",
        "Light is fitted as nine grey spherical harmonics: cast shadows, gloss and coloured light stay in the texture.",
    ],
    "faces": ["A crop lies where landmarks, a box or a detector put it (`placed_by`); nobody has looked at each."],
}

PHOTOS = (
    "Crops are parts of photos. Their terms are those of the photos' owners, and photos show people: what may be done "
    "with them is also a matter of the law where you are."
)


class Counts(Protocol):
    """What the card tells of a finished set; `asmgen.pipeline.BuildSummary` has it.

    Attributes
    ----------
    samples : int
        Faces.
    rejected : dict[str, int]
        Photos left out, by reason.
    out_of_range : int
        Samples with map values outside [-1, 1].
    landmark_error, landmark_percent : float
        Of the landmarks from their labels, crop pixels and per cent of the face box; NaN without labels.
    scores : dict[str, float]
        Means.
    """

    samples: int
    rejected: dict[str, int]
    out_of_range: int
    landmark_error: float
    landmark_percent: float
    scores: dict[str, float]


def dataset_card(settings: Mapping, attributes: Mapping, counts: Counts) -> str:
    """Return the card of a set of shards.

    Parameters
    ----------
    settings : Mapping
        What it was built with, ``build.json``.
    attributes : Mapping
        What else its shards say.
    counts : Counts
        What it holds.

    Returns
    -------
    str
        Markdown.
    """
    kind, size = settings["kind"], settings["size"]
    model = settings.get("face_model")
    lines = [
        f"# {kind.upper()}: {counts.samples} faces", "", KINDS[kind], "",
        f"Built by dualface: `dualface build {kind}`.", "",
        "| | |", "|---|---|",
        *_row("samples", f"{counts.samples}, crops of {size} x {size} pixels"),
        *_row("photos read", settings.get("photos")),
        *_row("left out", sum(counts.rejected.values())),
        *(line for reason, count in counts.rejected.items() for line in _row(f"- {reason}", count)),
        *_row("samples with map values outside [-1, 1]", counts.out_of_range or None),
        *_row("landmarks from their labels", _landmarks(counts)),
        *(line for name, mean in counts.scores.items() for line in _row(f"mean {name}", f"{mean:.3g}")),
    ]
    if model:
        fitted = "fitted to the photos' landmarks (`--refit`)" if settings.get("refit") else "as annotated"
        lines += [
            *_row("face model", f"{model}, SHA-256 {settings['face_model_sha256']}"),
            *_row("coefficients", f"{fitted}, in the space '{attributes['coefficients']}'"),
            *_row("maps", f"chart '{settings['chart']}', encoding '{settings['encoding']}'"),
        ]
    lines += [
        "", "## Licence", "",
        *([f"Of the face model '{model}': {attributes['licence']}", ""] if model else []), PHOTOS, "",
        "## Loading", "", "```python", _loading(kind, settings), "```", "",
        "docs/shards.md of the program is the format, readable by h5py alone. `dualface verify .` rereads every byte; "
        "`dualface inspect . -o sheet.png` draws samples.", "",
        "## Known limits", "", *(f"- {limit}" for limit in _limits(kind, settings)), "",
        "## Settings", "", "```", *(f"{key}: {value}" for key, value in settings.items()), "```", "",
    ]
    return "\n".join(lines)


def write_dataset_card(folder: Path, settings: Mapping, attributes: Mapping, counts: Counts) -> None:
    """Write the card of a set into its folder, where it is not there already."""
    path, text = Path(folder) / CARD_NAME, dataset_card(settings, attributes, counts).encode()
    if not (path.is_file() and path.read_bytes() == text):
        write_whole(path, text)


def _row(name: str, value: object) -> list[str]:
    """A row of a table; none for None."""
    return [] if value is None else [f"| {name} | {str(value).replace('|', '/')} |"]


def _landmarks(counts: Counts) -> str | None:
    if math.isnan(counts.landmark_error):
        return None
    return f"{counts.landmark_error:.2f} crop pixels on average, {counts.landmark_percent:.2f} % of the face box"


def _loading(kind: str, settings: Mapping) -> str:
    """Python that reads a sample; `params` shards need the face model."""
    if settings.get("encoding") != "params":
        return LOADING[kind].format(model="")
    load = "from bfm.model_file import load_model\n"
    return load + LOADING[kind].format(model=', load_model("open")').replace(
        '"open"', '"open"' if settings["face_model"].startswith("dualface open face") else '"face_model.h5"'
    )


def _limits(kind: str, settings: Mapping) -> list[str]:
    limits = list(LIMITS[kind])
    if settings.get("refit"):
        limits.append("Fitted to landmarks: the shape between them, and skin tone against light, are guesses.")
    if settings.get("encoding") == "params":
        limits.append("Maps are not stored: they are made of the coefficients, which takes the face model.")
    return limits
