import json
import math
from pathlib import Path

import pytest

from model.evaluation.report import markdown_table, mean_and_spread, run_labels, write_report


def test_a_table_has_aligned_columns_and_a_dash_for_what_is_missing():
    assert markdown_table(["a", "|b|"], [["one", None], [2, 0.25]]) == (
        "| a   | \\|b\\| |\n"
        "|-----|-------|\n"
        "| one | -     |\n"
        "| 2   | 0.25  |"
    )
    with pytest.raises(ValueError, match=r"2 cells, as the headings, got 3: \['one', 2, 3\]"):
        markdown_table(["a", "b"], [["one", 2, 3]])


def test_mean_and_spread_are_those_of_a_sample():
    assert mean_and_spread([1, 2, 3, 4]) == "2.50 +- 1.29"  # sqrt(5 / 3)
    assert mean_and_spread([1, 3], 1) == "2.0 +- 1.4"
    assert mean_and_spread(iter([1.005])) == "1.00"


def test_runs_are_called_by_their_folders_and_files_by_their_names(tmp_path):
    (tmp_path / "run.v2").mkdir()
    paths = [tmp_path / "run.v2", tmp_path / "other" / "checkpoint.pt", tmp_path / "points.npy"]
    assert run_labels(paths) == ["run.v2", "other", "points"]
    assert run_labels(paths, ["x", "y", "z"]) == ["x", "y", "z"]
    with pytest.raises(ValueError, match="one for each of the 3 runs and files, in order, got 2"):
        run_labels(paths, ["x", "y"])
    with pytest.raises(ValueError, match="labels must differ, got 'run' twice; give each its own"):
        run_labels([Path("a/run"), Path("b/run")])


def test_a_report_is_a_table_and_its_numbers(tmp_path):
    path = write_report(tmp_path / "new" / "out", {"One": "text", "Two": "table"}, {"distance": math.inf, "n": (1, 2)})
    assert path == tmp_path / "new" / "out" / "table.md"
    assert path.read_text() == "## One\n\ntext\n\n## Two\n\ntable\n"
    assert json.loads(path.with_name("results.json").read_text()) == {"distance": None, "n": [1, 2]}


def test_a_report_that_breaks_off_leaves_the_former_one(tmp_path, monkeypatch):
    write_report(tmp_path, {"One": "before"}, {"n": 1})
    former = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def disk_full(path, data):
        with open(path, "wb") as file:
            file.write(data[:3])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, {"One": "after"}, {"n": 2})
    assert {name: (tmp_path / name).read_bytes() for name in former} == former
