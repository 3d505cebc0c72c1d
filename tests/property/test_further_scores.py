"""CC_norm, the correlation per movie and that of differences against their formulas, over any repeats and lengths."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_data.scoring.movie_products import MovieProducts, RepeatedMovies
from sensorium_data.scoring.trial_moments import TrialMoments, sum_differences

Trials = list[tuple[int, np.ndarray, np.ndarray]]

N_NEURONS = 4


@st.composite
def recordings(draw: st.DrawFn) -> Trials:
    """Trials as (movie, response, prediction); neuron 0 never responds, neuron 1 is predicted as a constant."""
    movies = draw(st.lists(st.integers(0, 3), min_size=1, max_size=10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Signals from far below the least signal power to far above it.
    size = 10.0 ** draw(st.integers(-3, 2))
    offset = draw(st.sampled_from([0.0, 3.0, 1e3]))
    lengths = {movie: int(rng.integers(2, 60)) for movie in movies}
    shown = {movie: rng.gamma(0.5, size, (N_NEURONS, n + 3)) for movie, n in lengths.items()}
    trials: Trials = []
    for movie in movies:
        n = lengths[movie] + int(rng.integers(0, 4))
        response = shown[movie][:, :n] + rng.gamma(0.5, size, (N_NEURONS, n)) + offset
        prediction = shown[movie][:, :n] + 0.1 * size * rng.random((N_NEURONS, n))
        response[0], prediction[1] = 1.7, 0.3
        trials.append((movie, response, prediction))
    return trials


def group(trials: Trials) -> list[tuple[np.ndarray, np.ndarray]]:
    """Responses and predictions of each movie with repeats, (repeat, neuron, frame), over the common frames."""
    movies = []
    for movie in sorted({movie for movie, _, _ in trials}):
        both = [(y, p) for one, y, p in trials if one == movie]
        n = min(y.shape[1] for y, _ in both)
        if len(both) > 1:
            movies.append((np.stack([y[:, :n] for y, _ in both]), np.stack([p[:, :n] for _, p in both])))
    return movies


def multiply(trials: Trials) -> RepeatedMovies | None:
    products = []
    for movie in sorted({movie for movie, _, _ in trials}):
        both = [(y, p) for one, y, p in trials if one == movie]
        if len(both) > 1:
            products.append(MovieProducts([y for y, _ in both], [p for _, p in both]))
    return RepeatedMovies(products) if products else None


def take_differences(trials: Trials) -> TrialMoments:
    return TrialMoments([y.shape[1] - 1 for _, y, _ in trials], [sum_differences(y, p) for _, y, p in trials])


def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation, row by row, with the competition's allowance for constant traces."""
    a, b = ((x - x.mean(axis=1, keepdims=True)) / (x.std(axis=1, keepdims=True) + 1e-8) for x in (a, b))
    return (a * b).mean(axis=1)


def normalize(y: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """CC_norm and signal power of one neuron in one movie, from (repeat, frame)."""
    n = len(y)
    power = (np.var(y.sum(axis=0), ddof=1) - sum(np.var(one, ddof=1) for one in y)) / (n * (n - 1))
    if power <= 1e-4:
        return np.nan, power
    mean_y, mean_p = y.mean(axis=0), p.mean(axis=0)
    if np.ptp(mean_p) == 0:
        return 0.0, power
    covariance = np.sum((mean_y - mean_y.mean()) * (mean_p - mean_p.mean())) / (mean_y.size - 1)
    return covariance / np.sqrt(np.var(mean_p, ddof=1) * power), power


@given(recordings())
@settings(max_examples=150)
def test_normalized_correlation_equals_its_formula(trials: Trials) -> None:
    repeated = multiply(trials)
    if repeated is None:
        return
    found = repeated.normalized_correlation()
    for neuron in range(N_NEURONS):
        pairs = [normalize(y[:, neuron], p[:, neuron]) for y, p in group(trials)]
        if any(abs(power - 1e-4) < 1e-9 for _, power in pairs):
            continue  # rounding decides on which side it is
        known = [value for value, _ in pairs if not np.isnan(value)]
        expected = np.mean(known) if known else np.nan
        assert np.isclose(found[neuron], expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    # A neuron that never responds has no signal, whatever is predicted.
    assert np.isnan(found[0])
    # A constant prediction tells nothing, also where there is signal.
    assert np.isnan(found[1]) or found[1] == 0


@given(recordings())
@settings(max_examples=150)
def test_correlation_per_movie_equals_its_formula(trials: Trials) -> None:
    repeated = multiply(trials)
    if repeated is None:
        return
    expected = np.mean([correlate(y.mean(axis=0), p.mean(axis=0)) for y, p in group(trials)], axis=0)
    assert np.allclose(repeated.correlation_per_movie(), expected, rtol=0, atol=1e-6)
    # What is resampled is the same reading.
    equal = [np.full((1, len(y)), 1 / len(y)) for y, _ in group(trials)]
    assert np.allclose(repeated.readings(equal, slice(None))[1][0], expected, rtol=0, atol=1e-5)


@given(recordings())
@settings(max_examples=150)
def test_differences_equal_those_within_each_trial(trials: Trials) -> None:
    y, p = (np.concatenate([np.diff(trial[i], axis=1) for trial in trials], axis=1) for i in (1, 2))
    assert np.allclose(take_differences(trials).correlation(), correlate(y, p), rtol=0, atol=1e-6)


@given(recordings(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_of_trials_does_not_matter(trials: Trials, random: object) -> None:
    shuffled = list(trials)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert np.allclose(take_differences(shuffled).correlation(), take_differences(trials).correlation(), atol=1e-9)
    before, after = multiply(trials), multiply(shuffled)
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert np.allclose(after.correlation_per_movie(), before.correlation_per_movie(), atol=1e-9)
        assert np.allclose(
            after.normalized_correlation(), before.normalized_correlation(), rtol=1e-6, atol=1e-9, equal_nan=True
        )


def test_the_nan_rule_counts_movies_where_there_is_signal() -> None:
    """A neuron with signal in one of two movies is scored on that one alone."""
    rng = np.random.default_rng(0)
    signal = rng.gamma(0.5, 4, (1, 200))
    loud = [signal + 0.1 * rng.normal(size=signal.shape) for _ in range(3)]
    silent = [np.full((1, 100), 2.0) for _ in range(3)]
    alone = RepeatedMovies([MovieProducts(loud, loud)]).normalized_correlation()
    both = RepeatedMovies([MovieProducts(loud, loud), MovieProducts(silent, silent)]).normalized_correlation()
    assert np.isfinite(alone).all()
    assert np.array_equal(alone, both)


def test_a_trace_that_is_not_finite_counts_as_zero_or_not_at_all() -> None:
    rng = np.random.default_rng(0)
    y = [rng.random((2, 30)) for _ in range(2)]
    y[0][0, 3] = np.nan
    movies = RepeatedMovies([MovieProducts(y, [rng.random((2, 30)) for _ in range(2)])])
    assert movies.correlation_per_movie()[0] == 0
    assert np.isnan(movies.normalized_correlation()[0])
    infinite = np.array([[1.0, np.inf, 2.0]])
    assert TrialMoments([2], [sum_differences(infinite, infinite)]).correlation() == 0


def test_trials_of_one_frame_have_no_difference() -> None:
    one, many = np.ones((1, 1)), np.array([[0.0, 1.0, 5.0]])
    moments = TrialMoments([0, 2], [sum_differences(one, one), sum_differences(many, many)])
    assert np.allclose(moments.correlation(), 1, atol=1e-7)
