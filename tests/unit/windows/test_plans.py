"""Which windows an epoch is made of."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from sensorium_data.errors import UsageError
from sensorium_data.windows import BatchPart, SessionTrials, Windows, plan_in_turn, plan_mixed
from sensorium_data.windows.plans import BatchPlan

PLANNERS = [plan_in_turn, plan_mixed]


def trials_of(session: str, n: int, n_frames: int = 300, first_id: int = 0) -> SessionTrials:
    return SessionTrials(session, tuple(range(first_id, first_id + n)), (n_frames,) * n)


def plan_alone(trials: SessionTrials, windows: Windows, **settings: Any) -> list[tuple[int, int]]:
    """Return the windows, (trial, first frame), of an epoch of one session."""
    arguments = {"batch_size": len(trials), "seed": 0, "epoch": 0} | settings
    return [window for batch in plan_in_turn([trials], windows, **arguments) for window in windows_of(batch)]


def windows_of(batch: BatchPlan) -> list[tuple[int, int]]:
    return [window for part in batch.parts for window in zip(part.trials, part.first_frames, strict=True)]


def test_the_largest_session_is_seen_once_and_smaller_ones_start_again() -> None:
    large, small = trials_of("G", 10), trials_of("F", 4)
    plan = plan_in_turn([large, small], Windows(80), batch_size=3, seed=1, epoch=0)
    parts = [part for batch in plan for part in batch.parts]

    assert [part.session for part in parts] == ["G", "F"] * 4
    assert sorted(trial for part in parts if part.session == "G" for trial in part.trials) == list(range(10))
    # The small session needs two batches a pass: four steps are two whole passes.
    of_small = [part.trials for part in parts if part.session == "F"]
    assert [len(trials) for trials in of_small] == [3, 1, 3, 1]
    assert sorted(of_small[0] + of_small[1]) == sorted(of_small[2] + of_small[3]) == [0, 1, 2, 3]


def test_a_session_that_starts_again_is_shuffled_again() -> None:
    plan = plan_in_turn([trials_of("G", 40), trials_of("F", 20)], Windows(80), batch_size=20, seed=1, epoch=0)
    first, second = (batch.parts[0] for batch in plan if batch.parts[0].session == "F")
    assert sorted(first.trials) == sorted(second.trials)
    assert first.trials != second.trials
    assert first.first_frames != second.first_frames
    # They are read again: the second visit is another one.
    assert not set(first.visits) & set(second.visits)


def test_several_windows_of_a_trial_in_an_epoch_are_different_ones_of_one_visit() -> None:
    plan = plan_in_turn([trials_of("F", 4)], Windows(80, n_per_trial=3), batch_size=4, seed=1, epoch=0)
    windows = [window for batch in plan for window in windows_of(batch)]
    assert sorted(trial for trial, _ in windows) == sorted(3 * [0, 1, 2, 3])
    assert len(set(windows)) == 12
    visits = {(t, v) for batch in plan for p in batch.parts for t, v in zip(p.trials, p.visits, strict=True)}
    assert len(visits) == 4


def test_every_window_that_fits_is_drawn_the_last_one_too() -> None:
    drawn = [first for _, first in plan_alone(trials_of("F", 400, n_frames=83), Windows(80))]
    assert set(drawn) == {0, 1, 2, 3}
    # Uniform: of 400 draws each offset gets 100, give or take 5 standard deviations.
    assert all(57 <= drawn.count(first) <= 143 for first in range(4))


def test_a_trial_as_long_as_the_window_gives_the_whole_trial() -> None:
    assert sorted(plan_alone(trials_of("F", 2, n_frames=80), Windows(80), epoch=3)) == [(0, 0), (1, 0)]


@pytest.mark.parametrize(
    ("windows", "first_frames"),
    [
        (Windows(80, position="tiling"), [0, 80, 160]),
        (Windows(100, position="tiling"), [0, 100, 200]),
        (Windows(301, position="tiling"), [0]),
        # 16 frames two apart reach over 31 of the trial.
        (Windows(16, stride=2, position="tiling"), list(range(0, 270, 31))),
    ],
)
def test_a_tiling_lays_window_after_window_from_the_first_frame(windows: Windows, first_frames: list[int]) -> None:
    drawn = plan_alone(SessionTrials("F", (7,), (301,)), windows)
    assert sorted(drawn) == [(7, first) for first in first_frames]


def test_windows_of_a_trial_are_not_dealt_out_together() -> None:
    plan = plan_in_turn([trials_of("F", 200)], Windows(80, n_per_trial=4), batch_size=8, seed=0, epoch=0)
    together = [max(Counter(batch.parts[0].trials).values()) for batch in plan]
    # Of 8 windows out of those of about 128 trials, two of one trial are an exception and three a rarity.
    assert max(together) <= 3
    assert sum(n > 1 for n in together) < 0.4 * len(plan)


def test_new_trials_come_in_evenly() -> None:
    plan = plan_in_turn([trials_of("F", 600)], Windows(80, n_per_trial=3), batch_size=10, seed=0, epoch=0)
    seen: set[int] = set()
    n_new = []
    for batch in plan:
        new = set(batch.parts[0].visits) - seen
        seen |= new
        n_new.append(len(new))
    # 180 batches of 10 visit 600 trials: a batch brings 3.3 new ones, and never only new ones once it has begun.
    begun = n_new[40:140]
    assert 2.8 <= sum(begun) / len(begun) <= 3.9
    assert max(begun) <= 9


def test_a_window_longer_than_a_trial_is_refused_with_both_lengths() -> None:
    trials = SessionTrials("F", (4, 9), (300, 240))
    for planner in PLANNERS:
        with pytest.raises(UsageError, match=r"trial 9.*found 240 frames, expected at least 300.*at most 240 frames"):
            planner([trials], Windows(300), batch_size=2, seed=0, epoch=0)
    with pytest.raises(UsageError, match=r"found 240 frames, expected at least 241"):
        plan_in_turn([trials], Windows(121, stride=2), batch_size=2, seed=0, epoch=0)
    assert len(plan_in_turn([trials], Windows(120, stride=2), batch_size=2, seed=0, epoch=0)) == 1


def test_a_session_keeps_its_windows_when_others_take_part() -> None:
    session = trials_of("F", 9)

    def windows(*others: str) -> list[tuple[int, int]]:
        sessions = [*(trials_of(other, 9, first_id=100) for other in others), session]
        # As many trials for each session, however many there are.
        plan = plan_in_turn(sessions, Windows(80), batch_size=2, seed=5, epoch=2, n_trials_shuffled=4 * len(sessions))
        return [window for batch in plan if batch.parts[0].session == "F" for window in windows_of(batch)]

    assert windows() == windows("G") == windows("H", "I")


@pytest.mark.parametrize("planner", PLANNERS)
def test_seed_epoch_and_session_each_change_the_windows(planner: Any) -> None:
    def draw(session: str = "F", seed: int = 0, epoch: int = 0) -> tuple[tuple[int, int], ...]:
        (batch,) = planner([trials_of(session, 30)], Windows(80), batch_size=30, seed=seed, epoch=epoch)
        return tuple(windows_of(batch))

    drawn = [draw(), draw(session="G"), draw(seed=1), draw(epoch=1)]
    assert len(set(drawn)) == 4
    # Not the same windows in another order either.
    assert len({tuple(sorted(windows)) for windows in drawn}) == 4
    assert draw() == drawn[0]


def test_how_many_trials_are_shuffled_changes_the_order_and_not_the_windows() -> None:
    sessions = [trials_of("F", 40), trials_of("G", 40)]

    def windows(n_trials_shuffled: int) -> list[tuple[str, int, int]]:
        plan = plan_in_turn(
            sessions, Windows(80, n_per_trial=2), batch_size=8, seed=3, epoch=1, n_trials_shuffled=n_trials_shuffled
        )
        return [(batch.parts[0].session, *window) for batch in plan for window in windows_of(batch)]

    few, many = windows(4), windows(60)
    assert few != many
    assert sorted(few) == sorted(many)


def test_mixed_batches_hold_several_sessions_and_whole_sizes_but_the_last() -> None:
    sessions = [trials_of(name, n) for name, n in (("F", 50), ("G", 20), ("H", 7))]
    plan = plan_mixed(sessions, Windows(80), batch_size=16, seed=0, epoch=0)
    # Those of the largest session from each: 150 windows.
    assert [len(batch) for batch in plan] == 9 * [16] + [6]
    assert plan.n_windows == 150
    assert Counter(part.session for batch in plan for part in batch.parts for _ in range(len(part))) == {
        "F": 50,
        "G": 50,
        "H": 50,
    }
    assert all(len(batch.parts) > 1 for batch in plan[:9])


def test_another_process_draws_the_same_windows() -> None:
    program = (
        "from sensorium_data.windows.plans import *;"
        "trials = [SessionTrials(name, tuple(range(30)), (300,) * 30) for name in 'FG'];"
        "settings = dict(batch_size=4, seed=7, epoch=2);"
        "print(plan_in_turn(trials, Windows(80), **settings)[3], plan_mixed(trials, Windows(80), **settings)[5])"
    )
    # Two hash seeds: Python's own hash of a string would give two different orders.
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    trials = [trials_of("F", 30), trials_of("G", 30)]
    in_turn = plan_in_turn(trials, Windows(80), batch_size=4, seed=7, epoch=2)[3]
    mixed = plan_mixed(trials, Windows(80), batch_size=4, seed=7, epoch=2)[5]
    assert printed == 2 * [f"{in_turn} {mixed}"]


def test_an_epoch_is_a_sequence() -> None:
    plan = plan_in_turn([trials_of("F", 10)], Windows(80), batch_size=4, seed=0, epoch=0)
    assert len(plan) == 3
    assert plan[-1] == plan[2] == list(plan)[2]
    assert plan[1:] == [plan[1], plan[2]]
    for outside in (3, -4):
        with pytest.raises(IndexError):
            plan[outside]


def test_a_share_takes_every_nth_window_over_the_parts() -> None:
    parts = (
        BatchPart("F", (10, 11, 12), (0, 1, 2), (4, 5, 6)),
        BatchPart("G", (20,), (3,), (7,)),
        BatchPart("H", (30, 31, 32, 33), (4, 5, 6, 7), (8, 9, 9, 8)),
    )
    batch = BatchPlan(parts, Windows(80))
    assert batch.share(0, 3).parts == (
        BatchPart("F", (10,), (0,), (4,)),
        BatchPart("G", (20,), (3,), (7,)),
        BatchPart("H", (32,), (6,), (9,)),
    )
    assert batch.share(1, 3).parts == (BatchPart("F", (11,), (1,), (5,)), BatchPart("H", (30, 33), (4, 7), (8, 8)))
    assert batch.share(0, 1) == batch


def test_of_fewer_windows_than_ranks_some_ranks_take_none() -> None:
    batch = BatchPlan((BatchPart("F", (1, 2), (0, 5), (0, 1)),), Windows(80))
    assert [batch.share(rank, 3).parts for rank in range(3)] == [
        (BatchPart("F", (1,), (0,), (0,)),),
        (BatchPart("F", (2,), (5,), (1,)),),
        (),
    ]


@pytest.mark.parametrize("planner", PLANNERS)
def test_sessions_without_trials_or_named_twice_are_refused(planner: Any) -> None:
    with pytest.raises(UsageError, match="no trials"):
        SessionTrials("F", (), ())
    with pytest.raises(UsageError, match=r"found 1 number, expected 2"):
        SessionTrials("F", (1, 2), (300,))
    with pytest.raises(UsageError, match="once"):
        planner([trials_of("F", 2), trials_of("F", 3)], Windows(80), batch_size=2, seed=0, epoch=0)
    with pytest.raises(UsageError, match="at least one session"):
        planner([], Windows(80), batch_size=2, seed=0, epoch=0)


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "found seed -1, epoch 0"),
        ({"epoch": -2}, "found seed 0, epoch -2"),
        ({"batch_size": 0}, "batch size: found 0, expected at least 1"),
        ({"n_trials_shuffled": 0}, "trials shuffled: found 0, expected at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(planner: Any, wrong: dict[str, int], message: str) -> None:
    arguments = {"batch_size": 2, "seed": 0, "epoch": 0} | wrong
    with pytest.raises(UsageError, match=message):
        planner([trials_of("F", 3)], Windows(80), **arguments)


def test_no_window_of_a_session_is_refused() -> None:
    with pytest.raises(UsageError, match="found 0, expected at least 1"):
        plan_mixed([trials_of("F", 3)], Windows(80), batch_size=2, seed=0, epoch=0, n_windows_per_session=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_frames": 0}, "n_frames of a window: found 0, expected a whole number, at least 1"),
        ({"n_frames": 8, "stride": 0}, "stride of a window: found 0"),
        ({"n_frames": 8, "n_per_trial": 0}, "n_per_trial of a window: found 0"),
        ({"n_frames": 8, "position": "center"}, "found 'center', expected random or tiling"),
    ],
)
def test_windows_of_no_form_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Windows(**wrong)
