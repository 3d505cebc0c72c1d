"""Gradients that are too long are shortened."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.tiny_training import tiny_config
from models.training.clipping import NormClipping, PercentileClipping, make_clipping


def parameters_with(gradients):
    parameters = [torch.nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return [*parameters, torch.nn.Parameter(torch.zeros(2))]  # the last one has no gradient


def norm_of(parameters):
    return np.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in parameters if p.grad is not None))


def test_long_gradients_get_the_norm_and_keep_their_direction_and_short_ones_stay():
    parameters = parameters_with([[3.0, 0.0], [0.0, 4.0]])
    assert NormClipping(1.0).clip(parameters) == pytest.approx(5.0)
    np.testing.assert_allclose(parameters[0].grad, [0.6, 0.0], rtol=1e-5)
    np.testing.assert_allclose(parameters[1].grad, [0.0, 0.8], rtol=1e-5)
    parameters = parameters_with([[0.3, 0.0], [0.0, 0.4]])
    NormClipping(1.0).clip(parameters)
    np.testing.assert_allclose(parameters[1].grad, [0.0, 0.4])


def test_the_limit_is_a_percentile_of_all_gradients_before():
    random = np.random.default_rng(0)
    clipping = PercentileClipping(10.0)
    norms = []
    for _ in range(30):
        gradient = random.normal(size=4).astype(np.float32) * random.uniform(0.1, 10)
        norm = float(np.linalg.norm(gradient.astype(float)))
        parameters = parameters_with([gradient])
        clipping.clip(parameters)
        limit = np.percentile(norms, 10) if norms else np.inf
        assert norm_of(parameters) == pytest.approx(min(norm, limit), rel=1e-4)
        norms.append(norm)
    np.testing.assert_allclose(clipping.norms, norms, rtol=1e-5)


def test_a_gradient_that_is_no_number_is_not_remembered():
    clipping = PercentileClipping(50.0)
    clipping.clip(parameters_with([[1.0]]))
    assert np.isinf(clipping.clip(parameters_with([[np.inf]])))
    assert clipping.norms.tolist() == [1.0]


def test_remembered_norms_go_on():
    first, second = PercentileClipping(50.0), PercentileClipping(50.0)
    for norm in (1.0, 3.0):
        first.choose_limit(norm)
    second.norms = first.norms
    assert second.choose_limit(9.0) == first.choose_limit(9.0) == 2.0


def test_recipes_choose():
    assert make_clipping(tiny_config()) is None
    assert isinstance(make_clipping(tiny_config(max_gradient_norm=1.0)), NormClipping)
    assert isinstance(make_clipping(tiny_config(gradient_norm_percentile=10.0)), PercentileClipping)
