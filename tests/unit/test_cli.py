import dataclasses
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from cli.errors import one_sentence
from cli.main import COMMANDS, main
from texgen.thresholds import Selection


def commands(group: click.Group, path: tuple[str, ...] = ()):
    """Every command below a group, with the words that lead to it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize("path, command", list(commands(main)), ids=lambda value: "-".join(value)
                         if isinstance(value, tuple) else "")
def test_help_has_an_example_and_a_text_for_every_option(path, command):
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert f"Example: dualface {' '.join(path)} " in result.output
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def test_the_list_of_commands_imports_none_of_them():
    script = (
        "import sys; from click.testing import CliRunner; from cli.main import main\n"
        "result = CliRunner().invoke(main, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "print(result.output)\n"
        "assert not {'torch', 'numpy', 'scipy', 'h5py', 'open3d'} & set(sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    for name, (_, _, line) in COMMANDS.items():
        assert name in output and line in output


def test_the_help_of_each_command_imports_no_library():
    """What it shows as defaults comes from modules that import none, either."""
    script = (
        "import sys; from click.testing import CliRunner; from cli.main import main\n"
        "for words in sys.argv[1:]:\n"
        "    result = CliRunner().invoke(main, [*words.split(), '--help'])\n"
        "    assert result.exit_code == 0 and 'Options:' in result.output, result.output\n"
        "    heavy = {'torch', 'numpy', 'scipy', 'h5py', 'PIL', 'matplotlib', 'open3d', 'tqdm'} & set(sys.modules)\n"
        "    assert not heavy, f'{words} imports {heavy}'"
    )
    groups = [[name] for name in COMMANDS]
    words = [" ".join(path) for path in groups + [path for path, _ in commands(main)]]
    ran = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_data_generation_imports_neither_torch_nor_open3d():
    script = (
        "import asmgen.build, asmgen.inspect, asmgen.synth, asmgen.refit, bfm.charts, bfm.readers, bfm.describe, sys\n"
        "import texgen.build, asmgen.face_crops, asmgen.inspect_face_crops\n"
        "assert not {'torch', 'open3d', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_training_and_inference_do_not_import_open3d():
    script = "import model.train_geometry, model.reconstruct, sys; assert 'open3d' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("arguments, message", [
    (["build", "asmd", "{empty}", "{out}"], "holds no photo"),
    (["build", "ftd", "{empty}", "{out}"], "holds no photo"),
    (["build", "faces", "{empty}", "{out}"], "holds no photo"),
    (["inspect", "{empty}"], "holds no shards"),
    (["train", "geometry", "{empty}", "-o", "{out}"], "holds no shards"),
    (["face-model", "info", "{empty}/none.h5"], "none.h5"),
    (["reconstruct", "{photo}", "--checkpoint", "{empty}", "-o", "{out}"], "checkpoint"),
])
def test_a_mistake_gets_one_sentence(arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"")
    places = {"empty": tmp_path / "empty", "out": tmp_path / "out", "photo": tmp_path / "photo.jpg"}
    result = CliRunner().invoke(main, [argument.format(**places) for argument in arguments])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ") and message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_every_threshold_is_an_option_with_its_default():
    """The defaults are those of `Selection`; 'off' is none; what is no number is refused."""
    command = main.get_command(None, "build").commands["ftd"]
    context = click.Context(command)
    options = {option.name: option for option in command.params}
    for field in dataclasses.fields(Selection):
        option = options[field.name]
        assert option.process_value(context, option.get_default(context)) == field.default
        assert option.process_value(context, "off") is None
        assert option.process_value(context, "0.25") == 0.25
        shown = "off" if field.default is None else field.default
        assert f"[default: {shown}]" in " ".join(option.get_help_record(context)[1].split())
        for wrong in ("nan", "inf", "-1", "on"):
            with pytest.raises(click.BadParameter, match=f"'{wrong}' is no number from 0, nor 'off'"):
                option.process_value(context, wrong)


@pytest.mark.parametrize("error, exit_code, output", [
    (OSError(28, "No space left on device"), 1, "Error: [Errno 28] No space left on device\n"),
    (ValueError("size must be 4, got 5"), 1, "Error: size must be 4, got 5\n"),
    (KeyboardInterrupt(), 1, "\nAborted!\n"),
])
def test_how_an_error_ends_a_command(error, exit_code, output):
    @click.command()
    def fails():
        with one_sentence():
            raise error

    result = CliRunner().invoke(fails)
    assert (result.exit_code, result.output) == (exit_code, output)


@pytest.mark.parametrize("error", [TypeError("a bug"), KeyError("a bug"), BrokenPipeError()])
def test_other_errors_are_not_hidden(error):
    with pytest.raises(type(error)), one_sentence():
        raise error
