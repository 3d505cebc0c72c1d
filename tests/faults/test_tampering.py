"""Stores and predictions that somebody changed: nobody reads them without being told."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.command_line import run_command
from fixtures.predicted_sessions import PredictedSessions
from fixtures.session_stores import write_group
from fixtures.stores import read_files
from fixtures.tiny_training import tiny_config
from flows.cli.verification import verify_path
from models.training import train
from sensorium_data.errors import PredictionsError, StoreError
from sensorium_data.files import LocalObjects, write_object
from sensorium_data.ingest import convert_session, verify_session
from sensorium_data.movies import link_movies
from sensorium_data.predictions import (
    create_predictions,
    find_predictions,
    open_predictions,
    verify_predictions,
)
from sensorium_data.progress import ignore_progress
from sensorium_data.scoring import compare_predictions, score_predictions
from sensorium_data.sessions import find_session
from sensorium_data.store import LEDGER_KEY, ObjectLedger, describe_store, open_session, open_store, verify_root
from sensorium_data.submission import write_submission
from sensorium_data.testing.recordings import make_recording

A, F = find_session("A"), find_session("F")
TIERS = ["train", "oracle", "oracle", "live_test_main"]
# Places of two trials that are scored, given the truth, and submitted.
OF_BONUS = (11, 12)


def find_problems(path: Path) -> list[str]:
    reports, failures = verify_path(str(path), (), source=None, jobs=1, progress=ignore_progress)
    return [problem for report in reports for problem in report.problems] + [str(failure) for failure in failures]


# Predictions


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    made = PredictedSessions(tmp_path_factory.mktemp("predicted"))
    made.write("sound")
    made.write("others", predictions={alias: values + 1 for alias, values in made.predictions.items()})
    return made


def flip_a_bit_of_a_trial(path: Path) -> None:
    chunk = path / F.name / "predictions" / "c" / str(OF_BONUS[0]) / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 1
    chunk.write_bytes(data)


def flip_a_bit_of_a_unit_id(path: Path) -> None:
    chunk = path / F.name / "neuron" / "c" / "0"
    data = bytearray(chunk.read_bytes())
    data[-6] ^= 1
    chunk.write_bytes(data)


def swap_two_trials(path: Path) -> None:
    first, second = (path / F.name / "predictions" / "c" / str(index) for index in OF_BONUS)
    first.rename(path / "other")
    second.rename(first)
    (path / "other").rename(second)


def take_a_trial_of_other_predictions(path: Path) -> None:
    chunk = Path(F.name, "predictions", "c", str(OF_BONUS[0]), "0", "0")
    shutil.copy(path.parent / "others" / chunk, path / chunk)


def edit_the_units(path: Path) -> None:
    root = path / "zarr.json"
    root.write_text(root.read_text().replace('"response_units": "raw"', '"response_units": "standardized"'))


def edit_the_units_and_the_ledger(path: Path) -> None:
    edit_the_units(path)
    ledger = path / "ledger.json"
    content = json.loads(ledger.read_text())
    content["objects"]["zarr.json"][0] = (path / "zarr.json").stat().st_size
    ledger.write_text(json.dumps(content))


def lose_the_ledger(path: Path) -> None:
    (path / "ledger.json").unlink()


def use_for(path: Path, predicted: PredictedSessions, out: Path) -> dict[str, Callable[[], object]]:
    """Everything that a user does with predictions."""
    others, truth = str(predicted.root / "others"), str(predicted.root / "truth")
    return {
        "score": lambda: score_predictions(str(path), predicted.store, truth=truth),
        "leaderboard": lambda: compare_predictions([others, str(path)], predicted.store, truth=truth),
        "submit": lambda: write_submission(str(path), predicted.store, track="bonus", out=str(out)),
        "average": lambda: write_submission([others, str(path)], predicted.store, track="bonus", out=str(out)),
    }


TAMPERINGS = (
    flip_a_bit_of_a_trial,
    flip_a_bit_of_a_unit_id,
    swap_two_trials,
    take_a_trial_of_other_predictions,
    edit_the_units,
    edit_the_units_and_the_ledger,
    lose_the_ledger,
)


@pytest.mark.parametrize(
    ("tamper", "use"),
    [
        *((tamper, "submit") for tamper in TAMPERINGS),
        *((swap_two_trials, use) for use in ("score", "average")),
        (edit_the_units, "leaderboard"),
    ],
)
def test_predictions_that_were_changed_are_refused_by_whoever_reads_them(
    tamper: Callable[[Path], None], use: str, predicted: PredictedSessions, tmp_path: Path
) -> None:
    shutil.copytree(predicted.root / "others", tmp_path / "others")
    path = shutil.copytree(predicted.root / "sound", tmp_path / "sound")
    tamper(path)
    with pytest.raises(PredictionsError, match=rf"{path}.*damaged.*remove the predictions, and make"):
        use_for(path, predicted, tmp_path / "out")[use]()
    assert not list((tmp_path / "out").glob("*.zip"))
    assert find_problems(path)


@pytest.mark.parametrize("lose", [True, False])
def test_predictions_that_are_not_whole_are_not_found_finished(
    lose: bool, predicted: PredictedSessions, tmp_path: Path
) -> None:
    path = tmp_path / "p"
    session = predicted.sessions["F"]
    with create_predictions(
        str(path), store=predicted.store, sessions=["F"], tiers=["oracle"], response_units="raw", identity="i"
    ) as writer:
        for facts in session.of_tier("oracle"):
            writer.write_trial("F", facts.trial, np.ones((len(session.neurons), facts.n_frames)), 0)
    assert find_predictions(str(path), "i")
    chunk = path / F.name / "neuron" / "c" / "0"
    if lose:
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(
        PredictionsError,
        match=r"found (no \S+neuron/c/0|\S+neuron/c/0 of \d+ bytes?), expected an object of \d+ bytes; .*remove",
    ):
        find_predictions(str(path), "i")


@pytest.mark.parametrize("content", ["a file of mine", "nothing"])
def test_predictions_are_not_written_where_something_else_lies(
    content: str, predicted: PredictedSessions, tmp_path: Path
) -> None:
    path = tmp_path / "mine"
    path.mkdir()
    (path / "notes").write_text(content)
    with pytest.raises(PredictionsError, match=r"something else lies where .*found no zarr\.json; choose another name"):
        find_predictions(str(path), "i")


def test_predictions_whose_session_is_a_link_out_are_refused(predicted: PredictedSessions, tmp_path: Path) -> None:
    path = shutil.copytree(predicted.root / "sound", tmp_path / "sound")
    (path / F.name).rename(tmp_path / "elsewhere")
    (path / F.name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="a link leads out of the folder"):
        open_predictions(str(path), "F")


def test_predictions_of_an_earlier_version_are_compared_with_the_digest_of_their_values(tmp_path: Path) -> None:
    path = shutil.copytree(Path(__file__).parents[1] / "compat" / "predictions-2", tmp_path / "p")
    report = verify_predictions(str(path))
    assert (report.passed, report.compared_with) == (True, "content digest")
    first, second = sorted(path.glob(f"{F.name}/predictions/c/*/0/0"))[:2]
    shutil.copy(first, second)
    assert not verify_predictions(str(path)).passed


@pytest.mark.parametrize("name", ["rates", "neuron"])
def test_a_truth_that_was_changed_is_refused(name: str, predicted: PredictedSessions, tmp_path: Path) -> None:
    truth = shutil.copytree(predicted.root / "truth", tmp_path / "truth")
    for chunk in sorted((truth / F.name / name / "c").rglob("0")):
        if chunk.is_file():
            data = bytearray(chunk.read_bytes())
            data[len(data) // 3] ^= 1
            chunk.write_bytes(data)
    with pytest.raises(StoreError, match=r"the truth of the simulation is damaged.*simulate again"):
        score_predictions(str(predicted.root / "sound"), predicted.store, truth=str(truth))


@pytest.mark.parametrize("how", ["flip", "swap", "cut", "replace"])
def test_an_interrupted_writer_takes_over_no_trial_that_was_changed(
    how: str, predicted: PredictedSessions, tmp_path: Path
) -> None:
    def begin(name: str = "p"):  # type: ignore[no-untyped-def]
        return create_predictions(
            str(tmp_path / name),
            store=predicted.store,
            sessions=["F"],
            tiers=["oracle"],
            response_units="raw",
            identity="i",
        )

    session = predicted.sessions["F"]
    n_frames = {facts.trial: facts.n_frames for facts in session.of_tier("oracle")}

    def predict(trial: int) -> np.ndarray:
        return np.full((len(session.neurons), n_frames[trial]), float(trial))

    with contextlib.suppress(InterruptedError), begin() as writer:
        for trial in writer.trials("F")[:3]:
            writer.write_trial("F", trial, predict(trial), 0)
        raise InterruptedError
    chunks = [tmp_path / "p.partial" / F.name / "predictions" / "c" / str(index) / "0" / "0" for index in range(3)]
    data = bytearray(chunks[0].read_bytes())
    match how:
        case "flip":
            data[20] ^= 4
            chunks[0].write_bytes(data)
        case "swap":
            chunks[0].write_bytes(chunks[1].read_bytes())
            chunks[1].write_bytes(data)
        case "cut":
            chunks[0].write_bytes(data[:-1])
        case "replace":
            chunks[0].write_bytes(chunks[1].read_bytes())
    with begin() as writer:
        missing = writer.missing_trials("F")
        assert len(missing) == len(n_frames) - (1 if how == "swap" else 2)
        for trial in missing:
            writer.write_trial("F", trial, predict(trial), 0)
    values = open_predictions(str(tmp_path / "p"), "F").predictions
    for trial, n in n_frames.items():
        assert (values.sel(trial=trial)[:, :n] == trial).all()


# Stores


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two sessions, of which F is in its second version."""
    root = tmp_path_factory.mktemp("stores")
    for alias in "AF":
        recording = make_recording(alias, TIERS, n_frames=20, n_padded=22, movies={1: 9, 2: 9}, n_neurons=4)
        recording.write(root / "archives")
        convert_session(recording.session, str(root / "store"), source=str(root / "archives"))
    changed = recording.with_trial(0, responses=recording.trials[0].responses + 1)
    changed.write(root / "archives")
    convert_session(changed.session, str(root / "store"), source=str(root / "archives"))
    link_movies(str(root / "store"))
    return root / "store"


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


def test_a_session_without_its_metadata_is_damaged_and_not_gone(sound: Path, tmp_path: Path) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    (store / A.name / "zarr.json").unlink()
    assert [session.alias for session in open_store(store)] == ["A", "F"]
    told = rf"session A .*{A.name}/zarr\.json: the store is damaged: found no such file; .*ingest A .*A?.*--repair"
    for use in (
        lambda: open_session(str(store), "A"),
        lambda: train(tiny_config(), str(store), None, tmp_path / "runs"),
        lambda: convert_session(A, str(store), source=archives),
        lambda: link_movies(str(store)),
    ):
        with pytest.raises(StoreError, match=told):
            use()
    assert any(f"{A.name}/zarr.json: the store is damaged" in problem for problem in find_problems(store))
    convert_session(A, str(store), source=archives, repairs=True)
    assert open_store(store).group("A") == f"{A.name}.v2"
    assert open_session(str(store), "A").responses.dtype == open_session(str(sound), "A").responses.dtype
    link_movies(str(store))
    assert find_problems(store) == []


def test_a_damaged_session_keeps_no_other_from_being_repaired_and_stays_listed(sound: Path, tmp_path: Path) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    (store / f"{F.name}.v2" / "zarr.json").write_text("{}")
    (store / "zarr.json").write_bytes(
        (store / "zarr.json").read_bytes().replace(b'"units": "0-255"', b'"units": "x"', 1)
    )
    convert_session(A, str(store), source=archives, repairs=True)
    assert json.loads((store / "zarr.json").read_text())["attributes"]["sessions"] == [A.name, F.name]
    assert any(f"{F.name}.v2" in problem for problem in find_problems(store))
    convert_session(F, str(store), source=archives, repairs=True)
    assert find_problems(store) == []


def test_a_session_that_was_taken_away_is_found_missing(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    shutil.rmtree(store / A.name)
    report = verify_root(open_store(store))
    assert f"{A.name}: the root lists it, but it is not there" in report.problems
    assert report.remedy.startswith(f"`sensorium ingest A --store {store} --source {sound.parent / 'archives'}")
    archives = str(sound.parent / "archives")
    # What is done with the others does not make it forgotten.
    convert_session(F, str(store), source=archives, repairs=True)
    assert f"{A.name}: the root lists it, but it is not there" in verify_root(open_store(store)).problems
    for use in (lambda: train(tiny_config(), str(store), None, tmp_path / "runs"), lambda: describe_store(str(store))):
        with pytest.raises(StoreError, match=r"session A .*a session that the store lists is not there: found F; put"):
            use()
    assert open_session(str(store), "F").sizes["trial"] == len(TIERS)
    convert_session(A, str(store), source=archives)
    link_movies(str(store))
    assert find_problems(store) == []


@pytest.mark.parametrize("lost", [("zarr.json", "ledger.json"), ("videos/zarr.json",), ("videos",)])
def test_a_session_that_lost_metadata_is_repaired(lost: tuple[str, ...], sound: Path, tmp_path: Path) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    for name in lost:
        path = store / A.name / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert find_problems(store)
    convert_session(A, str(store), source=archives, repairs=True)
    link_movies(str(store))
    assert find_problems(store) == []


@pytest.mark.parametrize(("name", "value"), [("precision", "exacu"), ("precision", 3), ("frame_size", "x")])
def test_a_session_with_changed_attributes_is_repaired(name: str, value: object, sound: Path, tmp_path: Path) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    path = store / A.name / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"] |= {name: value, "session": F.name}
    path.write_text(json.dumps(metadata))
    convert_session(A, str(store), source=archives, repairs=True)
    link_movies(str(store))
    assert find_problems(store) == []


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


# Verification that is interrupted


def test_an_interrupted_verification_goes_on_and_reads_again_what_was_written_since(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = str(shutil.copytree(sound, tmp_path / "store"))

    def stop(label: str, n_done: int, n_total: int, **more: object) -> None:
        if n_done > n_total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_session(store, "A", jobs=1, progress=stop, resumes=True)
    damaged = next(path for path in sorted(Path(store, A.name).rglob("c/0")) if path.is_file())
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    report = verify_session(store, "A", jobs=1, resumes=True)
    assert 0 < report.n_resumed < report.n_objects
    assert [problem.partition(":")[0] for problem in report.problems] == [
        damaged.relative_to(Path(store, A.name)).as_posix()
    ]
    # It is complete: the next one reads everything.
    assert verify_session(store, "A", jobs=1, resumes=True).n_resumed == 0


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


def test_a_current_version_that_is_lost_is_told_as_such(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    shutil.rmtree(store / f"{F.name}.v2")
    told = rf"store/{F.name}\.v2: the session's current version is not there: .*; put its folder back, or "
    with pytest.raises(StoreError, match=told):
        open_session(str(store), "F")
    with pytest.raises(StoreError, match=told):
        link_movies(str(store))


@pytest.fixture(scope="module")
def kept(predicted: PredictedSessions, sound: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind that is verified."""
    root = tmp_path_factory.mktemp("kept")
    write_submission(str(predicted.root / "sound"), predicted.store, track="bonus", out=str(root / "submission"))
    run = LocalObjects(root / "run")
    files = {name: write_object(run, name, b"{}") for name in ("model.json", "data.json", "model.safetensors")}
    run.write(LEDGER_KEY, ObjectLedger(files).write("run"))
    return {"store": sound, "predictions": predicted.root / "sound", "run": run.root, "submission": root / "submission"}


@contextlib.contextmanager
def put_in_the_place_of(path: Path, kind: str, elsewhere: Path) -> Iterator[None]:
    if kind == "an unreadable file":
        open_file = os.open

        def refuse(name: str | os.PathLike[str], *arguments: Any, **options: Any) -> int:
            if os.fspath(name) == str(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return open_file(name, *arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", refuse)
            yield
        return
    path.rename(elsewhere)
    match kind:
        case "a link that leads to itself":
            path.symlink_to(path.name)
        case "a link that leads to nothing":
            path.symlink_to("nothing")
        case "a link leads out":
            path.symlink_to(elsewhere)
        case "a folder":
            path.mkdir()
        case "a named pipe":
            os.mkfifo(path)
    yield
    (path.rmdir if kind == "a folder" else path.unlink)()
    elsewhere.rename(path)


KINDS = {
    "a link that leads to itself": "found a link that leads to itself, not a file",
    "a link that leads to nothing": "found a link that leads to nothing, not a file",
    "a link leads out": "a link leads out of the folder",
    "a folder": "found a folder, not a file",
    "a named pipe": "found a named pipe, not a file",
    "an unreadable file": "found Permission denied",
}


PLACES = (
    *(("store", name) for name in ("versions.json", "zarr.json", "movies.json", f"{A.name}/ledger.json")),
    *(("predictions", name) for name in ("zarr.json", "ledger.json", f"{F.name}/trial/c/0")),
    *(("run", name) for name in ("ledger.json", "model.json", "data.json")),
    *(("submission", f"submission_bonus{name}") for name in (".json", ".sha256", ".md", "_live.zip")),
)
ONE_KIND, *OTHER_KINDS = KINDS


@pytest.mark.parametrize(
    ("what", "name", "kinds"),
    [
        *((*place, [ONE_KIND]) for place in PLACES),
        (*PLACES[0], OTHER_KINDS),
        *(pytest.param(*place, OTHER_KINDS, marks=pytest.mark.slow) for place in PLACES[1:]),
    ],
)
def test_what_is_no_file_in_the_place_of_one_is_damage(
    what: str,
    name: str,
    kinds: list[str],
    kept: dict[str, Path],
    predicted: PredictedSessions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = shutil.copytree(kept[what], tmp_path / what)
    store, submit = ("--store", predicted.store), ("submit", kept["predictions"], "--track", "bonus")
    # A run is read with torch alone; the tests of models do it.
    readers: dict[str, tuple[object, ...]] = {
        "store": ("inspect", place),
        "predictions": ("submit", place, *store, "--track", "bonus", "--out", tmp_path / "out"),
        "submission": (*submit, *store, "--out", place),
    }
    for kind in kinds:
        words = KINDS[kind]
        with put_in_the_place_of(place / name, kind, tmp_path / "elsewhere"):
            verified = run_command(capsys, "verify", place)
            assert (verified.status, verified.err.count(words)) == (1, 1), verified.err
            (line,) = (line for line in verified.err.splitlines() if words in line)
            assert name in line
            if what in readers and kind != "an unreadable file":
                run_command(capsys, *readers[what]).assert_refused(name)
    assert read_files(place) == read_files(kept[what])


def test_foreign_files_are_to_be_moved_and_nothing_is_to_be_removed(
    predicted: PredictedSessions, tmp_path: Path
) -> None:
    place = shutil.copytree(predicted.root / "sound", tmp_path / "sound")
    (place / "notes.txt").write_text("mine")
    ((report,), failures) = verify_path(str(place), (), source=None, jobs=1, progress=ignore_progress)
    assert (report.problems, failures) == (("notes.txt: not in the ledger",), [])
    assert report.remedy == "move what is not in the ledger to another place"


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


def test_predictions_without_their_metadata_are_no_store(
    predicted: PredictedSessions, sound: Path, tmp_path: Path
) -> None:
    place, archives = shutil.copytree(predicted.root / "sound", tmp_path / "sound"), str(sound.parent / "archives")
    (place / "zarr.json").unlink()
    before = read_files(place)
    for use in (lambda: open_store(str(place)), lambda: convert_session(A, str(place), source=archives, repairs=True)):
        with pytest.raises(StoreError, match=r"this is no store of sessions: found a run or predictions"):
            use()
    assert read_files(place) == before
    assert any("no zarr.json" in problem for problem in find_problems(place))


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
