"""One small simulation of both kinds of session, ingested once, and one Prefect server for all integration tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.command_line import Outcome, run_command
from fixtures.once import made_once
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies
from sensorium_data.sessions import find_sessions

SESSIONS = ("D", "F")


@pytest.fixture
def sensorium(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process."""
    return lambda *arguments: run_command(capsys, *arguments)


@pytest.fixture(scope="session")
def store(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of the session stores made from ``archives``. Not to be changed."""

    def convert(root: Path) -> None:
        for session in find_sessions(SESSIONS):
            convert_session(session, str(root), source=str(archives))
        link_movies(str(root))

    return made_once(tmp_path_factory, "store", convert)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A server that flows of this process run on."""
    # Most tests need no Prefect, which takes seconds to import.
    from prefect.testing import utilities

    from flows.lab.database_template import find_template

    # Prefect removes it when the interpreter ends.
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    # As servers of commands do, which leave a template when there is none.
    find_template().install(folder / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        with utilities.prefect_test_harness(server_startup_timeout=90):
            yield


@pytest.fixture(scope="module")
def empty_prefect_server(prefect_server: None) -> None:
    """The same server, without the artifacts that other modules' flows left there."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        while artifacts := client.read_artifacts():
            for artifact in artifacts:
                client.delete_artifact(artifact.id)
