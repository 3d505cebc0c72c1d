"""Every command's help ends with examples, and they work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fixtures.command_line import run_command
from flows.cli import app
from flows.cli.examples import EXAMPLES
from sensorium_data.store import open_store

COMMANDS = [name for name in app if not name.startswith("-")]
#: They need GIN, another program's file, or a Prefect server, or run until somebody ends them.
NOT_RUN = {
    "sensorium demo",
    "sensorium ingest new --store store",
    "sensorium import-checkpoint starter-kit final.pth --store store --out imported",
    "sensorium deploy --store store --runs runs --dry-run",
    "sensorium deploy --store store --runs runs",
    "sensorium watch shiny-otter",
    "sensorium ui --store store --runs runs",
}


def list_lines() -> list[str]:
    """Return the command lines of all examples, each on one line."""
    return [re.sub(r"\s*\\\n\s*", " ", line) for examples in EXAMPLES.values() for _, line in examples]


def test_every_command_has_examples_and_no_other_has() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    assert set(list_lines()) > NOT_RUN


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_that_fit_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run_command(capsys, command, "--help").out
    _, examples = shown.split("Examples:")
    for purpose, line in EXAMPLES[command]:
        for part in (f"# {purpose}", *line.splitlines()):
            assert part in examples
            assert len(part) <= 78
        words = shlex.split(re.sub(r"\\\n", " ", line))
        assert words[:2] == ["sensorium", command]
        _, _, ignored = app.parse_args(words[1:], exit_on_error=False, print_error=False)
        assert not ignored


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_examples_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole work in one folder, by a shell, as help shows it."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for line in list_lines():
        if line in NOT_RUN:
            continue
        if "from-arrays" in line:
            _write_arrays(tmp_path)
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S602
        # It says that no server runs.
        expected = 1 if line == "sensorium server status" else 0
        assert done.returncode == expected, f"{line}:\n{done.stderr}"
    for name in ("quality.html", "final.pth", "submission", "benchmark/benchmark.html"):
        assert (tmp_path / name).exists()


def _write_arrays(folder: Path) -> None:
    """Write what another model may predict for the test tiers of the examples' store."""
    for alias in ("A", "F"):
        session = open_store(str(folder / "store"))[alias]
        (folder / "arrays" / session.attrs["session"]).mkdir(parents=True)
        for trial in np.flatnonzero(np.char.find(session.tier.values.astype(str), "test") >= 0):
            shape = (session.sizes["neuron"], int(session.n_frames[trial]))
            path = folder / "arrays" / session.attrs["session"] / f"{int(session.trial[trial])}.npy"
            np.save(path, np.ones(shape, np.float32))
