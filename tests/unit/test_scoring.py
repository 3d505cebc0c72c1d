from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures.session_stores import HandMadeSession, TrialFacts, write_session_store, write_truth
from sensorium_data.errors import PredictionsError, StoreError, UsageError
from sensorium_data.predictions import from_arrays
from sensorium_data.scoring import ScoreTable, score_predictions

TRIALS = (
    TrialFacts(0, "train", 60),
    TrialFacts(7, "oracle", 70, "m0"),
    TrialFacts(3, "oracle", 69, "m0"),
    TrialFacts(4, "oracle", 66, "m1"),
    TrialFacts(9, "oracle", 68, "m1"),
    TrialFacts(12, "oracle", 64, "m2"),
    TrialFacts(2, "live_test_main", 72, "m3"),
    TrialFacts(5, "live_test_main", 72, "m3"),
    TrialFacts(8, "live_test_bonus", 0, "", "NaturalImages", valid=False),
    TrialFacts(13, "live_test_bonus", 66, "m5", "NaturalImages"),
    TrialFacts(1, "final_test_bonus", 64, "m6", "RandomDots"),
    TrialFacts(10, "final_test_bonus", 80, "m7", "Gabor"),
    TrialFacts(11, "final_test_bonus", 80, "m7", "Gabor"),
)
N_NEURONS = 4


class Recorded:
    """Two sessions, their truth, and predictions that lack the first 16 frames."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = str(root / "store")
        self.sessions = {
            "A": write_session_store(root / "store", "A", TRIALS, n_neurons=N_NEURONS, seed=1),
            "F": write_session_store(root / "store", "F", TRIALS, n_neurons=N_NEURONS + 2, seed=2),
        }
        rng = np.random.default_rng(3)
        self.rates = {a: 0.5 * s.responses + rng.gamma(1, 2, s.responses.shape) for a, s in self.sessions.items()}
        self.predictions = {
            a: (0.5 * s.responses + rng.gamma(1, 4, s.responses.shape)).astype(np.float32)
            for a, s in self.sessions.items()
        }
        for alias, session in self.sessions.items():
            write_truth(root / "truth", session, self.rates[alias].astype(np.float32))

    def precision(self, alias: str) -> np.ndarray:
        """The competition's: 1 / std, with a floor of 1 % of the mean std."""
        std = self.sessions[alias].std
        floor = 0.01 * np.nanmean(std)
        return np.where(std > floor, 1 / np.where(std > floor, std, 1), 1 / floor)

    def write(
        self,
        name: str,
        units: str = "raw",
        aliases: str = "AF",
        tiers: tuple[str, ...] = (),
        change: dict[int, np.ndarray] | None = None,
    ) -> str:
        arrays: dict[str, dict[int, np.ndarray]] = {}
        for alias in aliases:
            session = self.sessions[alias]
            scale = self.precision(alias) if units == "standardized" else np.ones_like(session.std)
            values = self.predictions[alias] * scale
            arrays[alias] = {
                f.trial: values[i, :, 16 : f.n_frames]
                for i, f in enumerate(session.trials)
                if f.valid and (not tiers or f.tier in tiers)
            } | (change or {})
        from_arrays(str(self.root / name), self.store, arrays, response_units=units)
        return str(self.root / name)

    def score_by_hand(self, alias: str, trials: list[int], of: np.ndarray) -> np.ndarray:
        """Single-trial correlation of (trial, neuron, time) signals, in standardized units, with np.corrcoef."""
        session, precision = self.sessions[alias], self.precision(alias)
        cut = {t: slice(50, session.trials[session.position(t)].n_frames) for t in trials}
        r, p = (
            np.concatenate([(x[session.position(t)] * precision)[:, cut[t]] for t in trials], axis=1)
            for x in (session.responses.astype(np.float64), of.astype(np.float64))
        )
        return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(r, p, strict=True)])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("scoring"))


@pytest.fixture(scope="module")
def table(recorded: Recorded) -> ScoreTable:
    return score_predictions(recorded.write("p"), recorded.store)


def row(table: ScoreTable, alias: str, tier: str, stimulus: str = "all") -> dict[str, object]:
    rows = table.rows.query("alias == @alias and tier == @tier and stimulus == @stimulus")
    assert len(rows) == 1
    return rows.iloc[0].to_dict()


def test_single_trial_correlation_is_pearsons_in_the_competitions_units(recorded: Recorded, table: ScoreTable) -> None:
    for alias in "AF":
        expected = recorded.score_by_hand(alias, [3, 4, 7, 9, 12], recorded.predictions[alias])
        found = table.per_neuron(alias, "oracle")
        assert np.allclose(found["single_trial_correlation"], expected, atol=1e-5)
        assert found.index.tolist() == recorded.sessions[alias].neurons.tolist()
        assert row(table, alias, "oracle")["single_trial_correlation"] == pytest.approx(expected.mean(), abs=1e-5)
        assert row(table, alias, "oracle")["n_trials"] == 5


def test_standardized_predictions_score_the_same_as_raw_ones(recorded: Recorded, table: ScoreTable) -> None:
    standardized = score_predictions(recorded.write("standardized", "standardized"), recorded.store)
    assert np.allclose(standardized.rows["single_trial_correlation"], table.rows["single_trial_correlation"], atol=1e-6)


def test_units_matter(recorded: Recorded, table: ScoreTable) -> None:
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


def test_correlation_to_average_is_over_the_repeats_of_each_movie(recorded: Recorded, table: ScoreTable) -> None:
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


def test_tier_of_several_stimuli_is_scored_by_stimulus_too(recorded: Recorded, table: ScoreTable) -> None:
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


def test_truth_scores_withheld_tiers_and_gives_the_ceiling(recorded: Recorded) -> None:
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


def test_truth_itself_reaches_the_ceiling(recorded: Recorded) -> None:
    session = recorded.sessions["F"]
    arrays = {f.trial: recorded.rates["F"][i, :, 16 : f.n_frames] for i, f in enumerate(session.trials) if f.valid}
    from_arrays(str(recorded.root / "perfect"), recorded.store, {"F": arrays}, response_units="raw")
    table = score_predictions(str(recorded.root / "perfect"), recorded.store, truth=str(recorded.root))
    assert np.allclose(table.rows["fraction_of_ceiling"], 1, atol=1e-5)


def test_summary_has_both_aggregations(recorded: Recorded, table: ScoreTable) -> None:
    by_session = [recorded.score_by_hand(a, [3, 4, 7, 9, 12], recorded.predictions[a]) for a in "AF"]
    summary = table.summary.query("tier == 'oracle'").set_index("aggregation")
    pooled, mice = summary.loc["mean over neurons"], summary.loc["mean over mice"]
    assert pooled["single_trial_correlation"] == pytest.approx(np.concatenate(by_session).mean(), abs=1e-5)
    assert mice["single_trial_correlation"] == pytest.approx(np.mean([c.mean() for c in by_session]), abs=1e-5)
    assert pooled["n_sessions"] == mice["n_sessions"] == 2
    assert pooled["n_neurons"] == 2 * N_NEURONS + 2


def test_table_for_showing_ends_with_the_summary(recorded: Recorded, table: ScoreTable) -> None:
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


def test_only_the_tiers_asked_for_are_scored(recorded: Recorded) -> None:
    path = recorded.write("tiers", tiers=("oracle", "train"))
    assert set(score_predictions(path, recorded.store, tiers=["oracle"]).rows["tier"]) == {"oracle"}
    with pytest.raises(PredictionsError, match="found live_test_main, expected train, oracle"):
        score_predictions(path, recorded.store, tiers=["live_test_main"])


def test_predictions_have_to_cover_the_scored_frames(recorded: Recorded) -> None:
    session = recorded.sessions["A"]
    # Frames 53 … 69 of 70: three are missing.
    short = {7: recorded.predictions["A"][session.position(7), :, 53:70]}
    path = recorded.write("short", aliases="A", tiers=("oracle",), change=short)
    with pytest.raises(PredictionsError, match=r"session A .*trial 7, .*no value at 3 frames between 50 and 52"):
        score_predictions(path, recorded.store)


def test_predictions_of_another_recording_are_refused(recorded: Recorded, tmp_path: Path) -> None:
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


def test_truth_of_another_simulation_is_refused(recorded: Recorded, tmp_path: Path) -> None:
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


def test_progress_counts_the_trials(recorded: Recorded) -> None:
    path = recorded.write("progress", aliases="A", tiers=("oracle",))
    seen: list[tuple[int, int]] = []
    score_predictions(path, recorded.store, progress=lambda _label, done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]
