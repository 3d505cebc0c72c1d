"""Many sessions at once: failures beside successes, interruptions, and the workers of a Dask cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fixtures.clusters import Cluster, run_cluster
from fixtures.stores import read_files
from fixtures.tables import each_once
from sensorium_data.archive import SessionArchive
from sensorium_data.errors import ArchiveError, SensoriumError, SourceChangedError, SourceError, UsageError
from sensorium_data.ingest import IngestReport, choose_sessions, convert_session, ingest_sessions
from sensorium_data.sessions import find_session
from sensorium_data.store import open_session, open_store, stored_sessions
from sensorium_data.testing import Recording, serve_directory
from sensorium_data.testing.faults import ChangeETag
from sensorium_data.testing.recordings import make_recording

TIERS = ["train", "oracle", "oracle", "train", "live_test_main"]


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [make_recording(alias, TIERS, movies={1: 9, 2: 9}, seed=seed) for seed, alias in enumerate("AFG")]


@pytest.fixture(scope="module")
def archives(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    for recording in recordings:
        recording.write(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    recordings: list[Recording], archives: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The files of a store whose sessions were converted one after the other."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for recording in recordings:
        convert_session(recording.session, str(folder), source=str(archives), jobs=1)
    return read_files(folder)


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_sessions_converted_side_by_side_have_the_same_bytes(
    jobs: int, recordings: list[Recording], archives: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    sessions = [recording.session for recording in reversed(recordings)]
    report = ingest_sessions(sessions, str(tmp_path), sources=[str(archives)], jobs=jobs)
    assert [one.alias for one in report.sessions] == ["G", "F", "A"]
    assert not report.failures
    assert read_files(tmp_path) == undisturbed
    again = ingest_sessions(sessions, str(tmp_path), sources=[str(archives)], jobs=jobs)
    assert {one.status for one in again.sessions} == {"already done"}
    assert read_files(tmp_path) == undisturbed


def test_one_sessions_failure_does_not_stop_the_others(
    recordings: list[Recording], archives: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    for alias in "AG":
        name = f"{find_session(alias).name}.zip"
        (folder / name).write_bytes((archives / name).read_bytes())
    damaged = folder / f"{find_session('G').name}.zip"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    store = str(tmp_path / "store")
    report = ingest_sessions([r.session for r in recordings], store, sources=[str(folder)], jobs=2)
    assert [one.alias for one in report.sessions] == ["A"]
    assert [type(failure) for failure in report.failures] == [SourceError, ArchiveError]
    assert [session.alias for session in stored_sessions(store)] == ["A"]
    with pytest.raises(SensoriumError, match=r"2 of 3 sessions could not be converted: found .*no such file.* \| "):
        report.raise_failures()


def test_a_single_failure_is_raised_as_it_is() -> None:
    failure = SourceError("gone")
    with pytest.raises(SourceError, match="gone"):
        IngestReport((), (failure,)).raise_failures()
    IngestReport((), ()).raise_failures()


def test_a_session_that_the_catalogue_lacks_is_ingested_from_its_source(
    recordings: list[Recording], tmp_path: Path
) -> None:
    other = find_session("dynamic30001-2-5-Video-mylab")
    Recording(**{**vars(recordings[0]), "session": other}).write(tmp_path / "archives")
    chosen = choose_sessions(["all"], [str(tmp_path / "archives")])
    assert chosen == (other,)
    store = str(tmp_path / "store")
    report = ingest_sessions(chosen, store, sources=[str(tmp_path / "archives")])
    assert report.sessions[0].alias == "30001-2-5"
    assert report.sessions[0].notes == ()
    assert stored_sessions(store) == (other,)
    dataset = open_session(store, other.name)
    assert dataset.sizes["trial"] == 5
    assert dataset.movie.values[1] == dataset.movie.values[2] == "30001-2-5:1"
    # Nobody may take the published ones' license for theirs.
    assert "license" not in dataset.attrs
    assert other.name in dataset.attrs["title"]


def test_without_a_source_a_session_that_the_catalogue_lacks_is_told(tmp_path: Path) -> None:
    report = ingest_sessions([find_session("dynamic30001-2-5-Video-mylab")], str(tmp_path))
    with pytest.raises(SourceError, match=r"dynamic30001.*nobody published.*--source"):
        report.raise_failures()


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_interrupted_ingest_of_several_sessions_is_continued(
    how: signal.Signals,
    recordings: list[Recording],
    archives: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    script = (
        "import os, sys\n"
        "from sensorium_data.ingest.ingest import choose_sessions, ingest_sessions\n"
        "def progress(label, n_done, n_total, **more):\n"
        f"    if n_done == 3 and label == 'convert F': os.kill(os.getpid(), {int(how)})\n"
        f"ingest_sessions(choose_sessions(['all'], [{str(archives)!r}]), {str(tmp_path)!r}, "
        f"sources=[{str(archives)!r}], jobs=3, progress=progress)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == -how
    report = ingest_sessions([r.session for r in recordings], str(tmp_path), sources=[str(archives)], jobs=2)
    assert not report.failures
    # Session F had three trials done, and may have been finished while the others came to their end.
    (interrupted,) = (one for one in report.sessions if one.alias == "F")
    assert interrupted.status == "already done" or interrupted.n_trials_resumed >= 3
    assert read_files(tmp_path) == undisturbed


# How much travels


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_every_member_travels_once_and_little_else(jobs: int, tmp_path: Path) -> None:
    recording = make_recording("F", TIERS, n_neurons=40, n_frames=300, n_padded=324)
    path = recording.write(tmp_path / "archives")
    with zipfile.ZipFile(path) as content:
        members = [info for info in content.infolist() if "config" not in info.filename]
    with serve_directory(tmp_path / "archives") as server:
        convert_session(recording.session, str(tmp_path / "s"), source=server.url, jobs=jobs)
        requests = [request.range for request in server.requests]
        n_bytes = server.n_bytes_sent
        convert_session(recording.session, str(tmp_path / "s"), source=server.url, jobs=jobs)
        n_requests_of_rerun = len(server.requests) - len(requests)
    assert len(requests) <= len(members) + 3
    assert len(set(requests)) == len(requests)
    assert n_bytes <= 1.02 * sum(info.compress_size for info in members)
    assert n_requests_of_rerun <= 3


# A source that changes while it is read


@pytest.mark.parametrize(
    ("over_http", "keeps_its_size"),
    each_once({"local": False, "http": True}, {"another size": False, "same size": True}),
)
def test_an_archive_replaced_midway_is_read_again_and_never_spliced(
    over_http: bool, keeps_its_size: bool, recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = recordings[1]
    is_replaced = threading.Event()
    read_trial = SessionArchive.read_trial

    def read_once_replaced(self: SessionArchive, variable: str, trial: int) -> np.ndarray:
        # The thread that converts does not wait for the one that is told of its progress.
        if threading.current_thread().name.startswith("convert") and trial == list(before.trials)[2]:
            assert is_replaced.wait(60)
        return read_trial(self, variable, trial)

    monkeypatch.setattr(SessionArchive, "read_trial", read_once_replaced)
    after = before
    for trial in before.trials:
        after = after.with_trial(trial, responses=before.trials[trial].responses * 2)
    if not keeps_its_size:
        after = Recording(**{**vars(after), "extra": {f"{after.session.name}/data/notes/1.npy": b"mended"}})
    archives = tmp_path / "archives"
    path = before.write(archives)
    after.write(tmp_path / "after")

    def replace_midway(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label == "convert F" and n_done == 2 and not is_replaced.is_set():
            # In place: whoever has a file open reads on in it where another is given its name.
            path.write_bytes((tmp_path / "after" / path.name).read_bytes())
            # A later time than the first, whatever the clock's grain.
            os.utime(path, (time.time() + 5, time.time() + 5))
            is_replaced.set()

    with serve_directory(archives) as server:
        source = server.url if over_http else str(archives)
        convert_session(before.session, str(tmp_path / "s"), source=source, jobs=1, progress=replace_midway)
        fresh = convert_session(before.session, str(tmp_path / "fresh"), source=source)
    assert is_replaced.is_set()
    assert open_store(str(tmp_path / "s")).digest("F") == open_store(str(tmp_path / "fresh")).digest("F")
    assert any("data/notes/1.npy" in note for note in fresh.notes) is not keeps_its_size
    stored = open_session(str(tmp_path / "s"), "F").responses.sel(trial=0)[:, :20].values
    assert (stored == (before.trials[0].responses[:, :20] * 2).astype("float32")).all()


def test_an_archive_that_never_stays_the_same_is_an_error(recordings: list[Recording], tmp_path: Path) -> None:
    recording = recordings[1]
    path = recording.write(tmp_path / "archives")
    with (
        serve_directory(tmp_path / "archives", faults=[ChangeETag()]) as server,
        pytest.raises(SourceChangedError, match=path.name),
    ):
        convert_session(recording.session, str(tmp_path / "s"), source=server.url)


# Over a Dask cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler with two workers."""
    with run_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_a_cluster_gives_the_same_bytes(
    cluster: Cluster, recordings: list[Recording], archives: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    sessions = [recording.session for recording in recordings]
    report = ingest_sessions(sessions, str(tmp_path), sources=[str(archives)], dask=cluster.address, jobs=2)
    assert [one.status for one in report.sessions] == ["converted"] * 3
    assert read_files(tmp_path) == undisturbed


def test_a_damaged_trial_is_named_from_a_cluster_too(
    cluster: Cluster, recordings: list[Recording], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    bad = recordings[1].with_trial(4, behavior=recordings[1].trials[4].behavior[:1])
    bad.write(tmp_path / "archives")
    store = str(tmp_path / "store")
    report = ingest_sessions([bad.session], store, sources=[str(tmp_path / "archives")], dask=cluster.address)
    with pytest.raises(SensoriumError, match=r"session F .*trial 4, .*behavior/4\.npy"):
        report.raise_failures()
    recordings[1].write(tmp_path / "archives")
    report = ingest_sessions([bad.session], store, sources=[str(tmp_path / "archives")], dask=cluster.address)
    assert report.sessions[0].n_trials_resumed >= 1
    assert open_session(store, "F").sizes["trial"] == 5


def test_a_worker_that_is_killed_costs_nothing_but_time(
    cluster: Cluster, recordings: list[Recording], archives: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    sessions = [recording.session for recording in recordings]

    def kill_once(label: str, n_done: int, n_total: int, **_: object) -> None:
        if n_done >= 2:
            cluster.workers[0].kill()

    # The other tests need no more than the worker that is left.
    report = ingest_sessions(
        sessions, str(tmp_path / "s"), sources=[str(archives)], dask=cluster.address, jobs=2, progress=kill_once
    )
    assert cluster.workers[0].wait(10) == -signal.SIGKILL
    assert [one.status for one in report.sessions] == ["converted"] * 3
    assert read_files(tmp_path / "s") == undisturbed


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told(recordings: list[Recording], archives: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no Dask scheduler answers here.*dask scheduler"):
        ingest_sessions([recordings[0].session], str(tmp_path), sources=[str(archives)], dask="not an address")
