"""``sensorium clean``: each kind of what interrupted work leaves, beside what stays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from fixtures.ages import age
from fixtures.command_line import Outcome, run_command
from fixtures.session_stores import TrialFacts, write_session_store
from models.runs.files import MODEL_FILE
from sensorium_data.files import FileVersion, LocalObjects, ObjectCache, StoredObject, close_locked, lock_folder
from sensorium_data.files.part_file import open_part
from sensorium_data.predictions import create_predictions, from_arrays
from sensorium_data.sessions import find_session
from sensorium_data.store import exclusive_access, open_store
from sensorium_data.store.verified_objects import VerifiedObjects
from sensorium_data.testing import serve_directory

F = find_session("F").name
HEX = "0123456789abcdef" * 2
#: The first file of a run.
GIVEN = '{"preset": "debug", "settings": {}}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "results"
    made.mkdir()
    return made


@pytest.fixture
def clean(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, dict[str, object]]]:
    """Run the command, and return what it says of each thing by its name."""

    def run(*arguments: object) -> dict[str, dict[str, object]]:
        outcome = run_command(capsys, "clean", *arguments, "--json")
        assert outcome.status == 0, outcome.err
        return {str(one["place"]).rstrip("/").rpartition("/")[2]: one for one in json.loads(outcome.out)}

    return run


def assert_only_removed(found: dict[str, dict[str, object]], *names: str) -> None:
    assert {name for name, one in found.items() if one["removed"]} == set(names)


def make_run(folder: Path, name: str, *files: str) -> Path:
    for file in files:
        (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_text(GIVEN if file == "config-given.json" else "{}")
    return folder / name


# Runs


def test_unfinished_runs_that_were_given_up_are_deleted(folder: Path, clean: Callable[..., dict]) -> None:
    files = ("config-given.json", "config.json", "checkpoints/epoch-00001-step-000000001.json", f".data.json.{HEX}.tmp")
    given_up = make_run(folder, "factorized3d-11111111.partial", *files)
    at_work = make_run(folder, "factorized3d-22222222.partial", "config-given.json")
    make_run(folder, "factorized3d-33333333.partial", "config-given.json")
    make_run(folder, "factorized3d-44444444.partial", "config-given.json", "checkpoints/notes.json")
    make_run(folder, "thesis.partial", "chapter-1", "config.json")
    (folder / "link.partial").symlink_to(given_up)
    age(folder)
    age(folder / "factorized3d-33333333.partial", days=2)
    lock = lock_folder(at_work)
    assert lock is not None
    try:
        found = clean(folder)
    finally:
        close_locked(lock)
    assert_only_removed(found, given_up.name)
    assert found[at_work.name]["why"] == "a training is at work on it"
    assert found["factorized3d-33333333.partial"]["why"] == "written 2 days ago; it stays for 7 days"
    assert found["thesis.partial"]["why"] == found["link.partial"]["why"] == "this software did not make it"
    told = "it holds checkpoints/notes.json, which this software did not make"
    assert found["factorized3d-44444444.partial"]["why"] == told
    kept = ["factorized3d-44444444.partial", "link.partial", "thesis.partial"]
    assert sorted(os.listdir(folder)) == [at_work.name, "factorized3d-33333333.partial", *kept]
    assert set(clean(folder, "--older-than", 0)) >= {at_work.name, "factorized3d-33333333.partial"}
    assert sorted(os.listdir(folder)) == kept


def test_checkpoints_of_finished_runs_are_deleted(folder: Path, clean: Callable[..., dict]) -> None:
    run = make_run(folder, "factorized3d-11111111", MODEL_FILE, "checkpoints/epoch-00001-step-000000001.json")
    make_run(folder, "mine", "checkpoints/epoch-00001-step-000000001.json")
    age(folder)
    assert_only_removed(clean(folder), "checkpoints")
    assert os.listdir(run) == [MODEL_FILE]
    assert os.listdir(folder / "mine") == ["checkpoints"]
    make_run(folder, run.name, "checkpoints/epoch-00001-step-000000001.json", "checkpoints/notes.txt")
    age(folder)
    assert "it holds checkpoints/notes.txt" in clean(folder)["checkpoints"]["why"]
    assert len(os.listdir(run / "checkpoints")) == 2


def test_unfinished_runs_are_deleted_behind_a_url(
    memory: fsspec.AbstractFileSystem, clean: Callable[..., dict]
) -> None:
    checkpoint = "checkpoints/epoch-00001-step-000000001.json"
    for key in ("debug-1.partial/config-given.json", f"debug-1.partial/{checkpoint}", "debug-2/model.json"):
        memory.pipe_file(f"/lab/runs/{key}", GIVEN.encode())
    assert "it stays for 7 days" in clean("memory://lab/runs")["debug-1.partial"]["why"]
    age_memory(memory)
    assert_only_removed(clean("memory://lab/runs"), "debug-1.partial")
    assert [*memory.store] == ["/lab/runs/debug-2/model.json"]


# Predictions and submissions


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("store")
    write_session_store(path, "F", [TrialFacts(0, "oracle", 60), TrialFacts(1, "oracle", 60)], n_neurons=2)
    return str(path)


def begin_predictions(url: str, store: str, then: Callable[[], None] = lambda: None) -> None:
    """Write a trial of two, and stop."""
    try:
        with create_predictions(
            url, store=store, sessions=["F"], tiers=["oracle"], response_units="raw", identity="1"
        ) as writer:
            writer.write_trial("F", 0, np.ones((2, 60), np.float32), 0)
            then()
            raise InterruptedError
    except InterruptedError:
        pass


def test_unfinished_predictions_are_deleted(folder: Path, store: str, clean: Callable[..., dict]) -> None:
    def look_meanwhile() -> None:
        age(folder)
        assert clean(folder)["oracle.partial"]["why"] == "a writer is at work on them"

    begin_predictions(str(folder / "oracle"), store, look_meanwhile)
    assert (folder / "oracle.partial").is_dir()
    notes = folder / "oracle.partial" / F / "notes.txt"
    notes.write_text("mine")
    age(folder)
    assert clean(folder)["oracle.partial"]["why"] == f"it holds {F}/notes.txt, which this software did not make"
    notes.unlink()
    age(folder)
    assert_only_removed(clean(folder), "oracle.partial")
    assert os.listdir(folder) == []


def test_finished_predictions_that_are_called_unfinished_are_kept(
    folder: Path, store: str, clean: Callable[..., dict]
) -> None:
    values = np.ones((2, 60), np.float32)
    from_arrays(str(folder / "oracle"), store, {"F": {0: values, 1: values}}, response_units="raw")
    (folder / "oracle").rename(folder / "oracle.partial")
    age(folder)
    assert clean(folder)["oracle.partial"]["why"] == "they are finished"
    assert (folder / "oracle.partial").is_dir()


def test_unfinished_predictions_are_deleted_behind_a_url(
    memory: fsspec.AbstractFileSystem, store: str, clean: Callable[..., dict]
) -> None:
    kept: dict[str, object] = {}
    # A kill leaves what an error would remove.
    begin_predictions("memory://lab/out/oracle", store, lambda: kept.update(memory.store))
    memory.store.update(kept)
    memory.pipe_file("/lab/out/data_1/predictions.csv", b"")
    age_memory(memory)
    assert_only_removed(clean("memory://lab/out"), "oracle")
    assert [*memory.store] == ["/lab/out/data_1/predictions.csv"]


def test_unfinished_zips_are_deleted(folder: Path, clean: Callable[..., dict]) -> None:
    of_main = [f".submission_main.{ending}.{HEX}.tmp" for ending in ("zip", "json")]
    names = [f".submission_bonus_live.zip.{HEX}.tmp", f".submission_fixed.sha256.{HEX}.tmp"]
    others = ["submission_main.zip", "photos.zip.partial", f".photos.json.{HEX}.tmp"]
    # As earlier versions called them: they may be anybody's.
    others += ["submission_main.zip.partial", "repair.partial", ".submission_main.zip.backup.tmp"]
    for name in (*of_main, *names, *others):
        (folder / name).write_bytes(b"1")
    (folder / f".submission_bonus_final.zip.{HEX}.tmp").mkdir()
    age(folder)
    with exclusive_access(LocalObjects(folder), "submission_main"):
        found = clean(folder)
    assert {found[name]["why"] for name in of_main} == {"a writer is at work on the submission"}
    assert_only_removed(found, *names)
    # Its time is that of the cleaning.
    age(folder)
    found = clean(folder)
    assert_only_removed(found, *of_main)
    assert found["repair.partial"]["why"] == "this software did not make it"
    assert found[f".submission_bonus_final.zip.{HEX}.tmp"]["why"] == "it is no file"
    assert set(os.listdir(folder)) == {*others, f".submission_bonus_final.zip.{HEX}.tmp"}


def test_a_submission_in_a_store_is_cleaned_with_it(tmp_path: Path, clean: Callable[..., dict]) -> None:
    write_session_store(tmp_path / "store", "F", [TrialFacts(0, "oracle", 60)], n_neurons=2)
    (tmp_path / "store" / f".submission_main.zip.{HEX}.tmp").touch()
    age(tmp_path / "store")
    assert_only_removed(clean(tmp_path / "store"), f".submission_main.zip.{HEX}.tmp")
    assert open_store(tmp_path / "store").sessions


# Files


def test_unfinished_downloads_and_simulations_are_deleted(folder: Path, clean: Callable[..., dict]) -> None:
    with open_part(folder / f"{F}.zip") as part:
        part.start_over(FileVersion("https://host/f.zip", 100, "now"))
        part.record()
        age(folder)
        assert clean(folder)[f"{F}.zip.part"]["why"] == "a download is under way"
    scratch = [f".{name}.{HEX}.tmp" for name in (f"{F}.zip", f"{F}.zip.json", f"{F}.zip.part.json")]
    report = f".quality.html.{HEX}.tmp"
    others = ["photos.part", f"{F}.zip", f"{F}.zip.partial", f"{F}.zip.videos.partial", f".notes.txt.{HEX}.tmp"]
    others += [".quality.html.ab12cd_z.partial", f".{F}.zip.tmp"]
    for name in (*scratch, report, *others):
        (folder / name).touch()
    # A report has no lock, so its file is a day old at least.
    assert_only_removed(clean(folder, "--older-than", 0), f"{F}.zip.part", *scratch)
    assert not (folder / f"{F}.zip.part.json").exists()
    age(folder)
    assert_only_removed(clean(folder), report)
    assert set(os.listdir(folder)) == set(others)


def test_downloads_that_no_record_vouches_for_are_kept(folder: Path, clean: Callable[..., dict]) -> None:
    part, record = folder / f"{F}.zip.part", folder / f"{F}.zip.part.json"
    part.write_text("mine")
    record.write_text('{"mine": 1}')
    age(folder)
    told = f"{F}.zip.part.json does not say that a download made it"
    assert clean(folder)[part.name]["why"] == told
    part.unlink()
    assert_only_removed(clean(folder))
    assert os.listdir(folder) == [record.name]


# Caches


def test_caches_are_cleaned(folder: Path, monkeypatch: pytest.MonkeyPatch, clean: Callable[..., dict]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    cached = ObjectCache(folder / "sensorium" / "objects", 1000)
    for data in (b"used long ago", b"used today"):
        cached.read(StoredObject.of(data), lambda data=data: data)
    old, new = (
        folder / "sensorium" / "objects" / one.digest[:2] / one.digest
        for one in map(StoredObject.of, (b"used long ago", b"used today"))
    )
    (old.parent / "mine").touch()
    interrupted = VerifiedObjects(LocalObjects(folder), b"ledger")
    interrupted.save()
    (notes,) = (folder / "sensorium" / "verification").iterdir()
    receiving = folder / "sensorium" / "runs" / "0123456789abcdef" / f".{HEX}.tmp"
    copy = receiving.with_name("debug-1.partial")
    for path in (receiving, copy):
        path.mkdir(parents=True)
    archive = folder / "sensorium" / "archives" / f"{F}.zip.part"
    archive.parent.mkdir()
    archive.touch()
    age(folder)
    age(new, days=1)
    found = clean("--caches")
    assert_only_removed(found, "objects", "verification", receiving.name, archive.name)
    assert found["objects"]["size_bytes"] == len(b"used long ago")
    assert not any(path.exists() for path in (old, notes, receiving, archive))
    assert new.exists()
    assert (old.parent / "mine").exists()
    # It may be all that there is of the run.
    assert copy.exists()
    assert clean("--caches") == {}


# The command


def test_the_table_says_what_and_why(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    make_run(folder, "debug-1.partial", "config-given.json")
    make_run(folder, "thesis.partial", "chapter-1")
    age(folder)
    would = run_command(capsys, "clean", folder, "--dry-run")
    assert (folder / "debug-1.partial").is_dir()
    assert "Would be deleted" in would.out
    done = run_command(capsys, "clean", folder)
    assert not (folder / "debug-1.partial").exists()
    for words in (
        "Deleted in",
        "unfinished run",
        "debug-1.partial",
        "its training was interrupted",
        f"{len(GIVEN)} bytes",
    ):
        assert words in done.out
    assert done.err.splitlines()[-1].endswith("thesis.partial: not known, stays: this software did not make it")
    again = run_command(capsys, "clean", folder)
    assert (again.status, "nothing to delete" in again.out) == (0, True)


def test_a_folder_that_cannot_be_cleaned_is_refused(
    folder: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> Outcome:
        return run_command(capsys, "clean", *arguments)

    refuse().assert_refused("nothing to clean is named", "--caches")
    refuse(folder / "nowhere").assert_refused("no such folder")
    refuse(make_run(folder, "debug-1", MODEL_FILE)).assert_refused("a run", f"give {folder}")
    refuse(Path(store) / F).assert_refused("a session", f"give {store}")
    refuse(folder, "--older-than", "-1").assert_refused("--older-than")
    refuse(store, "--keep", "-1").assert_refused("--keep")
    with serve_directory(Path(store)) as server:
        refuse(server.url).assert_refused("cannot be listed")


def test_what_cannot_be_deleted_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(folder, "debug-1.partial", "config-given.json")
    age(folder)

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.rename", fail)
        run_command(capsys, "clean", folder).assert_refused("debug-1.partial", "cannot be deleted: found Permission")


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    file_system = fsspec.filesystem("memory")
    file_system.store.clear()
    yield file_system
    file_system.store.clear()


def age_memory(memory: fsspec.AbstractFileSystem, days: float = 30.0) -> None:
    import datetime

    for file in memory.store.values():
        file.created = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
