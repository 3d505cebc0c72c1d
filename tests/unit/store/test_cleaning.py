"""What is deleted of a store, and what stays whatever it looks like."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from fixtures.ages import age
from fixtures.stores import read_files
from sensorium_data.errors import UsageError
from sensorium_data.files import CleanedItem, clean_up, locks
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies
from sensorium_data.sessions import find_session
from sensorium_data.store import exclusive_access, find_store_leftovers, open_session, open_store, verify_root
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording

TIERS = ["train", "oracle", "oracle"]


def convert(recording: Recording, folder: Path, store: str = "store") -> None:
    recording.write(folder / "archives")
    convert_session(
        recording.session, store if "://" in store else str(folder / store), source=str(folder / "archives")
    )


#: What a conversion writes first.
IDENTITY = '{"schema_version": 3, "converter_version": 1}'


@pytest.fixture(scope="module")
def versions() -> list[Recording]:
    first = make_recording("F", TIERS)
    return [first, *(first.with_trial(0, responses=first.trials[0].responses + n) for n in (1, 2))]


@pytest.fixture(scope="module")
def converted(versions: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    for version in versions:
        convert(version, folder)
    age(folder / "store")
    return folder / "store"


@pytest.fixture
def store(converted: Path, tmp_path: Path) -> Path:
    """A store that holds three versions of a session, all written a month ago."""
    # With the times of its files.
    return Path(shutil.copytree(converted, tmp_path / "store"))


def clean(store: Path | str, *, keep: int = 0, **options: object) -> list[CleanedItem]:
    return list(clean_up(find_store_leftovers(str(store), keep=keep), **options))


def removed(items: list[CleanedItem]) -> list[str]:
    return [item.place.rpartition("/")[2] for item in items if item.removed]


def kept(items: list[CleanedItem]) -> dict[str, str]:
    return {item.place.rpartition("/")[2]: item.why for item in items if not item.removed}


def assert_current_is_sound(store: Path, versions: list[Recording]) -> None:
    trial = open_session(str(store), "F").responses.sel(trial=0)[:, :20].values
    assert (trial == versions[-1].trials[0].responses[:, :20].astype("float32")).all()
    assert verify_root(open_store(str(store))).passed


# Old versions


def test_old_versions_are_deleted_and_the_current_one_stays(store: Path, versions: list[Recording]) -> None:
    name = versions[0].session.name
    before = read_files(store / f"{name}.v3")
    sizes = [sum(map(len, read_files(store / group).values())) for group in (name, f"{name}.v2")]
    items = clean(store)
    assert [(item.kind, item.why, item.size_bytes) for item in items] == [
        ("old version", f"replaced by {name}.v2", sizes[0]),
        ("old version", f"replaced by {name}.v3", sizes[1]),
    ]
    assert sorted(os.listdir(store)) == [f"{name}.v3", "versions.json", "zarr.json"]
    assert read_files(store / f"{name}.v3") == before
    assert_current_is_sound(store, versions)
    assert clean(store) == []


def test_what_is_known_of_movies_is_the_stores_and_stays(store: Path, versions: list[Recording]) -> None:
    link_movies(str(store))
    age(store)
    name = versions[0].session.name
    assert sorted(removed(clean(store))) == [name, f"{name}.v2"]
    assert clean(store) == []
    assert sorted(os.listdir(store)) == [f"{name}.v3", "movies", "movies.json", "versions.json", "zarr.json"]
    assert os.listdir(store / "movies") == [f"{name}.v3.screen"]


def test_the_newest_old_versions_are_kept(store: Path, versions: list[Recording]) -> None:
    name = versions[0].session.name
    items = clean(store, keep=1)
    assert removed(items) == [name]
    assert kept(items) == {f"{name}.v2": "it is among the newest 1"}
    with pytest.raises(UsageError, match="--keep"):
        clean(store, keep=-1)


def test_a_version_that_was_replaced_not_long_ago_stays(store: Path, versions: list[Recording]) -> None:
    name = versions[0].session.name
    age(store / f"{name}.v3", days=3)
    items = clean(store)
    # Its own files are old: what counts is when it was replaced.
    assert kept(items) == {f"{name}.v2": "replaced 3 days ago; it stays for 7 days"}
    assert removed(items) == [name]
    assert removed(clean(store, min_age_days=2)) == [f"{name}.v2"]
    with pytest.raises(UsageError, match="--older-than"):
        clean(store, min_age_days=float("nan"))


def test_a_dry_run_changes_nothing(store: Path, versions: list[Recording]) -> None:
    before = read_files(store)
    name = versions[0].session.name
    (store / ".partial").mkdir()
    (store / ".partial" / f"{name}.lock").touch()
    assert removed(clean(store, dry_run=True)) == [name, f"{name}.v2", f"{name}.lock"]
    assert read_files(store) == before | {f".partial/{name}.lock": b""}


@pytest.mark.parametrize("has_pickled", [False, True])
def test_a_version_that_somebody_has_open_stays(has_pickled: bool, versions: list[Recording], tmp_path: Path) -> None:
    convert(versions[0], tmp_path)
    reader = open_session(str(tmp_path / "store"), "F")
    if has_pickled:
        reader = pickle.loads(pickle.dumps(reader))  # noqa: S301 (our own)
    convert(versions[1], tmp_path)
    store = tmp_path / "store"
    name = versions[0].session.name
    age(store)
    for dry_run in (True, False):
        assert kept(clean(store, dry_run=dry_run)) == {name: "somebody has it open"}
    assert reader.responses.sel(trial=0).load().sizes
    del reader
    assert removed(clean(store)) == [name]


def test_a_version_that_another_process_has_open_stays(versions: list[Recording], tmp_path: Path) -> None:
    convert(versions[0], tmp_path)
    store = tmp_path / "store"
    program = "import sys; from sensorium_data.store import open_store; store = open_store(sys.argv[1]); "
    program += "store.ledger('F'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"open\n"
        convert(versions[1], tmp_path)
        age(store)
        assert list(kept(clean(store)).values()) == ["somebody has it open"]
        reader.communicate()
    assert len(removed(clean(store))) == 1


def test_nothing_is_deleted_while_an_ingest_is_at_work(store: Path, versions: list[Recording]) -> None:
    name = versions[0].session.name
    objects = open_store(str(store)).objects
    with exclusive_access(objects, name):
        for dry_run in (True, False):
            items = clean(store, dry_run=dry_run)
            assert removed(items) == []
            assert set(kept(items).values()) == {"an ingest is at work on the session", "somebody holds the lock"}
    assert removed(clean(store)) == [name, f"{name}.v2"]


def test_an_old_version_stays_if_the_current_one_is_damaged(store: Path, versions: list[Recording]) -> None:
    name = versions[0].session.name
    (store / f"{name}.v3" / "ledger.json").unlink()
    items = clean(store)
    assert removed(items) == []
    assert "no ledger" in kept(items)[name]
    assert kept(items)[f"{name}.v3"] == "it has no ledger.json"
    (store / f"{name}.v3").rename(store.parent / "lost")
    assert removed(clean(store)) == []


@pytest.mark.parametrize("lost", ["versions.json", "zarr.json"])
def test_an_old_version_stays_if_the_root_does_not_name_the_current_one(
    lost: str, store: Path, versions: list[Recording]
) -> None:
    (store / lost).unlink()
    items = clean(store)
    assert removed(items) == []
    assert versions[0].session.name in kept(items)


def test_a_version_nobody_was_pointed_to_yet_stays(store: Path, versions: list[Recording]) -> None:
    name = versions[0].session.name
    convert(versions[0], store.parent)
    age(store)
    # As after a kill between the publication and the pointer.
    versions_file = json.loads((store / "versions.json").read_text())
    del versions_file["digest"]
    (store / "versions.json").write_text(json.dumps({name: f"{name}.v3"} | {}))
    (store / "zarr.json").write_text((store / "zarr.json").read_text().replace(f"{name}.v4", f"{name}.v3"))
    assert "it is not current yet" in kept(clean(store))[f"{name}.v4"]
    assert (store / f"{name}.v4").is_dir()


def test_what_is_not_of_the_store_stays_and_is_named(store: Path, versions: list[Recording]) -> None:
    name = versions[0].session.name
    (store / "notes.txt").write_text("mine")
    (store / "analysis_1").mkdir()
    (store / name / "fit.csv").write_text("mine")
    (store / ".partial").mkdir()
    (store / ".partial" / "thesis.lock").write_text("years of work")
    (store / ".partial" / f"{name}.v4").mkdir()
    (store / ".partial" / f"{name}.v4" / "thesis").touch()
    (store / f"{name}.v2").rename(store.parent / "elsewhere")
    (store / f"{name}.v2").symlink_to(store.parent / "elsewhere")
    age(store)
    items = clean(store)
    assert removed(items) == []
    assert kept(items) == {
        "notes.txt": "this software did not make it",
        "analysis_1": "this software did not make it",
        "thesis.lock": "this software did not make it",
        f"{name}.v4": "this software did not make it",
        f"{name}.v2": "it is a link",
        name: "it holds 1 file that its ledger does not list: fit.csv",
    }
    assert (store / name / "fit.csv").exists()


@pytest.mark.parametrize("where", [".partial", ""])
def test_locks_that_other_machines_do_not_see_protect_for_a_day_alone(
    where: str, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def flock(descriptor: int, is_shared: bool) -> None:
        # Of the file systems, that of the temporary files alone has locks.
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith(tempfile.gettempdir()):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "_flock", flock)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    name = find_session("F").name
    group = store / where / (f"{name}.v9" if where else f"{name}.v3")
    group.mkdir(parents=True, exist_ok=True)
    (group / "identity.json").write_text(IDENTITY)
    age(group, days=0.5)
    place = f"{name}.v9" if where else f"{name}.v2"
    assert "it stays for 1 day" in kept(clean(store, min_age_days=0))[place]
    age(group, days=2)
    assert place in removed(clean(store, min_age_days=0))


# Interrupted work


@pytest.fixture
def interrupted(versions: list[Recording], tmp_path: Path) -> Path:
    """A store whose only ingest was interrupted a month ago."""

    def stop(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n_done:
            raise InterruptedError

    versions[0].write(tmp_path / "archives")
    with pytest.raises(InterruptedError):
        convert_session(
            versions[0].session, str(tmp_path / "store"), source=str(tmp_path / "archives"), jobs=1, progress=stop
        )
    age(tmp_path / "store")
    return tmp_path / "store"


def test_an_interrupted_ingest_is_continued_for_a_week_and_then_deleted(
    interrupted: Path, versions: list[Recording], tmp_path: Path
) -> None:
    name = versions[0].session.name
    age(interrupted / ".partial", days=6)
    assert kept(clean(interrupted)) == {name: "written 6 days ago; it stays for 7 days"}
    age(interrupted / ".partial", days=8)
    items = clean(interrupted)
    assert [(item.kind, item.removed) for item in items] == [("unfinished conversion", True)]
    assert items[0].size_bytes > 0
    assert os.listdir(interrupted) == []
    convert(versions[0], tmp_path)
    assert open_session(str(interrupted), "F").sizes["trial"] == len(TIERS)


def test_what_an_ingest_left_of_finished_work_is_deleted(store: Path, versions: list[Recording]) -> None:
    name = versions[0].session.name
    records = store / ".partial" / f"{name}.v3"
    (records / "trials").mkdir(parents=True)
    (records / "trials" / "0.npz").write_bytes(b"1")
    (records / "thesis.txt").write_text("years of work")
    age(store)
    # Neither is a folder without what a conversion writes first deleted, nor one with anything else in it.
    assert kept(clean(store))[f"{name}.v3"] == "this software did not make it"
    (records / "identity.json").write_text(IDENTITY)
    age(store)
    told = "it holds thesis.txt, which this software did not make"
    assert kept(clean(store))[f"{name}.v3"] == told
    (records / "thesis.txt").unlink()
    age(store)
    assert "rest of a conversion" in [item.kind for item in clean(store)]
    assert not (store / ".partial").exists()


def test_locks_of_killed_processes_are_deleted(versions: list[Recording], tmp_path: Path) -> None:
    convert(versions[0], tmp_path)
    locks = tmp_path / "store" / ".partial"
    locks.mkdir()
    for name in ("root", "movies", versions[0].session.name):
        (locks / f"{name}.lock").touch()
    assert set(removed(clean(tmp_path / "store"))) == {"root.lock", "movies.lock", f"{versions[0].session.name}.lock"}
    assert not locks.exists()


def test_temporary_files_of_killed_writers_are_deleted(store: Path) -> None:
    names = [f".{name}.{'0' * 32}.tmp" for name in ("zarr.json", "versions.json", "movies.json", "thesis.json")]
    for name in names:
        (store / name).touch()
    # They have no lock, so they are a day old at least.
    assert not set(removed(clean(store, min_age_days=0))) & set(names)
    age(store, days=2)
    assert set(removed(clean(store, min_age_days=0))) == set(names[:3])
    assert (store / names[3]).exists()


# Kills


def test_a_kill_in_the_middle_leaves_a_valid_store(store: Path, versions: list[Recording], tmp_path: Path) -> None:
    """Killed before the renames and before deletions of files, then run again."""
    program = Path(__file__).parents[2] / "fixtures" / "cleaning_crashes.py"
    done = subprocess.run(
        [sys.executable, str(program), str(store), str(tmp_path / "crashes")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["n_steps"] > 20
    assert report["unsound"] == []


# Object stores


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    url = f"memory:/{tmp_path}/store"
    yield url
    fsspec.filesystem("memory").store.clear()


def age_remote(url: str, days: float) -> None:
    import datetime

    files = fsspec.filesystem("memory").store
    for path, file in files.items():
        if path.startswith(url.removeprefix("memory:/")):
            file.created = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
            file.modified = file.created


def test_old_versions_are_deleted_from_an_object_store(remote: str, versions: list[Recording], tmp_path: Path) -> None:
    for version in versions[:2]:
        convert(version, tmp_path, remote)
    name = versions[0].session.name
    assert "it stays for 1 day" in kept(clean(remote, min_age_days=0))[name]
    age_remote(remote, 30)
    assert removed(clean(remote, dry_run=True)) == [name]
    assert removed(clean(remote)) == [name]
    assert clean(remote) == []
    assert open_session(remote, "F").responses.sel(trial=0).load().sizes
    assert verify_root(open_store(remote)).passed


def test_an_unfinished_conversion_is_deleted_from_an_object_store(
    remote: str, versions: list[Recording], tmp_path: Path
) -> None:
    convert(versions[0], tmp_path, remote)

    def stop(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n_done:
            raise InterruptedError

    other = make_recording("G", TIERS)
    other.write(tmp_path / "archives")
    with pytest.raises(InterruptedError):
        convert_session(other.session, remote, source=str(tmp_path / "archives"), jobs=1, progress=stop)
    age_remote(remote, 30)
    items = clean(remote)
    assert removed(items) == [other.session.name]
    assert not [path for path in fsspec.filesystem("memory").store if other.session.name in path]
    assert open_session(remote, "F").sizes["trial"] == len(TIERS)


@pytest.mark.parametrize("lost", [("zarr.json",), ("ledger.json",), ("zarr.json", "ledger.json")])
def test_a_damaged_session_of_an_object_store_stays(
    lost: tuple[str, ...], remote: str, versions: list[Recording], tmp_path: Path
) -> None:
    convert(versions[0], tmp_path, remote)
    name = versions[0].session.name
    memory = fsspec.filesystem("memory")
    (path,) = [path for path in memory.store if path.endswith(f"/{name}/zarr.json")]
    for key in lost:
        memory.rm_file(f"{path.removesuffix('zarr.json')}{key}")
    # As a kill after the publication leaves it.
    memory.pipe_file(f"{path.partition(name)[0]}.partial/{name}/trials/0.npz", b"1")
    age_remote(remote, 30)
    n_before = len([path for path in memory.store if f"store/{name}/" in path])
    clean(remote)
    assert len([path for path in memory.store if f"store/{name}/" in path]) == n_before > 10


def test_an_interrupted_deletion_from_an_object_store_is_ended(
    remote: str, versions: list[Recording], tmp_path: Path
) -> None:
    for version in versions[:2]:
        convert(version, tmp_path, remote)
    name = versions[0].session.name
    memory = fsspec.filesystem("memory")
    (path,) = [path for path in memory.store if path.endswith(f"/{name}/zarr.json")]
    for key in ("zarr.json", "ledger.json"):
        memory.rm_file(f"{path.removesuffix('zarr.json')}{key}")
        age_remote(remote, 30)
        assert removed(clean(remote, dry_run=True)) == [name]
    assert removed(clean(remote)) == [name]
    assert not [path for path in memory.store if f"/{name}/" in path]
