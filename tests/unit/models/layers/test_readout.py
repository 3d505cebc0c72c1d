"""The Gaussian readout: where neurons look, and what they see there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.numpy_networks import sample_bilinearly
from models.layers import FullGaussianReadout

N_NEURONS, N_CHANNELS, HEIGHT, WIDTH = 7, 3, 5, 9


def make_readout(n_neurons=N_NEURONS, n_channels=N_CHANNELS, **settings):
    torch.manual_seed(0)
    positions = np.random.default_rng(0).uniform(-700, 300, (n_neurons, 2))
    return FullGaussianReadout(positions, n_channels, **settings)


def ramps(n_frames):
    """Feature maps whose two channels say where one looks: x and y, from −1 to 1."""
    x, y = np.meshgrid(np.linspace(-1, 1, WIDTH), np.linspace(-1, 1, HEIGHT))
    return torch.tensor(np.stack([x, y])[None].repeat(n_frames, axis=0), dtype=torch.float32)


def read_places(readout, n_frames, shift=(0.0, 0.0)):
    """Places that a readout looks at, (frame, neuron, 2), as it would say itself when shown the ramps."""
    places = []
    state = torch.get_rng_state()
    for axis in (0, 1):
        torch.set_rng_state(state)
        with torch.no_grad():
            readout.features.zero_()
            readout.features[axis] = 1
            places.append(readout(ramps(n_frames), torch.tensor([shift]).expand(n_frames, 2)).numpy())
    return np.stack(places, axis=-1)


def test_evaluation_interpolates_at_the_predicted_places_plus_the_shift():
    readout = make_readout().double().eval()
    generator = np.random.default_rng(1)
    features = generator.normal(size=(4, N_CHANNELS, HEIGHT, WIDTH))
    # The last frame's shift leads most neurons out of the map.
    shifts = np.array([[0.0, 0.0], [0.3, -0.2], [-0.7, 0.6], [1.4, 1.3]])
    with torch.no_grad():
        readout.features.normal_()
        readout.bias.normal_()
        found = readout(torch.tensor(features), torch.tensor(shifts)).numpy()

    weights = {name: value.numpy() for name, value in readout.state_dict().items()}
    hidden = weights["cortical_positions"] @ weights["position_predictor.0.weight"].T
    hidden = hidden + weights["position_predictor.0.bias"]
    hidden = np.where(hidden > 0, hidden, np.expm1(hidden))
    places = np.tanh(hidden @ weights["position_predictor.2.weight"].T + weights["position_predictor.2.bias"])
    expected = [
        [
            sample_bilinearly(frame, *(place + shift)) @ weights["features"][:, neuron] + weights["bias"][neuron]
            for neuron, place in enumerate(places)
        ]
        for frame, shift in zip(features, shifts, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_first_axis_of_a_place_runs_along_the_width():
    readout = make_readout(1, 1).eval()
    with torch.no_grad():
        readout.features.fill_(1)
        place = readout.predict_places()[0]
    features = torch.zeros(1, 1, HEIGHT, WIDTH)
    features[0, 0, 0, WIDTH - 1] = 1
    upper_right = torch.tensor([[1.0, -1.0]])
    assert readout(features, upper_right - place).item() == pytest.approx(1, abs=1e-5)


def test_training_interpolates_at_the_drawn_places_kept_in_the_frame_plus_the_shift():
    readout = make_readout().double().train()
    generator = np.random.default_rng(3)
    features = generator.normal(size=(4, N_CHANNELS, HEIGHT, WIDTH))
    shifts = generator.uniform(-0.5, 0.5, (4, 2))
    with torch.no_grad():
        readout.features.normal_()
        readout.bias.normal_()
        torch.manual_seed(7)
        found = readout(torch.tensor(features), torch.tensor(shifts)).numpy()
    torch.manual_seed(7)
    noise = torch.randn(4, N_NEURONS, 2, dtype=torch.float64).numpy()

    weights = {name: value.numpy() for name, value in readout.state_dict().items()}
    places = readout.predict_places().detach().numpy()
    # Wide Gaussians: some draws are clamped.
    drawn = places + np.einsum("nij,fnj->fni", weights["sigma"], noise)
    assert 0.1 < (np.abs(drawn) > 1).mean() < 0.9
    for frame, (shift, frame_places) in enumerate(zip(shifts, np.clip(drawn, -1, 1), strict=True)):
        for neuron, place in enumerate(frame_places):
            sampled = sample_bilinearly(features[frame], *(place + shift))
            expected = sampled @ weights["features"][:, neuron] + weights["bias"][neuron]
            assert found[frame, neuron] == pytest.approx(expected, abs=1e-12)


def test_training_draws_places_with_the_learned_covariance():
    readout = make_readout(n_channels=2).train()
    factors = np.random.default_rng(2).uniform(-0.1, 0.1, (N_NEURONS, 2, 2))
    with torch.no_grad():
        readout.sigma.copy_(torch.tensor(factors))
        mean = readout.predict_places().numpy()

    places = read_places(readout, 20_000)

    np.testing.assert_allclose(places.mean(axis=0), mean, atol=0.004)
    for neuron, factor in enumerate(factors):
        np.testing.assert_allclose(np.cov(places[:, neuron].T), factor @ factor.T, atol=6e-4)


def test_places_are_drawn_anew_for_every_frame_and_neuron():
    readout = make_readout(n_channels=2, init_sigma=0.1).train()
    drawn = read_places(readout, 5000)[..., 0]
    across_neurons = np.corrcoef(drawn.T) - np.eye(N_NEURONS)
    across_frames = [np.corrcoef(trace[:-1], trace[1:])[0, 1] for trace in drawn.T]
    assert np.abs(across_neurons).max() < 0.06
    assert np.abs(across_frames).max() < 0.06


def test_draws_stay_in_the_frame_but_shifts_may_leave_it():
    readout = make_readout(1, 1).train()
    with torch.no_grad():
        # Every draw is clamped to one of the corners.
        readout.sigma.copy_(1e6 * torch.eye(2))
        readout.features.fill_(1)
    frames = torch.ones(400, 1, HEIGHT, WIDTH)
    unshifted = readout(frames, torch.zeros(400, 2))
    shifted = readout(frames, torch.tensor([[0.5, 0.0]]).expand(400, 2))
    assert torch.allclose(unshifted, torch.ones(400, 1))
    # From the right corners the shift leads out of the map, where all is 0; from the left ones it leads inward.
    n_outside = int((shifted == 0).sum())
    assert n_outside + int((shifted == 1).sum()) == 400
    assert 150 < n_outside < 250


def test_evaluation_draws_nothing():
    readout = make_readout().eval()
    features, shift = torch.randn(3, N_CHANNELS, HEIGHT, WIDTH), torch.zeros(3, 2)
    state = torch.get_rng_state()
    first = readout(features, shift)
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        readout.sigma.normal_()
    assert torch.equal(first, readout(features, shift))


def test_it_starts_from_equal_weights_of_all_channels():
    readout = make_readout(2000, init_sigma=0.4)
    assert torch.equal(readout.features, torch.full((N_CHANNELS, 2000), 1 / 3))
    assert torch.equal(readout.bias, torch.zeros(2000))
    sigma = readout.sigma.detach().numpy()
    assert np.abs(sigma).max() <= 0.4
    # A uniform distribution on ±0.4 has the standard deviation 0.4 / √3.
    assert sigma.std() == pytest.approx(0.4 / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize(("n_neurons", "n_channels"), [(7863, 128), (10, 16)])
def test_the_published_number_of_parameters(n_neurons, n_channels):
    readout = FullGaussianReadout(np.random.default_rng(0).normal(size=(n_neurons, 2)), n_channels)
    assert sum(p.numel() for p in readout.parameters()) == n_neurons * (n_channels + 5) + 152


def test_gradients_reach_every_parameter_and_the_feature_map():
    readout = make_readout().train()
    features = torch.randn(6, N_CHANNELS, HEIGHT, WIDTH, requires_grad=True)
    shift = torch.zeros(6, 2, requires_grad=True)
    readout(features, shift).square().sum().backward()
    for name, parameter in [*readout.named_parameters(), ("features", features), ("shift", shift)]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_gradient_of_the_feature_map_is_the_finite_difference():
    readout = make_readout(3).double().eval()
    features = torch.randn(2, N_CHANNELS, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    shift = torch.randn(2, 2, dtype=torch.float64) * 0.1
    assert torch.autograd.gradcheck(lambda map_: readout(map_, shift), features, check_undefined_grad=False)
