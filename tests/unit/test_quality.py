from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures.recordings import Recording, make_recording
from sensorium_data.convert import convert_session
from sensorium_data.quality import QualityReport, check_session
from sensorium_data.sessions import Tier, find_session

# One trial of every tier that shows natural movies, and repeats of an oracle movie.
TIERS = ["train"] * 3 + ["oracle"] * 8 + ["live_test_main"] * 7
MOVIES = {**dict.fromkeys(range(3, 11), 500), **dict.fromkeys(range(11, 18), 501)}


def make(alias: str = "F", **options: object) -> Recording:
    return make_recording(alias, TIERS, n_frames=300, n_padded=302, movies=MOVIES, n_neurons=4, **options)


def check(recording: Recording, folder: Path) -> QualityReport:
    recording.write(folder / "archives")
    convert_session(recording.session, str(folder / "store"), source=str(folder / "archives"))
    return check_session(str(folder / "store"), recording.session.alias)


def named(report: QualityReport) -> dict[str, tuple[bool, str, str]]:
    return {row.check: (row.passed, row.found, row.expected) for row in report.checks}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> QualityReport:
    return check(make(), tmp_path_factory.mktemp("sound"))


def test_what_is_as_known_of_the_real_data_passes(sound: QualityReport) -> None:
    rows = named(sound)
    for name in (
        "distinct unit ids", "stimuli in train", "stimuli in oracle", "frames of NaturalVideo", "unrecognized stimuli",
        "broken trials", "withheld responses", "repeats in train", "repeats in oracle", "repeats in live_test_main",
        "training movies in other tiers", "missing values in behavior", "missing values in pupil_center",
        "missing values in responses", "luminance", "silent neurons",
    ):  # fmt: skip
        assert rows[name][0], (name, rows[name])
    assert rows["repeats in oracle"][1] == "1 movies, each shown 8 times"
    assert rows["withheld responses"][1:] == ("7 trials", "7 trials")


def test_counts_are_compared_with_the_published_ones(sound: QualityReport) -> None:
    rows = named(sound)
    session = find_session("F")
    for tier in Tier:
        assert rows[f"trials in {tier}"] == (False, str(TIERS.count(tier)), str(session.n_trials_by_tier[tier]))
    assert rows["neurons"] == (False, "4", "7863")
    assert rows["padded frames"] == (False, "302", "324")
    assert not sound.passed


def test_report_is_a_table_and_json(sound: QualityReport) -> None:
    table = sound.to_table()
    assert list(table.columns) == ["check", "passed", "found", "expected", "sentence"]
    assert len(table) == len(sound.checks)
    assert table.sentence.str.endswith(".").all()
    parsed = json.loads(sound.to_json())
    assert parsed["session"] == find_session("F").name
    assert parsed["checks"][0]["check"] == "trials in train"


def test_defects_are_found_and_named(tmp_path: Path) -> None:
    recording = make()
    trials = recording.trials
    trials[0].behavior[1, 7] = np.nan
    trials[1].responses[2, 9] = np.nan
    trials[2].pupil_center[0, 299] = np.nan
    trials[4].responses[:] = 0.0
    trials[5].videos[3, 4, 5] = 256.0
    trials[6].videos[:] = np.nan
    trials[11].responses[:] = 1.0
    for trial in trials.values():
        trial.responses[3] = np.where(np.isnan(trial.responses[3]), np.nan, trial.responses[3, 0] * 0)
    rows = named(check(recording, tmp_path))
    assert rows["missing values in behavior"] == (False, "0", "none")
    assert rows["missing values in responses"] == (False, "1", "none")
    assert rows["missing values in pupil_center"] == (False, "2", "none")
    assert rows["withheld responses"] == (False, "7 trials; unexpectedly 4, 11", "7 trials")
    assert rows["luminance"][:2] == (False, rows["luminance"][1])
    assert rows["luminance"][1].endswith("to 256")
    assert rows["broken trials"] == (False, "6: the video has no valid frame", "none")
    assert rows["silent neurons"] == (False, str(recording.unit_ids[3]), "none")


def test_a_movie_in_training_and_test_is_a_leak(tmp_path: Path) -> None:
    recording = make_recording("F", ["train", "oracle"], n_frames=300, n_padded=302, movies={0: 1, 1: 1})
    rows = named(check(recording, tmp_path))
    assert rows["training movies in other tiers"] == (False, "29515-10-12:0", "none")


def test_old_sessions_withhold_nothing(tmp_path: Path) -> None:
    rows = named(check(make_recording("A", ["train", "live_test_main"], n_frames=300, n_padded=302), tmp_path))
    assert rows["withheld responses"] == (True, "0 trials", "0 trials")


def test_a_session_without_published_responses_has_only_silent_neurons(tmp_path: Path) -> None:
    rows = named(check(make_recording("F", ["live_test_main"], n_frames=300, n_padded=302), tmp_path))
    assert not rows["silent neurons"][0]
    assert rows["missing values in responses"][0]


def test_progress_counts_trials(tmp_path: Path) -> None:
    recording = make_recording("F", ["train", "train"])
    recording.write(tmp_path / "a")
    convert_session(recording.session, str(tmp_path / "s"), source=str(tmp_path / "a"))
    calls: list[tuple[str, int, int]] = []
    check_session(str(tmp_path / "s"), "F", progress=lambda *call: calls.append(call))
    assert calls == [("check F", 1, 2), ("check F", 2, 2)]
