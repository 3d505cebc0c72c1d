"""Schedule-free AdamW: its steps are the published ones, and what is validated is the average."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import schedulefree
import torch

from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.runs import load_run
from models.training import train
from models.training.schedule_free import ScheduleFreeAverage

pytestmark = pytest.mark.usefixtures("no_curves")
LR, DECAY, WARMUP, BETAS = 0.1, 0.05, 4, (0.9, 0.999)


def make_model(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double()


def make_optimizer(model):
    groups = [{"params": list(part.parameters()), "lr": LR, "weight_decay": DECAY} for part in model]
    optimizer = schedulefree.AdamWScheduleFree(groups, betas=BETAS, warmup_steps=WARMUP)
    return optimizer, ScheduleFreeAverage(model, optimizer)


def take_steps(model, optimizer, n_steps, first=0):
    for step in range(first, first + n_steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        optimizer.step()


def test_steps_and_average_are_those_of_the_formula():
    model = make_model()
    optimizer, average = make_optimizer(model)
    z = x = model[0].weight.detach().numpy().copy()
    second, weight_sum = np.zeros_like(z), 0.0
    for step in range(7):
        y = (1 - BETAS[0]) * z + BETAS[0] * x
        np.testing.assert_allclose(model[0].weight.detach().numpy(), y, atol=1e-12)
        np.testing.assert_allclose(average.weights["0.weight"].numpy(), x, atol=1e-12)
        gradient = torch.randn(z.shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64).numpy()
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        rate = LR * min(1, (step + 1) / WARMUP)
        direction = gradient / (np.sqrt(second / (1 - BETAS[1] ** (step + 1))) + 1e-8) + DECAY * y
        z = z - rate * direction
        weight_sum += rate**2
        x = x + rate**2 / weight_sum * (z - x)
        take_steps(model, optimizer, 1, first=step)


def test_the_average_is_lent_and_every_bit_comes_back():
    model = make_model()
    optimizer, average = make_optimizer(model)
    take_steps(model, optimizer, 3)
    own, expected = copy.deepcopy(model.state_dict()), average.weights
    with average.applied_to(model):
        for name, value in expected.items():
            assert torch.equal(model.state_dict()[name], value)
        assert not torch.equal(model.state_dict()["0.weight"], own["0.weight"])
        # Running statistics are not averaged.
        assert torch.equal(model.state_dict()["1.running_mean"], own["1.running_mean"])
    assert all(torch.equal(model.state_dict()[name], value) for name, value in own.items())


def test_going_on_from_other_weights_forgets_the_own_ones():
    model, best = make_model(), make_model(seed=1)
    optimizer, average = make_optimizer(model)
    take_steps(model, optimizer, 3)
    model.load_state_dict(best.state_dict())
    average.reset(best.state_dict())
    assert all(torch.allclose(value, best.state_dict()[name]) for name, value in average.weights.items())


def test_what_was_counted_goes_through_json():
    model = make_model()
    optimizer, average = make_optimizer(model)
    take_steps(model, optimizer, 3)
    other = copy.deepcopy(model)
    other_optimizer, other_average = make_optimizer(other)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        other_optimizer.state[theirs] = {name: value.clone() for name, value in optimizer.state[mine].items()}
    other_average.restore(json.loads(json.dumps(average.state())))
    take_steps(model, optimizer, 3, first=3)
    take_steps(other, other_optimizer, 3, first=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    record_session(path, "F", n_frames=40)
    return str(path)


def test_a_run_that_goes_back_to_its_best_weights_ends_with_the_same_bytes_after_an_interruption(store, tmp_path):
    # Each epoch is a restart: by 2 no correlation grows.
    config = tiny_config(
        n_frames_window=20,
        max_epochs=3,
        checkpoint_every_steps=1,
        optimizer="schedule-free-adamw",
        schedule_free_warmup_steps=3,
        gradient_norm_percentile=50.0,
        schedule="restarts",
        early_stopping_patience=1,
        n_rounds=9,
        tolerance=2.0,
    )
    whole = train(config, store, ["F"], tmp_path / "whole")

    def interrupt(label, n_done, n_total):
        if n_done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, store, ["F"], tmp_path / "interrupted", progress=interrupt)
    resumed = train(config, store, ["F"], tmp_path / "interrupted", resume=True)
    assert resumed.resumed_step == 4
    weights = [load_run(report.run).path.joinpath("model.safetensors").read_bytes() for report in (whole, resumed)]
    assert weights[0] == weights[1]


def test_one_average_is_enough():
    with pytest.raises(ValueError, match="averages the weights itself: leave ema_decay unset"):
        tiny_config(optimizer="schedule-free-adamw", ema_decay=0.9)
    with pytest.raises(ValueError, match="a first beta above 0"):
        tiny_config(optimizer="schedule-free-adamw", betas=(0.0, 0.9))
