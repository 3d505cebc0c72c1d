"""Ingest into a real S3 server: few requests, every write confirmed, one process at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fixtures.command_line import run_command
from fixtures.lab import COMMAND
from fixtures.object_store import ObjectStore
from fixtures.stores import read_files
from sensorium_data.errors import LockedError, StoreError
from sensorium_data.files import open_objects
from sensorium_data.ingest import convert_session, ingest_sessions, verify_session
from sensorium_data.movies import link_movies, links
from sensorium_data.sessions import find_session, find_sessions
from sensorium_data.simulation import simulate
from sensorium_data.store import MovieLinks, open_store
from sensorium_data.testing.recordings import Recording, make_recording

pytestmark = pytest.mark.usefixtures("sound_s3")

TIERS = ["train", "oracle", "oracle", "live_test_main"]
# What an ingest asks for whatever it has to write: what is there, the lock, the root, the movies' ids.
MOST_OTHER_REQUESTS = 50
# Records of finished trials are written together.
TRIALS_A_RECORD = 16


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    for seed, alias in enumerate("FG"):
        make_recording(alias, TIERS, movies={1: 9, 2: 9}, seed=seed).write(folder)
    return folder


@pytest.fixture(scope="module")
def local(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a local store of the same sessions."""
    folder = tmp_path_factory.mktemp("local")
    ingest_sessions(find_sessions(["F", "G"]), str(folder), sources=[str(archives)])
    return read_files(folder)


@pytest.fixture
def url(s3: ObjectStore, request: pytest.FixtureRequest) -> str:
    return f"{s3.url}/{request.node.name.partition('[')[0]}"


def read_objects(url: str) -> dict[str, bytes]:
    objects = open_objects(url)
    return {key: objects.read(key) for key in objects.keys() or ()}


def assert_same_group(url: str, local: dict[str, bytes], alias: str) -> None:
    prefix = f"{find_session(alias).name}/"
    stored = {key: data for key, data in read_objects(url).items() if not key.endswith(".json") or "/" in key}
    assert stored == {key: data for key, data in local.items() if key.startswith(prefix)}


def count_requests(s3: ObjectStore, store: str, recording: Recording, folder: Path) -> int:
    recording.write(folder)
    s3.requests.clear()
    ingest_sessions([recording.session], store, sources=[str(folder)])
    return s3.requests.total()


def test_sessions_in_an_object_store_have_the_same_bytes_as_on_a_disk(
    s3: ObjectStore, url: str, archives: Path, local: dict[str, bytes]
) -> None:
    s3.log.clear()
    done = ingest_sessions(find_sessions(["F", "G"]), url, sources=[str(archives)])
    assert [one.status for one in done.sessions] == ["converted", "converted"]
    assert read_objects(url) == local
    # Both sessions are listed in one step.
    root = f"/{url.partition('://')[2]}/zarr.json"
    assert [one.path for one in s3.log if one.method == "PUT"].count(root) == 1


def test_each_object_takes_one_request_and_the_rest_a_fixed_number(s3: ObjectStore, url: str, tmp_path: Path) -> None:
    n_requests = {}
    for n_trials in (4, 20):
        recording = make_recording("F", ["train"] * n_trials, n_neurons=2)
        n_requests[n_trials] = count_requests(s3, f"{url}-{n_trials}", recording, tmp_path / str(n_trials))
        n_objects = len(open_store(f"{url}-{n_trials}").ledger("F").objects)
        assert n_requests[n_trials] <= n_objects + n_trials / TRIALS_A_RECORD + MOST_OTHER_REQUESTS
    # Every trial has its videos and responses, and nothing is read back.
    n_more = 20 - 4
    assert n_requests[20] - n_requests[4] <= 2 * n_more + n_more / TRIALS_A_RECORD + 1


def test_a_movie_shown_again_is_read_once_for_each_of_its_trials(s3: ObjectStore, url: str, tmp_path: Path) -> None:
    n_trials = 12
    others = make_recording("F", ["train"] * n_trials, n_neurons=2)
    same = make_recording("F", ["train"] * n_trials, n_neurons=2, movies=dict.fromkeys(range(n_trials), 9))
    n_others = count_requests(s3, f"{url}-others", others, tmp_path / "others")
    assert count_requests(s3, f"{url}-same", same, tmp_path / "same") - n_others <= n_trials + 1


@pytest.mark.slow
def test_a_session_of_140_trials_takes_at_most_500_requests(s3: ObjectStore, url: str, tmp_path: Path) -> None:
    simulate(tmp_path, sessions=find_sessions(["F"]), n_trials=140, n_neurons=400)
    s3.requests.clear()
    ingest_sessions(find_sessions(["F"]), url, sources=[str(tmp_path)])
    assert s3.requests.total() <= 500


def test_an_upload_that_arrives_damaged_is_found_and_written_again(
    s3: ObjectStore, url: str, archives: Path, local: dict[str, bytes]
) -> None:
    s3.damages = f"{find_session('F').name}/responses/c/1/"
    with pytest.raises(StoreError, match=r"responses/c/1/.*reads back differently.*checksum"):
        convert_session(find_session("F"), url, source=str(archives))
    assert s3.damages == ""
    again = convert_session(find_session("F"), url, source=str(archives))
    assert (again.status, again.n_trials_resumed) == ("converted", 3)
    assert_same_group(url, local, "F")


@pytest.mark.parametrize("key", ["videos/c/2/0/0/0", pytest.param("tier/c/0", marks=pytest.mark.slow)])
def test_an_object_that_others_replace_during_the_ingest_is_found(
    s3: ObjectStore, url: str, archives: Path, local: dict[str, bytes], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensorium_data.ingest.workspace import Workspace

    url = f"{url}-{key.partition('/')[0]}"
    group = open_objects(url).child(find_session("F").name)
    keep_only = Workspace.keep_only

    def replace_before(workspace: Workspace, wanted: dict[str, bytes]) -> object:
        group.write(key, bytes(len(group.read(key))))
        return keep_only(workspace, wanted)

    monkeypatch.setattr(Workspace, "keep_only", replace_before)
    with pytest.raises(StoreError, match="others have written it since"):
        convert_session(find_session("F"), url, source=str(archives))
    monkeypatch.undo()
    convert_session(find_session("F"), url, source=str(archives))
    assert_same_group(url, local, "F")


@pytest.mark.parametrize("n_done", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_interrupted_ingest_goes_on_where_it_stopped(
    url: str, archives: Path, local: dict[str, bytes], n_done: int
) -> None:
    url = f"{url}-{n_done}"

    def stop(label: str, n: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n >= n_done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        convert_session(find_session("F"), url, source=str(archives), jobs=1, progress=stop)
    again = convert_session(find_session("F"), url, source=str(archives), jobs=1)
    assert again.n_trials_resumed >= n_done
    assert_same_group(url, local, "F")
    assert not open_objects(f"{url}/.partial").keys()


def test_damaged_records_are_converted_again(url: str, archives: Path, local: dict[str, bytes]) -> None:
    def stop(label: str, n: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        convert_session(find_session("F"), url, source=str(archives), jobs=1, progress=stop)
    records = open_objects(f"{url}/.partial/{find_session('F').name}/trials")
    for key in records.keys() or ():
        records.write(key, records.read(key)[:-30])
    assert convert_session(find_session("F"), url, source=str(archives), jobs=1).n_trials_resumed == 0
    assert_same_group(url, local, "F")


@pytest.mark.slow
def test_a_killed_ingest_is_continued_at_once(
    s3: ObjectStore, url: str, archives: Path, local: dict[str, bytes]
) -> None:
    """Its lock is left. The same machine can see that the process is gone."""
    s3.latency_s = 0.05
    s3.log.clear()
    command = [sys.executable, "-c", COMMAND, "ingest", "F", "--store", url, "--source", str(archives)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not any("/responses/c/" in one.path for one in s3.log):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    s3.behave()
    assert f".partial/{find_session('F').name}.lock" in read_objects(url)
    assert convert_session(find_session("F"), url, source=str(archives)).status == "converted"
    assert_same_group(url, local, "F")
    assert not open_objects(f"{url}/.partial").keys()


def test_of_two_processes_one_works_and_the_other_says_who_has_the_session(
    url: str, archives: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = []

    def meanwhile(label: str, n: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and not refused:
            refused.append(run_command(capsys, "ingest", "F", "--store", url, "--source", archives))

    assert convert_session(find_session("F"), url, source=str(archives), progress=meanwhile).status == "converted"
    refused[0].assert_refused(
        "another process is ingesting session F", f"process {os.getpid()} on", "since 20", "wait until it has finished"
    )
    assert run_command(capsys, "ingest", "F", "--store", url, "--source", archives).status == 0


def test_a_lock_that_is_lost_ends_the_ingest(url: str, archives: Path) -> None:
    from sensorium_data.files.leases import Lease

    lost = []

    def lose(label: str, n: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and not lost:
            root = open_objects(url)
            key = f".partial/{find_session('F').name}.lock"
            root.write(key, root.read(key).replace(b'"host": "', b'"host": "other-'))
            root.write(key, root.read(key).replace(b'"owner": "', b'"owner": "f'))
            lost.append(key)

    with pytest.MonkeyPatch.context() as patch:
        # As long after the last renewal as after an outage.
        patch.setattr(Lease, "_is_over", lambda lease: bool(lost))
        found = r"the lock was lost: found process \d+ on other-.*what is finished is kept"
        with pytest.raises(LockedError, match=found):
            convert_session(find_session("F"), url, source=str(archives), progress=lose)
    assert not open_objects(url).exists("zarr.json")


def test_a_store_that_ignores_conditions_is_refused_unless_told_not_to_lock(
    s3: ObjectStore, archives: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensorium_data.files import leases

    monkeypatch.setattr(leases, "_heeding", type(leases._heeding)())
    s3.ignores_conditions = True
    url = f"{s3.url}/unlockable"
    arguments = ("ingest", "F", "--store", url, "--source", archives)
    run_command(capsys, *arguments).assert_refused(url, "does not write under conditions", "--no-lock")
    assert not read_objects(url)
    assert run_command(capsys, *arguments, "--no-lock").status == 0
    assert [session.alias for session in open_store(url)] == ["F"]


def test_without_the_right_to_delete_what_is_whole_is_listed(
    s3: ObjectStore, url: str, archives: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.refuses_deletions = True
    for status in ("converted", "already done"):
        outcome = run_command(capsys, "ingest", "F", "--store", url, "--source", archives)
        assert (outcome.status, status in outcome.out) == (0, True)
        told = [line for line in outcome.err.splitlines() if "cannot be deleted" in line]
        assert len(told) == 1
        assert "the session is whole" in told[0]
    assert [session.alias for session in open_store(url)] == ["F"]
    assert verify_session(url, "F").passed


def test_movies_that_two_machines_link_at_once_are_all_linked(
    url: str, archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one publishes and links a session between what the first one reads and what it writes."""
    sources = [str(archives)]
    ingest_sessions(find_sessions(["F"]), url, sources=sources)
    compare = links._compare
    calls = []

    def overtake(*arguments: Any, **options: Any) -> MovieLinks:
        calls.append(arguments)
        found = compare(*arguments, **options)
        if len(calls) == 1:
            ingest_sessions(find_sessions(["G"]), url, sources=sources)
            link_movies(url)
        return found

    monkeypatch.setattr(links, "_compare", overtake)
    # Where locks are to be had, nobody overtakes.
    monkeypatch.setattr(links, "_taking_turns", lambda *_: contextlib.nullcontext())
    expected = {find_session(alias).name for alias in "FG"}
    assert link_movies(url).sessions.keys() == expected
    assert MovieLinks.read(open_objects(url)).sessions.keys() == expected
    # What the other one wrote was found to be enough.
    assert len(calls) == 2


def test_machines_link_movies_one_after_the_other(url: str, archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [str(archives)]
    ingest_sessions(find_sessions(["F"]), url, sources=sources)
    compare, calls, waits = links._compare, [], threading.Event()

    def notice(label: str, *_: object, **__: object) -> None:
        if label.startswith("wait for another run to link movies: process "):
            waits.set()

    def compare_while_another_waits(*arguments: Any, **options: Any) -> MovieLinks:
        calls.append(arguments)
        if len(calls) == 1:
            ingest_sessions(find_sessions(["G"]), url, sources=sources)
            other.start()
            assert waits.wait(60)
            assert len(calls) == 1
        return compare(*arguments, **options)

    monkeypatch.setattr(links, "_compare", compare_while_another_waits)
    other = threading.Thread(target=link_movies, args=(url,), kwargs={"progress": notice})
    assert link_movies(url).sessions.keys() == {find_session("F").name}
    other.join()
    assert MovieLinks.read(open_objects(url)).sessions.keys() == {find_session(alias).name for alias in "FG"}
    # Nobody had to compare again.
    assert len(calls) == 2
