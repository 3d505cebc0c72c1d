"""A store beside its archive: whatever differs is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sensorium_data.archive import SessionArchive
from sensorium_data.ingest import compare_with_archive, convert_session
from sensorium_data.ingest.verification import VerificationReport
from sensorium_data.store import Precision
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording

TIERS = ["train", "oracle", "none", "live_test_main"]


def convert(recording: Recording, folder: Path, precision: Precision = Precision.EXACT) -> str:
    recording.write(folder / "archives")
    convert_session(recording.session, str(folder / "store"), source=str(folder / "archives"), precision=precision)
    return str(folder / "store")


def compare(store: str, recording: Recording, folder: Path) -> VerificationReport:
    path = recording.write(folder / "other")
    with SessionArchive.open(str(path)) as archive:
        return compare_with_archive(store, recording.session.name, archive)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("alias", ["A", "F"])
def test_a_store_agrees_with_its_archive(alias: str, precision: Precision, tmp_path: Path) -> None:
    recording = make_recording(alias, TIERS, n_frames={0: 20, 1: 17, 3: 24})
    report = compare(convert(recording, tmp_path, precision), recording, tmp_path)
    assert report.passed, report.problems
    assert report.n_objects == 3


def changed(recording: Recording, name: str, by: float) -> Recording:
    values = getattr(recording.trials[1], name).copy()
    values[..., 3] += by
    return recording.with_trial(1, **{name: values})


@pytest.mark.parametrize("name", ["videos", "responses", "behavior", "pupil_center"])
def test_a_changed_value_is_found_where_it_is(name: str, tmp_path: Path) -> None:
    recording = make_recording("A", TIERS)
    store = convert(recording, tmp_path)
    report = compare(store, changed(recording, name, 2.0), tmp_path)
    n_values = {"videos": 36 * 64, "responses": 5}.get(name, 2)
    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"trial 1: {name} differs in {n_values} of ")
    assert report.problems[0].endswith("by up to 2")


def test_a_change_below_the_stored_precision_is_none(tmp_path: Path) -> None:
    recording = make_recording("A", TIERS)
    store = convert(recording, tmp_path, Precision.COMPACT)
    floor = recording.trials[1].responses.copy()
    floor[np.abs(floor) < 1e-8] *= 3
    assert compare(store, recording.with_trial(1, responses=floor), tmp_path).passed


def test_differing_labels_lengths_trials_and_statistics_are_told(tmp_path: Path) -> None:
    recording = make_recording("A", TIERS)
    store = convert(recording, tmp_path)
    statistics = {**recording.statistics}
    statistics["responses", "std"] = statistics["responses", "std"] + 1
    longer = make_recording("A", [*TIERS, "oracle"], n_frames={1: 19})
    other = replace(
        longer,
        statistics=statistics,
        tiers=["oracle", *longer.tiers[1:]],
        unit_ids=recording.unit_ids + 1,
        positions=recording.positions + 1,
        trials={**recording.trials, 1: longer.trials[1], 4: longer.trials[4]},
    )
    problems = "\n".join(compare(store, other, tmp_path).problems)
    for expected in (
        "trials differ from the archive's",
        "tiers differ from the archive's",
        "unit ids differ from the archive's",
        "cell positions differ from the archive's",
        "trial 1 has 20 valid frames, 19 in the archive",
        "trial 4 is not in the store",
        "statistics: std of responses differs in 120 of 120 values, by up to 1",
    ):
        assert expected in problems


def test_a_trial_that_became_withheld_is_told(tmp_path: Path) -> None:
    recording = make_recording("A", TIERS)
    store = convert(recording, tmp_path)
    other = recording.with_trial(1, responses=np.zeros_like(recording.trials[1].responses))
    assert any("disagree on whether responses are withheld" in p for p in compare(store, other, tmp_path).problems)


def test_a_damaged_member_is_a_difference(tmp_path: Path) -> None:
    recording = make_recording("A", TIERS)
    store = convert(recording, tmp_path)
    path = recording.write(tmp_path / "other")
    data = bytearray(path.read_bytes())
    data[data.index(b"data/responses/3.npy") + 300] ^= 1
    path.write_bytes(data)
    with SessionArchive.open(str(path)) as archive:
        report = compare_with_archive(store, "A", archive)
    assert [problem.partition(":")[0] for problem in report.problems] == ["trial 3 cannot be read from the archive"]
    assert "CRC" in report.problems[0]


def test_positions_that_are_not_known_are_no_difference(tmp_path: Path) -> None:
    recording = make_recording("A", TIERS)
    positions = recording.positions.copy()
    positions[2, 1] = np.nan
    recording = replace(recording, positions=positions)
    store = convert(recording, tmp_path)
    assert compare(store, recording, tmp_path).passed
    others = replace(recording, positions=np.nan_to_num(positions))
    assert compare(store, others, tmp_path).problems == ("cell positions differ from the archive's",)


def test_a_damaged_object_of_the_store_is_a_difference(tmp_path: Path) -> None:
    recording = make_recording("A", TIERS)
    store = convert(recording, tmp_path)
    path = Path(store, recording.session.name, "videos", "c", "1", "0", "0", "0")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (problem,) = compare(store, recording, tmp_path).problems
    assert problem.startswith("trial 1 cannot be read from the store: ")
    assert "videos/c/1/0/0/0: the store is damaged: found the CRC of its bytes differs in the array videos" in problem


def test_every_trial_is_told_of(tmp_path: Path) -> None:
    recording = make_recording("A", TIERS)
    store = convert(recording, tmp_path)
    calls: list[tuple[int, int]] = []
    with SessionArchive.open(str(recording.write(tmp_path / "other"))) as archive:
        compare_with_archive(store, "A", archive, progress=lambda label, n, of, **_: calls.append((n, of)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
