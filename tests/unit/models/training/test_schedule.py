"""When the learning rate falls, the best weights come back, and training stops."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from models.config import override
from models.registry import get_preset
from models.training.schedule import CosineSchedule, PlateauSchedule, RestartSchedule, make_schedule, warm_up
from sensorium_data.errors import UsageError

STARTER_KIT = {
    "initial_score": 0.0,
    "learning_rate": 0.005,
    "patience": 5,
    "n_rounds": 4,
    "tolerance": 1e-6,
    "max_epochs": 200,
    "plateau_factor": 0.3,
    "plateau_patience": 5,
    "min_learning_rate": 1e-4,
}


def run_schedule(scores, **changes):
    """Return what happens epoch by epoch, e.g. ``[0.005, 0.005, "restore", 0.0015, "stop"]``."""
    schedule = PlateauSchedule(**STARTER_KIT | changes)
    events = []
    for score in scores:
        events.append(round(schedule.learning_rate, 9))
        decision = schedule.update(score)
        if decision.stops:
            return [*events, "stop"], schedule
        if decision.restores_best:
            events.append("restore")
    return events, schedule


def test_the_sequence_of_the_starter_kit_when_nothing_improves_after_the_first_epoch():
    events, schedule = run_schedule([0.1] + [0.05] * 100)
    assert events == [
        *[0.005] * 6, "restore",
        0.005, *[0.0015] * 4, "restore",
        *[0.0015] * 2, *[0.00045] * 3, "restore",
        *[0.00045] * 3, *[0.000135] * 2, "stop",
    ]  # fmt: skip
    assert (schedule.best_epoch, schedule.best_score) == (1, 0.1)


def test_an_untrained_model_that_is_never_beaten_stays_the_best():
    events, schedule = run_schedule([0.1] * 100, initial_score=0.2)
    assert events[:6] == [*[0.005] * 5, "restore"]
    assert schedule.best_epoch == 0


def test_an_improvement_within_the_tolerance_does_not_count():
    _, schedule = run_schedule([0.1, 0.1 + 9e-7, 0.1 + 2e-6], max_epochs=3)
    assert schedule.best_epoch == 3


def test_the_last_epoch_stops_training_on_the_best_weights():
    schedule = PlateauSchedule(**STARTER_KIT | {"max_epochs": 2})
    assert not schedule.update(0.3).stops
    last = schedule.update(0.2)
    assert last.stops
    assert last.restores_best


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_ends_training_on_the_best_weights(score):
    schedule = PlateauSchedule(**STARTER_KIT)
    assert schedule.update(0.1).improved
    last = schedule.update(score)
    assert (last.improved, last.restores_best, last.stops) == (False, True, True)
    assert (schedule.best_epoch, schedule.best_score) == (1, 0.1)


def test_the_learning_rate_is_that_of_torchs_scheduler():
    generator = np.random.default_rng(3)
    scores = np.cumsum(generator.normal(0.001, 0.02, size=150))
    schedule = PlateauSchedule(**STARTER_KIT | {"n_rounds": 1000, "max_epochs": 1000})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.005)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.3, patience=5, threshold=1e-6, threshold_mode="abs", min_lr=1e-4
    )
    for score in scores:
        decision = schedule.update(float(score))
        reference.step(float(score))
        assert decision.learning_rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert schedule.learning_rate == pytest.approx(1e-4)


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"n_rounds": 0}, {"max_epochs": 0}, {"plateau_factor": 1.0}])
def test_numbers_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError):
        PlateauSchedule(**STARTER_KIT | wrong)


def test_a_cosine_falls_from_the_first_rate_to_the_lowest_and_keeps_the_best_epoch():
    schedule = make_schedule(
        get_preset("factorized3d").model_copy(
            update={"schedule": "cosine", "learning_rate": 0.01, "min_learning_rate": 0.001, "max_epochs": 4}
        ),
        initial_score=0.05,
    )
    rates, decisions = [], []
    for score in (0.1, 0.3, 0.2, 0.25):
        rates.append(schedule.learning_rate)
        decisions.append(schedule.update(score))

    np.testing.assert_allclose(rates, 0.001 + 0.009 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2)
    assert [decision.improved for decision in decisions] == [True, True, False, False]
    assert [decision.stops for decision in decisions] == [False, False, False, True]
    assert decisions[-1].restores_best
    assert decisions[-1].learning_rate == pytest.approx(0.001)
    assert (schedule.best_epoch, schedule.best_score) == (2, 0.3)


@pytest.mark.parametrize(
    "preset", ["factorized3d", "factorized3d-demo", "full3d", "gru", "gru-equivariant", "static2d"]
)
def test_the_official_recipes_have_the_starter_kits_schedule(preset):
    schedule = make_schedule(get_preset(preset), initial_score=0.0)
    rates = []
    for epoch in range(1, 22):
        rates.append(schedule.learning_rate)
        decision = schedule.update(0.1 if epoch == 1 else 0.05)
    assert decision.stops
    assert [rates.count(rate) for rate in dict.fromkeys(rates)] == [7, 6, 6, 2]


def test_a_cosine_that_would_rise_is_refused():
    with pytest.raises(UsageError, match="cannot fall"):
        CosineSchedule(initial_score=0.0, learning_rate=0.001, min_learning_rate=0.01, max_epochs=3)
    with pytest.raises(UsageError, match="epochs"):
        CosineSchedule(initial_score=0.0, learning_rate=0.01, min_learning_rate=0.001, max_epochs=0)


def test_a_cosine_falls_at_every_step_as_torchs_does_after_a_linear_warmup():
    n_steps, warmup_epochs, max_epochs = 5, 3, 9
    schedule = CosineSchedule(
        initial_score=0.0, learning_rate=2.4e-3, min_learning_rate=2.4e-5, max_epochs=9, warmup_epochs=3
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.4e-3)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / (n_steps * warmup_epochs)))
    falling = None
    for epoch in range(max_epochs):
        for step in range(n_steps):
            if epoch == warmup_epochs and not step:
                falling = torch.optim.lr_scheduler.CosineAnnealingLR(
                    optimizer, n_steps * (max_epochs - warmup_epochs), eta_min=2.4e-5
                )
            rate = optimizer.param_groups[0]["lr"]
            assert schedule.learning_rate_at(step / n_steps) == pytest.approx(rate, rel=1e-6, abs=1e-12)
            optimizer.step()
            (falling or warmup).step()
        schedule.update(0.1)


def test_a_plateaus_rate_rises_first():
    schedule = PlateauSchedule(**STARTER_KIT | {"warmup_epochs": 2})
    rates = []
    for _ in range(3):
        rates += [schedule.learning_rate_at(share) for share in (0, 0.5)]
        schedule.update(0.1)
    np.testing.assert_allclose(rates, [0, 0.00125, 0.0025, 0.00375, 0.005, 0.005])


@pytest.mark.parametrize("kind", ["cosine", "plateau"])
def test_a_restored_schedule_decides_alike(kind):
    config = get_preset("factorized3d").model_copy(update={"schedule": kind, "max_epochs": 20, "warmup_epochs": 2})
    scores = np.random.default_rng(0).normal(0.1, 0.01, 20)
    whole = make_schedule(config, initial_score=0.05)
    for number, score in enumerate(scores):
        halfway = make_schedule(config, initial_score=float("-inf"))
        halfway.restore(json.loads(json.dumps(whole.state())))
        if number == 0:
            assert halfway.best_score == 0.05
        decision = whole.update(score)
        assert halfway.update(score) == decision
        if decision.stops:
            break
    assert number > 5


def test_a_cosine_that_keeps_the_last_epoch_does_so_whatever_its_score():
    schedule = CosineSchedule(
        initial_score=0.5, learning_rate=0.1, min_learning_rate=0.01, max_epochs=4, keeps_last=True
    )
    decisions = [schedule.update(score) for score in (0.3, math.nan, 0.4, 0.2)]
    assert [decision.improved for decision in decisions] == [True, False, True, True]
    assert [decision.stops for decision in decisions] == [False, False, False, True]
    assert (schedule.best_epoch, schedule.best_score) == (4, 0.2)


def test_a_plateau_cannot_keep_the_last_epoch():
    with pytest.raises(UsageError, match="keeps last needs schedule cosine"):
        override(get_preset("factorized3d"), {"keeps": "last"})


def test_the_schedule_of_dynamic_v1fm():
    config = get_preset("dynamic-v1fm")
    # mmcv's linear warm-up by 600 steps, over its regular rate.
    for n_steps in (0, 1, 150, 599, 600, 10_000):
        expected = 1 - (1 - n_steps / 600) * (1 - 1 / 3) if n_steps < 600 else 1
        assert warm_up(config, n_steps) == pytest.approx(expected)
    assert warm_up(config, 0) == pytest.approx(1 / 3)
    schedule = make_schedule(config, initial_score=0.0)
    rates = []
    for _ in range(180):
        rates.append(schedule.learning_rate)
        decision = schedule.update(-1.0)
        assert decision.improved
    assert decision.stops
    assert rates[:81] == [0.001] * 81
    cosine = [1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi * epoch / 100)) / 2 for epoch in range(100)]
    np.testing.assert_allclose(rates[80:], cosine)
    assert schedule.learning_rate == pytest.approx(1e-6)


def test_epochs_before_a_cosine_belong_to_it():
    with pytest.raises(UsageError, match="constant_epochs are for schedule cosine, not plateau"):
        override(get_preset("factorized3d"), {"constant_epochs": "3"})
    few = make_schedule(override(get_preset("dynamic-v1fm"), {"max_epochs": "2"}), initial_score=0.0)
    assert [few.update(0.1).learning_rate, few.update(0.2).learning_rate] == [0.001, 0.001]


def test_a_recipe_without_warmup_steps_has_its_rate_at_once():
    assert warm_up(get_preset("factorized3d"), 0) == 1


VIVIT = {
    "initial_score": 0.0,
    "learning_rate": 0.0036,
    "patience": 5,
    "n_rounds": 3,
    "tolerance": 0.0,
    "max_epochs": 400,
    "factor": 0.3,
    "min_learning_rate": 1e-7,
    "collapse_score": 0.05,
}


def run_restarts(scores, **changes):
    schedule = RestartSchedule(**VIVIT | changes)
    events = []
    for score in scores:
        events.append(round(schedule.learning_rate, 9))
        decision = schedule.update(score)
        if decision.stops:
            assert decision.restores_best
            return [*events, "stop"], schedule
        if decision.restores_best:
            events.append("restore")
    return events, schedule


def test_the_sequence_of_vivit_when_nothing_improves_after_the_first_epoch():
    events, schedule = run_restarts([0.2] + [0.1] * 100)
    assert events == [*[0.0036] * 6, "restore", *[0.00108] * 5, "restore", *[0.000324] * 5, "stop"]
    assert (schedule.best_epoch, schedule.best_score) == (1, 0.2)


def test_a_better_score_begins_the_count_of_restarts_anew():
    events, _ = run_restarts([0.2] + [0.1] * 10 + [0.3] + [0.1] * 100)
    assert events.count("restore") == 4
    assert events[-2:] == [round(0.0036 * 0.3**4, 9), "stop"]


def test_a_collapsed_epoch_is_taken_back_and_not_counted():
    events, _ = run_restarts([0.2, 0.1, 0.004, -0.3, *[0.1] * 4])
    assert events == [*[0.0036] * 3, "restore", 0.0036, "restore", *[0.0036] * 4, "restore"]
    # Before anything was learned, and where the rule is not wanted, it is an epoch like others.
    for changes in ({"initial_score": 0.04}, {"collapse_score": None, "initial_score": 0.2}):
        assert run_restarts([0.0] * 4, **changes)[0] == [0.0036] * 4


def test_one_round_stops_the_first_time():
    events, _ = run_restarts([0.2] + [0.1] * 20, patience=10, n_rounds=1)
    assert events == [*[0.0036] * 11, "stop"]


def test_restarts_are_what_the_vivit_recipes_ask_for():
    for name, n_rounds in (("vivit", 3), ("vivit-causal", 1)):
        schedule = make_schedule(get_preset(name), initial_score=0.0)
        assert isinstance(schedule, RestartSchedule)
        scores = [0.2] + [0.1] * 60
        decisions = [
            schedule.update(score) for score in scores[: 1 + n_rounds * get_preset(name).early_stopping_patience]
        ]
        assert [decision.stops for decision in decisions] == [False] * (len(decisions) - 1) + [True]


def test_restarts_go_on_from_their_state():
    schedule = RestartSchedule(**VIVIT)
    for score in [0.2, *[0.1] * 7]:
        schedule.update(score)
    other = RestartSchedule(**VIVIT)
    other.restore(json.loads(json.dumps(schedule.state())))
    for score in [0.1] * 8:
        assert other.update(score) == schedule.update(score)


@pytest.mark.parametrize("changes", [{"patience": 0}, {"factor": 1.0}])
def test_restarts_out_of_range_are_refused(changes):
    with pytest.raises(UsageError, match="restart"):
        RestartSchedule(**VIVIT | changes)


def test_a_collapse_is_for_restarts_alone():
    with pytest.raises(UsageError, match="collapse_score is for schedule restarts"):
        override(get_preset("factorized3d"), {"collapse_score": "0.05"})
