"""Output nonlinearities."""

from __future__ import annotations

import numpy as np
import torch

from models.layers.outputs import elu1


def test_it_is_exponential_below_zero_and_linear_above():
    values = np.linspace(-4, 4, 33)
    expected = np.where(values > 0, values + 1, np.exp(np.minimum(values, 0)))
    np.testing.assert_allclose(elu1(torch.tensor(values)), expected, atol=1e-12)


def test_a_response_is_never_negative():
    assert (elu1(torch.tensor([-1e9, -100.0, -20.0])) >= 0).all()
