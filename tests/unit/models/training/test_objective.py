"""The loss that training minimizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from fixtures.tiny_training import tiny_config
from models.training.objective import (
    Objective,
    SessionCount,
    correlation_loss,
    poisson_loss,
    scale_for_batch,
    shifted_poisson_loss,
)
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


def test_both_sides_are_shifted_where_vivit_shifts_them():
    generator = np.random.default_rng(0)
    predictions, responses = generator.gamma(1, 1, (2, 2, 3, 5))
    expected = ((predictions + 0.25) - (responses + 0.25) * np.log(predictions + 0.25)).sum()
    found = shifted_poisson_loss(torch.tensor(predictions), torch.tensor(responses), epsilon=0.25)
    assert float(found) == pytest.approx(expected)


def test_the_correlation_loss_is_one_minus_each_neurons_correlation():
    generator = np.random.default_rng(1)
    predictions, responses = generator.gamma(1, 1, (2, 3, 4, 6))
    predictions[:, 2] = 1.5  # a constant trace correlates with nothing
    expected = 4 - sum(
        np.corrcoef(predictions[:, n].ravel(), responses[:, n].ravel())[0, 1] for n in range(4) if n != 2
    )
    asked = torch.tensor(predictions, requires_grad=True)
    found = correlation_loss(asked, torch.tensor(responses))
    found.backward()
    assert float(found.detach()) == pytest.approx(expected, abs=1e-6)
    assert torch.isfinite(asked.grad).all()
    assert (asked.grad[:, 2] == 0).all()


def test_the_correlation_loss_adds_the_epsilon_of_float32_to_both_deviations():
    generator = np.random.default_rng(1)
    # So quiet that the epsilon counts, and is told from 1e-8, which the competition adds.
    predictions, responses = 1e-6 * generator.normal(size=(2, 3, 1, 6))
    p, r = predictions - predictions.mean(), responses - responses.mean()
    epsilon = np.finfo(np.float32).eps
    expected = 1 - np.mean((p / (p.std() + epsilon)) * (r / (r.std() + epsilon)))
    found = correlation_loss(torch.tensor(predictions), torch.tensor(responses))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_ranks_correlation_gradients_add_up_to_the_whole_batchs():
    torch.manual_seed(0)
    predictions, responses = torch.rand(5, 3, 4, dtype=torch.float64), torch.rand(5, 3, 4, dtype=torch.float64)
    whole = predictions.clone().requires_grad_()
    # Gradients by differences of the formula: no autograd, no ranks.
    expected = np.zeros(predictions.shape)

    def loss(values):
        pairs = ((values[:, n].ravel(), responses[:, n].numpy().ravel()) for n in range(3))
        return sum(1 - np.corrcoef(p, r)[0, 1] for p, r in pairs)

    for index in np.ndindex(*predictions.shape):
        step = np.zeros(predictions.shape)
        step[index] = 1e-6
        expected[index] = (loss(predictions.numpy() + step) - loss(predictions.numpy() - step)) / 2e-6

    def rank_of(rows, others):
        """One rank's part; the sums over ranks are taken with what the other rank would send, in the same order."""
        sent = iter(others)
        return lambda tensor: tensor + next(sent)

    def messages(rows, received):
        """What a rank sends, given what it receives."""
        sent = []

        def exchange(tensor):
            sent.append(tensor.detach().clone())
            return tensor + received[len(sent) - 1] if len(received) >= len(sent) else tensor

        correlation_loss(predictions[rows], responses[rows], sum_over_ranks=exchange)
        return sent

    sides = slice(0, 5, 2), slice(1, 5, 2)
    sent = [[], []]
    # The later messages depend on the earlier ones: six of them are settled after as many exchanges.
    for _ in range(6):
        sent = [messages(sides[0], sent[1]), messages(sides[1], sent[0])]
    for side, others in zip(sides, sent[::-1], strict=True):
        correlation_loss(whole[side], responses[side], sum_over_ranks=rank_of(side, others)).backward()
    np.testing.assert_allclose(whole.grad.numpy(), expected, atol=1e-6)


COUNTS = {
    "F": SessionCount(n_trials=700, n_training_trials=350),
    "G": SessionCount(n_trials=600, n_training_trials=250),
}


@pytest.mark.parametrize(
    ("rule", "rows", "expected"),
    [
        ("starter-kit", {"F": 8}, {"F": np.sqrt(700 / 8)}),
        ("starter-kit", {"F": 3, "G": 5}, {"F": np.sqrt(700 / 3), "G": np.sqrt(600 / 5)}),
        # Each window alike, whatever its session: their mean.
        ("dwiseneuro", {"F": 20, "G": 12}, {"F": 1 / 32, "G": 1 / 32}),
        # A sum over the windows.
        ("dynamic-v1fm", {"F": 32}, {"F": 1.0}),
        ("vivit", {"G": 6}, {"G": np.sqrt(250 / 6)}),
        ("vivit-closed-loop", {"F": 1}, {"F": 600 / (350 * 2) / (2 * 1)}),
        ("vivit-closed-loop", {"G": 4}, {"G": 600 / (250 * 2) / (2 * 4)}),
    ],
)
def test_a_window_weighs_what_the_reference_says(rule, rows, expected):
    assert Objective(tiny_config(loss_scale=rule), COUNTS).weigh(rows) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rule", "epsilon"), [("starter-kit", 1e-8), ("dwiseneuro", 1e-8), ("dynamic-v1fm", 1e-8), ("vivit", 2.0**-23)]
)
def test_logarithms_are_kept_finite_as_in_the_reference(rule, epsilon):
    zero, one = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    assert float(Objective(tiny_config(loss_scale=rule), COUNTS).poisson(zero, one)) == pytest.approx(-np.log(epsilon))
    other = Objective(tiny_config(loss_scale=rule, loss_epsilon=0.01), COUNTS)
    assert float(other.poisson(zero, one)) == pytest.approx(-np.log(0.01), rel=0.02)


def test_the_correlation_term_has_its_weight():
    objective = Objective(tiny_config(loss="poisson-correlation"), COUNTS)
    torch.manual_seed(0)
    predictions, responses = torch.rand(2, 3, 5), torch.rand(2, 3, 9)
    found = objective.correlation(predictions, responses, sum_over_ranks=lambda tensor: tensor)
    assert float(found) == pytest.approx(1000 * float(correlation_loss(predictions, responses[..., 4:])))
    assert Objective(tiny_config(), COUNTS).correlation(predictions, responses, sum_over_ranks=None) is None
