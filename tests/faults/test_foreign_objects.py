"""Objects of somebody else where a session's objects go in an object store."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from sensorium_data.errors import StoreError
from sensorium_data.files import clean_up
from sensorium_data.ingest import convert_session
from sensorium_data.store import Precision, find_store_leftovers, open_session
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording

TIERS = ["train", "oracle", "oracle"]
FOREIGN = ("data/videos/0.npy", "notes.txt", "meta/neurons/unit_ids.npy")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, str]:
    folder = tmp_path_factory.mktemp("archives")
    made = make_recording("F", TIERS, n_neurons=4)
    made.write(folder)
    return made, str(folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    yield f"memory:/{tmp_path}/store"
    fsspec.filesystem("memory").store.clear()


def put(store: str, recording: Recording, *keys: str) -> list[str]:
    paths = [f"{store}/{recording.session.name}/{key}" for key in keys]
    for path in paths:
        fsspec.filesystem("memory").pipe(path, b"measured once")
    return paths


def assert_there(paths: list[str]) -> None:
    assert {bytes(fsspec.filesystem("memory").cat_file(path)) for path in paths} == {b"measured once"}


def interrupt(store: str, recording: Recording, archives: str) -> None:
    def stop(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label == "convert F" and n_done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        convert_session(recording.session, store, source=archives, jobs=1, progress=stop)


@pytest.mark.parametrize("key", FOREIGN)
def test_an_unpacked_session_of_the_same_name_is_no_leftover(
    key: str, recording: tuple[Recording, str], store: str
) -> None:
    made, archives = recording
    paths = put(store, made, key)
    with pytest.raises(StoreError, match=f"something else lies where the session's objects go: found {key}"):
        convert_session(made.session, store, source=archives)
    assert_there(paths)
    assert len(fsspec.filesystem("memory").find(store)) == 1


@pytest.mark.parametrize("precision", [None, "compact"])
def test_what_is_put_among_unfinished_work_is_not_deleted_with_it(
    precision: str | None, recording: tuple[Recording, str], store: str
) -> None:
    made, archives = recording
    interrupt(store, made, archives)
    paths = put(store, made, *FOREIGN)
    # Another precision starts over.
    wanted = Precision(precision) if precision else None
    with pytest.raises(StoreError, match=r"found data/videos/0\.npy, meta/neurons/unit_ids\.npy, notes\.txt"):
        convert_session(made.session, store, source=archives, precision=wanted)
    assert_there(paths)
    for path in paths:
        fsspec.filesystem("memory").rm(path)
    report = convert_session(made.session, store, source=archives, precision=wanted)
    # Those that were under way when it was interrupted are finished.
    assert report.n_trials_resumed >= 2 if precision is None else report.n_trials_resumed == 0
    assert open_session(store, "F").sizes["trial"] == len(TIERS)


def test_what_is_put_there_during_an_ingest_is_not_deleted(recording: tuple[Recording, str], store: str) -> None:
    made, archives = recording
    paths: list[str] = []

    def progress(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label == "convert F" and n_done == len(TIERS):
            paths.extend(put(store, made, *FOREIGN))

    with pytest.raises(StoreError, match="something else lies where"):
        convert_session(made.session, store, source=archives, progress=progress)
    assert_there(paths)


@pytest.mark.parametrize("is_begun", [False, True])
def test_cleaning_leaves_what_is_not_the_stores(is_begun: bool, recording: tuple[Recording, str], store: str) -> None:
    made, archives = recording
    other = make_recording("G", TIERS, n_neurons=4)
    other.write(Path(archives))
    convert_session(other.session, store, source=archives)
    if is_begun:
        interrupt(store, made, archives)
    paths = put(store, made, *FOREIGN)
    for file in fsspec.filesystem("memory").store.values():
        file.created = file.modified = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)
    items = clean_up(find_store_leftovers(store))
    assert_there(paths)
    assert any(one.removed for one in items) == is_begun
    assert len(fsspec.filesystem("memory").find(f"{store}/{made.session.name}")) == len(FOREIGN)
