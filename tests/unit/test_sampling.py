"""Which windows an epoch is made of."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sensorium_data.errors import UsageError
from sensorium_data.sampling import SessionTrials, count_steps, plan_batch, plan_epoch


def trials_of(session: str, n: int, n_frames: int = 300, first_id: int = 0) -> SessionTrials:
    return SessionTrials(session, tuple(range(first_id, first_id + n)), (n_frames,) * n)


def test_the_largest_session_is_seen_once_and_smaller_ones_start_again():
    large, small = trials_of("G", 10), trials_of("F", 4)
    plans = list(plan_epoch([large, small], n_frames=80, batch_size=3, seed=1, epoch=0))

    assert [plan.session for plan in plans] == ["G", "F"] * 4
    assert sorted(t for plan in plans if plan.session == "G" for t in plan.trials) == list(range(10))
    # The small session needs two batches a pass: four steps are two whole passes.
    of_small = [plan.trials for plan in plans if plan.session == "F"]
    assert [len(trials) for trials in of_small] == [3, 1, 3, 1]
    assert sorted(of_small[0] + of_small[1]) == sorted(of_small[2] + of_small[3]) == [0, 1, 2, 3]


def test_a_session_that_starts_again_is_shuffled_again():
    plans = [plan_batch(trials_of("F", 20), step, n_frames=80, batch_size=20, seed=1, epoch=0) for step in range(2)]
    assert plans[0].trials != plans[1].trials
    assert plans[0].first_frames != plans[1].first_frames


def test_several_windows_of_a_trial_in_an_epoch_are_different_ones():
    plans = list(plan_epoch([trials_of("F", 4)], n_frames=80, batch_size=4, seed=1, epoch=0, n_windows_per_trial=3))
    windows = [window for plan in plans for window in zip(plan.trials, plan.first_frames, strict=True)]
    assert sorted(trial for trial, _ in windows) == sorted(3 * [0, 1, 2, 3])
    assert len(set(windows)) == 12


def test_every_window_that_fits_is_drawn_the_last_one_too():
    trials = trials_of("F", 400, n_frames=83)
    drawn = plan_batch(trials, 0, n_frames=80, batch_size=400, seed=0, epoch=0).first_frames
    assert set(drawn) == {0, 1, 2, 3}
    # Uniform: of 400 draws each offset gets 100, give or take 5 standard deviations.
    assert all(57 <= drawn.count(first) <= 143 for first in range(4))


def test_a_trial_as_long_as_the_window_gives_the_whole_trial():
    plan = plan_batch(trials_of("F", 2, n_frames=80), 0, n_frames=80, batch_size=2, seed=0, epoch=3)
    assert plan.first_frames == (0, 0)


def test_a_window_longer_than_a_trial_is_refused_with_both_lengths():
    trials = SessionTrials("F", (4, 9), (300, 240))
    with pytest.raises(UsageError, match=r"trial 9.*found 240 frames, expected at least 300.*at most 240 frames"):
        plan_batch(trials, 0, n_frames=300, batch_size=2, seed=0, epoch=0)


def test_a_session_keeps_its_windows_when_others_take_part():
    alone = list(plan_epoch([trials_of("F", 9)], n_frames=80, batch_size=2, seed=5, epoch=2))
    together = plan_epoch([trials_of("G", 9), trials_of("F", 9)], n_frames=80, batch_size=2, seed=5, epoch=2)
    assert [p for p in together if p.session == "F"] == alone


def test_seed_epoch_and_session_each_change_the_order():
    def order(session: str = "F", seed: int = 0, epoch: int = 0) -> tuple[int, ...]:
        return plan_batch(trials_of(session, 30), 0, n_frames=80, batch_size=30, seed=seed, epoch=epoch).trials

    assert len({order(), order(session="G"), order(seed=1), order(epoch=1)}) == 4


def test_another_process_draws_the_same_windows():
    program = (
        "from sensorium_data.sampling import SessionTrials, plan_batch;"
        "t = SessionTrials('F', tuple(range(30)), (300,) * 30);"
        "print(plan_batch(t, 3, n_frames=80, batch_size=4, seed=7, epoch=2))"
    )
    # Two hash seeds: Python's own hash of a string would give two different orders.
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    here = plan_batch(trials_of("F", 30), 3, n_frames=80, batch_size=4, seed=7, epoch=2)
    assert printed == [str(here), str(here)]


def test_sessions_without_trials_or_named_twice_are_refused():
    with pytest.raises(UsageError, match="no trials"):
        SessionTrials("F", (), ())
    with pytest.raises(UsageError, match="once"):
        list(plan_epoch([trials_of("F", 2), trials_of("F", 3)], n_frames=80, batch_size=2, seed=0, epoch=0))
    with pytest.raises(UsageError, match="at least one session"):
        count_steps([], 8)
    with pytest.raises(UsageError, match="windows of each trial"):
        count_steps([trials_of("F", 2)], 8, 0)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"epoch": -1}, {"step": -1}, {"n_frames": 0}, {"batch_size": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    arguments = {"step": 0, "n_frames": 80, "batch_size": 2, "seed": 0, "epoch": 0} | wrong
    step = arguments.pop("step")
    with pytest.raises(UsageError):
        plan_batch(trials_of("F", 3), step, **arguments)
