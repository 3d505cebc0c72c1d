from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures.predicted_sessions import N_NEURONS, TRIALS, PredictedSessions
from fixtures.session_stores import write_session_store
from sensorium_data.errors import PredictionsError, UsageError
from sensorium_data.predictions import from_arrays
from sensorium_data.scoring import Bootstrap, Leaderboard, compare_predictions, score_predictions
from sensorium_data.scoring.leaderboard import name_entries

HOW = Bootstrap(300, seed=4)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    return PredictedSessions(tmp_path_factory.mktemp("leaderboard"))


def spoil(recorded: PredictedSessions, noise: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {a: (p + noise * rng.gamma(1, 4, p.shape)).astype(np.float32) for a, p in recorded.predictions.items()}


@pytest.fixture(scope="module")
def entries(recorded: PredictedSessions) -> list[str]:
    tiers = ("oracle", "train", "final_test_bonus")
    return [
        recorded.write("noisy", predictions=spoil(recorded, 3.0), tiers=tiers),
        recorded.write("good", tiers=tiers),
        # Other units are no other scale: both are brought to the competition's.
        recorded.write("nearly", "standardized", predictions=spoil(recorded, 0.2), tiers=tiers),
    ]


@pytest.fixture(scope="module")
def board(recorded: PredictedSessions, entries: list[str]) -> Leaderboard:
    return compare_predictions(entries, recorded.store, bootstrap=HOW)


def test_entries_have_the_scores_they_have_alone_and_are_ranked_by_them(
    recorded: PredictedSessions, entries: list[str], board: Leaderboard
) -> None:
    summaries = {path: score_predictions(path, recorded.store, bootstrap=HOW).summary for path in entries}
    for aggregation in ("mean over neurons", "mean over mice"):
        rows = board.rows.query(f"tier == 'oracle' and aggregation == '{aggregation}'").set_index("entry")
        assert rows.index.tolist() == ["good", "nearly", "noisy"]
        assert rows["rank"].tolist() == [1, 2, 3]
        for path, alone in summaries.items():
            expected = alone.query(f"tier == 'oracle' and aggregation == '{aggregation}'").iloc[0]
            found = rows.loc[Path(path).name]
            for name in ("single_trial_correlation", "single_trial_correlation_low", "correlation_to_average_high"):
                assert found[name] == pytest.approx(expected[name])


def test_differences_are_paired(board: Leaderboard) -> None:
    rows = board.rows.query("tier == 'oracle' and aggregation == 'mean over mice'").set_index("entry")
    assert np.isnan(rows.loc["good", "single_trial_correlation_difference"])
    for score in ("single_trial_correlation", "correlation_to_average"):
        difference = rows.loc["nearly", f"{score}_difference"]
        assert difference == pytest.approx(rows.loc["nearly", score] - rows.loc["good", score])
        low, high = (rows.loc["nearly", f"{score}_difference_{end}"] for end in ("low", "high"))
        assert low < difference < high
        # Nearly equal predictions differ far less than either could have scored on other trials.
        assert high - low < 0.5 * (rows.loc["good", f"{score}_high"] - rows.loc["good", f"{score}_low"])


def test_sessions_and_stimuli_are_compared_too(board: Leaderboard) -> None:
    assert set(board.rows.query("tier == 'oracle'")["aggregation"]) == {"mean over neurons", "mean over mice", "A", "F"}
    # The responses of F's test tiers are withheld.
    bonus = board.rows.query("tier == 'final_test_bonus'")
    assert set(bonus["aggregation"]) == {"A"}
    assert set(bonus["stimulus"]) == {"all", "RandomDots", "Gabor"}
    assert (bonus.query("stimulus == 'Gabor'")["n_trials"] == 2).all()


def test_differences_can_be_to_the_first(recorded: PredictedSessions, entries: list[str], board: Leaderboard) -> None:
    against_first = compare_predictions(entries, recorded.store, reference="first", bootstrap=HOW)
    assert set(against_first.references.values()) == {"noisy"}
    rows = against_first.rows.query("tier == 'oracle' and aggregation == 'A'").set_index("entry")
    assert (rows.loc[["good", "nearly"], "single_trial_correlation_difference_low"] > 0).all()
    assert board.references["oracle", "all", "A"] == "good"


def test_json_has_the_rows_and_what_they_rest_on(board: Leaderboard) -> None:
    document = json.loads(board.to_json())
    assert list(document["entries"]) == ["noisy", "good", "nearly"]
    assert len(document["rows"]) == len(board.rows)
    assert document["n_resamples"] == 300
    assert document["rows"][0]["entry"] == "good"
    assert document["rows"][0]["single_trial_correlation_difference"] is None
    assert any("withheld" in reason for reason in document["unscored"])


def test_entries_that_lack_sessions_tiers_or_trials_are_refused(recorded: PredictedSessions, tmp_path: Path) -> None:
    whole = recorded.write("whole", tiers=("oracle", "train"))
    one_session = recorded.write("one-session", aliases="A", tiers=("oracle", "train"))
    with pytest.raises(PredictionsError, match=r"one-session: an entry lacks a session .*found A, expected F too"):
        compare_predictions([whole, one_session], recorded.store)
    one_tier = recorded.write("one-tier", tiers=("oracle",))
    for order in ([whole, one_tier], [one_tier, whole]):
        with pytest.raises(PredictionsError, match=r"one-tier: an entry lacks a tier .*expected train too, as whole"):
            compare_predictions(order, recorded.store)
    assert set(compare_predictions([whole, one_tier], recorded.store, tiers=["oracle"]).rows["tier"]) == {"oracle"}
    # Predicted when the store lacked a trial that it has now.
    fewer = [facts for facts in TRIALS if facts.trial != 7]
    made = write_session_store(tmp_path / "fewer", "A", fewer, n_neurons=N_NEURONS, seed=1)
    arrays = {f.trial: made.responses[made.position(f.trial), :, : f.n_frames] for f in made.of_tier("oracle")}
    from_arrays(str(tmp_path / "lacking"), str(tmp_path / "fewer"), {"A": arrays}, response_units="raw")
    a_alone = recorded.write("a-alone", aliases="A", tiers=("oracle",))
    with pytest.raises(
        PredictionsError, match=r"session A .*trial 7, .*lacking: an entry lacks trials .*as a-alone has"
    ):
        compare_predictions([a_alone, str(tmp_path / "lacking")], recorded.store)


def test_entry_on_another_scale_than_it_claims_is_refused(recorded: PredictedSessions) -> None:
    calibrated = {a: 0.5 * s.responses + 0.5 * np.nanmean(s.responses) for a, s in recorded.sessions.items()}
    honest = recorded.write("honest", predictions=calibrated, tiers=("oracle",))
    arrays = {
        alias: {f.trial: calibrated[alias][s.position(f.trial), :, : f.n_frames] for f in s.of_tier("oracle")}
        for alias, s in recorded.sessions.items()
    }
    from_arrays(str(recorded.root / "other"), recorded.store, arrays, response_units="standardized")
    with pytest.raises(PredictionsError, match="other: the predictions seem to be in raw units"):
        compare_predictions([honest, str(recorded.root / "other")], recorded.store)


def test_nothing_to_compare_is_refused(recorded: PredictedSessions, entries: list[str]) -> None:
    with pytest.raises(UsageError, match="too few entries to compare: found 1"):
        compare_predictions(entries[:1], recorded.store)
    with pytest.raises(UsageError, match="named twice"):
        compare_predictions([entries[0], entries[0] + "/"], recorded.store)
    withheld = [recorded.write(name, aliases="F", tiers=("live_test_main",)) for name in ("w1", "w2")]
    with pytest.raises(UsageError, match=r"nothing can be scored.*withheld"):
        compare_predictions(withheld, recorded.store)


def test_names_are_as_short_as_they_can_be() -> None:
    assert list(name_entries(["runs/a/predictions", "runs/b/predictions"])) == ["a/predictions", "b/predictions"]
    assert list(name_entries(["s3://bucket/x", "y"])) == ["x", "y"]


def test_a_folder_that_one_is_in_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "model" / "below")
    assert list(name_entries(["."])) == ["below"]
    assert list(name_entries(["..", "x"])) == ["model", "x"]
    assert list(name_entries(["../", "../../other/"])) == ["model", "other"]
