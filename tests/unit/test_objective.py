"""The loss that training minimizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from models.training.objective import poisson_loss, scale_for_batch
from sensorium_data.errors import UsageError


def test_differences_of_the_loss_are_those_of_the_poisson_likelihood():
    generator = np.random.default_rng(0)
    counts = generator.poisson(3.0, size=(2, 5, 7))
    rates = generator.uniform(0.5, 6.0, size=(2, 2, 5, 7))

    losses = [float(poisson_loss(torch.tensor(rate), torch.tensor(counts, dtype=torch.float64))) for rate in rates]

    likelihoods = [stats.poisson.logpmf(counts, rate).sum() for rate in rates]
    assert losses[0] - losses[1] == pytest.approx(-(likelihoods[0] - likelihoods[1]), abs=1e-5)


def test_a_prediction_of_zero_keeps_loss_and_gradient_finite():
    predictions = torch.zeros(1, 1, 3, requires_grad=True)
    loss = poisson_loss(predictions, torch.ones(1, 1, 3))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-3 * np.log(1e-8), rel=1e-5)
    assert torch.isfinite(predictions.grad).all()


def test_a_model_that_loses_frames_is_compared_with_the_last_ones():
    responses = torch.rand(2, 3, 10)
    predictions = torch.rand(2, 3, 6) + 0.1
    assert poisson_loss(predictions, responses) == poisson_loss(predictions, responses[..., 4:])


def test_more_predicted_than_recorded_frames_are_refused():
    with pytest.raises(UsageError, match="found 5, expected 4"):
        poisson_loss(torch.ones(1, 1, 5), torch.ones(1, 1, 4))


def test_the_scale_of_the_first_competition_mouse():
    # Session F: 711 trials of all tiers, batches of 8.
    assert scale_for_batch(711, 8) == pytest.approx(np.sqrt(711 / 8))
