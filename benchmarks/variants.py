"""What tables of results share: variants trained alike from several seeds, in a JSON file that grows.

A variant is a config. It is trained once a seed, which sets its initial weights and the order of its data; the people
held out are those of seed 0 for all, so that rows differ by training alone. A run that runs out of time is measured
where it stopped, and its steps say so; its time starts with its first log line, when workers and kernels have started.
A run that collapses has no errors, but the step. A run that was killed is trained again. The JSON file holds every run;
a second call adds what it lacks. Processes share a table by writing files of their own, with other variants, for
`result_tables.py` to merge.
"""

import gc
import json
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch
from provenance import provenance
from result_tables import Column, merged, read_report, write_report

from model.checkpoint import save_checkpoint
from model.config import RunConfig
from model.data import split_identities
from model.run_folder import json_text, save_sheet
from model.trainer import Task, run_training

HELD_OUT_SEED = 0
"""Chooses the people held out, whatever the seed of a run."""


class TimeIsUp(Exception):
    """Ends a run at its time limit."""


def run_variants(
    task_for: Callable[[RunConfig], Task], configs: dict[str, RunConfig], seeds: Sequence[int], runs: Path,
    output: Path | None, *, columns: dict[str, Column], same: dict, start: str = "", minutes: float | None = None,
    measure: Callable[[Task, Path], dict] | None = None,
) -> dict:
    """Train and measure every variant from every seed that the file does not hold yet.

    Parameters
    ----------
    task_for : Callable[[RunConfig], Task]
        Makes the networks of a run; what does not depend on the config is made before.
    configs : dict[str, RunConfig]
        Of each variant; its seed does not matter.
    seeds : Sequence[int]
        Of the runs; the first seed of all variants is trained first.
    runs : Path
        Run folders are made in it, ``<variant>/seed-<seed>``, complete once they are under this name.
    output : Path | None
        JSON file, written after every run; None keeps nothing.
    columns : dict[str, Column]
        Of the table, by their headings.
    same : dict
        What runs of one table must agree in beside their configs, such as hashes of shards; plain values.
    start : str
        Name of the table's first row, of what there is before training; empty for none.
    minutes : float | None
        Most for the training of one run.
    measure : Callable[[Task, Path], dict] | None
        Given the trained task and the folder with its checkpoint; returns what to add to the row, plain values.
        A row has ``steps``, ``seconds``, ``images_per_second``, ``peak_memory_mib`` (on a GPU), the parameters of
        each network (``generator_parameters``), the last validation, and as ``start_...`` that before the first step.

    Returns
    -------
    dict
        The report, as the file has it: ``results[variant][seed]`` is a row.

    Raises
    ------
    click.ClickException
        If the file is of other settings, a folder is taken, or there is nobody to measure on.
    """
    report = json.loads(json_text({
        "columns": columns, "start": start, "same": same, "minutes": minutes,
        "variants": {name: config.to_dict() | {"seed": None} for name, config in configs.items()},
        "calls": [], "results": {},
    }))
    if output and output.exists():
        report = merged([read_report(output), report])
    called = False
    for seed in seeds:
        for name, config in configs.items():
            rows, run_dir = report["results"].setdefault(name, {}), Path(runs, name, f"seed-{seed}")
            if str(seed) in rows:
                continue
            if run_dir.exists():
                raise click.ClickException(f"{run_dir} is not of {output or 'this call'}; remove it, or name others")
            task = task_for(replace(config, seed=seed))
            _hold_out(task)
            if not called:
                report["calls"].append(provenance(task.device))
                called = True
            partial = run_dir.with_name(f"{run_dir.name}.partial")
            if partial.exists():  # of a call that was killed
                shutil.rmtree(partial)
            row = _train(task, partial, minutes, f"{name} seed {seed}")
            if measure and "collapsed" not in row:
                row |= measure(task, partial)
            os.replace(partial, run_dir)
            rows[str(seed)] = json.loads(json_text({"call": len(report["calls"]) - 1, **row}))
            if output:
                write_report(report, output)
            del task
            if torch.cuda.is_initialized():
                gc.collect()  # so that the next run's peak memory is its own
    return report


def _hold_out(task: Task):
    config = task.config
    task.training, task.held_out = split_identities(
        task.dataset.sources, config.validation_fraction, HELD_OUT_SEED, config.validation_samples
    )
    if not len(task.held_out):
        raise click.ClickException("no sample is held out to measure on; --validation-fraction must be above 0")
    task.metadata = {**task.metadata, "held_out_seed": HELD_OUT_SEED}  # for `model.data.held_out_samples`


def _train(task: Task, run_dir: Path, minutes: float | None, title: str) -> dict:
    """Train one variant from one seed into `run_dir` and return its row."""
    begun, limit, rates, validations, done = time.perf_counter(), math.inf, [], {}, 0

    def watch(record: dict):
        nonlocal limit, done
        click.echo(f"{title}  {json.dumps(record)}", err=True)
        done = record["step"]
        if "validation" in record:
            validations[done] = record["validation"]
        if "loss" in record:
            rates.append(record["images_per_second"])
            if time.perf_counter() > limit and done < task.config.steps:
                raise TimeIsUp
            if minutes and len(rates) == 1:
                limit = time.perf_counter() + 60 * minutes

    if task.on_gpu:
        torch.cuda.reset_peak_memory_stats(task.device)
    after, collapsed = {}, {}
    try:
        try:
            run_training(task, run_dir, task.config, on_log=watch)
        except TimeIsUp:
            config = task.config.to_dict()
            save_checkpoint(run_dir, task.kind, done, config, task.metadata, task.networks, task.optimisers)
            validations[done] = task.validate()
            save_sheet(task.pictures(), run_dir, done)
        after = validations.get(done, {})
        for key, value in after.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{key} is {value} after {done} steps")
    except FloatingPointError as error:
        after, collapsed = {}, {"collapsed": str(error)}
    row = {
        "steps": done, "seconds": round(time.perf_counter() - begun, 1), "held_out": len(task.held_out),
        "note": task.note, **collapsed, **{f"start_{key}": value for key, value in validations.get(0, {}).items()},
    }
    if collapsed:
        return row
    if task.on_gpu:
        row["peak_memory_mib"] = round(torch.cuda.max_memory_allocated(task.device) / 2**20)
    for key, network in task.networks.items():
        row[f"{key}_parameters"] = sum(parameter.numel() for parameter in network.parameters())
    return row | {"images_per_second": statistics.median(rates[1:] or rates)} | after


def table_options(variants: Sequence[str], default: Sequence[str] = ()) -> Callable:
    """Add the options of every table to a command: variants, seeds, minutes, workers, device, output."""

    def chosen(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
        names = value.split(",")
        if set(names) - set(variants):
            raise click.BadParameter(f"variants must be among {', '.join(variants)}, got {value}")
        return names

    options = [
        click.option("--variants", default=",".join(default or variants), show_default=True, callback=chosen,
                     help=f"Comma-separated, of {', '.join(variants)}."),
        click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True,
                     help="Runs of each variant: seeds 0, 1, 2, ..."),
        click.option("--minutes", type=float, help="Most for each run, from its first log line on."),
        click.option("--workers", type=int, default=0, show_default=True, help="Processes that decode."),
        click.option("--device", help="[default: the GPU if there is one]"),
        click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="JSON file."),
    ]

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add
