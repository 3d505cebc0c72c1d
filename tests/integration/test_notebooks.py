"""The notebooks run from top to bottom on simulated sessions, and their committed outputs belong to their code."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fixtures.documents import Document
from fixtures.once import made_once
from fixtures.places import CHECKOUT
from sensorium_data.ingest import ingest_sessions
from sensorium_data.movies import link_movies
from sensorium_data.sample import SAMPLE_SESSIONS
from sensorium_data.sessions import find_sessions
from sensorium_data.simulation import simulate

NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# A folder of whoever made the outputs.
_MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|Users|tmp|var|work|private)/[\w.]")
_DRAWING = re.compile(r"\b(?:plt\.show|plot_\w+|animate)\(")

#: Written by a test for the kernel, and all that it starts: connections to other machines fail, and are noted.
_GUARD = """
import os, socket

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex

def _require_loopback(address):
    host = address[0] if isinstance(address, tuple) else ""
    if host and not (host.startswith("127.") or host in ("::1", "localhost")):
        with open(os.environ["NOTEBOOK_CONNECTIONS"], "a") as file:
            file.write(f"{address}\\n")
        raise OSError(f"no connection to {address}: only loopback is reached")

def connect(self, address):
    _require_loopback(address)
    return _connect(self, address)

def connect_ex(self, address):
    _require_loopback(address)
    return _connect_ex(self, address)

socket.socket.connect, socket.socket.connect_ex = connect, connect_ex
"""

# The kernel's own sockets and event loops are not ours to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def make_outputs() -> ModuleType:
    """The script behind `make notebook-outputs`."""
    path = CHECKOUT / "notebooks/make_outputs.py"
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(output: NotebookNode) -> tuple[str, ...]:
    """Return what a reader gets of an output: text, a table, a picture."""
    return (output.output_type, *sorted(output.get("data", {})))


def prints(source: str) -> bool:
    """Whether a cell prints for sure: a call of `print` that stands in no function and under no condition."""
    if source.startswith("%%"):
        return False
    code = "\n".join(line for line in source.splitlines() if not line.startswith(("!", "%")))
    statements = [one for one in ast.parse(code).body if isinstance(one, ast.Expr | ast.Assign)]
    calls = [one for statement in statements for one in ast.walk(statement) if isinstance(one, ast.Call)]
    return any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)


# What is committed


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 1


@each_notebook
def test_outputs_are_committed_and_belong_to_the_code(path: Path, make_outputs: ModuleType) -> None:
    notebook = make_outputs.read(path)
    remedy = f"run `make notebook-outputs NOTEBOOKS={path.stem}`"
    assert make_outputs.recorded_digest(notebook) == make_outputs.digest_sources(notebook), remedy
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code":
            continue
        where = f"{path.name}, cell {number}"
        shown = [kinds(output) for output in cell.outputs]
        if prints(cell.source):
            assert ("stream",) in shown, f"{where} prints; {remedy}"
        if _DRAWING.search(cell.source):
            assert any("image/png" in kind or "text/html" in kind for kind in shown), f"{where} draws; {remedy}"
        for output in cell.outputs:
            assert output.output_type != "error", where
            assert output.get("name") != "stderr", where


@each_notebook
def test_outputs_are_normalized(path: Path, make_outputs: ModuleType) -> None:
    notebook = make_outputs.read(path)
    assert make_outputs.normalize(make_outputs.read(path), {}) == notebook
    assert path.stat().st_size <= make_outputs.MOST_BYTES
    for cell in code_cells(notebook):
        for output in cell.outputs:
            texts = [output.get("text", "")]
            texts += [text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")]
            for text in texts:
                assert not _MACHINE_PATH.search(str(text)), f"{path.name}: {cell.source}"


@each_notebook
def test_a_notebook_says_how_to_run_it_on_the_real_data(path: Path, make_outputs: ModuleType) -> None:
    notebook = make_outputs.read(path)
    first, *_ = notebook.cells
    assert re.match(r"# \S", first.source), "it has a title"
    begin = code_cells(notebook)[0].source
    assert "SENSORIUM_STORE" in begin
    assert "sd.sample_store()" in begin or "sd.load_sample()" in begin
    headings = re.findall(r"^## (.*)$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M)
    assert headings[-1] == "On the real data"
    last = "\n".join(cell.source for cell in notebook.cells[-3:])
    assert "SENSORIUM_STORE" in last
    assert "sensorium ingest" in last


@each_notebook
def test_a_notebook_is_listed_in_the_documentation(path: Path) -> None:
    assert f"../notebooks/{path.name}" in Document(CHECKOUT / "docs/tutorials.md").links


# How outputs are made


def test_what_differs_from_run_to_run_is_replaced(make_outputs: ModuleType) -> None:
    def run(uuid: str, address: str, started: str) -> NotebookNode:
        cell = new_code_cell("session", execution_count=7, metadata={"execution": {"iopub.status.busy": started}})
        html = f"<input id='section-{uuid}'><label for='section-{uuid}'>/home/me/x</label>"
        cell.outputs = [
            new_output("stream", name="stdout", text=f"<object at {address}>\n"),
            new_output("stream", name="stdout", text="second\n"),
            new_output("execute_result", data={"text/html": html, "image/png": address}, execution_count=7),
        ]
        return new_notebook(cells=[new_markdown_cell("# Title"), cell], metadata={"widgets": {"state": uuid}})

    first = run("0f6b1a2c-1111-4222-8333-444455556666", "0x7f0000000001", "2026-01-01T00:00:00")
    second = run("aaaa1a2c-1111-4222-8333-444455556666", "0x7f0000000abc", "2026-02-02T00:00:00")
    second.cells[1].outputs[2].data["image/png"] = "0x7f0000000001"
    cleaned = make_outputs.normalize(first, {"/home/me": "~"})
    assert cleaned == make_outputs.normalize(second, {"/home/me": "~"})
    stream, result = cleaned.cells[1].outputs
    assert stream.text == "<object at 0x…>\nsecond\n"
    assert result.data["image/png"] == "0x7f0000000001", "the bytes of pictures are left alone"
    assert "~/x" in result.data["text/html"]
    ids = re.findall(r"section-([0-9a-f-]{36})", result.data["text/html"])
    assert len(ids) == 2
    assert len(set(ids)) == 1, "what was linked by its id still is"
    assert result.execution_count == cleaned.cells[1].execution_count == 1
    nbformat.validate(cleaned)


def test_an_output_that_differs_in_a_time_alone_is_kept(make_outputs: ModuleType) -> None:
    def run(text: str, value: str) -> NotebookNode:
        cells = [new_code_cell("a", outputs=[new_output("stream", name="stdout", text=text)])]
        cells.append(new_code_cell("b", outputs=[new_output("stream", name="stdout", text=value)]))
        return make_outputs.normalize(new_notebook(cells=cells), {})

    old, new = run("made 2026-12-01T01:03:58.185182+00:00", "0.5"), run("made 2027-01-02T00:00:01+00:00", "0.25")
    make_outputs.keep_unchanged(new, old)
    assert [cell.outputs[0].text for cell in new.cells] == ["made 2026-12-01T01:03:58.185182+00:00", "0.25"]


def test_the_digest_is_of_the_code_alone(make_outputs: ModuleType) -> None:
    cells = [new_markdown_cell("# Title"), new_code_cell("a = 1")]
    digest = make_outputs.digest_sources(new_notebook(cells=cells))
    assert make_outputs.digest_sources(new_notebook(cells=cells[1:])) == digest
    assert make_outputs.digest_sources(new_notebook(cells=[*cells, new_code_cell("a")])) != digest


def test_a_second_run_changes_nothing(
    make_outputs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import os, uuid\nprint(uuid.uuid4(), os.getcwd(), os.environ.get('SENSORIUM_RUNS'))\nobject()"
    path = tmp_path / "1-small.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    monkeypatch.setattr(make_outputs, "FOLDER", tmp_path)
    monkeypatch.setenv("SENSORIUM_RUNS", "elsewhere")
    assert make_outputs.main([]) == 0
    once = path.read_bytes()
    assert "00000000-0000-4000-8000-000000000000 . None" in once.decode()
    assert make_outputs.main(["1-small"]) == 0
    assert path.read_bytes() == once
    assert "1-small.ipynb: unchanged" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        make_outputs.main(["2-other"])
    assert "there are 1-small" in capsys.readouterr().err


def test_a_notebook_that_warns_or_fails_is_refused(
    make_outputs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = new_code_cell("import warnings\nwarnings.warn('take care')")
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title"), warning]), tmp_path / "1-warns.ipynb")
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), tmp_path / "2-fails.ipynb")
    monkeypatch.setattr(make_outputs, "FOLDER", tmp_path)
    before = [path.read_bytes() for path in sorted(tmp_path.glob("*.ipynb"))]
    assert make_outputs.main([]) == 1
    errors = capsys.readouterr().err
    assert "1-warns.ipynb, cell 2 writes to stderr" in errors
    assert "ZeroDivisionError" in errors
    assert [path.read_bytes() for path in sorted(tmp_path.glob("*.ipynb"))] == before


def test_what_is_changed_while_a_notebook_runs_stays(
    make_outputs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1-edited.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), path)
    edited = new_notebook(cells=[new_code_cell("2")])

    def execute_slowly(path: Path) -> NotebookNode:
        executed = make_outputs.normalize(make_outputs.read(path), {})
        nbformat.write(edited, path)
        return executed

    monkeypatch.setattr(make_outputs, "FOLDER", tmp_path)
    monkeypatch.setattr(make_outputs, "execute", execute_slowly)
    assert make_outputs.main([]) == 1
    assert "1-edited.ipynb was changed while it ran" in capsys.readouterr().err
    assert make_outputs.read(path).cells[0].source == "2"


def test_a_notebook_is_written_whole_or_not_at_all(
    make_outputs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1-small.ipynb"
    notebook = new_notebook(cells=[new_code_cell("1")])
    nbformat.write(notebook, path)
    before = path.read_bytes()

    def fill_the_disk(_: NotebookNode, path: Path) -> None:
        Path(path).write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nbformat, "write", fill_the_disk)
    with pytest.raises(OSError, match="No space"):
        make_outputs.write(notebook, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_kernel_that_dies_is_told_and_the_next_notebook_runs(
    make_outputs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nbformat.write(new_notebook(cells=[new_code_cell("import os\nos._exit(1)")]), tmp_path / "1-dies.ipynb")
    nbformat.write(new_notebook(cells=[new_code_cell("1 + 1")]), tmp_path / "2-runs.ipynb")
    monkeypatch.setattr(make_outputs, "FOLDER", tmp_path)
    assert make_outputs.main([]) == 1
    told = capsys.readouterr()
    assert "1-dies.ipynb: Kernel died" in told.err
    assert "2-runs.ipynb: written" in told.out


# Each of them, executed


@pytest.fixture
def guard(tmp_path: Path) -> dict[str, str]:
    """An environment in which only loopback is reached."""
    folder = tmp_path / "guard"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_GUARD)
    return {"PYTHONPATH": f"{folder}:{CHECKOUT}", "NOTEBOOK_CONNECTIONS": str(tmp_path / "connections")}


@pytest.fixture(scope="session")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a store of other sessions than the sample's, an old and a new one that share movies among them."""

    def make(root: Path) -> None:
        sessions = find_sessions(["B", "F"])
        assert not {session.alias for session in sessions} & set(SAMPLE_SESSIONS)
        simulate(root / "archives", sessions=sessions, n_trials=30, n_neurons=30, seed=1, jobs=2)
        ingest_sessions(sessions, str(root / "store"), sources=[str(root / "archives")], jobs=2).raise_failures()
        link_movies(str(root / "store"))

    return made_once(tmp_path_factory, "other-store", make) / "store"


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_on_the_sample(
    path: Path, make_outputs: ModuleType, guard: dict[str, str], tmp_path: Path
) -> None:
    executed = make_outputs.execute(path, environment=guard)
    committed = make_outputs.read(path)
    for here, there in zip(code_cells(executed), code_cells(committed), strict=True):
        assert list(map(kinds, here.outputs)) == list(map(kinds, there.outputs)), here.source
    connections = tmp_path / "connections"
    assert not connections.exists(), connections.read_text()


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_on_another_store(
    path: Path, make_outputs: ModuleType, guard: dict[str, str], other_store: Path
) -> None:
    executed = make_outputs.execute(path, store=str(other_store), environment=guard)
    assert any(cell.outputs for cell in code_cells(executed))


def test_the_guard_stops_connections_to_other_machines(guard: dict[str, str], tmp_path: Path) -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | guard, capture_output=True, text=True, check=False
    )
    assert "only loopback is reached" in done.stderr
    assert "192.0.2.1" in (tmp_path / "connections").read_text()
