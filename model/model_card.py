"""The card of a network, ``README.md`` in the folder of its run: what it is, for whoever is handed the folder.

It says what the checkpoint and the log say, and nothing of when and by whom: the same run has the same card.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from asmgen.dataset_files import write_whole
from model.run_folder import json_text, read_log

CARD_NAME = "README.md"

KINDS = {
    "geometry": "A face crop to its identity and expression maps, albedo coefficients, light, pose and position.",
    "landmarks": "A face crop to heatmaps of its 68 landmarks, hidden ones included.",
    "identity": "A face crop to a vector that is near for one person and far for two.",
    "texture": "A linear albedo map and a face crop to a realistic albedo map.",
    "fusion": "A face crop to everything that a face is drawn from: maps, texture, light, pose and position.",
}

USES = {
    "geometry": "dualface reconstruct photo.jpg --checkpoint RUN -o out\ndualface export RUN face.onnx --to onnx",
    "landmarks": "dualface annotate photos annotated --network RUN",
    "identity": "dualface train fusion faces textures -o fusion --geometry G --texture T --identity RUN",
    "texture": "dualface reconstruct photo.jpg --checkpoint GEOMETRY --texture RUN -o out",
    "fusion": "dualface reconstruct photo.jpg --checkpoint RUN -o out\ndualface export RUN face.onnx --to onnx",
}

FACES = ("geometry", "fusion")
HELD = (
    "`checkpoint.pt` holds the mean face of that model, with `--shape linear` its modes of shape; an ONNX file of it "
    "holds its albedo, too. So its terms are theirs."
)
"""What the networks of these kinds have of a face model."""

LIMITS = (
    "It knows photos like those it was trained on: one trained on rendered faces alone does not carry over to photos.",
    "It takes the square crop that the program cuts, of the side below, upright.",
    "Nobody has measured how it treats people of different age, sex or skin tone; measure before use on people.",
)


def model_card(
    kind: str, done: int, steps: int, config: Mapping, metadata: Mapping, records: Sequence[Mapping]
) -> str:
    """Return the card of a run.

    Parameters
    ----------
    kind : str
        What is trained.
    done : int
        Steps in the checkpoint.
    steps : int
        Steps of the whole run.
    config : Mapping
        Plain values.
    metadata : Mapping
        Of the checkpoint; tensors are left out.
    records : Sequence[Mapping]
        Of the log.

    Returns
    -------
    str
        Markdown.
    """
    plain = {key: value for key, value in metadata.items() if not isinstance(value, (torch.Tensor, dict))}
    facts = {
        "trained": f"{done} of {steps} steps" + ("" if done >= steps else ", not finished"),
        "crop": f"{plain['size']} x {plain['size']} pixels" if "size" in plain else None,
        "face model": f"{plain['face_model']}, SHA-256 {plain['face_model_sha256']}" if "face_model" in plain else None,
        "trained on samples with SHA-256": plain.get("samples_sha256"),
    }
    measured = [record for record in records if "validation" in record and record["step"] <= done]
    licence = plain.get("licence")
    lines = [
        f"# dualface {kind} network", "", KINDS.get(kind, f"A network of kind {kind}."), "",
        f"Trained by dualface: `dualface train {kind}`.", "", "| | |", "|---|---|",
        *(f"| {name} | {str(fact).replace('|', '/')} |" for name, fact in facts.items() if fact), "",
        "## Measured on held-out identities", "", *_validation(measured), "",
        "## Licence", "",
        *([f"Of the face model it was trained on: {licence}", ""] if licence else []),
        *([HELD, ""] if licence and kind in FACES else []),
        "The weights come from photos, and from networks that were given: their terms go with them.", "",
        "## Use", "", "```sh", USES.get(kind, "dualface --help"), "```", "",
        "`checkpoint.pt` is read by `torch.load(weights_only=True)`; nothing in it can run.", "",
        "## Known limits", "", *(f"- {limit}" for limit in LIMITS), "",
        "## Settings", "", "```json", json_text(dict(config)).rstrip(), "```", "",
    ]
    return "\n".join(lines)


def write_model_card(
    run_dir: Path, kind: str, done: int, steps: int, config: Mapping, metadata: Mapping
) -> None:
    """Write the card of a run whose checkpoint has `done` steps; see `model_card`. Nothing if it is there already."""
    path = Path(run_dir) / CARD_NAME
    text = model_card(kind, done, steps, config, metadata, read_log(run_dir)).encode()
    if not (path.is_file() and path.read_bytes() == text):
        write_whole(path, text)


def _validation(measured: Sequence[Mapping]) -> list[str]:
    """The last validation, a line a measure."""
    if not measured:
        return ["Nothing yet."]
    last = measured[-1]
    numbers = [
        f"| {name} | {value:.4g} |" for name, value in last["validation"].items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    ]
    return [f"After {last['step']} steps; names end in their unit.", "", "| | |", "|---|---|", *numbers]
