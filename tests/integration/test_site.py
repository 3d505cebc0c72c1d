"""The documentation site: every page is reached, nothing is fetched from a network, and the build has no warnings."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.documents import Document
from fixtures.places import CHECKOUT
from sensorium_data import schema

DOCS = CHECKOUT / "docs"
#: Pages that the build makes.
_GENERATED = {DOCS / "api/index", DOCS / "api/contributors/index", DOCS / "gallery/index", DOCS / "command-help"}
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


def load_extension(name: str) -> Any:
    """Return a module of the site's extensions."""
    specification = importlib.util.spec_from_file_location(name, DOCS / f"_extensions/{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def find_network_sources() -> Callable[[str], list[str]]:
    found: Callable[[str], list[str]] = load_extension("network_sources").find_network_sources
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


@pytest.mark.parametrize(
    ("link", "place"),
    [
        ("[Gallery](examples)", "[Gallery](gallery/index.rst)"),
        ("[neurons](examples/neurons/)", "[neurons](gallery/neurons/index.rst)"),
        ("[raster](../docs/examples/neurons/plot_raster.py)", "[raster](../docs/gallery/neurons/plot_raster.rst)"),
        ("[other](examples.md) and `(examples)`", "[other](examples.md) and `(examples)`"),
    ],
)
def test_links_to_examples_lead_to_their_pages(link: str, place: str) -> None:
    assert load_extension("gallery_links").lead_to_gallery(link) == place


def test_the_front_page_links_the_gallery_and_how_to_cite() -> None:
    links = Document(DOCS / "index.md").links
    assert {"examples", "citing.md"} <= set(links)


def test_what_is_cited_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    page = (DOCS / "citing.md").read_text(encoding="utf-8")
    for paper in re.findall(r"arXiv:[\d.]+\d", schema.REFERENCES):
        assert paper in page
    assert schema.LICENSE in page


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("attainable_correlation_to_average", "attainable_<wbr>correlation_<wbr>to_<wbr>average"),
        ("sensorium_data/quality/checks.py", "sensorium_<wbr>data/<wbr>quality/<wbr>checks.<wbr>py"),
        ("--validation-windows", "--validation-windows"),
        ("short_name", "short_name"),
    ],
)
def test_only_long_names_break_and_only_between_their_parts(name: str, shown: str) -> None:
    span = '<code><span class="pre">{}</span></code>'
    assert load_extension("breakable_names").break_names(span.format(name)) == span.format(shown)


def test_thumbnails_are_described_by_the_titles_of_their_examples() -> None:
    nodes = pytest.importorskip("docutils.nodes", reason="`make docs` installs it")
    utils = pytest.importorskip("docutils.utils")
    doctree = utils.new_document("index")
    for name in ("plot_raster_thumb", "plot_other_thumb", "plot_raster_001"):
        doctree += nodes.image(uri=f"docs/gallery/images/sphx_glr_{name}.png", alt="")
    load_extension("thumbnail_texts").describe_thumbnails(doctree, {"plot_raster": "Which neurons respond together?"})
    assert [image["alt"] for image in doctree.findall(nodes.image)] == ["Which neurons respond together?", "", ""]


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
    gallery = (site / "docs/gallery/index.html").read_text(encoding="utf-8")
    thumbnails = re.findall(r"<img [^>]*_thumb[^>]*>", gallery)
    assert len(thumbnails) >= 15
    assert all(re.search(r'alt="[^"]+\?"', thumbnail) for thumbnail in thumbnails)
