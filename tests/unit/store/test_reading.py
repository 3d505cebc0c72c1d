"""Readers say which versions they have open."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fixtures.session_stores import TrialFacts, write_session_store
from sensorium_data.sessions import find_session
from sensorium_data.store import open_session, open_store
from sensorium_data.store.reading import hold_version, keep_readers_away

GROUP = find_session("F").name


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_session_store(tmp_path / "store", "F", [TrialFacts(0, "oracle", 60)], n_neurons=2)
    return tmp_path / "store"


def is_read(store: Path) -> bool:
    with keep_readers_away(store / GROUP)(False) as hold:
        return hold.obstacle == "somebody has it open"


def test_a_version_is_held_as_long_as_something_of_it_is_open(store: Path) -> None:
    assert not is_read(store)
    opened = open_store(str(store))
    # A list of sessions is no reading of them.
    assert not is_read(store)
    dataset = opened["F"]
    assert is_read(store)
    del opened
    assert is_read(store)
    responses = dataset.responses.isel(trial=slice(1))
    del dataset
    assert is_read(store)
    del responses
    assert not is_read(store)


def test_readers_take_one_descriptor_for_a_version(store: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd"))

    first = open_session(str(store), "F")
    before = count()
    others = [open_session(str(store), "F") for _ in range(5)]
    assert count() == before
    del first, others
    assert not is_read(store)


def test_readers_need_no_permission_to_write(store: Path) -> None:
    ledger = store / GROUP / "ledger.json"
    ledger.chmod(stat.S_IRUSR)
    lease = hold_version(open_store(str(store)).objects, GROUP)
    ledger.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert is_read(store)
    del lease


def test_a_reader_that_comes_while_a_version_is_deleted_is_not_held_up(store: Path) -> None:
    with keep_readers_away(store / GROUP)(False) as hold:
        assert hold.obstacle == ""
        assert open_session(str(store), "F").responses.load().sizes["trial"] == 1
