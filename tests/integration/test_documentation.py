"""The documentation is true: links lead somewhere, commands parse, examples run, and what is named exists."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import shlex
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import sensorium_data
from fixtures.documents import Block, Document, all_documents, pages
from fixtures.places import CHECKOUT
from flows.cli import app
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies
from sensorium_data.sessions import find_sessions
from sensorium_data.simulation import simulate

DOCUMENTS = all_documents()
PAGES = pages()

_LANGUAGES = {"python", "sh", "text", "{toctree}"}
_RUNS = "runs"
_DOES_NOT_RUN = "does not run: "
_OTHER_PROGRAMS = {"cd", "export", "git", "make", "prefect", "source"}
#: What a reader of a command line replaces by something of their own, and what may stand for it here.
_PLACEHOLDERS = {"FOLDER": "folder"}

_FILE_ENDINGS = (".html", ".ipynb", ".json", ".log", ".md", ".npy", ".png", ".py", ".pyi", ".toml", ".yaml", ".zip")
#: Files of other repositories, and those that every folder has.
_ELSEWHERE = {"args.yaml", "benchmarks_training.ipynb", "models_demo.ipynb", "__init__.py", "__init__.pyi"}
#: Paths that exist only once somebody has used the software, and those of other machines.
_MADE_BY_USE = re.compile(
    r"""(?x)
    /.* | \.venv/.* | build/.* | demo/.* | ~/.* | .*\.npy | SESSION/.* | <session>\..* | submission_<track>\.md
    | submission_fixed\.json | versions\.json | movies\.json | server\.log | server-<machine>\.json | ingest/ingest
    | my_model\.py | simulation\.json | config-given\.json | zarr\.json | identity\.json | <name>\.zip\.part\.json
    """
)


def read_commands() -> list[tuple[str, list[str]]]:
    """Return every command line of the pages' shell blocks: where it stands, and its words."""
    lines = []
    for page in PAGES:
        for block in page.blocks:
            if block.language == "sh":
                for line in re.sub(r"\\\n", " ", block.text).splitlines():
                    for command in line.split("&&"):
                        if words := shlex.split(command, comments=True):
                            lines.append((f"{page}: {command.strip()}", words))
    return lines


COMMANDS = read_commands()
SENSORIUM_COMMANDS = [(where, words[1:]) for where, words in COMMANDS if Path(words[0]).name == "sensorium"]


def command_names() -> list[str]:
    return [name for name in app if not name.startswith("-")]


def options_of(command: str) -> set[str]:
    """Return the options of a command, without its positional arguments."""
    arguments = app[command].assemble_argument_collection()
    keyword_only = (argument for argument in arguments if argument.field_info.kind is inspect.Parameter.KEYWORD_ONLY)
    return {name for argument in keyword_only for name in argument.names}


# Links


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_to_a_file_and_a_heading(document: Document) -> None:
    for link in document.links:
        if link.startswith(("https://", "http://")):
            continue
        place, _, anchor = link.partition("#")
        target = (document.path.parent / place).resolve() if place else document.path
        assert target.exists(), f"{document}: there is no {link}"
        assert target.is_relative_to(CHECKOUT), f"{document}: {link} leaves the checkout"
        if anchor:
            assert anchor in Document(target).anchors, f"{document}: {link}: {sorted(Document(target).anchors)}"


def test_links_are_found_at_all() -> None:
    links = [link for document in DOCUMENTS for link in document.links]
    assert sum(not link.startswith("http") for link in links) >= 60
    assert sum("#" in link for link in links) >= 8


def test_the_index_lists_every_page() -> None:
    (index,) = (page for page in PAGES if str(page) == "docs/index.md")
    # Pages that only hold tables of contents are for the site's navigation.
    pages = {page.path for page in PAGES[1:] if page.path != index.path and not page.toctree}
    assert pages <= {(index.path.parent / link).resolve() for link in index.links}


def test_the_readme_is_read_in_a_few_minutes() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 150


# Commands


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_block_says_what_it_is(page: Document) -> None:
    for block in page.blocks:
        where = f"{page}, line {block.first_line}"
        assert block.language in _LANGUAGES, where
        if block.language == "python":
            assert block.mark == _RUNS or block.mark.startswith(_DOES_NOT_RUN), f"{where}: is not marked"


def test_command_lines_are_of_programs_that_are_known() -> None:
    assert len(SENSORIUM_COMMANDS) >= 30
    for where, words in COMMANDS:
        assert Path(words[0]).name in _OTHER_PROGRAMS | {"sensorium"}, where
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (CHECKOUT / "Makefile").read_text(), re.MULTILINE), where


@pytest.mark.parametrize(("where", "words"), SENSORIUM_COMMANDS, ids=[where for where, _ in SENSORIUM_COMMANDS])
def test_a_command_line_parses(where: str, words: list[str]) -> None:
    tokens = []
    for word in words:
        assert not word.startswith("["), f"{where}: {word} is a synopsis, not a command line"
        if re.fullmatch(r"[A-Z]{2,}", word):
            assert word in _PLACEHOLDERS, f"{where}: {word} is neither a value nor a known placeholder"
        if word != "…":  # more of the same
            tokens.append(_PLACEHOLDERS.get(word, word))
    command, _, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
    assert command in {app[name].default_command for name in command_names()}
    assert not ignored


@pytest.mark.parametrize("words", ["ingest F", "ingets F --store s", "score p --store s --frame official"])
def test_a_command_line_that_is_wrong_does_not_parse(words: str) -> None:
    with pytest.raises(Exception, match=r"store|ingets|frame"):
        test_a_command_line_parses(words, words.split())


@pytest.mark.parametrize("command", command_names())
def test_the_reference_has_every_option_and_no_other(command: str) -> None:
    (reference,) = (page for page in PAGES if str(page) == "docs/commands.md")
    rows = [line for line in reference.section(command).splitlines() if line.startswith("| `--")]
    documented = {option for row in rows for option in re.findall(r"`(--[a-z0-9-]+)", row.split(" | ")[0])}
    assert documented == options_of(command)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_commands_and_options_in_prose_exist(document: Document) -> None:
    names = set(command_names())
    options = {option for name in names for option in options_of(name)} | {
        "--help",
        "--install-completion",
        "--version",
    }
    options |= {"--shell"}  # of the latter
    # Of the benchmarks' own scripts.
    if str(document) == "benchmarks/README.md":
        options |= {"--work", "--trials", "--name"}
    for span in document.code_spans:
        if named := re.match(r"sensorium ([a-z][a-z-]*)", span):
            assert named[1] in names, f"{document}: `{span}`"
        for option in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", span):
            assert option in options, f"{document}: `{span}`"


# Examples


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a small ``demo/store`` of A and F as the demo leaves it, and ``predictions`` of the oracle tier."""
    folder = tmp_path_factory.mktemp("documentation")
    sessions = find_sessions("AF")
    # Enough training trials for a batch of 8.
    simulate(folder / "demo/archives", sessions=sessions, n_trials=20, n_neurons=4, seed=3)
    store = str(folder / "demo/store")
    for session in sessions:
        convert_session(session, store, source=str(folder / "demo/archives"))
    link_movies(store)
    generator = np.random.default_rng(0)
    predicted = {}
    for session in sessions:
        oracle = sensorium_data.open_session(store, session.name).sensorium.select(tier="oracle")
        shapes = {int(t): (oracle.sizes["neuron"], int(n)) for t, n in zip(oracle.trial, oracle.n_frames, strict=True)}
        predicted[session.name] = {trial: generator.random(shape) for trial, shape in shapes.items()}
    sensorium_data.from_arrays(str(folder / "predictions"), store, predicted, response_units="standardized")
    return folder


@pytest.fixture
def workplace(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory in which the demo has been run."""
    for made in demo.iterdir():
        (tmp_path / made.name).symlink_to(made)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    yield
    plt.close("all")


EXAMPLES = [page for page in PAGES if any(block.mark == _RUNS for block in page.blocks)]


def run_block(page: Document, block: Block) -> None:
    # The lines above it are there, empty: a traceback shows the document's line.
    code = compile("\n" * (block.first_line - 1) + block.text, str(page.path), "exec")
    exec(code, {"__name__": "__main__"})  # noqa: S102


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("page", EXAMPLES, ids=str)
def test_the_examples_of_a_page_run_one_after_the_other(page: Document) -> None:
    blocks = [block for block in page.blocks if block.mark == _RUNS]
    assert blocks
    for block in blocks:
        # One that does not hold raises an error, with the document's line in its traceback.
        run_block(page, block)


def test_examples_are_found_at_all() -> None:
    blocks = [block for page in PAGES for block in page.blocks if block.mark == _RUNS]
    assert len(blocks) >= 12
    assert all(block.language == "python" for block in blocks)
    assert {"README.md", "docs/training.md", "docs/submitting.md"} <= {str(page) for page in EXAMPLES}


# The drawing of a session


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    specification = importlib.util.spec_from_file_location("drawing", CHECKOUT / "docs/drawings/session.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_drawing_is_what_its_script_draws(drawing: ModuleType) -> None:
    assert (CHECKOUT / "docs/session.svg").read_text(encoding="utf-8") == drawing.draw_session()


def test_the_drawing_has_what_a_session_has(drawing: ModuleType, demo: Path) -> None:
    session = sensorium_data.open_session(str(demo / "demo/store"), "F")
    drawn = ElementTree.parse(CHECKOUT / "docs/session.svg")  # noqa: S314 (our own)
    texts = {"".join(text.itertext()).strip("* ") for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    for name, variable in session.variables.items():
        assert name in texts
        if name in session.data_vars:
            assert f"({', '.join(map(str, variable.dims))})" in texts
            assert variable.attrs["units"] in texts
    # Only recordings have these.
    published = {"institution", "license", "references"}
    assert set(drawing.list_attributes()) - published <= set(session.attrs)


# Names


def is_path(span: str) -> bool:
    """Whether something in backticks names a file or a folder of the checkout."""
    if not re.fullmatch(r"[\w.~<>*/-]+", span) or _MADE_BY_USE.fullmatch(span) or span in _ELSEWHERE:
        return False
    return span.endswith(_FILE_ENDINGS) or ("/" in span.strip("/") or span.endswith("/")) or span.startswith(".")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_path_that_is_named_exists(document: Document) -> None:
    for span in document.code_spans:
        if is_path(span):
            # <folder> stands for any name.
            pattern = re.sub(r"<\w+>", "*", span).rstrip("/")
            found = [path for root in (CHECKOUT, document.path.parent) for path in root.glob(pattern)]
            assert found, f"{document}: there is no `{span}`"


def python_name(span: str) -> str | None:
    """Return what something in backticks names in one of the packages, in full; None if it is something else."""
    name = re.sub(r"\(.*\)$", "", re.sub(r"^sd\.", "sensorium_data.", span))
    return name if re.fullmatch(r"(sensorium_data|models|flows)(\.\w+)+", name) and not is_path(name) else None


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_python_name_exists(document: Document) -> None:
    for span in document.code_spans:
        name = python_name(span)
        if name is not None:
            assert find_object(name) is not None, f"{document}: there is no `{span}`"


def find_object(name: str) -> object:
    """Return a module, or what is found in the longest module that the name begins with; None if there is nothing."""
    parts = name.split(".")
    for n_parts in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:n_parts]))
        except ModuleNotFoundError:
            continue
        return reduce(lambda found, part: getattr(found, part, None), parts[n_parts:], module)
    return None


def test_paths_and_names_are_found_at_all() -> None:
    spans = [span for document in DOCUMENTS for span in document.code_spans]
    assert sum(map(is_path, spans)) >= 40
    assert sum(python_name(span) is not None for span in spans) >= 8
    assert not is_path("open_session")
    assert find_object("sensorium_data.store.open_sesion") is None
