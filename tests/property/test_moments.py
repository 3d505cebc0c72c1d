from __future__ import annotations

import itertools
import warnings

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sensorium_data.statistics.moments import Moments

VALUES = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))
NAMES = {"mean": np.nanmean, "std": np.nanstd, "min": np.nanmin, "max": np.nanmax}


@st.composite
def cut_arrays(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], list[int]]:
    """Arrays (trial, row, frame), and where their trials are cut into blocks."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4)))
    values = draw(arrays(np.float64, shape, elements=VALUES))
    cuts = draw(st.lists(st.integers(0, shape[0]), max_size=4))
    return values, [0, *sorted(cuts), shape[0]]


def assert_equal_to_numpy(moments: Moments, values: npt.NDArray[np.float64], axis: int | tuple[int, ...]) -> None:
    np.testing.assert_array_equal(moments.n, np.sum(~np.isnan(values), axis=axis))
    spread = np.nanmax(np.abs(values), initial=0.0)
    for name, with_numpy in NAMES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            expected = with_numpy(values, axis=axis)
        np.testing.assert_allclose(getattr(moments, name), expected, rtol=1e-9, atol=1e-13 * spread, err_msg=name)


@given(cut_arrays())
def test_blocks_give_what_numpy_gives_of_the_whole(cut: tuple[npt.NDArray[np.float64], list[int]]) -> None:
    values, edges = cut
    over_trials, over_both = Moments(values.shape[1:]), Moments(values.shape[1:2])
    for first, last in itertools.pairwise(edges):
        over_trials.add(values[first:last], axis=(0,))
        over_both.add(values[first:last], axis=(0, 2))
    assert_equal_to_numpy(over_trials, values, 0)
    assert_equal_to_numpy(over_both, values, (0, 2))
    assert_equal_to_numpy(over_both.over_all(), values, (0, 1, 2))


@given(cut_arrays())
def test_rows_may_come_apart(cut: tuple[npt.NDArray[np.float64], list[int]]) -> None:
    values, _ = cut
    whole, apart = Moments(values.shape[1:]), Moments(values.shape[1:])
    whole.add(values, axis=(0,))
    for row in reversed(range(values.shape[1])):
        apart.add(values[:, row : row + 1], axis=(0,), rows=slice(row, row + 1))
    # The processor adds up rows that lie together in another order than single ones.
    spread = np.nanmax(np.abs(values), initial=0.0)
    for name in NAMES:
        found, expected = getattr(apart, name), getattr(whole, name)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14 * spread, err_msg=name)


@given(st.floats(-1e100, 1e100), st.integers(1, 20), st.integers(1, 7))
def test_what_is_constant_has_no_spread_at_all(value: float, n: int, n_at_once: int) -> None:
    moments = Moments(())
    for start in range(0, n, n_at_once):
        moments.add(np.full(min(n_at_once, n - start), value), axis=(0,))
    assert moments.std == 0
    assert moments.mean == value
