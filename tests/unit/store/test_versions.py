"""Archives that change after they were converted, stores that are repaired: later versions of a session."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fixtures.stores import read_files
from fixtures.tables import each_once
from sensorium_data.archive import MODALITIES, SessionArchive
from sensorium_data.errors import StoreError
from sensorium_data.files import open_objects
from sensorium_data.ingest import ConversionReport, convert_session, verify_session
from sensorium_data.store import current_group, next_group, open_session, open_statistics, open_store, stored_sessions
from sensorium_data.store.open import open_sessions
from sensorium_data.store.verification import verify_root
from sensorium_data.store.versions import session_name_of
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording, make_trial

TIERS = ["train", "oracle", "oracle", "train", "live_test_main"]


def convert(recording: Recording, folder: Path, store: str = "store", **options: object) -> ConversionReport:
    archives = folder / f"archives of {store}"
    recording.write(archives)
    return convert_session(recording.session, str(folder / store), source=str(archives), **options)


def changed(recording: Recording, trial: int) -> Recording:
    """The same recording, but for the responses of one trial."""
    return recording.with_trial(trial, responses=recording.trials[trial].responses + 1)


def group_files(store: Path, group: str) -> dict[str, bytes]:
    """The files of a group but for what names the archive's place."""
    return {key: data for key, data in read_files(store / group).items() if key not in ("zarr.json", "ledger.json")}


def read_trials(store: Path) -> xr.Dataset:
    return open_session(str(store), "F").load()


def test_a_changed_archive_is_converted_into_a_version_of_its_own(tmp_path: Path) -> None:
    first = make_recording("F", TIERS, movies={1: 9, 2: 9})
    convert(first, tmp_path)
    name = first.session.name
    before = read_files(tmp_path / "store" / name)
    reader = open_session(str(tmp_path / "store"), "F")
    second = changed(first, 3)
    report = convert(second, tmp_path)
    assert (report.status, report.path) == ("updated", str(tmp_path / "store" / f"{name}.v2"))
    # Whoever has the first version open reads on in it.
    assert read_files(tmp_path / "store" / name) == before
    np.testing.assert_array_equal(
        reader.responses.sel(trial=3)[:, :20].values, first.trials[3].responses[:, :20].astype(np.float32)
    )
    np.testing.assert_array_equal(
        read_trials(tmp_path / "store").responses.sel(trial=3)[:, :20],
        second.trials[3].responses[:, :20].astype(np.float32),
    )
    assert [s.name for s in stored_sessions(str(tmp_path / "store"))] == [name]
    assert list(open_sessions(str(tmp_path / "store")).children) == [name]
    assert list(xr.open_datatree(tmp_path / "store", engine="zarr").children) == [f"{name}.v2"]
    assert verify_session(str(tmp_path / "store"), "F").passed


def test_only_what_changed_is_read_and_the_result_is_that_of_a_fresh_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_recording("F", TIERS, movies={1: 9, 2: 9})
    convert(first, tmp_path)
    second = changed(first, 3)
    read: list[str] = []
    read_member = SessionArchive.read_member

    def note(self: SessionArchive, member: str) -> bytes:
        read.append(member)
        return read_member(self, member)

    monkeypatch.setattr(SessionArchive, "read_member", note)
    report = convert(second, tmp_path)
    assert (report.n_trials_copied, report.n_trials_resumed) == (4, 0)
    assert sorted(member for member in read if "/data/" in member) == [
        f"{first.session.name}/data/{modality}/3.npy" for modality in sorted(MODALITIES)
    ]
    # The statistics over trials were not made anew in this archive.
    assert not any("/statistics/" in member for member in read)
    monkeypatch.undo()
    convert(second, tmp_path, "fresh")
    name = first.session.name
    assert group_files(tmp_path / "store", f"{name}.v2") == group_files(tmp_path / "fresh", name)


def test_trials_that_appear_and_go_move_the_others(tmp_path: Path) -> None:
    first = make_recording("F", TIERS)
    convert(first, tmp_path)
    trials = {number: trial for number, trial in first.trials.items() if number != 0}
    trials[5] = make_trial("train", first.trials[0].videos[..., :20], n_neurons=5, n_padded=24, seed=77)
    second = replace(first, trials=trials, tiers=["none", *TIERS[1:], "train"])
    report = convert(second, tmp_path)
    assert report.n_trials_copied == 4
    convert(second, tmp_path, "fresh")
    name = first.session.name
    assert group_files(tmp_path / "store", f"{name}.v2") == group_files(tmp_path / "fresh", name)


def test_changed_statistics_are_converted_again(tmp_path: Path) -> None:
    first = make_recording("F", TIERS)
    convert(first, tmp_path)
    second = replace(first, statistics={key: values * 2 for key, values in first.statistics.items()})
    report = convert(second, tmp_path)
    assert report.n_trials_copied == 5
    std = open_statistics(str(tmp_path / "store"), "F").responses.sel(statistic="std").values
    np.testing.assert_array_equal(std, (first.statistics["responses", "std"] * 2).astype(np.float32))


def test_an_archive_that_changes_back_and_forth_gets_a_version_each_time(tmp_path: Path) -> None:
    first = make_recording("F", TIERS)
    second = changed(first, 0)
    groups = [convert(recording, tmp_path).path.rpartition("/")[2] for recording in (first, second, second, first)]
    name = first.session.name
    assert groups == [name, f"{name}.v2", f"{name}.v2", f"{name}.v3"]
    assert group_files(tmp_path / "store", name) == group_files(tmp_path / "store", f"{name}.v3")


def test_a_run_killed_before_the_pointer_moved_is_finished_by_the_next(tmp_path: Path) -> None:
    first = make_recording("F", TIERS)
    convert(first, tmp_path)
    before = {key: (tmp_path / "store" / key).read_bytes() for key in ("zarr.json",)}
    second = changed(first, 3)
    convert(second, tmp_path)
    after = read_files(tmp_path / "store")
    (tmp_path / "store" / "versions.json").unlink()
    (tmp_path / "store" / "zarr.json").write_bytes(before["zarr.json"])
    assert convert(second, tmp_path).status == "already done"
    assert read_files(tmp_path / "store") == after


def test_a_version_nobody_was_pointed_to_gives_way_to_the_next_change(tmp_path: Path) -> None:
    first = make_recording("F", TIERS)
    convert(first, tmp_path)
    root = (tmp_path / "store" / "zarr.json").read_bytes()
    convert(changed(first, 3), tmp_path)
    (tmp_path / "store" / "versions.json").unlink()
    (tmp_path / "store" / "zarr.json").write_bytes(root)
    third = changed(first, 1)
    assert convert(third, tmp_path).path.endswith(".v2")
    convert(third, tmp_path, "fresh")
    name = first.session.name
    assert group_files(tmp_path / "store", f"{name}.v2") == group_files(tmp_path / "fresh", name)


def test_an_interrupted_run_keeps_what_a_change_of_the_archive_left_alone(tmp_path: Path) -> None:
    first = make_recording("F", TIERS)

    def stop(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n_done >= 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        convert(first, tmp_path, jobs=1, progress=stop)
    second = changed(first, 0)
    report = convert(second, tmp_path, jobs=1)
    assert report.status == "converted"
    # Those that were under way when it was interrupted are finished.
    assert 2 <= report.n_trials_resumed < len(TIERS)
    convert(second, tmp_path, "fresh")
    name = first.session.name
    assert group_files(tmp_path / "store", name) == group_files(tmp_path / "fresh", name)


# Repairs


@pytest.mark.parametrize(
    ("damage", "key"),
    each_once(
        ["missing", "cut", "flipped"],
        ["responses/c/1/0/0", "behavior/c/0/0/0", "statistics/videos/c/2/0/0/0", "ledger.json"],
    ),
)
def test_a_damaged_store_is_repaired_in_a_new_version(damage: str, key: str, tmp_path: Path) -> None:
    recording = make_recording("F", TIERS)
    path = Path(convert(recording, tmp_path).path)
    sound = group_files(tmp_path / "store", path.name)
    file = path / key
    data = bytearray(file.read_bytes())
    match damage:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(data[: len(data) // 2])
        case "flipped":
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
    report = convert(recording, tmp_path, repairs=True)
    assert report.status == "updated"
    assert group_files(tmp_path / "store", f"{path.name}.v2") == sound
    if key != "ledger.json":  # A flipped bit may leave it readable, and then say that of some object.
        expected = {"responses/c/1/0/0": 4, "behavior/c/0/0/0": 0, "statistics/videos/c/2/0/0/0": 5}
        assert report.n_trials_copied == expected[key]
    assert verify_session(str(tmp_path / "store"), "F").passed
    assert convert(recording, tmp_path, repairs=True).status == "already done"


def test_damage_is_told_with_what_repairs_it(tmp_path: Path) -> None:
    recording = make_recording("F", TIERS)
    path = Path(convert(recording, tmp_path).path)
    (path / "responses" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(StoreError, match=r"found no responses/c/1/0/0.*`sensorium ingest F --store .* --repair`"):
        convert(recording, tmp_path)


def test_unreadable_versions_are_told(tmp_path: Path) -> None:
    convert(make_recording("F", TIERS), tmp_path)
    for content in ("{", "[1]", '{"a": 1}', "3"):
        (tmp_path / "store" / "versions.json").write_text(content)
        with pytest.raises(StoreError, match=r"versions\.json.*unreadable versions"):
            open_session(str(tmp_path / "store"), "F")


def test_a_pointer_is_followed_over_other_file_systems_too(tmp_path: Path) -> None:
    first = make_recording("F", TIERS)
    remote = f"memory://{tmp_path}/store"
    for recording in (first, changed(first, 2)):
        recording.write(tmp_path / "a")
        convert_session(recording.session, remote, source=str(tmp_path / "a"))
    assert current_group(open_objects(remote), first.session) == f"{first.session.name}.v2"
    shown = open_session(remote, "F").responses.sel(trial=2)[:, :20].values
    np.testing.assert_array_equal(shown, (first.trials[2].responses[:, :20] + 1).astype(np.float32))


def test_a_session_whose_first_version_was_deleted_is_still_there(tmp_path: Path) -> None:
    first = make_recording("F", TIERS, movies={1: 9, 2: 9})
    convert(first, tmp_path)
    convert(changed(first, 3), tmp_path)
    before = read_trials(tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / first.session.name)
    assert [s.name for s in stored_sessions(str(tmp_path / "store"))] == [first.session.name]
    assert read_trials(tmp_path / "store").identical(before)
    opened = open_store(str(tmp_path / "store"))
    assert verify_session(opened, "F").passed
    assert verify_root(opened).problems == ()
    assert convert(changed(first, 3), tmp_path).status == "already done"


def test_names_of_versions_count_up() -> None:
    names = ["dynamic1-2-3-Video-x"]
    for _ in range(10):
        names.append(next_group(names[-1]))
    assert names[1:3] == ["dynamic1-2-3-Video-x.v2", "dynamic1-2-3-Video-x.v3"]
    assert names[10] == "dynamic1-2-3-Video-x.v11"
    assert {session_name_of(name) for name in names} == {names[0]}


def test_the_ledger_says_what_each_trial_was_made_from(tmp_path: Path) -> None:
    recording = make_recording("F", TIERS)
    path = Path(convert(recording, tmp_path).path)
    facts = json.loads((path / "ledger.json").read_text())["trials"]
    with SessionArchive.open(str(tmp_path / "archives of store" / f"{recording.session.name}.zip")) as archive:
        for trial in recording.trials:
            entry = archive.entries[f"{recording.session.name}/data/responses/{trial}.npy"]
            assert facts[str(trial)]["members"]["responses"] == [entry.crc32, entry.size_bytes]
