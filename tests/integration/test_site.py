"""The documentation site: every page is reached, nothing is fetched from a network, and the build has no warnings."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from fixtures.documents import Document
from fixtures.places import CHECKOUT

DOCS = CHECKOUT / "docs"
#: Pages that the build makes.
_GENERATED = {DOCS / "api/index", DOCS / "gallery/index", DOCS / "command-help"}
_ENDINGS = (".md", ".ipynb")


def pages_below(page: Path) -> Iterator[Path]:
    """Yield what the tables of contents of a page list, without endings."""
    for entry in Document(page).toctree:
        place = os.path.normpath(page.parent / entry)
        if "*" not in entry:
            yield Path(place)
            continue
        matching = CHECKOUT.glob(f"{os.path.relpath(place, CHECKOUT)}.*")
        found = [path.with_suffix("") for path in matching if path.suffix in _ENDINGS]
        assert found, f"{page}: nothing matches {entry}"
        yield from found


@cache
def reached() -> frozenset[Path]:
    """Return the pages that are reached from the front page, without endings."""
    found: set[Path] = set()
    waiting = [DOCS / "index"]
    while waiting:
        page = waiting.pop()
        if page in found:
            continue
        found.add(page)
        if page.with_suffix(".md").exists():
            waiting += pages_below(page.with_suffix(".md"))
    return frozenset(found)


def test_every_page_is_in_a_table_of_contents() -> None:
    pages = {path.with_suffix("") for path in DOCS.glob("*.md")}
    assert len(pages) >= 25
    assert pages <= reached()


def test_models_notebooks_and_results_are_in_a_table_of_contents() -> None:
    outside = {
        *(CHECKOUT / "models").glob("**/README.md"),
        *(CHECKOUT / "notebooks").glob("*.ipynb"),
        *(CHECKOUT / "benchmarks").glob("**/*.md"),
        CHECKOUT / "CHANGELOG.md",
        CHECKOUT / "CONTRIBUTING.md",
    }
    assert {path.with_suffix("") for path in outside} <= reached()


def test_tables_of_contents_list_pages_that_exist() -> None:
    for page in reached() - _GENERATED:
        assert any(page.with_suffix(ending).exists() for ending in _ENDINGS), page


def test_nothing_of_the_site_names_a_network() -> None:
    sources = [DOCS / "conf.py", *DOCS.glob("_*/*"), *DOCS.glob("examples/**/*")]
    assert len(sources) >= 6
    for path in sources:
        if path.is_file():
            assert not re.search(r"https?://\w", path.read_text(encoding="utf-8")), path


EXAMPLES = sorted(DOCS.glob("examples/**/*.py"))


def test_the_gallery_has_many_examples_each_in_a_section() -> None:
    assert len(EXAMPLES) >= 15
    for path in EXAMPLES:
        assert path.name.startswith("plot_"), f"{path} would not be run"
        assert (path.parent / "GALLERY_HEADER.rst").exists(), path
    names = [path.name for path in EXAMPLES]
    assert len(set(names)) == len(names), "thumbnails are named after the files"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_asks_a_question_says_what_is_shown_and_uses_the_sample(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    module = ast.parse(source)
    title, line, *rest = (ast.get_docstring(module) or "").splitlines()
    assert title.endswith("?")
    assert line == "=" * len(title), "a title's line is as long as the title"
    text = " ".join(rest)
    assert re.search(r"(picture|film)s? ", text), "the text says what the picture shows"
    calls = {node.func.attr for node in ast.walk(module)
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}  # fmt: skip
    assert "load_sample" in calls or "``sd.load_sample()``" in text, "it uses the sample, or says why not"
    assert re.search(r":(meth|func|attr|class):`", source), "a link leads to the API"
    cells = source.count("\n# %%")
    assert 1 <= cells <= 8


@pytest.fixture(scope="module")
def find_network_sources() -> Callable[[str], list[str]]:
    path = DOCS / "_extensions/network_sources.py"
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    found: Callable[[str], list[str]] = module.find_network_sources
    return found


@pytest.mark.parametrize(
    ("page", "sources"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', ["//fonts.example/a.css"]),
        ('<img alt="" src="http://example/a.png"/>', ["http://example/a.png"]),
        ('<img srcset="a.png 1x, https://example/b.png 2x">', ["https://example/b.png"]),
        ('<video poster="//example/a.png" src="film.mp4"></video>', ["//example/a.png"]),
        ("<style>@import 'https://example/a.css'; p {color: red}</style>", ["https://example/a.css"]),
        ('<p style="background: url(//example/a.png)">//example/b.png</p>', ["//example/a.png"]),
        ('<a href="https://example.org">read</a><script src="../_static/x.js"></script>', []),
        ('<link rel="canonical" href="https://example.org/page.html"><img src="a.png" srcset="a.png, b.png 2x">', []),
    ],
)
def test_what_a_page_loads_from_a_network_is_found(
    find_network_sources: Callable[[str], list[str]], page: str, sources: list[str]
) -> None:
    assert find_network_sources(page) == sources


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="`make docs` installs it")
    site = tmp_path / "site"
    options = [
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        "--jobs",
        "2",
        "--doctree-dir",
        str(tmp_path / "doctrees"),
    ]
    command = [sys.executable, "-m", "sphinx", *options, "--conf-dir", "docs", ".", str(site)]
    built = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=500, check=False)
    assert built.returncode == 0, built.stderr
    front = (site / "docs/index.html").read_text(encoding="utf-8")
    assert "gallery/index.html" in front
    assert "docs/index.html" in (site / "index.html").read_text(encoding="utf-8")
    # A name of each package, an accessor's method, and an option of a command.
    assert 'id="sensorium_data.open_store"' in (site / "docs/api/sensorium_data.html").read_text(encoding="utf-8")
    assert 'id="models.adapt"' in (site / "docs/api/models.html").read_text(encoding="utf-8")
    accessor = (site / "docs/api/sensorium_data.explore.html").read_text(encoding="utf-8")
    assert "SensoriumAccessor.plot_repeats" in accessor
    assert "--resamples" in (site / "docs/command-help.html").read_text(encoding="utf-8")
    assert len(list((site / "_images").glob("sphx_glr_plot_*_thumb.png"))) >= 15
