"""What tables of results share: each variant from each seed, once, in a file that grows and merges."""

import dataclasses
import json
import math
import statistics

import provenance
import pytest
import result_tables
import torch
from click import ClickException
from click.testing import CliRunner
from result_tables import Column, merged, table
from variants import run_variants

from model.checkpoint import load_checkpoint
from model.config import RunConfig
from model.data import held_out_samples, split_identities
from model.trainer import Task

pytestmark = pytest.mark.usefixtures("without_curves")
COLUMNS = {"error": Column("distance_mm", 3, "start_distance_mm"), "steps": Column("steps", 0),
           "twice": Column("twice", 1), "absent": Column("peak_memory_mib", 0)}


@dataclasses.dataclass(frozen=True)
class LineConfig(RunConfig):
    """Of a line through the origin."""

    steps: int = 4
    log_every: int = 1
    slope: float = 2.0
    fails_at: float = 0
    breaks: bool = False


class Lines:
    """A dataset of numbers; ten people, two photos each."""

    sources = [f"A/A_{person}_{copy}" for person in range(10) for copy in range(2)]
    samples_sha256 = "ab"

    def name_of(self, index):
        return f"photo {index}"

    def batch(self, indices):
        return {}


class LineTask(Task):
    """Fits one weight to a slope; held-out samples are told apart in the error."""

    kind, fine_tunes, metadata = "line", True, {}

    def __init__(self, config):
        super().__init__(Lines(), config, torch.device("cpu"))
        network = torch.nn.Linear(1, 1)
        self.networks, self.optimisers = {"line": network}, {"adam": self.adam(network)}

    def batches(self, start, stop):
        for step in range(start, stop):
            draws = torch.Generator().manual_seed(10_000 * self.config.seed + step)
            yield {"x": torch.randn(4, 1, generator=draws)}

    def step(self, raw, step):
        if step + 1 == self.config.fails_at:
            raise FloatingPointError("it diverged")
        loss = (self.networks["line"](raw["x"]) - self.config.slope * raw["x"]).square().mean()
        self.optimisers["adam"].zero_grad()
        loss.backward()
        self.optimisers["adam"].step()
        return {"loss": loss.detach()}

    def validate(self):
        weight = float(self.networks["line"].weight.detach())
        if self.config.breaks and self.optimisers["adam"].state:
            if self.config.slope > 2:
                raise FloatingPointError("the line is not straight")
            weight = math.nan
        return {"distance_mm": abs(weight - self.config.slope), "people_count": float(self.held_out.sum())}


CONFIGS = {"two": LineConfig(), "three": LineConfig(slope=3.0, learning_rate=0.01)}


def measure(task, run_dir):
    """From the checkpoint, which is there already."""
    weight = load_checkpoint(run_dir, "line")["networks"]["line"]["weight"]
    assert torch.equal(weight, task.networks["line"].weight)
    return {"twice": 2 * float(weight), "checked": run_dir.name}


def run(tmp_path, configs=CONFIGS, seeds=2, name="table.json", made=None, runs="runs", **options):
    def task_for(config):
        if made is not None:
            made.append((config.slope, config.seed))
        return LineTask(config)

    options = {"columns": COLUMNS, "same": {"samples_sha256": "ab"}, "start": "before", "measure": measure} | options
    return run_variants(task_for, configs, range(seeds), tmp_path / runs, name and tmp_path / name, **options)


def test_rows_are_of_runs_that_differ_by_their_seed_alone(tmp_path):
    report = run(tmp_path, seeds=3)
    assert report == json.loads((tmp_path / "table.json").read_text())
    for name, config in CONFIGS.items():
        rows = report["results"][name]
        assert list(rows) == ["0", "1", "2"] and len({row["distance_mm"] for row in rows.values()}) == 3
        for seed, row in rows.items():
            state = load_checkpoint(tmp_path / "runs" / name / f"seed-{seed}", "line")
            assert (state["step"], state["config"]["seed"], state["config"]["slope"]) == (4, int(seed), config.slope)
            weight = float(state["networks"]["line"]["weight"])
            assert (row["distance_mm"], row["twice"]) == (abs(weight - config.slope), 2 * weight)
            torch.manual_seed(int(seed))
            assert row["start_distance_mm"] == abs(float(torch.nn.Linear(1, 1).weight.detach()) - config.slope)
            assert (row["steps"], row["line_parameters"], row["call"]) == (4, 2, 0)
    held_out = split_identities(Lines.sources, 0.05, 0, 512)[1]
    people = {row["people_count"] for rows in report["results"].values() for row in rows.values()}
    assert people == {float(held_out.sum())} and row["held_out"] == len(held_out) == 2


def test_a_second_call_adds_what_is_missing(tmp_path):
    made = []
    run(tmp_path, {"two": CONFIGS["two"]}, 1, made=made)
    assert made == [(2.0, 0)]
    first = json.loads((tmp_path / "table.json").read_text())
    report = run(tmp_path, seeds=2, made=made)
    assert made == [(2.0, 0), (3.0, 0), (2.0, 1), (3.0, 1)]  # every variant of a seed before the next seed
    assert report["results"]["two"]["0"] == first["results"]["two"]["0"]
    assert [row["call"] for row in report["results"]["two"].values()] == [0, 1] and len(report["calls"]) == 2
    assert run(tmp_path, made=made) == report and len(made) == 4
    assert {"command", "commit", "device", "torch"} <= report["calls"][1].keys()
    fewer = run(tmp_path, made=made, columns={"steps": Column("steps", 0)})  # columns may change
    assert fewer["columns"] == {"steps": ["steps", 0, ""]} and len(made) == 4


@pytest.mark.parametrize("changed, words", [
    ({"same": {"samples_sha256": "cd"}}, "same: samples_sha256: ab and cd"),
    ({"minutes": 2.0}, "minutes: None and 2.0"),
    ({"configs": {"two": LineConfig(batch_size=9)}}, "two: batch_size: 8 and 9"),
])
def test_runs_of_other_settings_are_not_mixed(tmp_path, changed, words):
    run(tmp_path, {"two": CONFIGS["two"]}, 1)
    before = (tmp_path / "table.json").read_bytes()
    with pytest.raises(ClickException, match=f"they differ in {words}; name another file"):
        run(tmp_path, **{"configs": CONFIGS} | changed)
    assert (tmp_path / "table.json").read_bytes() == before


def test_infinite_settings_are_the_same_when_read_again(tmp_path):
    configs = {"two": LineConfig(fails_at=math.inf)}
    run(tmp_path, configs, 1, same={"distance": math.inf})
    assert len(run(tmp_path, configs, 2, same={"distance": math.inf})["calls"]) == 2


def test_a_run_killed_half_way_is_trained_again(tmp_path):
    def killed(task, run_dir):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, seeds=1, measure=killed)
    assert not (tmp_path / "table.json").exists()
    assert [path.name for path in (tmp_path / "runs" / "two").iterdir()] == ["seed-0.partial"]
    again, whole = run(tmp_path, seeds=1), run(tmp_path, seeds=1, name="whole.json", runs="whole")
    for name in CONFIGS:
        assert [path.name for path in (tmp_path / "runs" / name).iterdir()] == ["seed-0"]
        assert again["results"][name]["0"]["distance_mm"] == whole["results"][name]["0"]["distance_mm"]


def test_a_run_of_another_table_is_not_overwritten(tmp_path):
    run(tmp_path, seeds=1)
    with pytest.raises(ClickException, match="two/seed-0 is not of .*other.json; remove it, or name"):
        run(tmp_path, seeds=1, name="other.json")


def test_time_limit_starts_with_the_first_log_line(tmp_path):
    report = run(tmp_path, seeds=1, minutes=1e-9)
    for name, rows in report["results"].items():
        state = load_checkpoint(tmp_path / "runs" / name / "seed-0", "line")
        weight = float(state["networks"]["line"]["weight"])
        assert rows["0"]["steps"] == state["step"] == 2
        assert rows["0"]["distance_mm"] == abs(weight - CONFIGS[name].slope)


def test_a_collapsed_run_has_no_errors_and_the_rest_goes_on(tmp_path):
    configs = {"bad": LineConfig(fails_at=3), **CONFIGS}
    report = run(tmp_path, configs, 2)
    bad = report["results"]["bad"]["1"]
    assert bad["steps"] == 2 and "distance_mm" not in bad
    assert bad["collapsed"].startswith("step 3 is not finite (it diverged) on photo ")
    assert run(tmp_path, configs, 2) == report  # it is not tried again
    report["results"]["two"]["1"] = bad
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(report).splitlines()]
    assert lines[0] == ["variant", "seeds", "error", "steps", "twice"]  # no run has the last column
    assert lines[3] == ["bad", "0 (2 collapsed)", "-", "-", "-"]
    only = report["results"]["two"]["0"]
    assert lines[4] == ["two", "1 (1 collapsed)", f"{only['distance_mm']:.3f}", "4", f"{only['twice']:.1f}"]


@pytest.mark.parametrize("minutes", [None, 1e-9])
def test_a_run_that_cannot_be_measured_has_collapsed(tmp_path, minutes):
    configs = {"three": LineConfig(slope=3.0, breaks=True), "two": LineConfig(breaks=True)}
    report = run(tmp_path, configs, 1, minutes=minutes)
    steps = 2 if minutes else 4
    for name, words in (("three", "the line is not straight"), ("two", f"distance_mm is nan after {steps} steps")):
        row = report["results"][name]["0"]
        assert (row["steps"], row["collapsed"]) == (steps, words) and "distance_mm" not in row


def test_rows_are_mean_and_standard_deviation_over_seeds(tmp_path):
    report = run(tmp_path, seeds=3)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(report).splitlines()]
    rows = {name: list(rows.values()) for name, rows in report["results"].items()}

    def cell(values):
        return f"{statistics.fmean(values):.3f} +- {statistics.stdev(values):.3f}"

    assert lines[2] == ["before", "-", cell([row["start_distance_mm"] for row in rows["two"]]), "-", "-"]
    for line, name in zip(lines[3:], CONFIGS, strict=True):
        assert line[:4] == [name, "3", cell([row["distance_mm"] for row in rows[name]]), "4"]


def test_files_of_two_processes_merge(tmp_path):
    a = run(tmp_path, {"two": CONFIGS["two"]}, 2, "a.json")
    b = run(tmp_path, {"three": CONFIGS["three"]}, 1, "b.json")
    c = run(tmp_path, {"three": CONFIGS["three"]}, 2, "b.json")
    arguments = ["merge", *(str(tmp_path / name) for name in ("a.json", "b.json")), "-o", str(tmp_path / "c.json")]
    done = CliRunner().invoke(result_tables.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    report = json.loads((tmp_path / "c.json").read_text())
    assert report["calls"] == a["calls"] + c["calls"] and len(b["calls"]) == 1
    assert report["results"]["two"] == a["results"]["two"]
    assert [row["call"] for row in report["results"]["three"].values()] == [1, 2]
    assert list(report["variants"]) == ["two", "three"]
    made = []
    assert run(tmp_path, seeds=2, name="c.json", made=made) == report and not made  # all that a whole run has
    assert CliRunner().invoke(result_tables.main, ["show", str(tmp_path / "c.json")]).output == done.output
    assert done.output == table(report) + "\n"
    (tmp_path / "other.json").write_text("[]")
    refused = CliRunner().invoke(result_tables.main, ["show", str(tmp_path / "other.json")])
    assert refused.exit_code == 1 and "other.json must be a JSON file of a table's runs" in refused.output
    with pytest.raises(ClickException, match="three of seed 0 is in two of the files"):
        merged([c, c])
    assert a == json.loads((tmp_path / "a.json").read_text())  # not changed


def test_what_a_run_held_out_is_known_from_its_checkpoint(tmp_path):
    run(tmp_path, {"two": CONFIGS["two"]})
    state = load_checkpoint(tmp_path / "runs/two/seed-1", "line")
    config, metadata = LineConfig(**state["config"]), {"samples_sha256": Lines.samples_sha256}
    theirs = split_identities(Lines.sources, 0.05, 0)[1]
    assert held_out_samples(Lines(), config, state["metadata"] | metadata).tolist() == theirs.tolist()
    assert held_out_samples(Lines(), config, metadata).tolist() != theirs.tolist()  # of a run by itself


def test_nobody_held_out_is_said_in_one_sentence(tmp_path):
    with pytest.raises(ClickException, match="no sample is held out to measure on; --validation-frac"):
        run(tmp_path, {"two": LineConfig(validation_fraction=0.0)})
    assert not (tmp_path / "runs").exists()


def test_commit_without_git(monkeypatch):
    def absent(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance.subprocess, "run", absent)
    monkeypatch.delenv("DUALFACE_COMMIT", raising=False)
    assert provenance.commit() == "unknown"
    monkeypatch.setenv("DUALFACE_COMMIT", "1234abc")
    assert provenance.commit() == "1234abc"
