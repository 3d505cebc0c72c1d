from __future__ import annotations

import copy
import dataclasses
import functools
import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sensorium_data.ingest import convert_session
from sensorium_data.progress import ignore_progress
from sensorium_data.quality import QualityReport, StoreQuality, check_session, check_store
from sensorium_data.quality.checks import check_recording
from sensorium_data.quality.quality import Outcome
from sensorium_data.quality.scan import scan_session
from sensorium_data.quality.summary import summarize_channels
from sensorium_data.sessions import Tier, find_session
from sensorium_data.store import open_session, open_statistics
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording

FAILED, NOTED, PASSED = Outcome.FAILED, Outcome.NOTED, Outcome.PASSED

# One trial of every tier that shows natural movies, and repeats of an oracle movie.
TIERS = ["train"] * 3 + ["oracle"] * 8 + ["live_test_main"] * 7
MOVIES = {**dict.fromkeys(range(3, 11), 500), **dict.fromkeys(range(11, 18), 501)}


@functools.cache
def make_once() -> Recording:
    return make_recording("F", TIERS, n_frames=300, n_padded=302, movies=MOVIES, n_neurons=4)


def make() -> Recording:
    """Return a recording of one's own."""
    return copy.deepcopy(make_once())


def check(recording: Recording, folder: Path, *, jobs: int = 4) -> QualityReport:
    if not (folder / "store").exists():
        recording.write(folder / "archives")
        convert_session(recording.session, str(folder / "store"), source=str(folder / "archives"))
    return check_session(str(folder / "store"), recording.session.alias, jobs=jobs)


def named(report: QualityReport) -> dict[str, tuple[Outcome, str, str]]:
    return {row.check: (row.outcome, row.found, row.expected) for row in report.checks}


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sound")


@pytest.fixture(scope="module")
def sound(sound_folder: Path) -> QualityReport:
    return check(make(), sound_folder)


def test_what_is_as_known_of_the_real_data_passes(sound: QualityReport) -> None:
    rows = named(sound)
    for name in (
        "distinct unit ids", "stimuli in train", "stimuli in oracle", "frames of NaturalVideo", "unrecognized stimuli",
        "broken trials", "withheld responses", "repeats in train", "repeats in oracle", "repeats in live_test_main",
        "training movies in other tiers", "missing values in videos", "missing values in behavior",
        "missing values in pupil_center", "missing values in responses", "values past the valid frames", "luminance",
        "constant videos", "negative responses", "dead neurons", "identical neurons", "outliers in responses",
        "trials of unusual activity", "outliers in running speed", "constant pupil", "neurons without a position",
    ):  # fmt: skip
        assert rows[name][0] is PASSED, (name, rows[name])
    assert rows["repeats in oracle"][1] == "1 movie, each shown 8 times"
    assert rows["withheld responses"][1:] == ("7 trials", "7 trials")


def test_counts_that_differ_from_the_published_ones_are_noted_and_do_not_fail(sound: QualityReport) -> None:
    rows = named(sound)
    session = find_session("F")
    for tier in Tier:
        assert rows[f"trials in {tier}"] == (NOTED, str(TIERS.count(tier)), str(session.n_trials_by_tier[tier]))
    assert rows["neurons"] == (NOTED, "4", "7,863")
    assert rows["padded frames"] == (NOTED, "302", "324")
    assert sound.passed
    assert sound.failed == ()


def test_table_has_a_row_a_check_and_the_failed_ones_first(sound: QualityReport, tmp_path: Path) -> None:
    table = sound.to_table()
    assert list(table.columns) == ["check", "outcome", "found", "expected", "sentence"]
    assert len(table) == len(sound.checks)
    assert table.sentence.str.endswith(".").all()
    recording = make_recording("F", ["train"] * 2, n_frames=300, n_padded=302)
    recording.trials[1].responses[2, 9] = np.nan
    outcomes = check(recording, tmp_path).to_table().outcome.tolist()
    assert outcomes == sorted(outcomes, key=list(Outcome).index)
    assert outcomes[0] == "failed"


def test_defects_are_found_and_named(tmp_path: Path) -> None:
    recording = make()
    trials = recording.trials
    trials[0].behavior[1, 7] = np.nan
    trials[1].responses[2, 9] = np.nan
    trials[2].pupil_center[0, 280] = np.nan
    trials[4].responses[:] = 0.0
    trials[5].videos[3, 4, 5] = 256.0
    trials[6].videos[:] = np.nan
    trials[11].responses[:] = 1.0
    for trial in trials.values():
        trial.responses[3] = np.where(np.isnan(trial.responses[3]), np.nan, trial.responses[3, 0] * 0)
    report = check(recording, tmp_path)
    rows = named(report)
    assert rows["missing values in behavior"] == (FAILED, "0", "none")
    assert rows["missing values in responses"] == (FAILED, "1", "none")
    assert rows["missing values in pupil_center"] == (FAILED, "2", "none")
    assert rows["withheld responses"] == (
        FAILED, "7 trials; not in the archive: 1 of oracle; unexpectedly published: 11", "7 trials",
    )  # fmt: skip
    assert rows["luminance"][0] is FAILED
    assert rows["luminance"][1].endswith("to 256")
    assert rows["broken trials"] == (FAILED, "6: the video has no valid frame", "none")
    assert rows["dead neurons"] == (FAILED, str(recording.unit_ids[3]), "none")
    assert not report.passed


Plant = Callable[[xr.Dataset], None]


@pytest.fixture(scope="module")
def loaded(sound: QualityReport, sound_folder: Path) -> xr.Dataset:
    """The sound session with few of its pixels: planted defects need no more."""
    few = {"height": slice(None, None, 4), "width": slice(None, None, 4)}
    return open_session(str(sound_folder / "store"), "F").isel(few).load()


def check_planted(
    sound: xr.Dataset, plant: Plant, statistics: xr.Dataset | None = None
) -> dict[str, tuple[Outcome, str, str]]:
    """Check a copy of the sound session with a defect planted in memory."""
    dataset = sound.copy(deep=True)
    plant(dataset)
    statistics = xr.Dataset() if statistics is None else statistics
    dataset = dataset.chunk(trial=1)
    scan = scan_session(dataset, "check F", jobs=2, progress=ignore_progress)
    checks = check_recording(dataset, find_session("F"), scan, summarize_channels(dataset), (), statistics)
    return {row.check: (row.outcome, row.found, row.expected) for row in checks}


def plant_trials_without_running(dataset: xr.Dataset) -> None:
    for trial in (2, 5):
        dataset.behavior[trial, 1] = np.where(np.isnan(dataset.behavior[trial, 1]), np.nan, 0.0)


def plant_noise_for_a_neuron(dataset: xr.Dataset) -> None:
    dataset.responses[:, 2] = np.where(np.isnan(dataset.responses[:, 2]), np.nan, np.linspace(-2e-7, 2e-7, 302))


def plant_twin_neuron(dataset: xr.Dataset) -> None:
    dataset.responses[:, 3] = dataset.responses[:, 1]


def plant_quiet_trial(dataset: xr.Dataset) -> None:
    dataset.responses[2] *= 0.02


def plant_frozen_video(dataset: xr.Dataset) -> None:
    dataset.videos[1, :300] = dataset.videos[1, 0]


def plant_blank_video(dataset: xr.Dataset) -> None:
    dataset.videos[1, :300] = np.linspace(0, 255, 300)[:, np.newaxis, np.newaxis]


def plant_training_movie_twice(dataset: xr.Dataset) -> None:
    dataset.movie_group[1] = dataset.movie_group[0]


def plant_shared_unit_id(dataset: xr.Dataset) -> None:
    ids = dataset.neuron.values.copy()
    ids[1] = ids[0]
    dataset.coords["neuron"] = ids


def plant_leak(dataset: xr.Dataset) -> None:
    dataset.movie_group[0] = dataset.movie_group[5]


def plant(variable: str, index: tuple[object, ...], value: float) -> Plant:
    def plant_value(dataset: xr.Dataset) -> None:
        dataset[variable][index] = value

    plant_value.__name__ = f"{variable}_{value}"
    return plant_value


@pytest.mark.parametrize(
    ("plant", "name", "outcome", "found"),
    [
        (plant("responses", (0, 1, 5), -0.5), "negative responses", FAILED, "lowest -0.5 in 1 neuron"),
        (plant_noise_for_a_neuron, "dead neurons", FAILED, "{2}"),
        (plant_twin_neuron, "identical neurons", NOTED, "{1}, {3}"),
        (plant("responses", (1, 0, 77), 600.0), "outliers in responses", NOTED, "{0}"),
        (plant_quiet_trial, "trials of unusual activity", NOTED, "2"),
        (plant_frozen_video, "constant videos", FAILED, "1"),
        (plant_blank_video, "constant videos", FAILED, "1"),
        (plant("videos", (3, 7, 1, 1), np.nan), "missing values in videos", FAILED, "3"),
        (plant("videos", (3, 7, 1, 1), -2.0), "luminance", FAILED, "-2 to 254.9"),
        (plant("behavior", (2, 0, slice(300)), 50.0), "constant pupil", NOTED, "pupil_dilation in 2"),
        (plant("pupil_center", (2, 1, slice(3)), 9e3), "outliers in pupil center y", NOTED, "3 values"),
        (plant("responses", (2, 1, 100), np.inf), "missing values in responses", FAILED, "2"),
        (plant("behavior", (2, 0, 301), 1.0), "values past the valid frames", FAILED, "2"),
        (plant("responses", (2, 0, 300), 1.0), "values past the valid frames", FAILED, "2"),
        (plant_shared_unit_id, "distinct unit ids", FAILED, "3"),
        (plant("x", (1,), np.nan), "neurons without a position", FAILED, "{1}"),
        (plant("n_frames", (1,), 299), "frames of NaturalVideo", FAILED, "299-300"),
        (
            plant("responses_withheld", (0,), True),
            "withheld responses",
            NOTED,
            "8 trials; not in the archive: 1 of train",
        ),
        (plant_trials_without_running, "trials without running", NOTED, "2, 5"),
        (plant_training_movie_twice, "repeats in train", FAILED, "2 movies, each shown 1-2 times"),
        (plant_leak, "training movies in other tiers", FAILED, "29515-10-12:3"),
    ],
)
def test_a_planted_defect_is_found_and_nothing_else(
    plant: Plant, name: str, outcome: Outcome, found: str, sound: QualityReport, loaded: xr.Dataset
) -> None:
    rows, usual = check_planted(loaded, plant), named(sound)
    assert usual[name][0] is PASSED
    assert rows[name][:2] == (outcome, found.format(*sound.neurons.neuron))
    # The responses are random, so the sign of their reliability is too.
    changed = {check for check in rows if rows[check][0] is not usual[check][0]} - {"oracle reliability"}
    # A frame that is not counted is a value past the end as well.
    assert changed == {name} | ({"values past the valid frames"} if name == "frames of NaturalVideo" else set())


@pytest.mark.parametrize(("statistic", "name", "value"), [("mean", "mean", np.nan), ("std", "standard deviation", 0.0)])
def test_statistics_of_a_responding_neuron_that_say_nothing_are_a_defect(
    statistic: str, name: str, value: float, sound: QualityReport, sound_folder: Path, loaded: xr.Dataset
) -> None:
    statistics = open_statistics(str(sound_folder / "store"), "F").load()
    check = f"{name} of responses that is NaN or zero"
    assert named(sound)[check] == (PASSED, "none", "none")
    statistics["responses"].loc[{"statistic": statistic}][2] = value
    rows = check_planted(loaded, lambda dataset: None, statistics)
    assert rows[check] == (FAILED, str(sound.neurons.neuron[2]), "none")
    # One frame that says something is enough: the others take the last known one's.
    statistics["responses"].loc[{"statistic": statistic}][2, 7] = 1.5
    assert check_planted(loaded, lambda dataset: None, statistics)[check][0] is PASSED


def test_a_trial_count_as_published_makes_too_few_repeats_a_defect(loaded: xr.Dataset) -> None:
    session = find_session("F")
    dataset = loaded.chunk(trial=1)
    counts = {tier: TIERS.count(tier) for tier in Tier}
    whole = dataclasses.replace(session, n_trials_by_tier=counts)
    dataset["movie_group"] = dataset.movie_group.copy()
    dataset.movie_group[3:9] = "another"
    scan = scan_session(dataset, "check F", jobs=2, progress=ignore_progress)
    for described, outcome in ((session, NOTED), (whole, FAILED)):
        rows = {row.check: row for row in check_recording(dataset, described, scan, (), (), xr.Dataset())}
        assert rows["repeats in oracle"].outcome is outcome
        assert rows["repeats in oracle"].found == "2 movies, each shown 2-6 times"


def test_a_session_of_which_nothing_is_published_has_only_notes(loaded: xr.Dataset) -> None:
    nothing = types.SimpleNamespace(
        alias="1-2-3", n_trials_by_tier={}, n_neurons=None, n_frames_padded=None,
        withholds_test_responses=False, stimuli_of=lambda tier: (),
    )  # fmt: skip
    dataset = loaded.copy(deep=True)
    dataset.stimulus[:] = "unknown"
    dataset.responses[1, 2, 9] = -8.0
    dataset = dataset.chunk(trial=1)
    scan = scan_session(dataset, "check", jobs=2, progress=ignore_progress)
    rows = {row.check: row for row in check_recording(dataset, nothing, scan, (), (), xr.Dataset())}
    assert FAILED not in {row.outcome for row in rows.values()}
    for name in ("trials in train", "neurons", "padded frames", "stimuli in train", "withheld responses"):
        assert (rows[name].outcome, rows[name].expected) == (NOTED, "not published"), name
    assert rows["negative responses"].outcome is NOTED
    assert "trials in final_test_bonus" not in rows


def test_lengths_of_the_modalities_are_compared_with_the_videos(tmp_path: Path) -> None:
    recording = make()
    recording.trials[0].responses[:, 290:] = np.nan
    recording.trials[1].pupil_center[:, 250:] = np.nan
    rows = {row.variable: row for row in check(recording, tmp_path).lengths}
    videos, responses, pupil = rows["videos"], rows["responses"], rows["pupil_center"]
    assert (videos.n_trials, videos.shortest, videos.longest, videos.n_equal) == (18, 300, 300, 18)
    # Seven trials of the test tier are withheld.
    assert (responses.n_trials, responses.shortest, responses.n_equal, responses.n_shorter) == (11, 290, 10, 1)
    assert (pupil.n_trials, pupil.shortest, pupil.n_equal, pupil.n_shorter) == (18, 250, 17, 1)


def test_numbers_equal_plain_numpy(sound: QualityReport) -> None:
    recording = make()
    published = [trial for trial in recording.trials.values() if trial.tier in ("train", "oracle")]
    responses = np.concatenate([trial.responses[:, :300] for trial in published], axis=1).astype(np.float32)
    neurons = sound.neurons
    assert neurons.neuron.tolist() == recording.unit_ids.tolist()
    np.testing.assert_allclose(neurons[["x", "y", "z"]], recording.positions)
    np.testing.assert_allclose(neurons["mean"], responses.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(neurons["std"], responses.std(axis=1), rtol=1e-5)
    np.testing.assert_allclose(neurons["lowest"], responses.min(axis=1))
    np.testing.assert_allclose(neurons["highest"], responses.max(axis=1))
    np.testing.assert_allclose(neurons["active_share"], (responses > 1e-6).mean(axis=1))
    assert sound.responses.active_share == pytest.approx((responses > 1e-6).mean())
    assert sound.responses.n_trials == 11
    running = np.concatenate([trial.behavior[1, :300] for trial in recording.trials.values()]).astype(np.float32)
    row = next(row for row in sound.channels if row.channel == "running_speed")
    assert row.lowest == pytest.approx(running.min())
    assert row.percentile_99 == pytest.approx(np.percentile(running, 99), rel=1e-5)
    assert sum(row.histogram_counts) == running.size - row.n_outliers
    video = np.stack([trial.videos[..., :300] for trial in recording.trials.values()]).astype(np.float32)
    (stimulus,) = sound.stimuli
    assert (stimulus.stimulus, stimulus.n_trials, stimulus.n_movies) == ("NaturalVideo", 18, 5)
    assert stimulus.luminance_mean == pytest.approx(video.mean(dtype=np.float64), rel=1e-5)


def test_reliability_is_the_correlation_with_the_mean_of_the_other_repeats(sound: QualityReport) -> None:
    recorded = make().trials
    trials = np.stack([recorded[trial].responses[:, 50:300] for trial in range(3, 11)]).astype(np.float32)
    for neuron in range(4):
        x = trials[:, neuron]
        others = np.stack([np.delete(x, repeat, axis=0).mean(axis=0) for repeat in range(8)])
        expected = np.corrcoef(x.ravel(), others.ravel())[0, 1]
        assert sound.neurons.reliability[neuron] == pytest.approx(expected, abs=1e-6)
    assert (sound.responses.n_oracle_movies, sound.responses.n_oracle_trials) == (1, 8)


def test_samples_show_the_frames_they_name(sound: QualityReport) -> None:
    (sample,) = sound.samples
    assert (sample.stimulus, sample.tier, sample.trial, len(sample.frames)) == ("NaturalVideo", "train", 0, 8)
    video = make().trials[0].videos.transpose(2, 0, 1)
    assert np.abs(sample.pixels - video[list(sample.frames)]).max() <= 0.51


def test_outcome_does_not_depend_on_the_number_of_threads(sound_folder: Path, sound: QualityReport) -> None:
    assert check(make(), sound_folder, jobs=1).to_json() == sound.to_json()


def test_json_holds_everything_in_plain_values(sound: QualityReport) -> None:
    parsed = json.loads(sound.to_json())
    assert parsed["session"] == find_session("F").name
    assert parsed["checks"][0] == {
        "check": "trials in train", "outcome": "noted", "found": "3", "expected": "348",
        "sentence": "Trials of this tier as published.",
    }  # fmt: skip
    assert parsed == sound.to_dict()
    assert parsed["tiers"][1]["repeats"] == [8]
    np.testing.assert_allclose(parsed["neurons"]["reliability"], sound.neurons.reliability, rtol=1e-6)
    assert parsed["responses"]["n_neurons"] == 4


def test_a_movie_in_training_and_test_is_a_leak(tmp_path: Path) -> None:
    recording = make_recording("F", ["train", "oracle"], n_frames=300, n_padded=302, movies={0: 1, 1: 1})
    rows = named(check(recording, tmp_path))
    assert rows["training movies in other tiers"] == (FAILED, "29515-10-12:0", "none")


@pytest.mark.parametrize("kind", ["zeros", "no files"])
def test_an_old_release_without_out_of_distribution_responses_is_noted(kind: str, tmp_path: Path) -> None:
    tiers = ["train", "live_test_main", "live_test_bonus", "final_test_bonus", "final_test_bonus"]
    recording = make_recording("A", tiers, n_frames=300, n_padded=302)
    for number, trial in recording.trials.items():
        if "bonus" in trial.tier:
            responses = np.zeros_like(trial.responses) if kind == "zeros" else None
            recording = recording.with_trial(number, responses=responses)
    rows = named(check(recording, tmp_path))
    found = "3 trials; not in the archive: 1 of live_test_bonus, 2 of final_test_bonus"
    assert rows["withheld responses"] == (NOTED, found, "0 trials")
    assert rows["missing values in responses"] == (PASSED, "none", "none")


def test_old_sessions_withhold_nothing(tmp_path: Path) -> None:
    rows = named(check(make_recording("A", ["train", "live_test_main"], n_frames=300, n_padded=302), tmp_path))
    assert rows["withheld responses"] == (PASSED, "0 trials", "0 trials")


def test_a_session_without_published_responses_has_only_dead_neurons(tmp_path: Path) -> None:
    report = check(make_recording("F", ["live_test_main"], n_frames=300, n_padded=302), tmp_path)
    rows = named(report)
    assert rows["dead neurons"][0] is FAILED
    assert rows["missing values in responses"][0] is PASSED
    assert rows["oracle reliability"][:2] == (NOTED, "no movie repeated in the oracle tier")
    assert json.loads(report.to_json())["responses"]["reliability_median"] is None


def test_progress_counts_trials(tmp_path: Path) -> None:
    recording = make_recording("F", ["train", "train"])
    recording.write(tmp_path / "a")
    convert_session(recording.session, str(tmp_path / "s"), source=str(tmp_path / "a"))
    calls: list[tuple[str, int, int]] = []
    check_session(str(tmp_path / "s"), "F", progress=lambda *call: calls.append(call))
    assert calls == [("check F", 1, 2), ("check F", 2, 2)]


@pytest.mark.usefixtures("sound")
def test_sessions_of_a_store_stand_side_by_side_failed_ones_first(sound_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(sound_folder / "store", tmp_path / "store")
    wrong = dataclasses.replace(make(), session=find_session("G"))
    wrong.trials[0].behavior[1, 7] = np.nan
    wrong.write(tmp_path / "archives")
    convert_session(wrong.session, str(tmp_path / "store"), source=str(tmp_path / "archives"))
    quality = check_store(str(tmp_path / "store"))
    table = quality.to_table()
    assert table.session.tolist() == ["G", "F"]
    assert table.failed.tolist() == [1, 0]
    assert table.trials.tolist() == [18, 18]
    assert table.published_trials.tolist() == [682, 711]
    assert not quality.passed
    assert quality.describe() == "1 check failed in 1 of 2 sessions"
    assert [row["alias"] for row in quality.to_dict()["sessions"]] == ["F", "G"]
    text = quality.to_markdown(verdict="All in all, bad")
    assert text.startswith("**All in all, bad**")
    assert quality.to_markdown().startswith("**1 check failed in 1 of 2 sessions**")
    assert "**G, missing values in behavior**: found 0; expected none" in text
    assert "| G | 1 |" in text


def test_leakage_is_carried_along(sound: QualityReport) -> None:
    leakage = pd.DataFrame({"movie_group": ["a"], "scored_session": ["F"], "n_scored_trials": np.array([9])})
    quality = StoreQuality("store", (sound,), leakage)
    assert json.loads(quality.to_json())["leakage"] == [
        {"movie_group": "a", "scored_session": "F", "n_scored_trials": 9}
    ]
    assert "trained on in another: 1" in quality.to_markdown()


# ---- the archive's own statistics


def with_statistics(change: Callable[[dict[tuple[str, str], np.ndarray]], None]) -> Recording:
    recording = make_recording("F", ["train", "train"], n_frames=300, n_padded=302, n_neurons=4)
    change(recording.statistics)
    return recording


def end_early(statistics: dict[tuple[str, str], np.ndarray]) -> None:
    for array in statistics.values():
        array[..., 290:] = np.nan


def lack_a_neuron(statistics: dict[tuple[str, str], np.ndarray]) -> None:
    statistics["responses", "std"][1] = np.nan
    statistics["responses", "std"][2, 5:8] = np.nan


def lack_behavior(statistics: dict[tuple[str, str], np.ndarray]) -> None:
    statistics["behavior", "std"][:] = np.nan


def stand_still(statistics: dict[tuple[str, str], np.ndarray]) -> None:
    statistics["pupil_center", "std"][:] = 0


def stop_a_channel(statistics: dict[tuple[str, str], np.ndarray]) -> None:
    statistics["behavior", "std"][1] = 0
    statistics["behavior", "std"][:, 7:9] = 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            end_early,
            dict.fromkeys(
                ("videos", "responses", "behavior", "pupil_center"),
                (NOTED, "the statistics end at frame 290 of 300; later frames take frame 289's"),
            ),
        ),
        (
            lack_a_neuron,
            {
                "responses": (
                    NOTED,
                    "there are no statistics of responses for 1 of 4 neurons; "
                    "the statistics of responses lack 3 single values; the last known frame's stand in",
                )
            },
        ),
        (lack_behavior, {"behavior": (FAILED, "there are no statistics of behavior")}),
        (stand_still, {"pupil_center": (FAILED, "every standard deviation is zero")}),
        (
            stop_a_channel,
            {
                "behavior": (
                    NOTED,
                    "the standard deviation is zero throughout in 1 of 2 rows; "
                    "all standard deviations are zero at 2 frames",
                )
            },
        ),
    ],
)
def test_statistics_that_are_missing_or_zero_are_reported(
    change: Callable[[dict[tuple[str, str], np.ndarray]], None],
    expected: dict[str, tuple[Outcome, str]],
    tmp_path: Path,
) -> None:
    rows = named(check(with_statistics(change), tmp_path))
    for variable in ("videos", "responses", "behavior", "pupil_center"):
        outcome, found = expected.get(variable, (PASSED, "300 frames"))
        assert rows[f"statistics of {variable}"] == (outcome, found, "300 frames")


def test_a_mouse_that_never_runs_is_noted(sound: QualityReport, tmp_path: Path) -> None:
    assert named(sound)["running"][0] is PASSED
    recording = make_recording("F", ["train"] * 2, n_frames=300, n_padded=302)
    for trial in recording.trials.values():
        trial.behavior[1] = 0
    assert named(check(recording, tmp_path))["running"][:2] == (NOTED, "a speed of 0 in every frame")
