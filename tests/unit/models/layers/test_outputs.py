"""Output nonlinearities."""

from __future__ import annotations

import numpy as np
import torch

from models.layers import elu1, invert_elu1


def test_it_is_exponential_below_zero_and_linear_above():
    values = np.linspace(-4, 4, 33)
    expected = np.where(values > 0, values + 1, np.exp(np.minimum(values, 0)))
    np.testing.assert_allclose(elu1(torch.tensor(values)), expected, atol=1e-12)


def test_a_response_is_never_negative():
    assert (elu1(torch.tensor([-1e9, -100.0, -20.0])) >= 0).all()


def test_the_inverse_leads_back_to_the_responses():
    responses = torch.tensor([0.01, 0.3, 1.0, 1.5, 40.0], dtype=torch.float64)
    torch.testing.assert_close(elu1(invert_elu1(responses)), responses)


def test_the_inverse_of_no_response_is_finite():
    torch.testing.assert_close(elu1(invert_elu1(torch.tensor([0.0, -1e-7]))), torch.full((2,), 0.01))
