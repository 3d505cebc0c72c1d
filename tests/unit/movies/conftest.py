"""A store whose sessions are linked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fixtures.linked_sessions import ingest, record
from sensorium_data.movies import link_movies
from sensorium_data.store import (
    LINKS_KEY,
)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sessions A, F and J, linked. Not to be changed."""
    store = ingest(tmp_path_factory.mktemp("linked") / "store", map(record, "AFJ"))
    link_movies(store)
    return store


@pytest.fixture
def store(linked: str, tmp_path: Path) -> str:
    """Sessions A, F and J of one's own, not linked yet."""
    shutil.copytree(linked, tmp_path / "store")
    (tmp_path / "store" / LINKS_KEY).unlink()
    return str(tmp_path / "store")
