from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from fixtures.predicted_sessions import N_NEURONS, TRIALS, PredictedSessions
from fixtures.session_stores import HandMadeSession, TrialFacts, write_session_store, write_truth
from fixtures.stores import read_files
from sensorium_data.errors import PredictionsError, StoreError, UnknownNameError, UsageError
from sensorium_data.files import StoredObject
from sensorium_data.predictions import from_arrays
from sensorium_data.scoring import Bootstrap, ScoreTable, score_predictions
from sensorium_data.store import ObjectLedger, open_session


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    return PredictedSessions(tmp_path_factory.mktemp("scoring"))


@pytest.fixture(scope="module")
def table(recorded: PredictedSessions) -> ScoreTable:
    return score_predictions(recorded.write("p"), recorded.store)


def join_by_hand(
    recorded: PredictedSessions, alias: str, trials: list[int], frames: slice = slice(50, None)
) -> tuple[np.ndarray, np.ndarray]:
    """Responses and predictions of some trials, in standardized units, joined along time."""
    session, precision = recorded.sessions[alias], recorded.precision(alias)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for trial in trials:
        position = session.position(trial)
        for part, signal in zip(parts, (session.responses, recorded.predictions[alias]), strict=True):
            part.append((signal[position] * precision)[:, : session.trials[position].n_frames][:, frames])
    a, b = (np.concatenate(part, axis=1).astype(np.float64) for part in parts)
    return a, b


def row(table: ScoreTable, alias: str, tier: str, stimulus: str = "all") -> dict[str, object]:
    rows = table.rows.query("alias == @alias and tier == @tier and stimulus == @stimulus")
    assert len(rows) == 1
    return rows.iloc[0].to_dict()


def test_statistics_that_end_before_the_scored_frames_are_noted(tmp_path: Path) -> None:
    made = write_session_store(tmp_path / "store", "A", TRIALS, n_neurons=N_NEURONS, seed=1, n_frames_padded=80)
    # The last padded frame has no standard deviation, and here a trial reaches it.
    arrays = {"A": {f.trial: np.abs(made.responses[i, :, : f.n_frames]) for i, f in enumerate(TRIALS) if f.valid}}
    from_arrays(str(tmp_path / "p"), str(tmp_path / "store"), arrays, response_units="raw")
    table = score_predictions(str(tmp_path / "p"), str(tmp_path / "store"))
    (note,) = table.notes
    assert note.endswith("the statistics end at frame 79 of 80; later frames take frame 78's")
    assert json.loads(table.to_json())["notes"] == [note]
    assert score_predictions(str(tmp_path / "p"), str(tmp_path / "store"), tiers=["oracle"]).notes == ()
    # The ceiling of a perfect prediction is 1, in the late frames too.
    assert row(table, "A", "final_test_bonus", "Gabor")["single_trial_correlation"] == pytest.approx(1, abs=1e-5)


def test_single_trial_correlation_is_pearsons_in_the_competitions_units(
    recorded: PredictedSessions, table: ScoreTable
) -> None:
    for alias in "AF":
        expected = recorded.score_by_hand(alias, [3, 4, 7, 9, 12], recorded.predictions[alias])
        found = table.per_neuron(alias, "oracle")
        assert np.allclose(found["single_trial_correlation"], expected, atol=1e-5)
        assert found.index.tolist() == recorded.sessions[alias].neurons.tolist()
        assert row(table, alias, "oracle")["single_trial_correlation"] == pytest.approx(expected.mean(), abs=1e-5)
        assert row(table, alias, "oracle")["n_trials"] == 5


def test_standardized_predictions_score_the_same_as_raw_ones(recorded: PredictedSessions, table: ScoreTable) -> None:
    standardized = score_predictions(recorded.write("standardized", "standardized"), recorded.store)
    assert np.allclose(standardized.rows["single_trial_correlation"], table.rows["single_trial_correlation"], atol=1e-6)


def test_units_matter(recorded: PredictedSessions, table: ScoreTable) -> None:
    # Raw predictions that claim to be standardized score otherwise: the precision differs from frame to frame.
    session = recorded.sessions["F"]
    arrays = {
        f.trial: recorded.predictions["F"][i, :, 16 : f.n_frames] for i, f in enumerate(session.trials) if f.valid
    }
    from_arrays(str(recorded.root / "claimed"), recorded.store, {"F": arrays}, response_units="standardized")
    claimed = score_predictions(str(recorded.root / "claimed"), recorded.store)
    difference = (
        row(claimed, "F", "oracle")["single_trial_correlation"] - row(table, "F", "oracle")["single_trial_correlation"]
    )
    assert abs(difference) > 0.01


def test_correlation_to_average_is_over_the_repeats_of_each_movie(
    recorded: PredictedSessions, table: ScoreTable
) -> None:
    session, precision = recorded.sessions["A"], recorded.precision("A")
    averages = []
    for signal in (session.responses.astype(np.float64), recorded.predictions["A"].astype(np.float64)):
        scaled = signal * precision
        parts = [
            np.mean([scaled[session.position(t), :, 50:69] for t in (7, 3)], axis=0),
            np.mean([scaled[session.position(t), :, 50:66] for t in (4, 9)], axis=0),
        ]
        averages.append(np.concatenate(parts, axis=1))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(*averages, strict=True)]
    assert np.allclose(table.per_neuron("A", "oracle")["correlation_to_average"], expected, atol=1e-5)


def test_tier_without_repeats_has_no_correlation_to_average(table: ScoreTable) -> None:
    assert np.isnan(row(table, "A", "train")["correlation_to_average"])
    assert np.isfinite(row(table, "A", "train")["single_trial_correlation"])


def test_tier_of_several_stimuli_is_scored_by_stimulus_too(recorded: PredictedSessions, table: ScoreTable) -> None:
    expected = recorded.score_by_hand("A", [10, 11], recorded.predictions["A"]).mean()
    gabor = row(table, "A", "final_test_bonus", "Gabor")
    assert gabor["single_trial_correlation"] == pytest.approx(expected, abs=1e-5)
    assert gabor["n_trials"] == 2
    expected = recorded.score_by_hand("A", [1, 10, 11], recorded.predictions["A"]).mean()
    assert row(table, "A", "final_test_bonus")["single_trial_correlation"] == pytest.approx(expected, abs=1e-5)
    assert set(table.rows.query("tier == 'oracle'")["stimulus"]) == {"all"}


def test_withheld_responses_are_never_scored_as_zeros(table: ScoreTable) -> None:
    assert set(table.rows.query("alias == 'F'")["tier"]) == {"train", "oracle"}
    reasons = [reason for reason in table.unscored if "withheld" in reason]
    assert len(reasons) == 3
    assert any("session F" in r and "live_test_main: the responses of 2 of 2 trials are withheld" in r for r in reasons)


def test_broken_trials_are_left_out_and_named(table: ScoreTable) -> None:
    assert row(table, "A", "live_test_bonus")["n_trials"] == 1
    assert any("live_test_bonus, trial 8: its stimulus is broken" in reason for reason in table.unscored)


def test_truth_scores_withheld_tiers_and_gives_the_ceiling(recorded: PredictedSessions) -> None:
    predictions = recorded.write("with-truth")
    table = score_predictions(predictions, recorded.store, truth=str(recorded.root / "truth"))
    assert not [reason for reason in table.unscored if "withheld" in reason]
    for alias in "AF":
        expected = recorded.score_by_hand(alias, [2, 5], recorded.predictions[alias])
        ceiling = recorded.score_by_hand(alias, [2, 5], recorded.rates[alias])
        found = row(table, alias, "live_test_main")
        assert found["single_trial_correlation"] == pytest.approx(expected.mean(), abs=1e-5)
        assert found["ceiling_single_trial_correlation"] == pytest.approx(ceiling.mean(), abs=1e-5)
        assert found["fraction_of_ceiling"] == pytest.approx(expected.mean() / ceiling.mean(), abs=1e-5)
        assert np.isfinite(found["ceiling_correlation_to_average"])


def test_without_truth_there_is_no_ceiling(table: ScoreTable) -> None:
    assert table.rows["fraction_of_ceiling"].isna().all()
    assert table.rows["ceiling_single_trial_correlation"].isna().all()


def test_truth_itself_reaches_the_ceiling(recorded: PredictedSessions) -> None:
    session = recorded.sessions["F"]
    arrays = {f.trial: recorded.rates["F"][i, :, 16 : f.n_frames] for i, f in enumerate(session.trials) if f.valid}
    from_arrays(str(recorded.root / "perfect"), recorded.store, {"F": arrays}, response_units="raw")
    table = score_predictions(str(recorded.root / "perfect"), recorded.store, truth=str(recorded.root))
    assert np.allclose(table.rows["fraction_of_ceiling"], 1, atol=1e-5)


def test_summary_has_both_aggregations(recorded: PredictedSessions, table: ScoreTable) -> None:
    by_session = [recorded.score_by_hand(a, [3, 4, 7, 9, 12], recorded.predictions[a]) for a in "AF"]
    summary = table.summary.query("tier == 'oracle'").set_index("aggregation")
    pooled, mice = summary.loc["mean over neurons"], summary.loc["mean over mice"]
    assert pooled["single_trial_correlation"] == pytest.approx(np.concatenate(by_session).mean(), abs=1e-5)
    assert mice["single_trial_correlation"] == pytest.approx(np.mean([c.mean() for c in by_session]), abs=1e-5)
    assert pooled["n_sessions"] == mice["n_sessions"] == 2
    assert pooled["n_neurons"] == 2 * N_NEURONS + 2


def test_table_for_showing_ends_with_the_summary(recorded: PredictedSessions, table: ScoreTable) -> None:
    frame = table.to_frame()
    # Train and oracle are scored in both sessions, each in two aggregations.
    assert len(frame) == len(table.rows) + 4
    assert frame["alias"].tolist()[: len(table.rows)] == table.rows["alias"].tolist()
    assert "mean over mice" in frame["alias"].tolist()
    one = score_predictions(recorded.write("one", aliases="F"), recorded.store)
    assert len(one.to_frame()) == len(one.rows)


def test_json_holds_the_same_numbers_and_null_for_the_unknown(table: ScoreTable) -> None:
    document = json.loads(table.to_json())
    assert len(document["sessions"]) == len(table.rows)
    first = document["sessions"][0]
    assert first["single_trial_correlation"] == table.rows["single_trial_correlation"][0]
    assert first["fraction_of_ceiling"] is None
    assert document["unscored"] == list(table.unscored)
    assert {entry["aggregation"] for entry in document["summary"]} == {"mean over neurons", "mean over mice"}


def test_only_the_tiers_asked_for_are_scored(recorded: PredictedSessions) -> None:
    path = recorded.write("tiers", tiers=("oracle", "train"))
    assert set(score_predictions(path, recorded.store, tiers=["oracle"]).rows["tier"]) == {"oracle"}
    with pytest.raises(PredictionsError, match="found live_test_main, expected train, oracle"):
        score_predictions(path, recorded.store, tiers=["live_test_main"])


def test_predictions_have_to_cover_the_scored_frames(recorded: PredictedSessions) -> None:
    session = recorded.sessions["A"]
    # Frames 53 … 69 of 70: three are missing.
    short = {7: recorded.predictions["A"][session.position(7), :, 53:70]}
    path = recorded.write("short", aliases="A", tiers=("oracle",), change=short)
    with pytest.raises(PredictionsError, match=r"session A .*trial 7, .*no value at 3 frames between 50 and 52"):
        score_predictions(path, recorded.store)


def test_predictions_of_another_recording_are_refused(recorded: PredictedSessions, tmp_path: Path) -> None:
    path = recorded.write("mismatch", aliases="A", tiers=("oracle",))
    write_session_store(tmp_path / "neurons", "A", TRIALS, n_neurons=N_NEURONS, seed=9)
    with pytest.raises(PredictionsError, match="other neurons than the recording"):
        score_predictions(path, str(tmp_path / "neurons"))
    fewer = [facts for facts in TRIALS if facts.trial != 7]
    write_session_store(tmp_path / "trials", "A", fewer, n_neurons=N_NEURONS, seed=1)
    with pytest.raises(PredictionsError, match=r"trial 7, .*a predicted trial is not in the recording"):
        score_predictions(path, str(tmp_path / "trials"))
    longer = [TrialFacts(7, "oracle", 71, "m0") if facts.trial == 7 else facts for facts in TRIALS]
    write_session_store(tmp_path / "frames", "A", longer, n_neurons=N_NEURONS, seed=1)
    with pytest.raises(PredictionsError, match=r"trial 7, .*n_frames is not the recording's: found 70, expected 71"):
        score_predictions(path, str(tmp_path / "frames"))
    write_session_store(tmp_path / "other", "F", TRIALS, n_neurons=N_NEURONS)
    with pytest.raises(StoreError, match="session A"):
        score_predictions(path, str(tmp_path / "other"))


def test_truth_of_another_simulation_is_refused(recorded: PredictedSessions, tmp_path: Path) -> None:
    path = recorded.write("other-truth", aliases="A", tiers=("oracle",))
    other: HandMadeSession = write_session_store(tmp_path / "store", "A", TRIALS, n_neurons=N_NEURONS, seed=9)
    write_truth(tmp_path / "truth", other, other.responses)
    with pytest.raises(StoreError, match="truth is of other neurons"):
        score_predictions(path, recorded.store, truth=str(tmp_path / "truth"))
    with pytest.raises(StoreError, match="no truth of a simulation here"):
        score_predictions(path, recorded.store, truth=str(tmp_path / "nothing"))


def test_score_of_a_neuron_that_was_not_scored_is_refused(table: ScoreTable) -> None:
    with pytest.raises(UsageError, match="not scored: found live_test_main, all"):
        table.per_neuron("F", "live_test_main")


def test_progress_counts_the_trials(recorded: PredictedSessions) -> None:
    path = recorded.write("progress", aliases="A", tiers=("oracle",))
    seen: list[tuple[int, int]] = []
    score_predictions(path, recorded.store, progress=lambda _label, done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]


def test_profiles_of_frames_choose_the_frames(recorded: PredictedSessions, table: ScoreTable) -> None:
    path = recorded.write("profiles", aliases="A", tiers=("oracle",))
    trials = [3, 4, 7, 9, 12]
    for frames, cut in (("50-298", slice(50, -1)), ("51-299", slice(51, None)), ("official", slice(50, None))):
        a, b = join_by_hand(recorded, "A", trials, cut)
        expected = np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])
        scored = score_predictions(path, recorded.store, frames=frames)
        assert row(scored, "A", "oracle")["single_trial_correlation"] == pytest.approx(expected, abs=1e-6)
        assert json.loads(scored.to_json())["frames"] == frames
    with pytest.raises(UnknownNameError, match="offical"):
        score_predictions(path, recorded.store, frames="offical")  # type: ignore[arg-type]


def test_frames_past_300_count_in_the_official_profile_alone(tmp_path: Path) -> None:
    trials = (TrialFacts(0, "oracle", 324), TrialFacts(1, "oracle", 240))
    made = write_session_store(tmp_path / "store", "A", trials, n_neurons=3)
    predicted = {0: np.array(made.responses[0, :, :324]), 1: np.array(made.responses[1, :, :240])}
    # Wrong past frame 300 alone.
    predicted[0][:, 300:] = 1.0
    path = str(tmp_path / "predictions")
    from_arrays(path, str(tmp_path / "store"), {"A": predicted}, response_units="raw")
    scores = {
        frames: row(score_predictions(path, str(tmp_path / "store"), frames=frames), "A", "oracle")
        for frames in ("official", "50-298", "51-299")
    }
    assert scores["50-298"]["single_trial_correlation"] == pytest.approx(1)
    assert scores["51-299"]["single_trial_correlation"] == pytest.approx(1)
    assert scores["official"]["single_trial_correlation"] < 0.999


def test_ceilings_come_from_the_repeats(recorded: PredictedSessions, table: ScoreTable) -> None:
    session, precision = recorded.sessions["A"], recorded.precision("A")
    single, others = [], []
    for movie, n_frames in (((3, 7), 69), ((4, 9), 66)):
        trials = [(session.responses[session.position(t)] * precision)[:, 50:n_frames] for t in movie]
        single += trials
        others += trials[::-1]
    expected = [
        np.corrcoef(a, b)[0, 1]
        for a, b in zip(np.concatenate(single, axis=1), np.concatenate(others, axis=1), strict=True)
    ]
    found = table.per_neuron("A", "oracle")
    assert np.allclose(found["oracle_correlation"], expected, atol=1e-5)
    oracle = row(table, "A", "oracle")
    assert (
        oracle["fraction_of_oracle"] == pytest.approx(oracle["single_trial_correlation"] / np.mean(expected), abs=1e-4)
        or np.mean(expected) <= 0
    )
    reachable = found["attainable_correlation_to_average"] > 0
    assert np.allclose(
        found["fraction_of_attainable"][reachable],
        (found["correlation_to_average"] / found["attainable_correlation_to_average"])[reachable],
    )
    assert found["fraction_of_attainable"][~reachable].isna().all()
    assert table.per_neuron("A", "train")[["oracle_correlation", "explainable_variance"]].isna().all(axis=None)


def test_intervals_are_around_the_scores_and_repeat_with_the_seed(recorded: PredictedSessions) -> None:
    path = recorded.write("seeded", aliases="A", tiers=("oracle", "train"))
    first, again, other = (
        score_predictions(path, recorded.store, bootstrap=Bootstrap(200, seed), jobs=jobs)
        for seed, jobs in ((1, 1), (1, 4), (2, 2))
    )
    assert first.to_json() == again.to_json()
    assert first.to_json() != other.to_json()
    for score in ("single_trial_correlation", "correlation_to_average"):
        found = row(first, "A", "oracle")
        assert found[f"{score}_low"] < found[score] < found[f"{score}_high"]
    # One trial says nothing about others.
    assert np.isnan(row(first, "A", "train")["single_trial_correlation_low"])
    assert {key: json.loads(first.to_json())[key] for key in ("n_resamples", "seed", "confidence")} == {
        "n_resamples": 200,
        "seed": 1,
        "confidence": 0.95,
    }


def test_order_of_trials_in_the_store_does_not_matter(recorded: PredictedSessions, tmp_path: Path) -> None:
    made = recorded.sessions["A"]
    rows = np.random.default_rng(0).permutation(len(TRIALS))
    responses = {f.trial: made.responses[i, :, : f.n_frames] for i, f in enumerate(TRIALS) if f.valid}
    tables = []
    for name, order in (("kept", range(len(TRIALS))), ("shuffled", rows)):
        write_session_store(
            tmp_path / name, "A", [TRIALS[i] for i in order], n_neurons=N_NEURONS, responses=responses, seed=1
        )
        arrays = {
            TRIALS[i].trial: recorded.predictions["A"][i, :, 16 : TRIALS[i].n_frames] for i in order if TRIALS[i].valid
        }
        path = str(tmp_path / f"p-{name}")
        from_arrays(path, str(tmp_path / name), {"A": arrays}, response_units="standardized")
        tables.append(score_predictions(path, str(tmp_path / name)))
    kept, shuffled = (table.to_neuron_frame().drop(columns=["session"]) for table in tables)
    assert kept["neuron"].tolist() == shuffled["neuron"].tolist()
    numbers = kept.select_dtypes("number").columns
    assert np.allclose(kept[numbers], shuffled[numbers], atol=1e-9, equal_nan=True)


def test_constant_predictions_score_zero(recorded: PredictedSessions) -> None:
    arrays = {f.trial: np.full((N_NEURONS, f.n_frames), 2.0) for f in recorded.sessions["A"].of_tier("oracle")}
    path = str(recorded.root / "constant")
    from_arrays(path, recorded.store, {"A": arrays}, response_units="standardized")
    table = score_predictions(path, recorded.store)
    scores = table.per_neuron("A", "oracle")
    assert np.allclose(scores[["single_trial_correlation", "correlation_to_average"]], 0, atol=1e-6)
    assert np.allclose(scores[["single_trial_correlation_low", "single_trial_correlation_high"]], 0, atol=1e-6)


def test_missing_value_is_named_by_trial_neuron_and_frame(recorded: PredictedSessions) -> None:
    session = recorded.sessions["A"]
    path = recorded.write("holed", aliases="A", tiers=("oracle",))
    # No writer lets this through: a store damaged later, or written by another tool.
    stored = zarr.open_group(path)[f"{session.session.name}/predictions"]
    trials = zarr.open_group(path)[f"{session.session.name}/trial"][...].tolist()
    block = stored[trials.index(9)]
    block[2, 60] = np.nan
    stored[trials.index(9)] = block
    objects = {key: StoredObject.of(data) for key, data in read_files(Path(path)).items() if key != "ledger.json"}
    Path(path, "ledger.json").write_bytes(ObjectLedger(objects).write("predictions"))
    words = rf"trial 9, .*of 1 neuron, first of neuron {session.neurons[2]} at frame 60"
    with pytest.raises(PredictionsError, match=words):
        score_predictions(path, recorded.store)


def test_predictions_in_other_units_than_they_claim_are_doubted(recorded: PredictedSessions) -> None:
    # Right in the mean, as any trained model is.
    calibrated = {
        alias: (0.5 * s.responses + 0.5 * np.nanmean(s.responses)).astype(np.float32)
        for alias, s in recorded.sessions.items()
    }
    honest = recorded.write("honest", "raw", predictions=calibrated, tiers=("oracle",))
    assert score_predictions(honest, recorded.store).doubts == ()
    session = recorded.sessions["F"]
    arrays = {f.trial: calibrated["F"][session.position(f.trial), :, : f.n_frames] for f in session.of_tier("oracle")}
    path = str(recorded.root / "misdeclared")
    from_arrays(path, recorded.store, {"F": arrays}, response_units="standardized")
    (doubt,) = score_predictions(path, recorded.store).doubts
    assert "seem to be in raw units, though their store says standardized" in str(doubt)
    assert "session F" in str(doubt)


def test_parquet_has_a_row_a_neuron(recorded: PredictedSessions, table: ScoreTable, tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    table.write_parquet(path)
    frame = pd.read_parquet(path)
    assert len(frame) == sum(table.rows["n_neurons"])
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]
    oracle = frame.query("alias == 'F' and tier == 'oracle' and stimulus == 'all'").set_index("neuron")
    expected = table.per_neuron("F", "oracle")
    pd.testing.assert_frame_equal(oracle[expected.columns], expected, check_names=False)
    assert (oracle["n_trials"] == 5).all()
    position = open_session(recorded.store, "F")
    assert oracle["x"].tolist() == position["x"].values.tolist()
    assert frame.attrs["frames"] == "official"


def test_nothing_scored_makes_no_file(recorded: PredictedSessions, tmp_path: Path) -> None:
    table = score_predictions(recorded.write("withheld", aliases="F", tiers=("live_test_main",)), recorded.store)
    assert table.rows.empty
    assert json.loads(table.to_json())["sessions"] == []
    with pytest.raises(UsageError, match=r"nothing was scored.*withheld"):
        table.write_parquet(tmp_path / "none.parquet")
    assert list(tmp_path.iterdir()) == []
