"""The benchmark of the ways to stylise, as far as a CPU can tell."""

import gc
import importlib.util
import json
import weakref
from pathlib import Path

import pytest
from click.testing import CliRunner

PATH = Path(__file__).parents[2] / "benchmarks" / "bm_stylisation.py"


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("bm_stylisation", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_of_a_variant_is_alive_when_the_next_is_measured(benchmark, tmp_path, monkeypatch):
    made, left, made_by_variant = [], [], []

    class Watched(benchmark.TextureStream):
        def __init__(self, *arguments, **options):
            gc.collect()
            left.append(sum(reference() is not None for reference in made))
            made_by_variant.append(len(made))
            super().__init__(*arguments, **options)
            made.append(weakref.ref(self))
            made.extend(map(weakref.ref, self.parameters()))
            for module in self.modules():
                module.register_forward_hook(self.watch)

        @staticmethod
        def watch(module, given, output):
            if hasattr(output, "grad_fn"):
                made.append(weakref.ref(output))

    monkeypatch.setattr(benchmark, "TextureStream", Watched)
    arguments = "--width 0.05 --size 32 --batch-size 1 --steps 2 --device cpu -o".split()
    result = CliRunner().invoke(benchmark.main, [*arguments, str(tmp_path / "out.json")], catch_exceptions=False)
    assert result.exit_code == 0 and left == [0] * len(benchmark.VARIANTS)
    assert min(b - a for a, b in zip(made_by_variant, made_by_variant[1:])) > 100  # it did watch something
    results = {line["variant"]: line for line in json.loads((tmp_path / "out.json").read_text())["results"]}
    assert list(results) == list(benchmark.VARIANTS)
    assert results["adain"]["kept_mib"] <= results["n=16"]["kept_mib"] <= results["n=16, n-fold copy"]["kept_mib"]
    assert all(line["peak_mib"] is None for line in results.values())
