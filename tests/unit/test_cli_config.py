"""What was asked is saved beside every output, and --config repeats it: for every command and any of its options."""

import dataclasses
import json
import os
import re
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from test_cli import commands
from toy import toy_model

from bfm.model_file import save_model
from cli.command import COMMON, PICTURE, Command, FaceModel, Group, is_output
from cli.config_file import SAVED_NAME, command_text, save_command, tomllib
from cli.main import main
from cli.output import is_quiet, is_verbose
from texgen.thresholds import Selection

ALL = list(commands(main))
NAMES = ["-".join(path) for path, _ in ALL]
WORK = {"jobs": 3, "backend": "dask", "scheduler": "tcp://host:8786", "workers": 2, "resume": True, "repair": True,
        "as_json": True}
"""Options that tell how the work is done; they are not saved."""


def test_every_command_says_what_it_writes():
    """Folders and files; those without any write nothing."""
    outputs = {
        " ".join(path): [parameter.name for parameter in command.params if is_output(parameter)]
        for path, command in ALL
    }
    silent = {name for name, written in outputs.items() if not written}
    assert silent == {"verify", "view", "completion"}
    assert outputs.pop("build ftd") == ["out_dir", "asmd_dir"]
    assert {name for written in outputs.values() for name in written} == {"out_dir", "output", "out"}


@pytest.mark.parametrize("path, command", ALL, ids=NAMES)
def test_what_every_command_has(path, command):
    """The common options are declared once; the groups on the way have them, too."""
    words = [option for common in COMMON for option in (*common.opts, common.help)]
    for length in range(len(path) + 1):
        result = CliRunner().invoke(main, [*path[:length], "--help"])
        shown = " ".join(result.output.split())
        assert result.exit_code == 0 and all(" ".join(word.split()) in shown for word in words), shown
    assert isinstance(command, Command) and isinstance(main, Group)
    assert not {parameter.name for parameter in command.params} & {common.name for common in COMMON}
    lacks = {"view", "completion"}
    assert ("--json" in [name for option in command.params for name in option.opts]) == (path[0] not in lacks)


def other_than_default(parameter: click.Parameter, number: int) -> object:
    """What a parameter may be, as it is typed."""
    kind = parameter.type
    if parameter.name in WORK:
        return WORK[parameter.name]
    if isinstance(kind, click.Choice):
        return kind.choices[-1]
    if isinstance(kind, FaceModel):
        return "models/own.h5"
    if isinstance(kind, click.Path) and kind.exists:
        place = Path(f"given {number}/{parameter.name}")
        place.mkdir(parents=True, exist_ok=True)
        (place / "file").touch()
        return place / "file" if kind.file_okay else place
    if isinstance(kind, click.Path):
        Path("made").mkdir(exist_ok=True)
        return f"made/{parameter.name}.png"
    if isinstance(kind, click.IntRange):
        return kind.max if kind.max is not None else (kind.min or 0) + 7 + number
    if isinstance(kind, click.FloatRange) or kind is click.FLOAT:
        return np.nextafter(0.5, 1) + number / 8 + getattr(kind, "min", 0)
    if kind is click.INT:
        return 12 + number
    return "off" if kind.name == "number" else f'{number} "quoted" \\ é\t[x] \x7f'


def typed(command: click.Command, all_of_it: bool) -> list[str]:
    """Words that give a command all its parameters other values than their defaults, or what it needs alone."""
    words = []
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not (parameter.required or all_of_it):
            continue
        several = parameter.multiple or parameter.nargs == -1
        for number in range(2 if several and all_of_it else 1):
            if isinstance(parameter, click.Option):
                words.append((parameter.secondary_opts if parameter.default is True else parameter.opts)[-1])
            if not getattr(parameter, "is_flag", False):
                words += [str(other_than_default(parameter, number + k)) for k in range(max(1, parameter.nargs))]
    return words


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Function: what reaches a command, which writes an empty output, and whether less or more was to be said."""
    monkeypatch.chdir(tmp_path)
    got = {}

    def ask(command: click.Command, words: list[str]) -> dict:
        def write(**values):
            context = click.get_current_context()
            got.clear()
            got.update(values)
            for parameter in filter(is_output, context.command.params):
                place = values[parameter.name]
                if place and parameter.type.file_okay and not place.is_dir():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.touch()
                elif place:
                    place.mkdir(parents=True, exist_ok=True)
            if "learning_rate" in values:  # training saves while it runs
                save_command(context)
            got.update(said=(is_quiet(), is_verbose()))

        monkeypatch.setattr(command, "callback", write)
        result = CliRunner().invoke(main, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return dict(got)

    return ask


def absolute(value: object) -> object:
    """A value with its paths from the root."""
    if isinstance(value, tuple):
        return tuple(map(absolute, value))
    return Path(os.path.abspath(value)) if isinstance(value, Path) or value == "models/own.h5" else value


def saved(root: Path) -> dict[str, bytes]:
    """The saved files below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.toml")}


@pytest.mark.parametrize("all_of_it", [False, True], ids=["needed", "all"])
@pytest.mark.parametrize("path, command", ALL, ids=NAMES)
def test_a_saved_file_repeats_its_command(path, command, all_of_it, asked, tmp_path, monkeypatch):
    """From another folder, to the same values and the same file; how the work is done is not in it."""
    words = typed(command, all_of_it)
    first = {name: absolute(value) for name, value in asked(command, [*path, *words]).items()}
    files = saved(tmp_path)
    places = [first[parameter.name] for parameter in command.params if is_output(parameter) and first[parameter.name]]
    assert set(files) == {
        str((place / SAVED_NAME if place.is_dir() else Path(f"{place}.toml")).relative_to(tmp_path))
        for place in places
    }
    assert not list(tmp_path.rglob("*.partial"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in files:
        again = asked(command, [*path, "--config", f"../{name}"])
        for key, value in again.items():
            default = next((option.default for option in command.params if option.name == key), None)
            if key in WORK and all_of_it:
                assert value != first[key] and value in (default, None, False), key
            else:
                where = Path(value) if key in ("face_model", "source") and value != "open" else value
                wanted = Path(first[key]) if isinstance(where, Path) else first[key]
                assert absolute(where) == wanted and type(where) is type(wanted), key
        assert saved(tmp_path) == files
        other = [*path, "--config", f"../{name}", "-q"]
        assert asked(command, other)["said"] == (True, False)


@pytest.mark.parametrize("path, command", ALL, ids=NAMES)
def test_less_and_more_may_be_said_anywhere(path, command, asked):
    words = typed(command, False)
    for place in range(len(path) + 1):
        for option, said in (("-q", (True, False)), ("--quiet", (True, False)), ("-v", (False, True))):
            assert asked(command, [*path[:place], option, *path[place:], *words])["said"] == said
    assert asked(command, [*path, *words])["said"] == (False, False)


def test_the_file_of_a_command():
    """As text: every option there is; paths start at its folder, but those that were given from the root."""
    here, bfm = str(Path(__file__).parent), os.path.abspath(f"{os.sep}bfm.h5")
    words = [here, "out", "--refit", "--min-exposure", "off", "--max-yaw", "30", "--with-asm", "out/maps",
             "--face-model", bfm, "--jobs", "8"]
    context = click.Context(main)
    build = main.get_command(context, "build")
    with build.commands["ftd"].make_context("ftd", words, parent=click.Context(build, context, "build")) as made:
        title, *lines = command_text(made, Path("out")).splitlines()
    assert re.fullmatch(r"# dualface [\d.]+; to repeat it: dualface build ftd --config FILE", title)
    limits = {field.name.replace("_", "-"): field.default for field in dataclasses.fields(Selection)}
    limits = {name: "off" if limit is None else limit for name, limit in limits.items()}
    limits |= {"min-exposure": "off", "max-yaw": 30.0}
    assert lines[0] == "[build.ftd]"
    assert tomllib.loads("\n".join(lines))["build"]["ftd"] == {
        "root": here, "out-dir": ".", "face-model": bfm, "refit": True, "chart": "default", "encoding": "dense",
        "strict": False, "size": 256, "shard-size": 1024, "seed": 0, "lit": False, "with-asm": "maps", **limits,
    }
    assert lines[1:4] == [f"root = {json.dumps(here)}", 'out-dir = "."', f"face-model = {json.dumps(bfm)}"]


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names of files are Unicode there")
def test_a_path_that_is_no_unicode_has_to_be_typed(asked, tmp_path):
    name = os.fsdecode(b"\xff.h5")
    command = main.get_command(click.Context(main), "inspect")
    Path(name).touch()
    asked(command, ["inspect", name, "-o", "sheet.png", "--sample", "3"])
    assert (tmp_path / "sheet.png.toml").read_text().splitlines()[1:] == [
        "[inspect]", "# shards is no Unicode: type it", "sample = [3]", "rejected = false", 'output = "sheet.png"'
    ]


@pytest.mark.parametrize("error, is_saved", [
    (SystemExit(1), True), (click.ClickException("no"), False), (click.UsageError("no"), False),
    (KeyboardInterrupt(), False), (None, True),
])
def test_only_what_was_done_is_saved(error, is_saved, monkeypatch, tmp_path):
    """Also if some photos failed (SystemExit); not where another's output may lie in the folder."""
    monkeypatch.chdir(tmp_path)

    def write(output, **_):
        output.touch()
        if error:
            raise error

    command = main.get_command(click.Context(main), "inspect")
    monkeypatch.setattr(command, "callback", write)
    CliRunner().invoke(main, ["inspect", str(tmp_path), "-o", "sheet.png"])
    assert Path("sheet.png.toml").exists() == is_saved


def test_a_device_is_no_output(asked):
    """So nothing is put beside it."""
    asked(main.get_command(click.Context(main), "face-model").commands["convert"],
          ["face-model", "convert", ".", "-o", os.devnull])
    assert not Path(f"{os.devnull}.toml").exists() and not list(Path().iterdir())


@pytest.mark.parametrize("path, command", ALL, ids=NAMES)
def test_files_that_cannot_be_written_are_found_out_before_the_work(path, command, asked, monkeypatch):
    """The folder must be there, and a picture be one; folders of files are made."""
    pictures = [one for one in command.params if is_output(one) and one.type is PICTURE]
    assert bool(pictures) == (path[0] in ("figure", "inspect") or path == ("face-model", "info"))
    words = typed(command, False)
    for option in pictures:
        for place, message in (
            ("none/a.png", "Directory 'none' does not exist."), ("a.bmp", "'a.bmp' must end in .png or .jpg or .jpeg."),
        ):
            result = CliRunner().invoke(main, [*path, *words, "-o", place])
            assert result.exit_code == 2 and result.stderr.splitlines()[-1] == (
                f"Error: Invalid value for '-o' / '--output': {message}"
            )
        assert asked(command, [*path, *words, "-o", "a.PNG"])["output"] == Path("a.PNG")


@pytest.mark.parametrize("text, message", [
    ('[build.asmd]\nroot = "a"\n[verify]', "must have a table [train.geometry], got [build.asmd], [verify]"),
    ("", "must have a table [train.geometry], got none"),
    ("[train.geometry]\nface-model = ['a']", "face-model of [train.geometry] must be one value, got ['a']"),
    ("[train.geometry.seed]\n", "seed of [train.geometry] must be one value, got {}"),
    ("[train.geometry]\nshards = [1]", "shards of [train.geometry] must be a path in quotes, got [1]"),
    ("[train.geometry]\noutput = true", "output of [train.geometry] must be a path in quotes, got True"),
    ("[train.geometry]\nsteps = 3", "[train.geometry] has the option 'steps', must be among shards, output,"),
])
def test_a_mistake_in_the_file_of_a_command(text, message, tmp_path):
    file = tmp_path / "options.toml"
    file.write_text(text)
    result = CliRunner().invoke(main, ["train", "geometry", "--config", str(file)])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert message in result.stderr.splitlines()[-1] and str(file) in result.stderr


def test_what_is_typed_wins_over_the_nearest_file(asked, tmp_path):
    """A file after the command over one before it; one value may stand for a list of one."""
    Path("shards").mkdir()
    Path("near.toml").write_text('[train.geometry]\nshards = "shards"\noutput = "near"\nseed = 1\nlog-every = 1\n')
    Path("far.toml").write_text('[train.geometry]\noutput = "far"\nseed = 2\nlog-every = 2\nbatch-size = 2\n'
                                '[build.asmd]\nsize = 64\n')
    command = main.get_command(click.Context(main), "train").commands["geometry"]
    got = asked(command, [
        "--config", "far.toml", "train", "geometry", "--log-every", "3", "--config", "near.toml"
    ])
    assert (got["output"], got["seed"], got["log_every"], got["batch_size"]) == (Path("near"), 1, 3, 2)
    assert got["shards"] == (Path("shards"),)
    file = Path("near/command.toml")
    os.utime(file, (1, 1))
    asked(command, ["train", "geometry", "--config", str(file)])
    assert file.stat().st_mtime == 1  # the same is not written again
    asked(command, ["train", "geometry", "--config", str(file), "--seed", "7"])
    assert "\nseed = 7\n" in file.read_text()
    Path("one.toml").write_text('[synth.bu3dfe]\npeople = 2\nlevel = 3\n')
    command = main.get_command(click.Context(main), "synth").commands["bu3dfe"]
    assert asked(command, ["synth", "bu3dfe", "out", "--config", "one.toml"])["levels"] == (3,)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_data_are_made_again_from_the_saved_file(tmp_path, monkeypatch):
    """Rendered, then built: the same bytes, saved files too, whatever the number of workers; results are one JSON."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> object:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0 and result.stderr == "", result.output
        return json.loads(result.stdout) if "--json" in words else result.stdout

    save_model(toy_model(), tmp_path / "toy.h5")
    assert run("synth", "300wlp", "a", "--count", "5", "--image-size", "64", "--face-model", "toy.h5", "--json") == {
        "folder": "a", "photos": 5,
    }
    assert run("synth", "300wlp", "b", "--config", "a/command.toml", "--jobs", "2", "-q") == ""
    assert contents(Path("a")) == contents(Path("b")) and "command.toml" in contents(Path("a"))
    built = run("build", "asmd", "a", "c", "--size", "64", "--face-model", "toy.h5", "--json")
    assert (built["samples"], built["written"]) == (5, 5)
    run("build", "asmd", "a", "d", "--config", "c/command.toml", "--jobs", "2", "-q")
    assert contents(Path("c")) == contents(Path("d"))
    again = run("build", "asmd", "--config", "c/command.toml", "--repair", "--json")
    assert (again["samples"], again["written"]) == (5, 0) and contents(Path("c")) == contents(Path("d"))
