"""The running mean of the weights."""

from __future__ import annotations

import numpy as np
import torch

from models.training.ema import WeightAverage


def test_the_average_follows_its_formula_in_weights_and_statistics():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    expected = {name: tensor.double().numpy().copy() for name, tensor in model.state_dict().items()}
    average = WeightAverage(model, 0.9)
    for _ in range(5):
        model(torch.randn(8, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(model)
        for name, tensor in model.state_dict().items():
            expected[name] = 0.9 * expected[name] + 0.1 * tensor.double().numpy()
    for name, found in average.weights.items():
        if name == "1.num_batches_tracked":
            assert found == 5
        else:
            np.testing.assert_allclose(found.numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.allclose(average.weights["1.running_mean"], model.state_dict()["1.running_mean"])


def test_a_model_has_the_average_for_a_while_and_its_own_weights_afterwards():
    model = torch.nn.Linear(2, 1)
    average = WeightAverage(model, 0.5)
    initial = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update(model)
    moved = model.weight.detach().clone()
    with average.applied_to(model):
        torch.testing.assert_close(model.weight.detach(), (initial + moved) / 2)
    assert torch.equal(model.weight, moved)
