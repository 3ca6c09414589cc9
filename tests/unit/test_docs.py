"""The pages say what is so: links lead somewhere, commands exist, and blocks marked to run do.

``<!-- run -->`` before a block means that it runs here, in the folder that the tutorial fills; ``<!-- run 320=8 -->``
that 8 stands for each 320 in it. What a line prints is what it says after ``# ->``.
"""

import contextlib
import io
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from face_files import made_face, write_expressions, write_info, write_raw

from bfm.model_file import load_model
from cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- run ?(?P<small>[\w= ]*?) ?-->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str, marked: bool = False) -> list[str]:
    """The code blocks of a page, or those marked to run, with their small numbers."""
    found = []
    for block in BLOCK.finditer(page.read_text()):
        if block["language"] != language or (marked and block["small"] is None):
            continue
        code = block["code"]
        for large, small in (pair.split("=") for pair in (block["small"] or "").split()):
            assert re.search(rf"\b{large}\b", code), f"{page.name}: no {large} in {code}"
            code = re.sub(rf"\b{large}\b", small, code)
        found.append(code)
    return found


def commands(code: str) -> list[list[str]]:
    """The words of each call of dualface in a block for the shell."""
    lines = [re.sub(r"(^|\s)#.*", "", line) for line in code.replace("\\\n", " ").splitlines()]
    calls = (shlex.split(call) for line in lines for call in re.split(r";|&&", line))
    return [words[1:] for words in calls if words[:1] == ["dualface"]]


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub and MyST link to them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index_and_every_picture_on_a_page():
    index = (ROOT / "docs" / "index.md").read_text()
    listed = [line for tree in re.findall(r"^```{toctree}\n(.*?)^```$", index, re.M | re.S) for line in tree.split()]
    assert {page.stem for page in PAGES} - {"README", "index"} <= set(listed)
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert set((ROOT / "docs").glob("*.png")) <= shown


def test_every_command_on_the_pages_exists():
    """Names of commands and options, choices, and numbers within their range."""
    checked = 0
    for page in PAGES:
        for words in (words for code in blocks(page, "sh") for words in commands(code)):
            command, path, context = main, ["dualface"], click.Context(main)
            while isinstance(command, click.Group):
                path, command = [*path, words[0]], command.get_command(context, words[0])
                assert command, f"{page.name}: {' '.join(path)}"
                words = words[1:]
            try:
                given, _, _ = command.make_parser(click.Context(command)).parse_args(words)
                for option in command.params:
                    if option.name in given and isinstance(option.type, (click.Choice, click.types.IntParamType,
                                                                         click.types.FloatParamType)):
                        option.type_cast_value(click.Context(command), given[option.name])
            except click.UsageError as error:
                pytest.fail(f"{page.name}: {' '.join([*path, *words])}: {error.format_message()}")
            checked += 1
    assert checked > 40


def run_shell(code: str) -> None:
    for words in commands(code):
        result = CliRunner().invoke(main, words, catch_exceptions=False)
        assert result.exit_code == 0, f"{words}: {result.output}"


def run_python(code: str, names: dict) -> None:
    """Run a block, and compare what each line prints with what it promises."""
    promised = [line.split("# -> ")[1] for line in code.splitlines() if "# -> " in line]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "block", "exec"), names)
    assert printed.getvalue().splitlines() == promised


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """The folder that someone has who followed the tutorial."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for code in blocks(ROOT / "docs" / "tutorial.md", "sh", marked=True):
            run_shell(code)
    return folder


def test_the_tutorial(tutorial):
    left = {path.name for path in tutorial.iterdir()}
    pictures = {"modes.png", "sheet.png"}
    assert left == {"faces", "shards", "run", "unseen", "out", *pictures, *(f"{name}.toml" for name in pictures)}
    assert {"SYNTH_000000_0.glb", "SYNTH_000000_0_neutral.glb", "SYNTH_000000_0_turntable.gif"} <= {
        path.name for path in (tutorial / "out").iterdir()
    }


@pytest.mark.parametrize("name", ["python", "shards"])
def test_the_python_examples(tutorial, monkeypatch, name):
    monkeypatch.chdir(tutorial)
    names: dict = {}
    if name == "shards":
        run_shell("dualface build ftd faces textures --size 64")
    codes = blocks(ROOT / "docs" / f"{name}.md", "python", marked=True)
    assert codes
    for code in codes:
        run_python(code, names)


def test_a_basel_face_model_is_converted_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    face = made_face()
    for write in (write_raw, write_expressions, write_info):
        write(tmp_path, face)
    [code] = blocks(ROOT / "docs" / "300w-lp.md", "sh", marked=True)
    run_shell(code)
    model = load_model(tmp_path / "bfm.h5")
    assert (len(model.mean_shape), len(model.id_basis), len(model.exp_basis)) == (len(face.trim), 4, 3)
    assert (tmp_path / "modes.png").exists()
