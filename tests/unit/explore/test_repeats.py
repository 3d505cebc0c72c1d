from __future__ import annotations

import numpy as np
import pytest

import sensorium_data.explore  # noqa: F401 (registers the accessor)
from fixtures.explored_sessions import make_session
from fixtures.recorded_stores import record_session
from sensorium_data.errors import UsageError
from sensorium_data.scoring import measure_oracle_correlation
from sensorium_data.store import open_session

LENGTHS = {"a": [60, 60, 58], "b": [70, 70]}


def make_repeats(seed: int = 0) -> tuple[dict[str, list[np.ndarray]], list[np.ndarray], list[str]]:
    """Movies of which each neuron's response has a part in common, more of it in later neurons."""
    rng = np.random.default_rng(seed)
    gains = np.array([0.0, 0.5, 2.0])[:, None]
    repeats = {
        movie: [shared[:, :n] * gains + rng.normal(size=(3, n)) + 3 for n in lengths]
        for movie, lengths in LENGTHS.items()
        for shared in [rng.normal(size=(3, 80))]
    }
    return repeats, [one for trials in repeats.values() for one in trials], [m for m in repeats for _ in repeats[m]]


def test_reliability_is_the_correlation_with_the_mean_of_the_other_repeats() -> None:
    repeats, responses, movies = make_repeats()
    session = make_session(responses, movies=movies)
    x, m = [], []
    for trials in repeats.values():
        n = min(one.shape[1] for one in trials)
        cut = np.stack([one.astype(np.float32)[:, 50:n] for one in trials]).astype(float)
        for k in range(len(cut)):
            x.append(cut[k])
            m.append(np.delete(cut, k, axis=0).mean(axis=0))
    x, m = np.concatenate(x, axis=1), np.concatenate(m, axis=1)
    expected = [np.corrcoef(x[i], m[i])[0, 1] for i in range(3)]
    found = session.sensorium.reliability()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.z.values.tolist() == session.z.values.tolist()
    assert found.neuron.values.tolist() == [3, 5, 7]


def test_signal_to_noise_is_signal_power_over_noise_power() -> None:
    rng = np.random.default_rng(1)
    # One movie of four repeats: the formula of Sahani and Linden, by the variances of sums.
    trials = [rng.normal(size=(3, 200)) + 2 * np.sin(np.arange(200) / 9) * [[0.2], [1], [3]] for _ in range(4)]
    session = make_session(trials, movies=["a"] * 4)
    y = np.stack([one.astype(np.float32)[:, 50:] for one in trials]).astype(float)
    total = y.mean(axis=0).var(axis=1)
    noise = y.var(axis=0, ddof=1).mean(axis=1)
    expected = np.maximum(total - noise / 4, 0) / noise
    np.testing.assert_allclose(session.sensorium.signal_to_noise(), expected, rtol=1e-5)
    assert expected[2] > 10 * expected[1] > 0


def test_broken_withheld_and_other_tiers_trials_do_not_count() -> None:
    _, responses, movies = make_repeats()
    alone = make_session(responses[:3], movies=movies[:3]).sensorium.reliability()
    strange = [np.full((3, 60), 9.0) * np.arange(60)] * 3
    session = make_session(
        [*responses[:3], *strange],
        movies=["a"] * 6,
        tiers=["oracle"] * 5 + ["live_test_main"],
        broken=[3],
        withheld=[4],
    )
    np.testing.assert_array_equal(session.sensorium.reliability(), alone)
    assert not np.array_equal(session.sensorium.reliability(tier=None), alone)


def test_a_missing_value_stays_with_its_neuron() -> None:
    _, responses, movies = make_repeats()
    whole = make_session(responses, movies=movies).sensorium.reliability()
    responses[1] = responses[1].copy()
    responses[1][1, 55] = np.nan
    found = make_session(responses, movies=movies).sensorium.reliability()
    assert np.isnan(found[1])
    np.testing.assert_array_equal(found[[0, 2]], whole[[0, 2]])


def test_without_repeats_there_is_an_error_and_no_reliability_in_the_table() -> None:
    session = make_session([np.ones((2, 60))] * 3)
    for call in (session.sensorium.reliability, session.sensorium.signal_to_noise):
        with pytest.raises(UsageError, match=r"Video-8744.*no repeats to compare"):
            call()
    assert session.sensorium.neurons.reliability.isna().all()
    with pytest.raises(UsageError, match="no repeats"):
        session.sensorium.select(min_reliability=0.1)


def test_neurons_are_selected_by_reliability_whatever_the_trials() -> None:
    _, responses, movies = make_repeats()
    session = make_session([*responses, responses[0]], movies=[*movies, "c"], tiers=["oracle"] * 5 + ["train"])
    reliability = session.sensorium.reliability().values
    limit = float(np.sort(reliability)[1])
    selected = session.sensorium.select(tier="train", min_reliability=limit)
    assert selected.neuron.values.tolist() == session.neuron.values[reliability >= limit].tolist()
    assert selected.sizes["neuron"] == 2
    assert selected.trial.values.tolist() == [15]


def test_in_the_competitions_units_it_is_what_scoring_says(tmp_path) -> None:
    record_session(tmp_path, "F", n_by_tier={"train": 2, "oracle": 4})
    session = open_session(tmp_path, "F")
    movies = np.where(session.tier.values == "oracle", "one", session.movie.values)
    session = session.assign_coords(movie_group=("trial", movies))
    scaled = session.assign(responses=session.sensorium.responses_standardized("competition"))
    found = scaled.sensorium.reliability()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium_data.store.Store.__getitem__", lambda store, name: session)
        expected = measure_oracle_correlation(tmp_path, "F")
    np.testing.assert_allclose(found, expected, atol=1e-6)
