"""What holds for any filters, positions and feature maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.layers import FullGaussianReadout, normalize_positions, spatial_roughness, temporal_roughness

POSITIONS = hnp.arrays(
    np.float64, st.tuples(st.integers(2, 20), st.just(2)), elements=st.integers(-1500, 1500).map(float)
)
FILTERS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-10, 10, width=32),
)


@given(POSITIONS)
def test_normalized_positions_touch_the_edge_of_the_unit_square(positions):
    assume(np.ptp(positions, axis=0).max() > 0)
    normalized = normalize_positions(positions)
    assert np.abs(normalized).max() == 1
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-6)


@given(POSITIONS, st.floats(-1e4, 1e4), st.floats(0.01, 100))
def test_the_unit_and_the_origin_of_positions_do_not_matter(positions, offset, unit):
    assume(np.ptp(positions, axis=0).max() > 0)
    np.testing.assert_allclose(
        normalize_positions(positions * unit + offset), normalize_positions(positions), atol=1e-4
    )


@given(FILTERS, st.floats(0.01, 100))
def test_scaling_filters_does_not_change_their_roughness(filters, factor):
    assume(np.square(filters).sum() > 1e-6)
    weights = torch.tensor(filters)
    assert float(spatial_roughness(factor * weights)) == pytest.approx(float(spatial_roughness(weights)), rel=1e-9)


@given(FILTERS)
def test_roughness_is_bounded_by_the_kernels_largest_gain(filters):
    assume(np.square(filters).sum() > 1e-6)
    weights = torch.tensor(filters)
    # The kernels' Fourier transforms reach 8 and 6 where neighbors alternate.
    assert 0 <= float(spatial_roughness(weights)) <= 64
    assert 0 <= float(temporal_roughness(weights.flatten(2))) <= 36


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))
def test_a_readout_without_bias_is_linear_in_the_feature_map(seed, factor, shift_x, shift_y):
    generator = torch.Generator().manual_seed(seed)
    readout = FullGaussianReadout(np.random.default_rng(seed).normal(size=(5, 2)), n_channels=3).double().eval()
    one, other = torch.randn(2, 4, 3, 6, 8, generator=generator, dtype=torch.float64)
    shift = torch.tensor([[shift_x, shift_y]], dtype=torch.float64).expand(4, 2)
    with torch.no_grad():
        torch.testing.assert_close(
            readout(one + factor * other, shift), readout(one, shift) + factor * readout(other, shift)
        )


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_places_are_drawn_inside_of_the_frame(seed, n_neurons):
    torch.manual_seed(seed)
    readout = FullGaussianReadout(np.random.default_rng(seed).normal(size=(n_neurons, 2)), 1, init_sigma=3.0).train()
    with torch.no_grad():
        # On a map of ones, with weights of 1, whoever looks inside of the frame reads 1.
        seen = readout(torch.ones(20, 1, 4, 6), torch.zeros(20, 2))
    torch.testing.assert_close(seen, torch.ones(20, n_neurons))
