"""A store's root that somebody changed: its versions, its list of sessions, its links of movies."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.changed_stores import A, F, find_problems
from fixtures.command_line import run_command
from fixtures.predicted_sessions import PredictedSessions
from fixtures.session_stores import write_group
from fixtures.stores import read_files
from fixtures.tiny_training import tiny_config
from flows.cli.verification import verify_path
from models.training import train
from sensorium_data.errors import StoreError
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies
from sensorium_data.progress import ignore_progress
from sensorium_data.store import ObjectLedger, open_session, open_store, verify_root


def swap(first: Path, second: Path) -> None:
    first.rename(first.with_name("other"))
    second.rename(first)
    first.with_name("other").rename(second)


def swap_two_sessions(store: Path) -> None:
    swap(store / A.name, store / f"{F.name}.v2")


def swap_two_versions(store: Path) -> None:
    swap(store / F.name, store / f"{F.name}.v2")


def point_to_the_first_version(store: Path) -> None:
    path = store / "versions.json"
    path.write_text(path.read_text().replace(".v2", ""))


def empty_the_versions(store: Path) -> None:
    (store / "versions.json").write_text("{}")


def unname_a_session_in_the_versions(store: Path) -> None:
    path = store / "versions.json"
    path.write_text(path.read_text().replace("29515", "29516"))


def join_other_movies(store: Path) -> None:
    path = store / "movies.json"
    content = json.loads(path.read_text())
    content["sessions"][A.name]["ids"] = {"29156-11-10:0": "29515-10-12:0"}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("tamper", "match"),
    [
        (swap_two_sessions, rf"the group is not what its name says: found session {A.name}, expected {F.name}"),
        (swap_two_versions, rf"the group is not what its name says: found group {F.name}, expected {F.name}\.v2"),
        (point_to_the_first_version, r"versions\.json: the store is damaged: .*not those that were written"),
        (empty_the_versions, rf"versions\.json: the store is damaged: .*the root's metadata name {F.name}\.v2"),
        (unname_a_session_in_the_versions, r"versions\.json: the store is damaged: .*not those that were written"),
        (join_other_movies, r"movies\.json: the ids of movies .* cannot be read: .*not those that were written"),
    ],
)
def test_a_store_that_was_changed_is_refused_and_verified_to_be_wrong(
    tamper: Callable[[Path], None], match: str, sound: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    assert find_problems(store) == []
    tamper(store)
    with pytest.raises(StoreError, match=match):
        open_session(str(store), "F")
    assert find_problems(store)


def test_a_root_that_is_not_as_its_sessions_is_found_and_repaired(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    root = store / "zarr.json"
    before = root.read_bytes()
    root.write_bytes(before.replace(b'"units": "0-255"', b'"units": "0-256"', 1))
    report = verify_root(open_store(store))
    assert report.problems == ("zarr.json: not what the sessions' groups say",)
    archives = sound.parent / "archives"
    assert report.remedy.startswith(f"`sensorium ingest A --store {store} --source {archives}/{A.name}.zip --repair`")
    convert_session(A, str(store), source=str(sound.parent / "archives"), repairs=True)
    assert root.read_bytes() == before
    root.unlink()
    assert verify_root(open_store(store)).problems[0].startswith("zarr.json: missing")


def test_versions_that_are_lost_are_those_of_the_root_until_ingest_writes_them_again(
    sound: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    before = read_files(store)
    (store / "versions.json").unlink()
    opened = open_store(store)
    assert opened.group("F") == f"{F.name}.v2"
    assert open_session(str(store), "F").attrs["group"] == f"{F.name}.v2"
    assert verify_root(opened).problems == ("versions.json: missing",)
    convert_session(A, str(store), source=str(sound.parent / "archives"))
    assert read_files(store) == before


def test_versions_that_are_lost_with_their_group_are_not_pointed_to(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    (store / "versions.json").unlink()
    shutil.rmtree(store / f"{F.name}.v2")
    assert open_store(store).group("F") == F.name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("versions.json", content) for content in ("", "{}", "[]", "{", json.dumps({F.name: "../thesis"}))),
        *(("movies.json", content) for content in ("", "{}")),
    ],
)
def test_a_damaged_file_of_the_store_is_told_with_the_command_that_writes_it_again(
    name: str, content: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copytree(sound, tmp_path / "my store")
    before = read_files(store)
    (store / name).write_text(content)
    with pytest.raises(StoreError, match=rf"store/{name}: ") as told:
        open_session(str(store), "F")
    assert find_problems(store)
    (command,) = re.findall("`sensorium (.+)`", str(told.value))
    if "thesis" in content:
        assert "; remove this file; then `" in str(told.value)
        (store / name).unlink()
    assert run_command(capsys, *shlex.split(command)).status == 0
    assert read_files(store) == before


def test_movies_that_are_lost_are_found_missing_and_no_folds_are_made(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    before = (store / "movies.json").read_bytes()
    (store / "movies.json").unlink()
    assert verify_root(open_store(store)).problems == (
        "movies.json: missing: which movies several sessions show is not known",
    )
    with pytest.raises(
        StoreError, match=rf"folds need to know .* found not compared .*{A.name}, {F.name}; `sensorium ingest A"
    ):
        train(tiny_config(n_folds=2, fold=0), str(store), None, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    link_movies(str(store))
    assert (store / "movies.json").read_bytes() == before


def test_a_list_of_sessions_that_cannot_be_read_is_told_with_what_writes_it_again(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    root, archives = store / "zarr.json", str(sound.parent / "archives")
    before = root.read_bytes()
    root.write_bytes(before.replace(b"{", b"[", 1))
    with pytest.raises(StoreError, match=rf"list of its sessions is damaged.*ingest A --store {store} .*--repair` w"):
        convert_session(A, str(store), source=archives)
    assert find_problems(store)
    convert_session(A, str(store), source=archives, repairs=True)
    assert root.read_bytes() == before


@pytest.mark.parametrize("name", ["a session's own folder", "predictions"])
def test_nothing_is_ingested_into_what_is_no_store(name: str, sound: Path, tmp_path: Path) -> None:
    if name == "predictions":
        folder = tmp_path / "p"
        folder.mkdir()
        write_group(folder, {"kind": "predictions", "title": "mine"}, {})
        match = "this is no store of sessions: found predictions"
    else:
        folder = shutil.copytree(sound / A.name, tmp_path / A.name)
        match = rf"this is a session's own folder, no store: found {A.name}.*give {tmp_path}$"
    before = read_files(folder)
    with pytest.raises(StoreError, match=match):
        convert_session(A, str(folder), source=str(sound.parent / "archives"))
    assert read_files(folder) == before


def test_sessions_are_verified_where_the_versions_cannot_be_read(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    (store / "versions.json").write_text("{")
    chunk = next(path for path in (store / f"{F.name}.v2" / "responses" / "c").rglob("0") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    reports, failures = verify_path(str(store), (), source=None, jobs=1, progress=ignore_progress)
    assert [report.session for report in reports] == ["", A.name, F.name]
    assert [len(report.problems) for report in reports] == [0, 0, 1]
    (failure,) = map(str, failures)
    assert failure.startswith(
        f"{store}/versions.json: the store is damaged: found unreadable versions (invalid JSON in line 1); `sensorium"
    )


@pytest.mark.parametrize("root", ["lost", "older"])
def test_a_newer_version_that_nothing_names_is_found(root: str, sound: Path, tmp_path: Path) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    (store / "versions.json").unlink()
    if root == "lost":
        (store / "zarr.json").unlink()
    else:
        metadata = (store / "zarr.json").read_bytes()
        (store / "zarr.json").write_bytes(metadata.replace(f"{F.name}.v2".encode(), F.name.encode()))
    convert_session(A, str(store), source=archives, repairs=True)
    report = verify_root(open_store(store))
    assert f"{F.name}.v2: newer than {F.name}, which counts as the current version" in report.problems
    assert report.remedy.startswith(f"`sensorium ingest F --store {store} --source ")
    convert_session(F, str(store), source=archives)
    link_movies(str(store))
    assert find_problems(store) == []
    assert open_store(store).group("F") == f"{F.name}.v2"


def test_a_run_or_predictions_in_a_store_are_no_sessions(
    predicted: PredictedSessions, sound: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    shutil.copytree(predicted.root / "sound", store / "predictions")
    run = store / "factorized3d-debug-71d9075b"
    run.mkdir()
    (run / "ledger.json").write_bytes(ObjectLedger({}).write("run"))
    assert [session.alias for session in open_store(store)] == ["A", "F"]
    assert find_problems(store) == []


def test_a_store_under_the_list_of_predictions_keeps_its_sessions(
    predicted: PredictedSessions, sound: Path, tmp_path: Path
) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    shutil.copyfile(predicted.root / "sound" / "zarr.json", store / "zarr.json")
    (problem,) = find_problems(store)
    assert "the list of the store's sessions is something else's" in problem
    assert f"remove this file; then `sensorium ingest A --store {store}" in problem
    (store / "zarr.json").unlink()
    convert_session(A, str(store), source=archives, repairs=True)
    assert find_problems(store) == []


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_what_lies_in_the_place_of_the_screens_is_found_and_stops_nobody(
    kind: str, sound: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    shutil.rmtree(store / "movies", ignore_errors=True)
    if kind == "pipe":
        os.mkfifo(store / "movies")
    else:
        (store / "movies").write_text("mine")
    assert find_problems(store) == ["movies: not a folder; move what lies there"]
    before = (store / "movies.json").read_bytes()
    (store / "movies.json").unlink()
    link_movies(str(store))
    assert (store / "movies.json").read_bytes() == before


def test_a_folder_in_the_place_of_a_screen_is_found(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    screen = store / "movies" / f"{A.name}.screen"
    screen.unlink(missing_ok=True)
    assert find_problems(store) == []
    screen.mkdir()
    (problem,) = find_problems(store)
    assert problem.startswith(f"movies/{A.name}.screen: ")
    assert "found a folder, not a file" in problem
