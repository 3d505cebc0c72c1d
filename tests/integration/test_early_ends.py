"""Modalities that end before the video: from the archive to predictions and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.tables import each_once
from fixtures.tiny_training import tiny_config
from models.prediction import predict
from models.training import train
from sensorium_data.errors import StoreError
from sensorium_data.frames import frames_of
from sensorium_data.ingest import ConversionReport, convert_session, verify_session
from sensorium_data.predictions import StandardizedPredictions, from_arrays, open_predictions
from sensorium_data.quality import check_session
from sensorium_data.quality.quality import Outcome
from sensorium_data.recorded_frames import MOST_MISSING_FRAMES
from sensorium_data.scoring import score_predictions
from sensorium_data.sessions import Tier, find_session
from sensorium_data.statistics import compute_train_statistics
from sensorium_data.store import open_session, open_store
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording
from sensorium_data.windows import TrialReader, WindowLoader, window_batches

N_FRAMES = 70
TIERS = ["train"] * 4 + ["oracle"] * 4 + ["live_test_main", "final_test_main"]
MOVIES = {4: 1, 5: 1, 6: 2, 7: 2}
#: By trial: how many of the last frames each modality lacks.
MISSING = {
    0: {"behavior": 1},
    1: {"responses": 2},
    2: {"behavior": 1, "pupil_center": 3},
    4: {"responses": 1},
    6: {"responses": MOST_MISSING_FRAMES, "behavior": 2},
    8: {"behavior": 1, "pupil_center": 1},
}


def make() -> Recording:
    recording = make_recording("A", TIERS, n_frames=N_FRAMES, n_padded=74, movies=MOVIES, n_neurons=5)
    for number, missing in MISSING.items():
        for modality, n in missing.items():
            getattr(recording.trials[number], modality)[:, N_FRAMES - n :] = np.nan
    return recording


def convert(recording: Recording, folder: Path) -> ConversionReport:
    recording.write(folder / "archives")
    return convert_session(recording.session, str(folder / "store"), source=str(folder / "archives"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Recording, ConversionReport]:
    folder = tmp_path_factory.mktemp("early")
    recording = make()
    return str(folder / "store"), recording, convert(recording, folder)


World = tuple[str, Recording, ConversionReport]


def test_what_is_missing_is_nan_and_noted(world: World) -> None:
    store, recording, report = world
    assert "in 3 trials responses end 1-10 frames before the video" in report.notes
    assert "in 4 trials behavior ends 1-2 frames before the video" in report.notes
    assert "in 2 trials pupil_center ends 1-3 frames before the video" in report.notes
    session = open_session(store, "A").load()
    assert (session.n_frames == N_FRAMES).all()
    for number, trial in recording.trials.items():
        for modality in ("responses", "behavior", "pupil_center"):
            n = N_FRAMES - MISSING.get(number, {}).get(modality, 0)
            stored = session[modality].sel(trial=number).values
            np.testing.assert_array_equal(stored[:, :n], getattr(trial, modality)[:, :n].astype(np.float32))
            assert np.isnan(stored[:, n:]).all()
    assert verify_session(store, "A").passed


def test_the_quality_report_notes_them_and_nothing_fails(world: World) -> None:
    rows = {row.check: row for row in check_session(world[0], "A").checks}
    row = rows["modalities that end before the video"]
    assert row.outcome is Outcome.NOTED
    assert row.found == (
        "responses in 1, 4, 6, by up to 10 frames; behavior in 0, 2, 6, 8, by up to 2 frames; "
        "pupil_center in 2, 8, by up to 3 frames"
    )
    assert all(rows[f"missing values in {name}"].outcome is Outcome.PASSED for name in ("responses", "behavior"))
    assert rows["oracle reliability"].found.endswith("over 5 neurons")


def test_training_windows_stay_within_the_shortest_modality(world: World) -> None:
    reader = TrialReader(world[0], ["A"])
    trials = reader.select_trials("A", [Tier.TRAIN, Tier.ORACLE], labelled=True)
    expected = {n: N_FRAMES - max(MISSING.get(n, {}).values(), default=0) for n in range(8)}
    assert dict(zip(trials.trials, trials.n_frames, strict=True)) == expected
    for position in ("random", "tiling"):
        for batch in window_batches(
            world[0], tier=["train", "oracle"], n_frames=60, position=position, normalization="none"
        ):
            for trial, first in zip(batch.trials, batch.first_frames, strict=True):
                assert first + 60 <= expected[trial]
            for values in (batch.videos, batch.responses, batch.behavior, batch.pupil_center):
                assert np.isfinite(values).all()


def test_whole_trials_reach_to_the_videos_end_with_the_last_behavior(world: World) -> None:
    store, recording, _ = world
    reader = TrialReader(store, ["A"], reads_responses=False)
    for batch in WindowLoader(reader).iter_trials("A", tuple(Tier)):
        (number,) = batch.trials
        assert batch.n_frames == N_FRAMES
        for modality in ("behavior", "pupil_center"):
            expected = getattr(recording.trials[number], modality)[:, :N_FRAMES].astype(np.float32)
            n = N_FRAMES - MISSING.get(number, {}).get(modality, 0)
            expected[:, n:] = expected[:, n - 1 : n]
            np.testing.assert_array_equal(getattr(batch, modality)[0], expected)


def test_statistics_over_trials_count_what_was_recorded(world: World) -> None:
    store, recording, _ = world
    found = compute_train_statistics(store, "A").responses.sel(statistic="std").values
    stacked = np.stack([recording.trials[n].responses.astype(np.float32) for n in range(4)])[..., :N_FRAMES]
    np.testing.assert_allclose(found[:, :N_FRAMES], np.nanstd(stacked.astype(np.float64), axis=0), rtol=1e-5, atol=1e-9)


def test_scores_leave_out_the_missing_frames(world: World, tmp_path: Path) -> None:
    store, recording, _ = world
    rng = np.random.default_rng(0)
    predicted = {n: rng.gamma(1, 4, (5, N_FRAMES)).astype(np.float32) for n in range(4, 8)}
    from_arrays(str(tmp_path / "p"), store, {"A": predicted}, response_units="raw")
    table = score_predictions(str(tmp_path / "p"), store)
    (note,) = table.notes
    assert note.endswith(
        "oracle: responses of 2 of 4 trials end before the video, by up to 10 frames, which are not scored"
    )
    std = recording.statistics["responses", "std"]
    precision = 1 / np.where(std > 0.01 * std.mean(), std, 0.01 * std.mean())
    signals: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number in range(4, 8):
        frames = slice(50, N_FRAMES - MISSING.get(number, {}).get("responses", 0))
        for signal, values in zip(signals, (recording.trials[number].responses, predicted[number]), strict=True):
            signal.append(values[:, frames] * precision[:, frames])
    a, b = (np.concatenate(signal, axis=1) for signal in signals)
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    scores = table.per_neuron("A", "oracle")
    np.testing.assert_allclose(scores["single_trial_correlation"], expected, atol=1e-5)
    averages = []
    for signal in signals:
        pairs = ((signal[0], signal[1]), (signal[2], signal[3]))
        lengths = [min(one.shape[1], other.shape[1]) for one, other in pairs]
        averages.append(
            np.concatenate([(x[:, :n] + y[:, :n]) / 2 for (x, y), n in zip(pairs, lengths, strict=True)], axis=1)
        )
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(*averages, strict=True)]
    np.testing.assert_allclose(scores["correlation_to_average"], expected, atol=1e-5)


def test_such_a_session_is_trained_on_and_predicted_whole(world: World, tmp_path: Path) -> None:
    store = world[0]
    torch.set_num_threads(1)
    report = train(tiny_config(max_epochs=1), store, ["A"], tmp_path / "runs")
    assert np.isfinite(report.best_correlation)
    tiers = ["oracle", "live_test_main", "final_test_main"]
    predict([report.run], store, tiers, str(tmp_path / "p"), device="cpu")
    found = open_predictions(str(tmp_path / "p"), "A").load()
    assert np.isfinite(found.predictions.values[..., 10:N_FRAMES]).all()
    assert np.isfinite(score_predictions(str(tmp_path / "p"), store).rows["single_trial_correlation"]).all()
    # What a submission holds of a trial.
    submitted = StandardizedPredictions(str(tmp_path / "p"), open_store(store), find_session("A"))
    assert submitted.read(8, frames_of("official", submitted.n_frames(8))).shape == (5, N_FRAMES - 50)


@pytest.mark.parametrize(
    ("modality", "gap"),
    each_once(
        {name: name for name in ("responses", "behavior", "pupil_center")},
        {"long": slice(N_FRAMES - MOST_MISSING_FRAMES - 1, None), "middle": slice(30, 31)},
    ),
)
def test_longer_gaps_and_those_in_the_middle_are_refused(modality: str, gap: slice, tmp_path: Path) -> None:
    recording = make_recording("A", ["train"] * 2, n_frames=N_FRAMES, n_padded=74, n_neurons=3)
    getattr(recording.trials[1], modality)[:, gap] = np.nan
    convert(recording, tmp_path)
    reader = TrialReader(str(tmp_path / "store"), ["A"])
    refusal = f"trial 1, .*: {modality} holds values that are no numbers in valid frames"
    if modality == "responses":
        assert reader.select_trials("A", [Tier.TRAIN], labelled=True).n_frames == (N_FRAMES, N_FRAMES)
    else:
        # Before anything is trained, for they are in memory.
        with pytest.raises(StoreError, match=refusal):
            reader.select_trials("A", [Tier.TRAIN], labelled=True)
    with pytest.raises(StoreError, match=refusal):
        reader.read("A", 1)
    rows = {row.check: row for row in check_session(str(tmp_path / "store"), "A").checks}
    assert rows[f"missing values in {modality}"].outcome is Outcome.FAILED


def test_a_store_that_an_earlier_version_wrote_learns_of_them_when_its_archive_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make()
    with monkeypatch.context() as patched:
        patched.setattr("sensorium_data.ingest.trial_conversion._count_unusual_values", lambda record, _: record)
        convert(recording, tmp_path)
    with pytest.raises(StoreError, match=r"trial 1, .*: responses holds values that are no numbers"):
        TrialReader(str(tmp_path / "store"), ["A"]).read("A", 1)
    report = convert(recording.with_trial(3, behavior=recording.trials[3].behavior + 1), tmp_path)
    assert (report.status, report.n_trials_copied) == ("updated", len(TIERS) - 1)
    assert "in 3 trials responses end 1-10 frames before the video" in report.notes
    TrialReader(str(tmp_path / "store"), ["A"]).read("A", 1)
