"""Execute the notebooks and write their outputs, so that a second run changes nothing.

`make notebook-outputs` runs it for all notebooks; names choose some:

    python notebooks/make_outputs.py 7-scores

Each notebook runs in an empty folder, on the sample. What differs from run to run and says nothing is not kept: times
of execution, random ids, the places of folders. An output that differs from the committed one in nothing but a time
is left as it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from sensorium_data.files import replace_whole

__all__ = [
    "FOLDER",
    "MOST_BYTES",
    "NotebookError",
    "digest_sources",
    "execute",
    "find_notebooks",
    "keep_unchanged",
    "normalize",
    "read",
    "recorded_digest",
    "write",
]

FOLDER = Path(__file__).resolve().parent
#: A page of the documentation with its pictures.
MOST_BYTES = 1_500_000

_TIMEOUT_S = 600
# Small files, which are still sharp.
_FIGURE_DPI = 90
_KEY = "sensorium"
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{8,}\b")
# What two runs may differ in although they say the same.
_TIME = re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?")


class NotebookError(Exception):
    """A notebook that cannot be executed as a page of the documentation has to be."""


def find_notebooks() -> list[Path]:
    """Return the notebooks in the order of their names."""
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    """Return a notebook."""
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook, with a line for each line of code; whole, or the file stays as it is."""
    with replace_whole(path) as temporary:
        nbformat.write(notebook, temporary)


def digest_sources(notebook: NotebookNode) -> str:
    """Return the digest of the code, by which outputs of other code are known."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def recorded_digest(notebook: NotebookNode) -> str | None:
    """Return the digest of the code that the outputs were made by; None if they were not made here."""
    return notebook.metadata.get(_KEY, {}).get("sources_sha256")


def execute(path: Path, *, store: str | None = None, environment: Mapping[str, str] | None = None) -> NotebookNode:
    """Return a notebook with the outputs of its code, normalized.

    Parameters
    ----------
    path : Path
        The notebook, which is left as it is.
    store : str, optional
        The store that it runs on; the sample if not given.
    environment : mapping, optional
        More of the kernel's environment.

    Raises
    ------
    NotebookError
        If a cell fails, takes too long, ends the kernel, or writes to stderr.
    """
    notebook = read(path)
    nbformat.validate(notebook)
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        scratch = Path(folder)
        work = scratch / "work"
        work.mkdir()
        with _kernel_environment(scratch, store, environment or {}):
            client = NotebookClient(
                notebook,
                timeout=_TIMEOUT_S,
                kernel_name=_KERNEL["name"],
                resources={"metadata": {"path": str(work)}},
            )
            try:
                client.execute()
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                raise NotebookError(f"{path.name}: {error}") from error
        for number, cell in enumerate(notebook.cells, 1):
            for output in cell.get("outputs", []):
                if output.output_type == "stream" and output.name == "stderr":
                    raise NotebookError(f"{path.name}, cell {number} writes to stderr: {output.text.strip()}")
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        places = {
            str(work): ".",
            str(scratch): "…",
            str(FOLDER.parent): "sensorium-pipeline",
            str(cache): "~/.cache",
            str(Path.home()): "~",
        }
        return normalize(notebook, places)


@contextmanager
def _kernel_environment(scratch: Path, store: str | None, more: Mapping[str, str]) -> Iterator[None]:
    """Give the kernel, which inherits it, an environment that does not depend on the user's settings."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("SENSORIUM_", "PREFECT_", "MPL", "JUPYTER_")):
            del os.environ[name]
    startup = scratch / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    (startup.parent / "ipython_kernel_config.py").write_text(
        # It warns that others on this machine could listen on loopback.
        f"c.InlineBackend.rc = {{'figure.dpi': {_FIGURE_DPI}}}\nc.IPKernelApp.log_level = 'ERROR'\n",
        encoding="utf-8",
    )
    paths = [str(FOLDER.parent), *filter(None, [before.get("PYTHONPATH")])]
    os.environ.update(
        IPYTHONDIR=str(scratch / "ipython"),
        NO_COLOR="1",
        # As many threads everywhere: sums of torch depend on their number.
        OMP_NUM_THREADS="2",
        # Other processes have the cores too: threads that wait leave them.
        OMP_WAIT_POLICY="PASSIVE",
        # What runs is this checkout, whatever is installed.
        PYTHONPATH=os.pathsep.join(paths),
        PYTHONHASHSEED="0",
        PREFECT_HOME=str(scratch / "prefect"),
        **({} if store is None else {"SENSORIUM_STORE": store}),
    )
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def normalize(notebook: NotebookNode, places: Mapping[str, str]) -> NotebookNode:
    """Return a notebook without what differs from run to run, and with the digest of its code.

    Parameters
    ----------
    notebook : NotebookNode
        It is changed.
    places : mapping of str to str
        Folders of this machine, and what is written in their place; earlier ones first.
    """
    seen: dict[str, str] = {}

    def clean(text: str) -> str:
        for place, name in places.items():
            text = text.replace(place, name)
        text = _UUID.sub(lambda match: seen.setdefault(match[0], f"00000000-0000-4000-8000-{len(seen):012x}"), text)
        return _ADDRESS.sub("0x…", text)

    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(_KERNEL),
        language_info=NotebookNode(name="python"),
        **{_KEY: NotebookNode(sources_sha256=digest_sources(notebook))},
    )
    notebook.nbformat_minor = 5
    ids: set[str] = set()
    count = 0
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if key == "tags"})
        cell.id = _name_cell(cell, ids)
        if cell.cell_type != "code":
            continue
        count += bool(cell.source.strip())
        cell.execution_count = count if cell.source.strip() else None
        cell.outputs = _join_streams(cell.outputs)
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = cell.execution_count
            if "text" in output:
                output.text = clean(output.text)
            for kind, value in output.get("data", {}).items():
                if isinstance(value, str) and not kind.startswith("image/"):
                    output.data[kind] = clean(value)
    return notebook


def _name_cell(cell: NotebookNode, ids: set[str]) -> str:
    """Return an id that depends on the cell's source alone, so that a change of one cell changes one id."""
    digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()
    name = next(name for n in range(len(ids) + 1) if (name := digest[:12] + (f"-{n}" if n else "")) not in ids)
    ids.add(name)
    return name


def _join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join lines that the kernel sent one by one, as its clock had it."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if output.output_type == "stream" and last and last.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def keep_unchanged(new: NotebookNode, old: NotebookNode) -> None:
    """Put the old output in the place of each new one that differs from it in nothing but times."""
    before = {cell.id: cell for cell in old.cells if cell.cell_type == "code"}
    for cell in new.cells:
        earlier = before.get(cell.id)
        if cell.cell_type != "code" or earlier is None or len(earlier.outputs) != len(cell.outputs):
            continue
        cell.outputs = [
            there if _without_times(there) == _without_times(here) else here
            for here, there in zip(cell.outputs, earlier.outputs, strict=True)
        ]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = cell.execution_count


def _without_times(output: NotebookNode) -> str:
    comparable: dict[str, Any] = {**output, "execution_count": None}
    return _TIME.sub("", json.dumps(comparable, sort_keys=True))


def main(arguments: list[str] | None = None) -> int:
    """Execute notebooks and write them; return 1 if one failed."""
    parser = argparse.ArgumentParser(description="Execute notebooks and write their outputs.")
    parser.add_argument("notebooks", nargs="*", metavar="NAME", help="such as 7-scores; all if none is named")
    names = parser.parse_args(arguments).notebooks
    known = {path.stem: path for path in find_notebooks()}
    if unknown := [name for name in names if Path(name).stem not in known]:
        parser.error(f"no notebook is named {', '.join(unknown)}; there are {', '.join(known)}")
    failed = False
    for path in [known[Path(name).stem] for name in names] or list(known.values()):
        began_s = time.monotonic()
        before = path.read_bytes()
        try:
            executed = execute(path)
            if path.read_bytes() != before:
                raise NotebookError(f"{path.name} was changed while it ran, and is left as it is; run it again")
        except NotebookError as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        keep_unchanged(executed, read(path))
        write(executed, path)
        after = path.read_bytes()
        change = "unchanged" if after == before else "written"
        print(f"{path.name}: {change}, {len(after) / 1000:.0f} kB, {time.monotonic() - began_s:.0f} s", flush=True)
        if len(after) > MOST_BYTES:
            print(f"{path.name}: more than {MOST_BYTES / 1000:.0f} kB; draw fewer or smaller pictures", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
