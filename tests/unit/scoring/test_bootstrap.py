from __future__ import annotations

import numpy as np
import pytest

from sensorium_data.errors import UsageError
from sensorium_data.scoring import Bootstrap
from sensorium_data.scoring.bootstrap import TILT, Resampled, centered_interval
from sensorium_data.scoring.movie_products import MovieProducts, RepeatedMovies
from sensorium_data.scoring.trial_moments import TrialMoments, sum_trial


def test_draws_hang_on_seed_and_labels_alone() -> None:
    first = Bootstrap(200, seed=3).draw(7, "F", "oracle")
    assert np.array_equal(first, Bootstrap(200, seed=3).draw(7, "F", "oracle"))
    assert not np.array_equal(first, Bootstrap(200, seed=4).draw(7, "F", "oracle"))
    assert not np.array_equal(first, Bootstrap(200, seed=3).draw(7, "G", "oracle"))
    assert (first.sum(axis=1) == 7).all()
    assert first.mean(axis=0) == pytest.approx(np.ones(7), abs=0.2)


@pytest.mark.parametrize("n", [2, 3, 8, 9])
def test_tilted_averages_scatter_as_much_as_the_mean_does(n: int) -> None:
    values = np.random.default_rng(0).normal(size=n)
    weights = Bootstrap(20_000).tilt(n)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert (weights > 0).all()
    assert np.square(weights).sum(axis=1) == pytest.approx((1 + TILT**2) / n), "equally noisy in every resample"
    assert np.std(weights @ values) / TILT == pytest.approx(values.std(ddof=1) / np.sqrt(n), rel=0.03)


def test_interval_has_the_resamples_percentiles_around_the_estimate() -> None:
    replicates = np.random.default_rng(0).gamma(2, size=(5000, 2))
    low, high = centered_interval(np.array([10.0, -1.0]), replicates, 0.9)
    for i, estimate in enumerate((10.0, -1.0)):
        centered = replicates[:, i] - replicates[:, i].mean() + estimate
        assert (low[i], high[i]) == pytest.approx((np.percentile(centered, 5), np.percentile(centered, 95)))


def test_numbers_resampled_alike_can_be_added_and_compared() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=1000)
    a, b = Resampled(0.5, 0.5 + common), Resampled(0.4, 0.4 + common + 0.01 * rng.normal(size=1000))
    difference = Resampled.add([a, b], [1, -1])
    low, high = difference.interval(0.95)
    # Pairing takes out what both share.
    assert (low, high) == pytest.approx((0.1 - 0.0196, 0.1 + 0.0196), abs=0.002)
    assert a.interval(0.95)[1] - a.interval(0.95)[0] > 3
    mean = Resampled.add([a, b], [0.25, 0.75])
    assert mean.estimate == pytest.approx(0.425)
    assert mean.replicates == pytest.approx(0.25 * a.replicates + 0.75 * b.replicates)


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(0)
    moments = TrialMoments([5] * 4, [sum_trial(*rng.normal(size=(2, 1000, 5))) for _ in range(4)])
    how = Bootstrap(300)
    one, many = (moments.bootstrap(how, "F", jobs=jobs) for jobs in (1, 4))
    assert np.array_equal(one[0].replicates, many[0].replicates)
    assert np.array_equal(one[1], many[1])
    assert one[0].estimate == pytest.approx(moments.correlation().mean())
    resampled = moments.weighted_correlation(how.draw(4, "trials", "F"), slice(None))
    assert one[0].replicates == pytest.approx(resampled.mean(axis=1))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Many recordings of one population: trials differ in gain and in drift that neurons share."""
    rng = np.random.default_rng(0)
    n_neurons, n_frames, n_movies, n_repeats, n_recordings = 30, 60, 6, 9, 150
    signal_MNT = rng.normal(size=(n_movies, n_neurons, n_frames))
    model_MNT = signal_MNT + 0.7 * rng.normal(size=signal_MNT.shape)
    found: dict[str, list[tuple[float, float, float]]] = {"trials": [], "repeats": []}
    of_neurons: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    how = Bootstrap(300)
    for _ in range(n_recordings):
        sums, movies = [], []
        for signal_NT, model_NT in zip(signal_MNT, model_MNT, strict=True):
            drifts = rng.normal(size=(n_repeats, 1, n_frames))
            gains = 1 + 0.5 * rng.normal(size=(n_repeats, 1, 1))
            responses = signal_NT * gains + 0.8 * drifts + 1.5 * rng.normal(size=(n_repeats, n_neurons, n_frames))
            predictions = model_NT + 0.2 * drifts
            sums += [sum_trial(a, b) for a, b in zip(responses, predictions, strict=True)]
            movies.append(MovieProducts(list(responses), list(predictions)))
        moments, repeated = TrialMoments([n_frames] * len(sums), sums), RepeatedMovies(movies)
        for name, (mean, low, high) in (("trials", moments.bootstrap(how)), ("repeats", repeated.bootstrap(how))):
            found[name].append((mean.estimate, *mean.interval(0.95)))
            if name == "trials":
                of_neurons.append((moments.correlation(), low, high))
    for intervals in found.values():
        estimate, low, high = np.array(intervals).T
        truth = estimate.mean()
        covered = ((low < truth) & (truth < high)).mean()
        # 150 recordings: 0.95 ± 2.5 standard errors, and a little less for the few trials.
        assert 0.87 <= covered <= 1, covered
        # Not for being too wide.
        assert np.mean(high - low) / 3.92 == pytest.approx(estimate.std(), rel=0.25)
    estimate_RN, low_RN, high_RN = (np.array(part) for part in zip(*of_neurons, strict=True))
    covered = ((low_RN < estimate_RN.mean(axis=0)) & (estimate_RN.mean(axis=0) < high_RN)).mean()
    assert 0.91 <= covered <= 0.97, covered


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((99,), "too few resamples: found 99, expected 100 to 20,000"),
        ((10**20,), "too many resamples: found 100000000000000000000, expected 100 to 20,000"),
        ((100, -1), "no such seed: found -1"),
        ((100, 0, 1.0), "no such confidence: found 1.0"),
    ],
)
def test_resampling_that_says_nothing_is_refused(arguments: tuple[float, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Bootstrap(*arguments)  # type: ignore[arg-type]
