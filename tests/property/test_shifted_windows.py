"""Which tokens see each other in shifted windows, whatever the sizes of maps and windows."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dynamic_v1fm.regions import plan_windows

SIZES = st.tuples(*[st.integers(1, 9)] * 3)
WINDOWS = st.tuples(*[st.integers(1, 5)] * 3)


def number_regions(size, window_size):
    """Mark the region of each place of the padded map: its window after the shift, and whether it came around."""
    axes = []
    for length, window in zip(size, window_size, strict=True):
        window = min(window, length)
        shift = window // 2 if length > window else 0
        padded = -(-length // window) * window
        axes.append([((at - shift) % padded // window, at < shift) for at in range(padded)])
    return {at: tuple(axes[i][x] for i, x in enumerate(at)) for at in product(*(range(len(axis)) for axis in axes))}


@settings(max_examples=60)
@given(size=SIZES, window_size=WINDOWS)
def test_each_token_is_asked_once_and_sees_its_region(size, window_size):
    plan = plan_windows(size, window_size, torch.device("cpu"))
    n_tokens = int(np.prod(size))
    queries, keys, is_padding = plan.queries.take.tolist(), plan.keys.take.tolist(), np.zeros(len(plan.keys.take), bool)
    is_padding[plan.keys.padding] = True
    assert sorted(queries) == list(range(n_tokens))
    np.testing.assert_array_equal(plan.queries.take[plan.queries.inverse], np.arange(n_tokens))
    np.testing.assert_array_equal(plan.keys.take[plan.keys.inverse], np.arange(n_tokens))
    expected = number_regions(size, window_size)
    members = Counter(expected.values())
    first_query = first_key = 0
    for region in plan.regions:
        for _ in range(region.n_windows):
            asked = queries[first_query : first_query + region.n_queries]
            places = [tuple(int(x) for x in np.unravel_index(token, size)) for token in asked]
            (number,) = {expected[at] for at in places}
            shown = slice(first_key, first_key + region.n_keys)
            seen = [key for key, pads in zip(keys[shown], is_padding[shown], strict=True) if not pads]
            assert sorted(seen) == sorted(asked)
            # Padding of the same region is seen too.
            assert region.n_keys == members[number]
            first_query += region.n_queries
            first_key += region.n_keys
    assert (first_query, first_key) == (len(queries), len(keys))
