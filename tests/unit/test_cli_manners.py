"""How the command line behaves: words of the user's that are wrong, less and more output, options from a file."""

import io
import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_cli import commands
from toy import toy_model
from toy_asmd import write_toy_asmd

from asmgen.shards import ShardSet
from bfm.model_file import save_model
from cli.command import PICTURE, Command, Group
from cli.config_file import read_defaults
from cli.errors import one_sentence
from cli.main import COMMANDS, LazyGroup, main
from cli.output import is_quiet, is_verbose, json_option, progress, report, say, show

WRONG = ("missing", "folder", "garbage", "image")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """Where paths of users may lead: nowhere, to an empty folder, a file of noise, a picture of no face."""
    root = tmp_path_factory.mktemp("wrong")
    Path(root, "folder").mkdir()
    Path(root, "garbage").write_bytes(np.random.default_rng(0).bytes(5000))
    Image.new("RGB", (90, 90), (40, 90, 70)).save(root / "image.png")
    return {"missing": root / "none", "folder": root / "folder", "garbage": root / "garbage",
            "image": root / "image.png", "out": root / "out"}


def typed(command: click.Command, place: Path, out: Path) -> list[str]:
    """Words after a command that name one place wherever it reads, and give what else it requires."""
    words = []
    for parameter in command.params:
        option = [parameter.opts[-1]] if isinstance(parameter, click.Option) else []
        reads = isinstance(parameter.type, click.Path) and parameter.type.exists
        names = ("checkpoint", "checkpoints", "network", *(["parsing"] if command.name == "silhouette" else []))
        if reads and (parameter.required or parameter.name in names):
            words += [*option, str(place)]
        elif parameter.name == "source" and not option:  # a model: 'open' or a file
            words += [str(place)]
        elif isinstance(parameter.type, click.Path) and parameter.required:
            words += [*option, f"{out}.png" if parameter.type is PICTURE else str(out)]
        elif isinstance(parameter.type, click.Choice) and parameter.required:
            words += [*option, parameter.type.choices[0]]
        elif parameter.required:
            words += [*option, "1"]
    return words


READING = [(path, command) for path, command in commands(main) if path[0] not in ("synth", "completion")]


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("path, command", READING, ids=["-".join(path) for path, _ in READING])
def test_wrong_paths_get_one_sentence(path, command, kind, places):
    words = [*path, *typed(command, places[kind], places["out"])]
    result = CliRunner().invoke(main, words)
    assert result.exit_code in (1, 2), (words, result.output, result.exception)
    assert isinstance(result.exception, SystemExit), (words, result.exception)
    said = result.output.strip().splitlines()
    if path == ("verify",) and kind in ("garbage", "image"):  # what it looks for is no error
        assert said[0].endswith("1 problem") and said[1].startswith(f"{places[kind].name}: "), said
    else:
        assert [line.startswith("Error: ") for line in said].count(True) == 1 and said[-1].startswith("Error: "), said
    assert "Traceback" not in result.output and "\x1b" not in result.output
    assert str(places[kind]) in result.output or places[kind].name in result.output, (words, said)
    assert (result.exit_code == 2) == ("Usage: " in result.stderr)
    assert not places["out"].exists() or not list(places["out"].rglob("*.*"))
    assert not list(places["out"].parent.glob("*.toml")) and not places["out"].with_suffix(".png").exists()


@pytest.mark.parametrize("words, message", [
    (["buid"], "No such command 'buid'. Did you mean 'build'?"), (["xyz"], "No such command 'xyz'."),
    (["build", "asm"], "No such command 'asm'. Did you mean 'asmd'?"),
    (["--quite"], "No such option '--quite'. Did you mean"),
])
def test_words_that_are_nearly_right(words, message):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and result.stderr.splitlines()[-1].startswith(f"Error: {message}")


def test_verbose_says_where_an_error_came_up(places):
    words = ["inspect", str(places["folder"])]
    short, long = CliRunner().invoke(main, words), CliRunner().invoke(main, ["-v", *words])
    assert short.exit_code == long.exit_code == 1
    assert long.output.startswith("Traceback (most recent call last):")
    assert long.output.endswith(f"\n{short.output}") and short.output.count("\n") == 1


@pytest.fixture
def program() -> click.Group:
    """A group with the options of `dualface`, and a command that tells what reaches it."""
    @click.command(cls=Command)
    @click.option("--times", type=click.IntRange(1, 9), default=1)
    @click.option("--word-of-it", "words", multiple=True)
    @click.option("--loud/--soft", default=False)
    @click.option("--name", required=True)
    def tell(**chosen):
        say("done")
        for _ in progress(range(3)):
            pass
        show({**chosen, "quiet": is_quiet(), "verbose": is_verbose()}, as_json=True)

    @click.command()
    def stopped():
        with one_sentence():
            raise KeyboardInterrupt

    group = Group("inner", commands={"tell": tell})

    class Program(LazyGroup):
        """Other commands than those of `dualface`."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            """Return two names."""
            return ["inner", "stopped"]

        def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
            """Return one of two."""
            return {"inner": group, "stopped": stopped}.get(name)

    return Program("program")


def told(result) -> dict:
    """What `tell` was given."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout[result.stdout.index("{"):])


def test_options_come_from_a_file_and_what_is_typed_wins(program, tmp_path):
    file = tmp_path / "options.toml"
    file.write_text('[inner.tell]\ntimes = 3\nword-of-it = ["a", "b"]\nloud = true\nname = "file"\n')
    given = {"times": 3, "words": ["a", "b"], "loud": True, "name": "file", "quiet": False, "verbose": False}
    result = CliRunner().invoke(program, ["--config", str(file), "inner", "tell"])
    assert told(result) == given and result.stdout.startswith("done\n")
    typed = ["--times", "4", "--word-of-it", "c", "--soft", "--name", "typed"]
    result = CliRunner().invoke(program, ["-q", "-v", "--config", str(file), "inner", "tell", *typed])
    assert told(result) == {
        "times": 4, "words": ["c"], "loud": False, "name": "typed", "quiet": True, "verbose": True,
    }
    assert result.stdout.startswith("{") and not result.stderr


@pytest.mark.parametrize("text, message", [
    ("[inner.tell]\ntime = 3", "[inner.tell] has the option 'time', must be among times, word-of-it, loud, name"),
    ("[inner.tell]\nwords = []", "[inner.tell] has the option 'words', must be among"),
    ("[inner.say]\n", "tables must be commands of `dualface inner` (tell), got 'inner.say'"),
    ("inner = 3", "tables must be commands of `dualface` (inner, stopped), got 'inner'"),
    ("[inner", "must be a TOML file, and is not: "),
    ("\xff", "must be a TOML file, and is not: "),
    ('[inner.tell]\nname = "x"\ntimes = 10', "Invalid value for '--times': 10 is not in the range 1<=x<=9."),
])
def test_a_mistake_in_the_file_is_one_of_usage(program, text, message, tmp_path):
    file = tmp_path / "options.toml"
    file.write_bytes(text.encode("latin-1"))
    result = CliRunner().invoke(program, ["--config", str(file), "inner", "tell"])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ") and message in error
    assert str(file) in error or "--times" in error


def test_every_option_can_be_in_the_file(tmp_path):
    """And every argument; what is read is the name that click knows it by."""
    context = click.Context(main)
    for path, command in commands(main):
        named = {one.name: max(one.opts, key=len).lstrip("-").replace("_", "-") for one in command.params}
        table = "".join(f"{name} = '1'\n" for name in named.values())
        file = tmp_path / "options.toml"
        file.write_text(f"[{'.'.join(path)}]\n{table}")
        found = read_defaults(file, context)
        for word in path:
            found = found[word]
        places = {one.name: str(tmp_path / "1") for one in command.params if isinstance(one.type, click.Path)}
        wanted = dict.fromkeys(named, "1") | places
        several = {one.name for one in command.params if one.multiple or one.nargs != 1}
        assert found == {name: [value] if name in several else value for name, value in wanted.items()}


def test_how_ctrl_c_ends_a_command(program):
    result = CliRunner().invoke(program, ["stopped"])
    assert (result.exit_code, result.output) == (130, "\nstopped by Ctrl-C\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_how_a_signal_ends_the_process(number, code):
    """A shell calls the second 143, 128 + 15, too."""
    script = (
        "import os, signal, cli.face_model, cli.main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import bfm.model_file\n"
        f"bfm.model_file.load_model = lambda source: os.kill(os.getpid(), {int(number)})\n"
        "cli.main.main(['face-model', 'info', 'open'])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == code and "Traceback" not in ended.stderr and not ended.stdout


@pytest.mark.parametrize("shell, words", [
    ("bash", "complete -o nosort -F"), ("zsh", "#compdef dualface"), ("fish", "complete --no-files --command dualface"),
])
def test_completion_prints_a_script(shell, words):
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0 and words in result.output and "_DUALFACE_COMPLETE" in result.output


@pytest.mark.parametrize("typed_words, completed", [
    ("dualface ev", ["evaluate"]), ("dualface build a", ["asmd"]),
    ("dualface train geometry --enc", ["--encoder-weights"]),
    ("dualface build asmd --encoding ", ["dense", "params"]),
])
def test_what_the_script_asks_is_answered(typed_words, completed):
    words = typed_words.split(" ")
    environment = {"_DUALFACE_COMPLETE": "bash_complete", "COMP_WORDS": typed_words, "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner().invoke(main, prog_name="dualface", env=environment, standalone_mode=True)
    assert [line.split(",", 1)[1] for line in result.output.split()] == completed


def test_json_is_strict(capsys):
    @dataclass
    class Made:
        path: Path
        parts: tuple
        numbers: np.ndarray

    show(Made(Path("a"), (1, None, {"b": np.float32(0.5)}), np.array([1, np.nan, -np.inf])), as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "path": "a", "parts": [1, None, {"b": 0.5}], "numbers": [1, None, None],
    }


def test_describing_a_face_model_as_json():
    result = CliRunner().invoke(main, ["-q", "face-model", "info", "open", "--size", "64", "--json"])
    facts = json.loads(result.output)
    assert facts["modes"] == {"identity": 199, "expression": 29, "albedo": 199}
    assert sum(facts["regions"].values()) == facts["vertices"] == 36096 and facts["chart_size"] == 64
    text = CliRunner().invoke(main, ["face-model", "info", "open", "--size", "64"]).output
    for name, error in facts["chart_errors_mm"].items():
        assert f"{name}, 64 x 64: round trip {error['mean']:.3f} mm on average, {error['most']:.3f} mm at most" in text


def test_no_help_has_colours():
    for path in [(name,) for name in COMMANDS] + [path for path, _ in commands(main)]:
        assert "\x1b" not in CliRunner().invoke(main, [*path, "--help"], color=True).output


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Shards of four toy faces."""
    return write_toy_asmd(tmp_path_factory.mktemp("shards"), toy_model(), 4)


def test_inspecting_as_json(shards):
    told = json.loads(CliRunner().invoke(main, ["inspect", str(shards), "--json"]).output)
    found = ShardSet(shards)
    assert (told["samples"], told["shards"], told["rejected"]) == (4, 1, {})
    assert told["bytes"] == found.paths[0].stat().st_size
    assert told["attributes"].keys() == dict(found.attributes).keys() and told["attributes"]["kind"] == "asmd"
    pose = found.column("pose")
    assert set(told["numbers"]) >= {"pose", "position"} and "landmarks" not in told["numbers"]
    for axis, numbers in enumerate(told["numbers"]["pose"]):
        wanted = {
            "mean": pose[:, axis].mean(), "std": pose[:, axis].std(), "least": pose[:, axis].min(),
            "median": np.median(pose[:, axis]), "most": pose[:, axis].max(),
        }
        assert {name: numbers[name] for name in wanted} == pytest.approx(wanted)
    assert told["bytes_a_sample"] == {key: size / 4 for key, size in found.stored_bytes().items()}


def test_verifying_as_json(shards, tmp_path):
    whole = CliRunner().invoke(main, ["verify", str(shards), "--json"])
    [path] = ShardSet(shards).paths
    size = path.stat().st_size
    assert whole.exit_code == 0
    assert json.loads(whole.output) == {"shards": 1, "samples": 4, "rejected": 0, "bytes": size, "problems": []}
    damaged = bytearray(path.read_bytes())
    damaged[size // 2] ^= 1
    (tmp_path / path.name).write_bytes(damaged)
    result = CliRunner().invoke(main, ["verify", str(tmp_path), "--json"])
    problems = json.loads(result.output)["problems"]
    assert result.exit_code == 1 and problems
    assert {problem["path"] for problem in problems} == {str(tmp_path / path.name)}


def test_less_is_said_with_quiet(tmp_path):
    save_model(toy_model(), tmp_path / "toy.h5")
    words = ["face-model", "info", str(tmp_path / "toy.h5"), "--size", "32", "-o"]
    loud = CliRunner().invoke(main, [*words, str(tmp_path / "loud.png")]).output
    quiet = CliRunner().invoke(main, ["-q", *words, str(tmp_path / "quiet.png")]).output
    assert loud == f"{quiet}wrote {tmp_path / 'loud.png'}\n" and quiet.startswith("name")
    assert (tmp_path / "loud.png").read_bytes() == (tmp_path / "quiet.png").read_bytes()


class Terminal(io.StringIO):
    """What takes a progress bar."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_bars_are_for_terminals_and_not_for_quiet():
    """They tell how many there are, and the time that is left."""
    terminal = Terminal()
    with progress(range(3), unit="photo", file=terminal, mininterval=0) as bar:
        assert list(bar) == [0, 1, 2]
    assert "3/3 [" in terminal.getvalue() and "photo/s]" in terminal.getvalue() and "<" in terminal.getvalue()
    with progress(range(3), file=io.StringIO()) as bar:
        assert bar.disable
    context = click.Context(main)
    main.parse_args(context, ["-q"])
    with context, progress(range(3), file=terminal) as bar:
        assert bar.disable


@dataclass
class Photographed:
    """What became of a photo, as `report` takes it."""

    photo: Path
    error: str = ""

    def __str__(self) -> str:
        """Return a line."""
        return f"{self.photo}: {self.error or 'done'}"


@pytest.mark.parametrize("words, said", [
    ([], "a: done\nc: done\n"), (["-q"], ""),
    (["--json"], {"photos": [{"photo": "a", "error": ""}, {"photo": "b", "error": "no face"},
                             {"photo": "c", "error": ""}], "failed": 1}),
])
def test_how_photos_are_reported(words, said):
    """Errors on stderr; as JSON there is one document of all, also with -q, and nothing else."""
    @click.command(cls=Command)
    @json_option
    def run(as_json):
        outcomes = (Photographed(Path(name), "no face" * (name == "b")) for name in "abc")
        report(outcomes, 3, as_json)

    result = CliRunner().invoke(run, words)
    assert (json.loads(result.stdout) if "--json" in words else result.stdout) == said
    assert result.stderr == "b: no face\n1 of 3 photos failed\n" and result.exit_code == 1
    if "--json" in words:
        assert CliRunner().invoke(run, [*words, "-q"]).stdout == result.stdout


def test_lines_go_above_a_bar(monkeypatch):
    """A bar that is drawn is taken away for a line, and drawn again below it."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    with progress(total=4, unit="step", file=terminal, mininterval=0) as bar:
        bar.update()
        say("step 1  loss 2")
    assert re.search(r"1/4 \[.*\r +\rstep 1  loss 2\n\r.*1/4 \[", terminal.getvalue(), re.S)
