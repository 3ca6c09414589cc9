"""The table of all benchmarks, on made ones; and what it wants of each."""

import ast
import json
import time

import bench
import pytest
from click.testing import CliRunner
from provenance import machine
from timing import interleaved


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, body in {
        "bm_fast": "print('noise')\n    return [{'operation': 'quick' if quick else 'full', 'baseline': 'numpy: 9 ms',"
                   " 'ours': '3 ms', 'ratio': 3.0}]",
        "bm_broken": "raise ValueError('no such thing')",
        "bm_needs": "raise SystemExit('needs a GPU')",
        "bm_talks": "import atexit, sys\n    atexit.register(sys.stderr.write, 'bye')\n    raise OSError('no\\ndisk')",
        "bm_ends": "import os\n    os._exit(3)",
    }.items():
        (tmp_path / f"{name}.py").write_text(f"def measure(quick):\n    {body}\n")
    (tmp_path / "other.py").write_text("raise AssertionError\n")
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(bench.rows_of, "__defaults__", (True, tmp_path))
    monkeypatch.setattr(bench.benchmarks, "__defaults__", (tmp_path,))
    return tmp_path


def test_one_table_of_all_benchmarks_whatever_fails(folder):
    result = CliRunner().invoke(bench.main, [], catch_exceptions=False)
    assert result.exit_code == 0
    printed = result.stdout.splitlines()
    assert printed[:6] == [
        "operation  baseline     ours  ratio",
        "bm_broken  ValueError: no such thing",
        "bm_ends  ended with exit code 3",
        "quick      numpy: 9 ms  3 ms  3.00",
        "bm_needs  needs a GPU",
        "bm_talks  OSError: no disk",
    ]
    (file,) = (folder / "results").iterdir()
    assert printed[6:] == [f"wrote {file}"] and file.name == f"bench_{machine()['name']}.json"
    report = json.loads(file.read_text())
    assert report["machine"] == machine() and report["machine"]["cores"] >= 1
    assert report["rows"] == [
        {"benchmark": "bm_broken", "operation": "bm_broken", "error": "ValueError: no such thing"},
        {"benchmark": "bm_ends", "operation": "bm_ends", "error": "ended with exit code 3"},
        {"benchmark": "bm_fast", "operation": "quick", "baseline": "numpy: 9 ms", "ours": "3 ms", "ratio": 3.0},
        {"benchmark": "bm_needs", "operation": "bm_needs", "error": "needs a GPU"},
        {"benchmark": "bm_talks", "operation": "bm_talks", "error": "OSError: no disk"},
    ]
    (row,) = bench.rows_of("bm_fast", quick=False)
    assert row["operation"] == "full"


@pytest.mark.parametrize("name", bench.benchmarks())
def test_each_benchmark_can_be_measured_for_the_table(name):
    tree = ast.parse((bench.FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    arguments = {node.name: [a.arg for a in node.args.args] for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert arguments.get("measure") == ["quick"] and "main" in arguments


def test_functions_take_turns_and_each_has_its_time():
    called = []
    timed = interleaved({"a": lambda: called.append("a"), "b": lambda: (called.append("b"), time.sleep(0.02))}, 3, 2)
    assert called == ["a", "b"] * 5 and list(timed) == ["a", "b"]
    assert 0.02 <= timed["b"].low <= timed["b"].seconds <= timed["b"].high
