"""The settings beside shards, ``build.json``: what they were built with, for people and for a rerun."""

from __future__ import annotations

import json
from pathlib import Path

SETTINGS_FILE = "build.json"


def settings_text(settings: dict) -> str:
    """Return what the file holds: names to texts and numbers, a line each."""
    return json.dumps(settings, indent=2) + "\n"


def settings_problem(path: Path, attributes: dict) -> str | None:
    """Compare settings, where there are any, with the attributes of the shards beside them; None is good."""
    if not path.exists():
        return None
    try:
        text = path.read_text()
        settings = json.loads(text)
    except ValueError as error:
        return f"is no JSON file of settings ({error})"
    if not isinstance(settings, dict) or settings_text(settings) != text:
        return "is not as it was written"
    for key, value in settings.items():
        if value != attributes.get(key):
            return f"says that {key} is {value!r}, and the shards {attributes.get(key)!r}"
    return None
