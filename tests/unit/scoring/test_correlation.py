from __future__ import annotations

import numpy as np
import pytest

from sensorium_data.errors import UsageError
from sensorium_data.scoring import CorrelationAccumulator
from sensorium_data.scoring.correlation import (
    RepeatAverager,
    correlation_to_average,
    mean_over_mice,
    mean_over_neurons,
    single_trial_correlation,
)


def make_trials(n_neurons: int, lengths: list[int], seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    responses = [rng.gamma(0.3, 10, (n_neurons, n)).astype(np.float32) for n in lengths]
    predictions = [(0.3 * r + rng.random(r.shape)).astype(np.float32) for r in responses]
    return responses, predictions


def correlate_whole_arrays(a_NT: np.ndarray, b_NT: np.ndarray) -> np.ndarray:
    """The kernel as the reference implementations write it, on everything at once."""
    a_NT, b_NT = a_NT.astype(np.float64), b_NT.astype(np.float64)
    a_NT = (a_NT - a_NT.mean(1, keepdims=True)) / (a_NT.std(1, keepdims=True) + 1e-8)
    b_NT = (b_NT - b_NT.mean(1, keepdims=True)) / (b_NT.std(1, keepdims=True) + 1e-8)
    correlation = (a_NT * b_NT).mean(1)
    correlation[np.isnan(correlation)] = 0
    return correlation


def test_single_trial_correlation_is_pearsons_over_the_joined_trials() -> None:
    responses, predictions = make_trials(4, [300, 240, 324])
    found = single_trial_correlation(responses, predictions)
    a, b = (np.concatenate([trial[:, 50:] for trial in trials], axis=1) for trials in (responses, predictions))
    assert np.allclose(found, correlate_whole_arrays(a, b), rtol=0, atol=1e-12)
    assert np.allclose(found, [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)], rtol=0, atol=1e-7)


def test_first_fifty_frames_of_every_trial_do_not_count() -> None:
    responses, predictions = make_trials(3, [80, 90])
    before = single_trial_correlation(responses, predictions)
    for response, prediction in zip(responses, predictions, strict=True):
        response[:, :50], prediction[:, :50] = 1e6, np.nan
    assert np.array_equal(single_trial_correlation(responses, predictions), before)
    assert not np.array_equal(single_trial_correlation(responses, responses, skip_frames=0), before)


def test_constant_trace_scores_zero() -> None:
    responses, predictions = make_trials(3, [80, 90])
    for trial in predictions:
        trial[1] = 0.1
    for trial in responses:
        trial[2] = 0
    assert np.allclose(single_trial_correlation(responses, predictions)[1:], 0, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_trace_that_is_not_finite_scores_zero_and_leaves_the_others_alone(value: float) -> None:
    responses, predictions = make_trials(3, [80, 90])
    before = single_trial_correlation(responses, predictions)
    predictions[1][1, 77] = value
    after = single_trial_correlation(responses, predictions)
    assert after[1] == 0
    assert np.array_equal(after[[0, 2]], before[[0, 2]])


def test_large_offset_costs_no_digits() -> None:
    # Sums of squares would lose every digit of these.
    rng = np.random.default_rng(0)
    a = [rng.standard_normal((2, 100)) + 1e7 for _ in range(5)]
    b = [x + rng.standard_normal(x.shape) for x in a]
    found = single_trial_correlation(a, b)
    whole_a, whole_b = (np.concatenate([x[:, 50:] for x in trials], axis=1) for trials in (a, b))
    assert np.allclose(found, correlate_whole_arrays(whole_a, whole_b), atol=1e-8)


def test_tiny_signals_are_pulled_towards_zero_as_the_reference_does() -> None:
    # The epsilon is on the standard deviation: signals of its size correlate less.
    rng = np.random.default_rng(0)
    a = 1e-8 * rng.standard_normal((1, 5000))
    assert single_trial_correlation([a], [a], skip_frames=0)[0] == pytest.approx(0.25, abs=0.02)
    assert np.allclose(single_trial_correlation([a], [a], skip_frames=0), correlate_whole_arrays(a, a))


def test_correlation_to_average_averages_the_repeats_first() -> None:
    movies = ["a", "b", "a", "b", "a"]
    responses, predictions = make_trials(4, [100, 90, 100, 90, 100])
    found = correlation_to_average(responses, predictions, movies)
    averages = []
    for trials in (responses, predictions):
        a = np.mean([trials[i][:, 50:].astype(np.float64) for i in (0, 2, 4)], axis=0)
        b = np.mean([trials[i][:, 50:].astype(np.float64) for i in (1, 3)], axis=0)
        averages.append(np.concatenate([a, b], axis=1))
    assert np.allclose(found, correlate_whole_arrays(*averages), atol=1e-12)


def test_only_frames_that_all_repeats_have_are_averaged() -> None:
    responses, predictions = make_trials(4, [100, 97])
    found = correlation_to_average(responses, predictions, ["a", "a"])
    a, b = (np.mean([trial[:, 50:97].astype(np.float64) for trial in trials], 0) for trials in (responses, predictions))
    assert np.allclose(found, correlate_whole_arrays(a, b), atol=1e-12)


def test_movies_shown_once_do_not_enter_the_correlation_to_average() -> None:
    responses, predictions = make_trials(4, [100, 100, 100])
    with_single = correlation_to_average(responses, predictions, ["a", "b", "a"])
    without = correlation_to_average([responses[0], responses[2]], [predictions[0], predictions[2]], ["a", "a"])
    assert np.array_equal(with_single, without)
    assert np.isnan(correlation_to_average(responses, predictions, ["a", "b", "c"])).all()


def test_average_of_noisy_repeats_correlates_better_than_single_trials() -> None:
    rng = np.random.default_rng(0)
    rate = rng.random((5, 300))
    responses = [rate + rng.standard_normal(rate.shape) for _ in range(10)]
    predictions = [rate] * 10
    single = single_trial_correlation(responses, predictions)
    average = correlation_to_average(responses, predictions, ["a"] * 10)
    assert (average > single + 0.2).all()


def test_two_aggregations_weigh_mice_differently() -> None:
    few, many = np.array([1.0]), np.array([0.0, 0.0, 0.0])
    assert mean_over_neurons([few, many]) == 0.25
    assert mean_over_mice([few, many]) == 0.5
    assert np.isnan(mean_over_neurons([]))
    assert np.isnan(mean_over_mice([]))


def test_shapes_that_do_not_match_are_refused() -> None:
    accumulator = CorrelationAccumulator(2)
    with pytest.raises(UsageError, match=r"found \(2, 3\) and \(2, 4\), expected two arrays of \(2, frames\)"):
        accumulator.update(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(UsageError, match=r"found \(3, 3\)"):
        accumulator.update(np.zeros((3, 3)), np.zeros((3, 3)))
    with pytest.raises(UsageError, match="different neurons"):
        accumulator.merge(CorrelationAccumulator(3))
    with pytest.raises(UsageError, match="no frame to score: expected trials of more than 50 frames"):
        single_trial_correlation([np.zeros((2, 50))], [np.zeros((2, 50))])
    with pytest.raises(UsageError, match="different shape"):
        correlation_to_average([np.zeros((2, 60))], [np.zeros((2, 61))], ["a"])


def test_nothing_seen_is_not_known_rather_than_zero() -> None:
    assert np.isnan(CorrelationAccumulator(2).correlation()).all()


def test_averager_keeps_the_signals_it_was_given() -> None:
    first = np.ones((1, 3), np.float32)
    averager = RepeatAverager()
    averager.add(first, 2 * first)
    averager.add(3 * first, 4 * first)
    assert [average.tolist() for average in averager.averages()] == [[[2.0] * 3], [[3.0] * 3]]
    assert first.tolist() == [[1.0] * 3]
