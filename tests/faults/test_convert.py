"""Conversions that are killed, interrupted, run twice at once, or meet a bad disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from fixtures.places import TESTS
from fixtures.stores import read_files
from sensorium_data.errors import ArchiveError, SourceError, StoreError, TrialError
from sensorium_data.files import LocalObjects
from sensorium_data.ingest import ConversionReport, convert_session, verify_session
from sensorium_data.sessions import find_session
from sensorium_data.store import open_session
from sensorium_data.testing import Recording, serve_directory
from sensorium_data.testing.disk import OPERATIONS, FailFrom, faulty_disk
from sensorium_data.testing.faults import AnswerStatus, OnRequests
from sensorium_data.testing.recordings import make_recording


@pytest.fixture(scope="module")
def recording() -> Recording:
    return make_recording("F", ["train", "oracle", "oracle", "train", "live_test_main"], movies={1: 9, 2: 9})


@pytest.fixture(scope="module")
def archives(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("archives")
    recording.write(folder)
    return str(folder)


@pytest.fixture(scope="module")
def undisturbed(recording: Recording, archives: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a store that was converted in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    convert_session(recording.session, str(folder), source=archives)
    return read_files(folder)


def convert(recording: Recording, store: Path, archives: str, **options: object) -> ConversionReport:
    return convert_session(recording.session, str(store), source=archives, **options)


def partial_group(store: Path, recording: Recording) -> Path:
    return store / ".partial" / recording.session.name / "group"


class Worker(Executor):
    """Stands for workers in other processes, which open everything by themselves."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except StoreError as error:
            future.set_exception(error)
        return future


class InterruptionError(Exception):
    """Stands for whatever ends a run."""


def interrupt_after(n_trials: int):
    """A progress that ends the run once ``n_trials`` are converted."""

    def progress(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n_done >= n_trials:
            raise InterruptionError

    return progress


def interrupted(recording: Recording, store: Path, archives: str, n_trials: int = 3) -> int:
    """Leave an interrupted run; return how many trials it finished: the one under way is finished as well."""
    with pytest.raises(InterruptionError):
        convert(recording, store, archives, jobs=1, progress=interrupt_after(n_trials))
    return len(list(partial_group(store, recording).parent.glob("trials/*.npz")))


# Killed


@pytest.mark.parametrize(
    ("jobs", "stride"),
    [
        pytest.param(1, 23, marks=pytest.mark.slow),  # every step is a crash point
        (3, 31),
        pytest.param(2, 1, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),  # every step is a crash point
    ],
    ids=["serial", "threads", "every step"],
)
def test_a_run_killed_at_any_step_is_finished_by_the_next_with_the_same_bytes(
    jobs: int, stride: int, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "fixtures.crashes", archives, str(tmp_path), str(jobs), str(stride)]
    run = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=1800, check=False)
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)
    # Two blocks and a record a trial, twenty statistics, thirty-odd small arrays, and the moment of publication.
    assert outcome["n_steps"] > 5 * 3 + 20 + 30
    for crash_at, n_resumed in outcome["resumed"].items():
        assert read_files(tmp_path / crash_at) == undisturbed, f"killed before step {crash_at}"
        assert not list((tmp_path / crash_at).glob(".partial")), f"killed before step {crash_at}"
        assert 0 <= n_resumed <= 5
    assert max(outcome["resumed"].values()) == 5
    assert read_files(tmp_path / "whole") == undisturbed


def test_ctrl_c_ends_the_run_and_the_next_resumes(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    script = (
        "import os, signal, sys\n"
        "from sensorium_data.ingest.convert import convert_session\n"
        "from sensorium_data.sessions import find_session\n"
        "def progress(label, n_done, n_total, **more):\n"
        "    if n_done == 2 and label.startswith('convert'): os.kill(os.getpid(), signal.SIGINT)\n"
        f"convert_session(find_session('F'), {str(tmp_path / 's')!r}, source={archives!r}, progress=progress)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in run.stderr
    with pytest.raises(StoreError, match=r"session F .*ingest has not finished; run it again"):
        open_session(str(tmp_path / "s"), "F")
    report = convert(recording, tmp_path / "s", archives)
    assert report.n_trials_resumed >= 2
    assert read_files(tmp_path / "s") == undisturbed


def test_a_resumed_run_reads_only_what_is_missing(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    whole = convert(recording, tmp_path / "whole", archives)
    n_finished = interrupted(recording, tmp_path / "s", archives, n_trials=2)
    report = convert(recording, tmp_path / "s", archives)
    assert report.n_trials_resumed == n_finished >= 2
    assert report.n_bytes_read < whole.n_bytes_read
    assert read_files(tmp_path / "s") == undisturbed


def test_a_run_that_meets_a_bad_trial_keeps_the_others(recording: Recording, tmp_path: Path) -> None:
    bad = recording.with_trial(4, behavior=recording.trials[4].behavior[:1])
    bad.write(tmp_path / "a")
    with pytest.raises(TrialError, match="trial 4"):
        convert(recording, tmp_path / "s", str(tmp_path / "a"), jobs=1)
    records = tmp_path / "s" / ".partial" / recording.session.name / "trials"
    assert sorted(path.name for path in records.iterdir()) == [f"{trial}.npz" for trial in range(4)]


def test_a_damaged_member_is_named_and_nothing_is_published(recording: Recording, tmp_path: Path) -> None:
    path = recording.write(tmp_path / "a")
    data = bytearray(path.read_bytes())
    place = data.index(b"data/responses/3.npy") + 300
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"data/responses/3\.npy.*CRC"):
        convert(recording, tmp_path / "s", str(tmp_path / "a"))
    assert not (tmp_path / "s" / recording.session.name).exists()


# What an interrupted run left


def test_another_archive_starts_over(recording: Recording, archives: str, tmp_path: Path) -> None:
    interrupted(recording, tmp_path / "s", archives)
    other = make_recording("F", ["train", "oracle", "oracle", "train", "live_test_main"], seed=5)
    other.write(tmp_path / "other")
    report = convert(other, tmp_path / "s", str(tmp_path / "other"))
    assert report.n_trials_resumed == 0
    convert(other, tmp_path / "fresh", str(tmp_path / "other"))
    assert read_files(tmp_path / "s") == read_files(tmp_path / "fresh")


def test_another_version_of_the_converter_starts_over(
    recording: Recording, archives: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(recording, tmp_path / "s", archives)
    monkeypatch.setattr("sensorium_data.ingest.conversion.CONVERTER_VERSION", 99)
    assert convert(recording, tmp_path / "s", archives).n_trials_resumed == 0


@pytest.mark.parametrize(
    "damage",
    [
        "shortened",
        "damaged record",
        "swapped record",
        *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("deleted", "deleted record")),
    ],
)
def test_a_trial_whose_files_are_not_whole_is_converted_again(
    damage: str, recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    n_finished = interrupted(recording, tmp_path / "s", archives)
    block = partial_group(tmp_path / "s", recording) / "responses" / "c" / "1" / "0" / "0"
    record = partial_group(tmp_path / "s", recording).parent / "trials" / "1.npz"
    match damage:
        case "deleted":
            block.unlink()
        case "shortened":
            block.write_bytes(block.read_bytes()[:-1])
        case "deleted record":
            record.unlink()
        case "damaged record":
            record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])
        case "swapped record":
            record.write_bytes((record.parent / "0.npz").read_bytes())
    assert convert(recording, tmp_path / "s", archives).n_trials_resumed == n_finished - 1
    assert read_files(tmp_path / "s") == undisturbed


@pytest.mark.parametrize(
    "key",
    # Trials 1 and 2 show one movie: their videos are read to find that out.
    ["responses/c/1/0/0", "videos/c/1/0/0/0", "statistics/videos/c/2/0/0/0", "statistics/responses/c/0/0/0"],
)
def test_a_bit_that_flips_on_the_disk_is_found_before_publication(
    key: str, recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    interrupted(recording, tmp_path / "s", archives)
    path = partial_group(tmp_path / "s", recording) / key
    if not path.exists():
        path = path.parent
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"session F .*reads back differently.*run it again"):
        convert(recording, tmp_path / "s", archives)
    assert not (tmp_path / "s" / recording.session.name).exists()
    report = convert(recording, tmp_path / "s", archives)
    assert report.n_trials_resumed == (5 if key.startswith("statistics") else 4)
    assert read_files(tmp_path / "s") == undisturbed


def lose(monkeypatch: pytest.MonkeyPatch, *keys: str) -> set[str]:
    """Have the disk lose objects: it tells once of each, and then has nothing to write. Return those still untold."""
    sync, untold = LocalObjects.sync, set(keys)

    def fail_once(self: LocalObjects, key: str) -> None:
        if key in untold:
            untold.remove(key)
            raise StoreError("the object cannot be written", path=self.locate(key), found=os.strerror(errno.EIO))
        sync(self, key)

    monkeypatch.setattr(LocalObjects, "sync", fail_once)
    return untold


@pytest.mark.parametrize("resumed", [False, True])
def test_a_trial_that_the_disk_lost_is_converted_again(
    resumed: bool,
    recording: Recording,
    archives: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if resumed:
        interrupted(recording, tmp_path / "s", archives)
    lost = "responses/c/1/0/0"
    lose(monkeypatch, lost)
    with pytest.raises(StoreError, match=rf"{lost}.*{os.strerror(errno.EIO)}"):
        convert(recording, tmp_path / "s", archives)
    assert not (tmp_path / "s" / recording.session.name).exists()
    assert convert(recording, tmp_path / "s", archives).n_trials_resumed == 4
    assert read_files(tmp_path / "s") == undisturbed


def test_every_trial_that_the_disk_lost_is_converted_again(
    recording: Recording,
    archives: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    untold = lose(monkeypatch, "responses/c/1/0/0", "videos/c/2/0/0/0", "responses/c/3/0/0")
    while untold:
        n_untold = len(untold)
        with pytest.raises(StoreError, match=os.strerror(errno.EIO)):
            convert(recording, tmp_path / "s", archives)
        n_told = n_untold - len(untold)
        assert len(list(partial_group(tmp_path / "s", recording).parent.glob("trials/*.npz"))) == 5 - n_told
    convert(recording, tmp_path / "s", archives)
    assert read_files(tmp_path / "s") == undisturbed


def test_a_trial_that_the_disk_lost_is_converted_again_whatever_ends_the_run(
    recording: Recording,
    archives: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    untold = lose(monkeypatch, "videos/c/0/0/0/0")

    def progress(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n_done == 2:
            while untold:
                time.sleep(0.01)
            raise InterruptionError

    with pytest.raises(InterruptionError):
        convert(recording, tmp_path / "s", archives, jobs=1, progress=progress)
    records = partial_group(tmp_path / "s", recording).parent / "trials"
    n_kept = len(list(records.iterdir()))
    assert not (records / "0.npz").exists()
    assert convert(recording, tmp_path / "s", archives).n_trials_resumed == n_kept
    assert read_files(tmp_path / "s") == undisturbed


@pytest.mark.parametrize("by_a_worker", [False, True])
def test_statistics_that_the_disk_lost_are_converted_again(
    by_a_worker: bool,
    recording: Recording,
    archives: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = "statistics/responses/c/2/0/0"
    lose(monkeypatch, lost)
    executor = Worker() if by_a_worker else None
    with pytest.raises(StoreError, match=rf"{lost}.*{os.strerror(errno.EIO)}"):
        convert(recording, tmp_path / "s", archives, executor=executor)
    lost_file = (partial_group(tmp_path / "s", recording) / lost).stat().st_ino
    assert convert(recording, tmp_path / "s", archives, executor=executor).n_trials_resumed == 5
    assert (tmp_path / "s" / recording.session.name / lost).stat().st_ino != lost_file
    assert read_files(tmp_path / "s") == undisturbed


def test_a_trial_that_a_workers_disk_lost_is_converted_again(
    recording: Recording,
    archives: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = "responses/c/1/0/0"
    lose(monkeypatch, lost)
    with pytest.raises(StoreError, match=rf"session F.*{lost}.*{os.strerror(errno.EIO)}"):
        convert(recording, tmp_path / "s", archives, executor=Worker())
    assert convert(recording, tmp_path / "s", archives, executor=Worker()).n_trials_resumed == 4
    assert read_files(tmp_path / "s") == undisturbed


def test_a_block_that_the_disk_cannot_read_is_converted_again(
    recording: Recording,
    archives: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = "responses/c/1/0/0"
    read = LocalObjects.read

    def fail(self: LocalObjects, key: str) -> bytes:
        if key == lost and (self.root / key).stat().st_ino == unreadable:
            error = OSError(errno.EIO, os.strerror(errno.EIO))
            raise StoreError("cannot be read", path=self.locate(key), found=os.strerror(errno.EIO)) from error
        return read(self, key)

    interrupted(recording, tmp_path / "s", archives)
    unreadable = (partial_group(tmp_path / "s", recording) / lost).stat().st_ino
    monkeypatch.setattr(LocalObjects, "read", fail)
    with pytest.raises(StoreError, match=rf"{lost}: .*it cannot be read: {os.strerror(errno.EIO)}.*run it again"):
        convert(recording, tmp_path / "s", archives)
    assert convert(recording, tmp_path / "s", archives).n_trials_resumed == 4
    assert read_files(tmp_path / "s") == undisturbed


def test_trials_reach_the_disk_while_others_are_converted(
    recording: Recording, archives: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, order = threading.Event(), []
    sync = LocalObjects.sync

    def note(self: LocalObjects, key: str) -> None:
        sync(self, key)
        order.append(key)
        synced.set()

    def progress(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n_done == 1:
            assert synced.wait(60)

    monkeypatch.setattr(LocalObjects, "sync", note)
    convert(recording, tmp_path / "s", archives, jobs=1, progress=progress)
    ledger = json.loads((tmp_path / "s" / recording.session.name / "ledger.json").read_bytes())
    assert len(order) == len(set(order))
    assert set(order) >= {key for key in ledger["objects"] if "/c/" in key}


def test_files_that_belong_to_nothing_are_not_published(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    interrupted(recording, tmp_path / "s", archives)
    (partial_group(tmp_path / "s", recording) / "responses" / "c" / f".0.{'0' * 32}.tmp").write_bytes(b"half")
    convert(recording, tmp_path / "s", archives)
    assert read_files(tmp_path / "s") == undisturbed


def test_what_somebody_else_has_among_unfinished_work_is_kept(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    records = tmp_path / "s" / ".partial" / recording.session.name
    (records / "group").mkdir(parents=True)
    for files in ({"thesis.txt": b"mine"}, {"identity.json": b"{}", "trials/0.npz": b"mine"}):
        for name, data in files.items():
            (records / name).parent.mkdir(exist_ok=True)
            (records / name).write_bytes(data)
        with pytest.raises(StoreError, match=r"something else lies where .*; move it to another place"):
            convert(recording, tmp_path / "s", archives)
        assert read_files(records) == files
        shutil.rmtree(records)
    interrupted(recording, tmp_path / "s", archives)
    notes = dict.fromkeys(("notes.txt", "trials/notes.npz", "group/notes.txt", "group/videos/c/.0.tmp"), b"mine")
    for name, data in notes.items():
        (records / name).write_bytes(data)
    # Of another version: it is begun anew.
    identity = json.loads((records / "identity.json").read_text())
    (records / "identity.json").write_text(json.dumps(identity | {"converter_version": 0}))
    assert convert(recording, tmp_path / "s", archives).n_trials_resumed == 0
    moved = {
        f"{recording.session.name}/{name.removeprefix('group/')}"
        if "group" in name
        else f".partial/{records.name}/{name}"
        for name in notes
    }
    assert read_files(tmp_path / "s") == undisturbed | dict.fromkeys(moved, b"mine")
    assert convert(recording, tmp_path / "s", archives).status == "already done"


def test_a_folder_in_the_place_of_the_session_is_left_alone(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    place = tmp_path / "s" / recording.session.name
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"cannot be published.*move what is there out of the way"):
        convert(recording, tmp_path / "s", archives)
    assert (place / "notes.txt").read_text() == "mine"
    place.rename(tmp_path / "elsewhere")
    assert convert(recording, tmp_path / "s", archives).n_trials_resumed == 5
    assert read_files(tmp_path / "s") == undisturbed


def test_a_session_published_without_the_roots_list_is_listed_by_the_next_run(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    convert(recording, tmp_path / "s", archives)
    (tmp_path / "s" / "zarr.json").unlink()
    assert convert(recording, tmp_path / "s", archives).status == "already done"
    assert read_files(tmp_path / "s") == undisturbed


def test_records_left_of_a_published_session_are_tidied_up(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    interrupted(recording, tmp_path / "s", archives)
    records = tmp_path / "s" / ".partial" / recording.session.name
    records.rename(tmp_path / "kept")
    convert(recording, tmp_path / "s", archives)
    records.parent.mkdir()
    (tmp_path / "kept").rename(records)
    assert convert(recording, tmp_path / "s", archives).status == "already done"
    assert read_files(tmp_path / "s") == undisturbed
    assert not records.parent.exists()


def test_a_damaged_neighbour_is_named_and_the_rest_is_listed_once_it_is_gone(
    recording: Recording, archives: str, tmp_path: Path
) -> None:
    neighbour = tmp_path / "s" / find_session("A").name
    neighbour.mkdir(parents=True)
    (neighbour / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"session A .*damaged: found unreadable metadata .*--repair"):
        convert(recording, tmp_path / "s", archives)
    neighbour.rename(tmp_path / "elsewhere")
    assert convert(recording, tmp_path / "s", archives).status == "already done"
    assert list(xr.open_datatree(tmp_path / "s", engine="zarr").children) == [recording.session.name]


# A full disk


OPERATIONS_THAT_TAKE_SPACE = [operation for operation in OPERATIONS if operation != "unlink"]


@pytest.mark.parametrize(
    ("stride", "code"),
    [
        (73, errno.ENOSPC),
        *(pytest.param(73, code, marks=pytest.mark.slow) for code in (errno.EROFS, errno.EIO)),
        # Every step: up to half an hour.
        *(
            pytest.param(1, code, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])
            for code in (errno.ENOSPC, errno.EROFS, errno.EIO)
        ),
    ],
)
def test_a_disk_that_fails_from_any_step_on_is_one_line_and_the_run_resumes_when_it_works(
    code: int,
    stride: int,
    recording: Recording,
    archives: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    with faulty_disk(operations=OPERATIONS_THAT_TAKE_SPACE) as counter:
        convert(recording, tmp_path / "whole", archives, jobs=1)
    for step in sorted({*range(code % stride, counter.n_steps, stride), counter.n_steps - 3}):
        store = tmp_path / str(step)
        with (
            pytest.raises(StoreError, match=os.strerror(code)) as caught,
            faulty_disk(FailFrom(step, code), operations=OPERATIONS_THAT_TAKE_SPACE),
        ):
            convert(recording, store, archives, jobs=1)
        assert "\n" not in str(caught.value)
        assert caught.value.remedy
        assert not list(store.rglob("*.tmp")), f"failed from step {step} on"
        convert(recording, store, archives, jobs=2)
        assert read_files(store) == undisturbed, f"failed from step {step} on"
        shutil.rmtree(store)


def test_a_finished_store_on_a_read_only_disk_is_found_done(
    recording: Recording, archives: str, tmp_path: Path
) -> None:
    convert(recording, tmp_path, archives)
    with faulty_disk(FailFrom(0, errno.EROFS)) as counter:
        assert convert(recording, tmp_path, archives).status == "already done"
    assert counter.n_steps == 0


def test_a_folder_without_write_permission_is_named(
    recording: Recording, archives: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"cannot be locked for writing: found Permission denied"):
        convert(recording, tmp_path / "s", archives)


# Two at once


def test_of_two_runs_at_once_the_second_waits_and_finds_the_work_done(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    waited: list[int] = []

    def note(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label.startswith("wait"):
            waited.append(n_done)
        else:
            time.sleep(0.01)

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(convert, recording, tmp_path / "s", archives, progress=note) for _ in range(3)]
        statuses = [run.result().status for run in runs]
    assert sorted(statuses) == ["already done", "already done", "converted"]
    assert waited.count(0) >= waited.count(1) == 2
    assert read_files(tmp_path / "s") == undisturbed
    assert not (tmp_path / "s" / ".partial").exists()


def test_a_reader_sees_nothing_or_the_whole_session(recording: Recording, archives: str, tmp_path: Path) -> None:
    finished = threading.Event()
    seen = {"nothing": 0, "whole": 0}

    def watch() -> None:
        while not finished.is_set() or not seen["whole"]:
            try:
                dataset = open_session(str(tmp_path / "s"), "F").load()
            except StoreError:
                seen["nothing"] += 1
                continue
            assert dataset.sizes["trial"] == 5
            assert dataset.responses.isel(trial=0, time=slice(0, 20)).notnull().all()
            seen["whole"] += 1

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        convert(recording, tmp_path / "s", archives, progress=lambda *_, **__: time.sleep(0.002))
        finished.set()
        watching.result()
    assert seen["nothing"] > 0
    assert verify_session(str(tmp_path / "s"), "F").passed


def test_a_remote_store_is_resumed_too(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    store = f"memory://{tmp_path}/store"
    with pytest.raises(InterruptionError):
        convert_session(recording.session, store, source=archives, jobs=1, progress=interrupt_after(3))
    with pytest.raises(StoreError):
        open_session(store, "F")
    # Those that were under way when it was interrupted are finished.
    assert 3 <= convert_session(recording.session, store, source=archives).n_trials_resumed <= 5
    report = verify_session(store, "F")
    assert report.passed
    assert open_session(store, "F").sizes["trial"] == 5


def test_a_local_write_never_leaves_half_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = LocalObjects(tmp_path)
    objects.write("a/b", b"old")

    def fail(self: Path, target: object) -> Path:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StoreError, match="cannot be written"):
        objects.write("a/b", b"new")
    assert read_files(tmp_path) == {"a/b": b"old"}


# Over a network


def test_an_archive_on_a_server_gives_the_same_session(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    with serve_directory(archives) as server:
        convert(recording, tmp_path / "s", server.url)
        n_first = len(server.requests)
        assert convert(recording, tmp_path / "s", server.url).status == "already done"
        # The index alone: its end, and where the rest of it starts if that was not enough.
        assert len(server.requests) - n_first <= 3
        source = open_session(str(tmp_path / "s"), "F").attrs["source"]
    assert source == f"{server.url}/{recording.session.name}.zip"
    content = {key for key in undisturbed if key.rsplit("/", 1)[-1] not in ("zarr.json", "ledger.json")}
    assert {key: read_files(tmp_path / "s")[key] for key in content} == {key: undisturbed[key] for key in content}


def test_a_tokens_query_is_not_kept(recording: Recording, archives: str, tmp_path: Path) -> None:
    with serve_directory(archives) as server:
        convert(recording, tmp_path / "s", f"{server.url}/?token=secret")
    assert not any(b"secret" in data for data in read_files(tmp_path / "s").values())


def test_a_server_that_goes_away_is_a_source_error_and_the_rest_is_converted_later(
    recording: Recording, archives: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    name = f"/{recording.session.name}.zip"
    with (
        serve_directory(archives, faults=[OnRequests(AnswerStatus(404), range(32, 10_000))]) as server,
        pytest.raises(SourceError, match=name),
    ):
        convert(recording, tmp_path / "s", server.url, jobs=1)
    assert 0 < convert(recording, tmp_path / "s", archives).n_trials_resumed < 5
    assert read_files(tmp_path / "s") == undisturbed
