"""A training run: its curves, the sheets of samples that it drew, and what it was run with. It may be going on."""

from __future__ import annotations

import json
import math
from pathlib import Path

from model.run_folder import CONFIG_NAME, curve_panels, read_log
from model.viewer.answers import Answer, NotFound, Route, file_answer, json_answer


class RunView:
    """The page of a run.

    Parameters
    ----------
    run_dir : Path
        Its folder.

    Attributes
    ----------
    routes : dict
        See `View`.
    """

    def __init__(self, run_dir: Path):
        self._run_dir = run_dir
        self.routes: dict[str, Route] = {
            "api/view": self._view, "api/log": self._log, r"files/(samples/[^/]+\.png)": self._sheet,
        }

    def _view(self, query: dict) -> Answer:
        path = self._run_dir / CONFIG_NAME
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return json_answer({"kind": "run", "name": str(self._run_dir), "facts": _facts(config)})

    def _log(self, query: dict) -> Answer:
        records = read_log(self._run_dir)
        panels = [
            {"title": title, "series": [
                {"label": label, "points": points} for label, points in _finite(curves).items() if points
            ]} for title, curves in curve_panels(records).items()
        ]
        notes = [f"step {record['step']}: {record['note']}" for record in records if "note" in record]
        sheets = sorted(path.name for path in self._run_dir.glob("samples/*.png"))
        step = records[-1]["step"] if records else 0
        return json_answer({"panels": panels, "notes": notes, "sheets": sheets, "step": step})

    def _sheet(self, query: dict, name: str) -> Answer:
        if ".." in name:
            raise NotFound(f"no file {name}")
        return file_answer(self._run_dir, name)


def _finite(curves: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """Curves without the points that cannot be drawn, and that JSON has no number for."""
    return {label: [point for point in points if math.isfinite(point[1])] for label, points in curves.items()}


def _facts(settings: dict, before: str = "") -> list[tuple[str, str]]:
    """Nested settings, a dotted name and a text each."""
    facts = []
    for key, value in settings.items():
        if isinstance(value, dict):
            facts += _facts(value, f"{before}{key}.")
        else:
            facts.append((before + key, _as_text(value)))
    return facts


def _as_text(value: object) -> str:
    """A setting as people write it."""
    return value if isinstance(value, str) else json.dumps(value)
