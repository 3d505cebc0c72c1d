"""Where in the frame neurons look, from where they lie in the cortex."""

from __future__ import annotations

import numpy as np
import torch

from fixtures.numpy_networks import elu, linear, part
from models.layers import PlacePredictor, normalize_positions


def test_places_are_predicted_by_one_hidden_layer_and_a_tanh():
    torch.manual_seed(0)
    predictor = PlacePredictor(7).double()
    weights = {name: value.numpy() for name, value in predictor.state_dict().items()}
    positions = np.random.default_rng(0).uniform(-1, 1, (11, 2))
    with torch.no_grad():
        found = predictor(torch.tensor(positions)).numpy()
    expected = np.tanh(linear(part(weights, "2"), elu(linear(part(weights, "0"), positions))))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_published_number_of_parameters():
    assert sum(p.numel() for p in PlacePredictor(30).parameters()) == 152


def test_positions_are_centered_and_scaled_alike_on_both_axes():
    positions = np.array([[0.0, 0.0], [400.0, 0.0], [200.0, 90.0]])
    expected = np.array([[-200, -30], [200, -30], [0, 60]]) / 200
    found = normalize_positions(positions)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_neurons_at_one_point_are_put_in_the_middle():
    assert np.array_equal(normalize_positions(np.full((3, 2), 512.0)), np.zeros((3, 2)))
