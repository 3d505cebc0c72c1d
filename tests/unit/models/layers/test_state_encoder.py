"""The state encoder, and what readouts make of its code."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import erf

from fixtures.numpy_networks import linear, part, read_out_gaussian
from models.layers import FullGaussianReadout, Shifter, StateEncoder


def randomize(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return {name: value.numpy() for name, value in module.state_dict().items()}


def encode_in_numpy(state, weights):
    hidden = linear(part(weights, "mlp.0"), state)
    centered = hidden - hidden.mean(axis=1, keepdims=True)
    hidden = centered / np.sqrt(hidden.var(axis=1, keepdims=True) + 1e-5) * weights["mlp.1.weight"]
    hidden = hidden + weights["mlp.1.bias"]
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    return np.tanh(linear(part(weights, "mlp.4"), hidden))


def test_it_is_two_linear_layers_with_a_layer_norm_and_gelu_between_them():
    torch.manual_seed(0)
    encoder = StateEncoder(4, 6).double().eval()
    weights = randomize(encoder)
    state = np.random.default_rng(0).normal(size=(9, 4))
    with torch.no_grad():
        found = encoder(torch.tensor(state)).numpy()
    np.testing.assert_allclose(found, encode_in_numpy(state, weights), atol=1e-12)


def test_the_published_number_of_parameters():
    # Linear(4, 112), layer norm, Linear(112, 112).
    assert sum(p.numel() for p in StateEncoder(4, 112).parameters()) == (4 + 1) * 112 + 2 * 112 + (112 + 1) * 112


def test_hidden_units_are_dropped_in_training_only():
    torch.manual_seed(0)
    encoder, state = StateEncoder(4, 50, dropout=0.5), torch.randn(3, 4)
    assert not torch.equal(encoder(state), encoder(state))
    encoder.eval()
    assert torch.equal(encoder(state), encoder(state))


def test_a_readout_adds_the_code_to_the_features_at_every_place():
    torch.manual_seed(0)
    generator = np.random.default_rng(1)
    readout = FullGaussianReadout(generator.normal(size=(5, 2)), 3).double().eval()
    shifter = Shifter().double()
    readout_weights, shifter_weights = randomize(readout), randomize(shifter)
    maps, pupil_center, code = (torch.tensor(generator.normal(size=s)) for s in ((4, 3, 5, 7), (4, 2), (4, 3)))
    with torch.no_grad():
        found = readout(maps, shifter(pupil_center), code).numpy()
    expected = read_out_gaussian(
        maps.numpy(), readout_weights, shifter_weights, pupil_center.numpy(), state_FC=code.numpy()
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)
