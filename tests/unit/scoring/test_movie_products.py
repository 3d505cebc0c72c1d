from __future__ import annotations

import numpy as np
import pytest

from sensorium_data.errors import UsageError
from sensorium_data.scoring import Bootstrap
from sensorium_data.scoring.bootstrap import TILT
from sensorium_data.scoring.movie_products import MovieProducts, RepeatedMovies
from sensorium_data.scoring.trial_moments import TrialMoments, sum_trial

N_NEURONS = 4
#: Frames of each movie's repeats.
MOVIES = ((250, 250, 249), (190, 191), (274, 270, 274, 275))

Movies = list[tuple[list[np.ndarray], list[np.ndarray]]]


def make_movies(seed: int = 0, offset: float = 0.0) -> Movies:
    rng = np.random.default_rng(seed)
    movies = []
    for lengths in MOVIES:
        signal = rng.gamma(0.5, 4, (N_NEURONS, max(lengths)))
        responses = [signal[:, :n] + rng.gamma(0.5, 6, (N_NEURONS, n)) + offset for n in lengths]
        predictions = [0.5 * signal[:, :n] + rng.random((N_NEURONS, n)) for n in lengths]
        movies.append((responses, predictions))
    return movies


def multiply(movies: Movies) -> RepeatedMovies:
    return RepeatedMovies([MovieProducts(a, b) for a, b in movies])


def cut(repeats: list[np.ndarray]) -> np.ndarray:
    """Repeats over their common frames: (repeat, neuron, frame)."""
    n = min(repeat.shape[1] for repeat in repeats)
    return np.stack([repeat[:, :n] for repeat in repeats])


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_correlation_to_average_is_that_of_the_averages_joined(offset: float) -> None:
    movies = make_movies(offset=offset)
    a = np.concatenate([cut(responses).mean(axis=0) for responses, _ in movies], axis=1)
    b = np.concatenate([cut(predictions).mean(axis=0) for _, predictions in movies], axis=1)
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    assert np.allclose(multiply(movies).correlation(), expected, rtol=0, atol=1e-7)


def test_a_hand_made_example() -> None:
    # Repeats 1 3 | 3 1 average to 2 2, and 0 4 | 2 6 to 1 5; predictions are what the averages should be.
    responses = [[np.array([[1.0, 3.0]]), np.array([[3.0, 1.0]])], [np.array([[0.0, 4.0]]), np.array([[2.0, 6.0]])]]
    predictions = [[np.array([[2.0, 2.0]])] * 2, [np.array([[0.0, 6.0]]), np.array([[2.0, 4.0]])]]
    movies = list(zip(responses, predictions, strict=True))
    assert multiply(movies).correlation() == pytest.approx([1.0])
    # Trial by trial they agree less.
    sums = [sum_trial(a, b) for movie in movies for a, b in zip(*movie, strict=True)]
    assert TrialMoments([2] * 4, sums).correlation() == pytest.approx([18 / np.sqrt(26 * 22)])


def test_weighted_averages_equal_averages_made_by_hand() -> None:
    movies = make_movies()
    rng = np.random.default_rng(7)
    weights = [rng.dirichlet(np.ones(len(lengths)), size=3) for lengths in MOVIES]
    found = multiply(movies).weighted_correlation(weights, slice(1, 3))
    for choice in range(3):
        averages = [
            np.concatenate(
                [
                    np.tensordot(w[choice], cut(signals[which]), axes=1)
                    for w, signals in zip(weights, movies, strict=True)
                ],
                axis=1,
            )
            for which in (0, 1)
        ]
        expected = [np.corrcoef(averages[0][i], averages[1][i])[0, 1] for i in (1, 2)]
        assert np.allclose(found[choice], expected, rtol=0, atol=1e-7)


def test_resamples_are_tilted_averages() -> None:
    movies = make_movies()
    repeated, how = multiply(movies), Bootstrap(100, seed=2)
    mean, low, high = repeated.bootstrap(how, "F")
    tilted = [how.tilt(len(lengths), "repeats", "F", str(i)) for i, lengths in enumerate(MOVIES)]
    moved = repeated.weighted_correlation(tilted, slice(None)).mean(axis=1)
    assert mean.replicates == pytest.approx(mean.estimate + (moved - mean.estimate) / TILT)
    assert ((low < repeated.correlation()) & (repeated.correlation() < high)).all()


def test_oracle_correlation_is_that_with_the_mean_of_the_other_repeats() -> None:
    movies = make_movies(offset=3.0)
    found = multiply(movies).reliability().correlation()
    for neuron in range(N_NEURONS):
        single, others = [], []
        for responses, _ in movies:
            trials = cut(responses)[:, neuron]
            for i, trial in enumerate(trials):
                single.append(trial)
                others.append(np.delete(trials, i, axis=0).mean(axis=0))
        expected = np.corrcoef(np.concatenate(single), np.concatenate(others))[0, 1]
        assert found[neuron] == pytest.approx(expected, abs=1e-7)


def test_explainable_variance_equals_its_formula_and_finds_the_planted_share() -> None:
    movies = make_movies(offset=3.0)
    reliability = multiply(movies).reliability()
    means, noise, left = [], [], []
    for responses, _ in movies:
        trials = cut(responses)
        means.append(trials.mean(axis=0))
        noise.append(trials.var(axis=0, ddof=1))
        left.append(trials.var(axis=0, ddof=1) / len(trials))
    total = np.concatenate(means, axis=1).var(axis=1)
    signal = total - np.concatenate(left, axis=1).mean(axis=1)
    share = signal / (signal + np.concatenate(noise, axis=1).mean(axis=1))
    assert np.allclose(reliability.explainable_variance(), share)
    assert np.allclose(reliability.attainable_correlation(), np.sqrt(signal / total))

    rng = np.random.default_rng(0)
    planted = rng.normal(size=(3, 5000))
    repeats = [planted + 2 * rng.normal(size=planted.shape) for _ in range(10)]
    reliability = RepeatedMovies([MovieProducts(repeats, repeats)]).reliability()
    assert reliability.explainable_variance() == pytest.approx([0.2] * 3, abs=0.015)
    # The best prediction from the movie, the signal itself, reaches both ceilings.
    perfect = RepeatedMovies([MovieProducts(repeats, [planted] * 10)])
    assert perfect.correlation() == pytest.approx(reliability.attainable_correlation(), abs=0.01)
    single = [np.corrcoef(np.concatenate([r[i] for r in repeats]), np.tile(planted[i], 10))[0, 1] for i in range(3)]
    assert single == pytest.approx(np.sqrt(reliability.explainable_variance()), abs=0.01)


def test_explainable_variance_is_schoppes_signal_power_where_trials_keep_their_level() -> None:
    """SP = (Var(Σ y) − Σ Var(y)) / (R (R − 1)), over the variance of a trial."""
    rng = np.random.default_rng(3)
    signal = rng.normal(size=(2, 400))
    trials = np.stack([signal + rng.normal(size=signal.shape) for _ in range(6)])
    trials -= trials.mean(axis=2, keepdims=True)
    n = len(trials)
    power = (trials.sum(axis=0).var(axis=1) - trials.var(axis=2).sum(axis=0)) / (n * (n - 1))
    reliability = RepeatedMovies([MovieProducts(list(trials), list(trials))]).reliability()
    assert np.allclose(reliability.explainable_variance(), power / trials.var(axis=2).mean(axis=0), rtol=1e-2)
    assert np.allclose(
        reliability.attainable_correlation(), np.sqrt(power / trials.mean(axis=0).var(axis=1)), rtol=1e-2
    )


def test_neurons_without_signal_have_no_ceiling() -> None:
    rng = np.random.default_rng(0)
    repeats = [rng.normal(size=(3, 500)) for _ in range(4)]
    for repeat in repeats:
        repeat[0] = 0.3
    repeats[1][1, 9] = np.nan
    reliability = RepeatedMovies([MovieProducts(repeats, repeats)]).reliability()
    assert reliability.explainable_variance()[0] == reliability.attainable_correlation()[0] == 0
    assert np.isnan(reliability.explainable_variance()[1])
    assert reliability.explainable_variance()[2] < 0.02


def test_movies_shown_once_are_refused() -> None:
    one = [np.zeros((2, 5))]
    with pytest.raises(UsageError, match="no repeats to average: found 1 and 1 repeats"):
        MovieProducts(one, one)
    with pytest.raises(UsageError, match="with 0 common frames"):
        MovieProducts([*one, np.zeros((2, 0))], [*one, *one])
    with pytest.raises(UsageError, match="no movie was shown twice"):
        RepeatedMovies([])
