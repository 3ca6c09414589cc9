"""Two processes that train together do what one does, and end together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import compiled_step
import pytest
import shared_training
import torch
from toy import toy_model
from toy_asmd import write_toy_asmd
from toy_ftd import write_toy_ftd
from training_runs import PowerCut, cut_at, without_times

from model.checkpoint import load_checkpoint
from model.config import LandmarkConfig
from model.fusion_losses import spread
from model.train_geometry import load_geometry_stream, train_geometry
from model.train_landmarks import train_landmarks
from model.trainer import read_log

TESTS = Path(shared_training.__file__).parent
KINDS = ("geometry", "identity", "landmarks", "texture", "fusion")


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs by one process, ``alone``, and by two, ``together``; and how the two ended."""
    folder = tmp_path_factory.mktemp("runs")
    write_toy_asmd(folder / "asmd", toy_model(), 12, shared_training.SIZE)
    write_toy_ftd(folder / "ftd", toy_model(), 12, shared_training.SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.trainer.draw_curves", lambda run_dir: None)
        with pytest.raises(PowerCut), shared_training.double_precision():
            train_geometry(
                folder / "asmd", folder / "begun", shared_training.GEOMETRY, toy_model(), "cpu", on_log=cut_at(4)
            )
        with shared_training.double_precision():
            shared_training.train_all(folder, folder / "alone")
        processes = [start(folder, rank, port, shared_training) for port in [free_port()] for rank in range(2)]
    said = [process.communicate(timeout=300)[1] for process in processes]
    return folder, [process.returncode for process in processes], said


def start(folder: Path, rank: int, port: int, program: ModuleType) -> subprocess.Popen:
    """Start one of two processes as torchrun does."""
    return subprocess.Popen(
        [sys.executable, program.__file__, str(folder)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, **two_processes(rank, port), "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
    )


def two_processes(rank: int, port: int) -> dict[str, str]:
    """What torchrun tells one of two processes."""
    return {
        "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }


def losses(run: Path) -> list[dict]:
    """The records of a log that hold losses, without times."""
    return [record for record in without_times(read_log(run)) if "loss" in record]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_losses_of_one(runs, kind):
    alone, together = (losses(runs[0] / name / kind) for name in ("alone", "together"))
    assert len(alone) == len(together) >= 3
    for ours, theirs in zip(together, alone):
        assert ours == pytest.approx(theirs, rel=1e-11)


def test_what_they_train_is_used_and_gone_on_with_in_one(runs):
    folder = runs[0]
    for kind in KINDS:
        alone, together = (load_checkpoint(folder / name / kind, kind) for name in ("alone", "together"))
        assert alone["step"] == together["step"] and alone["config"] == together["config"]
        for key, ours in together["networks"].items():
            theirs = alone["networks"][key]
            assert ours.keys() == theirs.keys()
            for name in ours:
                torch.testing.assert_close(ours[name], theirs[name], rtol=1e-8, atol=1e-8)
    ours, theirs = (load_geometry_stream(folder / name / "geometry").network for name in ("alone", "together"))
    image = torch.rand(1, 3, shared_training.SIZE, shared_training.SIZE)
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-5, atol=1e-6)


def test_two_go_on_with_what_one_began(runs):
    folder = runs[0]
    assert load_checkpoint(folder / "begun", "geometry")["step"] == 5
    for ours, theirs in zip(losses(folder / "begun"), losses(folder / "alone" / "geometry"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-11)


def test_the_first_alone_validates(runs):
    alone, together = (
        [record for record in read_log(runs[0] / name / "geometry") if "validation" in record]
        for name in ("alone", "together")
    )
    assert [record["step"] for record in together] == [3, 5]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-9)


def test_the_spread_of_faces_is_that_of_the_whole_batch(runs):
    expected = float(spread(shared_training.points()))
    assert expected > 1
    for rank in range(2):
        assert float((runs[0] / f"spread-{rank}").read_text()) == pytest.approx(expected, rel=1e-6)


def test_networks_start_as_the_first_one_does(runs):
    torch.manual_seed(0)
    expected = repr(torch.nn.Linear(2, 2).weight.tolist())
    assert [(runs[0] / f"start-{rank}").read_text() for rank in range(2)] == [expected] * 2


def test_batches_that_cannot_be_shared_are_refused(runs):
    for rank in range(2):
        said = (runs[0] / f"refused-{rank}").read_text()
        assert said == "the batch size must be a multiple of the 2 processes that share each batch, got 3"
    assert not (runs[0] / "odd").exists()


def check_compiled_steps(folder: Path):
    expected = compiled_step.compiled_step("cpu", "eager")
    for rank in range(2):
        found = torch.load(folder / f"compiled-{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_compiled_batch_norms_are_over_all_processes(runs):
    check_compiled_steps(runs[0])


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="takes two GPUs")
def test_compiled_batch_norms_are_over_all_gpus(tmp_path):
    processes = [start(tmp_path, rank, port, compiled_step) for port in [free_port()] for rank in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    check_compiled_steps(tmp_path)


def test_a_number_that_is_not_finite_in_one_ends_all(runs):
    folder = runs[0]
    said = {(folder / f"spoiled-{rank}").read_text() for rank in range(2)}
    (sentence,) = said
    assert sentence.startswith("step 2 is not finite (loss nan, gradient_norm nan) on row ")
    bad = load_checkpoint(folder / "spoiled" / "not_finite.pt", "landmarks")
    assert bad["step"] == 1 and len(bad["failure"]["samples"]) == 4  # of both


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_all_stop_at_the_same_step_when_one_is_told(runs, tmp_path):
    shards, run, port, ended = runs[0] / "asmd", tmp_path / "run", free_port(), []
    command = (
        *(sys.executable, "-m", "cli", "train", "landmarks", str(shards), "-o", str(run), "--device", "cpu"),
        *("--width", "0.05", "--stacks", "1", "--batch-size", "4", "--validation-fraction", "0", "--log-every", "4"),
    )
    processes = [subprocess.Popen(
        command, cwd=TESTS.parent, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env={**os.environ, **two_processes(rank, port)},
    ) for rank in range(2)]
    try:
        while not ((run / "log.jsonl").exists() and read_log(run)):
            assert processes[0].poll() is None and processes[1].poll() is None
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        for process in processes:
            ended.append((process.communicate(timeout=300)[1], process.returncode))
    finally:
        for process in processes:
            process.kill()
    state = load_checkpoint(run, "landmarks")
    done = state["step"]
    assert ended[0] == (f"stopped by SIGTERM, {done} steps of 100000 are saved; go on with --resume\n", 143)
    assert ended[1] == ("", 143)
    assert len(state["unlogged"]) == done % 4 and [record["step"] for record in read_log(run)][-1] == done - done % 4
    config = LandmarkConfig.from_dict({**state["config"], "steps": done + 1})
    train_landmarks(shards, run, config, "cpu", resume=True)
    assert read_log(run)[-1]["step"] == done + 1


def test_all_end_when_one_fails(runs):
    folder, codes, said = runs
    assert codes == [1, 1]
    assert said[1].rstrip().endswith("shared_training.Unplugged") or "Unplugged" in said[1]
    assert "Connection closed by peer" in said[0] or "Connection reset by peer" in said[0]
    assert [record["step"] for record in losses(folder / "failing")] == [1]
