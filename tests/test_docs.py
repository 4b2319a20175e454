"""The documentation is true: its Python compiles, its examples print what it says, and nothing public is left out."""

import doctest
import importlib
import inspect
import io
import pkgutil
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import attrs
import pytest

from . import figures, test_law_lints

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PUBLIC_ROOMS = ["atomr_trio.actor", "atomr_trio.testing"]

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FIGURES = [*(f"{name}.svg" for name in figures.STRATEGIES), "window.svg"]
EXAMPLE = re.compile(
    r"^```python\n(?P<code>(?:(?!^```).)*)^```\n\n?```text\n(?P<said>.*?)^```$", re.DOTALL | re.MULTILINE
)


def numbered(pattern):
    """Every match in the pages, under the page's name and the line it begins at."""
    for page in PAGES:
        source = page.read_text(encoding="utf-8")
        for match in pattern.finditer(source):
            line = source.count("\n", 0, match.start()) + 1
            yield pytest.param(match, id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize("block", list(numbered(BLOCK)))
def test_every_block_compiles(block):
    compile(block[1], "example", "exec")


@pytest.mark.parametrize("example", list(numbered(EXAMPLE)))
def test_every_example_prints_what_the_page_says(example):
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(example["code"], "example", "exec"), {"__name__": "__main__"})
    assert said.getvalue() == example["said"]


def test_the_pages_on_actors_are_made_of_examples():
    for page, least in {"actors.md": 10, "supervision.md": 6, "recipes.md": 12}.items():
        source = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert len(EXAMPLE.findall(source)) == source.count("```python") >= least, page


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_shows_what_the_core_does(name):
    drawn = figures.figures()[name]
    assert (figures.FIGURES / name).read_text(encoding="utf-8") == drawn, "draw it anew: python -m tests.figures"
    assert f"(figures/{name})" in (ROOT / "docs" / "supervision.md").read_text(encoding="utf-8")


def test_the_laws_cite_what_is_there():
    laws = (ROOT / "docs" / "laws.md").read_text(encoding="utf-8")
    cited = set(re.findall(r"`(tests/[\w/]+(?:\.py)?)`", laws))
    assert len(cited) > 15
    assert {path for path in cited if not (ROOT / path).exists()} == set()
    lints = set(re.findall(r"`([a-z]+_[a-z_]+)`", laws))
    assert lints == {check.__name__ for check in test_law_lints.BAD}


def modules_of(room):
    package = importlib.import_module(room)
    return [room, *(f"{room}.{module.name}" for module in pkgutil.iter_modules(package.__path__))]


@pytest.mark.parametrize("name", [name for room in PUBLIC_ROOMS for name in modules_of(room)])
def test_what_a_docstring_shows_is_so(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def public_objects():
    for room in PUBLIC_ROOMS:
        for name, found in vars(importlib.import_module(room)).items():
            if not name.startswith("_") and not inspect.ismodule(found):
                yield pytest.param(f"{room}.{name}", found, id=f"{room}.{name}")


def members(cls):
    """The methods and properties that a class defines itself, under their names."""
    for name, member in vars(cls).items():
        plain = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        if not name.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
            yield name, plain


def described(cls):
    return " ".join(inspect.cleandoc(base.__doc__ or "") for base in cls.__mro__ if base is not object)


DEFINED_BY_ANNOTATION = {"atomr_trio.actor.Decider", "atomr_trio.actor.HashKey", "atomr_trio.testing.LAWS"}


@pytest.mark.parametrize(("path", "found"), list(public_objects()))
def test_every_public_name_says_what_it_does(path, found):
    if path in DEFINED_BY_ANNOTATION:
        return  # an alias or a constant has no docstring at run time
    assert inspect.getdoc(found), path
    if inspect.isclass(found):
        silent = [name for name, member in members(found) if not inspect.getdoc(member)]
        fields = attrs.fields(found) if attrs.has(found) and path.startswith("atomr_trio.actor") else ()
        told = described(found)
        silent += [a.alias for a in fields if a.init and not re.search(rf"\b{a.alias}\b", told)]
        assert silent == []


REFERENCE = {room: ROOT / "docs" / "api" / f"{room.rpartition('.')[2]}.md" for room in PUBLIC_ROOMS}


def test_the_reference_has_every_public_name_once():
    for room, page in REFERENCE.items():
        listed = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        public = [param.values[0] for param in public_objects() if param.values[0].startswith(f"{room}.")]
        assert sorted(listed) == sorted(public)


def test_the_built_reference_leaves_nothing_out(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the documentation is built with the dev extra")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    for param in public_objects():
        path, found = param.values
        page = (tmp_path / "site" / "api" / f"{path.split('.')[1]}.html").read_text(encoding="utf-8")
        wanted = [path, *(f"{path}.{name}" for name, _ in (members(found) if inspect.isclass(found) else ()))]
        assert [name for name in wanted if f'id="{name}"' not in page] == []
