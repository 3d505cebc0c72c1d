"""One small simulation of both kinds of session, ingested once for all integration tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command_line import Outcome, run_command
from sensorium_data.ingest import convert_session
from sensorium_data.sessions import find_sessions
from sensorium_data.simulate import simulate

# F withholds its test responses; D publishes them and holds a broken trial.
SESSIONS = ("D", "F")


@pytest.fixture
def sensorium(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process."""
    return lambda *arguments: run_command(capsys, *arguments)


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of simulated archives, with their truth in ``truth``. Not to be changed."""
    directory = tmp_path_factory.mktemp("archives")
    simulate(directory, sessions=find_sessions(SESSIONS), n_trials=36, n_neurons=12, seed=3)
    return directory


@pytest.fixture(scope="session")
def store(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of the session stores made from ``archives``. Not to be changed."""
    root = tmp_path_factory.mktemp("stores") / "store"
    for session in find_sessions(SESSIONS):
        convert_session(session, str(root), source=str(archives))
    return root
