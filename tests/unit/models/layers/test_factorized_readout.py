"""The factorized readout: a mask over space and weights of channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.numpy_networks import read_out_factorized
from models.layers import FactorizedReadout
from sensorium_data.errors import UsageError


def make_readout():
    torch.manual_seed(0)
    readout = FactorizedReadout(4, 3, (5, 7), init_std=0.5).double()
    with torch.no_grad():
        readout.bias.normal_()
    return readout


@pytest.mark.parametrize("training", [False, True])
def test_a_response_is_the_sum_over_the_map_with_an_outer_product(training):
    readout = make_readout().train(training)
    maps = torch.randn(6, 3, 5, 7, dtype=torch.float64)
    state = torch.get_rng_state()
    with torch.no_grad():
        found = readout(maps).numpy()
    # Nothing is drawn in training either.
    assert torch.equal(torch.get_rng_state(), state)
    weights = {name: value.numpy() for name, value in readout.state_dict().items()}
    np.testing.assert_allclose(found, read_out_factorized(maps.numpy(), weights), atol=1e-12)


def test_its_length_is_that_of_all_weights_written_out():
    readout = make_readout()
    mask, features = readout.mask.detach().numpy(), readout.features.detach().numpy()
    expected = sum(np.abs(np.multiply.outer(features[:, n], mask[n])).sum() for n in range(4))
    assert readout.length().item() == pytest.approx(expected, rel=1e-12)


def test_it_starts_near_zero():
    torch.manual_seed(0)
    readout = FactorizedReadout(50, 40, (10, 12))
    for parameter in (readout.mask, readout.features):
        assert parameter.std().item() == pytest.approx(1e-3, rel=0.05)
    assert torch.equal(readout.bias, torch.zeros(50))
    assert sum(p.numel() for p in readout.parameters()) == 50 * (40 + 10 * 12 + 1)


def test_maps_of_another_size_are_refused():
    with pytest.raises(UsageError, match="found 5 × 8, expected 5 × 7; choose an input_layout without padding"):
        make_readout()(torch.zeros(1, 3, 5, 8, dtype=torch.float64))
