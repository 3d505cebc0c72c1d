from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sensorium_data.scoring import CorrelationAccumulator
from sensorium_data.scoring.correlation import correlation_to_average, single_trial_correlation

FINITE = st.floats(-1e6, 1e6, width=32)


@st.composite
def pairs(draw: st.DrawFn, max_neurons: int = 3, max_frames: int = 40) -> tuple[npt.NDArray[np.float64], ...]:
    shape = draw(st.tuples(st.integers(1, max_neurons), st.integers(1, max_frames)))
    return draw(arrays(np.float64, shape, elements=FINITE)), draw(arrays(np.float64, shape, elements=FINITE))


def correlate_whole_arrays(a_NT: np.ndarray, b_NT: np.ndarray) -> np.ndarray:
    a_NT = (a_NT - a_NT.mean(1, keepdims=True)) / (a_NT.std(1, keepdims=True) + 1e-8)
    b_NT = (b_NT - b_NT.mean(1, keepdims=True)) / (b_NT.std(1, keepdims=True) + 1e-8)
    return (a_NT * b_NT).mean(1)


def is_well_conditioned(*signals: np.ndarray) -> bool:
    """Whether rounding of the mean is far below the spread of every trace."""
    return all((signal.std(1) > 1e-6 * (1 + np.abs(signal).max(1))).all() for signal in signals)


def accumulate(a: np.ndarray, b: np.ndarray, cuts: list[int]) -> CorrelationAccumulator:
    accumulator = CorrelationAccumulator(len(a))
    edges = [0, *sorted(cut % (a.shape[1] + 1) for cut in cuts), a.shape[1]]
    for first, last in itertools.pairwise(edges):
        accumulator.update(a[:, first:last], b[:, first:last])
    return accumulator


@given(pairs(), st.lists(st.integers(0, 100), max_size=5))
def test_cutting_into_blocks_changes_nothing(signals: tuple[np.ndarray, ...], cuts: list[int]) -> None:
    a, b = signals
    assume(is_well_conditioned(a, b))
    assert np.allclose(accumulate(a, b, cuts).correlation(), correlate_whole_arrays(a, b), rtol=0, atol=1e-8)


@given(pairs(), st.lists(st.integers(0, 100), min_size=1, max_size=4), st.integers(0, 4))
def test_merging_parts_in_any_grouping_equals_the_whole(
    signals: tuple[np.ndarray, ...], cuts: list[int], n_first: int
) -> None:
    a, b = signals
    assume(is_well_conditioned(a, b))
    edges = [0, *sorted(cut % (a.shape[1] + 1) for cut in cuts), a.shape[1]]
    parts = [accumulate(a[:, i:j], b[:, i:j], []) for i, j in itertools.pairwise(edges)]
    first, second = CorrelationAccumulator(len(a)), CorrelationAccumulator(len(a))
    for index, part in enumerate(parts):
        (first if index < n_first else second).merge(part)
    assert np.allclose(second.merge(first).correlation(), correlate_whole_arrays(a, b), rtol=0, atol=1e-8)


@given(pairs())
def test_correlation_lies_between_minus_one_and_one_and_is_symmetric(signals: tuple[np.ndarray, ...]) -> None:
    a, b = signals
    forward, backward = (accumulate(x, y, []).correlation() for x, y in ((a, b), (b, a)))
    assert (np.abs(forward) <= 1 + 1e-9).all()
    assert np.array_equal(forward, backward)


@given(pairs(), st.floats(0.01, 100), st.floats(-100, 100))
def test_scale_and_offset_do_not_matter(signals: tuple[np.ndarray, ...], scale: float, offset: float) -> None:
    a, b = signals
    assume(is_well_conditioned(a, b, scale * b + offset))
    # Where the epsilon on the standard deviation does not tell.
    assume(min(a.std(1).min(), b.std(1).min(), (scale * b).std(1).min()) > 1e-2)
    before, after = accumulate(a, b, []).correlation(), accumulate(a, scale * b + offset, []).correlation()
    assert np.allclose(before, after, atol=1e-5)


@given(st.permutations(range(5)), st.integers(0, 2**32 - 1))
def test_order_of_trials_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths, movies = rng.integers(51, 60, 5), rng.integers(0, 2, 5)
    responses = [rng.random((2, n)) for n in lengths]
    predictions = [rng.random((2, n)) for n in lengths]
    shuffled = [[trials[i] for i in order] for trials in (responses, predictions, movies.tolist())]
    assert np.allclose(
        single_trial_correlation(responses, predictions), single_trial_correlation(*shuffled[:2]), atol=1e-12
    )
    assert np.allclose(
        correlation_to_average(responses, predictions, movies.tolist()),
        correlation_to_average(*shuffled),
        atol=1e-12,
        equal_nan=True,
    )


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_average_of_equal_repeats_is_the_single_trial_correlation(n_repeats: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    response, prediction = rng.random((3, 70)), rng.random((3, 70))
    single = single_trial_correlation([response], [prediction])
    average = correlation_to_average([response] * n_repeats, [prediction] * n_repeats, ["m"] * n_repeats)
    assert np.allclose(single, average, atol=1e-9)
