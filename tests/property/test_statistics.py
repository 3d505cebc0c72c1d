"""Statistics with gaps of any form are filled as a loop over rows and frames fills them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sensorium_data.errors import UsageError
from sensorium_data.statistics import measure_coverage, response_precision
from sensorium_data.statistics.statistics import fill_missing_frames, invert_scale

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)
# Nothing so small that its inverse is no float32: recorded statistics are far from that.
KNOWN = st.one_of(st.just(0.0), st.floats(2.0**-60, 1e4, width=32))


def tables(elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, SHAPES, elements=elements)


def carry_on(row: np.ndarray, nothing: float) -> list[float]:
    """The last known value of a row at each frame, the first known one before it."""
    known = [value for value in row if not np.isnan(value)]
    last, filled = known[0] if known else nothing, []
    for value in row:
        last = last if np.isnan(value) else value
        filled.append(last)
    return filled


@given(tables(st.one_of(st.just(float("nan")), KNOWN)))
def test_precision_is_the_starter_kits_of_the_last_known_standard_deviations(std: np.ndarray) -> None:
    known = std[~np.isnan(std)]
    if not known.size or known.mean() == 0:
        with pytest.raises(UsageError, match="no positive mean"):
            response_precision(std)
        return
    threshold = 0.01 * known.mean()
    expected = [[1 / (s if s > threshold else threshold) for s in carry_on(row, threshold)] for row in std]
    np.testing.assert_array_equal(response_precision(std), np.array(expected).astype(np.float32))


@given(tables(KNOWN).filter(lambda std: std.mean() > 0))
def test_precision_of_whole_statistics_is_the_formula_bit_by_bit(std: np.ndarray) -> None:
    threshold = 0.01 * float(std.ravel().mean())
    expected = (1 / np.where(std > threshold, std, threshold)).astype(np.float32)
    np.testing.assert_array_equal(response_precision(std).view(np.uint32), expected.view(np.uint32))


@given(tables(st.one_of(st.just(float("nan")), st.floats(-1e4, 1e4, width=32))), st.floats(-5, 5, width=32))
def test_offsets_and_scales_of_inputs_are_carried_on_along_either_axis(values: np.ndarray, missing: float) -> None:
    expected = np.array([carry_on(row, missing) for row in values])
    np.testing.assert_array_equal(fill_missing_frames(values, axis=1, missing=missing), expected)
    np.testing.assert_array_equal(fill_missing_frames(values.T, axis=0, missing=missing), expected.T)
    scales = np.array([[1 / s if s != 0 else 1.0 for s in carry_on(row, 1.0)] for row in values])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(invert_scale(values, axis=1), scales.astype(np.float32))


@given(tables(st.sampled_from([float("nan"), 0.0, 2.0])), st.data())
def test_what_is_covered_is_counted_value_by_value(std: np.ndarray, data: st.DataObject) -> None:
    n_frames = data.draw(st.integers(1, std.shape[1]))
    mean = np.where(data.draw(hnp.arrays(bool, std.shape)), 1.0, np.nan)
    known = ~np.isnan(std) & ~np.isnan(mean)
    frames = [t for t in range(n_frames) if known[:, t].any()]
    rows = [r for r in range(len(std)) if known[r, :n_frames].any()]
    found = measure_coverage("responses", mean, std, n_frames)
    assert (found.n_frames, found.n_rows) == (n_frames, len(std))
    assert (found.first_frame, found.end_frame) == ((frames[0], frames[-1] + 1) if frames else (0, 0))
    assert found.is_known == bool(frames)
    assert found.n_rows_unknown == len(std) - len(rows)
    assert found.n_unknown == sum(not known[r, t] for r in rows for t in range(found.first_frame, found.end_frame))
    constant = [r for r in rows if all(std[r, t] == 0 for t in range(n_frames) if known[r, t])]
    assert found.n_rows_constant == len(constant)
    assert found.n_frames_constant == sum(all(std[r, t] == 0 for r in rows if known[r, t]) for t in frames)
    assert found.is_constant == (bool(rows) and constant == rows)
