"""The pages as HTML: `make docs`. Markdown by MyST, the API reference out of the docstrings."""

import re

project = "dualface"
author = "the dualface authors"
copyright = "2026, the dualface authors"  # noqa: A001, Sphinx wants the name

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_click"]
templates_path = ["_templates"]
exclude_patterns = ["_templates"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
suppress_warnings = ["ref.python"]  # `Scores` are of two modules
autodoc_mock_imports = ["triton"]  # comes with torch for a GPU only
napoleon_google_docstring = False
napoleon_use_ivar = True
default_role = "code"  # names in docstrings stand in `backticks`

smartquotes = False  # `--option` is not a dash

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = "dualface"
html_show_sphinx = False
linkcheck_timeout = 20


def _columns_stay(paragraph: list[str]) -> list[str]:
    """A paragraph that is laid out by blanks, as one that keeps them."""
    laid_out = any(line.startswith(" ") or re.search(r"\S {2,}\S", line) for line in paragraph)
    return ["| " + line.replace("  ", "\N{NO-BREAK SPACE} ") for line in paragraph] if laid_out else paragraph


_whole: dict[str, list[str]] = {}


def remember(app, what, name, obj, options, lines):
    """Keep what is said of a constant or a property: napoleon takes what stands before a colon for its type."""
    if what in ("data", "attribute", "property"):
        _whole[name] = list(lines)


def plain_text(app, what, name, obj, options, lines):
    """Docstrings are text for people: `|x|` is a size, `[1]` a reference, and columns stay columns."""
    lines[:] = [_one_name(line) for line in _whole.pop(name, lines)]
    text = [re.sub(r"\[(\d)\]_", r"[\1]", re.sub(r"^\.\. \[(\d)\] ", r"[\1] ", line)) for line in lines]
    text = ["".join(part if code else part.replace("|", r"\|") for code, part in _by_code(line)) for line in text]
    if what == "module":
        paragraphs = "\n".join(text).split("\n\n")
        text = "\n\n".join("\n".join(_columns_stay(part.split("\n"))) for part in paragraphs).split("\n")
    lines[:] = text


def _one_name(line: str) -> str:
    """A field of a NamedTuple as napoleon writes it; Sphinx takes the first of `a, b` for the type of the second."""
    return re.sub(r"^:(?:ivar|vartype) [^:]+:", lambda field: field[0].replace(", ", ","), line)


def _by_code(line: str) -> list[tuple[bool, str]]:
    """The parts of a line, and whether each is in backticks."""
    return [(part.startswith("`"), part) for part in re.split(r"(``.*?``|`[^`]*`)", line)]


def without_numbers(app, what, name, obj, skip, options):
    """Leave out what Python says of a NamedTuple's fields; the docstring of the class describes them."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def plain_help(app, context, lines):
    """Help texts name files by patterns: `*` is a star there."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", remember, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", plain_text, priority=600)  # after napoleon
    app.connect("autodoc-skip-member", without_numbers)
    app.connect("sphinx-click-process-description", plain_help)
