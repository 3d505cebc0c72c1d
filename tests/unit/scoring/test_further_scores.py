"""The other readings of the scores, end to end, against their formulas written out in plain NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures.predicted_sessions import PredictedSessions
from fixtures.session_stores import TrialFacts, write_session_store
from sensorium_data.predictions import from_arrays
from sensorium_data.scoring import FURTHER_SCORES, ScoreTable, score_predictions

#: The oracle tier's movies that have repeats: trials, and the frames that all repeats have.
MOVIES = (((3, 7), 69), ((4, 9), 66))
ORACLE = (3, 4, 7, 9, 12)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    return PredictedSessions(tmp_path_factory.mktemp("further"))


@pytest.fixture(scope="module")
def table(recorded: PredictedSessions) -> ScoreTable:
    return score_predictions(recorded.write("p"), recorded.store)


def signals(recorded: PredictedSessions, alias: str, trial: int, stop: int | None = None) -> list[np.ndarray]:
    """A trial's response and prediction in standardized units, from frame 50 on, in float64."""
    session, precision = recorded.sessions[alias], recorded.precision(alias)
    position = session.position(trial)
    frames = slice(50, stop or session.trials[position].n_frames)
    return [
        (x[position].astype(np.float64) * precision)[:, frames]
        for x in (session.responses, recorded.predictions[alias])
    ]


def repeats(recorded: PredictedSessions, alias: str, trials: tuple[int, ...], stop: int) -> tuple[np.ndarray, ...]:
    """Responses and predictions of a movie's repeats, (repeat, neuron, frame) each."""
    both = [signals(recorded, alias, trial, stop) for trial in trials]
    return np.stack([y for y, _ in both]), np.stack([p for _, p in both])


def normalize(y: np.ndarray, p: np.ndarray) -> float:
    """CC_norm of Schoppe et al. 2016 from (repeat, frame) responses and predictions of one neuron."""
    n_repeats = len(y)
    power = (np.var(y.sum(axis=0), ddof=1) - sum(np.var(one, ddof=1) for one in y)) / (n_repeats * (n_repeats - 1))
    if power <= 1e-4:
        return np.nan
    covariance = np.cov(y.mean(axis=0), p.mean(axis=0), ddof=1)[0, 1]
    return float(covariance / np.sqrt(np.var(p.mean(axis=0), ddof=1) * power))


@pytest.mark.parametrize("alias", ["A", "F"])
def test_normalized_correlation_is_schoppes_movie_by_movie(
    recorded: PredictedSessions, table: ScoreTable, alias: str
) -> None:
    found = table.per_neuron(alias, "oracle")["normalized_correlation"].to_numpy()
    expected = []
    for neuron in range(len(found)):
        by_movie = []
        for trials, stop in MOVIES:
            y, p = repeats(recorded, alias, trials, stop)
            by_movie.append(normalize(y[:, neuron], p[:, neuron]))
        known = [one for one in by_movie if not np.isnan(one)]
        expected.append(np.mean(known) if known else np.nan)
    assert np.allclose(found, expected, rtol=0, atol=1e-6, equal_nan=True)
    assert np.isfinite(found).any()
    row = table.rows.query("alias == @alias and tier == 'oracle'").iloc[0]
    assert row["normalized_correlation"] == pytest.approx(np.nanmean(expected), abs=1e-6)
    assert row["n_neurons_normalized"] == np.isfinite(expected).sum()


def test_normalized_correlation_over_sessions_counts_the_neurons_that_have_one(table: ScoreTable) -> None:
    by_session = [table.per_neuron(alias, "oracle")["normalized_correlation"].to_numpy() for alias in "AF"]
    summary = table.summary.query("tier == 'oracle'").set_index("aggregation")["normalized_correlation"]
    assert summary["mean over neurons"] == pytest.approx(np.nanmean(np.concatenate(by_session)))
    assert summary["mean over mice"] == pytest.approx(np.mean([np.nanmean(one) for one in by_session]))


@pytest.mark.parametrize("alias", ["A", "F"])
def test_correlation_to_average_per_movie_is_the_mean_over_movies(
    recorded: PredictedSessions, table: ScoreTable, alias: str
) -> None:
    found = table.per_neuron(alias, "oracle")
    by_movie = []
    for trials, stop in MOVIES:
        y, p = (one.mean(axis=0) for one in repeats(recorded, alias, trials, stop))
        by_movie.append([np.corrcoef(a, b)[0, 1] for a, b in zip(y, p, strict=True)])
    expected = np.mean(by_movie, axis=0)
    assert np.allclose(found["correlation_to_average_per_movie"], expected, rtol=0, atol=1e-6)
    # The other reading joins the movies.
    assert np.abs(found["correlation_to_average"] - expected).max() > 1e-3


@pytest.mark.parametrize("alias", ["A", "F"])
def test_frame_difference_correlation_never_crosses_trials(
    recorded: PredictedSessions, table: ScoreTable, alias: str
) -> None:
    parts = [[np.diff(x, axis=1) for x in signals(recorded, alias, trial)] for trial in ORACLE]
    y, p = (np.concatenate(one, axis=1) for one in zip(*parts, strict=True))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(y, p, strict=True)]
    found = table.per_neuron(alias, "oracle")["frame_difference_correlation"]
    assert np.allclose(found, expected, rtol=0, atol=1e-6)


def test_the_means_have_intervals_around_them(table: ScoreTable) -> None:
    rows = table.rows.query("tier == 'oracle'")
    for score in ("correlation_to_average_per_movie", "frame_difference_correlation"):
        assert ((rows[f"{score}_low"] < rows[score]) & (rows[score] < rows[f"{score}_high"])).all()


def test_without_repeats_only_differences_are_scored(table: ScoreTable) -> None:
    train = table.rows.query("tier == 'train'")
    assert train[["normalized_correlation", "correlation_to_average_per_movie"]].isna().all(axis=None)
    assert (train["n_neurons_normalized"] == 0).all()
    assert train["frame_difference_correlation"].notna().all()


def test_a_tier_of_single_frames_has_no_differences(tmp_path: Path) -> None:
    trials = [TrialFacts(i, "oracle", 51, "m") for i in range(3)]
    made = write_session_store(tmp_path / "store", "A", trials, n_neurons=3)
    arrays = {i: made.responses[i, :, :51] for i in range(3)}
    from_arrays(str(tmp_path / "p"), str(tmp_path / "store"), {"A": arrays}, response_units="standardized")
    (row,) = score_predictions(str(tmp_path / "p"), str(tmp_path / "store")).rows.to_dict("records")
    assert np.isnan(row["frame_difference_correlation"])
    assert np.isnan(row["normalized_correlation"])
    assert np.isfinite(row["single_trial_correlation"])


def test_every_table_has_the_other_readings(table: ScoreTable, tmp_path: Path) -> None:
    names = set(FURTHER_SCORES)
    assert names <= set(table.to_frame())
    assert names <= set(table.to_neuron_frame())
    document = json.loads(table.to_json())
    assert all(names <= set(row) for part in ("sessions", "summary") for row in document[part])


# Stimulus classes


def test_every_class_of_the_bonus_tiers_has_a_row_and_others_only_where_there_are_several(table: ScoreTable) -> None:
    of_a = table.rows.query("alias == 'A'").groupby("tier")["stimulus"].agg(set).to_dict()
    assert of_a["final_test_bonus"] == {"all", "RandomDots", "Gabor"}
    # One class in this session, another one in the next.
    assert of_a["live_test_bonus"] == {"all", "NaturalImages"}
    assert of_a["oracle"] == of_a["live_test_main"] == {"all"}
    live = table.rows.query("alias == 'A' and tier == 'live_test_bonus'").drop(columns="stimulus")
    assert live.iloc[0].equals(live.iloc[1])


# Depth


def test_depths_are_means_over_their_neurons(table: ScoreTable) -> None:
    depths = table.by_depth()
    for alias in "AF":
        neurons = table.per_neuron(alias, "oracle")
        found = depths.query("alias == @alias and tier == 'oracle'").set_index("depth")
        assert found.index.tolist() == sorted(set(neurons["z"].astype(int)))
        assert found["n_neurons"].sum() == len(neurons)
        for depth, row in found.iterrows():
            there = neurons[neurons["z"] == depth]
            assert row["n_neurons"] == len(there)
            assert row["single_trial_correlation"] == pytest.approx(there["single_trial_correlation"].mean())
            assert row["correlation_to_average"] == pytest.approx(there["correlation_to_average"].mean())
    assert json.loads(table.to_json())["by_depth"][0]["depth"] == depths["depth"][0]


def test_depths_over_sessions_come_in_both_aggregations(table: ScoreTable) -> None:
    depths = table.by_depth().query("tier == 'oracle'")
    both = [table.per_neuron(alias, "oracle") for alias in "AF"]
    shared = sorted(set(both[0]["z"]) | set(both[1]["z"]))
    for depth in shared:
        there = [one[one["z"] == depth]["single_trial_correlation"].to_numpy() for one in both]
        there = [one for one in there if len(one)]
        found = depths[depths["depth"] == depth].set_index("alias")["single_trial_correlation"]
        assert found["mean over neurons"] == pytest.approx(np.concatenate(there).mean())
        assert found["mean over mice"] == pytest.approx(np.mean([one.mean() for one in there]))
